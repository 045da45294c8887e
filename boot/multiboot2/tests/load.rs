//! A whole load on a machine in miniature, judged by what the kernel would find.

mod common;

use common::*;
use dragonfly_handoff::{
    CommandLine, DIRECT_MAP_BASE, HANDOFF_SIZE, Handoff, HandoffFlags, KERNEL_BASE, MemoryKind, MemoryMap, PhysAddr,
    PhysRange,
};
use dragonfly_multiboot2::LoadError;
use dragonfly_multiboot2::kernel_image::KernelImageError;
use dragonfly_multiboot2::load::Launch;
use dragonfly_multiboot2::machine::Cpu;

const BUNDLE: (u32, u32) = (0x50_0000, 0x50_1234);

/// What the kernel finds.
struct Started {
    ram: Ram,
    launch: Launch,
    handoff: Handoff,
    map: MemoryMap,
}

fn start_with(list: &[Tag], file: &ElfFile, cpu: Cpu) -> Started {
    let (ram, launch) = run(list, &file.bytes(), cpu);
    let launch = launch.unwrap();
    let handoff = Handoff::parse(ram.bytes(launch.handoff.0 - DIRECT_MAP_BASE.0, HANDOFF_SIZE as u64)).unwrap();
    let map = MemoryMap::parse(read(&ram, handoff.memory_map), PhysAddr(handoff.direct_map.size)).unwrap();
    Started { ram, launch, handoff, map }
}

fn start() -> Started {
    let file = ElfFile::valid();
    start_with(&boot_tags(file.bytes().len(), BUNDLE), &file, CPU)
}

fn read(ram: &Ram, range: PhysRange) -> &[u8] {
    ram.bytes(range.base().0, range.size())
}

#[test]
fn the_kernel_is_mapped_as_its_file_says() {
    let started = start();
    let mut expected = expected_pages(&ElfFile::valid());
    for page in started.ram.pages(started.launch.page_tables.0) {
        if page.virt >= KERNEL_BASE.0 {
            let (bytes, writable, executable) = expected.remove(&page.virt).unwrap();
            assert_eq!((page.size, page.writable, page.executable), (0x1000, writable, executable));
            assert_eq!(started.ram.bytes(page.phys, 0x1000), bytes);
        }
    }
    assert_eq!(expected.len(), 0);
    assert_eq!(started.launch.entry.0, KERNEL_BASE.0 + 0x10);
}

#[test]
fn besides_the_kernel_only_the_direct_map_and_the_loaders_code_are_mapped() {
    let started = start();
    let (mut direct, mut code) = (0, 0);
    for page in started.ram.pages(started.launch.page_tables.0) {
        assert!(!page.user);
        assert!(!page.writable || !page.executable);
        if page.virt < DIRECT_MAP_BASE.0 {
            assert_eq!((page.phys, page.executable), (page.virt, true));
            code += page.size;
        } else if page.virt < KERNEL_BASE.0 {
            assert_eq!((page.phys, page.writable), (page.virt - DIRECT_MAP_BASE.0, true));
            assert_eq!(page.size, 1 << 30);
            direct += page.size;
        }
    }
    assert_eq!((direct, code), (4 << 30, LOADER_CODE.1));
    assert_eq!(started.handoff.direct_map.size, direct);
}

#[test]
fn without_gibibyte_pages_the_direct_map_has_pages_of_two_mebibytes() {
    let file = ElfFile::valid();
    let cpu = Cpu { gib_pages: false, ..CPU };
    let started = start_with(&boot_tags(file.bytes().len(), BUNDLE), &file, cpu);
    let pages = started.ram.pages(started.launch.page_tables.0);
    assert_eq!(pages.iter().filter(|page| page.size == 2 * MIB).count(), 2048);
}

#[test]
fn the_direct_map_reaches_the_end_of_ram() {
    let file = ElfFile::valid();
    let mut list = boot_tags(file.bytes().len(), BUNDLE);
    list[3] = bios_map(&[(0, 0x9_fc00, 1), (MIB, RAM_SIZE - MIB, 1), (4 << 30, (2 << 30) + 1, 1), (1 << 39, 9, 2)]);
    let cpu = Cpu { gib_pages: false, ..CPU };
    assert_eq!(start_with(&list, &file, CPU).handoff.direct_map.size, 6 << 30);
    assert_eq!(start_with(&list, &file, cpu).handoff.direct_map.size, 6 << 30);
}

#[test]
fn memory_that_the_cpu_cannot_address_is_left_out() {
    let file = ElfFile::valid();
    let mut list = boot_tags(file.bytes().len(), BUNDLE);
    list[3] = bios_map(&[(0, 0x9_fc00, 1), (MIB, RAM_SIZE - MIB, 1), (1 << 40, 1 << 30, 1)]);
    let started = start_with(&list, &file, CPU);
    assert_eq!(started.map.ram_end(), PhysAddr(RAM_SIZE));
}

#[test]
fn the_stack_is_empty_and_large_enough() {
    let started = start();
    let end = started.launch.stack_end.0;
    assert_eq!(end % 16, 0);
    let stack = PhysRange::new(PhysAddr(end - DIRECT_MAP_BASE.0 - 0x4000), 0x4000).unwrap();
    assert!(started.handoff.boot_memory.contains(stack));
    assert!(read(&started.ram, stack).iter().all(|byte| *byte == 0));
}

#[test]
fn command_line_bundle_and_root_pointer_arrive() {
    let Started { ram, handoff, .. } = start();
    assert_eq!(CommandLine::parse(read(&ram, handoff.command_line)).unwrap().value("log"), Some("debug"));
    assert_eq!(handoff.bundle, range(BUNDLE.0.into(), 0x1234));
    let rsdp = PhysRange::new(handoff.acpi_rsdp.unwrap(), 20).unwrap();
    assert_eq!(read(&ram, rsdp), b"RSD PTR 20 bytes....");
    assert!(handoff.boot_memory.contains(rsdp));
    assert!(handoff.loader_name.as_str().starts_with("dragonfly-multiboot2 "));
}

#[test]
fn the_flags_tell_firmware_and_no_execute() {
    let file = ElfFile::valid();
    let mut list = boot_tags(file.bytes().len(), BUNDLE);
    assert_eq!(start_with(&list, &file, CPU).handoff.flags, HandoffFlags::NO_EXECUTE);
    list.push((EFI64, vec![0; 8]));
    let cpu = Cpu { no_execute: false, ..CPU };
    let started = start_with(&list, &file, cpu);
    assert_eq!(started.handoff.flags, HandoffFlags::UEFI);
    assert!(!started.launch.no_execute);
}

#[test]
fn the_memory_map_tells_what_is_in_use() {
    let Started { handoff, map, launch, .. } = start();
    let kind = |address: u64| map.kind_at(PhysAddr(address));
    assert_eq!(kind(0), Some(MemoryKind::RESERVED));
    assert_eq!(kind(LOADER_IMAGE.0 + LOADER_IMAGE.1 - 1), Some(MemoryKind::BOOTLOADER));
    assert_eq!(kind(launch.page_tables.0), Some(MemoryKind::BOOTLOADER));
    assert_eq!(kind(BUNDLE.1.into()), Some(MemoryKind::BUNDLE));
    for segment in &handoff.kernel {
        assert_eq!(kind(segment.frames.base().0), Some(MemoryKind::KERNEL_IMAGE));
    }
    let in_use = [LOADER_IMAGE.1, 0x2000, handoff.boot_memory.size()];
    let in_use =
        in_use.iter().chain(handoff.kernel.iter().map(|s| s.frames.size()).collect::<Vec<_>>().iter()).sum::<u64>();
    let usable: u64 = map.usable().map(PhysRange::size).sum();
    assert_eq!(usable, RAM_SIZE - MIB + 0x9_e000 - in_use);
}

#[test]
fn a_bundle_in_low_memory_is_moved_up() {
    let file = ElfFile::valid();
    let list = boot_tags(file.bytes().len(), (0x1000, 0x9_f000));
    let Started { ram, handoff, map, .. } = start_with(&list, &file, CPU);
    assert!(handoff.bundle.base().0 >= MIB);
    assert_eq!(handoff.bundle.size(), 0x9_e000);
    assert!(read(&ram, handoff.bundle).iter().all(|byte| *byte == 0xa5));
    assert_eq!(map.kind_at(PhysAddr(0x1000)), Some(MemoryKind::USABLE));
    assert_eq!(map.kind_at(handoff.bundle.base()), Some(MemoryKind::BUNDLE));
}

#[test]
fn nothing_that_the_boot_loader_left_is_overwritten() {
    let Started { ram, .. } = start();
    let kernel_file = range(KERNEL_FILE, ElfFile::valid().bytes().len() as u64);
    for left in [range(BUNDLE.0.into(), 0x1234), kernel_file, range(LOADER_IMAGE.0, LOADER_IMAGE.1), range(0, MIB)] {
        assert!(read(&ram, left).iter().all(|byte| *byte == 0xa5));
    }
}

#[test]
fn a_kernel_that_needs_more_memory_than_there_is_is_refused() {
    let mut file = ElfFile::valid();
    file.headers[2].memory_size = 0x1000_0000;
    let list = boot_tags(file.bytes().len(), BUNDLE);
    let free = range(0x50_2000, RAM_SIZE - 0x50_2000);
    assert_eq!(run(&list, &file.bytes(), CPU).1, Err(LoadError::OutOfMemory(free, "the kernel")));
}

#[test]
fn a_machine_without_memory_that_can_be_reached_is_refused() {
    let file = ElfFile::valid();
    let mut list = boot_tags(file.bytes().len(), BUNDLE);
    list[3] = bios_map(&[(0, 0x9_fc00, 1), (4 << 30, 1 << 30, 1)]);
    assert_eq!(run(&list, &file.bytes(), CPU).1, Err(LoadError::NoArena));
}

#[test]
fn a_bad_kernel_file_is_refused_with_a_reason_for_the_user() {
    let mut file = ElfFile::valid();
    file.headers[1].flags = R | W | X;
    let list = boot_tags(file.bytes().len(), BUNDLE);
    let error = run(&list, &file.bytes(), CPU).1.unwrap_err();
    assert_eq!(error, LoadError::KernelImage(KernelImageError::WritableAndExecutable(1)));
    assert_eq!(error.to_string(), "kernel: segment 1 is writable and executable");
}
