//! Disks at an NBD server.

use std::{
    io::{Read, Write},
    net::TcpListener,
    os::unix::net::UnixListener,
    thread,
    time::Duration,
};

use dragonfly_nbd_server::Server;
use dragonfly_virtqueue::RingFeatures;

use crate::{
    Setup,
    disks::{LAYOUTS, assert_hides_secret, assert_was_written, key_file, write_and_read, write_secret},
    front_end::*,
    process::program,
    restarts::{assert_rounds_were_written, begin, die_while_writing, finish, yield_for},
};

const DISK_BYTES: usize = 4 << 20;

/// A server in a folder of its own, and what a machine file says of a disk there.
struct Remote {
    folder: tempfile::TempDir,
    server: Server,
}

impl Remote {
    fn new(delay: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(&folder.path().join("nbd"), DISK_BYTES, delay).unwrap();
        Self { folder, server }
    }

    fn card(&self, more_keys: &str) -> Setup {
        Setup::of(&table(&self.folder.path().join("nbd"), more_keys))
    }
}

fn table(socket: &std::path::Path, more_keys: &str) -> String {
    let disk = "[[disk]]\nname = 'disk'\nsocket = 'disk.sock'\nqueues = 2";
    format!("{disk}\nnbd = 'nbd+unix:///?socket={}'\n{more_keys}", socket.display())
}

#[test]
fn what_a_guest_writes_is_at_the_server_and_read_back() {
    for layout in LAYOUTS {
        let remote = Remote::new(Duration::ZERO);
        let setup = remote.card("serial = 'S-7'");
        let mut guest = Guest::new(layout);
        let _front_end = FrontEnd::serve(&setup.socket(), &mut guest);
        write_and_read(&mut guest);
        assert_eq!(guest.request(0, READ, DISK_BYTES as u64 / 512, 512), 1, "beyond the end");
        setup.end();
        assert_was_written(&remote.server.contents());
    }
}

#[test]
fn an_encrypted_disk_is_read_by_the_guest_and_not_at_the_server() {
    let remote = Remote::new(Duration::ZERO);
    let setup = remote.card(&key_file(remote.folder.path()));
    write_secret(&setup);
    setup.end();
    assert_hides_secret(&remote.server.contents());
}

#[test]
fn each_request_is_done_once_however_often_the_server_hangs_up() {
    for layout in LAYOUTS {
        let remote = Remote::new(Duration::from_micros(100));
        let setup = remote.card("");
        let mut guest = Guest::new(layout);
        let _front_end = FrontEnd::serve(&setup.socket(), &mut guest);
        for round in 0..5u8 {
            let pending = begin(&mut guest, round);
            yield_for(round);
            remote.server.hang_up();
            finish(&mut guest, pending);
        }
        setup.end();
        assert_rounds_were_written(&remote.server.contents(), 5);
    }
}

#[test]
fn each_request_is_done_once_however_often_the_client_dies() {
    let remote = Remote::new(Duration::from_micros(100));
    let setup = remote.card("");
    die_while_writing(&setup, RingFeatures::empty(), 20);
    setup.end();
    assert_rounds_were_written(&remote.server.contents(), 20);
}

#[test]
fn requests_fail_when_the_server_stays_away_and_go_on_when_it_is_back() {
    let remote = Remote::new(Duration::ZERO);
    let setup = remote.card("timeout = 1");
    let mut guest = Guest::new(RingFeatures::empty());
    let _front_end = FrontEnd::serve(&setup.socket(), &mut guest);
    assert_eq!(guest.request(0, READ, 0, 512), 0);
    let socket = remote.folder.path().join("nbd");
    let aside = remote.folder.path().join("aside");
    std::fs::rename(&socket, &aside).unwrap();
    remote.server.hang_up();
    let begin = std::time::Instant::now();
    assert_eq!(guest.request(0, READ, 0, 512), 1);
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
    std::fs::rename(&aside, &socket).unwrap();
    assert_eq!(guest.request(0, READ, 0, 512), 0);
}

#[test]
fn a_disk_whose_server_breaks_the_protocol_fails_and_the_card_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("nbd");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        greet(&mut stream);
        let mut request = [0; 28];
        stream.read_exact(&mut request).unwrap();
        // A reply to something else.
        stream.write_all(&[&0x6744_6698_u32.to_be_bytes()[..], &[0; 4], &[0xaa; 8]].concat()).unwrap();
        // What comes is the end.
        stream.read(&mut request).unwrap()
    });
    let local = "[[disk]]\nname = 'other'\nsocket = 'other.sock'\nsize = '1MiB'\nqueues = 2";
    let setup = Setup::of(&table(&socket, local));
    let mut guest = Guest::new(RingFeatures::empty());
    let front_end = FrontEnd::serve(&setup.socket(), &mut guest);
    assert_eq!(guest.request(0, READ, 0, 512), 1);
    assert_eq!(guest.request(1, READ, 0, 512), 1);
    assert_eq!(server.join().unwrap(), 0);
    drop(front_end);
    let mut other = Guest::new(RingFeatures::empty());
    let _front_end = FrontEnd::serve(&setup.path("other.sock"), &mut other);
    assert_eq!(other.request(0, READ, 0, 512), 0);
}

#[test]
fn a_server_at_a_tcp_port_is_reached_and_reached_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        for sector in 1..=3_u8 {
            let mut stream = listener.accept().unwrap().0;
            greet(&mut stream);
            let mut request = [0; 28];
            stream.read_exact(&mut request).unwrap();
            let reply = [&0x6744_6698_u32.to_be_bytes()[..], &[0; 4], &request[8..16], &[sector; 512]].concat();
            // The first answer is cut short.
            stream.write_all(&reply[..reply.len() - if sector == 1 { 100 } else { 0 }]).unwrap();
        }
    });
    let disk = "[[disk]]\nname = 'disk'\nsocket = 'disk.sock'\nqueues = 2";
    let setup = Setup::of(&format!("{disk}\nnbd = 'nbd://localhost:{port}/'"));
    let mut guest = Guest::new(RingFeatures::empty());
    let _front_end = FrontEnd::serve(&setup.socket(), &mut guest);
    for sector in 2..=3 {
        assert_eq!(guest.request(0, READ, 0, 512), 0);
        assert_eq!(guest.data(0, 512), [sector; 512]);
    }
    server.join().unwrap();
}

/// Negotiation up to an export of 4 MiB.
fn greet(stream: &mut (impl Read + Write)) {
    begin_to_greet(stream);
    stream.write_all(&[info(), head(1, 0)].concat()).unwrap();
}

/// Negotiation until the server has been asked for its export.
fn begin_to_greet(stream: &mut (impl Read + Write)) {
    stream.write_all(b"NBDMAGICIHAVEOPT\x00\x03").unwrap();
    let mut hello = [0; 4 + 16 + 8];
    stream.read_exact(&mut hello).unwrap();
}

/// What a server says of that export.
fn info() -> Vec<u8> {
    [&head(3, 12)[..], &[0; 2], &(DISK_BYTES as u64).to_be_bytes(), &[0, 5]].concat()
}

/// What stands before so many bytes of a reply of this kind.
fn head(kind: u32, bytes: u32) -> Vec<u8> {
    let option = [&0x0003_e889_0455_65a9_u64.to_be_bytes()[..], &7_u32.to_be_bytes()].concat();
    [&option[..], &kind.to_be_bytes(), &bytes.to_be_bytes()].concat()
}

#[test]
fn a_server_that_negotiates_for_ever_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("nbd");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        begin_to_greet(&mut stream);
        let begin = std::time::Instant::now();
        while begin.elapsed() < Duration::from_secs(30) && stream.write_all(&info()).is_ok() {}
    });
    std::fs::write(folder.path().join("card.toml"), table(&socket, "timeout = 1")).unwrap();
    let output = program(folder.path()).args(["--check", "--machine", "card.toml"]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("negotiates without end"), "{error}");
    server.join().unwrap();
}

#[test]
fn a_server_that_cannot_be_used_is_named_before_anything_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let remote = Remote::new(Duration::ZERO);
    let there = remote.folder.path().join("nbd");
    for (text, message) in [
        (table(&folder.path().join("none"), ""), "disk disk: cannot connect to "),
        (table(&there, "snapshots = true"), ":6: `snapshots` is given for a disk at a server"),
        (table(&there, "timeout = 0"), ":6: `timeout` is 0: give a number from 1 to 3600"),
        (table(&there, "size = '1MiB'"), "is given beside"),
    ] {
        std::fs::write(folder.path().join("card.toml"), &text).unwrap();
        let output = program(folder.path()).args(["--check", "--machine", "card.toml"]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(message), "{error}");
    }
    std::fs::write(folder.path().join("card.toml"), table(&there, "")).unwrap();
    let output = program(folder.path()).args(["--check", "--machine", "card.toml"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
