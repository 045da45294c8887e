//! The consoles of guests where there is no terminal to show one at a time: in a pipe, a file or a test.

use std::time::{Duration, Instant};

use crate::emulator::serial::LineSplitter;

/// One guest as it is, or all of them line by line, each line with its guest's name.
#[derive(Debug)]
pub struct Plain {
    names: Vec<String>,
    lines: Vec<LineSplitter>,
    /// The only one that is shown.
    only: Option<usize>,
}

impl Plain {
    /// Shows the guest `only`, or all.
    #[must_use]
    pub fn new(names: &[String], only: Option<usize>) -> Self {
        let only = only.or((names.len() == 1).then_some(0));
        Self { names: names.to_vec(), lines: names.iter().map(|_| LineSplitter::default()).collect(), only }
    }

    /// The guest that input is for.
    #[must_use]
    pub fn listener(&self) -> usize {
        self.only.unwrap_or(0)
    }

    /// A guest printed something; gives what is to be shown now.
    pub fn printed(&mut self, guest: usize, bytes: &[u8]) -> Vec<u8> {
        if let Some(only) = self.only {
            return if guest == only { bytes.to_vec() } else { Vec::new() };
        }
        let (Some(name), Some(splitter)) = (self.names.get(guest), self.lines.get_mut(guest)) else {
            return Vec::new();
        };
        splitter.push(bytes).iter().flat_map(|line| format!("[{name}] {line}\n").into_bytes()).collect()
    }

    /// The lines that have no end yet, when there will be none.
    pub fn rest(&mut self) -> Vec<u8> {
        let lines = self.names.iter().zip(&mut self.lines);
        lines.filter_map(|(name, splitter)| Some(format!("[{name}] {}\n", splitter.rest()?))).collect::<String>().into()
    }
}

/// Holds input back until the guest shows a prompt: before, nobody there reads it, and starting programs throw it away.
#[derive(Debug)]
pub struct PromptGate {
    held: Vec<u8>,
    is_open: bool,
    /// The last byte that the guest printed, and when.
    last: Option<(u8, Instant)>,
}

impl PromptGate {
    /// A guest that prints no more for so long, and has not ended its line, waits for input.
    const QUIET: Duration = Duration::from_millis(300);

    /// A gate that is closed.
    #[must_use]
    pub fn new() -> Self {
        Self { held: Vec::new(), is_open: false, last: None }
    }

    /// The guest printed something.
    pub fn printed(&mut self, bytes: &[u8], now: Instant) {
        if let Some(&byte) = bytes.last() {
            self.last = Some((byte, now));
        }
    }

    /// There is input.
    pub fn typed(&mut self, bytes: &[u8]) {
        self.held.extend(bytes);
    }

    /// Input that the guest is to have now.
    pub fn passes(&mut self, now: Instant) -> Vec<u8> {
        let waits = |(byte, at): (u8, Instant)| byte != b'\n' && now.duration_since(at) >= Self::QUIET;
        self.is_open |= self.last.is_some_and(waits);
        if self.is_open { std::mem::take(&mut self.held) } else { Vec::new() }
    }
}

impl Default for PromptGate {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> [String; 2] {
        ["one".into(), "two".into()]
    }

    #[test]
    fn a_single_guest_is_shown_as_it_is() {
        let mut plain = Plain::new(&names()[..1], None);
        assert_eq!(plain.printed(0, b"\x1b[1mhi\r\n# "), b"\x1b[1mhi\r\n# ");
        assert!(plain.rest().is_empty());
    }

    #[test]
    fn lines_of_several_guests_have_their_names() {
        let mut plain = Plain::new(&names(), None);
        assert!(plain.printed(0, b"he").is_empty());
        assert_eq!(plain.printed(1, b"there\r\n"), b"[two] there\n");
        assert_eq!(plain.printed(0, b"llo\r\n# "), b"[one] hello\n");
        assert!(plain.printed(2, b"nobody\n").is_empty());
        assert_eq!(plain.rest(), b"[one] # \n");
    }

    #[test]
    fn a_chosen_guest_is_the_only_one_shown() {
        let mut plain = Plain::new(&names(), Some(1));
        assert!(plain.printed(0, b"x\n").is_empty());
        assert_eq!((plain.listener(), plain.printed(1, b"y\n")), (1, b"y\n".to_vec()));
    }

    #[test]
    fn input_waits_for_a_prompt() {
        let start = Instant::now();
        let later = start + PromptGate::QUIET;
        let mut gate = PromptGate::new();
        gate.typed(b"exit\n");
        assert!(gate.passes(later).is_empty(), "nothing was printed");
        gate.printed(b"booting\n", start);
        assert!(gate.passes(later).is_empty(), "the line has ended");
        gate.printed(b"# ", start);
        assert!(gate.passes(start).is_empty(), "the line may go on");
        assert_eq!(gate.passes(later), b"exit\n");
        gate.printed(b"busy\n", later);
        gate.typed(b"more");
        assert_eq!(gate.passes(later), b"more");
    }
}
