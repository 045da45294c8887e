//! Handles, threads and domains that go while others use them.

use dragonfly_abi::{Call, FOREVER, Rights, Status};

use super::{call, named, with_two_threads};
use crate::simulation::rounds::every_order;
use crate::simulation::world::Action;
use crate::thread::Phase;

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
            for cpu in [0, 1] {
                world.thread(&home, cpu, 10);
            }
            let actions = vec![(0, call(Call::HandleClose, &[granted])), (1, call(Call::HandleClose, &[second]))];
            (actions, waiter)
        },
        |world, waiter| {
            assert!(world.is_current(&waiter), "the waiter is told that the gate is gone");
            assert_eq!(world.results(&waiter).0, Status::Aborted);
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
fn a_handle_copied_while_its_source_is_revoked_does_not_outlive_it() {
    every_order(
        2,
        |world| {
            let (home, own, [first, second]) = with_two_threads(world);
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
fn a_message_closed_while_it_is_bound_and_comes_leaves_its_number_to_the_next() {
    every_order(
        2,
        |world| {
            let home = world.home(1 << 20);
            let system = world.grant(world.system, &home, Rights::all(), 0);
            let (first, _) = (world.thread(&home, 0, 10), world.thread(&home, 1, 10));
            let message = world.get(&first, Call::DeviceMessage, &[system]);
            let notification = world.get(&first, Call::NotificationCreate, &[]);
            let bind = call(Call::InterruptBind, &[message, notification, 1, 0]);
            (vec![(0, bind), (1, call(Call::HandleClose, &[message]))], (first, system, notification))
        },
        |world, (first, system, notification)| {
            let _ = world.results(&first);
            world.perform(0, Action::Interrupt(crate::LINES));
            let message = world.get(&first, Call::DeviceMessage, &[system]);
            let (status, words) =
                world.act(&first, Call::InterruptBind, &[message, notification, 1, 0]).expect("results");
            assert_eq!((status, words[1]), (Status::Ok, u64::from(crate::LINES)));
        },
    );
}
