//! The consoles: who has which, and what waits to be read and to be sent.

use alloc::collections::VecDeque;
use core::array;

use crate::protocol::{CONSOLES, EndStatus};
use crate::stream::{Decoder, Encoder, Input, MAX_ENCODED, ended};

/// The most bytes of input that wait for a guest; what comes then is lost, as on a real line.
const MAX_INPUT: usize = 64 << 10;

/// The most bytes that wait for the line. A control of a guest's end has its place beyond.
const MAX_OUTPUT: usize = 64 << 10;

/// The most orders to move a vCPU that wait for a guest; what comes then is lost.
const MAX_MOVES: usize = 32;

/// One guest's console. `N` is what is signalled when there is input.
struct Console<N> {
    owner: Option<Owner<N>>,
    /// What came for it, also while nobody has it yet: input that is there at the start waits for its guest.
    input: VecDeque<u8>,
    /// Which vCPUs are to go on where.
    moves: VecDeque<(u8, u8)>,
}

/// The VMM that has a console.
struct Owner<N> {
    badge: u64,
    notify: N,
}

/// All consoles, and the line that they share.
pub(crate) struct Consoles<N> {
    consoles: [Console<N>; CONSOLES],
    encoder: Encoder,
    decoder: Decoder,
    /// What waits for the line.
    pub(crate) output: VecDeque<u8>,
}

impl<N> Consoles<N> {
    pub(crate) fn new() -> Self {
        Self {
            consoles: array::from_fn(|_| Console { owner: None, input: VecDeque::new(), moves: VecDeque::new() }),
            encoder: Encoder::default(),
            decoder: Decoder::default(),
            output: VecDeque::new(),
        }
    }

    /// Gives a console to a VMM, or a new notification to the VMM that has it. Whether that may be; and what is to be
    /// signalled, if input waits already.
    pub(crate) fn register(&mut self, guest: u64, badge: u64, notify: N) -> (bool, Option<&N>) {
        let console = usize::try_from(guest).ok().and_then(|guest| self.consoles.get_mut(guest));
        let Some(Console { owner, input, moves }) = console else { return (false, None) };
        if owner.as_ref().is_some_and(|owner| owner.badge != badge) {
            return (false, None);
        }
        let Owner { notify, .. } = owner.insert(Owner { badge, notify });
        (true, (!input.is_empty() || !moves.is_empty()).then_some(&*notify))
    }

    /// Queues what a guest prints, as far as there is room; gives how many bytes were taken. `None` if the console is
    /// not the caller's.
    pub(crate) fn write(&mut self, guest: u64, badge: u64, bytes: &[u8]) -> Option<usize> {
        self.console(guest, badge)?;
        let guest = guest as u8;
        let mut taken = 0;
        for byte in bytes {
            if self.output.len() + MAX_ENCODED > MAX_OUTPUT {
                break;
            }
            self.output.extend(self.encoder.byte(guest, *byte));
            taken += 1;
        }
        Some(taken)
    }

    /// Takes input for a guest, as much as fits; gives how many bytes. `None` if the console is not the caller's.
    pub(crate) fn read(&mut self, guest: u64, badge: u64, into: &mut [u8]) -> Option<usize> {
        let console = self.console(guest, badge)?;
        let size = console.input.len().min(into.len());
        for (place, byte) in into.iter_mut().zip(console.input.drain(..size)) {
            *place = byte;
        }
        Some(size)
    }

    /// Takes an order to move a vCPU to a CPU, if there is one. `None` if the console is not the caller's.
    pub(crate) fn take_move(&mut self, guest: u64, badge: u64) -> Option<Option<(u8, u8)>> {
        self.console(guest, badge).map(|console| console.moves.pop_front())
    }

    /// Queues the news of a guest's end. Whether the console is the caller's.
    pub(crate) fn end(&mut self, guest: u64, badge: u64, status: EndStatus) -> bool {
        let is_owner = self.console(guest, badge).is_some();
        // A VMM that says it over and over fills its own part of the queue only.
        if is_owner && self.output.len() <= MAX_OUTPUT {
            self.output.extend(ended(guest as u8, status));
        }
        is_owner
    }

    /// Whether the console is the caller's.
    pub(crate) fn is_owner(&mut self, guest: u64, badge: u64) -> bool {
        self.console(guest, badge).is_some()
    }

    /// Takes a byte from the line; gives what is to be signalled: the input of a console that had none, or an order.
    pub(crate) fn received(&mut self, byte: u8) -> Option<&N> {
        match self.decoder.byte(byte)? {
            Input::Byte { console, byte } => {
                let Console { owner, input, .. } = self.consoles.get_mut(usize::from(console))?;
                if input.len() >= MAX_INPUT {
                    return None;
                }
                input.push_back(byte);
                owner.as_ref().filter(|_| input.len() == 1).map(|owner| &owner.notify)
            }
            Input::Move { console, vcpu, cpu } => {
                let Console { owner, moves, .. } = self.consoles.get_mut(usize::from(console))?;
                if moves.len() >= MAX_MOVES {
                    return None;
                }
                moves.push_back((vcpu, cpu));
                owner.as_ref().map(|owner| &owner.notify)
            }
            Input::Window { .. } => None,
        }
    }

    /// The guest's console, if it is the VMM's with this badge.
    fn console(&mut self, guest: u64, badge: u64) -> Option<&mut Console<N>> {
        let console = self.consoles.get_mut(usize::try_from(guest).ok()?)?;
        console.owner.as_ref().is_some_and(|owner| owner.badge == badge).then_some(console)
    }
}

#[cfg(test)]
mod tests {
    use super::{Consoles, MAX_INPUT, MAX_MOVES, MAX_OUTPUT};
    use crate::protocol::EndStatus;

    /// Consoles 0 and 2, of the VMMs with badges 10 and 12.
    fn consoles() -> Consoles<&'static str> {
        let mut consoles = Consoles::new();
        for (guest, badge, name) in [(0, 10, "first"), (2, 12, "third")] {
            assert_eq!(consoles.register(guest, badge, name), (true, None));
        }
        consoles
    }

    fn receive(consoles: &mut Consoles<&'static str>, bytes: &[u8]) -> Vec<&'static str> {
        bytes.iter().filter_map(|byte| consoles.received(*byte).copied()).collect()
    }

    #[test]
    fn a_console_belongs_to_the_first_who_takes_it() {
        let mut consoles = consoles();
        assert_eq!(consoles.register(0, 10, "again"), (true, None));
        for (guest, badge) in [(0, 12), (33, 12), (u64::MAX, 12)] {
            assert_eq!(consoles.register(guest, badge, "thief"), (false, None));
        }
        assert_eq!(consoles.write(0, 12, b"x"), None);
        assert_eq!(consoles.read(0, 12, &mut [0]), None);
        assert!(!consoles.end(0, 12, EndStatus::PoweredOff));
        assert_eq!(consoles.write(1, 10, b"x"), None);
        assert!(consoles.is_owner(0, 10) && !consoles.is_owner(0, 12));
    }

    #[test]
    fn output_is_told_apart_on_the_line() {
        let mut consoles = consoles();
        assert_eq!(consoles.write(0, 10, b"a"), Some(1));
        assert_eq!(consoles.write(2, 12, b"b"), Some(1));
        assert!(consoles.end(0, 10, EndStatus::Crashed));
        assert_eq!(Vec::from(consoles.output), b"a\x10\x42b\x10x0001");
    }

    #[test]
    fn a_full_line_takes_no_more_bytes_but_the_news_of_an_end() {
        let mut consoles = consoles();
        let taken = consoles.write(0, 10, &vec![b'a'; MAX_OUTPUT + 1]).unwrap();
        assert!((MAX_OUTPUT - 10..MAX_OUTPUT).contains(&taken));
        assert_eq!(consoles.write(0, 10, b"a"), Some(0));
        assert!(consoles.end(0, 10, EndStatus::PoweredOff));
        assert!(consoles.output.ends_with_end());
    }

    trait EndsWithEnd {
        fn ends_with_end(&self) -> bool;
    }

    impl EndsWithEnd for std::collections::VecDeque<u8> {
        fn ends_with_end(&self) -> bool {
            Vec::from(self.clone()).ends_with(b"\x10x0000")
        }
    }

    #[test]
    fn input_is_signalled_once_until_it_is_read() {
        let mut consoles = consoles();
        assert_eq!(receive(&mut consoles, b"ab\x10\x42c"), ["first", "third"]);
        let mut bytes = [0; 8];
        assert_eq!(consoles.read(0, 10, &mut bytes), Some(2));
        assert_eq!(&bytes[..2], b"ab");
        assert_eq!(consoles.read(0, 10, &mut bytes), Some(0));
        assert_eq!(receive(&mut consoles, b"\x10\x40d"), ["first"]);
    }

    #[test]
    fn input_that_nobody_reads_does_not_grow_without_bound() {
        let mut consoles = consoles();
        receive(&mut consoles, &vec![b'a'; MAX_INPUT + 10]);
        let mut bytes = vec![0; MAX_INPUT + 10];
        assert_eq!(consoles.read(0, 10, &mut bytes), Some(MAX_INPUT));
    }

    #[test]
    fn an_order_to_move_a_vcpu_waits_for_its_guest() {
        let mut consoles = consoles();
        assert_eq!(receive(&mut consoles, b"\x10\x42\x10m0102\x10\x41\x10m0300"), ["third"]);
        assert_eq!(consoles.take_move(2, 10), None);
        assert_eq!(consoles.take_move(2, 12), Some(Some((1, 2))));
        assert_eq!(consoles.take_move(2, 12), Some(None));
        assert_eq!(consoles.register(1, 11, "second"), (true, Some(&"second")));
        assert_eq!(consoles.take_move(1, 11), Some(Some((3, 0))));
        receive(&mut consoles, &b"\x10m0102".repeat(MAX_MOVES + 1));
        let waiting = std::iter::from_fn(|| consoles.take_move(1, 11).flatten()).count();
        assert_eq!(waiting, MAX_MOVES);
    }

    #[test]
    fn input_waits_for_whoever_takes_the_console() {
        let mut consoles = consoles();
        assert_eq!(receive(&mut consoles, b"\x10\x41xy"), Vec::<&str>::new());
        assert_eq!(consoles.register(1, 11, "second"), (true, Some(&"second")));
        let mut bytes = [0; 8];
        assert_eq!(consoles.read(1, 11, &mut bytes), Some(2));
    }
}
