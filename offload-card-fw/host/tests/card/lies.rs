//! Clients and guests that break the rules.

use std::os::fd::AsFd;

use dragonfly_vhost_user::{
    Header, Region, Request,
    wire::{VringAddress, VringState},
};
use dragonfly_virtqueue::{
    GuestAddress, GuestMemory, RingFeatures,
    host::{Buffer, config_at},
};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use crate::{Setup, front_end::*};

type Lie = (&'static str, fn(&mut FrontEnd, &Guest));

const LIES: &[Lie] = &[
    ("bytes that are no message", |front_end, _| front_end.send(&[0xff; 64], &[])),
    ("half of a message", |front_end, _| {
        let header = Header { request: Request::SetVringNum, needs_reply: false, payload_len: 8 };
        front_end.send(&header.to_bytes()[..7], &[]);
        front_end.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }),
    ("more descriptors than any message has", |front_end, guest| {
        let header = Header { request: Request::SetOwner, needs_reply: false, payload_len: 0 };
        front_end.send(&header.to_bytes(), &[guest.file.as_fd(); 9]);
    }),
    ("a file shorter than its region", |front_end, guest| {
        front_end.set_memory(&[Region { size: RAM_BYTES + 1, ..region() }], &[guest.file.as_fd()]);
    }),
    ("a region that ends beyond 64 bits of its file", |front_end, guest| {
        front_end.set_memory(&[Region { mmap_offset: u64::MAX - 1, ..region() }], &[guest.file.as_fd()]);
    }),
    ("memory that is none", |front_end, guest| {
        front_end.set_memory(&[region()], &[guest.rings[0].kick.as_fd()]);
    }),
    ("a kick that nobody can wait for", |front_end, guest| {
        front_end.tell(Request::SetVringKick, &0u64, &[guest.file.as_fd()]);
    }),
    ("a ring outside of the guest's memory", |front_end, guest| {
        front_end.negotiate(guest.features);
        front_end.set_memory(&[region()], &[guest.file.as_fd()]);
        let at = USER_BASE + RAM_BYTES;
        let place = VringAddress { index: 0, flags: 0, descriptor: at, used: at, available: at, log: 0 };
        front_end.tell(Request::SetVringNum, &VringState { index: 0, num: 8 }, &[]);
        front_end.tell(Request::SetVringAddr, &place, &[]);
        front_end.tell(Request::SetVringEnable, &VringState { index: 0, num: 1 }, &[]);
        front_end.tell(Request::SetVringKick, &0u64, &[guest.rings[0].kick.as_fd()]);
    }),
];

#[test]
fn a_client_that_lies_is_closed_and_the_next_is_served() {
    let setup = Setup::new("");
    for (name, lie) in LIES {
        let mut guest = Guest::new(RingFeatures::empty());
        let mut front_end = FrontEnd::connect(&setup.socket());
        lie(&mut front_end, &guest);
        front_end.expect_closed(name);
        let _front_end = FrontEnd::serve(&setup.socket(), &mut guest);
        assert_eq!(guest.request(0, READ, 0, 512), 0, "after {name}");
    }
}

#[test]
fn a_client_that_does_not_read_answers_is_closed() {
    let setup = Setup::new("");
    let mut front_end = FrontEnd::connect(&setup.socket());
    let header = Header { request: Request::GetFeatures, needs_reply: false, payload_len: 0 };
    // Blocking, so that they are all delivered or the connection has been closed.
    for _ in 0..20_000 {
        front_end.send(&header.to_bytes(), &[]);
    }
    let mut guest = Guest::new(RingFeatures::empty());
    let _served = FrontEnd::serve(&setup.socket(), &mut guest);
    assert_eq!(guest.request(0, READ, 0, 512), 0);
}

#[test]
fn a_broken_ring_is_reported_and_the_other_goes_on() {
    let setup = Setup::new("");
    let mut guest = Guest::new(RingFeatures::empty());
    let _front_end = FrontEnd::serve(&setup.socket(), &mut guest);
    // A readable buffer behind a writable one.
    let buffers = [Buffer::writable(0x1_0000, 1), Buffer::readable(0x1_0010, 16)];
    guest.rings[0].driver.add(&guest.ram, &buffers, 2, None).unwrap();
    guest.publish(0);
    wait(&guest.rings[0].err, "report of a broken ring");
    assert_eq!(guest.request(1, READ, 0, 512), 0);
}

#[test]
fn requests_outside_of_the_guests_memory_fail_and_harm_nothing() {
    let setup = Setup::new("");
    let mut guest = Guest::new(RingFeatures::empty());
    let _front_end = FrontEnd::serve(&setup.socket(), &mut guest);
    guest.add(0, 0, READ, 0, 512).unwrap();
    // Where the data go, in the second descriptor.
    let descriptor = config_at(0x1000, QUEUE_SIZE, guest.features).addresses.descriptors.0 + 16;
    guest.ram.write(GuestAddress(descriptor), &RAM_BYTES.to_le_bytes()).unwrap();
    guest.publish(0);
    guest.wait_used(0);
    assert_eq!(guest.status(0), 1);
    assert_eq!(guest.request(0, READ, 0, 512), 0);
}

#[test]
fn memory_from_the_middle_of_a_file_is_mapped_there() {
    let setup = Setup::new("");
    let mut guest = Guest::new(RingFeatures::empty());
    let file = memfd_create("larger", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, 3 * RAM_BYTES).unwrap();
    let moved = Region { mmap_offset: RAM_BYTES, ..region() };
    let mut ram = offload_card::shared_memory::GuestRam::default();
    ram.add(&moved, &file).unwrap();
    guest.ram = ram;
    guest.file = file;
    let mut front_end = FrontEnd::connect(&setup.socket());
    front_end.negotiate(guest.features);
    front_end.set_memory(&[moved], &[guest.file.as_fd()]);
    front_end.start_ring(0, &guest);
    assert_eq!(guest.request(0, READ, 0, 512), 0);
}
