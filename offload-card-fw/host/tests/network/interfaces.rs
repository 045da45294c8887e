//! Interfaces of Linux as the way out.

use dragonfly_virtqueue::RingFeatures;

use crate::{guest::Guest, namespace, setup::Setup, station::Station};

pub const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
const NET: &str = "[[net]]\nname = 'n'\nsocket = 'n.sock'\nmac = '52:54:00:00:00:01'\n";
const PORT: u16 = 5001;

/// A card with a way out, whose guest has a network of its own there.
pub fn card(net: &str, outside: &str) -> Setup {
    Setup::of(&format!("{NET}{net}\n{outside}"))
}

/// Pings Linux, and exchanges a transfer with it.
pub fn talk(guest: &mut Guest, to: [u8; 4]) {
    guest.ping(to);
    let server = namespace::serve(PORT);
    guest.exchange(to, PORT);
    server.join().unwrap();
}

#[test]
fn a_tap_device_is_made_and_is_the_way_out() {
    if namespace::enter("interfaces::a_tap_device_is_made_and_is_the_way_out") {
        let setup = card("", "[uplink]\ntap = 'tap0'");
        namespace::ip("link set tap0 up");
        namespace::ip("address add 10.1.0.1/24 dev tap0");
        for layout in [RingFeatures::empty(), RingFeatures::RING_PACKED] {
            let mut guest = Guest::new(Station::new(&setup, "n.sock", layout, 1500), MAC, [10, 1, 0, 2], 1500);
            talk(&mut guest, [10, 1, 0, 1]);
        }
    }
}

#[test]
fn an_interface_is_shared() {
    if namespace::enter("interfaces::an_interface_is_shared") {
        // Both ends of the cable are Linux's, which leaves checksums and long segments to the other end.
        namespace::ip("link add cable0 type veth peer name cable1");
        for interface in ["cable0", "cable1"] {
            namespace::ip(&format!("link set {interface} up"));
        }
        namespace::ip("address add 10.2.0.1/24 dev cable0");
        let setup = card("vlan = 3", "[uplink]\ninterface = 'cable1'\ntagged = [7, 8]\nvlan = 3");
        let station = Station::new(&setup, "n.sock", RingFeatures::empty(), 1500);
        talk(&mut Guest::new(station, MAC, [10, 2, 0, 2], 1500), [10, 2, 0, 1]);
    }
}
