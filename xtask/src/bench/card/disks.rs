//! Disks over vhost-user: the card's beside those of QEMU's storage daemon, if this machine has it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    LOAD_CPU,
    back_end::{Process, on_first_cpu},
    median,
};
use crate::{cli::BenchCard, process::first_lines};

const DAEMON: &str = "qemu-storage-daemon";

/// Bytes of each disk: the card's reads and the peer's come from the same file, which the page cache has.
const BYTES: u64 = 64 << 20;

/// Requests at a time for what one CPU does in a second, and for how long one takes.
const DEPTHS: [(u16, &str); 2] = [(32, "iops"), (1, "latency")];

/// Disks with the beginning of their figures' names.
struct Disks {
    process: Process,
    sockets: Vec<(&'static str, PathBuf)>,
}

/// Measures all disks, with everybody taking turns; gives figures by name.
///
/// # Errors
/// Somebody does not start, or fails a read.
pub fn measure(card: &Path, load: &Path, arguments: &BenchCard) -> Result<Vec<(String, f64)>> {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("image");
    // Not sparse, as a disk in use is not.
    fs::write(&image, vec![0xa5; usize::try_from(BYTES)?])?;
    let mut all = vec![start_card(card, folder.path())?];
    match find_daemon().filter(|_| !arguments.alone) {
        Some(daemon) => all.push(start_daemon(&daemon, folder.path(), &image)?),
        None => println!("without {DAEMON}, which is not on this machine or not wanted"),
    }
    all.iter().try_for_each(|disks| disks.process.pause())?;
    let mut figures = Vec::new();
    for (depth, what) in DEPTHS {
        let names: &[&str] = if what == "iops" { &["iops"] } else { &["p50_ns", "p99_ns", "p999_ns"] };
        let mut results: Vec<(String, Vec<f64>)> = Vec::new();
        for _ in 0..arguments.rounds {
            for disks in &all {
                disks.process.go_on()?;
                for (disk, socket) in &disks.sockets {
                    let answer = load_once(load, socket, depth, arguments.time).with_context(|| (*disk).to_string())?;
                    for name in names {
                        let value = answer[name].as_f64().context("the load gave no figure")?;
                        let name = format!("{disk}_{name}");
                        match results.iter_mut().find(|(known, _)| *known == name) {
                            Some((_, values)) => values.push(value),
                            None => results.push((name, vec![value])),
                        }
                    }
                }
                disks.process.pause()?;
            }
        }
        figures.extend(results.into_iter().map(|(name, values)| (name, median(values))));
    }
    Ok(figures)
}

fn start_card(program: &Path, folder: &Path) -> Result<Disks> {
    let machine = folder.join("disks.toml");
    let text = format!(
        "[[disk]]\nname = \"ram\"\nsocket = \"ram.sock\"\nsize = \"{}MiB\"\n\
         [[disk]]\nname = \"file\"\nsocket = \"file.sock\"\nimage = \"image\"\nread_only = true\n",
        BYTES >> 20
    );
    fs::write(&machine, text)?;
    let mut command = on_first_cpu(program);
    command.arg("--machine").arg(machine);
    let sockets = vec![("vhost_blk_ram", folder.join("ram.sock")), ("vhost_blk_file", folder.join("file.sock"))];
    start(command, folder.join("disks.log"), sockets)
}

fn start_daemon(program: &Path, folder: &Path, image: &Path) -> Result<Disks> {
    let mut command = on_first_cpu(program);
    let sockets =
        vec![("qemu_blk_null", folder.join("qemu-null.sock")), ("qemu_blk_file", folder.join("qemu-file.sock"))];
    command.arg("--blockdev").arg(format!("driver=null-co,node-name=qemu_blk_null,size={BYTES},read-zeroes=off"));
    command
        .arg("--blockdev")
        .arg(format!("driver=file,node-name=qemu_blk_file,read-only=on,locking=off,filename={}", image.display()));
    for (node, socket) in &sockets {
        command.arg("--export").arg(format!(
            "type=vhost-user-blk,id=export-{node},node-name={node},addr.type=unix,addr.path={}",
            socket.display()
        ));
    }
    start(command, folder.join("qemu.log"), sockets)
}

fn start(command: Command, log: PathBuf, sockets: Vec<(&'static str, PathBuf)>) -> Result<Disks> {
    let mut process = Process::start(command, log)?;
    let files: Vec<_> = sockets.iter().map(|(_, socket)| socket.clone()).collect();
    process.wait_for(&files)?;
    Ok(Disks { process, sockets })
}

fn load_once(load: &Path, socket: &Path, depth: u16, time: u32) -> Result<Value> {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", LOAD_CPU]).arg(load).arg(socket);
    command.args(["--depth", &depth.to_string(), "--blocks", &(BYTES >> 12).to_string()]);
    command.args(["--time", &time.to_string()]);
    let output = command.stdin(Stdio::null()).output().context("cannot start taskset (util-linux)")?;
    ensure!(output.status.success(), "the load has failed: {}", first_lines(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn find_daemon() -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(DAEMON)).find(|path| path.is_file())
}
