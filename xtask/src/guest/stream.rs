//! The stream on the machine's second serial line, seen from the host: the consoles of all guests, one after the other.
//!
//! `vmm/console` is at the other end and describes the controls, each of which begins with the byte [`DLE`].

/// Starts a control: "data link escape".
const DLE: u8 = 0x10;
/// What is added to a console's number in the control that names it.
const CONSOLE: u8 = 0x40;
/// Numbers of guests, which are those of their consoles, are below it.
pub const MAX_GUESTS: usize = 32;
/// The offload card's console.
pub const CARD: usize = MAX_GUESTS;

/// What came from the guests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Bytes that a guest printed.
    Bytes {
        /// The guest's number.
        guest: usize,
        /// What it printed.
        bytes: Vec<u8>,
    },
    /// A guest ended, or starts anew.
    Ended {
        /// The guest's number.
        guest: usize,
        /// How.
        status: GuestEnd,
    },
}

/// How a guest ended, or that it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestEnd {
    /// It switched its machine off.
    PoweredOff,
    /// It crashed.
    Crashed,
    /// It could not be started.
    BadInput,
    /// It starts anew.
    Rebooted,
}

impl GuestEnd {
    fn from_raw(raw: u8) -> Option<Self> {
        Some(match raw {
            0 => Self::PoweredOff,
            1 => Self::Crashed,
            2 => Self::BadInput,
            3 => Self::Rebooted,
            _ => return None,
        })
    }
}

/// Takes the guests' output apart, however it was cut into pieces.
#[derive(Debug, Default)]
pub struct Decoder {
    guest: usize,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Plain,
    Control,
    /// The digits of an end.
    Ended(Vec<u8>),
}

impl Decoder {
    /// Takes the next bytes and gives what they hold. Controls that are not known are passed over.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Output> {
        let mut outputs = Vec::new();
        for &byte in bytes {
            match std::mem::take(&mut self.state) {
                State::Plain if byte == DLE => self.state = State::Control,
                State::Plain => self.printed(byte, &mut outputs),
                State::Control => self.control(byte, &mut outputs),
                State::Ended(mut digits) => {
                    digits.push(byte);
                    if let [g1, g0, s1, s0] = digits[..] {
                        let ended = hexadecimal(g1, g0).zip(hexadecimal(s1, s0));
                        let known = ended.and_then(|(guest, status)| Some((guest, GuestEnd::from_raw(status)?)));
                        if let Some((guest, status)) = known {
                            outputs.push(Output::Ended { guest: guest.into(), status });
                        }
                    } else {
                        self.state = State::Ended(digits);
                    }
                }
            }
        }
        outputs
    }

    fn control(&mut self, byte: u8, outputs: &mut Vec<Output>) {
        match byte {
            DLE => self.printed(DLE, outputs),
            b'x' => self.state = State::Ended(Vec::new()),
            _ => {
                let guest = usize::from(byte.wrapping_sub(CONSOLE));
                if guest <= CARD {
                    self.guest = guest;
                }
            }
        }
    }

    fn printed(&mut self, byte: u8, outputs: &mut Vec<Output>) {
        match outputs.last_mut() {
            Some(Output::Bytes { guest, bytes }) if *guest == self.guest => bytes.push(byte),
            _ => outputs.push(Output::Bytes { guest: self.guest, bytes: vec![byte] }),
        }
    }
}

fn hexadecimal(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    Some(digit(high)? << 4 | digit(low)?)
}

/// Puts the guests' input together.
#[derive(Debug, Default)]
pub struct Encoder {
    guest: usize,
}

impl Encoder {
    /// Bytes for a guest.
    ///
    /// # Panics
    /// There is no guest with such a number.
    pub fn bytes(&mut self, guest: usize, bytes: &[u8]) -> Vec<u8> {
        assert!(guest <= CARD, "the last console is {CARD}");
        let mut encoded = Vec::with_capacity(bytes.len() + 2);
        if guest != self.guest {
            self.guest = guest;
            encoded.extend([DLE, CONSOLE + guest as u8]);
        }
        for &byte in bytes {
            if byte == DLE {
                encoded.push(DLE);
            }
            encoded.push(byte);
        }
        encoded
    }

    /// The order to the card to take the rules of this text in the place of those of the guest's machine file
    /// (`offload-card-fw/domain/src/operator.rs`). A line from [`CARD`] answers it.
    pub fn rules(&mut self, guest: usize, text: &str) -> Vec<u8> {
        self.bytes(CARD, format!("rules {guest}\n{text}\x04").as_bytes())
    }

    /// The order to the card to plug the guest's network device of this name in (`up`) or out (`down`). A line from [`CARD`]
    /// answers it.
    pub fn link(&mut self, guest: usize, name: &str, state: &str) -> Vec<u8> {
        self.bytes(CARD, format!("link {guest} {name}\n{state}\x04").as_bytes())
    }

    /// The order to a guest's VMM to let a vCPU go on on a CPU, which its log answers.
    pub fn move_vcpu(&mut self, guest: usize, vcpu: u8, cpu: u8) -> Vec<u8> {
        let mut order = self.bytes(guest, &[]);
        order.extend([DLE, b'm']);
        order.extend(format!("{vcpu:02x}{cpu:02x}").into_bytes());
        order
    }

    /// The order to the card to hang, which nothing answers.
    pub fn hang(&mut self) -> Vec<u8> {
        self.bytes(CARD, b"hang\n\x04")
    }

    /// The size of the user's terminal.
    pub fn window(rows: u16, columns: u16) -> Vec<u8> {
        let mut encoded = vec![DLE, b'r'];
        encoded.extend(format!("{:02x}{:02x}", rows.min(0xff), columns.min(0xff)).bytes());
        encoded
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};

    use super::*;

    fn printed(guest: usize, bytes: &[u8]) -> Output {
        Output::Bytes { guest, bytes: bytes.to_vec() }
    }

    fn ended(guest: usize, status: GuestEnd) -> Output {
        Output::Ended { guest, status }
    }

    #[test]
    fn each_control_means_what_the_console_server_says() {
        for (stream, outputs) in [
            (&b"hello"[..], vec![printed(0, b"hello")]),
            (b"a\x10\x10b", vec![printed(0, b"a\x10b")]),
            (b"a\x10Ab\x10@c", vec![printed(0, b"a"), printed(1, b"b"), printed(0, b"c")]),
            (b"\x10_x\x10`y", vec![printed(31, b"x"), printed(CARD, b"y")]),
            (b"a\x10x0200b", vec![printed(0, b"a"), ended(2, GuestEnd::PoweredOff), printed(0, b"b")]),
            (b"\x10x1f01\x10x0002", vec![ended(31, GuestEnd::Crashed), ended(0, GuestEnd::BadInput)]),
            (b"\x10x0003", vec![ended(0, GuestEnd::Rebooted)]),
        ] {
            assert_eq!(Decoder::default().push(stream), outputs, "{stream:?}");
        }
    }

    #[test]
    fn a_control_that_is_not_known_is_passed_over() {
        for stream in [&b"\x10\x00a"[..], b"\x10aa", b"\x10x0009a", b"\x10xzz00a"] {
            assert_eq!(Decoder::default().push(stream), [printed(0, b"a")], "{stream:?}");
        }
    }

    #[test]
    fn the_window_is_two_digits_each_way_and_at_most_255() {
        assert_eq!(Encoder::window(24, 80), b"\x10r1850");
        assert_eq!(Encoder::window(300, 1000), b"\x10rffff");
    }

    #[test]
    fn an_order_to_move_a_vcpu_is_behind_its_guests_name() {
        let mut encoder = Encoder::default();
        assert_eq!(encoder.move_vcpu(0, 1, 10), b"\x10m010a");
        assert_eq!(encoder.move_vcpu(3, 31, 0), b"\x10C\x10m1f00");
        assert_eq!(encoder.move_vcpu(3, 0, 1), b"\x10m0001");
    }

    /// The outputs of consecutive pieces as if they had come at once.
    fn joined(pieces: impl IntoIterator<Item = Vec<Output>>) -> Vec<Output> {
        let mut whole: Vec<Output> = Vec::new();
        for output in pieces.into_iter().flatten() {
            match (whole.last_mut(), output) {
                (Some(Output::Bytes { guest, bytes }), Output::Bytes { guest: next, bytes: more })
                    if *guest == next =>
                {
                    bytes.extend(more);
                }
                (_, output) => whole.push(output),
            }
        }
        whole
    }

    fn byte() -> impl Strategy<Value = u8> {
        prop_oneof![any::<u8>(), prop::sample::select(&[DLE, b'x', b'r', b'0', b'A'][..])]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_encoded_reads_back_as_given(
            parts in prop::collection::vec((0..=CARD, prop::collection::vec(byte(), 1..20)), 0..10)
        ) {
            let mut encoder = Encoder::default();
            let stream: Vec<u8> = parts.iter().flat_map(|(guest, bytes)| encoder.bytes(*guest, bytes)).collect();
            let expected = joined(parts.iter().map(|(guest, bytes)| vec![printed(*guest, bytes)]));
            prop_assert_eq!(Decoder::default().push(&stream), expected);
        }

        #[test]
        fn it_does_not_matter_how_the_stream_is_cut(stream in prop::collection::vec(byte(), 0..60), size in 1..9_usize) {
            let mut decoder = Decoder::default();
            let in_pieces = joined(stream.chunks(size).map(|piece| decoder.push(piece)));
            prop_assert_eq!(in_pieces, Decoder::default().push(&stream));
        }
    }
}
