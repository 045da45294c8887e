//! What is shown of several guests and the hypervisor on one terminal, one at a time.

use std::collections::VecDeque;

/// What of a guest is kept while something else is shown.
const UNSEEN_AT_MOST: usize = 64 * 1024;

/// Shows one guest's console or the hypervisor's log, and keeps what the others print until they are shown.
///
/// The terminal is in raw mode: lines end with carriage return and line feed.
#[derive(Debug)]
pub struct Screen {
    guests: Vec<Guest>,
    chosen: usize,
    log: Vec<u8>,
    shows_log: bool,
}

#[derive(Debug)]
struct Guest {
    name: String,
    unseen: VecDeque<u8>,
}

impl Screen {
    /// Shows the console of the guest `chosen`; `names` are the guests'.
    #[must_use]
    pub fn new(names: &[String], chosen: usize) -> Self {
        let guests = names.iter().map(|name| Guest { name: name.clone(), unseen: VecDeque::new() }).collect();
        Self { guests, chosen, log: Vec::new(), shows_log: false }
    }

    /// The guest that input is for; none while the log is shown.
    #[must_use]
    pub fn listener(&self) -> Option<usize> {
        (!self.shows_log).then_some(self.chosen)
    }

    /// A guest printed something; gives what is to be shown now.
    pub fn printed(&mut self, guest: usize, bytes: &[u8]) -> Vec<u8> {
        if self.listener() == Some(guest) {
            return bytes.to_vec();
        }
        if let Some(Guest { unseen, .. }) = self.guests.get_mut(guest) {
            unseen.extend(bytes);
            let excess = unseen.len().saturating_sub(UNSEEN_AT_MOST);
            unseen.drain(..excess);
        }
        Vec::new()
    }

    /// The hypervisor logged something; gives what is to be shown now.
    pub fn logged(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.log.extend(bytes);
        if self.shows_log { with_returns(bytes) } else { Vec::new() }
    }

    /// Shows a guest's console; gives what is to be shown then.
    pub fn choose(&mut self, number: usize) -> Vec<u8> {
        let Some(guest) = self.guests.get_mut(number) else {
            return note(&format!("there is no guest {number}; the last is {}", self.guests.len().saturating_sub(1)));
        };
        let mut shown = note(&format!("guest {number}: {}", guest.name));
        shown.extend(guest.unseen.drain(..));
        self.chosen = number;
        self.shows_log = false;
        shown
    }

    /// Shows the hypervisor's log, or the guest again; gives what is to be shown then.
    pub fn toggle_log(&mut self) -> Vec<u8> {
        if self.shows_log {
            return self.choose(self.chosen);
        }
        self.shows_log = true;
        let mut shown = note("the hypervisor's log; Ctrl-] m goes back");
        shown.extend(with_returns(&self.log));
        shown
    }
}

/// A line of this tool's own, or several, apart from what the guest prints.
#[must_use]
pub fn note(text: &str) -> Vec<u8> {
    text.lines().flat_map(|line| format!("\r\n[{line}]").into_bytes()).chain(*b"\r\n").collect()
}

/// Lines with the carriage returns that a terminal in raw mode wants.
#[must_use]
pub fn with_returns(bytes: &[u8]) -> Vec<u8> {
    let mut shown = Vec::with_capacity(bytes.len() + 16);
    for &byte in bytes {
        if byte == b'\n' && shown.last() != Some(&b'\r') {
            shown.push(b'\r');
        }
        shown.push(byte);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen() -> Screen {
        Screen::new(&["one".into(), "two".into()], 0)
    }

    #[test]
    fn only_the_chosen_guest_is_shown() {
        let mut screen = screen();
        assert_eq!(screen.printed(0, b"hello"), b"hello");
        assert!(screen.printed(1, b"there").is_empty());
        assert!(screen.printed(7, b"nobody").is_empty());
    }

    #[test]
    fn what_a_guest_printed_meanwhile_is_shown_when_it_is_chosen() {
        let mut screen = screen();
        screen.printed(1, b"there");
        assert_eq!(screen.choose(1), b"\r\n[guest 1: two]\r\nthere");
        assert_eq!(screen.choose(1), b"\r\n[guest 1: two]\r\n");
        assert_eq!((screen.listener(), screen.printed(1, b"now")), (Some(1), b"now".to_vec()));
    }

    #[test]
    fn of_what_nobody_saw_the_last_is_kept() {
        let mut screen = screen();
        screen.printed(1, &vec![b'a'; UNSEEN_AT_MOST]);
        screen.printed(1, b"end");
        let shown = screen.choose(1);
        assert!(shown.ends_with(b"aaaend") && shown.len() < UNSEEN_AT_MOST + 100);
    }

    #[test]
    fn a_guest_that_does_not_exist_cannot_be_chosen() {
        let mut screen = screen();
        assert_eq!(screen.choose(2), b"\r\n[there is no guest 2; the last is 1]\r\n");
        assert_eq!(screen.listener(), Some(0));
    }

    #[test]
    fn the_log_is_shown_from_its_start_and_followed() {
        let mut screen = screen();
        assert!(screen.logged(b"boot\n").is_empty());
        assert!(screen.toggle_log().ends_with(b"]\r\nboot\r\n"));
        assert_eq!((screen.listener(), screen.logged(b"more\n")), (None, b"more\r\n".to_vec()));
        screen.printed(0, b"unseen");
        assert_eq!(screen.toggle_log(), b"\r\n[guest 0: one]\r\nunseen");
        assert!(screen.logged(b"x\n").is_empty());
    }
}
