//! Local APIC (SDM 3A, "Advanced Programmable Interrupt Controller"; APM 2, chapter 16).

// Offsets of the registers from the local APIC's address (table "Local APIC Register Address Map"). Each is 32 bits
// wide on a boundary of 16 bytes.
constants! { u32 {
    ID                      0x020   "Local APIC ID: bits 31:24 in xAPIC mode, all 32 in x2APIC mode."
    VERSION                 0x030   "Version (7:0), highest LVT entry (23:16), EOI broadcast suppression (24)."
    TPR                     0x080   "Task priority."
    APR                     0x090   "Arbitration priority; not in x2APIC mode."
    PPR                     0x0a0   "Processor priority, read-only."
    EOI                     0x0b0   "End of interrupt, write-only: 0."
    RRD                     0x0c0   "Remote read; not in x2APIC mode."
    LDR                     0x0d0   "Logical destination; read-only in x2APIC mode."
    DFR                     0x0e0   "Destination format; not in x2APIC mode."
    SVR                     0x0f0   "Spurious interrupt vector: [`SpuriousVector`]."
    ISR                     0x100   "In service: first of eight registers of 32 vectors each."
    TMR                     0x180   "Trigger mode: first of eight."
    IRR                     0x200   "Interrupt request: first of eight."
    ESR                     0x280   "Error status: [`ErrorStatus`]. Write 0 before reading."
    LVT_CMCI                0x2f0   "Local vector table: corrected machine check."
    ICR_LOW                 0x300   "Interrupt command, low half; the whole register in x2APIC mode."
    ICR_HIGH                0x310   "Interrupt command, high half; not in x2APIC mode."
    LVT_TIMER               0x320   "Local vector table: timer."
    LVT_THERMAL             0x330   "Local vector table: thermal sensor."
    LVT_PERFORMANCE         0x340   "Local vector table: performance counters."
    LVT_LINT0               0x350   "Local vector table: LINT0 pin."
    LVT_LINT1               0x360   "Local vector table: LINT1 pin."
    LVT_ERROR               0x370   "Local vector table: error."
    TIMER_INITIAL_COUNT     0x380   "Timer: writing starts it, 0 stops it."
    TIMER_CURRENT_COUNT     0x390   "Timer: what is left, read-only."
    TIMER_DIVIDE            0x3e0   "Timer: divide configuration, see [`TIMER_DIVIDE_1`]."
    SELF_IPI                0x3f0   "Interrupt to this processor, write-only: vector. Only in x2APIC mode."
}}

/// The MSR of the register at `offset`, in x2APIC mode (table "Local APIC Register Address Map Supported by x2APIC").
#[must_use]
pub const fn x2apic_msr(offset: u32) -> u32 {
    super::msr::IA32_X2APIC_FIRST + (offset >> 4)
}

const _: () = assert!(x2apic_msr(ICR_LOW) == 0x830 && x2apic_msr(SELF_IPI) == 0x83f);

/// Registers of 32 bits that ISR, TMR and IRR have each, 16 bytes apart.
pub const VECTOR_REGISTERS: u32 = 8;

/// Offset, from ISR, TMR or IRR, of the register with the bit of `vector`, which is bit `vector` modulo 32.
#[must_use]
pub const fn vector_register(vector: u8) -> u32 {
    (vector as u32 >> 5) << 4
}

const _: () = assert!(IRR + vector_register(0xff) == 0x270 && vector_register(0x3f) == 0x10);

/// Host-physical or guest-physical address of the registers after reset, in xAPIC mode.
pub const DEFAULT_ADDRESS: u64 = 0xfee0_0000;

// Fields and values of VERSION.
constants! { u32 {
    VERSION_INTEGRATED      0x0000_0014 "An integrated local APIC, as all are by now; bits 7:0."
    VERSION_MAX_LVT_SHIFT   16          "Lowest bit of the number of table entries less one, of eight."
    VERSION_EOI_SUPPRESSION 0x0100_0000 "EOI_BROADCAST_SUPPRESSION of SVR works."
}}

// Values of registers after reset (section "Local APIC State After Power-Up or Reset").
constants! { u32 {
    DFR_RESET               0xffff_ffff "Flat model."
    LVT_RESET               0x0001_0000 "Masked."
    SVR_RESET               0x0000_00ff "Off, vector 0xff."
}}

// Models of DFR.
constants! { u32 {
    DFR_MODEL               0xf000_0000 "The model; the other bits are 1."
    DFR_FLAT                0xf000_0000 "Each of eight processors has a bit of the logical destination."
    DFR_CLUSTER             0x0000_0000 "Clusters of four processors: number in bits 7:4, a bit each in 3:0."
}}

/// LDR in x2APIC mode: cluster in bits 31:16, the processor's bit in 15:0 (section "Determining IPI Destination").
#[must_use]
pub const fn x2apic_ldr(apic_id: u32) -> u32 {
    (apic_id >> 4) << 16 | 1 << (apic_id & 0xf)
}

const _: () = assert!(x2apic_ldr(0) == 1 && x2apic_ldr(0x23) == 0x2_0008);

/// Destination of all processors in xAPIC mode.
pub const DESTINATION_ALL: u8 = 0xff;
/// Destination of all processors in x2APIC mode.
pub const X2APIC_DESTINATION_ALL: u32 = 0xffff_ffff;

flags! {
    /// Bits of a local vector table entry beside vector, delivery mode and timer mode (figure "Local Vector Table").
    Lvt: u32 {
        DELIVERY_STATUS     12  "An interrupt waits for acceptance, read-only."
        ACTIVE_LOW          13  "Input pin is active low."
        REMOTE_IRR          14  "A level-triggered interrupt is in service, read-only."
        LEVEL               15  "Input pin is level-triggered."
        MASKED              16  "Interrupts are held back."
    }

    /// Bits of [`SVR`] beside the vector (figure "Spurious-Interrupt Vector Register").
    SpuriousVector: u32 {
        ENABLE                      8   "The local APIC is on; else all of its table entries are masked."
        FOCUS_CHECK_DISABLE         9   "No focus processor checking."
        EOI_BROADCAST_SUPPRESSION   12  "EOI is not sent to the I/O APICs."
    }

    /// Bits of [`ESR`] (figure "Error Status Register").
    ErrorStatus: u32 {
        SEND_CHECKSUM       0   "Checksum error while sending, on old processors."
        RECEIVE_CHECKSUM    1   "Checksum error while receiving, on old processors."
        SEND_ACCEPT         2   "A sent message was not accepted, on old processors."
        RECEIVE_ACCEPT      3   "A received message was not accepted, on old processors."
        REDIRECTABLE_IPI    4   "Lowest-priority IPI where it is not supported."
        SEND_VECTOR         5   "A vector below 16 was sent."
        RECEIVE_VECTOR      6   "A vector below 16 was received."
        REGISTER_ADDRESS    7   "A register that does not exist was accessed."
    }
}

// Delivery modes, in bits 10:8 of table entries, interrupt commands and I/O APIC entries.
constants! { u32 {
    DELIVERY_MODE           0x700   "The delivery mode."
    DELIVERY_FIXED          0x000   "The vector."
    DELIVERY_LOWEST         0x100   "The vector, on the processor of lowest priority."
    DELIVERY_SMI            0x200   "System management interrupt."
    DELIVERY_NMI            0x400   "Non-maskable interrupt."
    DELIVERY_INIT           0x500   "INIT."
    DELIVERY_STARTUP        0x600   "Start-up; interrupt commands only."
    DELIVERY_EXTINT         0x700   "The vector comes from an 8259; table and I/O APIC entries only."
}}

// Timer modes, in bits 18:17 of LVT_TIMER.
constants! { u32 {
    TIMER_MODE              0x6_0000    "The timer mode."
    TIMER_ONE_SHOT          0x0_0000    "Counts down once."
    TIMER_PERIODIC          0x2_0000    "Counts down again and again."
    TIMER_TSC_DEADLINE      0x4_0000    "Fires when the TSC reaches IA32_TSC_DEADLINE."
}}

// Values of TIMER_DIVIDE (figure "Divide Configuration Register").
constants! { u32 {
    TIMER_DIVIDE_1          0b1011  "The timer counts each tick of its clock."
    TIMER_DIVIDE_2          0b0000  "Every 2nd tick."
    TIMER_DIVIDE_4          0b0001  "Every 4th tick."
    TIMER_DIVIDE_8          0b0010  "Every 8th tick."
    TIMER_DIVIDE_16         0b0011  "Every 16th tick."
    TIMER_DIVIDE_32         0b1000  "Every 32nd tick."
    TIMER_DIVIDE_64         0b1001  "Every 64th tick."
    TIMER_DIVIDE_128        0b1010  "Every 128th tick."
}}

// Interrupt command beside vector and delivery mode (figure "Interrupt Command Register").
constants! { u32 {
    ICR_LOGICAL             0x0_0800    "Destination is logical, not an APIC ID."
    ICR_PENDING             0x0_1000    "The command has not been sent yet, read-only; not in x2APIC mode."
    ICR_ASSERT              0x0_4000    "Level: assert. Always set but for INIT level de-assert."
    ICR_LEVEL               0x0_8000    "Trigger mode: level."
    ICR_SHORTHAND           0xc_0000    "The shorthand: one of the next three, or 0 for the destination."
    ICR_SELF                0x4_0000    "To this processor, whatever the destination."
    ICR_ALL                 0x8_0000    "To all processors."
    ICR_ALL_BUT_SELF        0xc_0000    "To all other processors."
}}

/// Interrupt command, low half: `vector` to the destination.
#[must_use]
pub const fn icr_fixed(vector: u8) -> u32 {
    DELIVERY_FIXED | ICR_ASSERT | vector as u32
}

/// Interrupt command, low half: NMI to the destination.
pub const ICR_NMI: u32 = DELIVERY_NMI | ICR_ASSERT;

/// Interrupt command, low half: INIT to the destination (SDM 3A, "Typical BSP Initialization Sequence").
pub const ICR_INIT: u32 = DELIVERY_INIT | ICR_ASSERT;

/// Interrupt command, low half: start-up at the 4 KiB `page` below 1 MiB, in real mode at CS:IP = page × 0x100 : 0.
#[must_use]
pub const fn icr_startup(page: u8) -> u32 {
    DELIVERY_STARTUP | ICR_ASSERT | page as u32
}

const _: () = assert!(ICR_INIT == 0x4500 && icr_startup(8) == 0x4608 && icr_fixed(0xf0) == 0x40f0);

/// Interrupt command, high half in xAPIC mode: destination.
#[must_use]
pub const fn icr_high(apic_id: u8) -> u32 {
    (apic_id as u32) << 24
}

/// Divisor of a value of TIMER_DIVIDE, of which bits 3, 1 and 0 count.
#[must_use]
pub const fn timer_divisor(divide: u32) -> u32 {
    let value = divide >> 1 & 0b100 | divide & 0b11;
    1 << ((value + 1) % 8)
}

const _: () = {
    assert!(timer_divisor(TIMER_DIVIDE_1) == 1 && timer_divisor(TIMER_DIVIDE_2) == 2);
    assert!(timer_divisor(TIMER_DIVIDE_16) == 16 && timer_divisor(TIMER_DIVIDE_128) == 128);
};

/// Interrupt command as one value in x2APIC mode.
#[must_use]
pub const fn x2apic_icr(low: u32, apic_id: u32) -> u64 {
    (apic_id as u64) << 32 | low as u64
}
