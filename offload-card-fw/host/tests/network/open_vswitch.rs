//! Tunnels, with Open vSwitch's data path in user space at the other end.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use dragonfly_virtqueue::RingFeatures;

use crate::{
    guest::Guest,
    interfaces::{MAC, card, talk},
    namespace::{enter, ip},
    station::Station,
    tunnels::{INNER_MTU, tunnel},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// What the environment says.
fn variable(name: &str) -> PathBuf {
    env::var_os(name).unwrap_or_else(|| panic!("{name} must say where Open vSwitch is")).into()
}

/// Open vSwitch with its database.
struct OpenVswitch {
    folder: tempfile::TempDir,
    processes: Vec<Child>,
}

impl OpenVswitch {
    fn start() -> Self {
        let mut switch = Self { folder: tempfile::tempdir().unwrap(), processes: Vec::new() };
        let database = switch.path("conf.db");
        let mut tool = switch.command("ovsdb-tool");
        run(tool.arg("create").arg(database).arg(variable("DRAGONFLY_OVS_SCHEMA")));
        let server = switch.command("ovsdb-server");
        let (database, remote) = (switch.path("conf.db"), format!("--remote=p{}", switch.remote()));
        switch.spawn(server, &[database.to_str().unwrap(), &remote]);
        switch.wait_for(&switch.path("db.sock"));
        switch.vsctl("--no-wait init");
        let (daemon, remote) = (switch.command("ovs-vswitchd-dpdk"), switch.remote());
        switch.spawn(daemon, &[&remote]);
        switch
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn remote(&self) -> String {
        format!("unix:{}", self.path("db.sock").display())
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(variable("DRAGONFLY_OVS").join(name));
        for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(variable, self.folder.path());
        }
        command
    }

    fn spawn(&mut self, mut command: Command, words: &[&str]) {
        self.processes.push(command.args(words).stdin(Stdio::null()).spawn().unwrap());
    }

    fn vsctl(&self, words: &str) {
        let mut command = self.command("ovs-vsctl");
        run(command.arg(format!("--db={}", self.remote())).arg("--timeout=20").args(words.split_whitespace()));
    }

    fn wait_for(&self, path: &Path) {
        let begin = Instant::now();
        while !path.exists() {
            assert!(begin.elapsed() < PATIENCE, "{} does not appear", path.display());
            thread::yield_now();
        }
    }
}

impl Drop for OpenVswitch {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // It has nothing to save.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A guest talks with Linux, which is behind a tunnel of Open vSwitch's.
fn talk_through(protocol: &str, network: u32) {
    let setup = card("vlan = 100", &tunnel(protocol, network));
    ip("link set tap0 up");
    let switch = OpenVswitch::start();
    switch.vsctl("add-br outer -- set bridge outer datapath_type=netdev");
    switch.vsctl("add-port outer tap0");
    ip("address add 192.0.2.1/24 dev outer");
    ip("link set outer up");
    switch.vsctl("add-br inner -- set bridge inner datapath_type=netdev");
    switch.vsctl(&format!(
        "add-port inner tunnel -- set interface tunnel type={protocol} options:remote_ip=192.0.2.2 options:key={network}"
    ));
    ip(&format!("link set inner up mtu {INNER_MTU}"));
    ip("address add 10.4.0.1/24 dev inner");
    let station = Station::new(&setup, "n.sock", RingFeatures::empty(), INNER_MTU);
    talk(&mut Guest::new(station, MAC, [10, 4, 0, 2], INNER_MTU), [10, 4, 0, 1]);
}

#[test]
fn vxlan_reaches_open_vswitch() {
    if enter("open_vswitch::vxlan_reaches_open_vswitch") {
        talk_through("vxlan", 44);
    }
}

#[test]
fn geneve_reaches_open_vswitch() {
    if enter("open_vswitch::geneve_reaches_open_vswitch") {
        talk_through("geneve", 0xab_cdef);
    }
}
