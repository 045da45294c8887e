//! Who is measured: each a process on CPU 0 that serves two vhost-user ports.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::cases::Policy;
use crate::{process, tools::peers::Peers};

/// How long a switch may take to start.
const PATIENCE: Duration = Duration::from_secs(30);
/// Memory of DPDK's programs, in MiB: buffers are not on huge pages, of which a machine may have none.
const DPDK_MEMORY: &str = "1024";
/// Names the folder in which DPDK's programs keep their state.
const DPDK_FOLDER: &str = "RUNTIME_DIRECTORY";

/// A switch that runs.
pub trait BackEnd {
    /// Where it listens.
    fn sockets(&self) -> [PathBuf; 2];

    /// What polls.
    fn process(&self) -> &Process;
}

/// A process that is ended with its value.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it, with its output in `log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(mut command: Command, log: PathBuf) -> Result<Self> {
        let file = fs::File::create(&log)?;
        let child = command.stdin(Stdio::piped()).stdout(file.try_clone()?).stderr(file).spawn();
        Ok(Self { child: child.with_context(|| format!("cannot start {command:?}"))?, log })
    }

    /// Waits until all of these files are there.
    ///
    /// # Errors
    /// It ends, or takes too long.
    pub fn wait_for(&mut self, files: &[PathBuf]) -> Result<()> {
        let begin = Instant::now();
        while !files.iter().all(|file| file.exists()) {
            if let Some(status) = self.child.try_wait()? {
                bail!("a switch has ended ({status}): {}", self.last_words());
            }
            ensure!(begin.elapsed() < PATIENCE, "a switch does not start: {}", self.last_words());
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("; ")
    }

    /// Lets it stand still, while another has its turn.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it run.
    pub fn go_on(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal).context("a switch is gone")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It is not to be measured any more, and has nothing to save.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that runs on CPU 0.
pub fn on_first_cpu(program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", "0"]).arg(program);
    command
}

fn sockets(folder: &Path) -> [PathBuf; 2] {
    ["a.sock", "b.sock"].map(|name| folder.join(name))
}

/// A folder of its own.
fn own_folder(folder: &Path, name: &str) -> Result<PathBuf> {
    let folder = folder.join(name);
    fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// The card's process.
pub struct CardProcess {
    process: Process,
    folder: PathBuf,
}

impl CardProcess {
    /// Starts it.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(program: &Path, folder: &Path, policy: Policy) -> Result<Self> {
        let folder = own_folder(folder, "card")?;
        let machine = folder.join("card.toml");
        fs::write(&machine, policy.machine_file())?;
        let mut command = on_first_cpu(program);
        command.arg("--machine").arg(machine);
        let mut process = Process::start(command, folder.join("log"))?;
        process.wait_for(&sockets(&folder))?;
        Ok(Self { process, folder })
    }
}

impl BackEnd for CardProcess {
    fn sockets(&self) -> [PathBuf; 2] {
        sockets(&self.folder)
    }

    fn process(&self) -> &Process {
        &self.process
    }
}

/// DPDK's testpmd, which gives each frame of a port to the other one.
pub struct Testpmd {
    process: Process,
    folder: PathBuf,
}

impl Testpmd {
    /// Starts it.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(peers: &Peers, folder: &Path) -> Result<Self> {
        let folder = own_folder(folder, "testpmd")?;
        let mut command = Command::new(peers.program("dpdk-testpmd"));
        command.env(DPDK_FOLDER, &folder);
        command.args(Peers::plug_ins());
        // The main thread sleeps; the one that forwards has the CPU.
        command.args(["--lcores", "0@0,1@0", "--no-pci", "--no-huge", "-m", DPDK_MEMORY, "--no-telemetry"]);
        for (number, socket) in sockets(&folder).iter().enumerate() {
            command.arg("--vdev").arg(format!("net_vhost{number},iface={}", socket.display()));
        }
        command.args(["--", "--forward-mode=io", "--auto-start", "--nb-cores=1", "--total-num-mbufs=16384"]);
        let mut process = Process::start(command, folder.join("log"))?;
        process.wait_for(&sockets(&folder))?;
        Ok(Self { process, folder })
    }
}

impl BackEnd for Testpmd {
    fn sockets(&self) -> [PathBuf; 2] {
        sockets(&self.folder)
    }

    fn process(&self) -> &Process {
        &self.process
    }
}

/// Open vSwitch with its user-space data path.
pub struct OpenVswitch {
    process: Process,
    _database: Process,
    folder: PathBuf,
}

impl OpenVswitch {
    /// Starts it, with its database.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(peers: &Peers, folder: &Path, policy: Policy) -> Result<Self> {
        let folder = own_folder(folder, "ovs")?;
        let [database, socket] = ["conf.db", "db.sock"].map(|name| folder.join(name));
        let remote = format!("unix:{}", socket.display());
        let program = |name: &str| {
            let mut command = Command::new(peers.program(name));
            for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR", DPDK_FOLDER] {
                command.env(variable, &folder);
            }
            command
        };
        process::run(program("ovsdb-tool").arg("create").arg(&database).arg(&peers.schema))?;
        let mut server = program("ovsdb-server");
        server.arg(&database).arg(format!("--remote=punix:{}", socket.display()));
        let mut server = Process::start(server, folder.join("database.log"))?;
        server.wait_for(&[socket])?;
        let vsctl = |arguments: &[&str]| {
            process::run(program("ovs-vsctl").arg(format!("--db={remote}")).arg("--timeout=30").args(arguments))
        };
        let extra = format!(
            "other_config:dpdk-extra=\"{} --no-pci --no-huge --legacy-mem -m {DPDK_MEMORY} --no-telemetry\"",
            Peers::plug_ins().collect::<Vec<_>>().join(" ")
        );
        vsctl(&["--no-wait", "init"])?;
        vsctl(&["--no-wait", "set", "Open_vSwitch", ".", "other_config:dpdk-init=true", &extra])?;
        vsctl(&["--no-wait", "set", "Open_vSwitch", ".", "other_config:pmd-cpu-mask=1"])?;
        let mut switch = program("ovs-vswitchd-dpdk");
        switch.arg(&remote);
        let mut switch = Process::start(switch, folder.join("log"))?;
        vsctl(&["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"])
            .with_context(|| switch.last_words())?;
        for port in ["a.sock", "b.sock"] {
            vsctl(&["add-port", "br0", port, "--", "set", "Interface", port, "type=dpdkvhostuser"])?;
        }
        switch.wait_for(&sockets(&folder))?;
        let mut flows =
            program("ovs-ofctl").args(["--bundle", "replace-flows", "br0", "-"]).stdin(Stdio::piped()).spawn()?;
        flows.stdin.take().context("no pipe")?.write_all(policy.openflow().as_bytes())?;
        ensure!(flows.wait()?.success(), "Open vSwitch refuses its flows");
        Ok(Self { process: switch, _database: server, folder })
    }
}

impl BackEnd for OpenVswitch {
    fn sockets(&self) -> [PathBuf; 2] {
        sockets(&self.folder)
    }

    fn process(&self) -> &Process {
        &self.process
    }
}
