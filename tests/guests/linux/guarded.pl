# The guest that security groups guard: it listens where callers call, and tells them, over a connection that a rule
# allows, what has come to it. What comes before a question has come when the question has, as frames keep their order.
use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;
use Socket qw(MSG_DONTWAIT);
BEGIN {
    my ($folder) = $0 =~ m{(.*)/};
    require "$folder/wire.pl";
    require "$folder/rate.pl";
}

use constant CALLERS => 2;
# How long there may be no question: longer than a caller tries to reach this guest, and than it waits for an answer.
use constant SILENCE_S => 300;

my $wire = open_wire();
my (%seen, @open);
sub look {
    while (my ($frame, $time) = take($wire)) {
        my $words = words($frame);
        push @{ $seen{$words} }, [$time, length $frame];
    }
}

# What is there for callers to reach, beside SSH. The one at 5000 answers.
for my $port (80, 7999, 8000, 8080, 8081) {
    push @open, IO::Socket::INET->new(LocalPort => $port, Listen => 64, ReuseAddr => 1) // die "tcp $port: $!";
}
push @open, IO::Socket::INET->new(LocalPort => 5002, Proto => 'udp') // die "udp: $!";
my $echo = IO::Socket::INET->new(LocalPort => 5000, Proto => 'udp') // die "udp: $!";
my $control = IO::Socket::INET->new(LocalPort => 7000, Listen => 8, ReuseAddr => 1) // die "tcp: $!";

sub answer {
    my ($command, @words) = @_;
    look();
    if ($command eq 'send') {
        put($wire, pack 'H*', $words[0]);
        return 'sent';
    } elsif ($command eq 'seen') {
        return scalar grep { index($_, "@words") >= 0 } keys %seen;
    } elsif ($command eq 'missed') {
        my ($expected, $seconds, $unit, @name) = @words;
        my ($sum, @points) = 0;
        for my $frame (map { @{ $seen{$_} } } grep { index($_, "@name") >= 0 } keys %seen) {
            push @points, [$frame->[0], $sum += $unit eq 'bytes' ? $frame->[1] : 1];
        }
        return missed($expected, $seconds, @points) // '';
    }
    die "no command: $command";
}

my $select = IO::Select->new($wire, $echo, $control);
my $ended = 0;
my ($last, $asked) = ('none', now());
while ($ended < CALLERS) {
    die "no question for " . SILENCE_S . " s; $ended callers have ended, the last question was '$last'\n"
        if now() > $asked + SILENCE_S;
    for my $ready ($select->can_read(1)) {
        if ($ready == $wire) {
            look();
        } elsif ($ready == $echo) {
            # One with a wrong checksum is ready to be read, and then is not there.
            my $caller = $echo->recv(my $text, 2000, MSG_DONTWAIT) // next;
            $echo->send($text, 0, $caller);
        } elsif ($ready == $control) {
            my $caller = $control->accept or next;
            $select->add($caller);
        } else {
            my $line = in_time("the rest of a question after '$last'", sub { scalar <$ready> });
            if (!defined $line) {
                $select->remove($ready);
                next;
            }
            chomp $line;
            ($last, $asked) = ($line, now());
            $ended++ if $line eq 'end';
            print $ready $line eq 'end' ? "ended\n" : answer(split / /, $line) . "\n";
        }
    }
}
ok "callers";
