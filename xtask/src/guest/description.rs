//! What guests the user asked for: by machine files, or by options.

use std::{
    borrow::Cow,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use dragonfly_machine_file::{MachineFile, SettingsError};
use serde::Serialize;

use super::{
    devices::{self, Devices, Image},
    initramfs,
    stream::MAX_GUESTS,
};
use crate::{
    bad_input::BadInput,
    cli::Guests,
    tools::{
        Tools,
        guests::{GuestKernel, GuestLinux},
    },
};

/// The most CPUs that a host can have.
pub const HOST_CPUS_AT_MOST: u32 = 64;

/// A guest to run.
#[derive(Clone, Debug)]
pub struct Guest {
    /// What its machine file says.
    pub machine: MachineFile,
    /// The machine file.
    pub text: String,
    /// The files that the machine file names, under the names that it has for them.
    pub files: Vec<(String, Vec<u8>)>,
    /// The user's machine file; none if the user gave options.
    pub source: Option<PathBuf>,
    /// What its disks are made of.
    pub devices: Devices,
}

/// What guests that the user describes by options have beside those.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras<'a> {
    /// The file that is their disk, and whether what they write is kept there. They have a network then, too.
    pub image: Option<(&'a Path, bool)>,
    /// The user's terminal.
    pub terminal: Option<&'a UserTerminal>,
}

/// The user's terminal, for guests to know.
#[derive(Clone, Debug)]
pub struct UserTerminal {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
    /// Its kind, as in the environment variable `TERM`.
    pub kind: String,
}

/// Reads what the options name, and fetches what they imply. `root` is the workspace's folder.
///
/// # Errors
/// [`BadInput`] for a fault of a machine file or option; else when something cannot be fetched.
pub fn guests(options: &Guests, tools: &Tools, root: &Path, extras: &Extras<'_>) -> Result<Vec<Guest>> {
    if !options.machine.is_empty() {
        return options.machine.iter().map(|path| Ok(from_file(path)?)).collect();
    }
    let mut files = Vec::new();
    let kernel = match &options.kernel {
        Some(path) => named(&mut files, "kernel", path)?,
        None => {
            let kernel = debian_kernel(options, tools)?;
            let image = fs::read(&kernel.image).with_context(|| format!("cannot read {}", kernel.image.display()))?;
            let name = format!("vmlinuz-{}", kernel.release);
            files.push((name.clone(), image));
            name
        }
    };
    let initrd = match &options.initrd {
        Some(path) => Some(named(&mut files, "initrd", path)?),
        None if options.kernel.is_some() => None,
        None => {
            let busybox = tools.busybox()?;
            let bytes = match extras.image {
                Some(_) => initramfs::build_with_devices(&busybox, &debian_kernel(options, tools)?, root)?,
                None => initramfs::build(&busybox, root)?,
            };
            files.push(("initramfs".into(), bytes));
            Some("initramfs".into())
        }
    };
    let is_ours = options.kernel.is_none() && options.initrd.is_none();
    let base = if is_ours { "debian" } else { "guest" };
    let guests = (0..options.guests).map(|number| {
        let name = if options.guests == 1 { base.into() } else { format!("{base}-{number}") };
        let cmdline = match &options.cmdline {
            Some(text) => text.clone(),
            None if is_ours => default_command_line(&name, extras),
            None => "console=ttyS0".into(),
        };
        let file = OptionsFile {
            name: &name,
            vcpus: options.vcpus,
            memory: format!("{}MiB", options.memory.mebibytes),
            kernel: &kernel,
            initrd: initrd.as_deref(),
            cmdline: &cmdline,
            disk: extras
                .image
                .map(|(path, _)| DiskTable { name: "disk", image: path.to_string_lossy() })
                .into_iter()
                .collect(),
            net: extras.image.map(|_| NamedTable { name: "net" }).into_iter().collect(),
            rng: extras.image.map(|_| NamedTable { name: "rng" }).into_iter().collect(),
        };
        let images = extras.image.map(|(path, is_kept)| Image { disk: 0, path: path.into(), is_kept });
        let devices = Devices { images: images.into_iter().collect(), ..Devices::default() };
        let text = toml::to_string(&file).context("cannot write a machine file")?;
        let machine = MachineFile::parse("options", &text).map_err(|error| fault_of_option(&error))?;
        Ok(Guest { machine, text, files: files.clone(), source: None, devices })
    });
    guests.collect()
}

/// The machine file that options stand for.
#[derive(Serialize)]
struct OptionsFile<'a> {
    name: &'a str,
    vcpus: u32,
    memory: String,
    kernel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    initrd: Option<&'a str>,
    cmdline: &'a str,
    disk: Vec<DiskTable<'a>>,
    net: Vec<NamedTable>,
    rng: Vec<NamedTable>,
}

#[derive(Serialize)]
struct DiskTable<'a> {
    name: &'static str,
    image: Cow<'a, str>,
}

#[derive(Serialize)]
struct NamedTable {
    name: &'static str,
}

fn debian_kernel(options: &Guests, tools: &Tools) -> Result<GuestKernel> {
    tools.guest_kernel(options.debian.unwrap_or(GuestLinux::Debian12Cloud))
}

/// For our initial RAM disk: its first program understands the words.
fn default_command_line(name: &str, extras: &Extras<'_>) -> String {
    let mut line = format!("console=ttyS0 quiet hostname={name}");
    if extras.image.is_some() {
        line.push_str(" root=/dev/vda");
    }
    if let Some(UserTerminal { rows, columns, kind }) = extras.terminal {
        line.push_str(&format!(" df.rows={rows} df.columns={columns}"));
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-+._".contains(c);
        if !kind.is_empty() && kind.chars().all(is_plain) {
            line.push_str(&format!(" df.term={kind}"));
        }
    }
    line
}

/// Reads the file that an option names; gives the name that it has for the guest.
fn named(files: &mut Vec<(String, Vec<u8>)>, option: &str, path: &Path) -> Result<String, BadInput> {
    let name = path.to_string_lossy().into_owned();
    let contents = fs::read(path).map_err(|error| BadInput(format!("--{option} {name}: cannot be read: {error}")))?;
    files.push((name.clone(), contents));
    Ok(name)
}

fn fault_of_option(error: &SettingsError) -> BadInput {
    BadInput(format!("--{} {}", error.key.as_deref().unwrap_or_default(), error.message))
}

/// Reads a machine file and the files that it names, which are relative to its folder.
fn from_file(path: &Path) -> Result<Guest, BadInput> {
    let shown = path.display().to_string();
    let bytes = fs::read(path).map_err(|error| BadInput(format!("--machine {shown}: cannot be read: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|_| BadInput(format!("{shown}: is not UTF-8: save it as such")))?;
    let machine = MachineFile::parse(&shown, &text).map_err(|error| BadInput(error.to_string()))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut files = Vec::new();
    for (key, name) in [("kernel", Some(&machine.kernel)), ("initrd", machine.initrd.as_ref())] {
        let Some(name) = name else { continue };
        let file = folder.join(name);
        let contents = fs::read(&file).map_err(|error| {
            let message =
                format!("is \"{name}\", but {} cannot be read: {error}: give the path of a file", file.display());
            BadInput(machine.error(key, message).to_string())
        })?;
        files.push((name.clone(), contents));
    }
    let devices = devices::read(&shown, &text, folder, &mut files)?;
    Ok(Guest { machine, text, files, source: Some(path.into()), devices })
}

/// Checks what single machine files do not show: that guests differ in their names, and suit the host.
///
/// # Errors
/// [`BadInput`] for the first guest that does not fit.
pub fn check(guests: &[Guest], host_cpus: u32) -> Result<(), BadInput> {
    // Names of the domains beside the guests'.
    const TAKEN: [&str; 3] = ["supervisor", "console", "card"];
    let has_card = devices::any(guests);
    if has_card && host_cpus < 2 {
        let message = "the card that serves disks and networks needs a CPU of its own: give --cpus 2 or more";
        return Err(BadInput(message.into()));
    }
    if guests.len() > MAX_GUESTS {
        return Err(BadInput(format!("{} guests: there can be {MAX_GUESTS} at most", guests.len())));
    }
    for (number, Guest { machine, .. }) in guests.iter().enumerate() {
        let fault = |key, message: String| Err(BadInput(machine.error(key, message).to_string()));
        let name = &machine.name;
        if TAKEN.contains(&name.as_str()) {
            return fault("name", format!("is \"{name}\", which is taken: choose another name"));
        }
        if guests[..number].iter().any(|other| other.machine.name == *name) {
            return fault("name", format!("is \"{name}\", as another guest's: choose another name"));
        }
        if let Some(cpu) = machine.cpus.iter().find(|cpu| **cpu >= host_cpus) {
            let message = format!("has {cpu}, but the host has CPUs 0 to {}: give --cpus more", host_cpus - 1);
            return fault("cpus", message);
        }
        if has_card && machine.cpus.contains(&(host_cpus - 1)) {
            let message = format!("has {}, the last, which is the card's own: leave it out", host_cpus - 1);
            return fault("cpus", message);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn machine(text: &str) -> Guest {
        let machine = MachineFile::parse("m.toml", text).unwrap();
        Guest { machine, text: text.into(), files: Vec::new(), source: None, devices: Devices::default() }
    }

    #[test]
    fn paths_in_a_machine_file_are_relative_to_it() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "kernel.bin", "K");
        let path = write(folder.path(), "m.toml", "name = \"a\"\nkernel = \"./kernel.bin\"\n");
        let guest = from_file(&path).unwrap();
        assert_eq!(guest.files, [("./kernel.bin".to_string(), b"K".to_vec())]);
        assert_eq!(guest.source, Some(path));
    }

    #[test]
    fn a_file_that_a_machine_file_names_in_vain_is_told_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "k", "K");
        let path = write(folder.path(), "m.toml", "name = \"a\"\nkernel = \"k\"\ninitrd = \"none\"\n");
        let message = from_file(&path).unwrap_err().to_string();
        assert!(message.starts_with(&format!("{}:3: `initrd` is \"none\", but ", path.display())), "{message}");
        assert!(message.ends_with("give the path of a file"), "{message}");
    }

    #[test]
    fn a_machine_file_that_is_not_there_is_told() {
        assert!(from_file(Path::new("/nonexistent.toml")).unwrap_err().0.starts_with("--machine /nonexistent.toml: "));
    }

    #[test]
    fn guests_differ_in_their_names_and_fit_the_host() {
        let good = "name = \"a\"\nkernel = \"k\"\n";
        check(&[machine(good), machine("name = \"b\"\nkernel = \"k\"\ncpus = [0, 1]\n")], 2).unwrap();
        for (second, message) in [
            (good, "m.toml:1: `name` is \"a\", as another guest's: choose another name"),
            (
                "name = \"console\"\nkernel = \"k\"\n",
                "m.toml:1: `name` is \"console\", which is taken: choose another name",
            ),
            (
                "name = \"b\"\nkernel = \"k\"\ncpus = [2]\n",
                "m.toml:3: `cpus` has 2, but the host has CPUs 0 to 1: give --cpus more",
            ),
        ] {
            assert_eq!(check(&[machine(good), machine(second)], 2).unwrap_err().0, message);
        }
    }

    #[test]
    fn the_card_has_the_last_cpu_for_itself() {
        let disk = "name = \"a\"\nkernel = \"k\"\ncpus = [1]\n[[disk]]\nname = \"d\"\nsize = \"1MiB\"\n";
        check(&[machine(disk)], 3).unwrap();
        for (cpus, message) in
            [(2, "m.toml:3: `cpus` has 1, the last, which is the card's own: leave it out"), (1, "--cpus")]
        {
            assert!(check(&[machine(disk)], cpus).unwrap_err().0.contains(message), "{cpus}");
        }
    }

    #[test]
    fn the_default_command_line_tells_of_a_terminal_that_is_there() {
        assert_eq!(default_command_line("a", &Extras::default()), "console=ttyS0 quiet hostname=a");
        let terminal = UserTerminal { rows: 24, columns: 80, kind: "xterm-256color".into() };
        let line = |terminal| default_command_line("a", &Extras { terminal: Some(terminal), image: None });
        assert!(line(&terminal).ends_with(" df.rows=24 df.columns=80 df.term=xterm-256color"));
        let odd = UserTerminal { kind: "a b".into(), ..terminal };
        assert!(line(&odd).ends_with(" df.columns=80"));
    }

    #[test]
    fn options_become_a_machine_file() {
        let file = OptionsFile {
            name: "a",
            vcpus: 2,
            memory: "64MiB".into(),
            kernel: "path with \"quotes\"",
            initrd: None,
            cmdline: "x",
            disk: vec![DiskTable { name: "disk", image: "/a \"b\".img".into() }],
            net: vec![NamedTable { name: "net" }],
            rng: vec![NamedTable { name: "rng" }],
        };
        let machine = MachineFile::parse("options", &toml::to_string(&file).unwrap()).unwrap();
        assert_eq!((machine.kernel.as_str(), machine.initrd, machine.memory), ("path with \"quotes\"", None, 64 << 20));
        assert_eq!((machine.disks, machine.nets, machine.rngs), (1, 1, 1));
    }
}
