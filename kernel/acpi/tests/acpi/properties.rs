//! For any platform: what the tables say is what is found, and one flipped bit costs one table at most.

use std::collections::BTreeSet;

use dragonfly_acpi::Problem;
use proptest::prelude::*;

use crate::builder::*;

proptest! {
    #[test]
    fn every_processor_of_the_madt_is_found_once_and_in_order(
        described in prop::collection::vec((any::<u32>(), any::<u32>(), 0..4u32), 0..256),
    ) {
        let entries: Vec<_> = described.iter().map(|(uid, id, flags)| local_x2apic(*uid, *id, *flags)).collect();
        let (acpi, result, problems) = Image::new(2, &[madt(&entries)]).discover();
        prop_assert_eq!((result, problems), (Ok(()), vec![]));

        let mut seen = BTreeSet::new();
        let expected: Vec<_> = described
            .iter()
            .filter(|(_, id, flags)| flags & 1 != 0 && seen.insert(*id))
            .map(|(_, id, _)| *id)
            .collect();
        prop_assert_eq!(acpi.madt.processors.as_slice(), expected);
    }

    #[test]
    fn a_flipped_bit_in_a_table_is_noticed_and_costs_that_table_only(
        processors in prop::collection::btree_set(any::<u8>(), 1..20),
        byte in any::<prop::sample::Index>(),
        bit in 0..8u32,
    ) {
        let entries: Vec<_> = processors.iter().map(|id| local_apic(*id, *id, 1)).collect();
        let table = madt(&entries);
        let mut image = Image::new(2, &[table.clone(), hpet(0xfed0_0000), mcfg(&[(0xb000_0000, 0, 0, 255)])]);
        // With another name it is another table, and with another length the checksum covers other bytes.
        let position = 8 + byte.index(table.len() - 8);
        let offset = (image.addresses[0] - BASE) as usize + position;
        image.bytes[offset] ^= 1 << bit;

        let (acpi, result, problems) = image.discover();
        prop_assert_eq!(result, Ok(()));
        prop_assert!(matches!(problems.as_slice(), [Problem::Corrupt { .. }]), "{:?}", problems);
        prop_assert!(acpi.madt.processors.is_empty());
        prop_assert!(acpi.hpet.is_some() && acpi.mcfg.segments.len() == 1);
    }
}
