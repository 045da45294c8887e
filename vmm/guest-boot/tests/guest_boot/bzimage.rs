//! Linux's 64-bit boot protocol.

use dragonfly_guest_boot::{LoadError, MemoryLayout, Protocol, Request, load};

use crate::support::*;

#[test]
fn it_starts_in_64_bit_mode_at_its_64_bit_entry_with_the_zero_page_in_rsi() {
    let (loaded, memory) = load_into(64 * MIB, &bzimage(), None, "console=ttyS0").unwrap();
    let state = loaded.state;
    assert_eq!(loaded.protocol, Protocol::Linux64);
    assert_eq!(state.rip, 16 * MIB + 0x200);
    assert_eq!(memory.bytes(16 * MIB, 0x1000), [0xcc; 0x1000]);
    assert_eq!((state.cr0, state.cr4, state.efer, state.rflags), (0x8000_0011, 0x20, 0x500, 2));
    assert_eq!((state.cs.selector, state.cs.attributes), (0x10, 0xa09b));
    for data in [state.ds, state.es, state.ss] {
        assert_eq!((data.selector, data.attributes, data.base, data.limit), (0x18, 0xc093, 0, u32::MAX));
    }
    assert_eq!(memory.text(memory.u32(state.registers.rsi + 0x228).into()), "console=ttyS0");
}

#[test]
fn its_descriptor_table_holds_what_its_segment_registers_do() {
    let (loaded, memory) = load_into(64 * MIB, &bzimage(), None, "").unwrap();
    let gdtr = loaded.state.gdtr;
    assert_eq!(gdtr.limit, 31);
    assert_eq!(memory.u64(gdtr.base + 0x10), 0x00af_9b00_0000_ffff);
    assert_eq!(memory.u64(gdtr.base + 0x18), 0x00cf_9300_0000_ffff);
}

#[test]
fn its_page_tables_map_the_first_4_gib_at_their_own_addresses() {
    let (loaded, memory) = load_into(64 * MIB, &bzimage(), None, "").unwrap();
    for address in [0, 16 * MIB + 0x234, 0x7fff_ffff, 0xffff_ffff] {
        let root = memory.u64(loaded.state.cr3 + 8 * (address >> 39));
        let pointer = memory.u64((root & !0xfff) + 8 * (address >> 30 & 0x1ff));
        let page = memory.u64((pointer & !0xfff) + 8 * (address >> 21 & 0x1ff));
        assert_eq!((root & 0xfff, pointer & 0xfff, page & 0xfff), (3, 3, 0x83), "{address:#x}");
        assert_eq!(page & !0x1f_ffff | address & 0x1f_ffff, address);
    }
    assert_eq!(memory.u64(loaded.state.cr3 + 8), 0);
}

#[test]
fn the_zero_page_holds_its_header_the_loader_and_the_root_pointer_and_nothing_else_of_the_file() {
    let (loaded, memory) = load_into(64 * MIB, &bzimage(), None, "").unwrap();
    let page = loaded.state.registers.rsi;
    assert_eq!(page % 4096, 0);
    assert_eq!(memory.bytes(page + 0x202, 4), b"HdrS");
    assert_eq!(memory.bytes(page + 0x210, 2), [0xff, 1]);
    assert_eq!(memory.u64(page + 0x70), 0xe_0000);
    assert_eq!(memory.bytes(page + 0x1ef, 1), [0], "the sentinel says that unknown fields are not cleared");
    assert_eq!(memory.bytes(page + 0x26c, 16), [0; 16]);
}

#[test]
fn the_zero_page_holds_the_memory_map() {
    let layout = MemoryLayout { high_ram_bytes: 1 << 30, ..layout(3 << 30) };
    let mut memory = FakeMemory::new(&layout);
    let request = Request { kernel: &bzimage(), initrd: None, command_line: b"", memory: &layout };
    let page = load(&request, &mut memory).unwrap().state.registers.rsi;
    let count = memory.bytes(page + 0x1e8, 1)[0];
    let entry = |index: u64| {
        let at = page + 0x2d0 + 20 * index;
        (memory.u64(at), memory.u64(at + 8), memory.u32(at + 16))
    };
    let entries: Vec<_> = (0..count.into()).map(entry).collect();
    assert_eq!(
        entries,
        [
            (0, 0xa_0000, 1),
            (0xa_0000, 0x4_0000, 2),
            (0xe_0000, 0x1_0000, 3),
            (0xf_0000, 0x1_0000, 2),
            (0x10_0000, 0xbff0_0000, 1),
            (0xe000_0000, 0x10_0000, 2),
            (1 << 32, 1 << 30, 1),
        ]
    );
}

#[test]
fn the_initrd_lies_as_high_as_ram_goes() {
    let (loaded, memory) = load_into(64 * MIB, &bzimage(), Some(&[7; 5000]), "").unwrap();
    let page = loaded.state.registers.rsi;
    let address = memory.u32(page + 0x218);
    assert_eq!((u64::from(address), memory.u32(page + 0x21c)), (64 * MIB - 8192, 5000));
    assert_eq!(memory.bytes(address.into(), 5000), [7; 5000]);
}

#[test]
fn the_initrd_lies_below_what_the_kernel_allows() {
    let mut kernel = bzimage();
    put(&mut kernel, 0x22c, &0x37ff_ffff_u32.to_le_bytes());
    let (loaded, memory) = load_into(3 << 30, &kernel, Some(&[7; 4096]), "").unwrap();
    assert_eq!(memory.u32(loaded.state.registers.rsi + 0x218), 0x3800_0000 - 4096);
}

#[test]
fn the_initrd_stays_out_of_what_the_kernel_needs_to_unpack_itself() {
    let fits = vec![7; 6 * MIB as usize];
    assert!(load_into(30 * MIB, &bzimage(), Some(&fits), "").is_ok());
    // Below the kernel there are 15 MiB.
    let below = vec![7; 7 * MIB as usize];
    let (loaded, memory) = load_into(30 * MIB, &bzimage(), Some(&below), "").unwrap();
    assert_eq!(u64::from(memory.u32(loaded.state.registers.rsi + 0x218)), 9 * MIB);
    let too_large = vec![7; 15 * MIB as usize + 1];
    let error = load_into(30 * MIB, &bzimage(), Some(&too_large), "").err();
    assert_eq!(error, Some(LoadError::InitrdDoesNotFit { initrd_mib: 16 }));
}

#[test]
fn a_kernel_that_does_not_fit_says_how_much_memory_it_needs() {
    let error = load_into(20 * MIB, &bzimage(), None, "").err();
    assert_eq!(error, Some(LoadError::NeedsMemory { mib: 24 }));
    assert!(load_into(24 * MIB, &bzimage(), None, "").is_ok());
}

#[test]
fn a_command_line_longer_than_the_kernel_takes_is_refused() {
    assert!(load_into(64 * MIB, &bzimage(), None, &"x".repeat(2047)).is_ok());
    let error = load_into(64 * MIB, &bzimage(), None, &"x".repeat(2048)).err();
    assert_eq!(error, Some(LoadError::CommandLineTooLong { bytes: 2048, limit: 2047 }));
}

#[test]
fn kernels_without_64_bit_entry_and_damaged_ones_are_refused() {
    let cases: [(usize, &[u8], LoadError); 5] = [
        (0x206, &[0x0b, 0x02], LoadError::OldProtocol { major: 2, minor: 11 }),
        (0x236, &[0xfe, 0xff], LoadError::No64BitEntry),
        (0x1f4, &[0xff, 0xff], LoadError::CutOff),
        (0x1f1, &[0xff], LoadError::CutOff),
        (0x258, &[0, 0, 0, 0, 1], LoadError::OutsideMemory(dragonfly_guest_boot::GuestPhys(1 << 32))),
    ];
    for (offset, bytes, expected) in cases {
        let mut kernel = bzimage();
        put(&mut kernel, offset, bytes);
        assert_eq!(load_into(64 * MIB, &kernel, None, "").err(), Some(expected), "{offset:#x}");
    }
}
