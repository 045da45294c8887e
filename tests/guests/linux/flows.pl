# flows.pl ADDRESS FLOWS DATAGRAMS: so many flows of UDP to an address, of so many datagrams each.
use strict;
use warnings;
use IO::Socket::INET;

my ($address, $flows, $datagrams) = @ARGV;
my $to = sockaddr_in(5002, inet_aton($address));
for (1 .. $flows) {
    # Not connected, so that it does not hear that nobody listens.
    my $socket = IO::Socket::INET->new(Proto => 'udp', LocalPort => 0) // die "socket: $!";
    for (1 .. $datagrams) { $socket->send('x' x 200, 0, $to) // die "send: $!" }
}
