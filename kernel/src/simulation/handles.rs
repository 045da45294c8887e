//! Handles: copies, rights, badges, revocation, the end of objects.

use dragonfly_abi::{Call, FOREVER, ObjectType, Rights, Status};
use dragonfly_memory::UserVirt;
use proptest::prelude::*;

use super::world::{World, word};

const ALL: Rights = Rights::all();

#[test]
fn a_copy_names_the_same_object_with_no_more_rights_than_its_source() {
    let mut world = World::new(1);
    let (_, actor, own) = world.settler(0, 10);
    let gate = world.get(&actor, Call::GateCreate, &[]);
    let narrow = word(Rights::COPY | Rights::SEND);
    let sender = world.get(&actor, Call::HandleCopy, &[gate, own, narrow, 0]);
    let again = world.get(&actor, Call::HandleCopy, &[sender, own, word(ALL), 0]);
    let (status, info) = world.act(&actor, Call::HandleInfo, &[again]).unwrap();
    assert_eq!((status, info[..3].to_vec()), (Status::Ok, vec![ObjectType::Gate as u64, narrow, 0]));
    assert_eq!(world.status(&actor, Call::Receive, &[again, 0]), Status::Denied);
    assert_eq!(world.status(&actor, Call::Receive, &[gate, 0]), Status::WouldBlock);
    world.finish();
}

#[test]
fn a_handle_without_the_right_to_copy_cannot_be_copied() {
    let mut world = World::new(1);
    let (_, actor, own) = world.settler(0, 10);
    let gate = world.get(&actor, Call::GateCreate, &[]);
    let fixed = world.get(&actor, Call::HandleCopy, &[gate, own, word(ALL - Rights::COPY), 0]);
    assert_eq!(world.status(&actor, Call::HandleCopy, &[fixed, own, word(ALL), 0]), Status::Denied);
    world.finish();
}

#[test]
fn a_badge_is_given_once_and_kept() {
    let mut world = World::new(1);
    let (_, actor, own) = world.settler(0, 10);
    let gate = world.get(&actor, Call::GateCreate, &[]);
    let badged = world.get(&actor, Call::HandleCopy, &[gate, own, word(ALL), 7]);
    assert_eq!(world.status(&actor, Call::HandleCopy, &[badged, own, word(ALL), 8]), Status::BadArgument);
    let copy = world.get(&actor, Call::HandleCopy, &[badged, own, word(ALL), 0]);
    assert_eq!(world.act(&actor, Call::HandleInfo, &[copy]).unwrap().1[2], 7);
    world.finish();
}

#[test]
fn a_handle_needs_the_right_to_give_before_a_domains_table_takes_it() {
    let mut world = World::new(1);
    let (_, actor, own) = world.settler(0, 10);
    let gate = world.get(&actor, Call::GateCreate, &[]);
    let narrow = world.get(&actor, Call::HandleCopy, &[own, own, word(ALL - Rights::GRANT), 0]);
    assert_eq!(world.status(&actor, Call::HandleCopy, &[gate, narrow, word(ALL), 0]), Status::Denied);
    assert_eq!(world.status(&actor, Call::HandleCopy, &[gate, gate, word(ALL), 0]), Status::BadType);
    world.finish();
}

#[test]
fn a_closed_handle_is_stale_even_when_its_slot_is_used_again() {
    let mut world = World::new(1);
    let (_, actor, _) = world.settler(0, 10);
    let first = world.get(&actor, Call::GateCreate, &[]);
    assert_eq!(world.status(&actor, Call::HandleClose, &[first]), Status::Ok);
    let second = world.get(&actor, Call::GateCreate, &[]);
    assert_eq!(first & 0xffff, second & 0xffff);
    assert_eq!(world.status(&actor, Call::HandleInfo, &[first]), Status::BadHandle);
    assert_eq!(world.status(&actor, Call::HandleInfo, &[second]), Status::Ok);
    for garbage in [0, u64::MAX, 1 << 32 | second, 8191] {
        assert_eq!(world.status(&actor, Call::HandleInfo, &[garbage]), Status::BadHandle);
    }
    world.finish();
}

#[test]
fn revoking_takes_copies_and_mappings_from_every_domain_but_not_the_handle() {
    let mut world = World::new(3);
    let (first_home, first, first_own) = world.settler(0, 10);
    let (second_home, second, second_own) = world.settler(1, 10);
    let (third_home, third, third_own) = world.settler(2, 10);
    let memory = world.get(&first, Call::MemoryCreate, &[0x4000, 1]);
    // From the first domain to the second, and from there to the third.
    let to_second = world.grant(second_home.handle, &first_home, ALL, 0);
    let in_second = world.get(&first, Call::HandleCopy, &[memory, to_second, word(ALL), 0]);
    let to_third = world.grant(third_home.handle, &second_home, ALL, 0);
    let in_third = world.get(&second, Call::HandleCopy, &[in_second, to_third, word(ALL), 0]);
    let readable = word(Rights::READ);
    for (actor, handle, own) in
        [(&first, memory, first_own), (&second, in_second, second_own), (&third, in_third, third_own)]
    {
        let map = [handle, own, 0x10_0000, 0, 0x4000, readable];
        assert_eq!(world.status(actor, Call::MemoryMap, &map), Status::Ok);
    }
    let page = UserVirt::new(0x10_2000);
    for cpu in 0..3 {
        world.perform(cpu, super::world::Action::Touch(page, Rights::READ));
        assert!(world.fake.access(cpu, page, Rights::READ).is_some());
    }
    assert_eq!(world.complete(&first, Call::HandleRevoke, &[memory]), Status::Ok);
    assert_eq!(world.status(&second, Call::HandleInfo, &[in_second]), Status::BadHandle);
    assert_eq!(world.status(&third, Call::HandleInfo, &[in_third]), Status::BadHandle);
    for cpu in 0..3 {
        assert_eq!(world.fake.access(cpu, page, Rights::READ), None);
    }
    assert_eq!(world.act(&first, Call::MemoryInfo, &[memory]).unwrap().1[2], 0);
    world.finish();
}

#[test]
fn closing_a_handle_leaves_its_copies_to_its_source() {
    let mut world = World::new(1);
    let (_, actor, own) = world.settler(0, 10);
    let source = world.get(&actor, Call::GateCreate, &[]);
    let middle = world.get(&actor, Call::HandleCopy, &[source, own, word(ALL), 0]);
    let last = world.get(&actor, Call::HandleCopy, &[middle, own, word(ALL), 0]);
    assert_eq!(world.status(&actor, Call::HandleClose, &[middle]), Status::Ok);
    assert_eq!(world.status(&actor, Call::HandleInfo, &[last]), Status::Ok);
    assert_eq!(world.status(&actor, Call::HandleRevoke, &[source]), Status::Ok);
    assert_eq!(world.status(&actor, Call::HandleInfo, &[last]), Status::BadHandle);
    world.finish();
}

#[test]
fn the_last_close_of_a_gate_tells_callers_and_receivers() {
    for is_caller in [false, true] {
        let mut world = World::new(1);
        let (home, actor, own) = world.settler(0, 10);
        let gate = world.get(&actor, Call::GateCreate, &[]);
        let copy = world.get(&actor, Call::HandleCopy, &[gate, own, word(ALL), 0]);
        let waiter = world.thread(&home, 0, 20);
        if is_caller {
            world.wait(&waiter, Call::Call, &[gate, 0]);
        } else {
            world.wait(&waiter, Call::Receive, &[gate, FOREVER]);
        }
        assert_eq!(world.status(&actor, Call::HandleClose, &[copy]), Status::Ok);
        assert!(world.is_current(&actor));
        world.act(&actor, Call::HandleClose, &[gate]);
        assert_eq!(world.results(&waiter).0, Status::Aborted);
        world.finish();
    }
}

#[test]
fn the_last_close_of_a_notification_tells_waiters_and_frees_its_gate() {
    let mut world = World::new(1);
    let (home, actor, _) = world.settler(0, 10);
    let notification = world.get(&actor, Call::NotificationCreate, &[]);
    let gate = world.get(&actor, Call::GateCreate, &[]);
    assert_eq!(world.status(&actor, Call::NotificationBind, &[notification, gate]), Status::Ok);
    let waiter = world.thread(&home, 0, 20);
    world.wait(&waiter, Call::NotificationWait, &[notification, FOREVER]);
    world.act(&actor, Call::HandleClose, &[notification]);
    assert_eq!(world.results(&waiter).0, Status::Aborted);
    world.wait(&waiter, Call::ThreadExit, &[]);
    let _ = world.results(&actor);
    let other = world.get(&actor, Call::NotificationCreate, &[]);
    assert_eq!(world.status(&actor, Call::NotificationBind, &[other, gate]), Status::Ok);
    world.finish();
}

#[test]
fn frames_go_with_the_last_handle_or_mapping_of_their_object() {
    for handle_goes_last in [false, true] {
        let mut world = World::new(1);
        let (_, actor, own) = world.settler(0, 10);
        let before = world.figures();
        let memory = world.get(&actor, Call::MemoryCreate, &[0x8000, 0]);
        assert_eq!(world.complete(&actor, Call::MemoryCommit, &[memory, 0, 0x8000]), Status::Ok);
        let map = [memory, own, 0x10_0000, 0, 0x8000, word(Rights::READ)];
        assert_eq!(world.status(&actor, Call::MemoryMap, &map), Status::Ok);
        let close = (Call::HandleClose, [memory, 0]);
        let unmap = (Call::MemoryUnmap, [own, 0x10_0000]);
        for (call, words) in if handle_goes_last { [unmap, close] } else { [close, unmap] } {
            assert_eq!(world.complete(&actor, call, &words), Status::Ok);
        }
        assert_eq!(world.figures(), before);
        world.finish();
    }
}

#[test]
fn a_thread_lives_without_handles_and_goes_when_it_ends() {
    let mut world = World::new(1);
    let (home, actor, _) = world.settler(0, 10);
    let before = world.figures();
    let child = world.thread(&home, 0, 20);
    assert_eq!(world.keep(Call::HandleClose, &[child.handle]), 0);
    assert_eq!(world.call(0, Call::ClockNow, &[]).unwrap().0, Status::Ok);
    assert_eq!(world.call(0, Call::ThreadExit, &[]), None);
    assert!(world.is_current(&actor));
    assert_eq!(world.figures(), before);
    world.finish();
}

#[test]
fn a_full_table_refuses_and_serves_again() {
    let mut world = World::new(1);
    let home = world.home(8 << 20);
    let own = world.grant(home.handle, &home, ALL, 0);
    let actor = world.thread(&home, 0, 10);
    // Each look at the kernel takes time in proportion to its handles.
    world.is_audited = false;
    let mut last = 0;
    loop {
        let (status, words) = world.act(&actor, Call::HandleCopy, &[own, own, word(ALL), 0]).unwrap();
        if status != Status::Ok {
            assert_eq!(status, Status::NoHandles);
            break;
        }
        last = words[0];
    }
    assert_eq!(world.status(&actor, Call::GateCreate, &[]), Status::NoHandles);
    assert_eq!(world.status(&actor, Call::HandleClose, &[last]), Status::Ok);
    assert_eq!(world.status(&actor, Call::GateCreate, &[]), Status::Ok);
    world.finish();
}

proptest! {
    #![proptest_config(super::config(64))]

    #[test]
    fn a_table_names_what_a_set_of_handles_holds_and_nothing_that_was_closed(
        steps in proptest::collection::vec((0_u8..5, any::<u16>()), 1..400),
    ) {
        let mut world = World::new(1);
        let (_, actor, own) = world.settler(0, 10);
        // Each look at the kernel takes time in proportion to its handles.
        world.is_audited = false;
        let (mut live, mut stale) = (Vec::new(), vec![0, 1 << 16]);
        for (kind, choice) in steps {
            let choice = usize::from(choice);
            match kind {
                0 if !live.is_empty() => {
                    let closed = live.swap_remove(choice % live.len());
                    assert_eq!(world.status(&actor, Call::HandleClose, &[closed]), Status::Ok);
                    stale.push(closed);
                }
                1 => {
                    let handle = stale[choice % stale.len()];
                    assert_eq!(world.status(&actor, Call::HandleInfo, &[handle]), Status::BadHandle);
                    assert_eq!(world.status(&actor, Call::HandleClose, &[handle]), Status::BadHandle);
                }
                2 if !live.is_empty() => {
                    let handle = live[choice % live.len()];
                    let (status, words) = world.act(&actor, Call::HandleInfo, &[handle]).expect("an answer");
                    assert_eq!((status, words[0]), (Status::Ok, ObjectType::Domain as u64));
                }
                _ => {
                    let handle = world.get(&actor, Call::HandleCopy, &[own, own, word(ALL), 0]);
                    assert!(!live.contains(&handle) && !stale.contains(&handle), "{handle:#x} was there before");
                    live.push(handle);
                }
            }
        }
        let count = world.act(&actor, Call::DomainInfo, &[own]).expect("an answer").1[3];
        assert_eq!(count, live.len() as u64 + 1);
        world.finish();
    }
}
