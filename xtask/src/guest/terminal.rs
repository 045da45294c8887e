//! The user's terminal: every key as it is typed, and its settings put back in any case.

use std::{
    io::{IsTerminal, Read, Write},
    panic,
    sync::{Mutex, Once, PoisonError, mpsc::Sender},
    thread,
};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::emulator::serial::Event;

/// The settings to put back; none while they are as the user had them.
static ORIGINAL: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal in raw mode, for as long as this lives.
///
/// It is put back when this is dropped, and before a panic is reported, which may end the process without dropping
/// anything. Signals that would end the process are noted by [`interrupt`](crate::emulator::interrupt), so that it ends
/// in order.
#[derive(Debug)]
pub struct RawTerminal {
    /// Made by [`RawTerminal::enter`] only.
    _private: (),
}

impl RawTerminal {
    /// Whether there is a user: a terminal at both input and output.
    #[must_use]
    pub fn is_there() -> bool {
        std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
    }

    /// Switches the terminal to raw mode; none if there is no terminal.
    #[must_use]
    pub fn enter() -> Option<Self> {
        static HOOK: Once = Once::new();
        let original = tcgetattr(rustix::stdio::stdin()).ok()?;
        HOOK.call_once(|| {
            let report = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                restore();
                report(info);
            }));
        });
        let mut raw = original.clone();
        raw.make_raw();
        *ORIGINAL.lock().unwrap_or_else(PoisonError::into_inner) = Some(original);
        match tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw) {
            Ok(()) => Some(Self { _private: () }),
            Err(_) => {
                restore();
                None
            }
        }
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Puts the settings back if they were changed, and ends what a guest may have done to colours and cursor.
fn restore() {
    const NORMAL: &[u8] = b"\x1b[0m\x1b[?25h\r\n"; // ECMA-48 8.3.117 (SGR); DECTCEM as in the VT220.
    if let Some(original) = ORIGINAL.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let mut stdout = std::io::stdout();
        // Both fail only when the terminal is gone.
        let _ = stdout.write_all(NORMAL).and_then(|()| stdout.flush());
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &original);
    }
}

/// Rows and columns of the terminal at standard output, if it is one that knows.
#[must_use]
pub fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(rustix::stdio::stdout()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Sends what comes in at standard input, for as long as somebody listens.
pub fn read_input(to: Sender<Event>) {
    thread::spawn(move || {
        let mut buffer = [0; 1024];
        while let Ok(length @ 1..) = std::io::stdin().read(&mut buffer) {
            if to.send(Event::Typed(buffer[..length].to_vec())).is_err() {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::{
        mem,
        panic::{AssertUnwindSafe, catch_unwind},
    };

    use rustix::{stdio::dup2_stdin, termios::LocalModes};

    use super::*;
    use crate::emulator::pseudo_terminal;

    #[test]
    fn the_terminal_is_as_it_was_after_raw_mode_and_after_a_panic_in_it() {
        let terminal = pseudo_terminal::open().unwrap();
        dup2_stdin(&terminal.held).unwrap();
        let mut settings = tcgetattr(&terminal.held).unwrap();
        settings.local_modes |= LocalModes::ICANON | LocalModes::ECHO;
        tcsetattr(&terminal.held, OptionalActions::Now, &settings).unwrap();
        let modes = || tcgetattr(&terminal.held).unwrap().local_modes;
        let before = modes();

        let raw = RawTerminal::enter().unwrap();
        assert!(!modes().intersects(LocalModes::ICANON | LocalModes::ECHO));
        drop(raw);
        assert_eq!(modes(), before);

        let panicked = catch_unwind(AssertUnwindSafe(|| {
            // As in a process that ends without dropping anything.
            mem::forget(RawTerminal::enter().unwrap());
            panic!("on purpose");
        }));
        assert!(panicked.is_err());
        assert_eq!(modes(), before);
    }
}
