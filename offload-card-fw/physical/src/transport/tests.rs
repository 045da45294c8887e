//! A configuration page and a BAR in memory, as a device may fill them.

use alloc::vec;
use alloc::vec::Vec;

use dragonfly_rt::sys::InterruptMessage;
use virtio_drivers::transport::{DeviceStatus, DeviceType, Transport};

use super::{COMMON, DEVICE, NOTIFY, OnBus, VirtioFunction};
use crate::error::OpenError;
use crate::hal::Registers;
use crate::pci::Function;

const BAR: u8 = 4;
const BAR_BYTES: u32 = 0x4000;

/// Places in the BAR.
const COMMON_AT: u32 = 0;
const DEVICE_AT: u32 = 0x1000;
const NOTIFY_AT: u32 = 0x2000;
const TABLE_AT: u32 = 0x3000;

/// A capability of virtio: type, BAR, offset and length of the structure.
type Structure = (u8, u8, u32, u32);

const GOOD: [Structure; 3] =
    [(COMMON, BAR, COMMON_AT, 0x38), (DEVICE, BAR, DEVICE_AT, 0x40), (NOTIFY, BAR, NOTIFY_AT, 0x1000)];

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks(8).map(|word| word.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))).collect()
}

/// The configuration page of a disk with these structures, then MSI-X with two entries; the last capability points to `end`.
fn page(structures: &[Structure], end: u8) -> Vec<u8> {
    let mut page = vec![0; 4096];
    page[..8].copy_from_slice(&[0xf4, 0x1a, 0x42, 0x10, 0, 0, 0x10, 0]);
    page[0x34] = 0x40;
    let mut at = 0x40;
    for (kind, bar, offset, length) in structures {
        page[at..at + 5].copy_from_slice(&[9, at as u8 + 20, 20, *kind, *bar]);
        page[at + 8..at + 12].copy_from_slice(&offset.to_le_bytes());
        page[at + 12..at + 16].copy_from_slice(&length.to_le_bytes());
        page[at + 16] = 4;
        at += 20;
    }
    page[at..at + 4].copy_from_slice(&[0x11, end, 1, 0]);
    page[at + 4..at + 8].copy_from_slice(&(TABLE_AT | u32::from(BAR)).to_le_bytes());
    page
}

fn find(page: &[u8], bar: &[u8]) -> Result<VirtioFunction, OpenError> {
    let registers = |bytes| Registers::of_test(words(bytes).into());
    VirtioFunction::find(Function::of_test(registers(page), BAR.into(), registers(bar)), DeviceType::Block)
}

fn bar() -> Vec<u8> {
    vec![0; BAR_BYTES as usize]
}

#[test]
fn a_device_is_reached_through_its_capabilities() {
    let mut bar = bar();
    bar[DEVICE_AT as usize..][..8].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
    // The doorbell's number of each queue, of four bytes each.
    bar[0x1e] = 3;
    let mut device = find(&page(&GOOD, 0), &bar).unwrap();
    assert_eq!(device.read_config_space::<u32>(4).unwrap(), 0x0807_0605);
    assert_eq!(device.read_config_space::<[u8; 6]>(1).unwrap(), [2, 3, 4, 5, 6, 7]);
    assert_eq!(device.read_config_space::<u64>(0).unwrap(), 0x0807_0605_0403_0201);
    assert!(device.read_config_space::<u32>(0x40).is_err());
    device.set_status(DeviceStatus::ACKNOWLEDGE);
    assert_eq!(device.get_status(), DeviceStatus::ACKNOWLEDGE);
    device.queue_set(1, 16, 0x1_2345_6000, 0x2000, 0x3000);
    device.notify(1);
    assert_eq!((device.notify.read_u16(3 * 4), device.common.read_u32(0x24)), (1, 1));
}

#[test]
fn a_device_may_access_memory_from_its_reset_to_its_fault_only() {
    let mut left_so = page(&GOOD, 0);
    left_so[4] = 0x07;
    let mut device = find(&left_so, &bar()).unwrap();
    // No line, an answer to accesses of memory and ports, and in between whether it may be the bus's master.
    let command = |device: &VirtioFunction| device.function.config().read_u16(4);
    assert_eq!(command(&device), 0x403);
    device.admit();
    assert_eq!(command(&device), 0x407);
    device.cut_off();
    assert_eq!(command(&device), 0x403);
}

#[test]
fn structures_that_are_not_where_they_say_are_not_used() {
    let with = |place: usize, structure| {
        let mut structures = GOOD;
        structures[place] = structure;
        find(&page(&structures, 0), &bar())
    };
    let cases = [
        (COMMON, 0, COMMON_AT, 0x38),
        (COMMON, 6, COMMON_AT, 0x38),
        (COMMON, 0xff, COMMON_AT, 0x38),
        (COMMON, BAR, BAR_BYTES, 0x38),
        (COMMON, BAR, u32::MAX, 0x38),
        (COMMON, BAR, COMMON_AT, u32::MAX),
        (COMMON, BAR, COMMON_AT, 0x37),
    ];
    for structure in cases {
        assert!(matches!(with(0, structure), Err(OpenError::Structure(_))), "{structure:x?}");
    }
    assert!(matches!(with(2, (NOTIFY, BAR, NOTIFY_AT, BAR_BYTES)), Err(OpenError::Structure(_))));
    assert!(with(1, (DEVICE, 0, 0, 0)).unwrap().read_config_space::<u32>(0).is_err());
    assert!(matches!(find(&vec![0xff; 4096], &bar()), Err(OpenError::OtherDevice { .. })));
}

#[test]
fn a_list_of_capabilities_that_leads_nowhere_or_around_ends() {
    for end in [0x40, 0x54, 0x7c, 0x04, 0xff] {
        assert!(find(&page(&GOOD, end), &bar()).is_ok(), "{end:#x}");
        assert!(matches!(find(&page(&GOOD[..2], end), &bar()), Err(OpenError::Structure(_))), "{end:#x}");
    }
}

#[test]
fn a_doorbell_that_is_not_there_is_not_rung() {
    let mut bar = bar();
    bar[0x1e..0x20].fill(0xff);
    let mut device = find(&page(&GOOD, 0), &bar).unwrap();
    device.queue_set(0, 16, 0x1000, 0x2000, 0x3000);
    device.notify(0);
    device.notify(1);
    device.notify(u16::MAX);
}

#[test]
fn a_queue_interrupts_by_the_entry_of_its_number() {
    let mut device = find(&page(&GOOD, 0), &bar()).unwrap();
    let message = InterruptMessage { address: 0xfee0_1000, data: 0x41 };
    assert!(device.set_message(1, message));
    let bytes = |at: u64| device.function.window(BAR, TABLE_AT, 0x20).unwrap().read_u32(at);
    assert_eq!([16, 20, 24, 28].map(bytes), [0xfee0_1000, 0, 0x41, 0]);
    assert_eq!((device.common.read_u16(0x16), device.common.read_u16(0x1a)), (1, 1));
    // In use, and none masked.
    assert_eq!(device.function.config().read_u16(0x7c + 2), 0x8001);
    assert!(!device.set_message(2, message), "there are two entries");
}
