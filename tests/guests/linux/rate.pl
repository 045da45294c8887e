# How fast something came that a token bucket lets pass.
use strict;
use warnings;

# By how much a limit may be missed.
use constant TOLERANCE => 0.02;

# Of points [seconds, count so far]: what came per second, for a bucket that is expected to let `$expected` pass.
#
# A bucket lets pass what is exact at those moments when it is empty, and nothing arrives too early. So the line goes
# through the point of the first third, and that of the last one, that are the most prompt: what was late on its way, or
# saved up while the sender was not running, does not count.
sub rate {
    my ($expected, @points) = @_;
    my $third = int(@points / 3) or return 0;
    my $prompt = sub { (sort { $b->[1] - $expected * $b->[0] <=> $a->[1] - $expected * $a->[0] } @_)[0] };
    my ($first, $last) = ($prompt->(@points[0 .. $third - 1]), $prompt->(@points[-$third .. -1]));
    return ($last->[1] - $first->[1]) / ($last->[0] - $first->[0]);
}

# What is to be said against a rate; nothing if it is right.
sub missed {
    my ($expected, $seconds, @points) = @_;
    my $took = @points ? $points[-1][0] - $points[0][0] : 0;
    return sprintf 'there were %d in %.1f s only', scalar @points, $took if $took < $seconds;
    my $rate = rate($expected, @points);
    return if abs($rate - $expected) <= TOLERANCE * $expected;
    return sprintf '%.1f a second in place of %d', $rate, $expected;
}

1;
