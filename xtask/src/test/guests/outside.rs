//! What guests reach through their uplink on this machine.

use std::{
    net::Ipv4Addr,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};

use super::echo::Echo;
use crate::{run::free_port, tools::Tools};

/// The running servers; they end with this.
#[derive(Debug)]
pub struct Outside {
    echo: Echo,
    iperf: Child,
    iperf_port: u16,
}

/// Where the servers listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// What is sent comes back.
    pub echo: u16,
    /// iperf3.
    pub iperf: u16,
}

impl Outside {
    /// Starts them, for this machine's own programs only; QEMU's user-mode network is one. iperf3 is the one that guests have.
    ///
    /// # Errors
    /// Fails when one cannot be had or started, or there is no port.
    pub fn start(tools: &Tools) -> Result<Self> {
        let root = tools.debian_system()?.root;
        let (libraries, iperf_port) = (root.join("lib/x86_64-linux-gnu"), free_port()?);
        let mut iperf = Command::new(libraries.join("ld-linux-x86-64.so.2"));
        iperf.arg("--library-path").arg(format!(
            "{}:{}",
            libraries.display(),
            root.join("usr/lib/x86_64-linux-gnu").display()
        ));
        iperf.arg(root.join("usr/bin/iperf3")).args(["--server", "--bind", &Ipv4Addr::LOCALHOST.to_string()]);
        iperf.args(["--port", &iperf_port.to_string()]).stdin(Stdio::null()).stdout(Stdio::null());
        let echo = Echo::start()?;
        Ok(Self { echo, iperf: iperf.spawn().context("cannot start iperf3")?, iperf_port })
    }

    /// Where they listen.
    #[must_use]
    pub fn ports(&self) -> Ports {
        Ports { echo: self.echo.port(), iperf: self.iperf_port }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.iperf.kill();
        let _ = self.iperf.wait();
    }
}
