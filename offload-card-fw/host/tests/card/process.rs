//! The program: its exit status, and how it ends.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use dragonfly_virtqueue::RingFeatures;
use rustix::process::{Pid, Signal, kill_process};

use crate::front_end::*;

pub fn program(folder: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_offload-card"));
    command.current_dir(folder).env_remove("JOURNAL_STREAM").stderr(Stdio::piped());
    command
}

#[test]
fn told_to_end_it_removes_its_sockets_and_says_that_all_is_well() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("card.toml"), "[[disk]]\nname = 'd'\nsocket = 'd.sock'\nsize = '1MiB'\nqueues = 2")
        .unwrap();
    // A socket that a process left behind is no obstacle.
    drop(std::os::unix::net::UnixListener::bind(folder.path().join("d.sock")).unwrap());
    let mut child = program(folder.path()).args(["--machine", "card.toml"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().ends_with("info  d: listening at d.sock"));
    let mut guest = Guest::new(RingFeatures::empty());
    let _front_end = FrontEnd::serve(&folder.path().join("d.sock"), &mut guest);
    assert_eq!(guest.request(0, READ, 0, 512), 0);
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(!folder.path().join("d.sock").exists());
}

#[test]
fn what_cannot_be_used_is_named_and_the_status_is_2() {
    let disk = "[[disk]]\nname = 'd'\nsocket = 'd.sock'\n";
    for (text, message) in [
        (format!("{disk}imge = 'x'"), "card.toml:4: `imge` is not a known key: did you mean `image`?"),
        (format!("{disk}image = 'none.img'"), "disk d: cannot use none.img: No such file or directory"),
        (
            format!("{disk}size = '1MiB'\nkey_file = 'card.toml'"),
            "cannot use the key file card.toml: it holds no key: make one with",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("card.toml"), &text).unwrap();
        let output = program(folder.path()).args(["--check", "--machine", "card.toml"]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(message), "{error}");
    }
}
