//! The serial lines: bytes as they come, lines as they are meant, and the few lines that mean something to this tool.
//!
//! The first line carries the hypervisor's log, the second the guests' consoles.

use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender},
    },
    thread,
    time::Duration,
};

/// Something that happened while a machine runs.
#[derive(Debug)]
pub enum Event {
    /// Bytes came on the first serial line.
    Bytes(Vec<u8>),
    /// No more will come there: the emulator has ended.
    End,
    /// Bytes came on the second serial line.
    Guests(Vec<u8>),
    /// No more will come there.
    GuestsEnd,
    /// The user typed something.
    Typed(Vec<u8>),
}

/// Reads a pipe that the emulator's first serial line ends in.
pub fn read_pipe(pipe: impl Read + Send + 'static, sender: Sender<Event>) {
    thread::spawn(move || {
        pump(pipe, &sender, Event::Bytes);
        // Nobody listens any more when the boot has been cut off.
        let _ = sender.send(Event::End);
    });
}

/// Reads what the emulator's second serial line ends in.
pub fn read_guests(pipe: impl Read + Send + 'static, sender: Sender<Event>) {
    thread::spawn(move || {
        pump(pipe, &sender, Event::Guests);
        let _ = sender.send(Event::GuestsEnd);
    });
}

/// Writes input to the second serial line, for as long as there may be more and somebody reads it.
///
/// For a thread of its own: the machine takes input when its software does, which may be never.
pub fn write_guests(mut pipe: impl Write, input: &Receiver<Vec<u8>>) {
    for bytes in input {
        if pipe.write_all(&bytes).is_err() {
            return;
        }
    }
}

/// Follows a file that the emulator's first serial line is written to, until `ended` is set and the file is read out.
pub fn follow_file(path: PathBuf, ended: Arc<AtomicBool>, sender: Sender<Event>) {
    const INTERVAL: Duration = Duration::from_millis(10);
    thread::spawn(move || {
        let mut file = None;
        loop {
            // Taken before reading: what was written before the end is then read.
            let last_time = ended.load(Ordering::SeqCst);
            file = file.or_else(|| File::open(&path).ok());
            if let Some(file) = &mut file
                && !pump(file, &sender, Event::Bytes)
            {
                return;
            }
            if last_time {
                let _ = sender.send(Event::End);
                return;
            }
            thread::sleep(INTERVAL);
        }
    });
}

/// Sends what can be read now; false if nobody listens.
fn pump(mut from: impl Read, to: &Sender<Event>, event: impl Fn(Vec<u8>) -> Event) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return true,
            Ok(length) => {
                if to.send(event(buffer[..length].to_vec())).is_err() {
                    return false;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return true,
        }
    }
}

/// Cuts bytes into lines.
#[derive(Debug, Default)]
pub struct LineSplitter {
    partial: Vec<u8>,
}

impl LineSplitter {
    /// A machine that sends no line ends must not fill the host's memory.
    const LONGEST_LINE: usize = 64 * 1024;

    /// Takes bytes and gives the lines that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for &byte in bytes {
            if byte != b'\n' {
                self.partial.push(byte);
            }
            if byte == b'\n' || self.partial.len() >= Self::LONGEST_LINE {
                lines.push(readable(&std::mem::take(&mut self.partial)));
            }
        }
        lines
    }

    /// The last line, if it has no end.
    pub fn rest(&mut self) -> Option<String> {
        (!self.partial.is_empty()).then(|| readable(&std::mem::take(&mut self.partial)))
    }
}

/// The text of a line without carriage returns, terminal control sequences and what is not UTF-8.
fn readable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut readable = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            // A control sequence (ECMA-48 5.4) ends with a character from `@` to `~`.
            '\x1b' => {
                if rest.as_str().starts_with('[') {
                    rest.next();
                    rest.find(|c| ('@'..='~').contains(c));
                } else {
                    rest.next();
                }
            }
            '\t' => readable.push(c),
            c if c.is_control() => {}
            c => readable.push(c),
        }
    }
    readable
}

/// The code in a line `dragonfly: exit N`.
#[must_use]
pub fn exit_code(line: &str) -> Option<u32> {
    let (_, rest) = line.split_once("dragonfly: exit ")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Whether a line is the first of a kernel panic's report.
///
/// Only the kernel writes without a log prefix, so a domain that logs the word is not mistaken for it.
#[must_use]
pub fn is_panic(line: &str) -> bool {
    line.starts_with("panic: ")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn lines_that_come_in_pieces_are_put_together() {
        let mut splitter = LineSplitter::default();
        assert_eq!(splitter.push(b"one\ntw"), ["one"]);
        assert_eq!(splitter.push(b"o\r\n\nthree"), ["two", ""]);
        assert_eq!(splitter.rest().as_deref(), Some("three"));
        assert_eq!(splitter.rest(), None);
    }

    #[test]
    fn a_character_cut_in_two_is_whole_again() {
        let mut splitter = LineSplitter::default();
        let bytes = "µs\n".as_bytes();
        assert!(splitter.push(&bytes[..1]).is_empty());
        assert_eq!(splitter.push(&bytes[1..]), ["µs"]);
    }

    #[test]
    fn bytes_that_are_no_text_do_not_hide_the_line() {
        let mut splitter = LineSplitter::default();
        assert_eq!(splitter.push(b"\xff\x00[test] pass a\n"), ["\u{fffd}[test] pass a"]);
    }

    #[test]
    fn the_firmwares_screen_control_is_left_out() {
        let mut splitter = LineSplitter::default();
        assert_eq!(splitter.push(b"\x1bc\x1b[?7l\x1b[2J\x1b[1;31mSeaBIOS\x1b[0m\n"), ["SeaBIOS"]);
        assert_eq!(splitter.push(b"\x1b[12\n"), [""]);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let mut splitter = LineSplitter::default();
        let lines = splitter.push(&vec![b'x'; LineSplitter::LONGEST_LINE + 1]);
        assert_eq!(lines.len(), 1);
        assert_eq!(splitter.rest().as_deref(), Some("x"));
    }

    #[test]
    fn the_exit_line_is_found_behind_a_log_prefix() {
        for (line, code) in [
            ("dragonfly: exit 0", Some(0)),
            ("[    1.250] INFO dragonfly: exit 17", Some(17)),
            ("dragonfly: exit ", None),
            ("dragonfly: exit soon", None),
            ("dragonfly: exit -1", None),
            ("exit 0", None),
        ] {
            assert_eq!(exit_code(line), code, "{line}");
        }
    }

    #[test]
    fn only_the_kernels_own_report_is_a_panic() {
        assert!(is_panic("panic: index out of bounds"));
        assert!(!is_panic("[ 1.0] WARN supervisor: domain said panic: no"));
    }

    #[test]
    fn a_followed_file_is_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serial");
        std::fs::write(&path, b"last words\n").unwrap();
        let (sender, events) = channel();
        follow_file(path, Arc::new(AtomicBool::new(true)), sender);
        let Ok(Event::Bytes(bytes)) = events.recv() else { panic!("no bytes came") };
        assert_eq!(bytes, b"last words\n");
        assert!(matches!(events.recv(), Ok(Event::End)));
    }
}
