//! Which kernel files are accepted, and the reason for each refusal.

mod common;

use common::{ElfFile, Header, R, W, X};
use dragonfly_handoff::{KERNEL_BASE, SegmentFlags, VirtAddr};
use dragonfly_multiboot2::kernel_image::{KernelImage, KernelImageError};
use proptest::prelude::*;

fn refused(change: impl FnOnce(&mut ElfFile)) -> KernelImageError {
    let mut file = ElfFile::valid();
    change(&mut file);
    KernelImage::parse(&file.bytes()).unwrap_err()
}

#[test]
fn a_kernel_with_separate_code_and_data_is_accepted() {
    let bytes = ElfFile::valid().bytes();
    let image = KernelImage::parse(&bytes).unwrap();
    assert_eq!(image.entry, VirtAddr(KERNEL_BASE.0 + 0x10));
    let segments: Vec<_> = image.segments.iter().map(|s| (s.virtual_base.0 - KERNEL_BASE.0, s.size, s.flags)).collect();
    assert_eq!(
        segments,
        [
            (0, 0x2000, SegmentFlags::EXECUTE),
            (0x2000, 0x1000, SegmentFlags::empty()),
            (0x3000, 0x6000, SegmentFlags::WRITE)
        ]
    );
    assert_eq!(image.segments[2].offset, 0x400);
    assert_eq!(image.segments[2].contents, &bytes[0x4400..0x4900]);
}

#[test]
fn headers_that_are_not_to_be_loaded_are_ignored() {
    let mut file = ElfFile::valid();
    file.headers.insert(0, Header { kind: 0x6474_e551, ..Header::at(0, 0, 0, R | W | X) });
    file.headers.push(Header::at(0x10_0000, 0, 0, R));
    assert_eq!(KernelImage::parse(&file.bytes()).unwrap().segments.len(), 3);
}

#[test]
fn what_is_no_elf_file_is_refused() {
    assert_eq!(KernelImage::parse(&[]).unwrap_err(), KernelImageError::NotElf);
    assert_eq!(KernelImage::parse(&[0; 4096]).unwrap_err(), KernelImageError::NotElf);
    assert_eq!(refused(|file| file.length = 100), KernelImageError::NotElf);
}

#[test]
fn a_file_for_another_machine_is_refused() {
    assert_eq!(refused(|file| file.machine = 183), KernelImageError::WrongMachine);
    assert_eq!(refused(|file| file.machine = 3), KernelImageError::WrongMachine);
}

#[test]
fn a_position_independent_file_is_refused() {
    assert_eq!(refused(|file| file.kind = 3), KernelImageError::NotExecutable);
}

#[test]
fn a_file_with_nothing_or_too_much_to_load_is_refused() {
    assert_eq!(refused(|file| file.headers.clear()), KernelImageError::NoSegment);
    let many = || (0..9).map(|index| Header { offset: 0x1000, ..Header::at(index * 0x1000, 0x100, 0x100, R | X) });
    assert_eq!(refused(|file| file.headers = many().collect()), KernelImageError::TooManySegments);
}

#[test]
fn a_segment_that_is_cut_off_is_refused() {
    assert_eq!(refused(|file| file.length = 0x48ff), KernelImageError::CutOff(2));
    assert_eq!(refused(|file| file.headers[1].offset = u64::MAX), KernelImageError::CutOff(1));
}

#[test]
fn a_segment_with_more_bytes_than_memory_is_refused() {
    assert_eq!(refused(|file| file.headers[1].file_size = 0x301), KernelImageError::LargerThanItsMemory(1));
}

#[test]
fn a_segment_outside_the_top_two_gibibytes_is_refused() {
    for address in [0, 0x20_0000, KERNEL_BASE.0 - 0x1000, KERNEL_BASE.0 - 1] {
        assert_eq!(refused(|file| file.headers[0].address = address), KernelImageError::OutsideKernelSpace(0));
    }
}

#[test]
fn a_segment_that_wraps_around_is_refused() {
    assert_eq!(refused(|file| file.headers[2].memory_size = u64::MAX), KernelImageError::OutsideKernelSpace(2));
    assert_eq!(refused(|file| file.headers[2].memory_size = 0x7fff_f000), KernelImageError::OutsideKernelSpace(2));
    assert_eq!(refused(|file| file.headers[2].address = u64::MAX), KernelImageError::OutsideKernelSpace(2));
}

#[test]
fn a_segment_that_is_writable_and_executable_is_refused() {
    assert_eq!(refused(|file| file.headers[0].flags = R | W | X), KernelImageError::WritableAndExecutable(0));
}

#[test]
fn segments_that_share_a_page_or_are_not_in_order_are_refused() {
    assert_eq!(refused(|file| file.headers[0].memory_size = 0x2001), KernelImageError::Overlap(1));
    assert_eq!(refused(|file| file.headers[1].address -= 0x800), KernelImageError::Overlap(1));
    assert_eq!(refused(|file| file.headers.swap(0, 1)), KernelImageError::Overlap(1));
}

#[test]
fn an_entry_point_outside_the_code_is_refused() {
    for place in [0x1800, 0x2000, 0x3500, 0x10_0000] {
        let entry = KERNEL_BASE.0 + place;
        assert_eq!(refused(|file| file.entry = entry), KernelImageError::EntryOutsideCode(VirtAddr(entry)));
    }
    assert_eq!(refused(|file| file.entry = 0), KernelImageError::EntryOutsideCode(VirtAddr(0)));
}

fn any_header() -> impl Strategy<Value = Header> {
    let word = || prop_oneof![0..0x2_0000u64, any::<u64>()];
    let address = prop_oneof![(0..0x2_0000u64).prop_map(|place| KERNEL_BASE.0 + place), any::<u64>()];
    (0..8u32, word(), address, word(), word()).prop_map(|(flags, offset, address, file_size, memory_size)| Header {
        kind: 1,
        flags,
        offset,
        address,
        file_size,
        memory_size,
    })
}

proptest! {
    #[test]
    fn whatever_the_headers_an_accepted_file_has_the_promised_properties(
        headers in prop::collection::vec(any_header(), 0..5),
        keep in 0..4usize,
        entry in 0..0x4000u64,
    ) {
        let mut file = ElfFile { entry: KERNEL_BASE.0 + entry, ..ElfFile::valid() };
        file.headers.truncate(keep);
        file.headers.extend(headers);
        if let Ok(image) = KernelImage::parse(&file.bytes()) {
            common::check_image(&image);
        }
    }
}
