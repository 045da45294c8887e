//! What is accepted as a handoff, and the reason for each refusal.

mod common;

use common::{range, segment, valid_handoff};
use dragonfly_handoff::{
    DIRECT_MAP_BASE, DirectMap, Field, HANDOFF_SIZE, Handoff, HandoffError, LoaderName, PhysAddr, SegmentFlags,
    VirtAddr,
};
use proptest::prelude::*;

/// The reason why the valid handoff is refused once it is changed so.
fn refused(change: impl FnOnce(&mut Handoff)) -> HandoffError {
    let mut handoff = valid_handoff();
    change(&mut handoff);
    handoff.encode().unwrap_err()
}

/// The reason why the bytes of the valid handoff are refused once some of them are overwritten.
fn refused_bytes(offset: usize, bytes: &[u8]) -> HandoffError {
    let mut encoded = valid_handoff().encode().unwrap();
    encoded[offset..offset + bytes.len()].copy_from_slice(bytes);
    Handoff::parse(&encoded).unwrap_err()
}

#[test]
fn what_a_loader_encodes_the_kernel_reads() {
    let handoff = valid_handoff();
    assert_eq!(Handoff::parse(&handoff.encode().unwrap()), Ok(handoff));
}

#[test]
fn bytes_after_the_handoff_are_ignored() {
    let mut bytes = valid_handoff().encode().unwrap().to_vec();
    bytes.extend([0xff; 64]);
    assert_eq!(Handoff::parse(&bytes), Ok(valid_handoff()));
}

#[test]
fn a_handoff_need_not_have_a_command_line_or_an_acpi_root_pointer() {
    let mut handoff = valid_handoff();
    handoff.command_line = range(0, 0);
    handoff.acpi_rsdp = None;
    assert_eq!(Handoff::parse(&handoff.encode().unwrap()), Ok(handoff));
}

#[test]
fn every_length_that_is_too_short_is_refused() {
    let bytes = valid_handoff().encode().unwrap();
    for length in 0..HANDOFF_SIZE {
        assert_eq!(Handoff::parse(&bytes[..length]), Err(HandoffError::TooShort(length)));
    }
}

#[test]
fn another_magic_number_version_or_size_is_refused() {
    assert_eq!(refused_bytes(0, &[0; 8]), HandoffError::BadMagic(0));
    assert_eq!(refused_bytes(8, &2u32.to_ne_bytes()), HandoffError::UnsupportedVersion(2));
    assert_eq!(refused_bytes(12, &401u32.to_ne_bytes()), HandoffError::BadSize(401));
}

#[test]
fn another_version_is_named_before_a_length_that_does_not_fit_it() {
    let mut bytes = valid_handoff().encode().unwrap();
    bytes[8] = 9;
    assert_eq!(Handoff::parse(&bytes[..16]), Err(HandoffError::UnsupportedVersion(9)));
}

#[test]
fn unknown_flags_are_refused() {
    assert_eq!(refused_bytes(16, &0x8000_0001u32.to_ne_bytes()), HandoffError::UnknownFlags(0x8000_0001));
    assert_eq!(refused_bytes(144 + 24, &4u32.to_ne_bytes()), HandoffError::UnknownFlags(4));
}

#[test]
fn a_memory_map_count_that_overflows_is_refused() {
    assert_eq!(refused_bytes(32, &u64::MAX.to_ne_bytes()), HandoffError::TooLong(Field::MemoryMap));
    assert_eq!(refused_bytes(32, &1025u64.to_ne_bytes()), HandoffError::TooLong(Field::MemoryMap));
}

#[test]
fn more_segments_than_there_is_room_for_are_refused() {
    assert_eq!(refused_bytes(20, &9u32.to_ne_bytes()), HandoffError::TooLong(Field::KernelSegments));
}

#[test]
fn a_name_that_is_not_text_is_refused() {
    assert_eq!(refused_bytes(112, &[0xff]), HandoffError::NotText(Field::LoaderName));
}

#[test]
fn a_range_that_wraps_around_is_refused() {
    assert_eq!(refused_bytes(40, &u64::MAX.to_ne_bytes()), HandoffError::OutsideDirectMap(Field::Bundle));
}

#[test]
fn nothing_may_be_outside_the_direct_map() {
    let above = 4 << 30;
    let outside = HandoffError::OutsideDirectMap;
    assert_eq!(refused(|h| h.memory_map = range(above, 24)), outside(Field::MemoryMap));
    assert_eq!(refused(|h| h.bundle = range(above - 0x1000, 0x1001)), outside(Field::Bundle));
    assert_eq!(refused(|h| h.command_line = range(above, 1)), outside(Field::CommandLine));
    assert_eq!(refused(|h| h.acpi_rsdp = Some(PhysAddr(above - 19))), outside(Field::AcpiRsdp));
    assert_eq!(refused(|h| h.boot_memory = range(above, 0x1000)), outside(Field::BootMemory));
    assert_eq!(refused(|h| h.kernel[2].frames = range(above, 0x1000)), outside(Field::KernelSegments));
}

#[test]
fn what_must_be_there_may_not_be_empty() {
    assert_eq!(refused(|h| h.memory_map = range(0x20_0000, 0)), HandoffError::Empty(Field::MemoryMap));
    assert_eq!(refused(|h| h.bundle = range(0x40_0000, 0)), HandoffError::Empty(Field::Bundle));
    assert_eq!(refused(|h| h.kernel.clear()), HandoffError::Empty(Field::KernelSegments));
    assert_eq!(refused(|h| h.boot_memory = range(0x20_0000, 0)), HandoffError::Empty(Field::BootMemory));
}

#[test]
fn misaligned_addresses_are_refused() {
    assert_eq!(refused(|h| h.memory_map = range(0x20_0004, 24)), HandoffError::Misaligned(Field::MemoryMap));
    assert_eq!(refused(|h| h.bundle = range(0x40_0800, 24)), HandoffError::Misaligned(Field::Bundle));
    assert_eq!(
        refused(|h| h.kernel[0].frames = range(0x30_0000, 0x800)),
        HandoffError::Misaligned(Field::KernelSegments)
    );
    assert_eq!(refused(|h| h.kernel[0].virtual_base.0 += 1), HandoffError::Misaligned(Field::KernelSegments));
}

#[test]
fn a_command_line_longer_than_the_maximum_is_refused() {
    assert_eq!(refused(|h| h.command_line = range(0x20_0000, 4097)), HandoffError::TooLong(Field::CommandLine));
}

#[test]
fn a_direct_map_elsewhere_or_without_size_is_refused() {
    let low = DirectMap { base: VirtAddr(0), size: 4 << 30 };
    assert_eq!(refused(|h| h.direct_map = low), HandoffError::BadDirectMap);
    for size in [0, 1, (64 << 40) + 0x1000] {
        assert_eq!(refused(|h| h.direct_map = DirectMap { base: DIRECT_MAP_BASE, size }), HandoffError::BadDirectMap);
    }
}

#[test]
fn a_segment_that_is_writable_and_executable_is_refused() {
    assert_eq!(refused(|h| h.kernel[1].flags = SegmentFlags::all()), HandoffError::SegmentWritableAndExecutable);
}

#[test]
fn a_segment_outside_the_top_two_gibibytes_is_refused() {
    assert_eq!(
        refused(|h| h.kernel[0].virtual_base = VirtAddr(0xffff_ffff_7fff_f000)),
        HandoffError::SegmentOutsideKernelSpace
    );
    let at_the_end = segment(0x7fff_f000, 0x50_0000, 0x1000, SegmentFlags::empty());
    assert_eq!(refused(|h| h.kernel[2] = at_the_end), HandoffError::SegmentOutsideKernelSpace);
}

#[test]
fn segments_that_overlap_are_refused() {
    assert_eq!(refused(|h| h.kernel[1].virtual_base.0 -= 0x1000), HandoffError::Overlap(Field::KernelSegments));
    assert_eq!(
        refused(|h| h.kernel[1].frames = range(0x30_f000, 0x4000)),
        HandoffError::Overlap(Field::KernelSegments)
    );
}

#[test]
fn memory_for_one_purpose_may_not_be_memory_for_another() {
    assert_eq!(refused(|h| h.bundle = range(0x20_f000, 0x1001)), HandoffError::Overlap(Field::Bundle));
    assert_eq!(refused(|h| h.bundle = range(0x31_0000, 1)), HandoffError::Overlap(Field::KernelSegments));
    assert_eq!(refused(|h| h.boot_memory = range(0x2f_f000, 0x1001)), HandoffError::Overlap(Field::KernelSegments));
}

#[test]
fn the_direct_map_translates_only_what_it_shows() {
    let map = DirectMap { base: DIRECT_MAP_BASE, size: 0x10_0000 };
    assert_eq!(map.virt(range(0xf_f000, 0x1000)), Some(VirtAddr(DIRECT_MAP_BASE.0 + 0xf_f000)));
    assert_eq!(map.virt(range(0xf_f000, 0x1001)), None);
}

#[test]
fn a_long_loader_name_is_cut_between_characters() {
    assert_eq!(LoaderName::new("dragonfly").as_str(), "dragonfly");
    let name = format!("{}é", "x".repeat(31));
    assert_eq!(LoaderName::new(&name).as_str(), "x".repeat(31));
}

proptest! {
    #[test]
    fn one_changed_bit_is_refused_or_gives_a_handoff_that_encodes_to_the_same_meaning(
        bit in 0..HANDOFF_SIZE * 8,
    ) {
        let mut bytes = valid_handoff().encode().unwrap();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(handoff) = Handoff::parse(&bytes) {
            prop_assert_eq!(Handoff::parse(&handoff.encode().unwrap()), Ok(handoff));
        }
    }
}
