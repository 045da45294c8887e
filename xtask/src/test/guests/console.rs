//! What guests print, with the time at which it came, and what the host types in answer.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::{
    emulator::{GuestLine, Watcher, serial::LineSplitter},
    guest::stream::{CARD, Decoder, Encoder, GuestEnd, Output},
};

/// A script waits for a line.
const ASK: &str = "[check] ask";
/// The line is to say that the guest's rules have changed, and they are to.
const ASK_FOR_RULES: &str = "[check] ask rules";

/// The line is to say that a network device is plugged in or out: behind this are its name, and `up` or `down`.
const ASK_FOR_LINK: &str = "[check] ask link ";

/// Each of the guest's vCPUs is to go on on the next CPU.
const ASK_TO_MOVE: &str = "[check] ask move";

/// The line is to say that the card is to hang.
const ASK_TO_HANG: &str = "[check] ask hang";

/// What Linux prints behind everything else when it panics.
const PANICKED: &str = "---[ end Kernel panic";

/// The consoles of all guests.
#[derive(Debug)]
pub struct Consoles {
    /// One for each guest.
    pub guests: Vec<Console>,
    decoder: Decoder,
    encoder: Encoder,
    /// What the card says, and the guests that wait for it.
    card: LineSplitter,
    asking: VecDeque<usize>,
    line: Option<GuestLine>,
    start: Instant,
}

/// A guest's console.
#[derive(Debug, Default)]
pub struct Console {
    /// What it showed.
    pub lines: Vec<Line>,
    /// The guest's ends, and its reboots.
    pub ends: Vec<GuestEnd>,
    answers: VecDeque<&'static str>,
    /// Machine files whose rules the guest is to be under, one after the other.
    changes: VecDeque<String>,
    /// Which vCPUs were ordered to go on on which CPU.
    pub moves: Vec<Move>,
    /// How many vCPUs it has, and on how many CPUs they can be.
    places: (u8, u8),
    splitter: LineSplitter,
    has_panicked: bool,
}

/// A vCPU's number and that of the CPU on which it is to go on.
pub type Move = (u8, u8);

/// A line of a console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When its end came, from the start of the emulator.
    pub at: Duration,
    /// What it says.
    pub text: String,
}

impl Consoles {
    /// Consoles for guests that start so many times each.
    pub fn new(boots: impl IntoIterator<Item = usize>) -> Self {
        let answers = |boots: usize| {
            let reboots = std::iter::repeat_n("reboot\n", boots.saturating_sub(1));
            reboots.chain(["off\n"]).collect()
        };
        let guests = boots.into_iter().map(|boots| Console { answers: answers(boots), ..Console::default() });
        Self {
            guests: guests.collect(),
            decoder: Decoder::default(),
            encoder: Encoder::default(),
            card: LineSplitter::default(),
            asking: VecDeque::new(),
            line: None,
            start: Instant::now(),
        }
    }

    /// The same, with machine files for the guest of this number.
    #[must_use]
    pub fn with_changes(mut self, guest: usize, changes: impl IntoIterator<Item = String>) -> Self {
        if let Some(console) = self.guests.get_mut(guest) {
            console.changes.extend(changes);
        }
        self
    }

    /// The same, where the guest of this number, which has so many vCPUs, may have them move among so many CPUs.
    #[must_use]
    pub fn with_places(mut self, guest: usize, vcpus: u8, cpus: u8) -> Self {
        if let Some(console) = self.guests.get_mut(guest) {
            console.places = (vcpus, cpus);
        }
        self
    }

    fn printed(&mut self, guest: usize, bytes: &[u8]) {
        let at = self.start.elapsed();
        let Some(console) = self.guests.get_mut(guest) else { return };
        for text in console.splitter.push(bytes) {
            console.has_panicked |= text.contains(PANICKED);
            if text.contains(ASK_FOR_RULES) {
                if let (Some(change), Some(line)) = (console.changes.pop_front(), &self.line) {
                    self.asking.push_back(guest);
                    let _ = line.input.send(self.encoder.rules(guest, &change));
                }
            } else if let Some((name, state)) = text.split_once(ASK_FOR_LINK).and_then(|(_, link)| link.split_once(' '))
            {
                if let Some(line) = &self.line {
                    self.asking.push_back(guest);
                    let _ = line.input.send(self.encoder.link(guest, name, state));
                }
            } else if text.contains(ASK_TO_MOVE) {
                for (vcpu, cpu) in console.next_moves() {
                    if let Some(line) = &self.line {
                        let _ = line.input.send(self.encoder.move_vcpu(guest, vcpu, cpu));
                    }
                }
            } else if text.contains(ASK_TO_HANG) {
                if let Some(line) = &self.line {
                    let _ = line.input.send(self.encoder.hang());
                }
            } else if text.contains(ASK)
                && let (Some(answer), Some(line)) = (console.answers.pop_front(), &self.line)
            {
                // Fails when the machine has ended, which shows elsewhere.
                let _ = line.input.send(self.encoder.bytes(guest, answer.as_bytes()));
            }
            console.lines.push(Line { at, text });
        }
    }
}

impl Consoles {
    /// The card has done what a guest asked for: the guest is told its answer.
    fn answered(&mut self, bytes: &[u8]) {
        for text in self.card.push(bytes) {
            if let (Some(guest), Some(line)) = (self.asking.pop_front(), &self.line) {
                let _ = line.input.send(self.encoder.bytes(guest, format!("{text}\n").as_bytes()));
            }
        }
    }
}

impl Console {
    /// The texts of the lines.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(|line| line.text.as_str())
    }

    /// Each vCPU goes on on the CPU after the one that it is on: at first vCPU N is on CPU N of those that there are, in turn.
    fn next_moves(&mut self) -> Vec<Move> {
        let (vcpus, cpus) = self.places;
        if cpus < 2 {
            return Vec::new();
        }
        let round = self.moves.len() / usize::from(vcpus) + 1;
        let moves: Vec<_> =
            (0..vcpus).map(|vcpu| (vcpu, ((usize::from(vcpu) + round) % usize::from(cpus)) as u8)).collect();
        self.moves.extend(&moves);
        moves
    }

    /// Whether the guest has crashed, or its kernel has panicked.
    pub fn has_failed(&self) -> bool {
        self.has_panicked || self.ends.contains(&GuestEnd::Crashed)
    }
}

impl Watcher for Consoles {
    fn started(&mut self, line: GuestLine) {
        self.line = Some(line);
        self.start = Instant::now();
    }

    fn guests(&mut self, bytes: &[u8]) {
        for output in self.decoder.push(bytes) {
            match output {
                Output::Bytes { guest: CARD, bytes } => self.answered(&bytes),
                Output::Bytes { guest, bytes } => self.printed(guest, &bytes),
                Output::Ended { guest, status } => {
                    if let Some(console) = self.guests.get_mut(guest) {
                        console.ends.push(status);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_guest_that_asks_is_told_to_reboot_as_often_as_it_shall_and_then_to_end() {
        let (input, typed) = channel();
        let mut consoles = Consoles::new([1, 3]);
        consoles.started(GuestLine { input, events: channel().0 });
        for _ in 0..4 {
            consoles.guests(b"\x10A[check] ask\r\n");
        }
        let typed: Vec<_> = typed.try_iter().collect();
        assert_eq!(typed, [&b"\x10Areboot\n"[..], b"reboot\n", b"off\n"]);
    }

    #[test]
    fn a_guest_that_asks_for_other_rules_is_told_what_the_card_answers() {
        let (input, typed) = channel();
        let mut consoles = Consoles::new([1, 1]).with_changes(1, ["a".into(), "b".into()]);
        consoles.started(GuestLine { input, events: channel().0 });
        consoles.guests(b"\x10A[check] ask rules\r\n\x10`3 rules\n\x10A[check] ask rules\r\n");
        let typed: Vec<_> = typed.try_iter().collect();
        assert_eq!(typed, [&b"\x10`rules 1\na\x04"[..], b"\x10A3 rules\n", b"\x10`rules 1\nb\x04"]);
    }

    #[test]
    fn a_guest_that_asks_for_a_link_is_told_what_the_card_answers() {
        let (input, typed) = channel();
        let mut consoles = Consoles::new([1, 1]);
        consoles.started(GuestLine { input, events: channel().0 });
        consoles.guests(b"\x10A[check] ask link net down\r\n\x10`it is down\n");
        let typed: Vec<_> = typed.try_iter().collect();
        assert_eq!(typed, [&b"\x10`link 1 net\ndown\x04"[..], b"\x10Ait is down\n"]);
    }

    #[test]
    fn vcpus_go_round_the_cpus_when_their_guest_asks_for_it() {
        let (input, typed) = channel();
        let mut consoles = Consoles::new([1, 1]).with_places(0, 1, 1).with_places(1, 3, 2);
        consoles.started(GuestLine { input, events: channel().0 });
        consoles.guests(b"[check] ask move\r\n\x10A[check] ask move\r\n[check] ask move\r\n");
        let typed: Vec<_> = typed.try_iter().collect();
        assert_eq!(
            typed,
            [&b"\x10A\x10m0001"[..], b"\x10m0100", b"\x10m0201", b"\x10m0000", b"\x10m0101", b"\x10m0200"]
        );
        assert_eq!(consoles.guests[1].moves, [(0, 1), (1, 0), (2, 1), (0, 0), (1, 1), (2, 0)]);
    }

    #[test]
    fn a_guest_fails_by_a_crash_or_a_panic() {
        let mut consoles = Consoles::new([1, 1, 1]);
        consoles.guests(b"one\r\n\x10A---[ end Kernel panic - not syncing: Fatal exception ]---\r\n\x10x0000\x10x0201");
        assert_eq!(consoles.guests.iter().map(Console::has_failed).collect::<Vec<_>>(), [false, true, true]);
    }

    #[test]
    fn lines_and_ends_belong_to_their_guest() {
        let mut consoles = Consoles::new([1, 1]);
        consoles.guests(b"one\r\n\x10Atwo\n\x10x0003\x10x0100");
        let [first, second] = &consoles.guests[..] else { panic!("two guests") };
        assert_eq!((first.texts().collect::<Vec<_>>(), second.texts().collect::<Vec<_>>()), (vec!["one"], vec!["two"]));
        assert_eq!((&first.ends[..], &second.ends[..]), (&[GuestEnd::Rebooted][..], &[GuestEnd::PoweredOff][..]));
    }
}
