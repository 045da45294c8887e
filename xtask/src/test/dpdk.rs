//! The card's process under DPDK: `testpmd` has two of its network devices (virtio-user) and sends frames from one to the other.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    card::{self, Running},
    report::{Outcome, StageResult},
    select::is_wanted,
};
use crate::{
    build::Project,
    emulator::interrupt,
    tools::{Tools, peers::Peers},
};

const MACS: [&str; 2] = ["52:54:00:00:00:01", "52:54:00:00:00:02"];
const SOCKETS: [&str; 2] = ["a.sock", "b.sock"];
/// Frames that testpmd sends at once.
const BURST: u64 = 32;
/// How many times that from each queue at first: together they fit into one queue of a receiver's, if need be.
const BURSTS: u64 = 4;
/// Frames that each port is to receive when each that comes is sent back.
const MANY: u64 = 20_000;
/// How long frames may take, or a program to start.
const AT_MOST: Duration = Duration::from_secs(20);

/// One run of testpmd.
struct Case {
    name: &'static str,
    /// Options of DPDK's device.
    device: &'static str,
    queues: u64,
}

const CASES: [Case; 6] = [
    Case { name: "split rings, 1 queue", device: "", queues: 1 },
    Case { name: "split rings, 2 queues", device: "", queues: 2 },
    Case { name: "split rings, 4 queues", device: "", queues: 4 },
    Case { name: "packed rings, 1 queue", device: ",packed_vq=1", queues: 1 },
    Case { name: "packed rings, 2 queues", device: ",packed_vq=1", queues: 2 },
    Case { name: "packed rings, 4 queues", device: ",packed_vq=1", queues: 4 },
];

/// Runs each case.
///
/// # Errors
/// Fails when something cannot be had, built or started, or the user interrupts.
pub fn run(
    tools: &Tools,
    project: &Project,
    stage: &'static str,
    logs: &Path,
    filters: &[String],
) -> Result<StageResult> {
    let start = Instant::now();
    let program = card::program(tools, project)?;
    let peers = tools.peers()?;
    interrupt::listen()?;
    let log = logs.join(format!("{stage}.log"));
    fs::write(&log, "")?;
    let mut outcomes = Vec::new();
    let mut excerpt = Vec::new();
    for case in CASES {
        if !is_wanted(case.name, filters) {
            continue;
        }
        let folder = tempfile::tempdir()?;
        let mut card = start_card(&program, folder.path(), case.queues, &log)?;
        let output = folder.path().join("testpmd");
        let mut judged = case.run(&peers, folder.path(), &output)?;
        judged.push(match card.stop()? {
            Some(0) => Outcome::passed("end"),
            status => Outcome::failed("end", &format!("the card {status:?}")),
        });
        let said = fs::read_to_string(&output)?;
        File::options().append(true).open(&log)?.write_all(said.as_bytes())?;
        if judged.iter().any(|outcome| outcome.failure.is_some()) {
            excerpt.extend(said.lines().rev().take(60).map(str::to_string).collect::<Vec<_>>().into_iter().rev());
        }
        for mut outcome in judged {
            outcome.name = format!("{}: {}", case.name, outcome.name);
            outcomes.push(outcome);
        }
    }
    let duration = start.elapsed();
    Ok(StageResult { stage, outcomes, notes: Vec::new(), excerpt, log: Some(log), duration })
}

/// A card with two network devices that listens.
fn start_card(program: &Path, folder: &Path, queues: u64, log: &Path) -> Result<Running> {
    let mut text = String::new();
    for ((name, socket), mac) in ["a", "b"].iter().zip(SOCKETS).zip(MACS) {
        text += &format!("[[net]]\nname = \"{name}\"\nsocket = \"{socket}\"\nmac = \"{mac}\"\nqueues = {queues}\n");
    }
    fs::write(folder.join("card.toml"), text)?;
    let mut command = Command::new(program);
    command.arg("--machine").arg(folder.join("card.toml")).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::options().append(true).open(log)?);
    let mut card = Running::start(&mut command)?;
    card.wait_for(&SOCKETS.map(|socket| folder.join(socket)))?;
    Ok(card)
}

impl Case {
    fn run(&self, peers: &Peers, folder: &Path, output: &Path) -> Result<Vec<Outcome>> {
        let mut testpmd = Testpmd::start(peers, self, folder, output)?;
        testpmd.say("set fwd rxonly")?;
        testpmd.say(&format!("start tx_first {BURSTS}"))?;
        let sent = BURST * BURSTS * self.queues;
        let mut outcomes = vec![testpmd.wait_for("each frame that is sent arrives", |received| received == [sent; 2])?];
        testpmd.say("stop")?;
        testpmd.say("set fwd mac")?;
        testpmd.say("start tx_first")?;
        let many = [sent + MANY; 2];
        let is_enough = |received: [u64; 2]| received.iter().zip(many).all(|(received, many)| *received >= many);
        outcomes.push(testpmd.wait_for("frames go to and fro", is_enough)?);
        testpmd.say("stop")?;
        testpmd.say("quit")?;
        outcomes.push(match testpmd.process.status(AT_MOST)? {
            Some(0) => Outcome::passed("DPDK ends as it should"),
            status => Outcome::failed("DPDK ends as it should", &format!("{status:?}")),
        });
        if self.queues > 1 {
            let queues = receiving_queues(&fs::read_to_string(output)?);
            outcomes.push(if queues == self.queues as usize {
                Outcome::passed("each queue receives")
            } else {
                Outcome::failed("each queue receives", &format!("{queues} of the first port's do"))
            });
        }
        Ok(outcomes)
    }
}

/// A running testpmd that takes commands.
struct Testpmd {
    process: Running,
    output: PathBuf,
}

impl Testpmd {
    fn start(peers: &Peers, case: &Case, folder: &Path, output: &Path) -> Result<Self> {
        let Case { device, queues, .. } = case;
        let file = File::create(output)?;
        let mut command = Command::new(peers.program("dpdk-testpmd"));
        command.env("RUNTIME_DIRECTORY", folder).process_group(0);
        // The main thread waits for commands; the one that polls has the CPU.
        command.args(Peers::plug_ins());
        command.args(["--lcores", "0@0,1@0", "--no-pci", "--no-huge", "-m", "512", "--no-telemetry"]);
        for (number, (socket, mac)) in SOCKETS.iter().zip(MACS).enumerate() {
            let path = folder.join(socket);
            command.arg("--vdev").arg(format!(
                "net_virtio_user{number},path={},mac={mac},queues={queues},queue_size=256{device}",
                path.display()
            ));
        }
        command.args(["--", "-i", "--nb-cores=1", "--total-num-mbufs=8192", "--txonly-multi-flow"]);
        command.args([format!("--rxq={queues}"), format!("--txq={queues}")]);
        command.args([format!("--eth-peer=0,{}", MACS[1]), format!("--eth-peer=1,{}", MACS[0])]);
        command.stdin(Stdio::piped()).stdout(file.try_clone()?).stderr(file);
        Ok(Self { process: Running::start(&mut command)?, output: output.into() })
    }

    fn say(&mut self, line: &str) -> Result<()> {
        let said = self.process.input().and_then(|input| Ok(writeln!(input, "{line}")?));
        said.with_context(|| format!("testpmd has ended: {}", fs::read_to_string(&self.output).unwrap_or_default()))
    }

    /// Waits until both ports have received as much.
    fn wait_for(&mut self, what: &str, is_enough: impl Fn([u64; 2]) -> bool) -> Result<Outcome> {
        let start = Instant::now();
        loop {
            if interrupt::requested() {
                bail!("interrupted");
            }
            self.say("show port stats all")?;
            thread::sleep(Duration::from_millis(50));
            let received = received(&fs::read_to_string(&self.output)?);
            if received.is_some_and(&is_enough) {
                return Ok(Outcome::passed(what));
            }
            if start.elapsed() > AT_MOST {
                return Ok(Outcome::failed(what, &format!("the ports have received {received:?} frames")));
            }
        }
    }
}

/// What both ports have received, as it was shown last.
fn received(said: &str) -> Option<[u64; 2]> {
    let port = |number: usize| {
        let (_, after) = said.rsplit_once(&format!("NIC statistics for port {number}"))?;
        after.split_once("RX-packets:")?.1.split_whitespace().next()?.parse().ok()
    };
    Some([port(0)?, port(1)?])
}

/// How many queues of the first port have received something.
fn receiving_queues(said: &str) -> usize {
    let streams = said.split("Forward Stats for RX Port= 0/Queue=").skip(1);
    let receives = |stream: &&str| {
        let count = stream.split_once("RX-packets:").and_then(|(_, after)| after.split_whitespace().next());
        count.is_some_and(|count| count != "0")
    };
    let queues: std::collections::BTreeSet<_> =
        streams.filter(receives).filter_map(|stream| stream.split_whitespace().next()).collect();
    queues.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "
  ######################## NIC statistics for port 0  ########################
  RX-packets: 7          RX-missed: 0          RX-bytes:  0
  ######################## NIC statistics for port 1  ########################
  RX-packets: 8          RX-missed: 0          RX-bytes:  0
  ######################## NIC statistics for port 0  ########################
  RX-packets: 9          RX-missed: 0          RX-bytes:  0
  ------- Forward Stats for RX Port= 0/Queue= 0 -> TX Port= 1/Queue= 0 -------
  RX-packets: 0              TX-packets: 256            TX-dropped: 17920
  ------- Forward Stats for RX Port= 1/Queue= 0 -> TX Port= 0/Queue= 0 -------
  RX-packets: 5              TX-packets: 256            TX-dropped: 17920
  ------- Forward Stats for RX Port= 0/Queue= 1 -> TX Port= 1/Queue= 1 -------
  RX-packets: 12             TX-packets: 256            TX-dropped: 17920
";

    #[test]
    fn what_testpmd_says_is_understood() {
        assert_eq!(received(SAID), Some([9, 8]));
        assert_eq!(received("NIC statistics for port 0\nRX-packets: 1 "), None);
        assert_eq!(receiving_queues(SAID), 1);
    }
}
