//! The control socket: snapshots of disks that guests use.
//!
//! Who calls sends one line: a word for what is to be done, the disk's name and, where one is meant, the snapshot's, with tabs
//! between. The answer is `ok` or `error`, a tab and what there is to say, in any number of lines; then the socket is closed.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use dragonfly_card_devices::Store;
use log::{info, warn};

use crate::{
    poller::{Poller, Token},
    snapshots::{Action, check, perform},
    socket,
    worker::StopSignal,
};

/// How long a caller may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest line: two names, and a word.
const MAX_LINE: u64 = 1024;

/// The socket, and what can be done there.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
    stores: Stores,
}

/// Volumes with snapshots, by the names of disks.
struct Stores(Vec<(String, Store)>);

impl std::fmt::Debug for Stores {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Control {
    /// Listens at a socket.
    ///
    /// # Errors
    /// There is something else, or the socket cannot be made.
    pub fn listen(path: &Path, stores: Vec<(String, Store)>) -> Result<Self> {
        Ok(Self { listener: socket::listen(path)?, path: path.into(), stores: Stores(stores) })
    }

    /// Serves callers, one after the other, until the card ends; then the socket is gone.
    ///
    /// # Errors
    /// The kernel has no room.
    pub fn serve(self, stop: &StopSignal) -> io::Result<()> {
        let mut poller = Poller::new()?;
        stop.register(&poller)?;
        poller.add(&self.listener, Token::Listener { device: 0 })?;
        info!("control: listening at {}", self.path.display());
        loop {
            if poller.wait(None)?.any(|token| token == Token::Stop) {
                return Ok(());
            }
            if let Ok((stream, _)) = self.listener.accept()
                && let Err(error) = self.answer(stream)
            {
                warn!("control: a caller was not heard: {error:#}");
            }
        }
    }

    fn answer(&self, stream: UnixStream) -> Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut line = String::new();
        BufReader::new((&stream).take(MAX_LINE)).read_line(&mut line)?;
        let answer = match self.perform(line.trim_end_matches('\n')) {
            Ok(text) => format!("ok\t{text}"),
            Err(error) => format!("error\t{error:#}"),
        };
        info!("control: {}: {}", line.trim_end().escape_debug(), answer.split('\t').next().unwrap_or_default());
        Ok((&stream).write_all(answer.as_bytes())?)
    }

    fn perform(&self, line: &str) -> Result<String> {
        let mut words = line.split('\t');
        let (word, disk) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let action = Action::of(word, words.next()).ok_or_else(|| anyhow!("\"{word}\" cannot be done"))?;
        let store = self.stores.0.iter().find(|(name, _)| name == disk).map(|(_, store)| store);
        perform(store.with_context(|| format!("there is no disk \"{disk}\" with `snapshots`"))?, &action)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Somebody else may have removed it.
        let _ = fs::remove_file(&self.path);
    }
}

/// Asks the process that serves the devices, if there is one at this socket: what it says.
///
/// # Errors
/// It does not do it, and says why.
pub fn ask(path: &Path, disk: &str, action: &Action) -> Result<Option<String>> {
    check(action)?;
    let Ok(mut stream) = UnixStream::connect(path) else { return Ok(None) };
    let name = action.name().map(|name| format!("\t{name}")).unwrap_or_default();
    writeln!(stream, "{}\t{disk}{name}", action.word())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once('\t') {
        Some(("ok", text)) => Ok(Some(text.into())),
        Some((_, reason)) => bail!("{reason}"),
        None => bail!("{}: the process there says nothing", path.display()),
    }
}
