//! PVH and Multiboot 1.

use dragonfly_guest_boot::{GuestPhys, LoadError, Protocol, StartState};

use crate::support::*;

fn assert_protected_mode(state: &StartState) {
    assert_eq!((state.cr0, state.cr3, state.cr4, state.efer, state.rflags), (0x11, 0, 0, 0, 2));
    assert_eq!((state.cs.attributes, state.cs.base, state.cs.limit), (0xc09b, 0, u32::MAX));
    for data in [state.ds, state.es, state.fs, state.gs, state.ss] {
        assert_eq!((data.attributes, data.base, data.limit), (0xc093, 0, u32::MAX));
    }
    assert_eq!((state.tr.attributes, state.ldtr.attributes), (0x8b, 0x1_0000));
}

#[test]
fn a_pvh_kernel_starts_at_its_notes_address_in_protected_mode_with_the_start_info_in_ebx() {
    let (loaded, memory) = load_into(64 * MIB, &pvh(), None, "quiet").unwrap();
    assert_eq!(loaded.protocol, Protocol::Pvh);
    assert_protected_mode(&loaded.state);
    assert_eq!(loaded.state.rip, 0x10_0020);
    let info = loaded.state.registers.rbx;
    assert_eq!((memory.u32(info), memory.u32(info + 4)), (0x336e_c578, 1));
    assert_eq!(memory.text(memory.u64(info + 24)), "quiet");
    assert_eq!(memory.u64(info + 32), 0xe_0000);
}

#[test]
fn segments_lie_at_their_physical_addresses_and_the_rest_of_their_memory_is_zero() {
    for kernel in [pvh(), multiboot_elf()] {
        let (_, memory) = load_into(64 * MIB, &kernel, None, "").unwrap();
        assert_eq!(memory.bytes(MIB, 0x100), kernel[ELF_CODE..]);
        assert_eq!(memory.zeroed, [(MIB + 0x100, 0x2f00)]);
    }
}

#[test]
fn a_pvh_kernel_is_told_the_memory_map_and_its_initrd() {
    let (loaded, memory) = load_into(64 * MIB, &pvh(), Some(&[7; 5000]), "").unwrap();
    let info = loaded.state.registers.rbx;
    let (map, entries) = (memory.u64(info + 40), memory.u32(info + 48));
    assert_eq!(entries, 6);
    assert_eq!((memory.u64(map + 24 * 4), memory.u64(map + 24 * 4 + 8)), (MIB, 63 * MIB));
    assert_eq!(memory.u32(map + 24 * 4 + 16), 1);
    assert_eq!(memory.u32(info + 12), 1);
    let module = memory.u64(info + 16);
    assert_eq!((memory.u64(module), memory.u64(module + 8)), (64 * MIB - 8192, 5000));
    assert_eq!(memory.bytes(memory.u64(module), 5000), [7; 5000]);
}

#[test]
fn a_multiboot_kernel_starts_at_its_entry_with_the_magic_in_eax_and_the_information_in_ebx() {
    let (loaded, memory) = load_into(64 * MIB, &multiboot_elf(), None, "a b").unwrap();
    assert_eq!(loaded.protocol, Protocol::Multiboot1);
    assert_protected_mode(&loaded.state);
    assert_eq!((loaded.state.rip, loaded.state.registers.rax), (0x10_0010, 0x2bad_b002));
    let info = loaded.state.registers.rbx;
    assert_eq!(memory.u32(info), 0x24d);
    assert_eq!((memory.u32(info + 4), memory.u32(info + 8)), (640, 63 * 1024));
    assert_eq!(memory.text(memory.u32(info + 16).into()), "a b");
    assert_eq!(memory.text(memory.u32(info + 64).into()), "Dragonfly");
    assert_eq!(memory.u32(info + 20), 0);
}

#[test]
fn a_multiboot_kernel_is_told_the_memory_map_and_its_module() {
    let (loaded, memory) = load_into(64 * MIB, &multiboot_elf(), Some(&[7; 5000]), "a b").unwrap();
    let info = loaded.state.registers.rbx;
    let (bytes, map) = (memory.u32(info + 44), u64::from(memory.u32(info + 48)));
    assert_eq!(bytes, 6 * 24);
    let extended = map + 4 * 24;
    assert_eq!((memory.u32(extended), memory.u64(extended + 4), memory.u64(extended + 12)), (20, MIB, 63 * MIB));
    assert_eq!(memory.u32(info + 20), 1);
    let module = u64::from(memory.u32(info + 24));
    let (start, end) = (memory.u32(module), memory.u32(module + 4));
    assert_eq!((start, end - start), (0x10_3000, 5000));
    assert_eq!(memory.bytes(start.into(), 5000), [7; 5000]);
    assert_eq!(memory.text(memory.u32(module + 8).into()), "a b");
}

#[test]
fn a_flat_multiboot_kernel_is_loaded_as_its_header_says() {
    let (loaded, memory) = load_into(64 * MIB, &multiboot_flat(), None, "").unwrap();
    assert_eq!(loaded.state.rip, 2 * MIB + 0x80);
    assert_eq!(memory.bytes(2 * MIB, 0x1c0), multiboot_flat()[0x40..]);
    assert_eq!(memory.zeroed, [(2 * MIB + 0x1c0, 0x1000)]);
}

#[test]
fn a_kernel_with_both_entries_is_started_by_pvh() {
    let mut kernel = pvh();
    multiboot_header(&mut kernel, ELF_CODE, &[], 3);
    assert_eq!(load_into(64 * MIB, &kernel, None, "").unwrap().0.protocol, Protocol::Pvh);
}

#[test]
fn a_64_bit_elf_file_may_have_a_multiboot_header() {
    let mut kernel = elf64(17);
    multiboot_header(&mut kernel, ELF_CODE, &[], 3);
    let (loaded, _) = load_into(64 * MIB, &kernel, None, "").unwrap();
    assert_eq!((loaded.protocol, loaded.state.rip), (Protocol::Multiboot1, 0x10_0010));
}

#[test]
fn a_multiboot_header_beyond_8_kib_is_not_found() {
    let mut kernel = vec![0; 8192 + 12];
    multiboot_header(&mut kernel, 8184, &[], 3);
    assert_eq!(load_into(64 * MIB, &kernel, None, "").err(), Some(LoadError::NotAKernel));
}

#[test]
fn multiboot_features_that_the_machine_lacks_are_refused() {
    let mut kernel = multiboot_elf();
    multiboot_header(&mut kernel, ELF_CODE, &[], 7);
    assert_eq!(load_into(64 * MIB, &kernel, None, "").err(), Some(LoadError::MultibootFeatures(4)));
}

#[test]
fn contradicting_multiboot_addresses_are_refused() {
    let base = 2 * MIB as u32;
    let cases = [
        ([base - 1, base, 0, 0, base], LoadError::MultibootAddresses),
        ([base + 0x61, base, 0, 0, base], LoadError::MultibootAddresses),
        ([base, base, base - 1, 0, base], LoadError::MultibootAddresses),
        ([base, base, base + 0x1000, 0, base], LoadError::CutOff),
        ([base, base, 0, 0, base + 0x1000], LoadError::EntryOutside(GuestPhys(2 * MIB + 0x1000))),
        ([0xa_0000, 0xa_0000, 0, 0, 0xa_0000], LoadError::OutsideMemory(GuestPhys(0xa_0000))),
    ];
    for (addresses, expected) in cases {
        let mut kernel = multiboot_flat();
        multiboot_header(&mut kernel, 0x60, &addresses, 0x1_0003);
        assert_eq!(load_into(64 * MIB, &kernel, None, "").err(), Some(expected), "{addresses:x?}");
    }
}

#[test]
fn wrong_elf_files_are_refused() {
    let segment = 64;
    let cases: [(usize, &[u8], LoadError); 8] = [
        (5, &[2], LoadError::WrongMachine),
        (18, &[183], LoadError::WrongMachine),
        (0x18c, b"Foo", LoadError::ElfWithoutEntry),
        (0x190, &[0, 0, 0x20], LoadError::EntryOutside(GuestPhys(2 * MIB))),
        (segment + 8, &[0, 8], LoadError::CutOff),
        (segment + 24, &[0, 0, 0, 4], LoadError::EntryOutside(GuestPhys(0x10_0020))),
        (segment + 32, &[1, 0x40], LoadError::SegmentLargerThanItsMemory(0)),
        (segment + 40, &[0, 0, 0, 4], LoadError::NeedsMemory { mib: 65 }),
    ];
    for (offset, bytes, expected) in cases {
        let mut kernel = pvh();
        put(&mut kernel, offset, bytes);
        assert_eq!(load_into(64 * MIB, &kernel, None, "").err(), Some(expected), "{offset:#x}");
    }
}

#[test]
fn segments_that_share_memory_are_refused() {
    let mut kernel = pvh();
    let second = kernel[64..64 + 56].to_vec();
    put(&mut kernel, 64 + 2 * 56, &second);
    kernel[56] = 3;
    assert_eq!(load_into(64 * MIB, &kernel, None, "").err(), Some(LoadError::SegmentsOverlap(1)));
}
