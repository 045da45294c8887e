//! Calls, replies and receives, and what ends them.

use dragonfly_abi::{Call, FOREVER, MessageTag, Rights, Status};

use super::{call, named};
use crate::simulation::rounds::every_order;
use crate::simulation::world::{Action, Actor, Home, World};
use crate::thread::Phase;

/// The tag of a message that carries only words.
const TAG: u64 = 0;

/// A domain, its handle to a gate, and a thread on CPU 1 that waits there.
fn with_server(world: &mut World) -> (Home, u64, Actor) {
    let (home, gate) = world.home_with_gate();
    let server = world.thread(&home, 1, 20);
    world.wait(&server, Call::Receive, &[gate, FOREVER]);
    (home, gate, server)
}

#[test]
fn a_caller_is_told_when_its_receiver_is_destroyed_while_it_takes_the_message() {
    every_order(
        2,
        |world| {
            let (home, gate) = world.home_with_gate();
            let killer = world.thread(&home, 1, 10);
            let server = world.thread(&home, 1, 20);
            world.wait(&server, Call::Receive, &[gate, FOREVER]);
            let caller = world.thread(&home, 0, 10);
            let victim = named(world, &home, &server);
            assert!(world.is_current(&killer));
            let actions =
                vec![(0, call(Call::Call, &[gate, TAG, 1, 2, 3, 4])), (1, call(Call::ThreadDestroy, &[victim]))];
            (actions, (caller, server))
        },
        |world, (caller, server)| {
            assert_eq!(world.thread_of(&server).phase(), Phase::Ended);
            // Either it met the receiver, which is gone, or it waits at the gate for another.
            if world.is_current(&caller) {
                assert_eq!(world.results(&caller).0, Status::Aborted);
            }
        },
    );
}

#[test]
fn a_call_and_the_end_of_the_receivers_patience_leave_nobody_waiting_for_nobody() {
    every_order(
        2,
        |world| {
            let (home, gate) = world.home_with_gate();
            let server = world.thread(&home, 1, 20);
            world.wait(&server, Call::Receive, &[gate, 1000]);
            let caller = world.thread(&home, 0, 10);
            world.fake.advance(1000);
            (vec![(0, call(Call::Call, &[gate, TAG, 7])), (1, Action::Timer)], (caller, server))
        },
        |world, (caller, server)| {
            let (status, words) = world.results(&server);
            match status {
                Status::TimedOut => assert!(!world.is_current(&caller)),
                Status::Ok => {
                    assert_eq!(words[2], 7);
                    assert_eq!(world.status(&server, Call::Reply, &[0, TAG, 8]), Status::Ok);
                    world.deliver_all();
                    assert_eq!(world.results(&caller), (Status::Ok, [0, 0, 8, 0, 0, 0]));
                }
                status => panic!("{status:?}"),
            }
        },
    );
}

#[test]
fn a_reply_and_the_end_of_the_callers_patience_end_the_call_once() {
    every_order(
        2,
        |world| {
            let (home, gate, server) = with_server(world);
            let caller = world.thread(&home, 0, 10);
            world.buffer(&caller).set_timeout(1000);
            world.wait(&caller, Call::Call, &[gate, MessageTag(TAG).timed().0, 7]);
            world.deliver_all();
            assert_eq!(world.results(&server).0, Status::Ok);
            world.fake.advance(1000);
            (vec![(0, Action::Timer), (1, call(Call::Reply, &[0, TAG, 8]))], (caller, server))
        },
        |world, (caller, server)| {
            world.advance(1_000_000);
            let answer = world.results(&server).0;
            match world.results(&caller) {
                (Status::Ok, words) => assert_eq!((answer, words[2]), (Status::Ok, 8)),
                (Status::TimedOut, _) => assert!(matches!(answer, Status::NoCaller | Status::Aborted)),
                (status, _) => panic!("{status:?}"),
            }
        },
    );
}

#[test]
fn a_reply_and_the_callers_end_leave_the_server_free() {
    every_order(
        2,
        |world| {
            let (home, gate, server) = with_server(world);
            let killer = world.thread(&home, 0, 10);
            let caller = world.thread(&home, 0, 20);
            world.wait(&caller, Call::Call, &[gate, TAG, 7]);
            world.deliver_all();
            assert_eq!(world.results(&server).0, Status::Ok);
            let victim = named(world, &home, &caller);
            assert!(world.is_current(&killer));
            let reply = call(Call::ReplyReceive, &[gate, TAG, 8]);
            (vec![(0, call(Call::ThreadDestroy, &[victim])), (1, reply)], (caller, server))
        },
        |world, (caller, server)| {
            assert_eq!(world.thread_of(&caller).phase(), Phase::Ended);
            assert!(world.thread_of(&server).is_blocked());
        },
    );
}

#[test]
fn two_callers_on_two_cpus_are_both_served() {
    every_order(
        3,
        |world| {
            let (home, gate) = world.home_with_gate();
            let server = world.thread(&home, 2, 20);
            world.wait(&server, Call::Receive, &[gate, FOREVER]);
            let callers = [0, 1].map(|cpu| world.thread(&home, cpu, 10));
            let actions = [0, 1].map(|cpu| (cpu, call(Call::Call, &[gate, TAG, cpu as u64])));
            (actions.to_vec(), (callers, server, gate))
        },
        |world, (callers, server, gate)| {
            for _ in callers {
                let (status, words) = world.results(&server);
                assert_eq!(status, Status::Ok);
                let is_back = world.act(&server, Call::ReplyReceive, &[gate, TAG, words[2] + 10]);
                if let Some(results) = is_back {
                    crate::arch::Context::set_results(&world.thread_of(&server).context, results.0, results.1);
                }
                world.deliver_all();
            }
            for (cpu, caller) in callers.iter().enumerate() {
                assert_eq!(world.results(caller), (Status::Ok, [0, 0, cpu as u64 + 10, 0, 0, 0]));
            }
            assert!(world.thread_of(&server).is_blocked());
        },
    );
}

#[test]
fn a_call_meets_a_receiver_that_comes_at_the_same_time() {
    every_order(
        2,
        |world| {
            let (home, gate) = world.home_with_gate();
            let server = world.thread(&home, 1, 20);
            let caller = world.thread(&home, 0, 10);
            let actions = vec![(0, call(Call::Call, &[gate, TAG, 7])), (1, call(Call::Receive, &[gate, FOREVER]))];
            (actions, (caller, server))
        },
        |world, (caller, server)| {
            assert_eq!(world.results(&server).1[2], 7);
            assert_eq!(world.status(&server, Call::Reply, &[0, TAG, 8]), Status::Ok);
            world.deliver_all();
            assert_eq!(world.results(&caller).1[2], 8);
        },
    );
}

#[test]
fn a_call_to_a_gate_whose_domain_is_destroyed_is_told() {
    every_order(
        1,
        |world| {
            let (home, other) = (world.home(2 << 20), world.home(1 << 20));
            let maker = world.thread(&other, 0, 20);
            let own = world.get(&maker, Call::GateCreate, &[]);
            let to_home = world.grant(home.handle, &other, Rights::all(), 0);
            let gate = world.get(&maker, Call::HandleCopy, &[own, to_home, u64::from(Rights::all().bits()), 0]);
            world.wait(&maker, Call::ThreadExit, &[]);
            let caller = world.thread(&home, 0, 10);
            let keeper = world.keeper.cpu;
            let destroy = call(Call::DomainDestroy, &[other.handle]);
            (vec![(0, call(Call::Call, &[gate, TAG, 1])), (keeper, destroy)], (caller, other))
        },
        |world, (caller, other)| {
            if world.results(&world.keeper.clone()).0 == Status::Again {
                assert_eq!(world.insist(Call::DomainDestroy, &[other.handle]), Status::Ok);
            }
            world.deliver_all();
            let status = world.results(&caller).0;
            assert!(matches!(status, Status::Aborted | Status::BadHandle), "{status:?}");
        },
    );
}
