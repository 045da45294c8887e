//! Two CPUs in the kernel at once, in every order that matters.

use dragonfly_abi::{Call, FOREVER, MessageTag, Rights, Status};

use super::rounds::every_order;
use super::world::{Action, Actor, Home, World, padded};
use crate::thread::Phase;

fn call(call: Call, words: &[u64]) -> Action {
    Action::Call(call, padded(words))
}

/// A domain with a gate, and the domain's handle to it.
fn with_gate(world: &mut World) -> (Home, u64) {
    let home = world.home(2 << 20);
    let gate = world.keep(Call::GateCreate, &[]);
    let granted = world.grant(gate, &home, Rights::all(), 0);
    world.keep(Call::HandleClose, &[gate]);
    (home, granted)
}

/// A handle of the domain to a thread.
fn named(world: &mut World, home: &Home, actor: &Actor) -> u64 {
    world.grant(actor.handle, home, Rights::all(), 0)
}

const TAG: u64 = 0;

#[test]
fn a_caller_is_told_when_its_receiver_is_destroyed_while_it_takes_the_message() {
    every_order(
        2,
        |world| {
            let (home, gate) = with_gate(world);
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
            let (home, gate) = with_gate(world);
            let server = world.thread(&home, 1, 20);
            world.wait(&server, Call::Receive, &[gate, 1000]);
            let caller = world.thread(&home, 0, 10);
            world.fake.advance(1000);
            (vec![(0, call(Call::Call, &[gate, TAG, 7])), (1, Action::Timer)], (caller, server, gate))
        },
        |world, (caller, server, gate)| {
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
            let _ = gate;
        },
    );
}

#[test]
fn a_reply_and_the_end_of_the_callers_patience_end_the_call_once() {
    every_order(
        2,
        |world| {
            let (home, gate) = with_gate(world);
            let server = world.thread(&home, 1, 20);
            world.wait(&server, Call::Receive, &[gate, FOREVER]);
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
            let (home, gate) = with_gate(world);
            let server = world.thread(&home, 1, 20);
            world.wait(&server, Call::Receive, &[gate, FOREVER]);
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
            let (home, gate) = with_gate(world);
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
            let (home, gate) = with_gate(world);
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
fn a_signal_reaches_a_waiter_that_comes_at_the_same_time() {
    every_order(
        2,
        |world| {
            let home = world.home(1 << 20);
            let notification = world.keep(Call::NotificationCreate, &[]);
            let granted = world.grant(notification, &home, Rights::all(), 0);
            let (signaller, waiter) = (world.thread(&home, 0, 10), world.thread(&home, 1, 10));
            let wait = call(Call::NotificationWait, &[granted, FOREVER]);
            (vec![(0, call(Call::NotificationSignal, &[granted, 4])), (1, wait)], (signaller, waiter))
        },
        |world, (signaller, waiter)| {
            assert_eq!(world.results(&waiter), (Status::Ok, [4, 0, 0, 0, 0, 0]));
            assert_eq!(world.results(&signaller).0, Status::Ok);
        },
    );
}

#[test]
fn a_signal_and_the_end_of_a_wait_give_the_bits_once() {
    every_order(
        2,
        |world| {
            let home = world.home(1 << 20);
            let notification = world.keep(Call::NotificationCreate, &[]);
            let granted = world.grant(notification, &home, Rights::all(), 0);
            let waiter = world.thread(&home, 1, 10);
            world.wait(&waiter, Call::NotificationWait, &[granted, 1000]);
            world.thread(&home, 0, 10);
            world.fake.advance(1000);
            let signal = call(Call::NotificationSignal, &[granted, 4]);
            (vec![(0, signal), (1, Action::Timer)], (waiter, notification))
        },
        |world, (waiter, notification)| {
            let (rest, words) = world.ask(Call::NotificationWait, &[notification, 0]);
            match world.results(&waiter) {
                (Status::Ok, [4, ..]) => assert_eq!(rest, Status::WouldBlock),
                (Status::TimedOut, _) => assert_eq!((rest, words[0]), (Status::Ok, 4)),
                results => panic!("{results:?}"),
            }
        },
    );
}

#[test]
fn a_wait_never_ends_without_bits_when_others_poll() {
    every_order(
        3,
        |world| {
            let home = world.home(1 << 20);
            let notification = world.keep(Call::NotificationCreate, &[]);
            let granted = world.grant(notification, &home, Rights::all(), 0);
            let waiter = world.thread(&home, 2, 10);
            world.wait(&waiter, Call::NotificationWait, &[granted, FOREVER]);
            let (_, poller) = (world.thread(&home, 0, 10), world.thread(&home, 1, 10));
            let signal = call(Call::NotificationSignal, &[granted, 4]);
            (vec![(0, signal), (1, call(Call::NotificationWait, &[granted, 0]))], (waiter, poller))
        },
        |world, (waiter, poller)| {
            let (status, words) = world.results(&poller);
            if world.is_current(&waiter) {
                assert_eq!(world.results(&waiter), (Status::Ok, [4, 0, 0, 0, 0, 0]));
                assert_eq!(status, Status::WouldBlock);
            } else {
                assert_eq!((status, words[0]), (Status::Ok, 4));
            }
        },
    );
}

#[test]
fn bits_for_a_gate_reach_a_receiver_that_comes_or_gives_up_at_the_same_time() {
    for is_early in [false, true] {
        every_order(
            2,
            |world| {
                let (home, gate) = with_gate(world);
                let notification = world.keep(Call::NotificationCreate, &[]);
                let granted = world.grant(notification, &home, Rights::all(), 0);
                let server = world.thread(&home, 1, 20);
                assert_eq!(world.status(&server, Call::NotificationBind, &[granted, gate]), Status::Ok);
                world.thread(&home, 0, 10);
                let signal = (0, call(Call::NotificationSignal, &[granted, 4]));
                if is_early {
                    world.wait(&server, Call::Receive, &[gate, 1000]);
                    world.fake.advance(1000);
                    (vec![signal, (1, Action::Timer)], (server, notification))
                } else {
                    (vec![signal, (1, call(Call::Receive, &[gate, FOREVER]))], (server, notification))
                }
            },
            |world, (server, notification)| {
                let (rest, words) = world.ask(Call::NotificationWait, &[notification, 0]);
                match world.results(&server) {
                    (Status::Ok, [_, _, 4, ..]) => assert_eq!(rest, Status::WouldBlock),
                    (Status::TimedOut, _) if is_early => assert_eq!((rest, words[0]), (Status::Ok, 4)),
                    results => panic!("{results:?}"),
                }
            },
        );
    }
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

#[test]
fn the_last_two_handles_closed_at_once_take_the_object_with_them() {
    every_order(
        2,
        |world| {
            let home = world.home(1 << 20);
            let gate = world.keep(Call::GateCreate, &[]);
            let granted = world.grant(gate, &home, Rights::all(), 0);
            let second = world.grant(gate, &home, Rights::all(), 0);
            let waiter = world.thread(&home, 1, 20);
            world.wait(&waiter, Call::Receive, &[granted, FOREVER]);
            assert_eq!(world.keep(Call::HandleClose, &[gate]), 0);
            let (_, other) = (world.thread(&home, 0, 10), world.thread(&home, 1, 10));
            let actions = vec![(0, call(Call::HandleClose, &[granted])), (1, call(Call::HandleClose, &[second]))];
            (actions, (waiter, other))
        },
        |world, (waiter, other)| {
            assert!(world.is_current(&waiter), "the waiter is told that the gate is gone");
            assert_eq!(world.results(&waiter).0, Status::Aborted);
            let _ = other;
        },
    );
}

#[test]
fn an_interrupt_line_closed_while_it_is_bound_can_be_bound_again() {
    every_order(
        2,
        |world| {
            let home = world.home(1 << 20);
            let system = world.grant(world.system, &home, Rights::all(), 0);
            let (first, _) = (world.thread(&home, 0, 10), world.thread(&home, 1, 10));
            let line = world.get(&first, Call::DeviceInterrupt, &[system, 3, 0]);
            let notification = world.get(&first, Call::NotificationCreate, &[]);
            let bind = call(Call::InterruptBind, &[line, notification, 1, 0]);
            (vec![(0, bind), (1, call(Call::HandleClose, &[line]))], (first, system, notification))
        },
        |world, (first, system, notification)| {
            let _ = world.results(&first);
            let line = world.get(&first, Call::DeviceInterrupt, &[system, 3, 0]);
            assert_eq!(world.status(&first, Call::InterruptBind, &[line, notification, 1, 0]), Status::Ok);
        },
    );
}

#[test]
fn a_thread_started_and_destroyed_at_once_ends() {
    every_order(
        3,
        |world| {
            let home = world.home(1 << 20);
            let victim = world.stopped(&home, 2, 10);
            let handle = named(world, &home, &victim);
            world.thread(&home, 0, 10);
            let killer = world.thread(&home, 1, 10);
            let actions = vec![(0, call(Call::ThreadStart, &[handle])), (1, call(Call::ThreadDestroy, &[handle]))];
            (actions, (victim, killer, handle))
        },
        |world, (victim, killer, handle)| {
            let mut status = world.results(&killer).0;
            for _ in 0..3 {
                if status == Status::Again {
                    world.deliver_all();
                    status = world.status(&killer, Call::ThreadDestroy, &[handle]);
                }
            }
            assert_eq!(status, Status::Ok);
            assert_eq!(world.thread_of(&victim).phase(), Phase::Ended);
        },
    );
}

#[test]
fn a_domain_destroyed_by_two_cpus_is_gone_and_all_is_back() {
    every_order(
        2,
        |world| {
            let home = world.home(4 << 20);
            let before = world.figures();
            let (first, second) = (world.thread(&home, 0, 10), world.thread(&home, 1, 10));
            let own = world.grant(home.handle, &home, Rights::all(), 0);
            let child = world.get(&first, Call::DomainCreate, &[own, 1 << 20, 10, 3]);
            let words = [child, 5 << 32, 0x1000, 0x2000, 0x5000, 0];
            let thread = world.get(&first, Call::ThreadCreate, &words);
            assert_eq!(world.status(&first, Call::ThreadStart, &[thread]), Status::Ok);
            let destroy = call(Call::DomainDestroy, &[child]);
            (vec![(0, destroy), (1, destroy)], (first, second, child, before))
        },
        |world, (first, second, child, _)| {
            for actor in [first, second] {
                let mut status = world.results(&actor).0;
                for _ in 0..100 {
                    if status == Status::Again {
                        world.deliver_all();
                        status = world.status(&actor, Call::DomainDestroy, &[child]);
                    }
                }
                assert!(matches!(status, Status::Ok | Status::BadHandle), "{status:?}");
            }
        },
    );
}

#[test]
fn a_page_that_is_unmapped_while_it_is_touched_cannot_be_reached_after_that() {
    every_order(
        2,
        |world| {
            let home = world.home(4 << 20);
            let own = world.grant(home.handle, &home, Rights::all(), 0);
            let (first, second) = (world.thread(&home, 0, 10), world.thread(&home, 1, 10));
            let memory = world.get(&first, Call::MemoryCreate, &[0x4000, 1]);
            let rights = u64::from((Rights::READ | Rights::WRITE).bits());
            let map = [memory, own, 0x10_0000, 0, 0x4000, rights];
            assert_eq!(world.status(&first, Call::MemoryMap, &map), Status::Ok);
            let page = dragonfly_memory::UserVirt::new(0x10_1000);
            let actions =
                vec![(0, call(Call::MemoryUnmap, &[own, 0x10_0000])), (1, Action::Touch(page, Rights::WRITE))];
            (actions, (first, second, page))
        },
        |world, (first, _, page)| {
            assert_eq!(world.results(&first).0, Status::Ok);
            assert_eq!(world.fake.access(1, page, Rights::READ), None);
        },
    );
}

#[test]
fn two_cpus_that_touch_one_page_first_see_one_frame() {
    every_order(
        2,
        |world| {
            let home = world.home(4 << 20);
            let own = world.grant(home.handle, &home, Rights::all(), 0);
            let (first, second) = (world.thread(&home, 0, 10), world.thread(&home, 1, 10));
            let memory = world.get(&first, Call::MemoryCreate, &[0x4000, 1]);
            let rights = u64::from((Rights::READ | Rights::WRITE).bits());
            for at in [0x10_0000, 0x20_0000] {
                let map = [memory, own, at, 0, 0x4000, rights];
                assert_eq!(world.status(&first, Call::MemoryMap, &map), Status::Ok);
            }
            let pages = [0x10_1000, 0x20_1000].map(dragonfly_memory::UserVirt::new);
            let actions = [0, 1].map(|cpu| (cpu, Action::Touch(pages[cpu], Rights::WRITE)));
            (actions.to_vec(), (first, second, pages))
        },
        |world, (_, _, pages)| {
            let frames = [0, 1].map(|cpu| world.fake.access(cpu, pages[cpu], Rights::WRITE));
            assert!(frames[0].is_some() && frames[0] == frames[1]);
        },
    );
}

#[test]
fn a_handle_copied_while_its_source_is_revoked_does_not_outlive_it() {
    every_order(
        2,
        |world| {
            let home = world.home(4 << 20);
            let own = world.grant(home.handle, &home, Rights::all(), 0);
            let (first, second) = (world.thread(&home, 0, 10), world.thread(&home, 1, 10));
            let gate = world.get(&first, Call::GateCreate, &[]);
            let all = u64::from(Rights::all().bits());
            let copy = world.get(&first, Call::HandleCopy, &[gate, own, all, 0]);
            let actions =
                vec![(0, call(Call::HandleRevoke, &[gate])), (1, call(Call::HandleCopy, &[copy, own, all, 0]))];
            (actions, (first, second, home))
        },
        |world, (first, second, home)| {
            assert_eq!(world.results(&first).0, Status::Ok);
            let (status, words) = world.results(&second);
            assert!(status == Status::BadHandle || world.find(&home, words[0]).is_none());
        },
    );
}

#[test]
fn memory_closed_while_it_is_mapped_stays_or_goes_as_a_whole() {
    every_order(
        2,
        |world| {
            let home = world.home(4 << 20);
            let own = world.grant(home.handle, &home, Rights::all(), 0);
            let (first, second) = (world.thread(&home, 0, 10), world.thread(&home, 1, 10));
            let memory = world.get(&first, Call::MemoryCreate, &[0x4000, 0]);
            assert_eq!(world.status(&first, Call::MemoryCommit, &[memory, 0, 0x4000]), Status::Ok);
            let map = call(Call::MemoryMap, &[memory, own, 0x10_0000, 0, 0x4000, u64::from(Rights::READ.bits())]);
            (vec![(0, map), (1, call(Call::HandleClose, &[memory]))], (first, second))
        },
        |world, (first, second)| {
            assert_eq!(world.results(&second).0, Status::Ok);
            let page = dragonfly_memory::UserVirt::new(0x10_0000);
            let is_mapped = world.results(&first).0 == Status::Ok;
            assert_eq!(world.fake.access(0, page, Rights::READ).is_some(), is_mapped);
        },
    );
}
