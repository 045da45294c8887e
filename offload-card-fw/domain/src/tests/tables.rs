//! Machine files, and the devices made of them.

use std::sync::Arc;
use std::vec;
use std::vec::Vec;

use dragonfly_card_devices::{Fabric, Pools, SharedDisk};
use dragonfly_card_gate::{Answer, Devices};
use dragonfly_storage::RamDisk;
use dragonfly_storage::volumes::VolumeTable;

use super::{FakeCard, bundle, read};
use crate::card::Card;
use crate::machines::{self, Stores};

/// How many devices the machine 0 has of this text, with so much memory and these physical disks.
fn devices(text: &str, ram_bytes: u64, serials: &[&str]) -> Result<Devices, Answer> {
    let bundle = bundle(&[
        ("machines/0.toml", text),
        ("machines/0/key", &"ab".repeat(32).repeat(2)),
        ("machines/0/good", GOOD_KEY),
    ]);
    let disks = serials.iter().map(|serial| ((*serial).into(), Arc::new(RamDisk::new(8)) as SharedDisk)).collect();
    let mut stores = Stores { ram_bytes, disks, pools: Pools::default() };
    let mut card: FakeCard = Card::new(Fabric::new(1));
    for machine in machines::read(&bundle) {
        machines::add(&machine, &mut card, &bundle, &mut stores);
    }
    card.attach(0, 1)
}

/// 128 hexadecimal digits whose halves differ.
const GOOD_KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\
                        fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";

#[test]
fn machine_files_are_read_in_the_order_of_their_numbers_and_bad_ones_left_out() {
    let machines = read(&[
        ("machines/10.toml", "name = \"ten\"\n[[net]]\nname = \"n\"\n"),
        ("machines/2.toml", "name = \"two\"\n"),
        ("machines/3.toml", "name = \"three\"\n[[disk]]\nname = \"d\"\n"),
        ("machines/x.toml", "name = \"x\"\n"),
        ("machines/2/kernel", "not a machine file"),
    ]);
    let found: Vec<_> = machines.iter().map(|machine| (machine.number, machine.name.as_str())).collect();
    assert_eq!(found, [(2, "two"), (10, "ten")]);
}

#[test]
fn a_network_device_has_an_address_of_its_numbers_unless_it_names_one() {
    let text = "name = \"m\"\n[[net]]\nname = \"a\"\n[[net]]\nname = \"b\"\n[[net]]\nname = \"c\"\nmac = \"02:00:00:00:00:07\"\n";
    let machines = read(&[("machines/5.toml", text)]);
    let macs: Vec<_> = machines[0].devices.nets.iter().map(|net| net.mac.0).collect();
    assert_eq!(macs, [[0x52, 0x54, 0, 0xdf, 5, 0], [0x52, 0x54, 0, 0xdf, 5, 1], [2, 0, 0, 0, 0, 7]]);
}

#[test]
fn a_machine_whose_devices_cannot_all_be_made_has_none() {
    let ram = "name = \"m\"\n[[disk]]\nname = \"a\"\nsize = \"64KiB\"\n[[disk]]\nname = \"b\"\nsize = \"64KiB\"\n";
    let image =
        "name = \"m\"\n[[disk]]\nname = \"a\"\nsize = \"4KiB\"\n[[disk]]\nname = \"b\"\nimage = \"debian.img\"\n";
    let key = |name: &str| format!("name = \"m\"\n[[disk]]\nname = \"a\"\nsize = \"4KiB\"\nkey_file = \"{name}\"\n");
    let two = Ok(Devices { disks: 2, ..Devices::default() });
    for (text, ram_bytes, serials, expected) in [
        (ram, 128 << 10, &[][..], two),
        (ram, (128 << 10) - 1, &[], Err(Answer::Refused)),
        (image, 1 << 20, &["g1d1", "g0d1"], two),
        (image, 1 << 20, &["g0d0"], Err(Answer::Refused)),
        (&key("good"), 1 << 20, &[], Ok(Devices { disks: 1, ..Devices::default() })),
        (&key("key"), 1 << 20, &[], Err(Answer::Refused)),
        (&key("none"), 1 << 20, &[], Err(Answer::Refused)),
    ] {
        assert_eq!(devices(text, ram_bytes, serials), expected, "{text}");
    }
}

/// A physical disk that is a pool with one volume.
fn pool() -> SharedDisk {
    let disk: SharedDisk = Arc::new(RamDisk::new(8192));
    VolumeTable::format(disk.clone()).unwrap().create("v", 2048).unwrap();
    disk
}

#[test]
fn machines_have_volumes_of_one_physical_disk_and_none_has_anothers() {
    let file = |volume: &str| {
        let disk = format!("[[disk]]\nname = \"d\"\npool = \"p\"\nvolume = \"{volume}\"\n");
        format!("name = \"m\"\n{disk}[[pool]]\nname = \"p\"\nserial = \"vault\"\nimage = \"p.img\"\n")
    };
    let disk = pool();
    VolumeTable::open(disk.clone()).unwrap().create("w", 2048).unwrap();
    let texts = [file("v"), file("w"), file("v"), file("none")];
    let names = ["machines/0.toml", "machines/1.toml", "machines/2.toml", "machines/3.toml"];
    let files: Vec<_> = names.into_iter().zip(texts.iter().map(String::as_str)).collect();
    let bundle = bundle(&files);
    let mut stores = Stores { ram_bytes: 0, disks: vec![("vault".into(), disk)], pools: Pools::default() };
    let mut card: FakeCard = Card::new(Fabric::new(1));
    for machine in machines::read(&bundle) {
        machines::add(&machine, &mut card, &bundle, &mut stores);
    }
    let one = Ok(Devices { disks: 1, nets: 0, ..Devices::default() });
    let attached: Vec<_> = (0..4).map(|number| card.attach(number, u64::from(number) + 1)).collect();
    assert_eq!(attached, [one, one, Err(Answer::Refused), Err(Answer::Refused)]);
}
