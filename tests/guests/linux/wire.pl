# Frames as they are on the wire: made, sent and seen by a guest's own program, past its kernel's opinion of them.
use strict;
use warnings;
use Socket qw(AF_INET AF_INET6 SOCK_RAW SOL_SOCKET inet_pton);

# linux/if_packet.h, linux/if_ether.h, linux/sockios.h, asm-generic/socket.h, asm/unistd_64.h, linux/time.h
use constant { AF_PACKET => 17, ETH_P_ALL => 3, PACKET_OUTGOING => 4, SIOCGSTAMP => 0x8906, SO_RCVBUFFORCE => 33 };
use constant { CLOCK_GETTIME => 228, CLOCK_MONOTONIC => 1 };
# A few seconds of frames.
use constant BUFFER_BYTES => 16 << 20;
# How long one side may wait for the other, or for room to send: longer than TCP takes to send again what a limit has dropped.
use constant PATIENCE_S => 120;

# Seconds by the guest's clock, from any moment on.
sub now {
    my $time = pack 'x16';
    syscall CLOCK_GETTIME, CLOCK_MONOTONIC, $time;
    my ($seconds, $nanoseconds) = unpack 'qq', $time;
    return $seconds + $nanoseconds / 1e9;
}
sub rest { select undef, undef, undef, $_[0] }

# What the host reads: the check NAME has passed, unless something is said against it.
sub ok {
    my ($name, @against) = @_;
    $| = 1;
    print @against ? "[check] fail $name: @against\n" : "[check] ok $name\n";
}

# Everything that passes eth0.
sub open_wire {
    open my $file, '<', '/sys/class/net/eth0/ifindex' or die "eth0: $!";
    chomp(my $index = <$file>);
    socket my $wire, AF_PACKET, SOCK_RAW, unpack('S', pack 'n', ETH_P_ALL) or die "socket: $!";
    setsockopt $wire, SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES or die "setsockopt: $!";
    bind $wire, pack('SnlSCCx8', AF_PACKET, ETH_P_ALL, $index, 0, 0, 0) or die "bind: $!";
    $wire->blocking(0);
    return $wire;
}

# What `$work` gives. It may wait for the other side; a wait that is too long ends the program, which says for what.
sub in_time {
    my ($what, $work) = @_;
    local $SIG{ALRM} = sub { die "waited " . PATIENCE_S . " s for $what\n" };
    alarm PATIENCE_S;
    my $result = $work->();
    alarm 0;
    return $result;
}

# Sends a frame; waits for room.
sub put {
    my ($wire, $frame) = @_;
    my $until;
    until (defined syswrite $wire, $frame) {
        die "send: $!" unless $!{ENOBUFS} || $!{EAGAIN};
        $until //= now() + PATIENCE_S;
        die "waited " . PATIENCE_S . " s for room to send " . words($frame) . "\n" if now() > $until;
        rest(0.001);
    }
}

# The next frame that has come from outside, and when; nothing if there is none.
sub take {
    my ($wire) = @_;
    while (defined(my $from = recv $wire, my $frame, 65536, 0)) {
        next if (unpack 'SnlSCC', $from)[4] == PACKET_OUTGOING;
        my $stamp = pack 'x16';
        ioctl $wire, SIOCGSTAMP, $stamp or die "SIOCGSTAMP: $!";
        my ($seconds, $microseconds) = unpack 'qq', $stamp;
        return ($frame, $seconds + $microseconds / 1e6);
    }
    return;
}

# RFC 1071.
sub checksum {
    my ($bytes) = @_;
    my $sum = unpack '%32n*', length($bytes) % 2 ? "$bytes\0" : $bytes;
    $sum = ($sum & 0xffff) + ($sum >> 16) while $sum >> 16;
    return ~$sum & 0xffff;
}

sub ether {
    my ($to, $from, $type, $content) = @_;
    my $frame = pack('(H2)6(H2)6n', split(/:/, $to), split(/:/, $from), $type) . $content;
    return $frame . "\0" x (60 - length $frame > 0 ? 60 - length $frame : 0);
}

# An IP packet, of the version that its addresses are of, around a transport's bytes, whose checksum is at `$at` there.
sub ip {
    my ($from, $to, $protocol, $at, $content) = @_;
    my $family = $from =~ /:/ ? AF_INET6 : AF_INET;
    my ($source, $target) = map { inet_pton $family, $_ } $from, $to;
    my $pseudo = $protocol == 1 ? '' : $source . $target . pack 'NN', length $content, $protocol;
    substr $content, $at, 2, pack 'n', checksum($pseudo . $content);
    return pack('NnCC', 6 << 28, length $content, $protocol, 64) . $source . $target . $content if $family == AF_INET6;
    my $header = pack('CCnnnCCn', 0x45, 0, 20 + length $content, 1, 0, 64, $protocol, 0) . $source . $target;
    substr $header, 10, 2, pack 'n', checksum($header);
    return $header . $content;
}

sub udp {
    my ($from, $from_port, $to, $to_port, $content) = @_;
    return ip($from, $to, 17, 6, pack('nnnn', $from_port, $to_port, 8 + length $content, 0) . $content);
}

# Flags: 2 is SYN, 16 is ACK.
sub tcp {
    my ($from, $from_port, $to, $to_port, $flags) = @_;
    return ip($from, $to, 6, 16, pack 'nnNNCCnnn', $from_port, $to_port, 1000, 0, 5 << 4, $flags, 8192, 0, 0);
}

sub icmp {
    my ($from, $to, $type, $code, $content) = @_;
    return ip($from, $to, 1, 2, pack('CCn', $type, $code, 0) . $content);
}

# That an address of IPv4 is at an Ethernet address.
sub arp {
    my ($mac, $address, $target) = @_;
    my $hardware = pack '(H2)6', split /:/, $mac;
    return pack('nnCCn', 1, 0x800, 6, 4, 1) . $hardware . inet_pton(AF_INET, $address) . "\0" x 6
        . inet_pton(AF_INET, $target);
}

# A frame in words: Ethernet sender, protocol, addresses with ports, and TCP's flags or ICMP's type and code.
sub words {
    my ($frame) = @_;
    my ($mac, $type) = unpack 'x6H12n', $frame;
    my $packet = substr $frame, 14;
    my $dotted = sub { join '.', unpack 'C4', substr $packet, $_[0], 4 };
    return "$mac arp " . $dotted->(14) if $type == 0x806;
    my ($protocol, $length, $from, $to) = (0, 0);
    if ($type == 0x800) {
        ($protocol, $length, $from, $to) = (ord substr($packet, 9, 1), 4 * (ord($packet) & 15), $dotted->(12), $dotted->(16));
    } elsif ($type == 0x86dd) {
        ($protocol, $length) = (ord substr($packet, 6, 1), 40);
        ($from, $to) = map { Socket::inet_ntop(AF_INET6, substr $packet, $_, 16) } 8, 24;
    } else {
        return sprintf '%s type %04x', $mac, $type;
    }
    my $content = substr $packet, $length;
    my ($first, $second) = unpack 'nn', $content;
    return "$mac udp $from:$first>$to:$second" if $protocol == 17;
    return "$mac tcp $from:$first>$to:$second " . (ord(substr $content, 13, 1) & 0x17) if $protocol == 6;
    return sprintf '%s icmp %s>%s %d/%d', $mac, $from, $to, unpack 'CC', $content if $protocol == 1;
    return "$mac protocol $protocol";
}

1;
