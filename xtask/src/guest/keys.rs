//! What the user types: input for a guest, or a command to this tool after Ctrl-].

/// Ctrl-], which comes before each command.
const PREFIX: u8 = 0x1d;

/// What a key means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// A byte for the guest.
    Input(u8),
    /// End everything.
    Quit,
    /// Show the hypervisor's log, or go back to the guest.
    Monitor,
    /// Put the rules that the machine files have now in the place of the old ones.
    Rules,
    /// Show this, of an order that is being typed.
    Echo(String),
    /// Do what this line says.
    Order(String),
    /// Show another guest's console.
    Console(usize),
    /// Show what the keys are.
    Help,
}

/// What the keys are.
pub const HELP: &str = "\
Ctrl-] q       quit
Ctrl-] m       the hypervisor's log, and back
Ctrl-] r       the rules of the machine files, as they are now
Ctrl-] :       an order about the guest: \"link NAME up\" or \"link NAME down\" for a network device of it,
               \"vcpu N cpu M\" to let a vCPU go on on another CPU
Ctrl-] 0 to 9  console of that guest
Ctrl-] Ctrl-]  Ctrl-] for the guest
Ctrl-] ?       this help";

/// Finds the commands in what is typed.
#[derive(Debug, Default)]
pub struct Keys {
    prefixed: bool,
    /// An order that is being typed.
    order: Option<String>,
}

impl Keys {
    /// Takes the next byte that was typed.
    pub fn push(&mut self, byte: u8) -> Option<Key> {
        if let Some(order) = self.order.take() {
            return self.edit(order, byte);
        }
        if !std::mem::take(&mut self.prefixed) {
            self.prefixed = byte == PREFIX;
            return (byte != PREFIX).then_some(Key::Input(byte));
        }
        Some(match byte {
            PREFIX => Key::Input(PREFIX),
            b'q' | b'Q' => Key::Quit,
            b'm' | b'M' => Key::Monitor,
            b'r' | b'R' => Key::Rules,
            b':' => {
                self.order = Some(String::new());
                Key::Echo("\r\n:".into())
            }
            b'0'..=b'9' => Key::Console(usize::from(byte - b'0')),
            _ => Key::Help,
        })
    }

    /// Takes the next byte of an order: Return ends it, Escape, Ctrl-C and what deletes its beginning give it up.
    fn edit(&mut self, mut order: String, byte: u8) -> Option<Key> {
        let echo = match byte {
            b'\r' | b'\n' => return Some(Key::Order(order)),
            0x08 | 0x7f if order.pop().is_some() => "\x08 \x08".into(),
            0x03 | 0x08 | 0x1b | 0x7f => return Some(Key::Echo("\r\n".into())),
            b' '..=b'~' => {
                order.push(byte.into());
                char::from(byte).into()
            }
            _ => String::new(),
        };
        self.order = Some(order);
        Some(Key::Echo(echo))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(typed: &[u8]) -> Vec<Key> {
        let mut keys = Keys::default();
        typed.iter().filter_map(|byte| keys.push(*byte)).collect()
    }

    #[test]
    fn what_is_typed_is_for_the_guest_but_for_commands() {
        use Key::{Console, Echo, Help, Input, Monitor, Order, Quit, Rules};
        for (typed, expected) in [
            (&b"a\x03"[..], vec![Input(b'a'), Input(3)]),
            (b"\x1dq", vec![Quit]),
            (b"\x1dr", vec![Rules]),
            (b"\x1dmq", vec![Monitor, Input(b'q')]),
            (b"\x1d0\x1d9", vec![Console(0), Console(9)]),
            (b"\x1d\x1dq", vec![Input(0x1d), Input(b'q')]),
            (b"\x1d?", vec![Help]),
            (
                b"\x1d:n\x7fo\ra",
                vec![
                    Echo("\r\n:".into()),
                    Echo("n".into()),
                    Echo("\x08 \x08".into()),
                    Echo("o".into()),
                    Order("o".into()),
                    Input(b'a'),
                ],
            ),
            (b"\x1d:\x7fa", vec![Echo("\r\n:".into()), Echo("\r\n".into()), Input(b'a')]),
            (b"\x1d:o\x1ba", vec![Echo("\r\n:".into()), Echo("o".into()), Echo("\r\n".into()), Input(b'a')]),
            (b"\x1dx", vec![Help]),
            (b"\x1d", vec![]),
        ] {
            assert_eq!(keys(typed), expected, "{typed:?}");
        }
    }
}
