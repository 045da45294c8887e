//! The machine files of the bundle: which devices the guests have.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use dragonfly_archive::Archive;
use dragonfly_card_devices::tables::{Devices, Disk, Medium, View};
use dragonfly_card_devices::{
    ConsoleDevice, Contents, ContentsError, Control, DiskDevice, Groups, NetDevice, PORT_BYTES, Pools, RngDevice,
    SOCKET_BYTES, SharedDisk, VsockDevice, parse_key,
};
use dragonfly_settings::{Document, SettingsError};
use dragonfly_storage::{RamDisk, SECTOR_BYTES, XtsAes256};
use dragonfly_vswitch::MacAddress;
use log::{error, info};

use crate::card::{Card, Client, Made, MadeDisk};
use crate::entropy::Generator;

/// A machine file, as far as it is about devices.
pub(crate) struct Machine {
    /// Its number: that of `machines/N.toml`.
    pub(crate) number: u32,
    /// The machine's name.
    pub(crate) name: String,
    /// Its devices.
    pub(crate) devices: Devices,
}

/// The CID of the first machine's sockets, if it names none; the others' follow.
const FIRST_CID: u32 = 3;

/// Where disks have their contents.
pub(crate) struct Stores {
    /// Bytes that are left for disks in memory, and for what waits in connections of sockets.
    pub(crate) ram_bytes: u64,
    /// Physical disks that no machine has taken, with their serial numbers.
    pub(crate) disks: Vec<(String, SharedDisk)>,
    /// Physical disks that hold volumes of several machines, by their serial numbers.
    pub(crate) pools: Pools,
}

/// Why a disk cannot be made.
struct Fault(String);

impl From<ContentsError> for Fault {
    fn from(error: ContentsError) -> Self {
        Self(format!("{error}"))
    }
}

/// Takes so much of the memory that is left.
fn take(left: &mut u64, bytes: u64) -> Result<(), Fault> {
    *left = left.checked_sub(bytes).ok_or_else(|| {
        let (wanted, left) = (bytes.div_ceil(1 << 20), *left >> 20);
        Fault(format!(
            "has {wanted} MiB of memory, but the card has {left} MiB left: give it more by `memory` in bundle.toml"
        ))
    })?;
    Ok(())
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

/// Reads a machine file.
///
/// # Errors
/// Says what is wrong with it, and where.
pub(crate) fn parse(number: u32, file: &str, text: &str) -> Result<Machine, SettingsError> {
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
    let first_group = card.fabric().next_group();
    match make(machine, card, bundle, stores) {
        Ok(made) => {
            for disk in &devices.disks {
                info!("machine {number}, {name}: disk {}, {}", disk.name, description(disk, devices));
            }
            for net in &devices.nets {
                info!("machine {number}, {name}: network device {}, address {}", net.name, net.mac);
            }
            for rng in &devices.rngs {
                info!("machine {number}, {name}: source of random numbers {}", rng.name);
            }
            card.add(*number, made, Groups::new(devices.clone(), first_group));
        }
        Err(reason) => error!("machines/{number}.toml: {reason}"),
    }
}

fn description(disk: &Disk, devices: &Devices) -> String {
    let medium = match &disk.medium {
        Medium::Image(image) => format!("image {image}"),
        Medium::Ram(bytes) => format!("{} MiB of memory", bytes >> 20),
        Medium::Nbd(address) => format!("export \"{}\" of a server", address.export),
        Medium::Volume { pool, volume } => {
            format!("volume {volume} of {}", devices.pools.get(*pool).map_or("no pool", |pool| &pool.name))
        }
    };
    match &disk.view {
        View::Whole => medium,
        View::Live => format!("{medium}, with snapshots"),
        View::Snapshot(name) => format!("{medium}, snapshot {name}"),
    }
}

fn make<P: Client>(machine: &Machine, card: &mut Card<P>, bundle: &[u8], stores: &mut Stores) -> Result<Made, String> {
    let Machine { number, devices, .. } = machine;
    let mut layers = Contents::default();
    let disks = devices.disks.iter().enumerate().map(|(place, disk)| {
        let open = || Ok((medium(machine, place, disk, stores)?, key(*number, disk, bundle)?));
        let contents = layers.of(disk, open).map_err(|Fault(reason)| format!("disk {}: {reason}", disk.name))?;
        Ok::<_, String>(MadeDisk { device: DiskDevice::new(disk, contents), physical: serial(machine, place, disk) })
    });
    let disks = disks.collect::<Result<_, _>>()?;
    let ports = card.fabric().add_machine(devices).map_err(|reason| format!("{reason}"))?;
    let nets = devices.nets.iter().zip(ports).map(|(net, port)| NetDevice::new(net, port, Control::Card)).collect();
    let rngs = devices.rngs.iter().map(|rng| RngDevice::new(rng, Box::new(Generator::new()))).collect();
    let mut vsocks = Vec::new();
    for vsock in &devices.vsocks {
        let fault = |reason: String| format!("sockets {}: {reason}", vsock.name);
        if vsock.host_socket.is_some() {
            return Err(fault("`host_socket` is for the card's process on Linux: leave it out".into()));
        }
        take(&mut stores.ram_bytes, u64::from(vsock.connections) * SOCKET_BYTES)
            .map_err(|Fault(reason)| fault(reason))?;
        let cid = vsock.cid.unwrap_or(FIRST_CID.saturating_add(*number));
        let guest = card.sockets().add(vsock, cid).map_err(|reason| fault(format!("{reason}")))?;
        info!("machine {number}: sockets {}, CID {cid}", vsock.name);
        vsocks.push(VsockDevice::new(vsock, guest, card.sockets()));
    }
    let mut consoles = Vec::new();
    for console in &devices.consoles {
        let fault = |reason: String| format!("console {}: {reason}", console.name);
        if console.host_socket.is_some() {
            return Err(fault("`host_socket` is for the card's process on Linux: leave it out".into()));
        }
        take(&mut stores.ram_bytes, console.ports.len() as u64 * PORT_BYTES).map_err(|Fault(reason)| fault(reason))?;
        consoles.push(ConsoleDevice::new(console, card.cables()).map_err(|reason| fault(format!("{reason}")))?);
        info!("machine {number}, {}: console {}, ports {}", machine.name, console.name, console.ports.join(", "));
    }
    Ok(Made { disks, nets, rngs, vsocks, consoles })
}

/// What a disk is in.
fn medium(machine: &Machine, place: usize, disk: &Disk, stores: &mut Stores) -> Result<SharedDisk, Fault> {
    let Stores { ram_bytes, disks, pools } = stores;
    match &disk.medium {
        Medium::Ram(bytes) => {
            take(ram_bytes, *bytes)?;
            Ok(Arc::new(RamDisk::new(bytes / SECTOR_BYTES as u64)))
        }
        Medium::Image(image) => physical(disks, &image_serial(machine.number, place), image),
        Medium::Nbd(_) => Err(Fault("`nbd` is for the card's process on Linux: name an `image`".into())),
        Medium::Volume { pool, volume } => {
            let pool = machine.devices.pools.get(*pool).ok_or_else(|| Fault("has no pool".into()))?;
            pools.volume(&pool.serial, volume, machine.devices.is_written(&disk.medium), || {
                physical(disks, &pool.serial, &pool.image)
            })
        }
    }
}

/// The serial number of the physical disk that is a disk's image.
fn image_serial(number: u32, place: usize) -> String {
    format!("g{number}d{place}")
}

/// The serial number of the physical disk that a disk is in, if it is in one.
fn serial(machine: &Machine, place: usize, disk: &Disk) -> Option<String> {
    match &disk.medium {
        Medium::Ram(_) | Medium::Nbd(_) => None,
        Medium::Image(_) => Some(image_serial(machine.number, place)),
        Medium::Volume { pool, .. } => machine.devices.pools.get(*pool).map(|pool| pool.serial.clone()),
    }
}

/// Takes the physical disk with this serial number.
fn physical(disks: &mut Vec<(String, SharedDisk)>, serial: &str, image: &str) -> Result<SharedDisk, Fault> {
    let found = disks.iter().position(|(candidate, _)| candidate == serial);
    let none = || Fault(format!("the machine has no disk with the serial number {serial}, which is to hold {image}"));
    Ok(disks.swap_remove(found.ok_or_else(none)?).1)
}

/// The key of an encrypted disk, from the bundle.
fn key(number: u32, disk: &Disk, bundle: &[u8]) -> Result<Option<XtsAes256>, Fault> {
    let Some(path) = &disk.key_file else { return Ok(None) };
    let name = format!("machines/{number}/{path}");
    let found = Archive::new(bundle).find(&name).ok().flatten();
    let entry = found.ok_or_else(|| Fault(format!("the bundle has no {name}: add the file")))?;
    parse_key(entry.data).map(Some).map_err(|reason| Fault(format!("{name}: {reason}")))
}
