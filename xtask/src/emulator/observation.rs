//! What is seen of a machine while it runs, and what that says about its end.

use std::time::{Duration, Instant};

use super::{
    End, Limits, Watcher, interrupt,
    serial::{self, LineSplitter},
};

/// How long an emulator may take to end after the software said that it ends.
const GRACE: Duration = Duration::from_secs(5);

/// What has been seen of a machine so far.
pub struct Observation<'a> {
    watcher: &'a mut dyn Watcher,
    splitter: LineSplitter,
    pub log: Vec<String>,
    exit: Option<u32>,
    panicked: bool,
    heard: Instant,
}

impl<'a> Observation<'a> {
    pub fn new(watcher: &'a mut dyn Watcher) -> Self {
        Self {
            watcher,
            splitter: LineSplitter::default(),
            log: Vec::new(),
            exit: None,
            panicked: false,
            heard: Instant::now(),
        }
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.watcher.bytes(bytes);
        for line in self.splitter.push(bytes) {
            self.line(line);
        }
    }

    pub fn guests(&mut self, bytes: &[u8]) {
        self.heard = Instant::now();
        self.watcher.guests(bytes);
    }

    pub fn typed(&mut self, bytes: &[u8]) {
        self.watcher.typed(bytes);
    }

    fn line(&mut self, line: String) {
        self.heard = Instant::now();
        self.exit = self.exit.or_else(|| serial::exit_code(&line));
        self.panicked |= serial::is_panic(&line);
        self.watcher.line(&line);
        self.log.push(line);
    }

    /// The end, if the machine must not or need not run any longer.
    pub fn over(&mut self, start: Instant, limits: Limits) -> Option<End> {
        if interrupt::requested() || self.watcher.wants_end() {
            return Some(End::Interrupted);
        }
        let quiet = self.heard.elapsed();
        if (self.exit.is_some() || self.panicked) && quiet > GRACE {
            return Some(self.end_of_machine());
        }
        if let Some(limit) = limits.total.filter(|&limit| start.elapsed() > limit) {
            return Some(End::TimedOut(limit));
        }
        limits.silence.filter(|&limit| quiet > limit).map(End::Silent)
    }

    pub fn end_of_machine(&self) -> End {
        match self.exit {
            _ if self.panicked => End::Panic,
            Some(code) => End::Exit(code),
            None => End::Died,
        }
    }

    /// Takes what came after the last line end for a line.
    pub fn last_line(&mut self) {
        if let Some(rest) = self.splitter.rest() {
            self.line(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Deaf;

    impl Watcher for Deaf {}

    fn end_after(said: &[u8]) -> End {
        let mut deaf = Deaf;
        let mut observation = Observation::new(&mut deaf);
        observation.bytes(said);
        observation.last_line();
        observation.end_of_machine()
    }

    #[test]
    fn the_software_decides_how_its_boot_ended() {
        assert_eq!(end_after(b"hello\ndragonfly: exit 0\n"), End::Exit(0));
        assert_eq!(end_after(b"hello\ndragonfly: exit 3\n"), End::Exit(3));
        assert_eq!(end_after(b"the machine was off before the line end: dragonfly: exit 0"), End::Exit(0));
    }

    #[test]
    fn an_emulator_that_ends_unasked_is_a_crash() {
        assert_eq!(end_after(b"hello\n"), End::Died);
        assert_eq!(end_after(b""), End::Died);
    }

    #[test]
    fn a_panic_outranks_the_exit_that_follows_it() {
        assert_eq!(end_after(b"panic: at the disco\ndragonfly: exit 1\n"), End::Panic);
    }

    #[test]
    fn a_silent_machine_is_cut_off() {
        let mut deaf = Deaf;
        let mut observation = Observation::new(&mut deaf);
        let limits = Limits { total: None, silence: Some(Duration::ZERO) };
        assert_eq!(observation.over(Instant::now(), limits), Some(End::Silent(Duration::ZERO)));
        let patient = Limits { total: None, silence: Some(Duration::from_secs(60)) };
        let long_ago = Instant::now().checked_sub(Duration::from_secs(61)).unwrap();
        for is_guest in [false, true] {
            observation.heard = long_ago;
            assert_eq!(observation.over(long_ago, patient), Some(End::Silent(Duration::from_secs(60))));
            if is_guest {
                observation.guests(b"a byte")
            } else {
                observation.bytes(b"a line\n")
            }
            assert_eq!(observation.over(long_ago, patient), None);
        }
    }
}
