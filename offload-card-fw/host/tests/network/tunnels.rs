//! Tunnels, with Linux's own device at the other end.

use dragonfly_virtqueue::RingFeatures;

use crate::{
    guest::Guest,
    interfaces::{MAC, card, talk},
    namespace::{enter, ip},
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

#[test]
fn vxlan_reaches_linux_own_device() {
    if enter("tunnels::vxlan_reaches_linux_own_device") {
        let setup = card("vlan = 100", &tunnel("vxlan", 42));
        ip("link set tap0 up");
        ip("address add 192.0.2.1/24 dev tap0");
        ip("link add vx type vxlan id 42 local 192.0.2.1 remote 192.0.2.2 dstport 4789 dev tap0");
        ip("link set vx up");
        ip("address add 10.3.0.1/24 dev vx");
        let station = Station::new(&setup, "n.sock", RingFeatures::empty(), INNER_MTU);
        let mut guest = Guest::new(station, MAC, [10, 3, 0, 2], INNER_MTU);
        talk(&mut guest, [10, 3, 0, 1]);
    }
}

#[test]
fn what_is_too_long_for_a_tunnel_is_answered_with_the_length_that_fits() {
    if enter("tunnels::what_is_too_long_for_a_tunnel_is_answered_with_the_length_that_fits") {
        let setup = card("vlan = 100", &tunnel("vxlan", 42));
        ip("link set tap0 up");
        ip("address add 192.0.2.1/24 dev tap0");
        ip("link add vx type vxlan id 42 local 192.0.2.1 remote 192.0.2.2 dstport 4789 dev tap0");
        ip("link set vx up");
        ip("address add 10.3.0.1/24 dev vx");
        // A guest that thinks its packets may have 1,500 bytes; Linux tells its own length when a connection begins.
        let station = Station::new(&setup, "n.sock", RingFeatures::empty(), 1500);
        let mut guest = Guest::new(station, MAC, [10, 3, 0, 2], 1500);
        assert_eq!(guest.longest_packet([10, 3, 0, 1]), INNER_MTU as u16);
    }
}

#[test]
fn another_network_of_the_same_host_is_not_heard() {
    if enter("tunnels::another_network_of_the_same_host_is_not_heard") {
        let setup = card("vlan = 100", &tunnel("vxlan", 42));
        ip("link set tap0 up");
        ip("address add 192.0.2.1/24 dev tap0");
        for (network, address) in [(42, "10.3.0.1/24"), (43, "10.4.0.1/24")] {
            ip(&format!(
                "link add vx{network} type vxlan id {network} local 192.0.2.1 remote 192.0.2.2 dstport 4789 dev tap0"
            ));
            ip(&format!("link set vx{network} up"));
            ip(&format!("address add {address} dev vx{network}"));
        }
        let station = Station::new(&setup, "n.sock", RingFeatures::empty(), INNER_MTU);
        let mut guest = Guest::new(station, MAC, [10, 3, 0, 2], INNER_MTU);
        guest.ping([10, 3, 0, 1]);
        // Linux asks for the neighbour's address by the other network, and then by its own.
        std::net::UdpSocket::bind("10.4.0.1:0").unwrap().send_to(&[0; 8], "10.4.0.2:9").unwrap();
        std::net::UdpSocket::bind("10.3.0.1:0").unwrap().send_to(&[0; 8], "10.3.0.3:9").unwrap();
        let asked = guest.next_question();
        assert_eq!(asked, [10, 3, 0, 3]);
    }
}
