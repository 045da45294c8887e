//! On whose budget and with whose priority a server runs, also down a chain of calls.

use dragonfly_abi::{Call, FOREVER, MessageTag, Status};

use super::{ALL, server};
use crate::simulation::world::{Actor, Home, World};

/// What a thread has used of its own budget.
fn consumed(world: &mut World, actor: &Actor) -> u64 {
    let (status, words) = world.ask(Call::ThreadInfo, &[actor.handle]);
    assert_eq!(status, Status::Ok);
    words[1]
}

#[test]
fn a_receiver_runs_on_its_callers_budget_and_priority() {
    let mut world = World::new(1);
    let (home, gate) = world.home_with_gate();
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
    let (home, gate) = world.home_with_gate();
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
fn a_call_to_another_cpu_leaves_the_caller_its_budget() {
    let mut world = World::new(2);
    let (home, gate) = world.home_with_gate();
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
