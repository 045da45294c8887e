//! Tunnels, with Linux's own device at the other end.

use std::net::UdpSocket;

use dragonfly_virtqueue::RingFeatures;

use crate::{
    guest::Guest,
    interfaces::{MAC, card, talk},
    namespace::{enter, ip},
    setup::Setup,
    station::Station,
};

/// What is left of 1,500 bytes behind Ethernet's, IPv4's, UDP's and the tunnel's headers.
pub const INNER_MTU: usize = 1450;

/// An uplink whose station is 192.0.2.2, and a tunnel to 192.0.2.1.
pub fn tunnel(protocol: &str, network: u32) -> String {
    format!(
        "[uplink]\ntap = 'tap0'\nmac = '52:54:00:00:02:02'\naddress = '192.0.2.2/24'\n\
         [[tunnel]]\nname = 't'\nprotocol = '{protocol}'\nnetwork = {network}\nremote = '192.0.2.1'\nvlan = 100"
    )
}

/// A guest of a card with such a tunnel to Linux, which has a device of its own for each of these networks, with the address
/// 10.N.0.1 in network N.
fn with_linux(networks: &[u32], mtu: usize) -> (Setup, Guest) {
    let setup = card("vlan = 100", &tunnel("vxlan", 42));
    ip("link set tap0 up");
    ip("address add 192.0.2.1/24 dev tap0");
    for network in networks {
        let ends = "local 192.0.2.1 remote 192.0.2.2 dstport 4789 dev tap0";
        ip(&format!("link add vx{network} type vxlan id {network} {ends}"));
        ip(&format!("link set vx{network} up"));
        ip(&format!("address add 10.{network}.0.1/24 dev vx{network}"));
    }
    let station = Station::new(&setup, "n.sock", RingFeatures::empty(), mtu);
    (setup, Guest::new(station, MAC, [10, 42, 0, 2], mtu))
}

#[test]
fn vxlan_reaches_linux_own_device() {
    if enter("tunnels::vxlan_reaches_linux_own_device") {
        let (_setup, mut guest) = with_linux(&[42], INNER_MTU);
        talk(&mut guest, [10, 42, 0, 1]);
    }
}

#[test]
fn what_is_too_long_for_a_tunnel_is_answered_with_the_length_that_fits() {
    if enter("tunnels::what_is_too_long_for_a_tunnel_is_answered_with_the_length_that_fits") {
        // A guest that thinks its packets may have 1,500 bytes.
        let (_setup, mut guest) = with_linux(&[42], 1500);
        assert_eq!(guest.longest_packet([10, 42, 0, 1]), INNER_MTU as u16);
    }
}

#[test]
fn another_network_of_the_same_host_is_not_heard() {
    if enter("tunnels::another_network_of_the_same_host_is_not_heard") {
        let (_setup, mut guest) = with_linux(&[42, 43], INNER_MTU);
        guest.ping([10, 42, 0, 1]);
        // Linux asks for the neighbour's address by the other network, and then by its own.
        for (from, to) in [("10.43.0.1:0", "10.43.0.2:9"), ("10.42.0.1:0", "10.42.0.3:9")] {
            UdpSocket::bind(from).unwrap().send_to(&[0; 8], to).unwrap();
        }
        assert_eq!(guest.next_question(), [10, 42, 0, 3]);
    }
}
