//! Pages and memory objects that one CPU changes and another uses.

use dragonfly_abi::{Call, Rights, Status};
use dragonfly_memory::UserVirt;

use super::{call, with_two_threads};
use crate::simulation::rounds::every_order;
use crate::simulation::world::Action;

#[test]
fn a_page_that_is_unmapped_while_it_is_touched_cannot_be_reached_after_that() {
    every_order(
        2,
        |world| {
            let (_, own, [first, second]) = with_two_threads(world);
            let memory = world.get(&first, Call::MemoryCreate, &[0x4000, 1]);
            let rights = u64::from((Rights::READ | Rights::WRITE).bits());
            let map = [memory, own, 0x10_0000, 0, 0x4000, rights];
            assert_eq!(world.status(&first, Call::MemoryMap, &map), Status::Ok);
            let page = UserVirt::new(0x10_1000);
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
            let (_, own, [first, second]) = with_two_threads(world);
            let memory = world.get(&first, Call::MemoryCreate, &[0x4000, 1]);
            let rights = u64::from((Rights::READ | Rights::WRITE).bits());
            for at in [0x10_0000, 0x20_0000] {
                let map = [memory, own, at, 0, 0x4000, rights];
                assert_eq!(world.status(&first, Call::MemoryMap, &map), Status::Ok);
            }
            let pages = [0x10_1000, 0x20_1000].map(UserVirt::new);
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
fn memory_closed_while_it_is_mapped_stays_or_goes_as_a_whole() {
    every_order(
        2,
        |world| {
            let (_, own, [first, second]) = with_two_threads(world);
            let memory = world.get(&first, Call::MemoryCreate, &[0x4000, 0]);
            assert_eq!(world.status(&first, Call::MemoryCommit, &[memory, 0, 0x4000]), Status::Ok);
            let map = call(Call::MemoryMap, &[memory, own, 0x10_0000, 0, 0x4000, u64::from(Rights::READ.bits())]);
            (vec![(0, map), (1, call(Call::HandleClose, &[memory]))], (first, second))
        },
        |world, (first, second)| {
            assert_eq!(world.results(&second).0, Status::Ok);
            let page = UserVirt::new(0x10_0000);
            let is_mapped = world.results(&first).0 == Status::Ok;
            assert_eq!(world.fake.access(0, page, Rights::READ).is_some(), is_mapped);
        },
    );
}
