use dragonfly_hw::x86::apic;
use dragonfly_vapic::{LocalApic, Trigger, VectorSet};

use crate::{deliver, deliver_all, enabled, read};

/// The set of these vectors.
fn set(vectors: &[u8]) -> VectorSet {
    let mut words = [0; 4];
    for vector in vectors {
        words[usize::from(vector / 64)] |= 1 << (vector % 64);
    }
    words
}

#[test]
fn what_is_lent_is_gone_and_what_is_given_back_is_there() {
    let apic = enabled(0);
    apic.post(0x51, Trigger::Edge);
    deliver(&apic, 0x51);
    for vector in [0x10, 0x7f, 0xff] {
        apic.post(vector, Trigger::Edge);
    }
    assert_eq!(apic.lend_requests(), set(&[0x10, 0x7f, 0xff]));
    assert_eq!((apic.pending(), apic.in_service(), apic.is_idle()), (None, set(&[0x51]), true));
    apic.take_back(set(&[0x10]), set(&[0x51, 0x7f]), 0x23);
    assert_eq!((apic.pending(), apic.task_priority(), apic.processor_priority()), (None, 0x23, 0x70));
    apic.end_of_interrupt();
    apic.end_of_interrupt();
    apic.set_task_priority(0);
    assert_eq!(deliver_all(&apic), [0x10]);
}

#[test]
fn a_request_that_comes_while_others_are_lent_is_lent_the_next_time() {
    let apic = enabled(0);
    apic.post(0x40, Trigger::Edge);
    assert_eq!(apic.lend_requests(), set(&[0x40]));
    assert!(apic.post(0x41, Trigger::Edge), "it is news to the owner");
    assert!(apic.has_work());
    assert_eq!(apic.lend_requests(), set(&[0x41]));
    assert_eq!(apic.lend_requests(), set(&[]));
}

#[test]
fn lending_leaves_other_requests_to_be_taken() {
    let apic = enabled(0);
    apic.post_nmi();
    apic.post(0x40, Trigger::Edge);
    assert_eq!(apic.lend_requests(), set(&[0x40]));
    assert!(apic.take_requests().nmi());
}

#[test]
fn requests_that_went_another_way_are_found_where_all_are() {
    let apic = enabled(0);
    apic.request_all(set(&[0x33, 0xf0]));
    assert_eq!(read(&apic, apic::IRR + 0x10), 1 << (0x33 - 0x20));
    assert_eq!(deliver_all(&apic), [0xf0, 0x33]);
}

#[test]
fn only_edges_that_would_be_accepted_may_go_another_way() {
    let off = LocalApic::new(0);
    assert!(!off.can_bypass(0x40, Trigger::Edge), "the APIC is off");
    let apic = enabled(0);
    assert!(apic.can_bypass(0x10, Trigger::Edge) && !apic.can_bypass(0x0f, Trigger::Edge));
    assert!(!apic.can_bypass(0x40, Trigger::Level));
    apic.post(0x40, Trigger::Level);
    assert_eq!(apic.level_triggered(), set(&[0x40]));
    assert!(!apic.can_bypass(0x40, Trigger::Edge), "TMR has to change");
    apic.post(0x40, Trigger::Edge);
    assert!(apic.can_bypass(0x40, Trigger::Edge));
}
