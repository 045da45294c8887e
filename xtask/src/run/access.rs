//! The disk that guests described by options boot from, and the ports of this machine that lead to guests.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{
    bad_input::BadInput,
    build::Project,
    cli::{Emulator, Run},
    emulator::devices::Devices,
    guest::{
        description::Guest,
        devices::{self, SSH, Wish},
        disk::{self, keys::Keys},
    },
    tools::Tools,
};

/// The disk that a guest described by options boots from.
pub struct RootDisk {
    /// Its image.
    pub path: PathBuf,
    /// Whether what the guest writes is kept.
    pub is_kept: bool,
    /// The keys to the system on it, if that is ours.
    pub keys: Option<Keys>,
}

/// Finds the disk that the user asked for, or makes it; none for the small system in memory, and for the user's own kernel.
///
/// # Errors
/// [`BadInput`] for a disk that cannot be; else when packages cannot be had or the image cannot be made.
pub fn root_disk(tools: &Tools, arguments: &Run) -> Result<Option<RootDisk>> {
    let options = &arguments.guests;
    if let Some(path) = &arguments.disk {
        let wrong = |message: &str| BadInput(format!("--disk {}: {message}", path.display()));
        if arguments.emulator == Emulator::Bochs {
            return Err(wrong("Bochs has no virtio disks: use --emulator qemu").into());
        }
        if options.guests > 1 {
            let message = "one disk cannot be several guests': leave out --guests, or describe each by a machine file";
            return Err(wrong(message).into());
        }
        let keys = if path.exists() {
            None
        } else {
            let system = disk::ensure(tools)?;
            disk::copy(&system.image, path)?;
            eprintln!("made {} as a copy of Debian's disk", path.display());
            Some(system.keys)
        };
        devices::check_image(path).map_err(|why| wrong(&why))?;
        // The machine file in the bundle has it as the user would write it there.
        return Ok(Some(RootDisk { path: std::path::absolute(path)?, is_kept: true, keys }));
    }
    let is_ours = options.machine.is_empty() && options.kernel.is_none() && options.initrd.is_none();
    if !is_ours || arguments.no_devices || arguments.emulator == Emulator::Bochs {
        return Ok(None);
    }
    let system = disk::ensure(tools)?;
    Ok(Some(RootDisk { path: system.image, is_kept: false, keys: Some(system.keys) }))
}

/// The ways from this machine into guests.
pub struct Access {
    wishes: Vec<Wish>,
    /// Name and port of each guest that SSH leads to, with the keys to them.
    ssh: Vec<(String, u16)>,
    keys: Option<Keys>,
}

impl Access {
    /// What the user asked for, and a free port for each guest's SSH if the keys to them are known.
    ///
    /// # Errors
    /// Fails when this machine has no free port.
    pub fn find(arguments: &Run, guests: &[Guest], keys: Option<Keys>) -> Result<Self> {
        let mut access = Self { wishes: arguments.forward.clone(), ssh: Vec::new(), keys };
        if access.keys.is_some() {
            for (number, guest) in guests.iter().enumerate() {
                let asked = access.wishes.iter().find(|wish| wish.number == number && wish.guest == SSH);
                let host = match asked {
                    Some(wish) => wish.host,
                    None => {
                        let host = free_port()?;
                        access.wishes.push(Wish { host, guest: SSH, number });
                        host
                    }
                };
                access.ssh.push((guest.machine.name.clone(), host));
            }
        }
        Ok(access)
    }

    /// What the emulator adds to the machine.
    ///
    /// # Errors
    /// [`BadInput`] for what it cannot add.
    pub fn devices(&self, emulator: Emulator, guests: &[Guest]) -> Result<Devices, BadInput> {
        devices::emulated(emulator, guests, &self.wishes)
    }

    /// Tells the user how to get into the guests.
    ///
    /// # Errors
    /// Fails when SSH's configuration cannot be written.
    pub fn tell(&self, project: &Project) -> Result<()> {
        let Some(keys) = &self.keys else { return Ok(()) };
        let guests: Vec<_> = self.ssh.iter().map(|(name, port)| (name.as_str(), *port)).collect();
        let path = project.build_folder("guests")?.join("ssh");
        fs::write(&path, keys.configuration(&guests)).with_context(|| format!("cannot write {}", path.display()))?;
        let here = std::env::current_dir().ok();
        let shown = here.as_ref().and_then(|here| path.strip_prefix(here).ok()).unwrap_or(&path);
        for (name, port) in guests {
            eprintln!("{}", invitation(shown, name, port));
        }
        Ok(())
    }
}

fn invitation(configuration: &Path, name: &str, port: u16) -> String {
    format!("Access by `ssh -F {} {name}` (port {port}).", configuration.display())
}

/// A TCP port of this machine that nobody listens at.
///
/// # Errors
/// Fails when there is none.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("this machine has no free TCP port")?;
    Ok(listener.local_addr()?.port())
}
