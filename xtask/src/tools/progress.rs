//! Progress for people: a bar on a terminal, one line per step elsewhere.

use std::{cell::RefCell, io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

/// Shows how far one lengthy job is.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    /// The last step printed when there is no terminal.
    printed: RefCell<String>,
    terminal: bool,
}

impl Progress {
    /// Starts to show a job.
    #[must_use]
    pub fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal { ProgressBar::new(100) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{spinner} [{bar:30}] {percent:>3}% {wide_msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { bar, printed: RefCell::default(), terminal }
    }

    /// Shows that something is waited for, and for how long.
    #[must_use]
    pub fn waiting(text: &str) -> Self {
        let progress = Self::new();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            progress.bar.set_style(style);
        }
        progress.bar.set_message(text.to_string());
        progress
    }

    /// A new step of unknown length begins.
    pub fn step(&self, text: String) {
        if !self.terminal && *self.printed.borrow() != text {
            eprintln!("{text}");
            *self.printed.borrow_mut() = text.clone();
        }
        self.bar.set_position(0);
        self.bar.set_message(text);
    }

    /// The present step is `percent` done.
    pub fn percent(&self, percent: f64, text: String) {
        self.bar.set_position(percent.clamp(0.0, 100.0) as u64);
        self.bar.set_message(text);
    }

    /// Prints a line that stays.
    pub fn note(&self, text: String) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    /// Ends the job and leaves nothing behind on a terminal.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }

    /// Ends the job with a line that stays.
    pub fn finish(&self, text: String) {
        self.bar.finish_and_clear();
        eprintln!("{text}");
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
