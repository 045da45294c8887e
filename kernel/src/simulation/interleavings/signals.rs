//! Signals, and those who wait for them at a notification or at a gate.

use dragonfly_abi::{Call, FOREVER, Rights, Status};

use super::call;
use crate::simulation::rounds::every_order;
use crate::simulation::world::{Action, Home, World};

/// A domain, the keeper's handle to a notification, and the domain's.
fn with_notification(world: &mut World) -> (Home, u64, u64) {
    let home = world.home(1 << 20);
    let notification = world.keep(Call::NotificationCreate, &[]);
    let granted = world.grant(notification, &home, Rights::all(), 0);
    (home, notification, granted)
}

#[test]
fn a_signal_reaches_a_waiter_that_comes_at_the_same_time() {
    every_order(
        2,
        |world| {
            let (home, _, granted) = with_notification(world);
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
            let (home, notification, granted) = with_notification(world);
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
            let (home, _, granted) = with_notification(world);
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
                let (home, gate) = world.home_with_gate();
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
