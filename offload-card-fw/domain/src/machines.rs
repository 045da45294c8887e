//! The machine files of the bundle: which devices the guests have.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use dragonfly_archive::Archive;
use dragonfly_card_devices::tables::{Devices, Disk, Medium};
use dragonfly_card_devices::{AnyDisk, Control, DiskDevice, NetDevice, parse_key};
use dragonfly_settings::{Document, SettingsError};
use dragonfly_storage::{RamDisk, SECTOR_BYTES, XtsAes256};
use dragonfly_vswitch::MacAddress;
use log::{error, info};

use crate::card::{Card, Client};

/// A machine file, as far as it is about devices.
pub(crate) struct Machine {
    /// Its number: that of `machines/N.toml`.
    pub(crate) number: u32,
    /// The machine's name.
    pub(crate) name: String,
    /// Its devices.
    pub(crate) devices: Devices,
}

/// Where disks have their contents.
pub(crate) struct Stores {
    /// Bytes that are left for disks in memory.
    pub(crate) ram_bytes: u64,
    /// Physical disks that no machine has taken, with their serial numbers.
    pub(crate) disks: Vec<(String, AnyDisk)>,
}

/// Reads the bundle's machine files, in the order of their numbers. One that cannot be understood is told on the log and left
/// out: its VMM tells of it, too.
pub(crate) fn read(bundle: &[u8]) -> Vec<Machine> {
    let mut machines = Vec::new();
    for entry in Archive::new(bundle).entries().filter_map(Result::ok) {
        let number = entry.name.strip_prefix("machines/").and_then(|name| name.strip_suffix(".toml"));
        let Some(number) = number.and_then(|number| number.parse().ok()) else { continue };
        match parse(number, entry.name, &String::from_utf8_lossy(entry.data)) {
            Ok(machine) => machines.push(machine),
            Err(fault) => error!("{fault}"),
        }
    }
    machines.sort_by_key(|machine| machine.number);
    machines
}

fn parse(number: u32, file: &str, text: &str) -> Result<Machine, SettingsError> {
    let document = Document::parse(file, text)?;
    let top = document.top();
    let devices = Devices::read(&top, &[], |net| Some(mac(number, net)))?;
    Ok(Machine { number, name: top.name("name")?, devices })
}

/// The address of a network device whose table names none: of the range that QEMU's users take theirs from, by the numbers of
/// machine and device, each cut to what an address has room for.
fn mac(machine: u32, net: usize) -> MacAddress {
    MacAddress([0x52, 0x54, 0, 0xdf, machine as u8, net as u8])
}

/// Makes a machine's devices and gives them to the card. What cannot be made is told on the log, and the machine has none.
pub(crate) fn add<P: Client>(machine: &Machine, card: &mut Card<P>, bundle: &[u8], stores: &mut Stores) {
    let Machine { number, name, devices } = machine;
    match make(machine, card, bundle, stores) {
        Ok((disks, nets)) => {
            for disk in &devices.disks {
                info!("machine {number}, {name}: disk {}, {}", disk.name, description(&disk.medium));
            }
            for net in &devices.nets {
                info!("machine {number}, {name}: network device {}, address {}", net.name, net.mac);
            }
            card.add(*number, disks, nets);
        }
        Err(reason) => error!("machines/{number}.toml: {reason}"),
    }
}

fn description(medium: &Medium) -> String {
    match medium {
        Medium::Image(image) => format!("image {image}"),
        Medium::Ram(bytes) => format!("{} MiB of memory", bytes >> 20),
    }
}

/// Disks and network devices of a machine.
type Made = (Vec<DiskDevice>, Vec<NetDevice>);

fn make<P: Client>(machine: &Machine, card: &mut Card<P>, bundle: &[u8], stores: &mut Stores) -> Result<Made, String> {
    let Machine { number, devices, .. } = machine;
    let disks = devices.disks.iter().enumerate().map(|(place, disk)| {
        let made = contents(*number, place, disk, stores).and_then(|contents| {
            let key = key(*number, disk, bundle)?;
            DiskDevice::new(disk, contents, key).map_err(|reason| format!("{reason}"))
        });
        made.map_err(|reason| format!("disk {}: {reason}", disk.name))
    });
    let disks = disks.collect::<Result<_, _>>()?;
    let ports = card.fabric().add_machine(devices).map_err(|reason| format!("{reason}"))?;
    let nets = devices.nets.iter().zip(ports).map(|(net, port)| NetDevice::new(net, port, Control::Card)).collect();
    Ok((disks, nets))
}

/// What holds a disk's contents.
fn contents(number: u32, place: usize, disk: &Disk, stores: &mut Stores) -> Result<AnyDisk, String> {
    match &disk.medium {
        Medium::Ram(bytes) => {
            let left = stores.ram_bytes;
            stores.ram_bytes = left.checked_sub(*bytes).ok_or_else(|| {
                let (wanted, left) = (bytes.div_ceil(1 << 20), left >> 20);
                format!("has {wanted} MiB of memory, but the card has {left} MiB left: give it more by `memory` in bundle.toml")
            })?;
            Ok(Box::new(RamDisk::new(bytes / SECTOR_BYTES as u64)))
        }
        Medium::Image(image) => {
            let serial = format!("g{number}d{place}");
            let found = stores.disks.iter().position(|(candidate, _)| *candidate == serial);
            let found = found.ok_or_else(|| {
                format!("the machine has no disk with the serial number {serial}, which is to hold {image}")
            })?;
            Ok(stores.disks.swap_remove(found).1)
        }
    }
}

/// The key of an encrypted disk, from the bundle.
fn key(number: u32, disk: &Disk, bundle: &[u8]) -> Result<Option<XtsAes256>, String> {
    let Some(path) = &disk.key_file else { return Ok(None) };
    let name = format!("machines/{number}/{path}");
    let found = Archive::new(bundle).find(&name).ok().flatten();
    let entry = found.ok_or_else(|| format!("the bundle has no {name}: add the file"))?;
    parse_key(entry.data).map(Some).map_err(|reason| format!("{name}: {reason}"))
}
