//! A guest has two networks of the card, and what it sends to itself goes from one to the other.

use super::Guest;

const CHECKS: [&str; 12] = [
    "the devices are found",
    "they are as described",
    "the driver learns the MTU",
    "short pings",
    "what is longer than the MTU is answered",
    "pings of full length",
    "datagrams",
    "transfers from the first",
    "transfers to the first",
    "frames are cut if need be",
    "each queue receives",
    "each round is whole",
];
const MTU: u16 = 1400;
/// Switches off each offload of QEMU's device.
const NO_OFFLOADS: &str = ",csum=off,gso=off,host_tso4=off,host_tso6=off,host_ecn=off,host_ufo=off,host_uso=off,\
    guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off,guest_uso4=off,guest_uso6=off";

struct Case {
    name: &'static str,
    is_packed: bool,
    /// Pairs of queues of each device, and CPUs: Linux uses as many pairs as it has CPUs.
    pairs: usize,
    /// Whether the first device has offloads; the second has them always.
    has_offloads: bool,
    deaths: usize,
}

const CASES: [Case; 6] = [
    Case { name: "split rings, 1 pair", is_packed: false, pairs: 1, has_offloads: true, deaths: 0 },
    Case { name: "packed rings, 2 pairs", is_packed: true, pairs: 2, has_offloads: true, deaths: 0 },
    Case { name: "split rings, 8 pairs", is_packed: false, pairs: 8, has_offloads: true, deaths: 0 },
    Case { name: "packed rings, 8 pairs", is_packed: true, pairs: 8, has_offloads: true, deaths: 0 },
    Case { name: "a device without offloads", is_packed: false, pairs: 2, has_offloads: false, deaths: 0 },
    Case { name: "a card that dies", is_packed: false, pairs: 2, has_offloads: true, deaths: 3 },
];

/// The guests of the stage.
pub fn guests() -> Vec<Guest> {
    CASES.iter().map(Case::guest).collect()
}

impl Case {
    fn guest(&self) -> Guest {
        let &Self { name, is_packed, pairs, has_offloads, deaths } = self;
        let mut machine_file = String::new();
        let mut options = Vec::new();
        for number in 1..=2 {
            let mac = format!("52:54:00:00:00:0{number}");
            machine_file += &format!(
                "[[net]]\nname = \"net{number}\"\nsocket = \"net{number}.sock\"\nmac = \"{mac}\"\nmtu = {MTU}\nqueues = {pairs}\n"
            );
            // Only the first driver is told the MTU, and only its device has fewer offloads.
            let first = if number > 1 {
                String::new()
            } else {
                format!(",host_mtu={MTU}{}", if has_offloads { "" } else { NO_OFFLOADS })
            };
            let (rings, vectors) = (if is_packed { "on" } else { "off" }, 2 * pairs + 2);
            options.extend([
                "-chardev".into(),
                format!("socket,id=net{number},path=net{number}.sock,reconnect-ms=100"),
                "-netdev".into(),
                format!("vhost-user,id=net{number},chardev=net{number},queues={pairs}"),
                "-device".into(),
                format!(
                    "virtio-net-pci,netdev=net{number},mac={mac},mq=on,vectors={vectors},packed={rings},romfile={first}"
                ),
            ]);
        }
        let (packed, offloads) = (u8::from(is_packed), u8::from(has_offloads));
        let words = format!("df.run=card-network df.pairs={pairs} df.packed={packed} df.offloads={offloads}");
        Guest { name, checks: &CHECKS, machine_file, options, cpus: pairs, words, has_server: false, deaths }
    }
}
