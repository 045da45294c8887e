//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use log::LevelFilter;

use crate::tool::parse_size;

/// Serves disks to virtual machines over vhost-user: the offload card's firmware as a process on Linux.
#[derive(Debug, Parser)]
#[command(name = "offload-card", version, max_term_width = 120, after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Cli {
    /// What to do in place of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The devices to serve, in TOML.
    #[arg(long, value_name = "FILE.toml", required = true)]
    pub machine: Option<PathBuf>,
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

/// What is done to disks beside serving them.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Volumes of a pool: a disk that is many guests' disks.
    Volume(Volume),
    /// Snapshots of a disk, also while a guest uses it.
    ///
    /// While a process serves the disk it is asked, by the socket that the machine file names as `control`; a snapshot is then
    /// what the disk would hold after a power failure.
    Snapshot(Snapshot),
}

/// Which pool, and what to do.
#[derive(Args, Debug)]
pub struct Volume {
    /// The machine file that describes the pool, of the card's process or of the hypervisor.
    #[arg(long, value_name = "FILE.toml")]
    pub machine: PathBuf,
    /// The pool's name there.
    pub pool: String,
    /// What to do.
    #[command(subcommand)]
    pub action: VolumeAction,
}

/// What can be done to a pool. No guest may use it meanwhile.
#[derive(Debug, Subcommand)]
pub enum VolumeAction {
    /// Makes an empty pool of an image, whose contents are lost.
    Format {
        /// Also if it has volumes.
        #[arg(long)]
        force: bool,
    },
    /// Lists the volumes.
    List,
    /// Makes a volume of zeros.
    Create {
        /// Its name, at most 32 bytes.
        name: String,
        /// Its size, such as 10GiB.
        #[arg(value_parser = parse_size)]
        size: u64,
    },
    /// Deletes a volume.
    Delete {
        /// Its name.
        name: String,
    },
}

/// Which disk, and what to do.
#[derive(Args, Debug)]
pub struct Snapshot {
    /// The machine file that describes the disk, of the card's process or of the hypervisor.
    #[arg(long, value_name = "FILE.toml")]
    pub machine: PathBuf,
    /// The disk's name there.
    pub disk: String,
    /// What to do.
    #[command(subcommand)]
    pub action: SnapshotAction,
}

/// What can be done to a disk with snapshots.
#[derive(Debug, Subcommand)]
pub enum SnapshotAction {
    /// Makes a disk with snapshots in the image or volume, whose contents are lost.
    Format {
        /// The disk's size, such as 10GiB; it may be more than the image has. The size of `--from`, if not given.
        #[arg(long, value_parser = parse_size)]
        size: Option<u64>,
        /// An image whose contents the disk begins with.
        #[arg(long, value_name = "IMAGE")]
        from: Option<PathBuf>,
        /// Also if there is a disk with snapshots.
        #[arg(long)]
        force: bool,
    },
    /// Lists the snapshots, oldest first.
    List,
    /// Keeps the disk as it is now.
    Create {
        /// The snapshot's name, at most 32 bytes.
        name: String,
    },
    /// Deletes a snapshot, and gives back the space that only it had.
    Delete {
        /// The snapshot's name.
        name: String,
    },
    /// Copies the disk to a new image, while no guest uses it.
    Export {
        /// As it was in this snapshot.
        #[arg(long, value_name = "SNAPSHOT")]
        name: Option<String>,
        /// The image to make.
        to: PathBuf,
    },
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

A disk with snapshots has `snapshots = true` in its table:

  offload-card snapshot --machine card.toml root format --size 10GiB --from debian-raw.img
  offload-card snapshot --machine card.toml root create before-upgrade

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
    fn a_command_needs_a_disk_and_no_other_options() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        let cli = parse("offload-card snapshot --machine card.toml root create a").unwrap();
        let Some(Command::Snapshot(Snapshot { disk, action: SnapshotAction::Create { name }, .. })) = cli.command
        else {
            panic!("another command")
        };
        assert_eq!((disk.as_str(), name.as_str()), ("root", "a"));
        assert!(parse("offload-card volume --machine card.toml pool create a 1GiB").is_ok());
        for wrong in
            ["snapshot root list", "--machine a snapshot --machine b root list", "volume --machine a pool create a 1"]
        {
            assert!(parse(&format!("offload-card {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_machine_file_is_all_that_must_be_given() {
        let cli = Cli::try_parse_from(["offload-card", "--machine", "card.toml"]).unwrap();
        assert_eq!((cli.check, cli.log, cli.poll), (false, LogLevel::Info, 50));
        assert!(Cli::try_parse_from(["offload-card"]).is_err());
    }
}
