//! Threads that wait, and those who end their waits: signals, calls, answers, time, errands.

use loom::sync::Arc;
use loom::thread;

use crate::kernel::{Cpu, END, Gate, Notification, TIMED_OUT, Thread, WAKE, bind, reply};
use crate::model;

#[test]
fn a_signal_reaches_a_waiter_that_comes_at_the_same_time() {
    loom::model(|| {
        let (cpu, notification, waiter) = (Arc::new(Cpu::new()), Notification::new(), Thread::make());
        let (other_cpu, other) = (cpu.clone(), notification.clone());
        let signaller = thread::spawn(move || other.signal(&other_cpu, 4));
        let found = notification.wait(&waiter);
        signaller.join().unwrap();
        match found {
            Some(bits) => assert_eq!(bits, 4),
            None => assert_eq!(cpu.empty_inbox(), [(WAKE, 4)]),
        }
        assert!(!waiter.wait.is_blocked() && notification.bits.get() == 0);
    });
}

#[test]
fn bits_of_two_signallers_are_all_given_or_still_set() {
    loom::model(|| {
        let (cpu, notification, waiter) = (Arc::new(Cpu::new()), Notification::new(), Thread::make());
        assert_eq!(notification.wait(&waiter), None);
        let (other_cpu, other) = (cpu.clone(), notification.clone());
        let signaller = thread::spawn(move || other.signal(&other_cpu, 1));
        notification.signal(&cpu, 2);
        signaller.join().unwrap();
        let given: Vec<_> = cpu.empty_inbox();
        assert!(matches!(given[..], [(WAKE, bits)] if bits != 0 && bits + notification.bits.get() == 3), "{given:?}");
    });
}

#[test]
fn a_wait_ends_by_a_signal_or_by_its_time_and_never_both() {
    loom::model(|| {
        let (cpu, notification, waiter) = (Arc::new(Cpu::new()), Notification::new(), Thread::make());
        assert_eq!(notification.wait(&waiter), None);
        let (other_cpu, other) = (cpu.clone(), notification.clone());
        let signaller = thread::spawn(move || other.signal(&other_cpu, 4));
        let has_timed_out = notification.time_out(&waiter);
        signaller.join().unwrap();
        if has_timed_out {
            assert_eq!((waiter.results(), notification.bits.get()), (TIMED_OUT, 4));
            assert!(cpu.empty_inbox().is_empty());
        } else {
            assert_eq!((cpu.empty_inbox(), notification.bits.get()), (vec![(WAKE, 4)], 0));
        }
    });
}

#[test]
fn bits_for_a_bound_gate_reach_a_receiver_that_comes_at_the_same_time() {
    loom::model(|| {
        let (cpu, notification, gate, server) =
            (Arc::new(Cpu::new()), Notification::new(), Gate::new(), Thread::make());
        bind(&notification, &cpu, &gate);
        let (other_cpu, other) = (cpu.clone(), notification.clone());
        let signaller = thread::spawn(move || other.signal(&other_cpu, 4));
        let found = gate.receive(&server);
        signaller.join().unwrap();
        match found {
            Some(bits) => assert_eq!(bits, 4),
            None => assert_eq!(cpu.empty_inbox(), [(WAKE, 4)]),
        }
        assert!(!server.wait.is_blocked() && notification.bits.get() == 0);
        notification.unbind();
    });
}

#[test]
fn bits_that_are_set_while_their_notification_is_bound_reach_the_gates_receiver() {
    loom::model(|| {
        let (cpu, notification, gate, server) =
            (Arc::new(Cpu::new()), Notification::new(), Gate::new(), Thread::make());
        assert_eq!(gate.receive(&server), None);
        let (other_cpu, other) = (cpu.clone(), notification.clone());
        let signaller = thread::spawn(move || other.signal(&other_cpu, 4));
        bind(&notification, &cpu, &gate);
        signaller.join().unwrap();
        assert_eq!((cpu.empty_inbox(), notification.bits.get()), (vec![(WAKE, 4)], 0));
        notification.unbind();
    });
}

#[test]
fn a_call_and_its_answer_carry_registers_to_another_cpu_and_back() {
    model(3, || {
        let (here, there) = (Arc::new(Cpu::new()), Arc::new(Cpu::new()));
        let (gate, caller, server) = (Gate::new(), Thread::make(), Thread::make());
        let (servers_gate, servers_here, servers_there) = (gate.clone(), here.clone(), there.clone());
        assert_eq!(gate.receive(&server), None);
        let other = thread::spawn(move || {
            loop {
                if let [(errands, word)] = servers_there.empty_inbox()[..] {
                    assert_eq!((errands, word), (WAKE, 7));
                    assert!(reply(&server, &servers_here, word + 1));
                    drop(servers_gate);
                    return;
                }
                thread::yield_now();
            }
        });
        gate.send(&caller, &there, 7);
        other.join().unwrap();
        assert_eq!(here.empty_inbox(), [(WAKE, 8)]);
    });
}

#[test]
fn a_call_ends_by_its_answer_or_by_its_time_and_never_both() {
    loom::model(|| {
        let here = Arc::new(Cpu::new());
        let (caller, server) = (Thread::make(), Thread::make());
        let token = caller.wait.block();
        *server.caller.lock() = Some((caller.clone(), token));
        let callers_cpu = here.clone();
        let other = thread::spawn(move || reply(&server, &callers_cpu, 8));
        let has_timed_out = caller.wait.claim_any();
        if has_timed_out {
            caller.set_results(TIMED_OUT);
        }
        assert_ne!(other.join().unwrap(), has_timed_out);
        let woken = here.empty_inbox();
        assert_eq!(woken, if has_timed_out { vec![] } else { vec![(WAKE, 8)] });
    });
}

#[test]
fn a_token_of_an_earlier_wait_claims_nothing() {
    loom::model(|| {
        let waiter = Thread::make();
        let old = waiter.wait.block();
        let late = waiter.clone();
        let other = thread::spawn(move || late.wait.claim(old));
        let is_mine = waiter.wait.claim_any();
        if is_mine {
            let next = waiter.wait.block();
            assert!(!other.join().unwrap());
            assert!(waiter.wait.is_in(next));
        } else {
            assert!(other.join().unwrap());
        }
    });
}

#[test]
fn an_errand_is_done_whoever_brought_the_thread_to_its_cpu() {
    model(3, || {
        let (cpu, victim) = (Arc::new(Cpu::new()), Thread::make());
        let others = [WAKE, END].map(|errand| {
            let (cpu, victim) = (cpu.clone(), victim.clone());
            thread::spawn(move || cpu.post(victim, errand))
        });
        let mut done = cpu.empty_inbox();
        others.into_iter().for_each(|other| other.join().unwrap());
        // Whoever came after that has kicked the CPU again.
        done.extend(cpu.empty_inbox());
        assert_eq!(done.iter().fold(0, |all, (errands, _)| all | errands), WAKE | END);
        assert!(cpu.inbox.is_empty() && victim.errands.noted() == 0);
    });
}
