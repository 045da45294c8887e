//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use log::LevelFilter;

/// Serves disks to virtual machines over vhost-user: the offload card's firmware as a process on Linux.
#[derive(Debug, Parser)]
#[command(name = "offload-card", version, max_term_width = 120, after_help = EXAMPLES)]
pub struct Cli {
    /// The devices to serve, in TOML.
    #[arg(long, value_name = "FILE.toml")]
    pub machine: PathBuf,
    /// Only check the machine file, and open what it names.
    #[arg(long)]
    pub check: bool,
    /// Severity from which on log lines go to standard error.
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t = LogLevel::Info)]
    pub log: LogLevel,
    /// How long to poll a device's rings after its last request before sleeping, in microseconds.
    ///
    /// More means less delay for the next request, and a busier CPU.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 50, value_parser = clap::value_parser!(u64).range(..=10_000_000))]
    pub poll: u64,
}

const EXAMPLES: &str = "\
A machine file has a table for each device; paths in it begin at its own folder. docs/card.md explains all keys.

  [[disk]]
  name = \"root\"
  socket = \"root.sock\"
  image = \"debian.img\"        # or size = \"1GiB\" for a disk in memory

The guest's memory must be shared with this process. With QEMU:

  truncate -s 1G debian.img
  offload-card --machine card.toml &
  qemu-system-x86_64 -M q35 -m 1G \\
    -object memory-backend-memfd,id=ram,size=1G,share=on -machine memory-backend=ram \\
    -chardev socket,id=root,path=root.sock -device vhost-user-blk-pci,chardev=root …

SIGINT and SIGTERM complete what was begun, remove the sockets and end with status 0. SIGHUP reads the [[rule]] tables
anew; the log tells when they are in force.

Exit status:
  0  told to end, or the machine file is in order (--check)
  1  the kernel refused something
  2  bad arguments or machine file, or something that it names cannot be used";

/// Severity from which on log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// What ends the process.
    Error,
    /// Clients and guests that break rules, and disks that fail.
    Warn,
    /// Clients that come and go.
    Info,
    /// Each request of clients.
    Debug,
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_machine_file_is_all_that_must_be_given() {
        let cli = Cli::try_parse_from(["offload-card", "--machine", "card.toml"]).unwrap();
        assert_eq!((cli.check, cli.log, cli.poll), (false, LogLevel::Info, 50));
        assert!(Cli::try_parse_from(["offload-card"]).is_err());
    }
}
