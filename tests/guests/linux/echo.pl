# echo.pl ADDRESS PORT FILE: sends a file, and compares what comes back.
use strict;
use warnings;
use IO::Socket::INET;

my ($address, $port, $name) = @ARGV;
open my $file, '<:raw', $name or die "$name: $!";
my $sent = do { local $/; <$file> };
my $socket = IO::Socket::INET->new(PeerAddr => $address, PeerPort => $port, Timeout => 30) // die "$address:$port: $!";
print $socket $sent or die "send: $!";
$socket->shutdown(1);
my $back = do { local $/; <$socket> } // '';
$back eq $sent or die sprintf "%d bytes went, %d came, not the same", length $sent, length $back;
