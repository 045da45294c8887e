use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

use dragonfly_vapic::{Effect, Trigger};

use crate::enabled;

/// How much each sender posts.
const POSTS: usize = 100_000;

/// Attempts in a row that find nothing to post, after which a sender ends: what it waits for was lost.
const ATTEMPTS: usize = 1_000_000;

/// Calls `try_to_post`, which says whether it did, until it did so often enough; gives how often.
fn send(senders_done: &AtomicUsize, mut try_to_post: impl FnMut() -> bool) -> usize {
    let (mut posted, mut attempts) = (0, 0);
    while posted < POSTS && attempts < ATTEMPTS {
        if try_to_post() {
            posted += 1;
            attempts = 0;
        } else {
            attempts += 1;
            thread::yield_now();
        }
    }
    senders_done.fetch_add(1, SeqCst);
    posted
}

/// A guest ends each interrupt at once, while two senders post those vectors of one word that are not under way.
#[test]
fn no_interrupt_is_lost_while_others_post() {
    let apic = enabled(0);
    let is_under_way = [const { AtomicBool::new(false) }; 0x80];
    let senders_done = AtomicUsize::new(0);
    let sender = || {
        let mut next = 0;
        send(&senders_done, || {
            let mut vectors = (0..0x40).map(|step| 0x40 + (next + step) % 0x40);
            let Some(vector) = vectors.find(|&vector| !is_under_way[vector].swap(true, SeqCst)) else {
                return false;
            };
            let trigger = if vector.is_multiple_of(2) { Trigger::Level } else { Trigger::Edge };
            apic.post(vector as u8, trigger);
            next = vector + 1;
            true
        })
    };
    thread::scope(|scope| {
        let senders = [scope.spawn(sender), scope.spawn(sender)];
        let mut delivered = 0;
        loop {
            let are_done = senders_done.load(SeqCst) == senders.len();
            // Work that is not announced is not found: the owner sleeps otherwise.
            if apic.has_work() {
                while let Some(vector) = apic.pending() {
                    apic.offer(vector);
                    // The guest takes it and lets the next one come before anybody notes that it has.
                    is_under_way[usize::from(vector)].store(false, SeqCst);
                    apic.accept(vector);
                    let is_level = vector.is_multiple_of(2);
                    assert_eq!(apic.end_of_interrupt(), Effect::Eoi { vector, is_level });
                    delivered += 1;
                }
            } else if are_done {
                break;
            } else {
                thread::yield_now();
            }
        }
        let posted: usize = senders.map(|sender| sender.join().expect("senders do not panic")).iter().sum();
        assert_eq!(delivered, posted);
    });
}

#[test]
fn no_request_is_lost_while_others_post() {
    let apic = enabled(1);
    let (is_nmi_under_way, is_startup_under_way) = (AtomicBool::new(false), AtomicBool::new(false));
    let senders_done = AtomicUsize::new(0);
    thread::scope(|scope| {
        let nmis = scope.spawn(|| {
            send(&senders_done, || {
                let is_free = !is_nmi_under_way.swap(true, SeqCst);
                if is_free {
                    apic.post_nmi();
                }
                is_free
            })
        });
        let startups = scope.spawn(|| {
            let mut vector = 0u8;
            send(&senders_done, || {
                let is_free = !is_startup_under_way.swap(true, SeqCst);
                if is_free {
                    vector = vector.wrapping_add(1);
                    apic.post_startup(vector);
                }
                is_free
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
