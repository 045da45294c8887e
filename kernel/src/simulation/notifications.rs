//! Notifications, the gates they are bound to, thread timers and interrupt lines.

use dragonfly_abi::{Call, FOREVER, MessageKind, MessageTag, Rights, Status};

use super::world::{Action, Actor, Home, World, word};

/// A domain with a thread on CPU 0 and a notification of it.
fn scene(world: &mut World) -> (Home, Actor, u64) {
    let (home, actor, _) = world.settler(0, 10);
    let notification = world.get(&actor, Call::NotificationCreate, &[]);
    (home, actor, notification)
}

#[test]
fn bits_add_up_until_they_are_taken_all_at_once() {
    let mut world = World::new(1);
    let (_, actor, notification) = scene(&mut world);
    for bits in [1, 4, 4, 0] {
        assert_eq!(world.status(&actor, Call::NotificationSignal, &[notification, bits]), Status::Ok);
    }
    assert_eq!(world.get(&actor, Call::NotificationWait, &[notification, FOREVER]), 5);
    assert_eq!(world.status(&actor, Call::NotificationWait, &[notification, 0]), Status::WouldBlock);
    world.finish();
}

#[test]
fn a_badged_handle_signals_its_badge() {
    let mut world = World::new(1);
    let (_, actor, own) = world.settler(0, 10);
    let notification = world.get(&actor, Call::NotificationCreate, &[]);
    let badged = world.get(&actor, Call::HandleCopy, &[notification, own, word(Rights::all()), 8]);
    assert_eq!(world.status(&actor, Call::NotificationSignal, &[badged, 1]), Status::Ok);
    assert_eq!(world.get(&actor, Call::NotificationWait, &[notification, FOREVER]), 8);
    world.finish();
}

#[test]
fn a_signal_wakes_the_waiter_that_came_first_and_no_other() {
    let mut world = World::new(1);
    let (home, actor, notification) = scene(&mut world);
    let waiters = [(); 2].map(|()| {
        let waiter = world.thread(&home, 0, 20);
        world.wait(&waiter, Call::NotificationWait, &[notification, FOREVER]);
        waiter
    });
    world.wait(&actor, Call::NotificationSignal, &[notification, 2]);
    assert_eq!(world.results(&waiters[0]), (Status::Ok, [2, 0, 0, 0, 0, 0]));
    assert!(world.thread_of(&waiters[1]).is_blocked());
    world.finish();
}

#[test]
fn a_more_urgent_waiter_on_another_cpu_runs_when_its_kick_comes() {
    let mut world = World::new(2);
    let (home, actor, notification) = scene(&mut world);
    let waiter = world.thread(&home, 1, 20);
    world.wait(&waiter, Call::NotificationWait, &[notification, FOREVER]);
    let other = world.thread(&home, 1, 5);
    assert_eq!(world.status(&actor, Call::NotificationSignal, &[notification, 2]), Status::Ok);
    assert!(world.is_current(&other));
    world.deliver(1);
    assert_eq!(world.results(&waiter).1[0], 2);
    world.finish();
}

#[test]
fn a_wait_ends_with_its_time_and_leaves_later_bits_alone() {
    let mut world = World::new(1);
    let (_, actor, notification) = scene(&mut world);
    world.wait(&actor, Call::NotificationWait, &[notification, 3_000]);
    world.advance(3_000);
    assert_eq!(world.results(&actor).0, Status::TimedOut);
    assert_eq!(world.status(&actor, Call::NotificationSignal, &[notification, 1]), Status::Ok);
    assert_eq!(world.get(&actor, Call::NotificationWait, &[notification, 0]), 1);
    world.finish();
}

#[test]
fn of_a_wake_and_a_time_out_at_the_same_moment_the_wake_counts_in_either_order() {
    for is_timer_first in [false, true] {
        let mut world = World::new(2);
        let (home, actor, notification) = scene(&mut world);
        let waiter = world.thread(&home, 1, 10);
        world.wait(&waiter, Call::NotificationWait, &[notification, 1_000]);
        world.fake.advance(1_000);
        assert_eq!(world.status(&actor, Call::NotificationSignal, &[notification, 1]), Status::Ok);
        if is_timer_first {
            assert!(world.tick(1));
            assert!(world.deliver(1));
        } else {
            assert!(world.deliver(1));
            world.tick(1);
        }
        world.advance(1_000_000);
        assert_eq!(world.results(&waiter), (Status::Ok, [1, 0, 0, 0, 0, 0]));
        world.finish();
    }
}

#[test]
fn bits_of_a_bound_notification_come_as_messages() {
    let mut world = World::new(1);
    let (home, actor, notification) = scene(&mut world);
    let gate = world.get(&actor, Call::GateCreate, &[]);
    assert_eq!(world.status(&actor, Call::NotificationBind, &[notification, gate]), Status::Ok);
    assert_eq!(world.status(&actor, Call::NotificationBind, &[notification, gate]), Status::Busy);
    // Set before a receiver comes …
    assert_eq!(world.status(&actor, Call::NotificationSignal, &[notification, 6]), Status::Ok);
    let (status, words) = world.act(&actor, Call::Receive, &[gate, FOREVER]).unwrap();
    assert_eq!((status, MessageTag(words[1]).kind(), words[2]), (Status::Ok, MessageKind::Notification, 6));
    // … and while one waits. They want no answer.
    let server = world.thread(&home, 0, 20);
    world.wait(&server, Call::Receive, &[gate, FOREVER]);
    world.wait(&actor, Call::NotificationSignal, &[notification, 1]);
    assert_eq!(world.results(&server).1[2], 1);
    assert_eq!(world.status(&server, Call::Reply, &[0, 0]), Status::NoCaller);
    world.finish();
}

#[test]
fn bits_that_are_set_already_reach_a_receiver_when_they_are_bound() {
    let mut world = World::new(1);
    let (home, actor, notification) = scene(&mut world);
    let gate = world.get(&actor, Call::GateCreate, &[]);
    let server = world.thread(&home, 0, 20);
    world.wait(&server, Call::Receive, &[gate, FOREVER]);
    assert_eq!(world.status(&actor, Call::NotificationSignal, &[notification, 3]), Status::Ok);
    world.wait(&actor, Call::NotificationBind, &[notification, gate]);
    assert_eq!(world.results(&server).1[2], 3);
    world.finish();
}

#[test]
fn a_thread_waits_for_the_bits_itself_before_the_gate_gets_them() {
    let mut world = World::new(1);
    let (home, actor, notification) = scene(&mut world);
    let gate = world.get(&actor, Call::GateCreate, &[]);
    assert_eq!(world.status(&actor, Call::NotificationBind, &[notification, gate]), Status::Ok);
    let (server, waiter) = (world.thread(&home, 0, 20), world.thread(&home, 0, 15));
    let _ = waiter;
    world.wait(&server, Call::Receive, &[gate, FOREVER]);
    world.wait(&waiter, Call::NotificationWait, &[notification, FOREVER]);
    world.wait(&actor, Call::NotificationSignal, &[notification, 3]);
    assert_eq!(world.results(&waiter).1[0], 3);
    assert!(world.thread_of(&server).is_blocked());
    world.finish();
}

#[test]
fn a_timer_signals_at_its_time_once_and_can_be_moved_or_disarmed() {
    let mut world = World::new(1);
    let (_, actor, notification) = scene(&mut world);
    let now = world.get(&actor, Call::ClockNow, &[]);
    let poll = [notification, 0];
    assert_eq!(world.status(&actor, Call::TimerArm, &[notification, now + 5_000, 1]), Status::Ok);
    assert_eq!(world.status(&actor, Call::TimerArm, &[notification, now + 2_000, 2]), Status::Ok);
    world.advance(1_999);
    assert_eq!(world.status(&actor, Call::NotificationWait, &poll), Status::WouldBlock);
    world.advance(1);
    assert_eq!(world.get(&actor, Call::NotificationWait, &poll), 2);
    world.advance(10_000);
    assert_eq!(world.status(&actor, Call::NotificationWait, &poll), Status::WouldBlock);
    // A time in the past comes at once; a disarmed timer never does.
    assert_eq!(world.status(&actor, Call::TimerArm, &[notification, 0, 4]), Status::Ok);
    world.step_all();
    assert_eq!(world.get(&actor, Call::NotificationWait, &poll), 4);
    assert_eq!(world.status(&actor, Call::TimerArm, &[notification, now + 20_000, 8]), Status::Ok);
    assert_eq!(world.status(&actor, Call::TimerArm, &[notification, FOREVER, 8]), Status::Ok);
    world.advance(100_000);
    assert_eq!(world.status(&actor, Call::NotificationWait, &poll), Status::WouldBlock);
    world.finish();
}

#[test]
fn the_last_thread_of_a_domain_signals_its_end() {
    let mut world = World::new(1);
    let notification = world.keep(Call::NotificationCreate, &[]);
    let words = [world.root.handle, 1 << 20, 63, 1, notification, 0x40];
    let child = Home { handle: world.keep(Call::DomainCreate, &words) };
    let threads = [(); 2].map(|()| world.thread(&child, 0, 10));
    world.wait(&threads[0], Call::ThreadExit, &[]);
    assert_eq!(world.ask(Call::NotificationWait, &[notification, 0]).0, Status::WouldBlock);
    world.wait(&threads[1], Call::ThreadExit, &[]);
    assert_eq!(world.keep(Call::NotificationWait, &[notification, 0]), 0x40);
    world.finish();
}

#[test]
fn an_interrupt_sets_its_bits_and_stays_masked_until_it_is_acknowledged() {
    let mut world = World::new(2);
    let (home, actor, notification) = scene(&mut world);
    let system = world.grant(world.system, &home, Rights::all(), 0);
    let line = world.get(&actor, Call::DeviceInterrupt, &[system, 4, 1]);
    assert_eq!(world.status(&actor, Call::InterruptAcknowledge, &[line]), Status::BadState);
    assert_eq!(world.status(&actor, Call::InterruptBind, &[line, notification, 2, 1]), Status::Ok);
    assert_eq!(world.fake.open_lines(), [(4, 1)]);
    world.perform(1, Action::Interrupt(4));
    assert_eq!(world.get(&actor, Call::NotificationWait, &[notification, 0]), 2);
    assert_eq!(world.fake.open_lines(), []);
    assert_eq!(world.status(&actor, Call::InterruptAcknowledge, &[line]), Status::Ok);
    assert_eq!(world.fake.open_lines(), [(4, 1)]);
    world.finish();
}

#[test]
fn a_line_has_one_binder_at_a_time() {
    let mut world = World::new(1);
    let (home, actor, notification) = scene(&mut world);
    let system = world.grant(world.system, &home, Rights::all(), 0);
    let lines = [(); 2].map(|()| world.get(&actor, Call::DeviceInterrupt, &[system, 4, 0]));
    let bind = |line, notification| [line, notification, 1, 0];
    assert_eq!(world.status(&actor, Call::InterruptBind, &bind(lines[0], notification)), Status::Ok);
    assert_eq!(world.status(&actor, Call::InterruptBind, &bind(lines[1], notification)), Status::Busy);
    assert_eq!(world.status(&actor, Call::InterruptBind, &bind(lines[0], 0)), Status::Ok);
    assert_eq!(world.status(&actor, Call::InterruptBind, &bind(lines[1], notification)), Status::Ok);
    assert_eq!(world.status(&actor, Call::HandleClose, &[lines[1]]), Status::Ok);
    assert_eq!(world.fake.open_lines(), []);
    assert_eq!(world.status(&actor, Call::InterruptBind, &bind(lines[0], notification)), Status::Ok);
    world.finish();
}

#[test]
fn a_message_sets_its_bits_each_time_and_has_nothing_to_acknowledge() {
    let mut world = World::new(2);
    let (home, actor, notification) = scene(&mut world);
    let system = world.grant(world.system, &home, Rights::all(), 0);
    let weak = world.grant(world.system, &home, Rights::all() - Rights::DMA, 0);
    assert_eq!(world.status(&actor, Call::DeviceMessage, &[weak]), Status::Denied);
    let message = world.get(&actor, Call::DeviceMessage, &[system]);
    assert_eq!(world.status(&actor, Call::InterruptAcknowledge, &[message]), Status::BadState);
    // What came before there was a binding is nobody's.
    world.perform(1, Action::Interrupt(crate::LINES));
    let (status, words) = world.act(&actor, Call::InterruptBind, &[message, notification, 2, 1]).expect("results");
    assert_eq!((status, words), (Status::Ok, [0xfee0_1000, crate::LINES.into(), 0, 0, 0, 0]));
    let poll = [notification, 0];
    assert_eq!(world.status(&actor, Call::NotificationWait, &poll), Status::WouldBlock);
    for _ in 0..3 {
        world.perform(1, Action::Interrupt(crate::LINES));
        assert_eq!(world.get(&actor, Call::NotificationWait, &poll), 2);
    }
    assert_eq!(world.status(&actor, Call::InterruptAcknowledge, &[message]), Status::Ok);
    assert_eq!(world.status(&actor, Call::InterruptBind, &[message, 0, 0, 0]), Status::Ok);
    world.perform(1, Action::Interrupt(crate::LINES));
    assert_eq!(world.status(&actor, Call::NotificationWait, &poll), Status::WouldBlock);
    assert_eq!(world.fake.open_lines(), []);
    world.finish();
}

#[test]
fn messages_have_numbers_of_their_own_which_come_back_when_they_go() {
    let mut world = World::new(1);
    let (home, actor, notification) = scene(&mut world);
    let system = world.grant(world.system, &home, Rights::all(), 0);
    let make = |world: &mut World| world.act(&actor, Call::DeviceMessage, &[system]).expect("results");
    let mut messages = Vec::new();
    for number in crate::LINES..crate::LINES + crate::MESSAGES {
        let (status, [message, ..]) = make(&mut world);
        assert_eq!(status, Status::Ok);
        let bound = world.act(&actor, Call::InterruptBind, &[message, notification, 1, 0]).expect("results");
        assert_eq!(bound.1[1], u64::from(number));
        messages.push(message);
    }
    assert_eq!(make(&mut world).0, Status::NoHandles);
    // Unbound, one still has its number; closed, it has not.
    assert_eq!(world.status(&actor, Call::InterruptBind, &[messages[7], 0, 0, 0]), Status::Ok);
    assert_eq!(make(&mut world).0, Status::NoHandles);
    assert_eq!(world.status(&actor, Call::HandleClose, &[messages[7]]), Status::Ok);
    let (status, [message, ..]) = make(&mut world);
    assert_eq!(status, Status::Ok);
    let bound = world.act(&actor, Call::InterruptBind, &[message, notification, 1, 0]).expect("results");
    assert_eq!(bound.1[1], u64::from(crate::LINES + 7));
    world.finish();
}
