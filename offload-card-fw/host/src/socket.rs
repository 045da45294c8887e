//! Sockets where others call.

use std::{
    fs, io,
    mem::MaybeUninit,
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
use rustix::event::{Timespec, epoll};

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

/// What has happened to a socket.
#[derive(Clone, Copy, Debug)]
pub struct Happened {
    /// There may be something to read, or an error or the end to be found by it.
    pub is_readable: bool,
    /// There may be room to write, or an error to be found by it.
    pub is_writable: bool,
    /// Nothing goes either way any more.
    pub is_over: bool,
}

/// Tells what has happened to sockets that are [watched](watch), without waiting: each with its number, at most `AT_MOST` of
/// them; the others are told next time.
pub fn tell_events<const AT_MOST: usize>(epoll: &OwnedFd, mut tell: impl FnMut(u64, Happened)) {
    use epoll::EventFlags;
    let mut room = [const { MaybeUninit::uninit() }; AT_MOST];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    // An interruption is no loss: the next turn asks again.
    let Ok((events, _)) = epoll::wait(epoll, &mut room, Some(&at_once)) else { return };
    for event in events {
        let flags = event.flags;
        let is_over = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        let is_readable = is_over || flags.intersects(EventFlags::IN | EventFlags::RDHUP);
        let is_writable = is_over || flags.contains(EventFlags::OUT);
        tell(event.data.u64(), Happened { is_readable, is_writable, is_over });
    }
}
