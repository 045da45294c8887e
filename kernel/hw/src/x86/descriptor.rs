//! Segment descriptors, task state segment and interrupt gates in 64-bit mode (SDM 3A, "Segment Descriptors",
//! "Task Management in 64-bit Mode", "64-Bit Mode IDT"; APM 2, 4.8 and 12.2.5).

/// Descriptor of a code segment for ring 0, 64 bit.
pub const KERNEL_CODE: u64 = PRESENT | CODE_OR_DATA | EXECUTABLE | READABLE | ACCESSED | LONG_MODE | FLAT;
/// Descriptor of a data segment for ring 0.
pub const KERNEL_DATA: u64 = PRESENT | CODE_OR_DATA | WRITABLE | ACCESSED | DEFAULT_SIZE_32 | FLAT;
/// Descriptor of a data segment for ring 3.
pub const USER_DATA: u64 = KERNEL_DATA | dpl(3);
/// Descriptor of a code segment for ring 3, 64 bit.
pub const USER_CODE: u64 = KERNEL_CODE | dpl(3);

/// Requested privilege level of ring 3 in a selector.
pub const SELECTOR_RPL_USER: u16 = 3;

const ACCESSED: u64 = 1 << 40; // Set beforehand, so that loading a selector never writes to a read-only table.
const WRITABLE: u64 = 1 << 41; // In data segments.
const READABLE: u64 = 1 << 41; // In code segments.
const EXECUTABLE: u64 = 1 << 43;
const CODE_OR_DATA: u64 = 1 << 44;
const PRESENT: u64 = 1 << 47;
const LONG_MODE: u64 = 1 << 53;
const DEFAULT_SIZE_32: u64 = 1 << 54;
/// Base 0, limit 4 GiB: ignored in 64-bit mode, and what compatibility mode and VMX state checks expect.
const FLAT: u64 = 1 << 55 | 0xf << 48 | 0xffff;

/// System segment type: 64-bit TSS, available.
const TYPE_TSS_AVAILABLE: u64 = 0x9;
/// Gate type: 64-bit interrupt gate.
const TYPE_INTERRUPT_GATE: u8 = 0xe;

const fn dpl(ring: u64) -> u64 {
    ring << 45
}

const _: () = assert!(KERNEL_CODE == 0x00af_9b00_0000_ffff);
const _: () = assert!(KERNEL_DATA == 0x00cf_9300_0000_ffff);
const _: () = assert!(USER_DATA == 0x00cf_f300_0000_ffff);
const _: () = assert!(USER_CODE == 0x00af_fb00_0000_ffff);

/// Task state segment.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed(4))]
pub struct Tss64 {
    /// Reserved.
    pub reserved_0: u32,
    /// Stack pointers on entry to rings 0 to 2.
    pub rsp: [u64; 3],
    /// Reserved.
    pub reserved_1: u64,
    /// Interrupt stack table: stack pointers that gates name, IST1 first.
    pub ist: [u64; 7],
    /// Reserved.
    pub reserved_2: u64,
    /// Reserved.
    pub reserved_3: u16,
    /// Offset of the I/O permission bit map; at or above the segment's limit there is none and every port is #GP.
    pub io_map_base: u16,
}

const _: () = {
    assert!(size_of::<Tss64>() == 104);
    assert!(core::mem::offset_of!(Tss64, rsp) == 4);
    assert!(core::mem::offset_of!(Tss64, ist) == 36);
    assert!(core::mem::offset_of!(Tss64, io_map_base) == 102);
};

/// Bytes of [`Tss64`].
pub const TSS_SIZE: u16 = 104;

impl Tss64 {
    /// A segment without stacks and without I/O permission bit map.
    pub const EMPTY: Self = Self {
        reserved_0: 0,
        rsp: [0; 3],
        reserved_1: 0,
        ist: [0; 7],
        reserved_2: 0,
        reserved_3: 0,
        io_map_base: TSS_SIZE,
    };
}

/// Descriptor of an available TSS at linear address `base`; `limit` is its size less one, at most 0xf_ffff. It takes
/// two entries of the descriptor table.
#[must_use]
pub const fn tss_descriptor(base: u64, limit: u32) -> [u64; 2] {
    let limit = limit as u64;
    let low = (limit & 0xffff)
        | (base & 0x00ff_ffff) << 16
        | TYPE_TSS_AVAILABLE << 40
        | PRESENT
        | (limit >> 16 & 0xf) << 48
        | (base >> 24 & 0xff) << 56;
    [low, base >> 32]
}

const _: () = {
    let [low, high] = tss_descriptor(0xffff_8012_3456_789a, 0x0a_bcde);
    assert!(low == 0x340a_8956_789a_bcde && high == 0xffff_8012);
};

/// Entry of the interrupt descriptor table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct InterruptGate {
    /// Handler's address, bits 15:0.
    pub offset_low: u16,
    /// Code segment.
    pub selector: u16,
    /// Interrupt stack table entry, 1 to 7, or 0 for the stack of the ring.
    pub ist: u8,
    /// Present, privilege level that may use it by INT, type.
    pub attributes: u8,
    /// Handler's address, bits 31:16.
    pub offset_middle: u16,
    /// Handler's address, bits 63:32.
    pub offset_high: u32,
    /// Reserved.
    pub reserved: u32,
}

const _: () = assert!(size_of::<InterruptGate>() == 16);

impl InterruptGate {
    /// No handler: the vector is a #NP.
    pub const ABSENT: Self =
        Self { offset_low: 0, selector: 0, ist: 0, attributes: 0, offset_middle: 0, offset_high: 0, reserved: 0 };

    /// A gate that turns interrupts off. `ist` is 0 to 7; code at ring `dpl` (0 to 3) and inward may use it by INT.
    #[must_use]
    pub const fn new(handler: u64, selector: u16, ist: u8, dpl: u8) -> Self {
        Self {
            offset_low: handler as u16,
            selector,
            ist: ist & 7,
            attributes: 1 << 7 | (dpl & 3) << 5 | TYPE_INTERRUPT_GATE,
            offset_middle: (handler >> 16) as u16,
            offset_high: (handler >> 32) as u32,
            reserved: 0,
        }
    }
}

const _: () = {
    let gate = InterruptGate::new(0xffff_8012_3456_789a, 8, 3, 3);
    assert!(gate.offset_low == 0x789a && gate.offset_middle == 0x3456 && gate.offset_high == 0xffff_8012);
    assert!(gate.selector == 8 && gate.ist == 3 && gate.attributes == 0xee);
};
