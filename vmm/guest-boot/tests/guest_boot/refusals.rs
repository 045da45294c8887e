//! What the person who chose the files reads.

use dragonfly_guest_boot::LoadError;

use crate::support::*;

#[test]
fn files_that_are_no_kernel_are_named_for_what_they_are() {
    let cases: [(&[u8], LoadError); 6] = [
        (b"", LoadError::NotAKernel),
        (b"#!/bin/sh\n", LoadError::NotAKernel),
        (b"\x1f\x8b\x08\0\0", LoadError::Compressed("gzip")),
        (b"\xfd7zXZ\0\0\x04", LoadError::Compressed("xz")),
        (b"\x28\xb5\x2f\xfd\x04", LoadError::Compressed("zstd")),
        (b"\x7fELF", LoadError::CutOff),
    ];
    for (file, expected) in cases {
        assert_eq!(load_into(64 * MIB, file, None, "").err(), Some(expected), "{file:?}");
    }
}

#[test]
fn each_text_names_the_input_the_value_and_the_remedy() {
    let texts = [
        (LoadError::NeedsMemory { mib: 67 }, "the kernel needs at least 67 MiB of memory: give the guest more"),
        (
            LoadError::InitrdDoesNotFit { initrd_mib: 40 },
            "the initrd of 40 MiB does not fit beside the kernel: give the guest more memory or a smaller initrd",
        ),
        (
            LoadError::CommandLineTooLong { bytes: 3000, limit: 2047 },
            "the command line has 3000 bytes, the kernel takes 2047: shorten it",
        ),
        (LoadError::Compressed("gzip"), "the kernel's file is compressed with gzip: unpack it first"),
        (
            LoadError::OldProtocol { major: 2, minor: 9 },
            "the bzImage speaks boot protocol 2.9, which has no 64-bit entry: give one of Linux 3.8 or later",
        ),
    ];
    for (error, text) in texts {
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn a_command_line_with_a_nul_is_refused() {
    for kernel in [bzimage(), pvh(), multiboot_elf()] {
        assert_eq!(load_into(64 * MIB, &kernel, None, "a\0b").err(), Some(LoadError::CommandLineHasNul));
    }
}

#[test]
fn a_module_that_does_not_fit_is_refused_by_every_protocol() {
    let initrd = vec![0; 64 * MIB as usize];
    for kernel in [bzimage(), pvh(), multiboot_elf(), multiboot_flat()] {
        let error = load_into(64 * MIB, &kernel, Some(&initrd), "").err();
        assert_eq!(error, Some(LoadError::InitrdDoesNotFit { initrd_mib: 64 }));
    }
}

#[test]
fn a_kernel_that_takes_all_low_memory_is_refused() {
    let mut kernel = multiboot_flat();
    multiboot_header(&mut kernel, 0x60, &[0x1020, 0x1000, 0, 0xa_0000, 0x1080], 0x1_0003);
    assert_eq!(load_into(64 * MIB, &kernel, None, "").err(), Some(LoadError::NoLowMemory));
}
