use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

use dragonfly_vapic::{Effect, LocalApic, Trigger};

use crate::enabled;

const SENDERS: usize = 2;
const ROUNDS: usize = 100_000;

/// Posts every vector of one kind that is not under way, over and over; gives how many were posted.
fn send(apic: &LocalApic, is_under_way: &[AtomicBool; 256], sender: usize) -> usize {
    (0..ROUNDS)
        .filter(|round| {
            // A stride that is no divisor of the words or classes, and shared by both senders.
            let vector = 16 + (round * 37 + sender) % 240;
            let is_free = !is_under_way[vector].swap(true, SeqCst);
            if is_free {
                let trigger = if vector.is_multiple_of(2) { Trigger::Level } else { Trigger::Edge };
                apic.post(vector as u8, trigger);
            } else {
                thread::yield_now();
            }
            is_free
        })
        .count()
}

#[test]
fn no_interrupt_is_lost_while_others_post() {
    let apic = enabled(0);
    let is_under_way = [const { AtomicBool::new(false) }; 256];
    let senders_done = AtomicUsize::new(0);
    let (posted, delivered) = thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let (apic, is_under_way, senders_done) = (&apic, &is_under_way, &senders_done);
                scope.spawn(move || {
                    let posted = send(apic, is_under_way, sender);
                    senders_done.fetch_add(1, SeqCst);
                    posted
                })
            })
            .collect();
        let mut delivered = 0;
        loop {
            let are_done = senders_done.load(SeqCst) == SENDERS;
            // Work that is not announced is not found: the owner sleeps otherwise.
            if apic.has_work() {
                while let Some(vector) = apic.pending() {
                    apic.accept(vector);
                    let is_level = vector.is_multiple_of(2);
                    assert_eq!(apic.end_of_interrupt(), Effect::Eoi { vector, is_level });
                    is_under_way[usize::from(vector)].store(false, SeqCst);
                    delivered += 1;
                }
            } else if are_done {
                break;
            } else {
                thread::yield_now();
            }
        }
        (senders.into_iter().map(|sender| sender.join().expect("senders do not panic")).sum::<usize>(), delivered)
    });
    assert_eq!(delivered, posted);
    assert!(posted > 240, "the senders went round");
}

#[test]
fn no_request_is_lost_while_others_post() {
    let apic = enabled(1);
    let (is_nmi_under_way, is_startup_under_way) = (AtomicBool::new(false), AtomicBool::new(false));
    let senders_done = AtomicUsize::new(0);
    let send = |is_under_way: &AtomicBool, post: &dyn Fn(usize)| {
        let mut posted = 0;
        for _ in 0..ROUNDS {
            if !is_under_way.swap(true, SeqCst) {
                posted += 1;
                post(posted);
            } else {
                thread::yield_now();
            }
        }
        senders_done.fetch_add(1, SeqCst);
        posted
    };
    thread::scope(|scope| {
        let nmis = scope.spawn(|| {
            send(&is_nmi_under_way, &|_| {
                apic.post_nmi();
            })
        });
        let startups = scope.spawn(|| {
            send(&is_startup_under_way, &|count| {
                apic.post_startup((count % 256) as u8);
            })
        });
        let (mut nmis_taken, mut startups_taken) = (0, 0);
        loop {
            let are_done = senders_done.load(SeqCst) == 2;
            let requests = apic.take_requests();
            if requests.nmi() {
                nmis_taken += 1;
                is_nmi_under_way.store(false, SeqCst);
            }
            if let Some(vector) = requests.startup() {
                startups_taken += 1;
                assert_eq!(usize::from(vector), startups_taken % 256);
                is_startup_under_way.store(false, SeqCst);
            }
            match requests.is_empty() {
                true if are_done => break,
                true => thread::yield_now(),
                false => {}
            }
        }
        assert_eq!(nmis_taken, nmis.join().expect("the sender does not panic"));
        assert_eq!(startups_taken, startups.join().expect("the sender does not panic"));
    });
}
