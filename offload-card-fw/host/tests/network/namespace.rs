//! Network namespaces, and Linux's network in them.

use std::{
    env,
    net::TcpListener,
    process::Command,
    thread::{self, JoinHandle},
};

use crate::guest;

/// In the environment of a test that has its namespace.
const INSIDE: &str = "DRAGONFLY_NAMESPACE";

/// Runs the test of this name, which calls this, again in a network namespace of its own. Whether this is that run.
pub fn enter(test: &str) -> bool {
    if env::var_os(INSIDE).is_some() {
        ip("link set lo up");
        return true;
    }
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "--kill-child", "--fork", "--"]);
    command.arg(env::current_exe().unwrap()).args([test, "--exact", "--nocapture"]).env(INSIDE, "1");
    let output = command.output().expect("`unshare` of util-linux must be there");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "in a network namespace (user namespaces must be allowed): {text}");
    assert!(text.contains("1 passed"), "there is no such test: {text}");
    false
}

/// Runs `ip` with these words.
pub fn ip(words: &str) {
    let output = Command::new("ip").args(words.split_whitespace()).output().expect("`ip` of iproute2 must be there");
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A server at a port of all addresses, which takes the bytes of one transfer, checks them, and sends as many.
pub fn serve(port: u16) -> JoinHandle<()> {
    let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
    thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().unwrap();
        let expected = guest::transfer();
        let mut bytes = vec![0; expected.len()];
        stream.read_exact(&mut bytes).unwrap();
        assert!(bytes == expected, "other bytes came than were sent");
        stream.write_all(&expected).unwrap();
    })
}
