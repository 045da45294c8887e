//! What the loader understands of a boot loader's information, and of the ACPI root pointer where there is none in it.

mod common;

use common::*;
use dragonfly_handoff::{Field, HandoffError, MemoryKind};
use dragonfly_multiboot2::boot_info::{BootInfo, BootInfoError};
use dragonfly_multiboot2::rsdp;

fn valid() -> Vec<Tag> {
    vec![
        command_line("log=info"),
        module(0x30_0000, 0x30_1234, "kernel"),
        module(0x40_0000, 0x40_0001, "bundle release"),
        bios_map(&[(0, 0x9_fc00, 1)]),
    ]
}

fn refused(list: &[Tag]) -> BootInfoError {
    BootInfo::read(tags(list)).unwrap_err()
}

fn regions(list: &[Tag]) -> Vec<(u64, u64, MemoryKind)> {
    let boot = BootInfo::read(tags(list)).unwrap();
    boot.memory.regions().map(|region| (region.base.0, region.size, region.kind)).collect()
}

#[test]
fn modules_and_command_line_are_found() {
    let list = valid();
    let boot = BootInfo::read(tags(&list)).unwrap();
    assert_eq!(boot.command_line.as_str(), "log=info");
    assert_eq!(boot.kernel, range(0x30_0000, 0x1234));
    assert_eq!(boot.bundle, range(0x40_0000, 1));
    assert!(!boot.uefi && boot.rsdp.is_none());
}

#[test]
fn there_may_be_no_command_line() {
    let list = valid();
    assert_eq!(BootInfo::read(tags(&list[1..])).unwrap().command_line.as_str(), "");
}

#[test]
fn a_missing_module_is_named() {
    let mut list = valid();
    list.remove(1);
    assert_eq!(refused(&list), BootInfoError::NoModule("kernel"));
    assert_eq!(
        refused(&list).to_string(),
        "no module is named `kernel`: add `module2 FILE kernel` to the boot loader's configuration"
    );
}

#[test]
fn two_modules_of_one_name_are_refused() {
    let mut list = valid();
    list.push(module(0x50_0000, 0x50_1000, "kernel"));
    assert_eq!(refused(&list), BootInfoError::TwoModules("kernel"));
}

#[test]
fn a_module_that_is_empty_is_refused() {
    for (start, end) in [(0x30_0000, 0x30_0000), (0x30_0000, 0x2f_0000), (0, 0)] {
        let mut list = valid();
        list[1] = module(start, end, "kernel");
        assert_eq!(refused(&list), BootInfoError::EmptyModule("kernel"));
    }
}

#[test]
fn a_tag_that_is_too_short_is_refused() {
    for (index, kind) in [(1, MODULE), (3, MMAP)] {
        let mut list = valid();
        list[index].1.truncate(7);
        assert_eq!(refused(&list), BootInfoError::ShortTag(kind));
    }
    let mut list = valid();
    list[3].1[0] = 23;
    assert_eq!(refused(&list), BootInfoError::ShortTag(MMAP));
}

#[test]
fn a_command_line_that_is_no_text_is_refused() {
    let mut list = valid();
    list[0].1[0] = 0xff;
    assert_eq!(refused(&list), BootInfoError::CommandLine(HandoffError::NotText(Field::CommandLine)));
}

#[test]
fn without_a_memory_map_there_is_no_boot() {
    let mut list = valid();
    list.pop();
    assert_eq!(refused(&list), BootInfoError::NoMemoryMap);
}

#[test]
fn the_bioss_types_of_memory_are_known() {
    let mut list = valid();
    list[3] = bios_map(&[(0, 1, 1), (1, 1, 2), (2, 1, 3), (3, 1, 4), (4, 1, 5), (5, 1, 0), (6, 1, 77)]);
    let expected = [
        MemoryKind::USABLE,
        MemoryKind::RESERVED,
        MemoryKind::ACPI_RECLAIMABLE,
        MemoryKind::ACPI_NVS,
        MemoryKind::UNUSABLE,
        MemoryKind::RESERVED,
        MemoryKind::RESERVED,
    ];
    assert_eq!(regions(&list).iter().map(|region| region.2).collect::<Vec<_>>(), expected);
}

#[test]
fn uefis_types_of_memory_are_known_and_its_map_is_preferred() {
    let mut list = valid();
    list.push(uefi_map(&(0..17).map(|kind| (kind, u64::from(kind) << 20, 256, 0xf)).collect::<Vec<_>>()));
    list.push((EFI64, vec![0; 8]));
    assert!(BootInfo::read(tags(&list)).unwrap().uefi);
    let kinds = regions(&list);
    assert!(kinds.iter().all(|region| region.1 == MIB));
    let of_kind = |kind| {
        let types = kinds.iter().filter(move |region| region.2 == kind);
        types.map(|region| region.0 >> 20).collect::<Vec<_>>()
    };
    assert_eq!(of_kind(MemoryKind::USABLE), [1, 2, 3, 4, 7]);
    assert_eq!(of_kind(MemoryKind::UNUSABLE), [8]);
    assert_eq!(of_kind(MemoryKind::ACPI_RECLAIMABLE), [9]);
    assert_eq!(of_kind(MemoryKind::ACPI_NVS), [10]);
    assert_eq!(of_kind(MemoryKind::MMIO), [11, 12]);
    assert_eq!(of_kind(MemoryKind::RESERVED), [0, 5, 6, 13, 14, 15, 16]);
}

#[test]
fn uefi_memory_for_a_specific_purpose_is_reserved() {
    let mut list = valid();
    list.push(uefi_map(&[(7, 0, 1, 0xf | 1 << 18)]));
    assert_eq!(regions(&list), [(0, 0x1000, MemoryKind::RESERVED)]);
}

#[test]
fn uefis_map_is_not_used_while_boot_services_run() {
    let mut list = valid();
    list.push(uefi_map(&[(7, 0, 1, 0xf)]));
    list.push((EFI_BS, vec![]));
    assert_eq!(regions(&list), [(0, 0x9_fc00, MemoryKind::USABLE)]);
}

#[test]
fn the_newer_root_pointer_is_preferred() {
    let mut list = valid();
    list.push((ACPI_V1, vec![1; 20]));
    assert_eq!(BootInfo::read(tags(&list)).unwrap().rsdp, Some(&[1; 20][..]));
    list.push((ACPI_V2, vec![2; 40]));
    assert_eq!(BootInfo::read(tags(&list)).unwrap().rsdp, Some(&[2; 36][..]));
}

fn root_pointer(revision: u8) -> [u8; 36] {
    let mut bytes = [0; 36];
    bytes[..8].copy_from_slice(b"RSD PTR ");
    bytes[15] = revision;
    bytes[8] = bytes[..20].iter().fold(0, |sum: u8, byte| sum.wrapping_sub(*byte));
    bytes
}

#[test]
fn the_bioss_root_pointer_is_found_at_a_multiple_of_sixteen() {
    let mut memory = vec![0; 0x400];
    memory[0x38..0x38 + 36].copy_from_slice(&root_pointer(0));
    assert_eq!(rsdp::find(&memory), None);
    memory[0x120..0x120 + 36].copy_from_slice(&root_pointer(2));
    assert_eq!(rsdp::find(&memory), Some(&root_pointer(2)[..]));
    memory[0x80..0x80 + 36].copy_from_slice(&root_pointer(0));
    assert_eq!(rsdp::find(&memory), Some(&root_pointer(0)[..20]));
}

#[test]
fn a_root_pointer_with_a_wrong_checksum_or_cut_off_is_not_one() {
    let mut wrong = root_pointer(0);
    wrong[17] = 1;
    assert_eq!(rsdp::find(&wrong), None);
    assert_eq!(rsdp::find(&root_pointer(2)[..35]), None);
    assert_eq!(rsdp::find(&root_pointer(0)[..20]), Some(&root_pointer(0)[..20]));
}
