//! The machine file: which devices the card serves.

mod disk;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use dragonfly_settings::{Document, Section, SettingsError};

pub use disk::{Disk, Medium};

/// All that a machine file describes.
#[derive(Debug)]
pub struct Machine {
    /// The disks, of which there may be none.
    pub disks: Vec<Disk>,
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
        top.only_keys(&["disk"])?;
        let folder = file.parent().unwrap_or(Path::new(""));
        let sections = top.tables("disk")?;
        let disks = sections.iter().map(|section| Disk::read(section, folder)).collect::<Result<Vec<_>, _>>()?;
        if disks.is_empty() {
            return Err(top.error("disk", "is missing: describe at least one disk in a table [[disk]]".into()));
        }
        let mut taken = Taken::default();
        for (section, disk) in sections.iter().zip(&disks) {
            taken.check(section, &disk.name, &disk.socket)?;
        }
        Ok(Self { disks })
    }
}

/// Names and sockets that devices have.
#[derive(Default)]
struct Taken {
    names: Vec<String>,
    sockets: Vec<PathBuf>,
}

impl Taken {
    fn check(&mut self, section: &Section<'_>, name: &str, socket: &Path) -> Result<(), SettingsError> {
        if self.names.iter().any(|taken| taken == name) {
            return Err(section.error("name", format!("has \"{name}\" again: give each device a name of its own")));
        }
        if self.sockets.iter().any(|taken| taken == socket) {
            let message = format!("has \"{}\" again: give each device a socket of its own", socket.display());
            return Err(section.error("socket", message));
        }
        self.names.push(name.into());
        self.sockets.push(socket.into());
        Ok(())
    }
}

/// A path, relative to the machine file's folder.
fn path(section: &Section<'_>, key: &str, folder: &Path) -> Result<Option<PathBuf>, SettingsError> {
    Ok(section.string(key)?.map(|text| folder.join(text)))
}

/// The socket that every device has.
fn socket(section: &Section<'_>, folder: &Path) -> Result<PathBuf, SettingsError> {
    /// What `sockaddr_un` has room for, with a zero at the end.
    const MAX_SOCKET_PATH: usize = 107;
    let socket = section.required("socket", path(section, "socket", folder)?)?;
    let len = socket.as_os_str().len();
    if len > MAX_SOCKET_PATH {
        let message = format!("has a path of {len} bytes: Linux takes {MAX_SOCKET_PATH}, so name a shorter one");
        return Err(section.error("socket", message));
    }
    Ok(socket)
}
