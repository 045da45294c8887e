# Whether what fio wrote down of its requests keeps within a disk's limits, and uses them.
use strict;
use warnings;
BEGIN {
    my ($folder) = $0 =~ m{(.*)/};
    require "$folder/wire.pl";
    require "$folder/rate.pl";
}

# fio says of each request: milliseconds, its latency, its direction, its bytes.
sub against {
    my ($name, $expected, $is_bytes) = @_;
    open my $log, '<', "/tmp/${name}_clat.1.log" or return "$name: fio has written nothing";
    my ($sum, @points) = 0;
    while (<$log>) {
        my ($milliseconds, undef, undef, $bytes) = split /, */;
        push @points, [$milliseconds / 1000, $sum += $is_bytes ? $bytes : 1];
    }
    return map { "$name: $_" } missed($expected, 9, @points);
}
ok "limits of disks", against('requests', 100, 0), against('bytes', 1 << 20, 1);
