//! A disk behind a UNIX socket, as QEMU and the card's process use one: an NBD server that loses what was not flushed when its power is cut, and
//! that is as slow as it is told to be.
//!
//! Fixed newstyle negotiation and simple replies, as the NBD project's `doc/proto.md` has them; numbers are big-endian.
#![forbid(unsafe_code)]

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use dragonfly_random::Random;

const MAGIC: &[u8; 8] = b"NBDMAGIC";
const OPTION_MAGIC: &[u8; 8] = b"IHAVEOPT";
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
/// NBD_FLAG_FIXED_NEWSTYLE, NBD_FLAG_NO_ZEROES.
const HANDSHAKE_FLAGS: u16 = 1 | 2;
/// NBD_FLAG_HAS_FLAGS, NBD_FLAG_SEND_FLUSH: whoever wants more, makes it of reads, writes and flushes.
const TRANSMISSION_FLAGS: u16 = 1 | 4;
const OPTION_ABORT: u32 = 2;
const OPTION_INFO: u32 = 6;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_UNSUPPORTED: u32 = 0x8000_0001;
const EINVAL: u32 = 22;
/// No option and no request of QEMU's has more data.
const MAX_BYTES: u32 = 32 << 20;
const SECTOR: usize = 512;

/// The running server; its socket goes with this.
#[derive(Debug)]
pub struct Server {
    socket: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    disk: Mutex<Disk>,
    delay: Duration,
}

/// The disk, and what of it a power cut leaves.
#[derive(Debug)]
struct Disk {
    /// As it is read.
    current: Vec<u8>,
    /// What is safe.
    safe: Vec<u8>,
    /// Writes since the last flush, oldest first: where, and what.
    unsafe_writes: Vec<(usize, Vec<u8>)>,
    /// How often the power was cut, or connections ended: those from before are dead.
    cuts: u64,
    connections: Vec<UnixStream>,
}

impl Disk {
    fn place(&self, offset: u64, bytes: usize) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(bytes).filter(|end| *end <= self.current.len())?;
        Some(start..end)
    }

    fn write(&mut self, start: usize, bytes: Vec<u8>) {
        self.current[start..start + bytes.len()].copy_from_slice(&bytes);
        self.unsafe_writes.push((start, bytes));
    }

    fn flush(&mut self) {
        for (start, bytes) in self.unsafe_writes.drain(..) {
            self.safe[start..start + bytes.len()].copy_from_slice(&bytes);
        }
    }

    /// Of what was not flushed each sector is there or not, by chance.
    fn cut(&mut self, mut chance: Random) {
        for (start, bytes) in self.unsafe_writes.drain(..) {
            for (number, sector) in bytes.chunks(SECTOR).enumerate() {
                if chance.once_in(2) {
                    let at = start + number * SECTOR;
                    self.safe[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
        self.current.clone_from(&self.safe);
        self.cuts += 1;
        self.hang_up();
    }

    fn hang_up(&mut self) {
        for connection in self.connections.drain(..) {
            // Fails when it has ended.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Server {
    /// Serves a disk of zeros of so many bytes at this socket; each request takes `delay`.
    ///
    /// # Errors
    /// Fails when there can be no such socket.
    pub fn start(socket: &Path, bytes: usize, delay: Duration) -> Result<Self> {
        let listener = UnixListener::bind(socket).with_context(|| format!("cannot make {}", socket.display()))?;
        let disk = Disk {
            current: vec![0; bytes],
            safe: vec![0; bytes],
            unsafe_writes: Vec::new(),
            cuts: 0,
            connections: Vec::new(),
        };
        let shared = Arc::new(Shared { disk: Mutex::new(disk), delay });
        let served = Arc::clone(&shared);
        // It waits for callers until this process ends; without the socket's name none come.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&served);
                // QEMU sees it when something goes wrong.
                thread::spawn(move || shared.serve(stream));
            }
        });
        Ok(Self { socket: socket.to_path_buf(), shared })
    }

    /// Cuts the disk's power: its clients are cut off, and what was not flushed is there or not, by chance, the same for
    /// the same `seed`. The power is back for the next client.
    pub fn cut(&self, seed: u64) {
        self.shared.disk().cut(Random::new(seed));
    }

    /// Ends all connections; the disk loses nothing.
    pub fn hang_up(&self) {
        let mut disk = self.shared.disk();
        // What these have begun ends before, or not at all.
        disk.cuts += 1;
        disk.hang_up();
    }

    /// What the disk holds.
    #[must_use]
    pub fn contents(&self) -> Vec<u8> {
        self.shared.disk().current.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // In a folder that goes, too.
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl Shared {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut stream: UnixStream) -> io::Result<()> {
        let (cuts, bytes) = {
            let mut disk = self.disk();
            disk.connections.push(stream.try_clone()?);
            (disk.cuts, disk.current.len() as u64)
        };
        if negotiate(&mut stream, bytes)? {
            while self.request(&mut stream, cuts)? {}
        }
        Ok(())
    }

    /// Does a request; false ends the connection.
    fn request(&self, stream: &mut UnixStream, cuts: u64) -> io::Result<bool> {
        let (magic, _flags, kind) = (read_u32(stream)?, read_u16(stream)?, read_u16(stream)?);
        let (cookie, offset, bytes) = (read_u64(stream)?, read_u64(stream)?, read_u32(stream)?);
        if magic != REQUEST_MAGIC || bytes > MAX_BYTES {
            return Ok(false);
        }
        let data = if kind == 1 { read(stream, bytes)? } else { Vec::new() };
        thread::sleep(self.delay);
        let mut answer = Vec::new();
        let error = {
            let mut disk = self.disk();
            if disk.cuts != cuts {
                return Ok(false);
            }
            match (kind, disk.place(offset, bytes as usize)) {
                (0, Some(place)) => {
                    answer.extend_from_slice(&disk.current[place]);
                    0
                }
                (1, Some(place)) => {
                    disk.write(place.start, data);
                    0
                }
                // NBD_CMD_DISC
                (2, _) => return Ok(false),
                (3, _) => {
                    disk.flush();
                    0
                }
                _ => EINVAL,
            }
        };
        let head = [&REPLY_MAGIC.to_be_bytes()[..], &error.to_be_bytes(), &cookie.to_be_bytes()].concat();
        stream.write_all(&[head, answer].concat())?;
        Ok(true)
    }
}

/// Agrees with a client on the one disk that there is; false if it goes.
fn negotiate(stream: &mut UnixStream, disk_bytes: u64) -> io::Result<bool> {
    stream.write_all(&[&MAGIC[..], OPTION_MAGIC, &HANDSHAKE_FLAGS.to_be_bytes()].concat())?;
    let _flags = read_u32(stream)?;
    loop {
        let (magic, option, bytes) = (read(stream, 8)?, read_u32(stream)?, read_u32(stream)?);
        if magic != OPTION_MAGIC || bytes > MAX_BYTES {
            return Ok(false);
        }
        read(stream, bytes)?;
        let mut reply = |kind: u32, data: &[u8]| {
            let head = [&OPTION_REPLY_MAGIC.to_be_bytes()[..], &option.to_be_bytes(), &kind.to_be_bytes()].concat();
            stream.write_all(&[&head, &(data.len() as u32).to_be_bytes()[..], data].concat())
        };
        match option {
            OPTION_INFO | OPTION_GO => {
                // NBD_INFO_EXPORT
                let info = [&0_u16.to_be_bytes()[..], &disk_bytes.to_be_bytes(), &TRANSMISSION_FLAGS.to_be_bytes()];
                reply(REPLY_INFO, &info.concat())?;
                reply(REPLY_ACK, &[])?;
                if option == OPTION_GO {
                    return Ok(true);
                }
            }
            OPTION_ABORT => {
                reply(REPLY_ACK, &[])?;
                return Ok(false);
            }
            _ => reply(REPLY_UNSUPPORTED, &[])?,
        }
    }
}

fn read(stream: &mut UnixStream, bytes: u32) -> io::Result<Vec<u8>> {
    let mut data = vec![0; bytes as usize];
    stream.read_exact(&mut data)?;
    Ok(data)
}

fn read_array<const N: usize>(stream: &mut UnixStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read_u16(stream: &mut UnixStream) -> io::Result<u16> {
    read_array(stream).map(u16::from_be_bytes)
}

fn read_u32(stream: &mut UnixStream) -> io::Result<u32> {
    read_array(stream).map(u32::from_be_bytes)
}

fn read_u64(stream: &mut UnixStream) -> io::Result<u64> {
    read_array(stream).map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> (tempfile::TempDir, Server) {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(&folder.path().join("s"), 64 * SECTOR, Duration::ZERO).unwrap();
        (folder, server)
    }

    /// A client that has chosen the disk.
    fn connect(server: &Server) -> UnixStream {
        let mut stream = UnixStream::connect(&server.socket).unwrap();
        assert_eq!(read(&mut stream, 18).unwrap()[..8], *MAGIC);
        stream.write_all(&[&3_u32.to_be_bytes()[..], OPTION_MAGIC, &8_u32.to_be_bytes(), &[0; 4]].concat()).unwrap();
        assert_eq!(read(&mut stream, 20).unwrap()[12..16], REPLY_UNSUPPORTED.to_be_bytes());
        stream
            .write_all(&[&OPTION_MAGIC[..], &OPTION_GO.to_be_bytes(), &6_u32.to_be_bytes(), &[0; 6]].concat())
            .unwrap();
        let info = read(&mut stream, 20 + 12 + 20).unwrap();
        assert_eq!(info[22..30], (64 * SECTOR as u64).to_be_bytes());
        stream
    }

    fn ask(stream: &mut UnixStream, kind: u16, sector: u64, bytes: u32, data: &[u8]) -> io::Result<(u32, Vec<u8>)> {
        let head = [&REQUEST_MAGIC.to_be_bytes()[..], &[0; 2], &kind.to_be_bytes(), &7_u64.to_be_bytes()].concat();
        let place = [&(sector * SECTOR as u64).to_be_bytes()[..], &bytes.to_be_bytes()].concat();
        stream.write_all(&[&head, &place, data].concat())?;
        let (magic, error, cookie) = (read_u32(stream)?, read_u32(stream)?, read_u64(stream)?);
        assert_eq!((magic, cookie), (REPLY_MAGIC, 7));
        let answer = if kind == 0 && error == 0 { read(stream, bytes)? } else { Vec::new() };
        Ok((error, answer))
    }

    #[test]
    fn what_was_flushed_outlives_a_cut_and_of_the_rest_some_sectors_do() {
        let (_folder, server) = server();
        let mut client = connect(&server);
        let bytes = (32 * SECTOR) as u32;
        for (sector, byte) in [(0, 1), (32, 2)] {
            ask(&mut client, 1, sector, bytes, &vec![byte; bytes as usize]).unwrap();
            if sector == 0 {
                assert_eq!(ask(&mut client, 3, 0, 0, &[]).unwrap().0, 0);
            }
        }
        assert_eq!(ask(&mut client, 0, 32, bytes, &[]).unwrap().1, vec![2; bytes as usize]);
        server.cut(9);
        assert!(ask(&mut client, 0, 0, 512, &[]).is_err(), "it is cut off");
        let mut client = connect(&server);
        assert_eq!(ask(&mut client, 0, 0, bytes, &[]).unwrap().1, vec![1; bytes as usize]);
        let rest = ask(&mut client, 0, 32, bytes, &[]).unwrap().1;
        let kept = rest.chunks(SECTOR).filter(|sector| sector.iter().all(|byte| *byte == 2)).count();
        let lost = rest.chunks(SECTOR).filter(|sector| sector.iter().all(|byte| *byte == 0)).count();
        assert!(kept > 0 && lost > 0 && kept + lost == 32, "{kept} kept, {lost} lost");
    }

    #[test]
    fn what_is_beyond_the_end_is_refused() {
        let (_folder, server) = server();
        let mut client = connect(&server);
        assert_eq!(ask(&mut client, 0, 64, 512, &[]).unwrap().0, EINVAL);
        assert_eq!(ask(&mut client, 1, 63, 1024, &[0; 1024]).unwrap().0, EINVAL);
    }
}
