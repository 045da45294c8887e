//! Programs of the host at the other ends of a guest's ports.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use dragonfly_virtqueue::{GuestAddress, GuestMemory, RingFeatures, host::Buffer};

use crate::{Setup, front_end::*};

const MACHINE: &str = "[[console]]\nname = 'c'\nsocket = 'c.sock'\nports = ['log']\nhost_socket = 'port'\n";
/// Queues of the first port (virtio 1.2 5.3.2).
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const DATA: u64 = REQUESTS_AT;

/// Sends this from the guest.
fn send(guest: &mut Guest, bytes: &[u8]) {
    guest.ram.write(GuestAddress(DATA), bytes).unwrap();
    guest.rings[TRANSMIT].driver.add(&guest.ram, &[Buffer::readable(DATA, bytes.len() as u32)], 1, None).unwrap();
    guest.publish(TRANSMIT);
    guest.wait_used(TRANSMIT);
}

/// What the guest receives next.
fn receive(guest: &mut Guest) -> Vec<u8> {
    let at = DATA + REQUEST_BYTES;
    guest.rings[RECEIVE].driver.add(&guest.ram, &[Buffer::writable(at, 512)], 1, None).unwrap();
    guest.publish(RECEIVE);
    let (_, len) = guest.wait_used(RECEIVE);
    let mut bytes = vec![0; len as usize];
    guest.ram.read(GuestAddress(at), &mut bytes).unwrap();
    bytes
}

#[test]
fn a_program_and_a_guest_exchange_bytes_and_so_does_the_next_program() {
    for layout in [RingFeatures::empty(), RingFeatures::RING_PACKED] {
        let setup = Setup::of(MACHINE);
        let mut guest = Guest::new(layout);
        let _front_end = FrontEnd::serve(&setup.path("c.sock"), &mut guest);
        for round in 0..3_u8 {
            let mut program = UnixStream::connect(setup.path("port_log")).unwrap();
            program.write_all(&[round; 100]).unwrap();
            let mut all = Vec::new();
            while all.len() < 100 {
                all.extend(receive(&mut guest));
            }
            assert_eq!(all, [round; 100]);
            send(&mut guest, &[round + 10; 300]);
            let mut back = [0; 300];
            program.read_exact(&mut back).unwrap();
            assert_eq!(back, [round + 10; 300]);
        }
    }
}

#[test]
fn a_guest_that_sends_more_than_there_is_room_for_waits_and_nothing_is_lost() {
    let setup = Setup::of(MACHINE);
    let mut guest = Guest::new(RingFeatures::empty());
    let _front_end = FrontEnd::serve(&setup.path("c.sock"), &mut guest);
    let mut program = UnixStream::connect(setup.path("port_log")).unwrap();
    let reader = std::thread::spawn(move || {
        let mut all = vec![0; 1 << 20];
        program.read_exact(&mut all).unwrap();
        all
    });
    for block in 0..1024_u32 {
        send(&mut guest, &block.to_le_bytes().repeat(256));
    }
    let all = reader.join().unwrap();
    assert!(all.chunks(1024).zip(0_u32..).all(|(bytes, block)| bytes == block.to_le_bytes().repeat(256)));
}
