//! Rules that change while frames pass.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::Child,
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use dragonfly_virtqueue::RingFeatures;
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    nets::{Station, datagram, net},
    process::program,
};

/// Receive buffers that a guest has out at most.
const BUFFERS: u64 = 32;
/// Frames of each stretch of traffic.
const FRAMES: usize = 300;

/// The program with two guests, the second of which has rules.
struct Guarded {
    folder: tempfile::TempDir,
    child: Child,
    log: Receiver<String>,
    one: Station,
    two: Station,
}

impl Guarded {
    /// The second guest may be sent datagrams to this port.
    fn start(port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(file(&folder), machine(port)).unwrap();
        let mut child = program(folder.path()).args(["--machine", "card.toml"]).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.by_ref().take(2).all(|line| line.contains("listening")));
        let (sender, log) = channel();
        thread::spawn(move || lines.try_for_each(|line| sender.send(line)));
        let [one, two] =
            ["one.sock", "two.sock"].map(|name| Station::at(&folder.path().join(name), RingFeatures::empty()));
        Self { folder, child, log, one, two }
    }

    /// Writes another machine file, and tells the program.
    fn change(&self, text: &str) {
        fs::write(file(&self.folder), text).unwrap();
        kill_process(Pid::from_child(&self.child), Signal::HUP).unwrap();
    }

    /// Waits until the log says this.
    fn wait_for(&self, text: &str) {
        while !self.log.recv_timeout(Duration::from_secs(10)).expect(text).contains(text) {}
    }

    /// Sends frames to a port, and gives how many come.
    fn exchange(&mut self, port: u16) -> usize {
        (0..FRAMES).map(|_| self.send_one(port)).sum()
    }

    fn send_one(&mut self, port: u16) -> usize {
        self.one.send(&datagram(port));
        let come = std::iter::from_fn(|| self.two.try_receive()).count();
        self.two.offer_buffers(BUFFERS);
        come
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn file(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("card.toml")
}

fn machine(port: u16) -> String {
    let rule =
        format!("[[rule]]\ngroup = 'g'\ndirection = 'in'\naction = 'allow'\nprotocol = 'udp'\nports = '{port}'\n");
    [&net("one", 1, ""), &net("two", 2, "groups = ['g']"), rule.as_str()].concat()
}

const IN_FORCE: &str = "1 rules of 1 groups are in force";

#[test]
fn no_frame_passes_by_an_old_rule_once_the_new_ones_are_in_force() {
    let mut guarded = Guarded::start(53);
    guarded.two.offer_buffers(BUFFERS);
    assert!(guarded.exchange(53) > 0);
    guarded.change(&machine(54));
    while !guarded.log.try_recv().is_ok_and(|line| line.contains(IN_FORCE)) {
        guarded.send_one(53);
    }
    // What came before that line came by the old rule.
    while guarded.two.try_receive().is_some() {}
    guarded.two.offer_buffers(BUFFERS);
    for _ in 0..FRAMES {
        guarded.one.send(&datagram(53));
    }
    guarded.one.send(&datagram(54));
    assert_eq!(guarded.two.receive(), datagram(54));
}

#[test]
fn what_waited_for_its_receiver_when_the_rules_changed_is_dropped() {
    let mut guarded = Guarded::start(53);
    for _ in 0..20 {
        guarded.one.send(&datagram(53));
    }
    guarded.change(&machine(54));
    guarded.wait_for(IN_FORCE);
    guarded.two.offer_buffers(BUFFERS);
    guarded.one.send(&datagram(54));
    assert_eq!(guarded.two.receive(), datagram(54));
}

#[test]
fn a_machine_file_with_a_fault_leaves_the_rules_as_they_are() {
    let mut guarded = Guarded::start(53);
    guarded.two.offer_buffers(BUFFERS);
    guarded.change(&machine(54).replace("'udp'", "'upd'"));
    guarded.wait_for("`protocol` has \"upd\"");
    guarded.one.send(&datagram(54));
    guarded.one.send(&datagram(53));
    assert_eq!(guarded.two.receive(), datagram(53));
}

#[test]
fn a_group_without_rules_lets_nothing_pass_and_what_else_has_changed_is_told() {
    let mut guarded = Guarded::start(53);
    guarded.two.offer_buffers(BUFFERS);
    guarded.change(&net("one", 1, ""));
    guarded.wait_for("the machine file differs in more than its rules");
    guarded.wait_for("0 rules of 1 groups are in force");
    guarded.one.send(&datagram(53));
    guarded.change(&machine(54));
    guarded.wait_for(IN_FORCE);
    guarded.one.send(&datagram(54));
    assert_eq!(guarded.two.receive(), datagram(54));
}
