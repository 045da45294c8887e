use dragonfly_hw::x86::apic;
use dragonfly_vapic::{Effect, LocalApic, Trigger};

use crate::{deliver, deliver_all, enabled, read, write};

#[test]
fn nothing_is_pending_at_first() {
    let apic = enabled(0);
    assert_eq!(apic.pending(), None);
    assert_eq!(apic.priority_threshold(), None);
    assert!(!apic.has_work());
    assert!(apic.take_requests().is_empty());
}

#[test]
fn a_look_for_interrupts_forgets_no_other_request() {
    let apic = enabled(0);
    apic.post_nmi();
    assert_eq!(apic.pending(), None);
    assert!(!apic.has_work() && apic.has_requests());
    assert!(apic.take_requests().nmi());
    assert!(!apic.has_requests());
}

#[test]
fn the_highest_vector_is_delivered_first() {
    let apic = enabled(0);
    for vector in [0x41, 0xef, 0x10, 0x80, 0xff, 0x7f] {
        apic.post(vector, Trigger::Edge);
    }
    assert_eq!(deliver_all(&apic), [0xff, 0xef, 0x80, 0x7f, 0x41, 0x10]);
}

#[test]
fn a_vector_requested_twice_is_delivered_once() {
    let apic = enabled(0);
    apic.post(0x33, Trigger::Edge);
    apic.post(0x33, Trigger::Edge);
    assert_eq!(deliver_all(&apic), [0x33]);
}

#[test]
fn a_vector_in_service_can_be_requested_again() {
    let apic = enabled(0);
    apic.post(0x33, Trigger::Edge);
    deliver(&apic, 0x33);
    apic.post(0x33, Trigger::Edge);
    assert_eq!(apic.pending(), None);
    apic.end_of_interrupt();
    assert_eq!(apic.pending(), Some(0x33));
}

#[test]
fn a_higher_class_interrupts_one_in_service_and_its_own_class_does_not() {
    let apic = enabled(0);
    apic.post(0x51, Trigger::Edge);
    deliver(&apic, 0x51);
    apic.post(0x5f, Trigger::Edge);
    assert_eq!(apic.pending(), None);
    apic.post(0x60, Trigger::Edge);
    assert_eq!(apic.pending(), Some(0x60));
}

#[test]
fn interrupts_end_in_the_order_of_their_priority() {
    let apic = enabled(0);
    for vector in [0x21, 0x61, 0x72, 0xa1] {
        apic.post(vector, Trigger::Edge);
        deliver(&apic, vector);
    }
    for vector in [0xa1, 0x72, 0x61, 0x21] {
        assert_eq!(apic.end_of_interrupt(), Effect::Eoi { vector, is_level: false });
    }
    assert_eq!(apic.end_of_interrupt(), Effect::None);
}

#[test]
fn an_end_is_unseen_where_nothing_waits_for_it() {
    let apic = enabled(0);
    assert!(!apic.may_end_unseen(None), "nothing is in service");
    apic.post(0x51, Trigger::Edge);
    assert!(!apic.may_end_unseen(None), "it has not been offered");
    apic.offer(0x51);
    assert!(apic.may_end_unseen(Some(0x51)));
    apic.accept(0x51);
    assert!(apic.may_end_unseen(None));
    apic.post(0x41, Trigger::Edge);
    assert!(!apic.may_end_unseen(None), "one waits");
    apic.end_of_interrupt();
    deliver(&apic, 0x41);
    assert!(apic.may_end_unseen(None));
    apic.post(0x61, Trigger::Edge);
    apic.offer(0x61);
    assert!(!apic.may_end_unseen(Some(0x61)), "it is not clear which of two would end");
}

#[test]
fn the_end_of_a_level_triggered_interrupt_is_seen() {
    let apic = enabled(0);
    apic.post(0x51, Trigger::Level);
    apic.offer(0x51);
    assert!(!apic.may_end_unseen(Some(0x51)));
    apic.accept(0x51);
    assert!(!apic.may_end_unseen(None));
}

#[test]
fn the_end_of_an_interrupt_says_how_it_was_triggered_last() {
    let apic = enabled(0);
    for (trigger, is_level) in [(Trigger::Level, true), (Trigger::Edge, false), (Trigger::Level, true)] {
        apic.post(0x91, trigger);
        deliver(&apic, 0x91);
        assert_eq!(apic.end_of_interrupt(), Effect::Eoi { vector: 0x91, is_level });
    }
}

#[test]
fn the_task_priority_holds_back_its_class_and_those_below() {
    let apic = enabled(0);
    apic.post(0x45, Trigger::Edge);
    for (priority, pending) in [(0x00, Some(0x45)), (0x3f, Some(0x45)), (0x40, None), (0x4f, None), (0xf0, None)] {
        apic.set_task_priority(priority);
        assert_eq!(apic.pending(), pending, "TPR {priority:#x}");
        assert_eq!(apic.task_priority(), priority);
    }
}

#[test]
fn the_threshold_is_the_class_that_the_task_priority_holds_back() {
    let apic = enabled(0);
    apic.post(0x45, Trigger::Edge);
    for (priority, threshold) in [(0x3f, None), (0x40, Some(4)), (0xf0, Some(4))] {
        apic.set_task_priority(priority);
        assert_eq!(apic.priority_threshold(), threshold, "TPR {priority:#x}");
    }
}

#[test]
fn there_is_no_threshold_for_what_an_interrupt_in_service_holds_back() {
    let apic = enabled(0);
    apic.post(0x45, Trigger::Edge);
    deliver(&apic, 0x45);
    apic.post(0x46, Trigger::Edge);
    apic.set_task_priority(0x80);
    assert_eq!(apic.priority_threshold(), None);
    apic.post(0x51, Trigger::Edge);
    assert_eq!(apic.priority_threshold(), Some(5));
}

#[test]
fn the_processor_priority_is_the_higher_of_task_and_service() {
    let apic = enabled(0);
    apic.post(0x45, Trigger::Edge);
    deliver(&apic, 0x45);
    for (task, processor) in [(0x00, 0x40), (0x3f, 0x40), (0x43, 0x43), (0x57, 0x57)] {
        apic.set_task_priority(task);
        assert_eq!(apic.processor_priority(), processor, "TPR {task:#x}");
        assert_eq!(read(&apic, apic::PPR), u64::from(processor));
    }
}

#[test]
fn the_owner_is_told_once_of_each_kind_of_work() {
    let apic = enabled(0);
    assert!(apic.post(0x45, Trigger::Edge));
    assert!(!apic.post(0x45, Trigger::Edge));
    assert!(apic.post_nmi());
    assert!(!apic.post_nmi());
    assert!(apic.has_work());
    assert_eq!(apic.pending(), Some(0x45));
    assert!(!apic.has_work());
    assert!(apic.take_requests().nmi());
    assert!(apic.post(0x45, Trigger::Edge));
}

#[test]
fn requests_can_be_taken_once() {
    let apic = enabled(1);
    apic.post(0x45, Trigger::Edge);
    apic.post_nmi();
    apic.post_init();
    apic.post_startup(0x9a);
    let requests = apic.take_requests();
    assert!(requests.nmi() && requests.init());
    assert_eq!(requests.startup(), Some(0x9a));
    let requests = apic.take_requests();
    assert!(requests.is_empty() && !requests.nmi() && !requests.init());
    assert_eq!(requests.startup(), None);
    assert_eq!(apic.pending(), Some(0x45));
}

#[test]
fn a_start_up_does_not_survive_a_later_init() {
    for is_seen_between in [false, true] {
        let apic = enabled(1);
        apic.post_startup(0x9a);
        if is_seen_between {
            assert_eq!(apic.pending(), None);
        }
        apic.post_init();
        let requests = apic.take_requests();
        assert!(requests.init());
        assert_eq!(requests.startup(), None);
    }
}

#[test]
fn while_off_by_svr_it_accepts_requests_but_no_interrupts() {
    let apic = LocalApic::new(1);
    assert!(!apic.post(0x45, Trigger::Edge));
    apic.send_self(0x45);
    assert!(!apic.has_work());
    assert_eq!(apic.pending(), None);
    assert!(apic.post_nmi() && apic.post_init() && apic.post_startup(1));
}

#[test]
fn interrupts_requested_before_it_was_switched_off_by_svr_are_kept() {
    let apic = enabled(0);
    apic.post(0x45, Trigger::Edge);
    write(&apic, apic::SVR, 0xff);
    assert_eq!(apic.pending(), Some(0x45));
}

#[test]
fn an_init_leaves_nothing_but_identity_mode_and_requests() {
    let apic = enabled(0x25);
    apic.post(0x45, Trigger::Level);
    deliver(&apic, 0x45);
    apic.post(0x99, Trigger::Level);
    apic.set_task_priority(0x20);
    apic.post_startup(7);
    apic.reset();
    assert_eq!((apic.pending(), apic.task_priority(), apic.processor_priority()), (None, 0, 0));
    assert_eq!(apic.end_of_interrupt(), Effect::None);
    assert_eq!(read(&apic, apic::ID), 0x25);
    assert_eq!(read(&apic, apic::SVR), 0xff);
    for word in 0..8 {
        for set in [apic::ISR, apic::TMR, apic::IRR] {
            assert_eq!(read(&apic, set + word * 16), 0);
        }
    }
    assert_eq!(apic.take_requests().startup(), Some(7));
}

#[test]
fn an_interrupt_sent_again_after_the_guest_took_it_is_another_one() {
    let apic = enabled(0);
    apic.post(0x45, Trigger::Edge);
    apic.offer(0x45);
    apic.post(0x45, Trigger::Edge);
    apic.accept(0x45);
    assert_eq!(apic.pending(), None);
    apic.end_of_interrupt();
    assert_eq!(apic.pending(), Some(0x45));
}

#[test]
fn an_interrupt_that_the_guest_did_not_take_stays_requested() {
    let apic = enabled(0);
    apic.post(0x45, Trigger::Edge);
    assert_eq!(apic.pending(), Some(0x45));
    apic.offer(0x45);
    assert_eq!(apic.pending(), None);
    apic.withdraw(0x45);
    assert_eq!(deliver_all(&apic), [0x45]);
}
