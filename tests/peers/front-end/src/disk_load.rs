//! `disk-load`: reads from a vhost-user disk at random, and says in JSON how many reads were done and how long they took.

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use clap::Parser;
use front_end::{
    blk::{Reads, run},
    percentiles::Percentiles,
};
use serde_json::json;

/// A guest that reads blocks of 4 KiB from a disk.
#[derive(Debug, Parser)]
struct Arguments {
    /// Socket of the disk.
    socket: PathBuf,
    /// Requests at a time.
    #[arg(long, default_value_t = 32)]
    depth: u16,
    /// Blocks of 4 KiB from which those are chosen that are read.
    #[arg(long, default_value_t = 16384)]
    blocks: u64,
    /// Milliseconds before the counting begins.
    #[arg(long, default_value_t = 200)]
    warm_up: u64,
    /// Milliseconds of counting.
    #[arg(long, default_value_t = 1000)]
    time: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let reads = Reads {
        depth: arguments.depth,
        blocks: arguments.blocks,
        warm_up: Duration::from_millis(arguments.warm_up),
        time: Duration::from_millis(arguments.time),
    };
    let outcome = run(&arguments.socket, &reads)?;
    let Percentiles { p50_ns, p99_ns, p999_ns } = outcome.latency;
    println!("{}", json!({ "iops": outcome.iops, "p50_ns": p50_ns, "p99_ns": p99_ns, "p999_ns": p999_ns }));
    Ok(())
}
