//! Disks in memory against an array of bytes.

use dragonfly_storage::{BlockBackend, BlockError, Extent, NullDisk, RamDisk, Sector};
use proptest::prelude::*;

use crate::cases;

/// Four pieces, the last of them cut short.
const SECTORS: u64 = 3 * 512 + 100;

#[derive(Clone, Debug)]
enum Step {
    Write(u8),
    Discard,
    Zero(bool),
}

proptest! {
    #![proptest_config(cases(32))]

    #[test]
    fn a_ram_disk_is_an_array_of_bytes(
        steps in proptest::collection::vec(
            (
                prop_oneof![any::<u8>().prop_map(Step::Write), Just(Step::Discard), any::<bool>().prop_map(Step::Zero)],
                0..SECTORS,
                prop_oneof![1..20u64, 500..1200u64],
            ),
            1..30,
        ),
    ) {
        let disk = RamDisk::new(SECTORS);
        let mut model = vec![0; SECTORS as usize * 512];
        for (step, first, count) in steps {
            let count = count.min(SECTORS - first);
            let bytes = first as usize * 512..(first + count) as usize * 512;
            let extent = Extent { first: Sector(first), count };
            let done = match step {
                Step::Write(byte) => {
                    model[bytes.clone()].fill(byte);
                    disk.write(Sector(first), &model[bytes])
                }
                Step::Discard => {
                    model[bytes].fill(0);
                    disk.discard(extent)
                }
                Step::Zero(may_unmap) => {
                    model[bytes].fill(0);
                    disk.write_zeroes(extent, may_unmap)
                }
            };
            prop_assert_eq!(done, Ok(()));
        }
        let mut read = vec![0xff; model.len()];
        prop_assert_eq!(disk.read(Sector(0), &mut read), Ok(()));
        prop_assert!(read == model);
    }
}

#[test]
fn what_lies_beyond_the_end_is_refused_whole() {
    let ram = RamDisk::new(16);
    let disks: [&dyn BlockBackend; 2] = [&ram, &NullDisk::new(16)];
    for disk in disks {
        for (first, count) in [(16, 1), (15, 2), (0, 17), (u64::MAX, 1), (u64::MAX, 2)] {
            let mut bytes = vec![0; count as usize * 512];
            let extent = Extent { first: Sector(first), count };
            assert_eq!(disk.read(Sector(first), &mut bytes), Err(BlockError::OutOfRange));
            assert_eq!(disk.write(Sector(first), &bytes), Err(BlockError::OutOfRange));
            assert_eq!(disk.discard(extent), Err(BlockError::OutOfRange));
            assert_eq!(disk.write_zeroes(extent, false), Err(BlockError::OutOfRange));
        }
        assert_eq!(disk.write(Sector(0), &[0; 511]), Err(BlockError::Unaligned));
        assert_eq!(disk.read(Sector(0), &mut [0; 513]), Err(BlockError::Unaligned));
    }
    assert_eq!(ram.used_bytes(), 0);
}

#[test]
fn a_ram_disk_takes_memory_only_for_what_was_written() {
    let disk = RamDisk::new(1 << 26);
    assert_eq!(disk.used_bytes(), 0);
    disk.write(Sector(1 << 25), &[1; 512]).expect("it is written");
    let used = disk.used_bytes();
    assert!(used > 0 && used <= 1 << 20);
    disk.discard(Extent { first: Sector(0), count: 1 << 26 }).expect("it is discarded");
    assert_eq!(disk.used_bytes(), 0);
}
