use super::*;
use crate::address::GuestPhys;

const NESTED: NestedFormat = NestedFormat::new(HOST);
const EPT: EptFormat = EptFormat::new(PageSize::Size1G, EptTracking::Flags);
const DEVICE: Access = Access { is_device: true, ..DATA };

/// Of second-stage pages none is kept from the guest's user mode.
fn of_guest(access: Access) -> Access {
    Access { is_user: true, ..access }
}

#[test]
fn nested_entries_are_as_the_processor_wants_them() {
    let (p, rw, us, pwt, pcd, ps, xd) = (1, 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 7, 1 << 63);
    for (entry, expected) in [
        (NESTED.leaf(phys(0x1000), PageSize::Size4K, Access::NONE), 0x1000 | p | us | xd),
        (NESTED.leaf(phys(0x1000), PageSize::Size4K, CODE), 0x1000 | p | us),
        (NESTED.leaf(phys(0x20_0000), PageSize::Size2M, DATA), 0x20_0000 | p | rw | us | ps | xd),
        (NESTED.leaf(phys(0x4000_0000), PageSize::Size1G, DEVICE), 0x4000_0000 | p | rw | us | pwt | pcd | ps | xd),
        (NESTED.table(phys(0x1000), 512), 0x1000 | p | rw | us | 512 << 52),
    ] {
        assert_eq!(entry, expected, "{entry:#x} {expected:#x}");
    }
}

#[test]
fn extended_entries_are_as_the_processor_wants_them() {
    let (r, w, x, wb, ps) = (1, 1 << 1, 1 << 2, 6 << 3, 1 << 7);
    for (entry, expected) in [
        (EPT.leaf(phys(0x1000), PageSize::Size4K, Access::NONE), 0x1000 | r | wb),
        (EPT.leaf(phys(0x1000), PageSize::Size4K, CODE), 0x1000 | r | x | wb),
        (EPT.leaf(phys(0x20_0000), PageSize::Size2M, DATA), 0x20_0000 | r | w | wb | ps),
        (EPT.leaf(phys(0x4000_0000), PageSize::Size1G, DEVICE), 0x4000_0000 | r | w | ps),
        (EPT.table(phys(0x1000), 512), 0x1000 | r | w | x | 512 << 52),
    ] {
        assert_eq!(entry, expected, "{entry:#x} {expected:#x}");
    }
}

fn flags_of_the_processor_change_nothing<F: PageFormat>(format: F, accessed: u64, dirty: u64) {
    for size in PageSize::LARGEST_FIRST {
        let leaf = format.leaf(phys(0x4000_0000), size, DATA);
        let expected = Entry::Leaf { frame: phys(0x4000_0000), access: of_guest(DATA) };
        assert_eq!(format.decode(leaf | accessed | dirty, size.level()), expected);
    }
    let table = Entry::Table { frame: phys(0x1000), count: 512 };
    assert_eq!(format.decode(format.table(phys(0x1000), 512) | accessed, 1), table);
}

#[test]
fn accessed_and_dirty_flags_do_not_change_what_an_entry_says() {
    flags_of_the_processor_change_nothing(NESTED, 1 << 5, 1 << 6);
    flags_of_the_processor_change_nothing(EPT, 1 << 8, 1 << 9);
}

fn high_addresses_are_refused<F: PageFormat<Input = GuestPhys>>(format: F) {
    with_machine(|machine| {
        let mut table = PageTable::new(format, machine).unwrap();
        let last = GuestPhys::new((1 << 48) - PAGE_SIZE);
        table.map(machine, last, phys(0x1000), PageSize::Size4K, DATA).unwrap();
        for address in [1 << 48, 0xffff_8000_0000_0000] {
            let address = GuestPhys::new(address);
            let mapped = table.map(machine, address, phys(0x1000), PageSize::Size4K, DATA);
            assert_eq!((mapped, table.query(machine, address)), (Err(MapError::Misaligned), None));
        }
        assert_eq!(leaves(&table, machine).first().map(|page| page.base), Some(last));
        assert!(table.destroy(machine, &mut { u32::MAX }, |_| ()));
    });
}

#[test]
fn guest_addresses_have_48_bits_without_a_gap() {
    high_addresses_are_refused(NESTED);
    high_addresses_are_refused(EPT);
}

#[test]
fn a_machine_without_large_pages_gets_none() {
    let host = HostFormat::new(true, PageSize::Size2M);
    assert_eq!(NestedFormat::new(host).largest_page(), PageSize::Size2M);
    assert_eq!(EptFormat::new(PageSize::Size4K, EptTracking::Flags).largest_page(), PageSize::Size4K);
}

proptest! {
    #![proptest_config(crate::host::proptest_config(100))]

    #[test]
    fn a_nested_table_behaves_like_a_map(steps in proptest::collection::vec(step(), 1..STEPS)) {
        check_against_model(NESTED, of_guest, steps);
    }

    #[test]
    fn an_extended_page_table_behaves_like_a_map(steps in proptest::collection::vec(step(), 1..STEPS)) {
        check_against_model(EPT, of_guest, steps);
    }
}
