# Counts the records of a journal, then adds to it: a record counts from when fsync has returned. Records do not end where
# sectors do, and each fourth has a file of its own, too. What else is written is not flushed.
use strict;
use warnings;
use IO::Handle;
$| = 1;

sub record { sprintf("%08d\n", $_[0]) x 70 }

sub contents {
    open my $file, '<', $_[0] or return '';
    local $/;
    return <$file> // '';
}

my $journal = contents('/mnt/journal');
my $size = length record(0);
my $count = 0;
while (substr($journal, $count * $size, $size) eq record($count)) {
    last if $count % 4 == 3 && contents("/mnt/file-$count") ne record($count);
    $count++;
}
print "[check] note whole: $count\n[check] ask\n";
exit if <STDIN> !~ /reboot/;

sub add {
    my ($name, $how, $text) = @_;
    open my $file, $how, $name or die "$name: $!";
    syswrite($file, $text) == length $text or die "$name: $!";
    $file->sync or die "$name: $!";
}

open my $noise, '>', '/mnt/noise' or die $!;
# What may be there of the next record is no whole one.
truncate '/mnt/journal', $count * $size if -e '/mnt/journal';
while (1) {
    add('/mnt/journal', '>>', record($count));
    add("/mnt/file-$count", '>', record($count)) if $count % 4 == 3;
    print "[check] note record: $count\n";
    $count++;
    syswrite $noise, record($count) x 40;
    seek $noise, 0, 0 if $count % 50 == 0;
}
