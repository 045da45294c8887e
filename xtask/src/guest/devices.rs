//! Guests' disks and networks, as far as the host has to do with them: files behind disks, and what the emulator adds to
//! the machine for the offload card to drive.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use dragonfly_card_devices::{
    PORT_BYTES, SOCKET_BYTES,
    tables::{self, Medium},
};
use dragonfly_settings::{Document, SettingsError};
use dragonfly_vswitch::MacAddress;

use super::description::Guest;
use crate::{
    bad_input::BadInput,
    cli::Emulator,
    emulator::devices::{Devices as Emulated, Drive, Forward},
};

/// The port of SSH.
pub const SSH: u16 = 22;

/// The last number of the first network device's address; the others' follow (`docs/card.md`).
const FIRST_ADDRESS: usize = 15;

const SECTOR_BYTES: u64 = 512;

/// What a guest's disks are made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// Files of the host that are disks.
    pub images: Vec<Image>,
    /// Files of the host that hold volumes, of other guests too.
    pub pools: Vec<Drive>,
    /// Bytes of the card's memory that its disks, sockets and ports take.
    pub ram: u64,
}

/// A disk that is a file of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The disk's place in the machine file, counted from 0.
    pub disk: usize,
    /// The file, byte for byte the disk.
    pub path: PathBuf,
    /// Whether what the guest writes is kept in the file; else it goes with the machine.
    pub is_kept: bool,
}

/// What the user wants of a guest's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Port of this machine.
    pub host: u16,
    /// Port of the guest.
    pub guest: u16,
    /// The guest's number.
    pub number: usize,
}

/// Reads the tables of a machine file, and what they name: images must be there, and keys go into `files`.
///
/// # Errors
/// [`BadInput`] for the first fault.
pub fn read(shown: &str, text: &str, folder: &Path, files: &mut Vec<(String, Vec<u8>)>) -> Result<Devices, BadInput> {
    let fault = |error: SettingsError| BadInput(error.to_string());
    let document = Document::parse(shown, text).map_err(fault)?;
    let top = document.top();
    // The card has an address for each device that is given none, which does not matter here.
    let tables = tables::Devices::read(&top, &[], |_| Some(MacAddress([0; 6]))).map_err(fault)?;
    let sections = top.tables("disk").map_err(fault)?;
    let sockets = tables.vsocks.iter().map(|vsock| u64::from(vsock.connections) * SOCKET_BYTES);
    let ports = tables.consoles.iter().map(|console| console.ports.len() as u64 * PORT_BYTES);
    let mut devices = Devices { ram: sockets.chain(ports).sum(), ..Devices::default() };
    for (place, (disk, section)) in tables.disks.iter().zip(&sections).enumerate() {
        match &disk.medium {
            Medium::Ram(bytes) => devices.ram = devices.ram.saturating_add(*bytes),
            Medium::Image(name) => {
                let path = folder.join(name);
                check_image(&path).map_err(|why| fault(section.error("image", format!("is \"{name}\", but {why}"))))?;
                devices.images.push(Image { disk: place, path, is_kept: !disk.is_read_only });
            }
            Medium::Nbd(_) => {
                let why = "is for the card's process on Linux (docs/card.md): give the guest an `image`";
                return Err(fault(section.error("nbd", why.into())));
            }
            // Pools follow, each once.
            Medium::Volume { .. } => {}
        }
        if let Some(name) = &disk.key_file {
            let path = folder.join(name);
            let contents = fs::read(&path).map_err(|error| {
                let why =
                    format!("is \"{name}\", but {} cannot be read: {error}: give the path of a file", path.display());
                fault(section.error("key_file", why))
            })?;
            files.push((name.clone(), contents));
        }
    }
    for (pool, section) in tables.pools.iter().zip(&top.tables("pool").map_err(fault)?) {
        let path = folder.join(&pool.image);
        let checked = check_image(&path).and_then(|()| path.canonicalize().map_err(|error| error.to_string()));
        let image =
            checked.map_err(|why| fault(section.error("image", format!("is \"{}\", but {why}", pool.image))))?;
        devices.pools.push(Drive { image, serial: pool.serial.clone(), is_kept: true });
    }
    Ok(devices)
}

/// Checks that a file can be a disk.
///
/// # Errors
/// Says why not.
pub fn check_image(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let metadata =
        fs::metadata(path).map_err(|error| format!("{shown} cannot be read: {error}: give the path of a file"))?;
    if metadata.is_file() && (metadata.len() == 0 || !metadata.len().is_multiple_of(SECTOR_BYTES)) {
        let length = metadata.len();
        return Err(format!("{shown} has {length} bytes, which are no whole sectors of 512: give a raw disk image"));
    }
    Ok(())
}

/// Whether any of the guests has a device of the card's.
#[must_use]
pub fn any(guests: &[Guest]) -> bool {
    guests.iter().any(|Guest { machine, .. }| machine.card_devices().is_some())
}

/// The address that the card gives to the first network device of a guest, if it has one.
#[must_use]
pub fn address(guests: &[Guest], number: usize) -> Option<Ipv4Addr> {
    let guest = guests.get(number).filter(|guest| guest.machine.nets > 0)?;
    let before: u32 =
        guests.iter().take_while(|other| !std::ptr::eq(*other, guest)).map(|other| other.machine.nets).sum();
    let last = u8::try_from(FIRST_ADDRESS + before as usize).ok()?;
    Some(Ipv4Addr::new(10, 0, 2, last))
}

/// What the emulator adds to the machine for these guests: a disk for each image, and an uplink if there is a network. Bochs
/// has neither.
///
/// # Errors
/// [`BadInput`] for a wish that no guest can fulfil, or what the emulator cannot add.
pub fn emulated(emulator: Emulator, guests: &[Guest], wishes: &[Wish]) -> Result<Emulated, BadInput> {
    if emulator == Emulator::Bochs {
        let images = guests.iter().flat_map(|guest| guest.devices.images.iter().map(|image| &image.path));
        let pools = guests.iter().flat_map(|guest| guest.devices.pools.iter().map(|pool| &pool.image));
        if let Some(image) = images.chain(pools).next() {
            let why = "Bochs has no virtio disks: give the disk a `size` in place of the image, or use --emulator qemu";
            return Err(BadInput(format!("{}: {why}", image.display())));
        }
        if !wishes.is_empty() {
            return Err(BadInput("--forward: the guests' network has no way out in Bochs: use --emulator qemu".into()));
        }
        return Ok(Emulated::default());
    }
    let drives = guests.iter().enumerate().flat_map(|(number, guest)| {
        guest.devices.images.iter().map(move |Image { disk, path, is_kept }| Drive {
            image: path.clone(),
            // By which the card knows whose it is.
            serial: format!("g{number}d{disk}"),
            is_kept: *is_kept,
        })
    });
    let mut disks: Vec<_> = drives.collect();
    for pool in guests.iter().flat_map(|guest| &guest.devices.pools) {
        // The card knows a pool by its serial number, in whichever machine file it stands.
        match disks.iter().find(|known| known.serial == pool.serial || known.image == pool.image) {
            None => disks.push(pool.clone()),
            Some(known) if known == pool => {}
            Some(_) => {
                let why =
                    "two machine files describe it by another `serial`, or another pool by the same: give each its own";
                return Err(BadInput(format!("pool {}: {why}", pool.image.display())));
            }
        }
    }
    let forwards = wishes.iter().map(|Wish { host, guest, number }| {
        let address = address(guests, *number).ok_or_else(|| {
            BadInput(format!("--forward {host}:{guest}: there is no guest {number} with a network to forward to"))
        })?;
        Ok(Forward { host: *host, address, guest: *guest })
    });
    let forwards = forwards.collect::<Result<Vec<_>, BadInput>>()?;
    let has_network = guests.iter().any(|guest| guest.machine.nets > 0);
    Ok(Emulated { disks, uplink: has_network.then_some(forwards) })
}

#[cfg(test)]
mod tests {
    use dragonfly_machine_file::MachineFile;

    use super::*;

    fn guest(name: &str, more: &str, folder: &Path) -> Guest {
        let text = format!("name = \"{name}\"\nkernel = \"k\"\n{more}");
        let machine = MachineFile::parse("m.toml", &text).unwrap();
        let mut files = Vec::new();
        let devices = read("m.toml", &text, folder, &mut files).unwrap();
        Guest { machine, text, files, source: None, devices }
    }

    const NET: &str = "[[net]]\nname = \"eth\"\n";

    #[test]
    fn each_image_becomes_a_disk_with_the_number_by_which_the_card_finds_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.img"), [0; 1024]).unwrap();
        let disks = "[[disk]]\nname = \"a\"\nsize = \"1MiB\"\n[[disk]]\nname = \"b\"\nimage = \"a.img\"\n";
        let guests = [guest("x", "", folder.path()), guest("y", disks, folder.path())];
        let emulated = emulated(Emulator::Qemu, &guests, &[]).unwrap();
        let [drive] = &emulated.disks[..] else { panic!("one disk") };
        assert_eq!((drive.serial.as_str(), drive.is_kept), ("g1d1", true));
        assert_eq!((guests[1].devices.ram, emulated.uplink), (1 << 20, None));
    }

    #[test]
    fn a_pool_of_several_guests_is_one_disk() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("p.img"), [0; 1024]).unwrap();
        let pool = |serial: &str| format!("[[pool]]\nname = \"p\"\nserial = \"{serial}\"\nimage = \"p.img\"\n");
        let disk = "[[disk]]\nname = \"a\"\npool = \"p\"\nvolume = \"v\"\n";
        let guest = |name, serial: &str| guest(name, &format!("{}{disk}", pool(serial)), folder.path());
        let emulate = |guests: &[Guest]| emulated(Emulator::Qemu, guests, &[]);
        let both = emulate(&[guest("x", "s"), guest("y", "s")]).unwrap();
        let [drive] = &both.disks[..] else { panic!("one disk") };
        assert_eq!((drive.serial.as_str(), drive.is_kept), ("s", true));
        assert!(emulate(&[guest("x", "s"), guest("y", "t")]).unwrap_err().0.contains("give each its own"));
    }

    #[test]
    fn what_an_image_or_key_lacks_is_told_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("odd"), "x").unwrap();
        let base = "name = \"a\"\nkernel = \"k\"\n[[disk]]\nname = \"d\"\n";
        for (more, message) in [
            ("image = \"none\"\n", "m.toml:5: `image` is \"none\", but "),
            ("image = \"odd\"\n", "which are no whole sectors of 512: give a raw disk image"),
            ("size = \"1MiB\"\nkey_file = \"none\"\n", "m.toml:6: `key_file` is \"none\", but "),
            ("", "m.toml:3: `image` is missing: name a file, "),
            ("size = \"1MiB\"\nsocket = \"s\"\n", "m.toml:6: `socket` is not a known key"),
        ] {
            let fault = read("m.toml", &format!("{base}{more}"), folder.path(), &mut Vec::new()).unwrap_err();
            assert!(fault.0.contains(message), "{fault}");
        }
    }

    #[test]
    fn ports_lead_to_the_addresses_that_the_card_gives() {
        let folder = Path::new("");
        let two = format!("{NET}[[net]]\nname = \"more\"\n");
        let guests = [guest("a", &two, folder), guest("b", "", folder), guest("c", NET, folder)];
        let addresses = [0, 1, 2, 3].map(|number| address(&guests, number));
        let of = |last| Some(Ipv4Addr::new(10, 0, 2, last));
        assert_eq!(addresses, [of(15), None, of(17), None]);
        let wish = Wish { host: 2200, guest: 22, number: 2 };
        let forward = Forward { host: 2200, address: Ipv4Addr::new(10, 0, 2, 17), guest: 22 };
        assert_eq!(emulated(Emulator::Qemu, &guests, &[wish]).unwrap().uplink, Some(vec![forward]));
        assert!(emulated(Emulator::Qemu, &guests, &[Wish { number: 1, ..wish }]).is_err());
        assert!(emulated(Emulator::Bochs, &guests, &[wish]).is_err());
        assert!(emulated(Emulator::Bochs, &guests, &[]).unwrap().is_empty());
    }
}
