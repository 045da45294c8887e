//! Tests of the card's domain on the real kernel, without guests; `tests/bundles/card.toml` says what there is.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::vec::Vec;

use dragonfly_card_gate::{Answer, Devices, IN_FLIGHT_BYTES_PER_QUEUE};
use dragonfly_rt::abi::Status;
use dragonfly_rt::sys::{Commit, Gate, Memory, Object};
use dragonfly_test_domains::card::{Buffer, Driver, Session, Vmm, start};
use dragonfly_test_domains::check::{Failure, Outcome, equal, refused, that};
use dragonfly_test_domains::list::{self, Test};
use dragonfly_vhost_user::{FrontEndError, MAX_MESSAGE, Transport};

dragonfly_rt::main!(run);

/// Badges of two VMMs.
const ONE: u64 = 11;
const OTHER: u64 = 12;

/// Devices of machine 0: a disk, then a network device. Machine 1 has a network device only.
const DISK: u32 = 0;
const NET: u32 = 1;
const OTHER_NET: u32 = 0;

const SECTOR: usize = 512;

/// When something that should happen soon is late, in nanoseconds.
const LATE_NS: u64 = 10_000_000_000;

const TESTS: [Test; 6] = [
    ("card/a machine belongs to the VMM that attaches first, and numbers of others are refused", attach),
    ("card/a disk gives back what was written to it, and says so by an interrupt", disk),
    ("card/a frame goes from one guest to another", network),
    ("card/a message that breaks the protocol ends its session, and the next begins anew", broken_message),
    ("card/a guest whose memory vanishes takes nobody else along", vanished_memory),
    ("card/who uses a card that dies is told so, and its successor does what was under way", successor),
];

fn run() {
    list::run(&TESTS);
}

/// A VMM that must be let in.
fn vmm(gate: Gate, badge: u64, machine: u32) -> Outcome<Vmm> {
    Vmm::attach(gate, badge, machine)?.ok_or_else(|| Failure::new("the card refuses"))
}

fn attach() -> Outcome {
    let gate = Gate::create()?;
    let card = start(*gate)?;
    let one = vmm(*gate, ONE, 0)?;
    equal("devices", one.devices, Devices { disks: 1, nets: 1, ..Devices::default() })?;
    that(Vmm::attach(*gate, OTHER, 0)?.is_none(), "another VMM's machine")?;
    that(Vmm::attach(*gate, ONE, 1)?.is_none(), "a second machine")?;
    that(Vmm::attach(*gate, OTHER, 7)?.is_none(), "a machine that there is not")?;
    that(Vmm::attach(*gate, ONE, 0)?.is_some(), "the own machine again")?;
    let mut none = one.front_end(2);
    equal("no such device", none.set_owner().err().and_then(reason), Some(Answer::Refused))?;
    Ok(card.destroy()?)
}

/// What the card answered to a message that it did not do.
fn reason(error: FrontEndError<Result<Answer, Status>>) -> Option<Answer> {
    match error {
        FrontEndError::Transport { error, .. } => error.ok(),
        _ => None,
    }
}

const READ: u8 = 0;
const WRITE: u8 = 1;

/// The header of a request to a disk (virtio 1.2 5.2.6).
fn header(kind: u8, sector: u8) -> [u8; 16] {
    let mut header = [0; 16];
    header[0] = kind;
    header[8] = sector;
    header
}

/// Writes a sector and reads it again.
fn write_and_read(vmm: &Vmm, session: &Session, driver: &mut Driver<'_>, sector: u8, fill: u8) -> Outcome {
    let bytes = [fill; SECTOR];
    driver.submit(&[Buffer::Out(&header(WRITE, sector)), Buffer::Out(&bytes), Buffer::In(1)])?;
    driver.submit(&[Buffer::Out(&header(READ, sector)), Buffer::In(SECTOR), Buffer::In(1)])?;
    vmm.kick.signal(1)?;
    let wrote = session.wait_used(driver)?;
    equal("status of the write", driver.contents(wrote, 2, 1)?, [0].to_vec())?;
    let read = session.wait_used(driver)?;
    equal("status of the read", driver.contents(read, 2, 1)?, [0].to_vec())?;
    that(driver.contents(read, 1, SECTOR)? == bytes, "what was read is not what was written")
}

fn disk() -> Outcome {
    let gate = Gate::create()?;
    let card = start(*gate)?;
    let vmm = vmm(*gate, ONE, 0)?;
    let session = Session::new()?;
    let mut front = vmm.front_end(DISK);
    session.begin(&mut front, None)?;
    let mut capacity = [0; 8];
    front.read_config(0, &mut capacity)?;
    equal("sectors", u64::from_le_bytes(capacity), 8 << 11)?;
    let mut driver = Driver::new(&session.ram, 0);
    session.start_ring(&vmm, &mut front, 0, &driver)?;
    for round in 1..20 {
        write_and_read(&vmm, &session, &mut driver, round, round)?;
    }
    equal("where the ring stopped", front.stop_ring(0)?, 38)?;
    Ok(card.destroy()?)
}

/// Bytes before each frame (virtio 1.2 5.1.6).
const NET_HEADER: usize = 12;

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;

fn network() -> Outcome {
    let gate = Gate::create()?;
    let card = start(*gate)?;
    let (one, other) = (vmm(*gate, ONE, 0)?, vmm(*gate, OTHER, 1)?);
    let (from, to) = (Session::new()?, Session::new()?);
    let mut front = one.front_end(NET);
    from.begin(&mut front, None)?;
    let mut transmit = Driver::new(&from.ram, TRANSMIT);
    from.start_ring(&one, &mut front, TRANSMIT, &transmit)?;
    let mut front = other.front_end(OTHER_NET);
    to.begin(&mut front, None)?;
    let mut receive = Driver::new(&to.ram, RECEIVE);
    to.start_ring(&other, &mut front, RECEIVE, &receive)?;

    let frame = frame([0x52, 0x54, 0, 0, 0, 2], [0x52, 0x54, 0, 0, 0, 1]);
    receive.submit(&[Buffer::In(NET_HEADER + frame.len())])?;
    other.kick.signal(1)?;
    transmit.submit(&[Buffer::Out(&[[0; NET_HEADER].as_slice(), &frame].concat())])?;
    one.kick.signal(1)?;
    from.wait_used(&mut transmit)?;
    let head = to.wait_used(&mut receive)?;
    let received = receive.contents(head, 0, NET_HEADER + frame.len())?;
    that(received.ends_with(&frame), "another frame than was sent")?;
    Ok(card.destroy()?)
}

/// A frame of a protocol for experiments (IEEE 802, "local experimental Ethertype").
fn frame(to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
    [&to[..], &from, &[0x88, 0xb5], &[0xa5; 100]].concat()
}

fn broken_message() -> Outcome {
    let gate = Gate::create()?;
    let card = start(*gate)?;
    let vmm = vmm(*gate, ONE, 0)?;
    let session = Session::new()?;
    let mut front = vmm.front_end(DISK);
    session.begin(&mut front, None)?;
    for message in [&b""[..], b"short", &[0xff; 20], &[0; MAX_MESSAGE]] {
        let answer = front.transport().exchange(message, &[], &mut [0; MAX_MESSAGE]);
        equal("an answer to no message", answer, Err(Ok(Answer::Closed)))?;
    }
    // The session is gone: what belongs to an extension is not known any more.
    equal("the next message", front.read_config(0, &mut [0; 8]).err().and_then(reason), Some(Answer::Closed))?;
    session.begin(&mut front, None)?;
    let mut driver = Driver::new(&session.ram, 0);
    session.start_ring(&vmm, &mut front, 0, &driver)?;
    write_and_read(&vmm, &session, &mut driver, 1, 1)?;
    Ok(card.destroy()?)
}

fn vanished_memory() -> Outcome {
    let gate = Gate::create()?;
    let card = start(*gate)?;
    let (one, other) = (vmm(*gate, ONE, 0)?, vmm(*gate, OTHER, 1)?);
    let (session, neighbour) = (Session::new()?, Session::new()?);
    let mut front = one.front_end(DISK);
    session.begin(&mut front, None)?;
    let driver = Driver::new(&session.ram, 0);
    session.start_ring(&one, &mut front, 0, &driver)?;
    let mut other_front = other.front_end(OTHER_NET);
    neighbour.begin(&mut other_front, None)?;
    let mut transmit = Driver::new(&neighbour.ram, TRANSMIT);
    neighbour.start_ring(&other, &mut other_front, TRANSMIT, &transmit)?;

    session.memory.revoke()?;
    one.kick.signal(1)?;
    for _ in 0..3 {
        let frame = frame([0xff; 6], [0x52, 0x54, 0, 0, 0, 2]);
        transmit.submit(&[Buffer::Out(&[[0; NET_HEADER].as_slice(), &frame].concat())])?;
        other.kick.signal(1)?;
        neighbour.wait_used(&mut transmit)?;
    }
    let over = front.read_config(0, &mut [0; 8]).err().and_then(reason);
    equal("a message of the session that is over", over, Some(Answer::Closed))?;

    let next = vmm(*gate, ONE, 0)?;
    let session = Session::new()?;
    session.begin(&mut front, None)?;
    let mut driver = Driver::new(&session.ram, 0);
    session.start_ring(&next, &mut front, 0, &driver)?;
    write_and_read(&next, &session, &mut driver, 1, 1)?;
    Ok(card.destroy()?)
}

fn successor() -> Outcome {
    let gate = Gate::create()?;
    let card = start(*gate)?;
    let vmm_before = vmm(*gate, ONE, 0)?;
    let session = Session::new()?;
    let in_flight = Memory::create(IN_FLIGHT_BYTES_PER_QUEUE, Commit::OnDemand)?;
    let mut driver = Driver::new(&session.ram, 0);
    let mut front = vmm_before.front_end(DISK);
    session.begin(&mut front, Some(*in_flight))?;
    session.start_ring(&vmm_before, &mut front, 0, &driver)?;
    write_and_read(&vmm_before, &session, &mut driver, 1, 1)?;
    refused("a card that lives", vmm_before.life.wait_timed(0), Status::WouldBlock)?;

    card.destroy()?;
    refused("a card that died", vmm_before.life.wait_timed(LATE_NS), Status::BadHandle)?;
    driver.submit(&[Buffer::Out(&header(WRITE, 2)), Buffer::Out(&[7; SECTOR]), Buffer::In(1)])?;

    let card = start(*gate)?;
    let vmm = vmm(*gate, ONE, 0)?;
    let mut front = vmm.front_end(DISK);
    session.begin(&mut front, Some(*in_flight))?;
    session.start_ring(&vmm, &mut front, 0, &driver)?;
    let wrote = session.wait_used(&mut driver)?;
    equal("status of the write", driver.contents(wrote, 2, 1)?, [0].to_vec())?;
    equal("more than was under way", driver.take_used()?, None)?;
    write_and_read(&vmm, &session, &mut driver, 3, 3)?;
    Ok(card.destroy()?)
}
