//! A handoff as a loader would write it, for the tests to change.

use dragonfly_handoff::{
    DIRECT_MAP_BASE, DirectMap, Handoff, HandoffFlags, KERNEL_BASE, KernelSegment, LoaderName, PhysAddr, PhysRange,
    SegmentFlags, VirtAddr,
};

pub fn range(base: u64, size: u64) -> PhysRange {
    PhysRange::new(PhysAddr(base), size).unwrap()
}

pub fn segment(offset: u64, base: u64, size: u64, flags: SegmentFlags) -> KernelSegment {
    KernelSegment { virtual_base: VirtAddr(KERNEL_BASE.0 + offset), frames: range(base, size), flags }
}

pub fn valid_handoff() -> Handoff {
    Handoff {
        flags: HandoffFlags::NO_EXECUTE,
        memory_map: range(0x20_0000, 24 * 7),
        kernel: [
            segment(0, 0x30_0000, 0x1_0000, SegmentFlags::EXECUTE),
            segment(0x1_0000, 0x31_0000, 0x4000, SegmentFlags::empty()),
            segment(0x1_4000, 0x32_0000, 0x8000, SegmentFlags::WRITE),
        ]
        .into_iter()
        .collect(),
        bundle: range(0x40_0000, 0x1_2345),
        command_line: range(0x20_1003, 17),
        acpi_rsdp: Some(PhysAddr(0xf_5a40)),
        boot_memory: range(0x20_0000, 0x1_0000),
        direct_map: DirectMap { base: DIRECT_MAP_BASE, size: 4 << 30 },
        loader_name: LoaderName::new("tests 1.0"),
    }
}
