//! `card-load`: loads a switch's two ports over vhost-user, and says in JSON how many frames went through.

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use clap::Parser;
use front_end::{
    net::{Traffic, one_at_a_time, run},
    percentiles::Percentiles,
};
use serde_json::json;

/// Two guests that send each other frames through a switch with vhost-user ports.
#[derive(Debug, Parser)]
struct Arguments {
    /// Socket of the first guest's port.
    first: PathBuf,
    /// Socket of the second guest's port.
    second: PathBuf,
    /// Bytes of a frame, its checksum included.
    #[arg(long, default_value_t = 64)]
    frame: usize,
    /// Flows in each direction.
    #[arg(long, default_value_t = 1)]
    flows: u32,
    /// Use packed rings.
    #[arg(long)]
    packed: bool,
    /// Send one frame at a time, and say how long they take.
    #[arg(long)]
    latency: bool,
    /// Milliseconds before the counting begins.
    #[arg(long, default_value_t = 300)]
    warm_up: u64,
    /// Milliseconds of counting.
    #[arg(long, default_value_t = 1000)]
    time: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let traffic = Traffic {
        sockets: [arguments.first, arguments.second],
        frame: arguments.frame,
        flows: arguments.flows,
        is_packed: arguments.packed,
        warm_up: Duration::from_millis(arguments.warm_up),
        time: Duration::from_millis(arguments.time),
    };
    if arguments.latency {
        let Percentiles { p50_ns, p99_ns, p999_ns } = one_at_a_time(&traffic)?;
        println!("{}", json!({ "p50_ns": p50_ns, "p99_ns": p99_ns, "p999_ns": p999_ns }));
        return Ok(());
    }
    let outcome = run(&traffic)?;
    println!(
        "{}",
        json!({
            "sent": outcome.sent,
            "received": outcome.received,
            "seconds": outcome.seconds,
            "mpps": outcome.received as f64 / outcome.seconds / 1e6,
        })
    );
    Ok(())
}
