# `two` sends datagrams to `one` while the host changes the rules that `two` is under, of which there are a hundred: the first
# change forbids the datagrams, the second allows them again. Each datagram says how many changes `two` had been told of when it
# sent it, or that one was under way; so none of those that say 1 may ever come. `one` counts what comes, and tells over a
# connection that stays allowed.
use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;

use constant { DATAGRAMS => 5000, CONTROL => 7000 };
# How many datagrams are sent between two changes, with what pauses, and how long an answer of the host's may take.
use constant { EACH => 300, PAUSE_S => 0.001, PATIENCE_S => 60 };
# What datagrams say when a change is under way.
use constant UNDER_WAY => 3;

$| = 1;
chomp(my $name = `hostname`);
$name eq 'one' ? receive() : send_all();

sub receive {
    my $datagrams = IO::Socket::INET->new(LocalPort => DATAGRAMS, Proto => 'udp') // die "udp: $!";
    my $control = IO::Socket::INET->new(LocalPort => CONTROL, Listen => 1, ReuseAddr => 1) // die "tcp: $!";
    my $select = IO::Select->new($datagrams, $control);
    my @seen = (0, 0, 0, 0);
    my $look = sub {
        $datagrams->recv(my $changes, 16) // die "udp: $!";
        $seen[$changes]++;
    };
    while (1) {
        for my $ready ($select->can_read) {
            if ($ready == $datagrams) {
                $look->();
            } elsif ($ready == $control) {
                my $asker = $control->accept // die "tcp: $!";
                $asker->autoflush(1);
                $select->add($asker);
            } else {
                # What was sent before the question has come before it.
                $look->() while IO::Select->new($datagrams)->can_read(0);
                return unless defined <$ready>;
                print $ready "@seen\n";
            }
        }
    }
}

sub send_all {
    my $control;
    for (1 .. 120) {
        last if $control = IO::Socket::INET->new(PeerAddr => 'one', PeerPort => CONTROL, Timeout => 1);
        select undef, undef, undef, 0.5;
    }
    die "one does not listen\n" unless $control;
    $control->autoflush(1);
    my $datagrams = IO::Socket::INET->new(PeerAddr => 'one', PeerPort => DATAGRAMS, Proto => 'udp') // die "udp: $!";
    my $console = IO::Select->new(\*STDIN);
    my $send = sub {
        $datagrams->send(shift);
        select undef, undef, undef, PAUSE_S;
    };
    for my $changes (0 .. 2) {
        $send->($changes) for 1 .. EACH;
        last if $changes == 2;
        print "[check] ask rules\n";
        my $end = time + PATIENCE_S;
        until ($console->can_read(0)) {
            die "the host does not answer\n" if time > $end;
            $send->(UNDER_WAY);
        }
        chomp(my $answer = <STDIN>);
        die "$answer\n" unless $answer =~ /are in force/;
    }
    print $control "how many?\n";
    my @seen = split ' ', <$control> // die "one is gone\n";
    print "[check] note datagrams: @seen\n";
    die "$seen[1] came by an old rule\n" if $seen[1];
    die "of those that were allowed none came: @seen\n" unless $seen[0] && $seen[2];
}
