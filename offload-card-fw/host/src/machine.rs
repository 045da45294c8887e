//! The machine file: which devices the card serves, and at which sockets.

use std::path::{Path, PathBuf};

use dragonfly_card_devices::tables::{Devices, OUTSIDE_TABLES, Outside, TABLES};
use dragonfly_settings::{Document, Section, SettingsError};

/// All that a machine file describes.
#[derive(Debug)]
pub struct Machine {
    /// The devices, whose files are named relative to [`Self::folder`].
    pub devices: Devices,
    /// The network's way out.
    pub outside: Outside,
    /// Where clients of each disk call.
    pub disk_sockets: Vec<PathBuf>,
    /// Where clients of each network device call.
    pub net_sockets: Vec<PathBuf>,
    /// Where clients of each source of random numbers call.
    pub rng_sockets: Vec<PathBuf>,
    /// Where `offload-card snapshot` reaches the process that serves the devices.
    pub control: Option<PathBuf>,
    /// Where clients of each guest's sockets call.
    pub vsock_sockets: Vec<PathBuf>,
    /// Where clients of each console call.
    pub console_sockets: Vec<PathBuf>,
    /// Where programs of the host reach each of these guests, if they do.
    pub host_sockets: Vec<Option<PathBuf>>,
    /// Where programs of the host are at the other ends of consoles' ports: each port's name, and its socket.
    pub port_sockets: Vec<(String, PathBuf)>,
    /// The machine file's folder.
    pub folder: PathBuf,
}

impl Machine {
    /// Reads the text of a machine file; `file` is its name in errors, and relative paths begin at its folder.
    ///
    /// # Errors
    /// The first fault of the text.
    pub fn parse(file: &Path, text: &str) -> Result<Self, SettingsError> {
        let name = file.display().to_string();
        let document = Document::parse(&name, text)?;
        let top = document.top();
        top.only_keys(&[&TABLES[..], &OUTSIDE_TABLES, &["control"]].concat())?;
        let folder = file.parent().unwrap_or(Path::new("")).to_path_buf();
        let devices = Devices::read(&top, &["socket"], |_| None)?;
        let outside = Outside::read(&top)?;
        let kinds = ["disk", "net", "rng", "vsock", "console"].map(|key| top.tables(key));
        let mut sections = Vec::new();
        for tables in kinds {
            sections.extend(tables?);
        }
        if sections.is_empty() {
            let message = "is missing: describe at least one device in a table [[disk]], [[net]], [[rng]], [[vsock]] or [[console]]";
            return Err(top.error("disk", message.into()));
        }
        let mut sockets = Vec::new();
        for section in &sections {
            let socket = socket(section, "socket", &folder)?;
            if sockets.contains(&socket) {
                let message = format!("has \"{}\" again: give each device a socket of its own", socket.display());
                return Err(section.error("socket", message));
            }
            sockets.push(socket);
        }
        let mut host_sockets = Vec::new();
        for section in top.tables("vsock")? {
            let path = section.string("host_socket")?.map(|_| socket(&section, "host_socket", &folder)).transpose()?;
            if path.as_ref().is_some_and(|path| sockets.contains(path) || host_sockets.contains(&Some(path.clone()))) {
                return Err(section.error("host_socket", "is another socket, too: give it one of its own".into()));
            }
            host_sockets.push(path);
        }
        let mut port_sockets: Vec<(String, PathBuf)> = Vec::new();
        for (section, console) in top.tables("console")?.iter().zip(&devices.consoles) {
            let Some(base) = &console.host_socket else { continue };
            for port in &console.ports {
                let path = checked(section, "host_socket", folder.join(format!("{base}_{port}")))?;
                if sockets.contains(&path) || port_sockets.iter().any(|(_, other)| *other == path) {
                    return Err(section.error("host_socket", "is another socket, too: give it one of its own".into()));
                }
                port_sockets.push((port.clone(), path));
            }
        }
        let control = top.string("control")?.map(|_| socket(&top, "control", &folder)).transpose()?;
        if control.as_ref().is_some_and(|control| sockets.contains(control)) {
            return Err(top.error("control", "is the socket of a device: give it one of its own".into()));
        }
        let mut net_sockets = sockets.split_off(devices.disks.len());
        let mut rng_sockets = net_sockets.split_off(devices.nets.len());
        let mut vsock_sockets = rng_sockets.split_off(devices.rngs.len());
        let console_sockets = vsock_sockets.split_off(devices.vsocks.len());
        for (section, vsock) in top.tables("vsock")?.iter().zip(&devices.vsocks) {
            section.required("cid", vsock.cid)?;
        }
        Ok(Self {
            devices,
            outside,
            disk_sockets: sockets,
            net_sockets,
            rng_sockets,
            vsock_sockets,
            console_sockets,
            host_sockets,
            port_sockets,
            control,
            folder,
        })
    }
}

/// The socket that a key names.
fn socket(section: &Section<'_>, key: &str, folder: &Path) -> Result<PathBuf, SettingsError> {
    checked(section, key, folder.join(section.required(key, section.string(key)?)?))
}

/// A socket for whose path Linux has room.
fn checked(section: &Section<'_>, key: &str, socket: PathBuf) -> Result<PathBuf, SettingsError> {
    /// What `sockaddr_un` has room for, with a zero at the end.
    const MAX_SOCKET_PATH: usize = 107;
    let len = socket.as_os_str().len();
    if len > MAX_SOCKET_PATH {
        let message = format!("has a path of {len} bytes: Linux takes {MAX_SOCKET_PATH}, so name a shorter one");
        return Err(section.error(key, message));
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Machine, String> {
        Machine::parse(Path::new("/etc/card/card.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn sockets_are_relative_to_the_machine_files_folder() {
        let net = "[[net]]\nname = 'n'\nsocket = '/run/n.sock'\nmac = '52:54:00:00:00:01'";
        let rng = "[[rng]]\nname = 'r'\nsocket = 'r.sock'";
        let machine = parse(&format!("[[disk]]\nname = 'd'\nsocket = 'd.sock'\nsize = '1MiB'\n{rng}\n{net}")).unwrap();
        assert_eq!(machine.disk_sockets, [Path::new("/etc/card/d.sock")]);
        assert_eq!(machine.net_sockets, [Path::new("/run/n.sock")]);
        assert_eq!(machine.rng_sockets, [Path::new("/etc/card/r.sock")]);
        assert_eq!(machine.folder, Path::new("/etc/card"));
    }

    #[test]
    fn each_port_of_a_console_has_a_socket_of_its_own() {
        let text = "[[console]]\nname = 'c'\nports = ['a', 'b']\nsocket = 's'\nhost_socket = 'run/x'";
        let sockets = ["a", "b"].map(|port| (port.to_string(), format!("/etc/card/run/x_{port}").into()));
        assert_eq!(parse(text).unwrap().port_sockets, sockets);
    }

    #[test]
    fn each_mistake_is_told_with_line_key_and_remedy() {
        let disk = "[[disk]]\nname = 'a'\nsocket = 's'\nsize = '1MiB'\n";
        for (text, message) in [
            (
                String::new(),
                ":1: `disk` is missing: describe at least one device in a table [[disk]], [[net]], [[rng]], [[vsock]] or [[console]]",
            ),
            (format!("control = 's'\n{disk}"), ":1: `control` is the socket of a device: give it one of its own"),
            (
                "[[vsock]]\nname = 'v'\ncid = 3\nsocket = 's'\nhost_socket = 's'".into(),
                ":5: `host_socket` is another socket, too: give it one of its own",
            ),
            (
                "[[console]]\nname = 'c'\nports = ['a', 'b']\nsocket = 'x_b'\nhost_socket = 'x'".into(),
                ":5: `host_socket` is another socket, too: give it one of its own",
            ),
            ("[[vsock]]\nname = 'v'\nsocket = 's'".into(), ":1: `cid` is missing: add it to this table"),
            ("disks = 1".into(), ":1: `disks` is not a known key: did you mean `disk`?"),
            ("[[disk]]\nname = 'a'\nsize = '1MiB'".into(), ":1: `socket` is missing: add it to this table"),
            (
                format!("{disk}[[disk]]\nname = 'b'\nsocket = 's'\nsize = '1MiB'"),
                ":7: `socket` has \"/etc/card/s\" again: give each device a socket of its own",
            ),
        ] {
            assert_eq!(parse(&text).unwrap_err(), format!("/etc/card/card.toml{message}"), "{text}");
        }
    }

    #[test]
    fn a_socket_that_linux_has_no_room_for_is_refused() {
        let text = format!("[[disk]]\nname = 'a'\nsocket = '{}'\nsize = '1MiB'", "s".repeat(98));
        assert!(parse(&text).unwrap_err().contains("Linux takes 107"), "{text}");
    }
}
