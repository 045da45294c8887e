//! The debug port: bytes that a guest writes there become lines for the log.

use alloc::collections::VecDeque;
use alloc::string::String;

/// Longest line in bytes; longer ones are cut into several.
const MAX_LINE: usize = 120;
/// Lines that wait for the owner; further ones are dropped.
const MAX_LINES: usize = 16;

/// What the port reads as: that tells a guest that it is there, as in Bochs and QEMU.
pub const PRESENT: u8 = 0xe9;

/// The port.
#[derive(Clone, Default, Debug)]
pub struct DebugPort {
    line: String,
    lines: VecDeque<String>,
}

impl DebugPort {
    /// The guest writes a byte. Control characters other than the line's end are shown as dots.
    pub fn write(&mut self, byte: u8) {
        if byte != b'\n' {
            let is_visible = byte == b' ' || byte.is_ascii_graphic();
            self.line.push(if is_visible { char::from(byte) } else { '.' });
            if self.line.len() < MAX_LINE {
                return;
            }
        }
        let line = core::mem::take(&mut self.line);
        if self.lines.len() < MAX_LINES {
            self.lines.push_back(line);
        }
    }

    /// The oldest line that is complete.
    pub fn take_line(&mut self) -> Option<String> {
        self.lines.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(bytes: &[u8]) -> DebugPort {
        let mut port = DebugPort::default();
        bytes.iter().for_each(|byte| port.write(*byte));
        port
    }

    #[test]
    fn a_line_is_given_when_it_is_complete() {
        let mut port = written(b"one\ntw");
        assert_eq!(port.take_line().as_deref(), Some("one"));
        assert_eq!(port.take_line(), None);
        port.write(b'o');
        port.write(b'\n');
        assert_eq!(port.take_line().as_deref(), Some("two"));
    }

    #[test]
    fn bytes_that_could_harm_a_terminal_are_replaced() {
        assert_eq!(written(b"\x1b[2J\xff\n").take_line().as_deref(), Some(".[2J."));
    }

    #[test]
    fn a_guest_that_never_ends_its_line_fills_a_bounded_number_of_lines() {
        let mut port = written(&[b'x'; 100_000]);
        let lines: Vec<String> = core::iter::from_fn(|| port.take_line()).collect();
        assert_eq!(lines.len(), MAX_LINES);
        assert!(lines.iter().all(|line| line.len() == MAX_LINE));
    }
}
