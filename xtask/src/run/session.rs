//! What happens between the user and the guests while a machine runs.

use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
    time::Instant,
};

use crate::{
    emulator::{GuestLine, Watcher, serial::LineSplitter},
    guest::{
        keys::{self, Key, Keys},
        plain::{Plain, PromptGate},
        screen::{Screen, note, with_returns},
        stream::{CARD, Decoder, Encoder, GuestEnd, Output},
        terminal,
    },
    tools::progress::Progress,
};

/// Connects keys, consoles and log.
pub struct Session {
    names: Vec<String>,
    files: Vec<Option<PathBuf>>,
    /// What the card says.
    card: LineSplitter,
    display: Display,
    decoder: Decoder,
    encoder: Encoder,
    /// How each guest ended.
    ends: Vec<Option<GuestEnd>>,
    /// Where the hypervisor's log goes.
    log: File,
    shows_log: bool,
    line: Option<GuestLine>,
    reads_input: bool,
    quits: bool,
    /// Shown until a guest prints something.
    progress: Option<Progress>,
}

/// How the consoles are shown.
enum Display {
    /// On a terminal in raw mode.
    Terminal {
        /// What is on it.
        screen: Screen,
        /// What is typed.
        keys: Keys,
        /// Its size, as the guests know it.
        size: Option<(u16, u16)>,
    },
    /// Elsewhere.
    Plain {
        /// What is printed.
        plain: Plain,
        /// What is held back.
        gate: PromptGate,
    },
}

/// What a session is to be like.
pub struct Settings {
    /// The guests' names.
    pub names: Vec<String>,
    /// Their machine files, of those that the user has described by some.
    pub files: Vec<Option<PathBuf>>,
    /// The guest whose console the user asked for.
    pub console: Option<usize>,
    /// Whether there is a terminal, which is in raw mode.
    pub terminal: bool,
    /// Whether standard input is for a guest.
    pub input: bool,
    /// Whether to show the hypervisor's log.
    pub shows_log: bool,
    /// File for the hypervisor's log.
    pub log: File,
    /// Shown until a guest prints something.
    pub progress: Progress,
}

impl Session {
    pub fn new(settings: Settings) -> Self {
        let Settings { names, files, console, terminal, input, shows_log, log, progress } = settings;
        let display = if terminal {
            Display::Terminal { screen: Screen::new(&names, console.unwrap_or(0)), keys: Keys::default(), size: None }
        } else {
            Display::Plain { plain: Plain::new(&names, console), gate: PromptGate::new() }
        };
        Self {
            ends: names.iter().map(|_| None).collect(),
            names,
            files,
            card: LineSplitter::default(),
            display,
            decoder: Decoder::default(),
            encoder: Encoder::default(),
            log,
            shows_log,
            line: None,
            reads_input: input,
            quits: false,
            progress: Some(progress),
        }
    }

    /// Shows what is left, and says how each guest ended.
    pub fn finish(mut self) -> Vec<Option<GuestEnd>> {
        self.end_progress();
        if let Display::Plain { plain, .. } = &mut self.display {
            let rest = plain.rest();
            show(&rest);
        }
        self.ends
    }

    fn printed(&mut self, guest: usize, bytes: &[u8]) {
        let shown = match &mut self.display {
            Display::Terminal { screen, .. } => screen.printed(guest, bytes),
            Display::Plain { plain, gate } => {
                if guest == plain.listener() {
                    gate.printed(bytes, Instant::now());
                }
                plain.printed(guest, bytes)
            }
        };
        if !shown.is_empty() {
            self.end_progress();
            show(&shown);
        }
    }

    fn ended(&mut self, guest: usize, status: GuestEnd) {
        let Some(name) = self.names.get(guest) else { return };
        let text = match status {
            GuestEnd::PoweredOff => format!("guest {name} switched itself off"),
            GuestEnd::Crashed => format!("guest {name} crashed"),
            GuestEnd::BadInput => format!("guest {name} could not be started"),
            GuestEnd::Rebooted => format!("guest {name} reboots"),
        };
        if status != GuestEnd::Rebooted
            && let Some(end) = self.ends.get_mut(guest)
        {
            *end = Some(status);
        }
        self.tell(&text);
    }

    fn command(&mut self, key: Key) {
        let Display::Terminal { screen, .. } = &mut self.display else { return };
        let shown = match key {
            Key::Input(byte) => {
                if let Some(guest) = screen.listener() {
                    let bytes = self.encoder.bytes(guest, &[byte]);
                    self.send(bytes);
                }
                return;
            }
            Key::Quit => {
                self.quits = true;
                return;
            }
            Key::Rules => return self.change_rules(),
            Key::Order(line) => {
                let guest = screen.listener();
                return self.order(guest, &line);
            }
            Key::Echo(text) => text.into_bytes(),
            Key::Monitor => screen.toggle_log(),
            Key::Console(guest) => screen.choose(guest),
            Key::Help => note(keys::HELP),
        };
        self.end_progress();
        show(&shown);
    }

    /// Sends the card the machine files as they are now.
    fn change_rules(&mut self) {
        if self.files.iter().all(Option::is_none) {
            self.tell("no guest has a machine file (--machine) to read rules from");
        }
        for (guest, file) in self.files.clone().into_iter().enumerate() {
            let Some(file) = file else { continue };
            match fs::read_to_string(&file) {
                Ok(text) => {
                    let order = self.encoder.rules(guest, &text);
                    self.send(order);
                }
                Err(error) => self.tell(&format!("{}: cannot be read: {error}", file.display())),
            }
        }
    }

    /// Does what the user has typed about the guest that is shown.
    fn order(&mut self, guest: Option<usize>, line: &str) {
        match (guest, line.split_whitespace().collect::<Vec<_>>().as_slice()) {
            (Some(guest), ["link", name, state @ ("up" | "down")]) => {
                let order = self.encoder.link(guest, name, state);
                self.send(order);
                show(b"\r\n");
            }
            (Some(guest), ["vcpu", vcpu, "cpu", cpu]) => match (vcpu.parse(), cpu.parse()) {
                (Ok(vcpu), Ok(cpu)) => {
                    let order = self.encoder.move_vcpu(guest, vcpu, cpu);
                    self.send(order);
                    self.tell("ordered; the hypervisor's log (Ctrl-] m) has what comes of it");
                }
                _ => self.tell(&format!("\"{line}\": a vCPU and a CPU are numbers from 0 to 255")),
            },
            (None, ["link" | "vcpu", ..]) => self.tell("choose the guest first: Ctrl-] 0 to 9"),
            _ => self.tell(&format!(
                "\"{line}\" is no order; there are \"link NAME up\", \"link NAME down\" and \"vcpu N cpu M\""
            )),
        }
    }

    /// Shows what the card says, with the user's names for machine files.
    fn card_printed(&mut self, bytes: &[u8]) {
        for mut line in self.card.push(bytes) {
            for (guest, file) in self.files.iter().enumerate() {
                let Some(file) = file else { continue };
                line = line.replace(&format!("machines/{guest}.toml"), &file.display().to_string());
            }
            self.tell(&line);
        }
    }

    fn tell(&mut self, text: &str) {
        self.end_progress();
        match &self.display {
            Display::Terminal { .. } => show(&note(text)),
            Display::Plain { .. } => eprintln!("xtask: {text}"),
        }
    }

    fn send(&self, bytes: Vec<u8>) {
        if let Some(line) = &self.line {
            // Fails when the machine has ended.
            let _ = line.input.send(bytes);
        }
    }

    fn end_progress(&mut self) {
        if let Some(progress) = self.progress.take() {
            progress.clear();
        }
    }
}

impl Watcher for Session {
    fn bytes(&mut self, bytes: &[u8]) {
        // The log is also shown when something failed; a full disk is no reason to stop the guests.
        let _ = self.log.write_all(bytes);
        if let Display::Terminal { screen, .. } = &mut self.display {
            let shown = screen.logged(bytes);
            show(&shown);
        }
        if self.shows_log {
            self.end_progress();
            let raw = matches!(self.display, Display::Terminal { .. });
            let shown = if raw { with_returns(bytes) } else { bytes.to_vec() };
            let _ = std::io::stderr().lock().write_all(&shown);
        }
    }

    fn started(&mut self, line: GuestLine) {
        if self.reads_input {
            terminal::read_input(line.events.clone());
        }
        self.line = Some(line);
    }

    fn guests(&mut self, bytes: &[u8]) {
        for output in self.decoder.push(bytes) {
            match output {
                Output::Bytes { guest: CARD, bytes } => self.card_printed(&bytes),
                Output::Bytes { guest, bytes } => self.printed(guest, &bytes),
                Output::Ended { guest, status } => self.ended(guest, status),
            }
        }
    }

    fn typed(&mut self, bytes: &[u8]) {
        match &mut self.display {
            Display::Plain { gate, .. } => gate.typed(bytes),
            Display::Terminal { keys, .. } => {
                let typed: Vec<_> = bytes.iter().filter_map(|byte| keys.push(*byte)).collect();
                typed.into_iter().for_each(|key| self.command(key));
            }
        }
    }

    fn wants_end(&mut self) -> bool {
        let bytes = match &mut self.display {
            Display::Plain { plain, gate } => {
                let passes = gate.passes(Instant::now());
                if passes.is_empty() { Vec::new() } else { self.encoder.bytes(plain.listener(), &passes) }
            }
            // Asked for at each turn, which costs less than a handler of the signal that tells of a change.
            Display::Terminal { size, .. } => match terminal::size() {
                now @ Some((rows, columns)) if *size != now && self.line.is_some() => {
                    *size = now;
                    Encoder::window(rows, columns)
                }
                _ => Vec::new(),
            },
        };
        if !bytes.is_empty() {
            self.send(bytes);
        }
        self.quits
    }
}

fn show(bytes: &[u8]) {
    if !bytes.is_empty() {
        let mut stdout = std::io::stdout().lock();
        // A reader that has gone (`run | head`) is no reason to stop the machine.
        let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    /// A session of two guests, and what it sends to them.
    fn session(terminal: bool) -> (Session, Receiver<Vec<u8>>) {
        let mut session = Session::new(Settings {
            names: vec!["one".into(), "two".into()],
            files: vec![None, None],
            console: None,
            terminal,
            input: false,
            shows_log: false,
            log: tempfile::tempfile().unwrap(),
            progress: Progress::new(),
        });
        let (input, sent) = channel();
        let (events, _) = channel();
        session.started(GuestLine { input, events });
        (session, sent)
    }

    #[test]
    fn keys_go_to_the_guest_that_is_shown() {
        let (mut session, sent) = session(true);
        session.typed(b"a\x03\x1d1b\x1dmc");
        let sent: Vec<u8> = sent.try_iter().flatten().collect();
        assert_eq!(sent, b"a\x03\x10Ab");
    }

    #[test]
    fn rules_are_those_that_machine_files_have_when_the_user_asks() {
        let (mut session, sent) = session(true);
        let file = tempfile::NamedTempFile::new().unwrap();
        session.files = vec![Some("/nonexistent.toml".into()), Some(file.path().into())];
        fs::write(file.path(), "name = 'two'").unwrap();
        session.typed(b"\x1dra");
        let sent: Vec<u8> = sent.try_iter().flatten().collect();
        assert_eq!(sent, b"\x10`rules 1\nname = 'two'\x04\x10@a");
    }

    #[test]
    fn an_order_for_a_link_is_about_the_guest_that_is_shown() {
        let (mut session, sent) = session(true);
        session.typed(b"\x1d1\x1d:link net down\r\x1d:link net\r\x1d:unlink net up\r\x1dm\x1d:link net up\r\x1dma");
        let sent: Vec<u8> = sent.try_iter().flatten().collect();
        assert_eq!(sent, b"\x10`link 1 net\ndown\x04\x10Aa");
    }

    #[test]
    fn the_user_can_quit() {
        let (mut session, _sent) = session(true);
        session.typed(b"q");
        assert!(!session.wants_end());
        session.typed(b"\x1dq");
        assert!(session.wants_end());
    }

    #[test]
    fn each_guests_last_end_is_remembered() {
        let (mut session, _sent) = session(false);
        session.guests(b"bye\n\x10x0103");
        session.guests(b"\x10x0101\x10x00");
        assert_eq!(session.ends, [None, Some(GuestEnd::Crashed)]);
        session.guests(b"00");
        assert_eq!(session.finish(), [Some(GuestEnd::PoweredOff), Some(GuestEnd::Crashed)]);
    }

    #[test]
    fn the_end_of_a_guest_that_nobody_started_means_nothing() {
        let (mut session, _sent) = session(false);
        session.guests(b"\x10x0500");
        assert_eq!(session.finish(), [None, None]);
    }
}
