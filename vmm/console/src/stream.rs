//! What goes over the serial line: the bytes of several consoles, one after the other.
//!
//! The byte [`DLE`] starts a control; every other byte belongs to the console that was named last, at the start to
//! console 0, so that one guest needs no controls.
//!
//! | control | direction | meaning |
//! | --- | --- | --- |
//! | DLE DLE | both | the byte 0x10 itself |
//! | DLE, 0x40 + N | both | what follows belongs to console N, 0 to 31, or 32, the card's |
//! | DLE `r` RR CC | in | the terminal has RR rows and CC columns: two hexadecimal digits each |
//! | DLE `m` VV CC | in | the thread of vCPU VV, of the guest that was named last, is to go on on CPU CC: two hexadecimal digits each |
//! | DLE `x` NN SS | out | guest NN ended with status SS: two lower-case hexadecimal digits each |
//!
//! A control that is none of these is passed over.

use arrayvec::ArrayVec;

use crate::protocol::{CONSOLES, EndStatus};

/// Starts a control: "data link escape".
pub const DLE: u8 = 0x10;

/// What is added to a console's number.
const CONSOLE: u8 = 0x40;

const WINDOW: u8 = b'r';
const MOVE: u8 = b'm';
const ENDED: u8 = b'x';

/// Hexadecimal digits of a control's two numbers.
const DIGITS: usize = 4;

/// The most bytes that one byte, or one control, becomes.
pub const MAX_ENCODED: usize = 6;

/// A few bytes of the stream.
pub type Encoded = ArrayVec<u8, MAX_ENCODED>;

/// Puts the consoles' output together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Encoder {
    console: u8,
}

impl Encoder {
    /// A byte of a console, with the control that names the console where that is needed. A console that does not
    /// exist has no bytes.
    pub fn byte(&mut self, console: u8, byte: u8) -> Encoded {
        let mut encoded = Encoded::new();
        if usize::from(console) >= CONSOLES {
            return encoded;
        }
        if self.console != console {
            self.console = console;
            encoded.extend([DLE, CONSOLE + console]);
        }
        if byte == DLE {
            encoded.push(DLE);
        }
        encoded.push(byte);
        encoded
    }
}

/// The control that says how a guest ended.
#[must_use]
pub fn ended(guest: u8, status: EndStatus) -> Encoded {
    let [high, low] = hexadecimal(guest);
    let [status_high, status_low] = hexadecimal(status as u8);
    [DLE, ENDED, high, low, status_high, status_low].into_iter().collect()
}

fn hexadecimal(byte: u8) -> [u8; 2] {
    let digit = |value: u8| if value < 10 { b'0' + value } else { b'a' + value - 10 };
    [digit(byte >> 4), digit(byte & 0xf)]
}

/// What came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A byte for a console.
    Byte {
        /// The console's number, [`CARD`](crate::protocol::CARD) at most.
        console: u8,
        /// The byte.
        byte: u8,
    },
    /// The size of the user's terminal.
    Window {
        /// Rows.
        rows: u8,
        /// Columns.
        columns: u8,
    },
    /// A vCPU is to run on another CPU.
    Move {
        /// The console's number, which is the guest's.
        console: u8,
        /// The vCPU's number.
        vcpu: u8,
        /// The CPU's.
        cpu: u8,
    },
}

/// Takes the input apart.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    console: u8,
    state: State,
}

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Plain,
    Control,
    Numbers {
        control: u8,
        digits: ArrayVec<u8, DIGITS>,
    },
}

impl Decoder {
    /// Takes the next byte; gives what it completes.
    pub fn byte(&mut self, byte: u8) -> Option<Input> {
        match core::mem::take(&mut self.state) {
            State::Plain if byte == DLE => self.state = State::Control,
            State::Plain => return Some(Input::Byte { console: self.console, byte }),
            State::Control => return self.control(byte),
            State::Numbers { control, digits } => return self.numbers(control, digits, byte),
        }
        None
    }

    fn control(&mut self, byte: u8) -> Option<Input> {
        match byte {
            DLE => return Some(Input::Byte { console: self.console, byte }),
            WINDOW | MOVE => self.state = State::Numbers { control: byte, digits: ArrayVec::new() },
            _ => {
                let console = byte.wrapping_sub(CONSOLE);
                if usize::from(console) < CONSOLES {
                    self.console = console;
                }
            }
        }
        None
    }

    fn numbers(&mut self, control: u8, mut digits: ArrayVec<u8, DIGITS>, byte: u8) -> Option<Input> {
        let Some(digit) = char::from(byte).to_digit(16) else {
            // A control that was cut off: what comes now is not part of it.
            return self.byte(byte);
        };
        digits.push(digit as u8);
        if let [a1, a0, b1, b0] = *digits {
            let (first, second) = (a1 << 4 | a0, b1 << 4 | b0);
            return Some(match control {
                MOVE => Input::Move { console: self.console, vcpu: first, cpu: second },
                _ => Input::Window { rows: first, columns: second },
            });
        }
        self.state = State::Numbers { control, digits };
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::{DLE, Decoder, Encoder, Input, ended};
    use crate::protocol::EndStatus;

    fn decode(bytes: &[u8]) -> Vec<Input> {
        let mut decoder = Decoder::default();
        bytes.iter().filter_map(|byte| decoder.byte(*byte)).collect()
    }

    fn bytes(console: u8, bytes: &[u8]) -> Vec<Input> {
        bytes.iter().map(|byte| Input::Byte { console, byte: *byte }).collect()
    }

    #[test]
    fn one_guest_needs_no_controls() {
        let mut encoder = Encoder::default();
        let encoded: Vec<u8> = b"login: ".iter().flat_map(|byte| encoder.byte(0, *byte)).collect();
        assert_eq!(encoded, b"login: ");
        assert_eq!(decode(&encoded), bytes(0, b"login: "));
    }

    #[test]
    fn a_console_is_named_when_it_changes_and_not_again() {
        let mut encoder = Encoder::default();
        let mut line = Vec::new();
        for (console, byte) in [(1, b'a'), (1, b'b'), (32, b'c'), (0, b'd')] {
            line.extend(encoder.byte(console, byte));
        }
        assert_eq!(line, [DLE, 0x41, b'a', b'b', DLE, 0x60, b'c', DLE, 0x40, b'd']);
    }

    #[test]
    fn a_console_that_does_not_exist_has_no_bytes_and_changes_nothing() {
        let mut encoder = Encoder::default();
        assert!(encoder.byte(33, b'a').is_empty());
        assert_eq!(*encoder.byte(0, b'b'), *b"b");
        assert_eq!(decode(&[DLE, 0x61, b'a']), bytes(0, b"a"));
    }

    #[test]
    fn the_end_of_a_guest_is_told_in_hexadecimal_digits() {
        assert_eq!(*ended(31, EndStatus::BadInput), *b"\x10x1f02");
        assert_eq!(*ended(0, EndStatus::PoweredOff), *b"\x10x0000");
    }

    #[test]
    fn the_size_of_the_window_is_taken_out_of_the_bytes() {
        let window = Input::Window { rows: 24, columns: 132 };
        assert_eq!(decode(b"a\x10r1884b"), [bytes(0, b"a"), vec![window], bytes(0, b"b")].concat());
        assert_eq!(
            decode(b"\x10r18q\x10rFFFF"),
            [bytes(0, b"q"), vec![Input::Window { rows: 255, columns: 255 }]].concat()
        );
    }

    #[test]
    fn an_order_to_move_a_vcpu_is_for_the_guest_that_was_named_last() {
        let order = |console, vcpu, cpu| vec![Input::Move { console, vcpu, cpu }];
        assert_eq!(
            decode(b"\x10m0001a\x10Bb\x10m1f0a"),
            [order(0, 0, 1), bytes(0, b"a"), bytes(2, b"b"), order(2, 31, 10)].concat()
        );
    }

    #[test]
    fn an_unknown_control_is_passed_over() {
        assert_eq!(decode(b"a\x10?b"), bytes(0, b"ab"));
    }

    proptest! {
        #[test]
        fn what_is_put_together_is_taken_apart_again(
            written in prop::collection::vec((0_u8..33, prop::num::u8::ANY), 0..200)
        ) {
            let mut encoder = Encoder::default();
            let line: Vec<u8> =
                written.iter().flat_map(|(console, byte)| encoder.byte(*console, *byte)).collect();
            let wanted: Vec<_> =
                written.iter().map(|(console, byte)| Input::Byte { console: *console, byte: *byte }).collect();
            prop_assert_eq!(decode(&line), wanted);
        }

        #[test]
        fn any_bytes_are_taken_and_none_becomes_two(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let decoded = decode(&line);
            let exist = |input: &Input| !matches!(input, Input::Byte { console, .. } if *console >= 33);
            prop_assert_eq!(decoded.iter().all(exist), true);
            prop_assert_eq!(decoded.len() <= line.len(), true);
        }
    }
}
