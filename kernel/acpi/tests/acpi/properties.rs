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
            .filter(|(_, id, flags)| *flags != 0 && seen.insert(*id))
            .map(|(uid, id, _)| (*uid, *id))
            .collect();
        let found: Vec<_> = acpi.madt.processors.iter().map(|found| (found.uid, found.apic_id)).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn every_memory_range_of_the_srat_is_found_with_its_node(
        described in prop::collection::vec((1..1u64 << 40, any::<u8>()), 0..100),
    ) {
        let mut next = 0;
        let ranges: Vec<_> = described
            .iter()
            .map(|(size, domain)| {
                let base = next;
                next += size;
                (base, *size, u32::from(*domain) % 64)
            })
            .collect();
        let entries: Vec<_> =
            ranges.iter().map(|(base, size, domain)| memory_affinity(*base, *size, *domain, 1)).collect();
        let (acpi, result, problems) = Image::new(2, &[srat(3, &entries)]).discover();
        prop_assert_eq!((result, problems), (Ok(()), vec![]));

        let found: Vec<_> = acpi.srat.memory.iter().map(|range| (range.base, range.size, range.domain)).collect();
        prop_assert_eq!(&found, &ranges);
        let domains: Vec<_> = ranges.iter().map(|range| range.2).collect::<BTreeSet<_>>().into_iter().collect();
        prop_assert_eq!(acpi.srat.domains.as_slice(), domains.as_slice());
        for (node, domain) in domains.iter().enumerate() {
            prop_assert_eq!(acpi.srat.node(*domain), Some(node));
        }
    }

    #[test]
    fn every_distance_of_the_slit_is_found(
        localities in 1..65usize,
        distances in prop::collection::vec(11..=255u8, 64 * 64),
    ) {
        let distance = |from: usize, to: usize| if from == to { 10 } else { distances[from * 64 + to] };
        let pairs = (0..localities).flat_map(|from| (0..localities).map(move |to| (from, to)));
        let matrix: Vec<_> = pairs.map(|(from, to)| distance(from, to)).collect();
        let (acpi, result, problems) = Image::new(2, &[slit(localities as u64, &matrix)]).discover();
        prop_assert_eq!((result, problems), (Ok(()), vec![]));
        for from in 0..localities {
            for to in 0..localities {
                prop_assert_eq!(acpi.slit.distance(from as u32, to as u32), Some(distance(from, to)));
            }
        }
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
