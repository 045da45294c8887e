//! The driver against a device that a test plays.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;

use dragonfly_virtqueue::{Chain, MemoryMap};

use super::{HEADER_BYTES, MAX_FRAME_BYTES, RECEIVE, RING, TRANSMIT, Uplink};
use crate::error::Fault;
use crate::testing::{FakeDevice, Ring, clock};

const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const F_MAC: u64 = 1 << 5;

/// Frames on either side of the device.
#[derive(Default)]
struct Wire {
    /// To be received, with the number of bytes that the device adds to the length it tells.
    incoming: Vec<(Vec<u8>, i32)>,
    sent: Vec<Vec<u8>>,
    /// Takes nothing from the driver.
    is_stuck: bool,
}

fn device() -> (FakeDevice, Rc<RefCell<Wire>>) {
    let wire = Rc::new(RefCell::new(Wire::default()));
    let mut chain = Chain::new();
    let work = {
        let wire = wire.clone();
        move |index, ring: &mut Ring, memory: &MemoryMap| {
            let mut wire = wire.borrow_mut();
            if index == RECEIVE {
                while !wire.incoming.is_empty() && ring.queue.pop_into(memory, &mut chain).unwrap() {
                    let (frame, lie) = wire.incoming.remove(0);
                    let mut writer = chain.writer(memory);
                    writer.write_all(&[0; HEADER_BYTES]).unwrap();
                    writer.write_all(&frame).unwrap();
                    let written = writer.written().wrapping_add_signed(lie);
                    ring.queue.push(memory, chain.id(), written).unwrap();
                }
            }
            while index == TRANSMIT && !wire.is_stuck && ring.queue.pop_into(memory, &mut chain).unwrap() {
                let mut reader = chain.reader(memory);
                reader.skip(HEADER_BYTES as u64).unwrap();
                let mut frame = vec![0; reader.remaining() as usize];
                reader.read_exact(&mut frame).unwrap();
                wire.sent.push(frame);
                ring.queue.push(memory, chain.id(), 0).unwrap();
            }
        }
    };
    (FakeDevice::new(F_MAC, MAC.to_vec(), Box::new(work)), wire)
}

fn frame(number: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (number + at) as u8).collect()
}

#[test]
fn an_uplink_has_the_devices_address() {
    let (with, _) = device();
    assert_eq!(Uplink::open("uplink0", with, None, clock).unwrap().mac(), Some(MAC));
    let (without, _) = device();
    without.0.borrow_mut().offered &= !F_MAC;
    assert_eq!(Uplink::open("uplink0", without, None, clock).unwrap().mac(), None);
}

#[test]
fn frames_are_received_in_order_as_often_as_they_come() {
    let (device, wire) = device();
    let mut uplink = Uplink::open("uplink0", device.clone(), None, clock).unwrap();
    let mut frames = vec![vec![9; 3]; 10];
    assert_eq!((uplink.is_waiting(), uplink.receive(&mut frames)), (false, 0));
    // Many more than the ring has places for.
    let sent: Vec<_> = (0..5 * RING).map(|number| frame(number, [14, 60, MAX_FRAME_BYTES][number % 3])).collect();
    wire.borrow_mut().incoming = sent.iter().map(|frame| (frame.clone(), 0)).collect();
    device.work(RECEIVE);
    assert!(uplink.is_waiting());
    let mut received = Vec::new();
    loop {
        let count = uplink.receive(&mut frames);
        if count == 0 {
            break;
        }
        received.extend_from_slice(&frames[..count]);
    }
    assert!(received == sent);
}

#[test]
fn frames_are_sent_in_batches_and_dropped_when_the_ring_is_full() {
    let (device, wire) = device();
    let mut uplink = Uplink::open("uplink0", device, None, clock).unwrap();
    let sent: Vec<_> = (0..RING).map(|number| frame(number, 14 + number)).collect();
    assert!(sent.iter().all(|frame| uplink.send(frame)));
    assert!(!uplink.send(&sent[0]), "one more than there are places");
    assert!(wire.borrow().sent.is_empty(), "the device was told early");
    uplink.flush();
    assert!(wire.borrow().sent == sent);
    assert!(uplink.send(&frame(1, MAX_FRAME_BYTES)));
    uplink.flush();
    assert_eq!(wire.borrow().sent.len(), RING + 1);
}

#[test]
fn what_is_no_frame_is_not_sent() {
    let (device, _) = device();
    let mut uplink = Uplink::open("uplink0", device, None, clock).unwrap();
    for length in [0, 13, MAX_FRAME_BYTES + 1, 9000] {
        assert!(!uplink.send(&frame(0, length)), "{length} bytes");
    }
}

#[test]
fn a_device_that_takes_nothing_costs_frames_only() {
    let (device, wire) = device();
    wire.borrow_mut().is_stuck = true;
    let mut uplink = Uplink::open("uplink0", device.clone(), None, clock).unwrap();
    assert_eq!((0..3 * RING).filter(|number| uplink.send(&frame(*number, 60))).count(), RING);
    uplink.flush();
    wire.borrow_mut().incoming.push((frame(1, 60), 0));
    device.work(RECEIVE);
    assert_eq!((uplink.receive(&mut [Vec::new()]), uplink.fault()), (1, None));
}

#[test]
fn a_device_that_says_it_wrote_more_than_there_is_room_for_is_stopped() {
    let (device, wire) = device();
    let mut uplink = Uplink::open("uplink0", device.clone(), None, clock).unwrap();
    wire.borrow_mut().incoming = vec![(frame(1, 60), 0), (frame(2, MAX_FRAME_BYTES), 1), (frame(3, 60), 0)];
    device.work(RECEIVE);
    assert_eq!(uplink.receive(&mut vec![Vec::new(); 3]), 1);
    assert_eq!((uplink.fault(), device.0.borrow().status), (Some(Fault::Length), 0));
    assert!(!uplink.send(&frame(0, 60)) && !uplink.is_waiting());
}

#[test]
fn a_device_that_says_it_wrote_less_than_a_frame_costs_that_frame() {
    let (device, wire) = device();
    let mut uplink = Uplink::open("uplink0", device.clone(), None, clock).unwrap();
    wire.borrow_mut().incoming = vec![(frame(1, 60), -59), (frame(2, 60), -72), (frame(3, 60), 0)];
    device.work(RECEIVE);
    let mut frames = vec![Vec::new(); 3];
    assert_eq!((uplink.receive(&mut frames), &frames[0]), (1, &frame(3, 60)));
}
