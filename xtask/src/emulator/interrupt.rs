//! Ctrl-C: noted, so that whoever runs an emulator can end it and put the terminal in order.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C, a hang-up and `kill` are noted instead of ending the process at once.
///
/// # Errors
/// Fails when the system refuses a signal handler.
pub fn listen() -> Result<()> {
    match ctrlc::set_handler(|| REQUESTED.store(true, Ordering::SeqCst)) {
        Err(ctrlc::Error::MultipleHandlers) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether the user wants an end.
#[must_use]
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// Puts the terminal's settings back as they were when it is dropped.
#[derive(Debug)]
pub struct TerminalSettings {
    settings: Option<Termios>,
}

impl TerminalSettings {
    /// Remembers the settings of the terminal at standard input, if there is one.
    #[must_use]
    pub fn remember() -> Self {
        Self { settings: tcgetattr(rustix::stdio::stdin()).ok() }
    }
}

impl Drop for TerminalSettings {
    fn drop(&mut self) {
        if let Some(settings) = &self.settings {
            // Fails only when the terminal is gone.
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, settings);
        }
    }
}
