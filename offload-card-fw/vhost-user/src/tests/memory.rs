use super::*;
use crate::MessageError;

fn region(place: u64) -> Region {
    Region {
        guest_address: 0x100_0000 * place,
        size: 0x10_0000,
        user_address: 0x7e00_0000_0000 + (place << 32),
        mmap_offset: 0,
    }
}

#[test]
fn a_table_of_regions_is_mapped_in_order_with_its_resources() {
    let mut setup = Setup::negotiated();
    setup.set_memory(&[region(1), region(2)], &[7, 8]).unwrap();
    assert_eq!(setup.platform.regions.values().copied().collect::<Vec<_>>(), [(region(1), 7), (region(2), 8)]);
}

#[test]
fn rings_go_on_where_they_were_when_memory_is_replaced() {
    let mut setup = Setup::running();
    let moved = Region { guest_address: 0x4000_0000, ..RAM };
    setup.set_memory(&[moved], &[2]).unwrap();
    let ring = setup.device.running[&1];
    assert_eq!((ring.descriptor, ring.base), (0x4001_0000, 12));
    assert_eq!(setup.platform.regions[&0x4000_0000], (moved, 2));
}

#[test]
fn memory_that_is_taken_from_under_a_ring_ends_the_session() {
    let mut setup = Setup::running();
    let address = RAM.user_address + 0x1_0000;
    let error = SessionError::RingOutside { index: 1, part: "descriptor table", address };
    assert_eq!(setup.set_memory(&[region(1)], &[2]), Err(error));
    assert!(setup.device.running.is_empty());
}

#[test]
fn regions_come_and_go_one_by_one() {
    let mut setup = Setup::running();
    let single = |region: Region| [0u64.as_bytes(), region.as_bytes()].concat();
    setup.tell_with(Request::AddMemReg, &single(region(1))[..], &[7]).unwrap();
    assert_eq!(setup.platform.regions.len(), 2);
    // A needless resource is taken and dropped.
    setup.tell_with(Request::RemMemReg, &single(region(1))[..], &[7]).unwrap();
    assert_eq!(setup.platform.regions.len(), 1);
    assert!(setup.device.running.contains_key(&1));
    let gone = setup.tell(Request::RemMemReg, &single(region(1))[..]);
    assert_eq!(gone, Err(SessionError::NoSuchRegion { guest_address: region(1).guest_address }));
}

#[test]
fn tables_that_contradict_themselves_are_refused() {
    let request = Request::SetMemTable;
    let table = |count: u64, regions: &[Region]| [count.as_bytes(), regions.as_bytes()].concat();
    let length = |size| Error::from(MessageError::WrongLength { request, size });
    for (payload, resources, error) in [
        (table(2, &[region(1)]), &[1, 2][..], length(40)),
        (table(0, &[region(1)]), &[1], length(40)),
        (table(1, &[region(1)])[..39].to_vec(), &[1], length(39)),
        (vec![0; 7], &[], length(7)),
        (table(1, &[region(1)]), &[], MessageError::WrongResources { request, found: 0, wanted: 1 }.into()),
        (table(1, &[region(1)]), &[1, 2], MessageError::WrongResources { request, found: 2, wanted: 1 }.into()),
        (table(2, &[region(1), region(1)]), &[1, 2], SessionError::RegionOverlaps { guest_address: 0x100_0000 }),
    ] {
        assert_eq!(Setup::negotiated().send(request, false, &payload, resources), Err(error));
    }
}

#[test]
fn memory_that_cannot_be_mapped_ends_the_session() {
    let mut setup = Setup::negotiated();
    setup.platform.refuses = true;
    assert_eq!(setup.set_memory(&[region(1)], &[7]), Err(SessionError::Memory("no memory")));
}

#[test]
fn the_state_of_requests_under_way_is_made_and_taken_back() {
    // With the padding that C has, and without.
    for len in [24, 20] {
        let mut setup = Setup::negotiated();
        let question = InflightArea { mmap_size: 0, mmap_offset: 0, queues: 3, queue_size: 128, padding: 0 };
        let answer = setup.ask(Request::GetInflightFd, &question.as_bytes()[..len]).unwrap();
        let made = InflightArea { mmap_size: 3 * 128 * 16, mmap_offset: 0x1000, ..question };
        assert_eq!(answer, &made.as_bytes()[..len]);
        assert_eq!(setup.platform.inflight, Some((made.mmap_size, 99)));

        let mut next = Setup::negotiated();
        next.tell_with(Request::SetInflightFd, &made.as_bytes()[..len], &[50]).unwrap();
        assert_eq!(next.platform.inflight, Some((made.mmap_size, 50)));
    }
}

#[test]
fn an_area_for_requests_under_way_that_does_not_fit_is_refused() {
    let area = InflightArea { mmap_size: 16, mmap_offset: 0, queues: 1, queue_size: 1, padding: 0 };
    let request = Request::SetInflightFd;
    let queues = |value| MessageError::WrongValue { request, field: "number of queues", value }.into();
    for (area, error) in [
        (InflightArea { mmap_size: 15, ..area }, SessionError::InflightSize { size: 15, needed: 16 }),
        (InflightArea { queues: 0, ..area }, queues(0)),
        (InflightArea { queues: 4, ..area }, queues(4)),
    ] {
        assert_eq!(Setup::negotiated().tell_with(request, &area, &[5]), Err(error), "{area:?}");
    }
    assert_eq!(Setup::running().tell_with(request, &area, &[5]), Err(SessionError::RingRuns { request, index: 1 }));
}
