//! A server on this machine that guests reach through their uplink: it sends back what it is sent.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};

/// What one connection may send.
const MAX_BYTES: u64 = 64 << 20;

/// The running server; it ends with this.
#[derive(Debug)]
pub struct Echo {
    port: u16,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Listens, for this machine's own programs only; QEMU's user-mode network is one.
    ///
    /// # Errors
    /// Fails when there is no port.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on this machine")?;
        let port = listener.local_addr()?.port();
        let ends = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ends);
        let thread = thread::spawn(move || {
            for stream in listener.incoming().flatten().take_while(|_| !told.load(Ordering::Relaxed)) {
                // Whoever sent sees it when something goes wrong.
                thread::spawn(move || send_back(stream));
            }
        });
        Ok(Self { port, ends, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // It looks when somebody calls.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// All that comes goes back, once the other side has said that it is all.
fn send_back(mut stream: TcpStream) -> io::Result<()> {
    let mut bytes = Vec::new();
    Read::by_ref(&mut stream).take(MAX_BYTES).read_to_end(&mut bytes)?;
    stream.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use std::net::Shutdown;

    use super::*;

    #[test]
    fn what_is_sent_comes_back_and_the_server_ends() {
        let echo = Echo::start().unwrap();
        for text in ["one", "another"] {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, echo.port())).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(io::read_to_string(stream).unwrap(), text);
        }
        let port = echo.port();
        drop(echo);
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
    }
}
