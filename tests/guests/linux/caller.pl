# A guest that calls the one that security groups guard: `friend`, which a rule names, or `stranger`. What is sent is made
# frame by frame, and the other side says what of it has come; so it is sure both that things pass and that they do not.
use strict;
use warnings;
use IO::Socket::INET;
BEGIN {
    my ($folder) = $0 =~ m{(.*)/};
    require "$folder/wire.pl";
}

chomp(my $name = `hostname`);
my $is_friend = $name eq 'friend';
my %mac = (guarded => '52:54:00:df:00:00', friend => '52:54:00:df:01:00', stranger => '52:54:00:df:02:00');
my %address = (guarded => '10.0.2.15', friend => '10.0.2.16', stranger => '10.0.2.17');
my ($own_mac, $own, $guarded) = ($mac{$name}, $address{$name}, $address{guarded});

my $wire = open_wire();
my $control;
for (1 .. 120) {
    last if $control = IO::Socket::INET->new(PeerAddr => $guarded, PeerPort => 7000, Timeout => 1);
    rest(0.5);
}
die "nobody listens" unless $control;
$control->autoflush(1);

sub ask {
    my $question = "@_";
    my $answer = in_time("the answer to '$question'", sub {
        print $control "$question\n";
        return scalar <$control>;
    }) // die "the guarded guest is gone at '$question'\n";
    chomp $answer;
    return $answer;
}

# From here to there, and from there to here.
sub there { put($wire, ether($mac{guarded}, $own_mac, 0x800, $_[0])) }
sub here { ask('send', unpack 'H*', ether($own_mac, $mac{guarded}, 0x800, $_[0])) }

# Whether it has come there, and here.
my %seen;
sub look {
    while (my ($frame) = take($wire)) { $seen{ words($frame) }++ }
}
sub is_there { ask('seen', @_) > 0 }
sub is_here {
    look();
    return scalar grep { index($_, "@_") >= 0 } keys %seen;
}

# The table: which way it goes, what, to which port, and whether the friend's and the stranger's pass.
my @rules = (
    # By address.
    ['in', 'tcp', 80, 1, 0],
    # No rule speaks of it.
    ['in', 'tcp', 22, 0, 0],
    # By port: a range, its ends and what is beside it.
    ['in', 'tcp', 7999, 0, 0],
    ['in', 'tcp', 8000, 1, 1],
    ['in', 'tcp', 8080, 1, 1],
    ['in', 'tcp', 8081, 0, 0],
    # By protocol.
    ['in', 'udp', 80, 0, 0],
    ['in', 'udp', 5002, 1, 1],
    ['in', 'icmp', 8, 1, 0],
    # A rule of a lower number that denies.
    ['in', 'udp', 5005, 0, 0],
    # By direction.
    ['out', 'udp', 5002, 0, 0],
    ['out', 'udp', 53, 1, 1],
    ['out', 'tcp', 443, 1, 0],
    ['out', 'tcp', 8000, 0, 0],
    ['out', 'icmp', 8, 0, 0],
);
my $port = 20000;
my @against;
for my $row (@rules) {
    my ($direction, $protocol, $service, $friend, $stranger) = @$row;
    my ($from, $to) = $direction eq 'in' ? ($own, $guarded) : ($guarded, $own);
    $port++;
    my ($packet, $words) =
          $protocol eq 'tcp' ? (tcp($from, $port, $to, $service, 2), "tcp $from:$port>$to:$service 2")
        : $protocol eq 'udp' ? (udp($from, $port, $to, $service, 'question'), "udp $from:$port>$to:$service")
        : (icmp($from, $to, $service, 0, pack 'nn', $port, 1), "icmp $from>$to $service/0");
    my $passes = $direction eq 'in' ? (there($packet), is_there($words)) : (here($packet), is_here($words));
    push @against, "[$words] " . ($passes ? 'passes;' : 'does not pass;') if !$passes != !($is_friend ? $friend : $stranger);
}
ok "rules", @against;

# Answers pass without a rule of their own, and what only looks like an answer does not.
@against = ();
sub expect {
    my ($passes, $wanted, $what) = @_;
    push @against, "$what " . ($passes ? 'passes;' : 'does not pass;') if !$passes != !$wanted;
}
# Waits for what a kernel or program sends on its own.
sub comes {
    my ($words) = @_;
    my $until = now() + 10;
    until (is_here($words)) {
        return 0 if now() > $until;
        rest(0.05);
    }
    return 1;
}
there(tcp($own, 21000, $guarded, 8000, 2));
expect(comes("tcp $guarded:8000>$own:21000 18"), 1, "TCP's answer");
there(tcp($own, 21001, $guarded, 8000, 16));
expect(is_there("$own:21001>$guarded:8000"), 0, 'an ACK of no connection');
here(tcp($guarded, 8000, $own, 21002, 18));
expect(is_here("$guarded:8000>$own:21002"), 0, 'a SYN and ACK that answer nothing');
there(udp($own, 21003, $guarded, 5000, 'echo'));
expect(comes("udp $guarded:5000>$own:21003"), 1, "UDP's answer");
here(udp($guarded, 5000, $own, 21004, 'nothing'));
expect(is_here("$guarded:5000>$own:21004"), 0, 'a datagram that answers nothing');
here(udp($guarded, 21005, $own, 53, 'question'));
there(udp($own, 53, $guarded, 21005, 'answer'));
expect(is_there("$own:53>$guarded:21005"), 1, 'an answer to the guarded');
there(udp($own, 53, $guarded, 21006, 'nothing'));
expect(is_there("$own:53>$guarded:21006"), 0, 'an answer that it did not ask for');
if ($is_friend) {
    there(icmp($own, $guarded, 8, 0, pack 'nn', 21007, 1));
    expect(comes("icmp $guarded>$own 0/0"), 1, 'the answer to an echo');
}
ok "answers", @against;

# Errors pass with the connection that they quote. Nobody listens at 5001.
@against = ();
there(udp($own, 22000, $guarded, 5001, 'question'));
expect(comes("icmp $guarded>$own 3/3"), 1, 'the error that a datagram had');
here(icmp($guarded, $own, 3, 1, pack('N', 0) . udp($own, 22001, $guarded, 9, 'never was')));
expect(is_here("icmp $guarded>$own 3/1"), 0, 'an error of no connection');
unless ($is_friend) {
    # The friend's ICMP passes by a rule.
    there(icmp($own, $guarded, 3, 1, pack('N', 0) . udp($guarded, 22002, $own, 9, 'never was')));
    expect(is_there("icmp $own>$guarded 3/1"), 0, 'an error of nothing that the guarded has sent');
    here(udp($guarded, 22003, $own, 53, 'question'));
    there(icmp($own, $guarded, 3, 2, pack('N', 0) . udp($guarded, 22003, $own, 53, 'question')));
    expect(is_there("icmp $own>$guarded 3/2"), 1, 'an error of what the guarded has sent');
}
ok "errors", @against;

# Who a guest may say it is. What is its own passes, beside each of the others that do not.
@against = ();
my $other = $is_friend ? 'stranger' : 'friend';
my $link_local = $is_friend ? 'fe80::5054:ff:fedf:100' : 'fe80::5054:ff:fedf:200';
my @spoofed = (
    ['its own', $own_mac, 0x800, udp($own, 23000, $guarded, 5002, ''), "$own:23000>", 1],
    ["another's Ethernet address", $mac{$other}, 0x800, udp($own, 23001, $guarded, 5002, ''), "$own:23001>", 0],
    ["nobody's Ethernet address", '52:54:00:00:00:77', 0x800, udp($own, 23002, $guarded, 5002, ''), "$own:23002>", 0],
    ["another's Internet address", $own_mac, 0x800, udp($address{$other}, 23003, $guarded, 5002, ''), ':23003>', 0],
    ["the guarded's Internet address", $own_mac, 0x800, udp($guarded, 23004, $guarded, 5002, ''), ':23004>', 0],
    ['its own in ARP', $own_mac, 0x806, arp($own_mac, $own, $guarded), "arp $own", 1],
    ["another's in ARP", $own_mac, 0x806, arp($own_mac, '10.0.2.99', $guarded), 'arp 10.0.2.99', 0],
    ["another's Ethernet address in ARP", $own_mac, 0x806, arp($mac{$other}, '10.0.2.98', $guarded), 'arp 10.0.2.98', 0],
    ['its own of IPv6', $own_mac, 0x86dd, udp($link_local, 23005, 'fe80::5054:ff:fedf:0', 5002, ''), ':23005>', 1],
    ["another's of IPv6", $own_mac, 0x86dd, udp('fd00::99', 23006, 'fe80::5054:ff:fedf:0', 5002, ''), ':23006>', 0],
);
for my $case (@spoofed) {
    my ($what, $from, $type, $packet, $words, $wanted) = @$case;
    put($wire, ether($mac{guarded}, $from, $type, $packet));
    expect(is_there($words), $wanted, $what);
}
ok "anti-spoofing", @against;

# Three times as much as is allowed. Bandwidth counts bytes from the Ethernet header on.
use constant SECONDS => 7;
my ($limit, $unit, $size) = $is_friend ? (200, 'frames', 100) : (200 << 10, 'bytes', 1000);
my $per_second = 3 * ($is_friend ? $limit : $limit / $size);
my $number = SECONDS * $per_second;
my $content = 'x' x ($size - 42);
my $missed;
# The best of three, as the host may be busy for a while: then what the bucket has let pass arrives late.
for my $port (24000 .. 24002) {
    my $frame = ether($mac{guarded}, $own_mac, 0x800, udp($own, $port, $guarded, 5002, $content));
    for (my ($sent, $start) = (0, now()); $sent < $number; rest(0.005)) {
        for (; $sent < $number && $sent < (now() - $start) * $per_second; $sent++) { put($wire, $frame) }
    }
    $missed = ask('missed', $limit, SECONDS - 2, $unit, "$own:$port>") or last;
}
ok "limit of what is sent", $missed ? $missed : ();
ask('end');
