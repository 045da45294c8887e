//! Sockets where others call.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::FileTypeExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
};

use anyhow::{Context, Result, bail};
use rustix::event::epoll;

/// Listens at a socket, without waiting. One that a process left behind is replaced, one that is in use is not.
///
/// # Errors
/// There is something else, or the socket cannot be made.
pub fn listen(path: &Path) -> Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Ok(metadata) if metadata.file_type().is_socket() => {
            if UnixStream::connect(path).is_ok() {
                bail!("{}: another process listens there: stop it, or name another socket", path.display());
            }
            fs::remove_file(path).with_context(|| format!("cannot replace {}", path.display()))?;
        }
        Ok(_) => bail!("{}: there is a file that is no socket: name another place", path.display()),
        Err(error) => return Err(error).with_context(|| format!("cannot look at {}", path.display())),
    }
    let listener = UnixListener::bind(path).with_context(|| format!("cannot make {}", path.display()))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Waits for what happens to a socket, from now on: each event comes once, with this number.
///
/// # Errors
/// The kernel has no room.
pub fn watch(epoll: &OwnedFd, socket: impl AsFd, number: u64) -> io::Result<()> {
    use epoll::EventFlags;
    let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
    Ok(epoll::add(epoll, socket, epoll::EventData::new_u64(number), flags)?)
}
