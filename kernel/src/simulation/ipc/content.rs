//! What a message carries: bytes and handles.

use dragonfly_abi::{Call, FOREVER, Handle, HandleTransfer, MESSAGE_DATA_SIZE, MessageTag, Rights, Status};

use super::{ALL, Called, called, server};
use crate::simulation::world::{Actor, Home, World};

#[test]
fn bytes_travel_with_the_message_and_only_as_many_as_said() {
    let mut world = World::new(1);
    let (home, gate) = world.home_with_gate();
    let server = server(&mut world, &home, gate, 0, 20);
    let caller = world.thread(&home, 0, 10);
    (0..480).for_each(|index| world.buffer(&caller).set_data(index, 0x100 + index as u64));
    world.wait(&caller, Call::Call, &[gate, MessageTag::new(0, 16, 0).0]);
    let _ = world.results(&server);
    let data: Vec<_> = (0..3).map(|index| world.buffer(&server).data(index)).collect();
    assert_eq!(data, [0x100, 0x101, 0]);
    world.wait(&server, Call::ReplyReceive, &[gate, 0]);
    let _ = world.results(&caller);
    world.wait(&caller, Call::Call, &[gate, MessageTag::new(0, MESSAGE_DATA_SIZE, 0).0]);
    assert_eq!(world.buffer(&server).data(479), 0x100 + 479);
    let _ = world.results(&server);
    let too_much = MessageTag::new(0, MESSAGE_DATA_SIZE + 1, 0).0;
    assert_eq!(world.status(&server, Call::Reply, &[0, too_much]), Status::BadArgument);
    world.finish();
}

/// Two domains with handles to one gate, and a thread in the first.
fn two_domains(world: &mut World) -> (Home, Actor, u64, Home, u64) {
    let (from, to) = (world.home(2 << 20), world.home(2 << 20));
    let keepers = world.keep(Call::GateCreate, &[]);
    let calls = world.grant(keepers, &from, ALL, 0);
    let receives = world.grant(keepers, &to, ALL, 0);
    world.keep(Call::HandleClose, &[keepers]);
    let caller = world.thread(&from, 0, 10);
    (from, caller, calls, to, receives)
}

#[test]
fn handles_are_copied_or_moved_narrowed_and_named_to_the_receiver() {
    let mut world = World::new(1);
    let (from, caller, calls, to, receives) = two_domains(&mut world);
    let receiver = world.thread(&to, 0, 30);
    world.buffer(&receiver).accept(2);
    world.wait(&receiver, Call::Receive, &[receives, FOREVER]);
    let [kept, moved] = [(); 2].map(|()| world.get(&caller, Call::NotificationCreate, &[]));
    let buffer = world.buffer(&caller);
    buffer.set_handle(0, HandleTransfer::copy(Handle(kept as u32), Rights::SEND));
    buffer.set_handle(1, HandleTransfer::give(Handle(moved as u32), ALL));
    world.wait(&caller, Call::Call, &[calls, MessageTag::new(0, 0, 2).0]);
    assert_eq!(world.results(&receiver).0, Status::Ok);
    let received = [0, 1].map(|index| world.buffer(&receiver).handle(index));
    assert_eq!(received.map(|transfer| transfer.rights), [Rights::SEND.bits(), ALL.bits()]);
    let first = world.capability(&to, u64::from(received[0].handle.0));
    assert_eq!(first.rights, Rights::SEND);
    drop(first);
    assert!(world.find(&from, kept).is_some() && world.find(&from, moved).is_none());
    assert!(world.find(&to, u64::from(received[1].handle.0)).is_some());
    world.finish();
}

#[test]
fn handles_that_are_not_welcome_stay_with_the_caller_and_the_receiver_waits_on() {
    let mut world = World::new(1);
    let (from, caller, calls, to, receives) = two_domains(&mut world);
    let receiver = world.thread(&to, 0, 30);
    world.buffer(&receiver).accept(1);
    world.wait(&receiver, Call::Receive, &[receives, FOREVER]);
    let handles = [(); 2].map(|()| world.get(&caller, Call::NotificationCreate, &[]));
    for (index, handle) in handles.iter().enumerate() {
        world.buffer(&caller).set_handle(index, HandleTransfer::give(Handle(*handle as u32), ALL));
    }
    let before = world.domain_of(&to).table.lock().count();
    assert_eq!(world.status(&caller, Call::Call, &[calls, MessageTag::new(0, 0, 2).0]), Status::Refused);
    // One of them is nothing: neither goes.
    world.buffer(&receiver).accept(2);
    world.buffer(&caller).set_handle(1, HandleTransfer::give(Handle(4711), ALL));
    assert_eq!(world.status(&caller, Call::Call, &[calls, MessageTag::new(0, 0, 2).0]), Status::BadHandle);
    assert_eq!(world.domain_of(&to).table.lock().count(), before);
    assert!(handles.iter().all(|handle| world.find(&from, *handle).is_some()));
    assert!(world.thread_of(&receiver).is_blocked());
    world.finish();
}

#[test]
fn a_handle_sent_within_a_domain_arrives() {
    let mut world = World::new(1);
    let (home, gate) = world.home_with_gate();
    let receiver = world.thread(&home, 0, 20);
    world.buffer(&receiver).accept(1);
    world.wait(&receiver, Call::Receive, &[gate, FOREVER]);
    let caller = world.thread(&home, 0, 10);
    let handle = world.get(&caller, Call::NotificationCreate, &[]);
    world.buffer(&caller).set_handle(0, HandleTransfer::copy(Handle(handle as u32), ALL));
    world.wait(&caller, Call::Call, &[gate, MessageTag::new(0, 0, 1).0]);
    assert_eq!(world.results(&receiver).0, Status::Ok);
    let received = u64::from(world.buffer(&receiver).handle(0).handle.0);
    assert_eq!(world.status(&receiver, Call::NotificationSignal, &[received, 1]), Status::Ok);
    world.finish();
}

#[test]
fn a_waiting_callers_handles_are_checked_when_it_is_received() {
    let mut world = World::new(2);
    let (from, caller, calls, to, receives) = two_domains(&mut world);
    let handle = world.get(&caller, Call::NotificationCreate, &[]);
    world.buffer(&caller).set_handle(0, HandleTransfer::give(Handle(handle as u32), ALL));
    world.wait(&caller, Call::Call, &[calls, MessageTag::new(0, 0, 1).0]);
    let receiver = world.thread(&to, 1, 10);
    assert_eq!(world.status(&receiver, Call::Receive, &[receives, 0]), Status::WouldBlock);
    world.deliver(0);
    assert_eq!(world.results(&caller).0, Status::Refused);
    assert!(world.find(&from, handle).is_some());
    world.finish();
}

#[test]
fn a_reply_with_handles_that_are_not_welcome_tells_both() {
    let mut world = World::new(1);
    let Called { server, caller, .. } = called(&mut world, 5);
    let handle = world.get(&server, Call::NotificationCreate, &[]);
    world.buffer(&server).set_handle(0, HandleTransfer::copy(Handle(handle as u32), ALL));
    world.wait(&server, Call::Reply, &[0, MessageTag::new(0, 0, 1).0]);
    assert_eq!(world.results(&caller).0, Status::Refused);
    world.wait(&caller, Call::ThreadExit, &[]);
    assert_eq!(world.results(&server).0, Status::Refused);
    world.finish();
}
