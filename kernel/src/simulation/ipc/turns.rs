//! Who runs and who waits.

use dragonfly_abi::{Call, FOREVER, MessageTag, Status};

use super::{ALL, Called, called, server};
use crate::simulation::world::{Action, World, padded, word};

#[test]
fn a_call_hands_the_cpu_to_the_receiver_and_the_reply_hands_it_back() {
    for is_fast in [false, true] {
        let mut world = World::new(1);
        let (home, gate) = world.home_with_gate();
        let server = server(&mut world, &home, gate, 0, 10);
        let caller = world.thread(&home, 0, 10);
        let go = |call, words: &[u64]| {
            if is_fast { Action::Call(call, padded(words)) } else { Action::GeneralCall(call, padded(words)) }
        };
        let tag = MessageTag::new(5, 0, 0).0;
        world.perform(0, go(Call::Call, &[gate, tag, 1, 2, 3, 4]));
        assert_eq!(world.results(&server), (Status::Ok, [0, tag, 1, 2, 3, 4]));
        world.perform(0, go(Call::ReplyReceive, &[gate, tag, 5, 6, 7, 8]));
        assert_eq!(world.results(&caller), (Status::Ok, [0, tag, 5, 6, 7, 8]));
        assert!(world.thread_of(&server).is_blocked());
        world.finish();
    }
}

#[test]
fn a_receiver_sees_the_badge_of_the_handle_that_was_called() {
    let mut world = World::new(1);
    let (home, gate) = world.home_with_gate();
    let own = world.grant(home.handle, &home, ALL, 0);
    let server = server(&mut world, &home, gate, 0, 20);
    let caller = world.thread(&home, 0, 10);
    let badged = world.get(&caller, Call::HandleCopy, &[gate, own, word(ALL), 99]);
    world.wait(&caller, Call::Call, &[badged, 0]);
    assert_eq!(world.results(&server).1[0], 99);
    world.finish();
}

#[test]
fn callers_are_received_by_priority_and_then_as_they_came() {
    let mut world = World::new(4);
    let (home, gate) = world.home_with_gate();
    let priorities = [10, 30, 10];
    let callers: Vec<_> = priorities
        .iter()
        .enumerate()
        .map(|(cpu, priority)| {
            let caller = world.thread(&home, cpu, *priority);
            world.wait(&caller, Call::Call, &[gate, 0, cpu as u64]);
            caller
        })
        .collect();
    let server = world.thread(&home, 3, 5);
    let mut order = Vec::new();
    for index in 0..3 {
        let (call, words) = if index == 0 { (Call::Receive, [gate, FOREVER]) } else { (Call::ReplyReceive, [gate, 0]) };
        order.push(world.act(&server, call, &words).expect("a caller waits").1[2]);
    }
    assert_eq!(order, [1, 0, 2]);
    assert_eq!(callers.len(), 3);
    world.finish();
}

#[test]
fn a_receiver_on_the_callers_cpu_is_preferred() {
    let mut world = World::new(2);
    let (home, gate) = world.home_with_gate();
    let far = server(&mut world, &home, gate, 1, 10);
    let near = server(&mut world, &home, gate, 0, 10);
    let caller = world.thread(&home, 0, 10);
    world.wait(&caller, Call::Call, &[gate, 0]);
    assert!(world.is_current(&near));
    assert!(world.thread_of(&far).is_blocked());
    world.finish();
}

#[test]
fn calls_and_receives_that_are_not_to_wait_do_not() {
    let mut world = World::new(1);
    let (home, gate) = world.home_with_gate();
    let actor = world.thread(&home, 0, 10);
    assert_eq!(world.status(&actor, Call::Receive, &[gate, 0]), Status::WouldBlock);
    world.buffer(&actor).set_timeout(0);
    let poll = MessageTag::new(0, 0, 0).timed().0;
    assert_eq!(world.status(&actor, Call::Call, &[gate, poll]), Status::WouldBlock);
    assert_eq!(world.status(&actor, Call::ReplyReceive, &[gate, poll]), Status::WouldBlock);
    world.finish();
}

#[test]
fn a_receive_ends_with_its_time() {
    let mut world = World::new(1);
    let (home, gate) = world.home_with_gate();
    let actor = world.thread(&home, 0, 10);
    world.wait(&actor, Call::Receive, &[gate, 2_000]);
    world.advance(1_999);
    assert!(!world.is_current(&actor));
    world.advance(1);
    assert_eq!(world.results(&actor).0, Status::TimedOut);
    world.finish();
}

#[test]
fn a_server_answers_one_caller_before_it_receives_from_the_next() {
    let mut world = World::new(1);
    let Called { gate, server, caller, .. } = called(&mut world, 5);
    assert_eq!(world.status(&server, Call::Receive, &[gate, FOREVER]), Status::Busy);
    world.wait(&server, Call::Reply, &[0, 0]);
    let _ = world.results(&caller);
    world.wait(&caller, Call::ThreadExit, &[]);
    assert_eq!(world.results(&server).0, Status::Ok);
    assert_eq!(world.status(&server, Call::Reply, &[0, 0]), Status::NoCaller);
    world.finish();
}

#[test]
fn a_call_that_ends_the_callers_own_caller_still_gives_its_result() {
    let mut world = World::new(1);
    let Called { home, server, caller, .. } = called(&mut world, 20);
    let victim = world.grant(caller.handle, &home, ALL, 0);
    assert_eq!(world.status(&server, Call::ThreadDestroy, &[victim]), Status::Ok);
    assert_eq!(world.status(&server, Call::Reply, &[0, 0]), Status::NoCaller);
    world.finish();
}
