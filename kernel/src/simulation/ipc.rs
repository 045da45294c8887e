//! Calls, replies and receives: who runs, on whose budget, and what everybody is told.

use dragonfly_abi::{Call, FOREVER, Handle, HandleTransfer, MESSAGE_DATA_SIZE, MessageTag, Rights, Status};

use super::world::{Action, Actor, Home, World, padded, word};

const ALL: Rights = Rights::all();

/// A domain and a gate of it, and the domain's handle to itself.
fn home_with_gate(world: &mut World) -> (Home, u64) {
    let home = world.home(2 << 20);
    let gate = world.keep(Call::GateCreate, &[]);
    let granted = world.grant(gate, &home, ALL, 0);
    world.keep(Call::HandleClose, &[gate]);
    (home, granted)
}

/// A thread that waits at a gate.
fn server(world: &mut World, home: &Home, gate: u64, cpu: usize, priority: u8) -> Actor {
    let server = world.thread(home, cpu, priority);
    world.wait(&server, Call::Receive, &[gate, FOREVER]);
    server
}

/// What a thread has used of its own budget.
fn consumed(world: &mut World, actor: &Actor) -> u64 {
    let (status, words) = world.ask(Call::ThreadInfo, &[actor.handle]);
    assert_eq!(status, Status::Ok);
    words[1]
}

#[test]
fn a_call_hands_the_cpu_to_the_receiver_and_the_reply_hands_it_back() {
    for is_fast in [false, true] {
        let mut world = World::new(1);
        let (home, gate) = home_with_gate(&mut world);
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
    let (home, gate) = home_with_gate(&mut world);
    let own = world.grant(home.handle, &home, ALL, 0);
    let server = server(&mut world, &home, gate, 0, 20);
    let caller = world.thread(&home, 0, 10);
    let badged = world.get(&caller, Call::HandleCopy, &[gate, own, word(ALL), 99]);
    world.wait(&caller, Call::Call, &[badged, 0]);
    assert_eq!(world.results(&server).1[0], 99);
    world.finish();
}

#[test]
fn a_receiver_runs_on_its_callers_budget_and_priority() {
    let mut world = World::new(1);
    let (home, gate) = home_with_gate(&mut world);
    let server = server(&mut world, &home, gate, 0, 1);
    let middle = world.thread(&home, 0, 10);
    let caller = world.thread(&home, 0, 20);
    world.wait(&caller, Call::Call, &[gate, 0]);
    assert!(world.is_current(&server), "before the thread of the middle, as its caller would");
    let before = (consumed(&mut world, &caller), consumed(&mut world, &server));
    world.advance(5_000);
    let _ = world.results(&server);
    world.wait(&server, Call::ReplyReceive, &[gate, 0]);
    assert!(world.is_current(&caller));
    let _ = world.results(&caller);
    world.wait(&caller, Call::ThreadExit, &[]);
    assert!(world.is_current(&middle));
    let after = (consumed(&mut world, &caller), consumed(&mut world, &server));
    assert_eq!((after.0 - before.0, after.1 - before.1), (5_000, 0));
    world.finish();
}

#[test]
fn a_receiver_loses_its_callers_priority_with_the_reply() {
    let mut world = World::new(1);
    let (home, gate) = home_with_gate(&mut world);
    let server = server(&mut world, &home, gate, 0, 1);
    let middle = world.thread(&home, 0, 10);
    let caller = world.thread(&home, 0, 20);
    world.wait(&caller, Call::Call, &[gate, 0]);
    let _ = world.results(&server);
    world.wait(&server, Call::Reply, &[0, 0]);
    assert!(world.is_current(&caller));
    let _ = world.results(&caller);
    world.wait(&caller, Call::ThreadExit, &[]);
    assert!(world.is_current(&middle));
    world.wait(&middle, Call::ThreadExit, &[]);
    assert_eq!(world.results(&server).0, Status::Ok);
    world.finish();
}

/// A caller and servers on one CPU, each with a gate, that have called each other down to the last one.
struct Chain {
    caller: Actor,
    servers: Vec<Actor>,
    gates: Vec<u64>,
}

fn chain(world: &mut World, home: &Home, length: usize, timed: Option<usize>) -> Chain {
    let (mut gates, mut servers) = (Vec::new(), Vec::new());
    for _ in 0..length {
        let gate = world.keep(Call::GateCreate, &[]);
        gates.push(world.grant(gate, home, ALL, 0));
        servers.push(server(world, home, gates[gates.len() - 1], 0, 5));
    }
    let caller = world.thread(home, 0, 20);
    let mut current = caller;
    for (depth, next) in servers.iter().enumerate() {
        let is_timed = timed == Some(depth);
        world.buffer(&current).set_timeout(1_000);
        let tag = MessageTag::new(0, 0, 0);
        let tag = if is_timed { tag.timed() } else { tag };
        world.wait(&current, Call::Call, &[gates[depth], tag.0, depth as u64]);
        assert_eq!(world.results(next).0, Status::Ok);
        current = *next;
    }
    Chain { caller, servers, gates }
}

#[test]
fn a_chain_of_calls_runs_on_the_first_callers_budget() {
    let mut world = World::new(1);
    let home = world.home(2 << 20);
    let chain = chain(&mut world, &home, 3, None);
    let before = consumed(&mut world, &chain.caller);
    world.advance(7_000);
    for index in (0..3).rev() {
        world.wait(&chain.servers[index], Call::ReplyReceive, &[chain.gates[index], 0, 40 + index as u64]);
        let back = if index == 0 { chain.caller } else { chain.servers[index - 1] };
        assert_eq!(world.results(&back), (Status::Ok, [0, 0, 40 + index as u64, 0, 0, 0]));
    }
    world.wait(&chain.caller, Call::ThreadExit, &[]);
    assert_eq!(consumed(&mut world, &chain.caller) - before, 7_000);
    world.finish();
}

#[test]
fn a_caller_that_gives_up_takes_its_budget_out_of_the_chain() {
    for timed in 0..3 {
        let mut world = World::new(1);
        let home = world.home(2 << 20);
        let chain = chain(&mut world, &home, 3, Some(timed));
        let last = chain.servers[2];
        world.advance(1_000);
        let above: Vec<_> =
            std::iter::once(chain.caller).chain(chain.servers.iter().copied()).take(timed + 1).collect();
        assert_eq!(world.results(&above[timed]).0, Status::TimedOut);
        // Who gave up runs on the first caller's budget, and so do those above when it has ended.
        world.advance(3_000);
        for (depth, actor) in above.iter().enumerate().rev() {
            if depth < timed {
                assert_eq!(world.results(actor).0, Status::Aborted);
            }
            world.wait(actor, Call::ThreadExit, &[]);
        }
        assert!(world.is_current(&last), "the last server goes on, on what is left of the chain");
        world.advance(2_000);
        world.wait(&last, Call::ThreadExit, &[]);
        let pays = chain.servers[timed];
        assert_eq!((consumed(&mut world, &chain.caller), consumed(&mut world, &pays)), (4_000, 2_000));
        world.finish();
    }
}

#[test]
fn a_server_whose_caller_gave_up_goes_on_by_itself() {
    let mut world = World::new(1);
    let home = world.home(2 << 20);
    let chain = chain(&mut world, &home, 1, Some(0));
    world.advance(1_000);
    assert_eq!(world.results(&chain.caller).0, Status::TimedOut);
    world.wait(&chain.caller, Call::ThreadExit, &[]);
    assert!(world.is_current(&chain.servers[0]));
    let status = world.status(&chain.servers[0], Call::Reply, &[0, 0]);
    assert_eq!(status, Status::NoCaller);
    world.wait(&chain.servers[0], Call::Receive, &[chain.gates[0], FOREVER]);
    world.finish();
}

#[test]
fn a_caller_that_is_destroyed_in_a_chain_aborts_those_above_and_frees_those_below() {
    for victim in 0..3 {
        let mut world = World::new(1);
        let home = world.home(2 << 20);
        let chain = chain(&mut world, &home, 3, None);
        // 0 is the first caller, the last server is never a victim here.
        let threads: Vec<_> = std::iter::once(chain.caller).chain(chain.servers.iter().copied()).collect();
        assert_eq!(world.insist(Call::ThreadDestroy, &[threads[victim].handle]), Status::Ok);
        if victim > 0 {
            assert_eq!(world.results(&threads[victim - 1]).0, Status::Aborted);
            world.wait(&threads[victim - 1], Call::ThreadExit, &[]);
        }
        let mut runs = Vec::new();
        while let Some(current) = world.current(0) {
            runs.push(threads.iter().position(|actor| world.is_current(actor)).expect("one of these"));
            let _ = current.context.take_results();
            drop(current);
            assert_eq!(world.call(0, Call::ThreadExit, &[]), None);
        }
        assert_eq!(runs.len(), 4 - 1 - usize::from(victim > 0), "all that are left end: {runs:?}");
        world.finish();
    }
}

#[test]
fn the_end_of_a_server_tells_its_caller() {
    let mut world = World::new(1);
    let home = world.home(2 << 20);
    let chain = chain(&mut world, &home, 2, None);
    world.wait(&chain.servers[1], Call::ThreadExit, &[]);
    assert_eq!(world.results(&chain.servers[0]).0, Status::Aborted);
    world.wait(&chain.servers[0], Call::Reply, &[0, 0, 9]);
    assert_eq!(world.results(&chain.caller), (Status::Ok, [0, 0, 9, 0, 0, 0]));
    world.finish();
}

#[test]
fn a_server_that_waits_within_a_call_goes_on_with_its_callers_budget() {
    let mut world = World::new(1);
    let home = world.home(2 << 20);
    let notification = world.keep(Call::NotificationCreate, &[]);
    let granted = world.grant(notification, &home, ALL, 0);
    let idle = world.thread(&home, 0, 2);
    let chain = chain(&mut world, &home, 1, None);
    world.wait(&chain.servers[0], Call::NotificationWait, &[granted, FOREVER]);
    assert!(world.is_current(&idle));
    world.keep(Call::NotificationSignal, &[notification, 1]);
    world.deliver(0);
    assert_eq!(world.results(&chain.servers[0]).0, Status::Ok);
    let before = consumed(&mut world, &chain.caller);
    world.advance(4_000);
    world.wait(&chain.servers[0], Call::Reply, &[0, 0]);
    let _ = world.results(&chain.caller);
    world.wait(&chain.caller, Call::ThreadExit, &[]);
    assert_eq!(consumed(&mut world, &chain.caller) - before, 4_000);
    world.finish();
}

#[test]
fn a_time_out_while_the_woken_server_is_on_its_way_leaves_it_on_its_own() {
    let mut world = World::new(1);
    let home = world.home(2 << 20);
    let notification = world.keep(Call::NotificationCreate, &[]);
    let granted = world.grant(notification, &home, ALL, 0);
    let chain = chain(&mut world, &home, 1, Some(0));
    world.wait(&chain.servers[0], Call::NotificationWait, &[granted, FOREVER]);
    world.keep(Call::NotificationSignal, &[notification, 1]);
    world.fake.advance(1_000);
    // The timer comes before the kick.
    assert!(world.tick(0));
    assert_eq!(world.results(&chain.caller).0, Status::TimedOut);
    world.deliver(0);
    world.wait(&chain.caller, Call::ThreadExit, &[]);
    assert_eq!(world.results(&chain.servers[0]).0, Status::Ok);
    world.finish();
}

#[test]
fn callers_are_received_by_priority_and_then_as_they_came() {
    let mut world = World::new(4);
    let (home, gate) = home_with_gate(&mut world);
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
fn a_call_to_another_cpu_leaves_the_caller_its_budget() {
    let mut world = World::new(2);
    let (home, gate) = home_with_gate(&mut world);
    let server = server(&mut world, &home, gate, 1, 10);
    let other = world.thread(&home, 0, 5);
    let caller = world.thread(&home, 0, 10);
    world.wait(&caller, Call::Call, &[gate, 0, 3]);
    assert!(world.is_current(&other));
    let before = consumed(&mut world, &caller);
    world.deliver(1);
    assert_eq!(world.results(&server).1[2], 3);
    world.advance(2_000);
    world.wait(&server, Call::ReplyReceive, &[gate, 0, 4]);
    world.deliver(0);
    assert_eq!(world.results(&caller).1[2], 4);
    assert_eq!(consumed(&mut world, &caller), before);
    world.finish();
}

#[test]
fn a_receiver_on_the_callers_cpu_is_preferred() {
    let mut world = World::new(2);
    let (home, gate) = home_with_gate(&mut world);
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
    let (home, gate) = home_with_gate(&mut world);
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
    let (home, gate) = home_with_gate(&mut world);
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
    let (home, gate) = home_with_gate(&mut world);
    let server = server(&mut world, &home, gate, 0, 5);
    let caller = world.thread(&home, 0, 10);
    world.wait(&caller, Call::Call, &[gate, 0]);
    let _ = world.results(&server);
    assert_eq!(world.status(&server, Call::Receive, &[gate, FOREVER]), Status::Busy);
    world.wait(&server, Call::Reply, &[0, 0]);
    let _ = world.results(&caller);
    world.wait(&caller, Call::ThreadExit, &[]);
    assert_eq!(world.results(&server).0, Status::Ok);
    assert_eq!(world.status(&server, Call::Reply, &[0, 0]), Status::NoCaller);
    world.finish();
}

#[test]
fn bytes_travel_with_the_message_and_only_as_many_as_said() {
    let mut world = World::new(1);
    let (home, gate) = home_with_gate(&mut world);
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
    let (home, gate) = home_with_gate(&mut world);
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
    let (home, gate) = home_with_gate(&mut world);
    let server = server(&mut world, &home, gate, 0, 5);
    let caller = world.thread(&home, 0, 10);
    world.wait(&caller, Call::Call, &[gate, 0]);
    let _ = world.results(&server);
    let handle = world.get(&server, Call::NotificationCreate, &[]);
    world.buffer(&server).set_handle(0, HandleTransfer::copy(Handle(handle as u32), ALL));
    world.wait(&server, Call::Reply, &[0, MessageTag::new(0, 0, 1).0]);
    assert_eq!(world.results(&caller).0, Status::Refused);
    world.wait(&caller, Call::ThreadExit, &[]);
    assert_eq!(world.results(&server).0, Status::Refused);
    world.finish();
}

#[test]
fn a_call_that_ends_the_callers_own_caller_still_gives_its_result() {
    let mut world = World::new(1);
    let (home, gate) = home_with_gate(&mut world);
    let server = server(&mut world, &home, gate, 0, 20);
    let caller = world.thread(&home, 0, 10);
    let victim = world.grant(caller.handle, &home, ALL, 0);
    world.wait(&caller, Call::Call, &[gate, 0]);
    let _ = world.results(&server);
    assert_eq!(world.status(&server, Call::ThreadDestroy, &[victim]), Status::Ok);
    assert_eq!(world.status(&server, Call::Reply, &[0, 0]), Status::NoCaller);
    world.finish();
}
