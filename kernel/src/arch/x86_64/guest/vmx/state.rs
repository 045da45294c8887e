//! The guest's registers.
#![expect(unsafe_code, reason = "some registers are not in the VMCS but in the CPU")]

use core::arch::asm;

use dragonfly_abi::arch::guest::{DescriptorTable, Segment, TscRatio};
use dragonfly_hw::x86::control::Cr0;
use dragonfly_hw::x86::exception::Exception;
use dragonfly_hw::x86::msr::{Efer, IA32_KERNEL_GS_BASE, PAT_RESET};
use dragonfly_hw::x86::vmx::control::{EntryControls, SecondaryControls};
use dragonfly_hw::x86::vmx::event::Interruption;
use dragonfly_hw::x86::vmx::field::Field;
use dragonfly_hw::x86::vmx::state::{AccessRights, Interruptibility};

use super::super::hardware::{ControlRegisters, Segments, SystemRegisters};
use super::super::posted::Posted;
use super::VmxVcpu;
use super::capability::{GUEST_CR4, Setup, setup};
use super::cpu::SystemCall;
use super::vmcs::{read, write};
use crate::arch::x86_64::interrupts::POSTED;
use crate::arch::x86_64::registers::read_msr;

/// DR6 after reset (SDM 3A, "Processor State After Reset").
pub const DR6_RESET: u64 = 0xffff_0ff0;
/// DR7 after reset.
const DR7_RESET: u64 = 0x400;
/// Bits of RFLAGS that exist.
pub const RFLAGS: u64 = 0x003f_7fd5;
/// What of the interruptibility is the VMM's to see and to change.
pub const INTERRUPTIBILITY: u64 = Interruptibility::BLOCKING_BY_STI
    .union(Interruptibility::BLOCKING_BY_MOV_SS)
    .union(Interruptibility::BLOCKING_BY_NMI)
    .bits() as u64;
/// Bits of access rights that are not reserved.
const ACCESS_RIGHTS: u32 = 0x1_f0ff;
/// Debug registers: causes in DR6, and general detect in DR7 (SDM 3B, "Debug Registers").
const DR6_CAUSES: u64 = 0xe00f;
const DR6_NOT_RTM: u64 = 1 << 16;
/// Cause in DR6: a single step.
pub const DR6_STEP: u64 = 1 << 14;
const DR7_GD: u64 = 1 << 13;

/// Fields of a segment register.
struct SegmentFields {
    selector: Field,
    base: Field,
    limit: Field,
    rights: Field,
}

/// ES, CS, SS, DS, FS, GS, LDTR, TR.
const SEGMENTS: [SegmentFields; 8] = {
    macro_rules! fields {
        ($selector:ident $base:ident $limit:ident $rights:ident) => {
            SegmentFields {
                selector: Field::$selector,
                base: Field::$base,
                limit: Field::$limit,
                rights: Field::$rights,
            }
        };
    }
    [
        fields!(GUEST_ES_SELECTOR GUEST_ES_BASE GUEST_ES_LIMIT GUEST_ES_ACCESS_RIGHTS),
        fields!(GUEST_CS_SELECTOR GUEST_CS_BASE GUEST_CS_LIMIT GUEST_CS_ACCESS_RIGHTS),
        fields!(GUEST_SS_SELECTOR GUEST_SS_BASE GUEST_SS_LIMIT GUEST_SS_ACCESS_RIGHTS),
        fields!(GUEST_DS_SELECTOR GUEST_DS_BASE GUEST_DS_LIMIT GUEST_DS_ACCESS_RIGHTS),
        fields!(GUEST_FS_SELECTOR GUEST_FS_BASE GUEST_FS_LIMIT GUEST_FS_ACCESS_RIGHTS),
        fields!(GUEST_GS_SELECTOR GUEST_GS_BASE GUEST_GS_LIMIT GUEST_GS_ACCESS_RIGHTS),
        fields!(GUEST_LDTR_SELECTOR GUEST_LDTR_BASE GUEST_LDTR_LIMIT GUEST_LDTR_ACCESS_RIGHTS),
        fields!(GUEST_TR_SELECTOR GUEST_TR_BASE GUEST_TR_LIMIT GUEST_TR_ACCESS_RIGHTS),
    ]
};
/// Place of TR in [`SEGMENTS`].
const TASK: usize = 7;
/// Place of LDTR.
const LOCAL_TABLE: usize = 6;

/// Writes what a VMCS has to have beside the guest's and the host's state.
pub fn write_controls(setup: &Setup, vcpu: &VmxVcpu, posted: Option<&Posted>) {
    let exceptions = [Exception::Debug, Exception::AlignmentCheck, Exception::MachineCheck];
    let exceptions = exceptions.into_iter().fold(0, |bits, exception| bits | 1 << exception.vector());
    for (field, value) in [
        (Field::PIN_BASED_CONTROLS, setup.pin.into()),
        (Field::PREEMPTION_TIMER, setup.preemption_timer.into()),
        (Field::PRIMARY_PROCESSOR_BASED_CONTROLS, setup.primary.into()),
        (Field::SECONDARY_PROCESSOR_BASED_CONTROLS, setup.secondary.bits().into()),
        (Field::EXIT_CONTROLS, setup.exit.into()),
        (Field::ENTRY_CONTROLS, setup.entry.into()),
        (Field::EXCEPTION_BITMAP, exceptions),
        (Field::PAGE_FAULT_ERROR_CODE_MASK, 0),
        (Field::PAGE_FAULT_ERROR_CODE_MATCH, 0),
        (Field::CR3_TARGET_COUNT, 0),
        (Field::EXIT_MSR_STORE_COUNT, 0),
        (Field::EXIT_MSR_LOAD_COUNT, 0),
        (Field::ENTRY_MSR_LOAD_COUNT, 0),
        (Field::ENTRY_INTERRUPTION_INFORMATION, Interruption::NONE.0.into()),
        (Field::TPR_THRESHOLD, 0),
        (Field::MSR_BITMAP, setup.msr_bitmap.as_u64()),
        (Field::VIRTUAL_APIC_ADDRESS, vcpu.apic.page.address().as_u64()),
        (Field::EPTP, vcpu.eptp),
        (Field::TSC_OFFSET, 0),
        (Field::VMCS_LINK_POINTER, u64::MAX),
        (Field::CR0_GUEST_HOST_MASK, Cr0::NE.bits()),
        (Field::CR4_GUEST_HOST_MASK, !(GUEST_CR4.bits() & setup.cr4.fixed_1)),
    ] {
        write(field, value);
    }
    if setup.secondary.contains(SecondaryControls::PAUSE_LOOP_EXITING) {
        // Loops with up to 128 ticks between two PAUSEs, for longer than 4096: what Linux's KVM uses.
        write(Field::PLE_GAP, 128);
        write(Field::PLE_WINDOW, 4096);
    }
    if setup.secondary.contains(SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY) {
        for field in [
            Field::GUEST_INTERRUPT_STATUS,
            Field::EOI_EXIT_BITMAP_0,
            Field::EOI_EXIT_BITMAP_1,
            Field::EOI_EXIT_BITMAP_2,
            Field::EOI_EXIT_BITMAP_3,
        ] {
            write(field, 0);
        }
    }
    if let Some(posted) = posted {
        write(Field::POSTED_INTERRUPT_NOTIFICATION_VECTOR, POSTED.into());
        write(Field::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, posted.address().as_u64());
    }
    if setup.secondary.contains(SecondaryControls::USE_TSC_SCALING) {
        write(Field::TSC_MULTIPLIER, TscRatio::ONE.to_bits());
    }
    if setup.secondary.contains(SecondaryControls::ENABLE_XSAVES_XRSTORS) {
        write(Field::XSS_EXITING_BITMAP, 0);
    }
}

/// Writes the guest's state after reset (SDM 3A, "Processor State After Reset").
pub fn write_reset() {
    for (field, value) in [
        (Field::GUEST_IA32_DEBUGCTL, 0),
        (Field::GUEST_IA32_PAT, PAT_RESET),
        (Field::GUEST_PDPTE0, 0),
        (Field::GUEST_PDPTE1, 0),
        (Field::GUEST_PDPTE2, 0),
        (Field::GUEST_PDPTE3, 0),
        (Field::GUEST_INTERRUPTIBILITY_STATE, 0),
        (Field::GUEST_ACTIVITY_STATE, 0),
        (Field::GUEST_SMBASE, 0),
        (Field::GUEST_PENDING_DEBUG_EXCEPTIONS, 0),
        (Field::GUEST_DR7, DR7_RESET),
        (Field::GUEST_RSP, 0),
        (Field::GUEST_RIP, 0xfff0),
        (Field::GUEST_RFLAGS, 2),
        (Field::GUEST_IA32_SYSENTER_CS, 0),
        (Field::GUEST_IA32_SYSENTER_ESP, 0),
        (Field::GUEST_IA32_SYSENTER_EIP, 0),
    ] {
        write(field, value);
    }
    set_control(&ControlRegisters { cr0: 0x6000_0010, ..ControlRegisters::default() });
    let table = DescriptorTable { base: 0, limit: 0xffff };
    let data = Segment { attributes: 0x93, limit: 0xffff, ..Segment::default() };
    let mut segments = Segments { segments: [data; 8], gdtr: table, idtr: table };
    segments.segments[1] = Segment { selector: 0xf000, attributes: 0x9b, base: 0xffff_0000, ..data };
    segments.segments[LOCAL_TABLE].attributes = 0x82;
    segments.segments[TASK].attributes = 0x8b;
    set_segments(&segments);
}

/// Privilege level.
pub fn privilege() -> u8 {
    (read(Field::GUEST_SS_ACCESS_RIGHTS) >> AccessRights::DPL_SHIFT & 3) as u8
}

/// Whether the guest runs 64-bit code.
pub fn is_64_bit() -> bool {
    read(Field::GUEST_IA32_EFER) & Efer::LMA.bits() != 0
        && read(Field::GUEST_CS_ACCESS_RIGHTS) & u64::from(AccessRights::L.bits()) != 0
}

/// Control registers but CR2.
pub fn control() -> ControlRegisters {
    let shadow = read(Field::CR0_READ_SHADOW) & Cr0::NE.bits();
    ControlRegisters {
        cr0: read(Field::GUEST_CR0) & !Cr0::NE.bits() | shadow,
        cr2: 0,
        cr3: read(Field::GUEST_CR3),
        cr4: read(Field::GUEST_CR4) & GUEST_CR4.bits(),
        efer: read(Field::GUEST_IA32_EFER),
    }
}

/// Sets them. Bits that do not exist here are dropped.
pub fn set_control(control: &ControlRegisters) {
    let Some(setup) = setup() else { return };
    write(Field::GUEST_CR0, setup.cr0.adjust(control.cr0 & 0xffff_ffff | Cr0::ET.bits()));
    write(Field::CR0_READ_SHADOW, control.cr0);
    write(Field::GUEST_CR3, control.cr3);
    write(Field::GUEST_CR4, setup.cr4.adjust(control.cr4 & GUEST_CR4.bits()));
    write(Field::CR4_READ_SHADOW, 0);
    let efer = Efer::from_bits_retain(control.efer) & (Efer::SCE | Efer::LME | Efer::LMA | Efer::NXE);
    write(Field::GUEST_IA32_EFER, efer.bits());
    let mut entry = EntryControls::from_bits_retain(setup.entry);
    entry.set(EntryControls::IA32E_MODE_GUEST, efer.contains(Efer::LMA));
    write(Field::ENTRY_CONTROLS, entry.bits().into());
}

/// Segments and descriptor tables.
pub fn segments() -> Segments {
    let table = |base: Field, limit: Field| DescriptorTable { base: read(base), limit: read(limit) };
    Segments {
        segments: SEGMENTS.map(|fields| Segment {
            selector: read(fields.selector) as u32,
            attributes: read(fields.rights) as u32,
            limit: read(fields.limit) as u32,
            reserved: 0,
            base: read(fields.base),
        }),
        gdtr: table(Field::GUEST_GDTR_BASE, Field::GUEST_GDTR_LIMIT),
        idtr: table(Field::GUEST_IDTR_BASE, Field::GUEST_IDTR_LIMIT),
    }
}

/// Sets them.
pub fn set_segments(segments: &Segments) {
    for (number, (fields, segment)) in SEGMENTS.iter().zip(&segments.segments).enumerate() {
        write(fields.selector, u64::from(segment.selector) & 0xffff);
        write(fields.base, segment.base);
        write(fields.limit, segment.limit.into());
        write(fields.rights, rights(number, segment.attributes).bits().into());
    }
    for (base, limit, table) in [
        (Field::GUEST_GDTR_BASE, Field::GUEST_GDTR_LIMIT, &segments.gdtr),
        (Field::GUEST_IDTR_BASE, Field::GUEST_IDTR_LIMIT, &segments.idtr),
    ] {
        write(base, table.base);
        write(limit, table.limit & 0xffff);
    }
}

/// Access rights as an entry wants them (SDM 3C, "Checks on Guest Segment Registers"), where other processors do not
/// mind: what is not present is unusable, segments in use have been accessed, and the task is busy.
fn rights(number: usize, attributes: u32) -> AccessRights {
    let mut rights = AccessRights::from_bits_retain(attributes & ACCESS_RIGHTS);
    match number {
        TASK => {
            rights.remove(AccessRights::UNUSABLE);
            rights.insert(AccessRights::RW | AccessRights::P);
        }
        _ if !rights.contains(AccessRights::P) => rights.insert(AccessRights::UNUSABLE),
        LOCAL_TABLE => {}
        _ => rights.insert(AccessRights::A),
    }
    rights
}

/// Model-specific registers.
pub fn system(registers: &SystemCall, cstar: u64) -> SystemRegisters {
    SystemRegisters {
        star: registers.star,
        lstar: registers.lstar,
        cstar,
        sfmask: registers.fmask,
        kernel_gs_base: registers.kernel_gs_base,
        sysenter_cs: read(Field::GUEST_IA32_SYSENTER_CS),
        sysenter_esp: read(Field::GUEST_IA32_SYSENTER_ESP),
        sysenter_eip: read(Field::GUEST_IA32_SYSENTER_EIP),
        pat: read(Field::GUEST_IA32_PAT),
    }
}

/// Sets those that the VMCS has.
pub fn set_system(system: &SystemRegisters) {
    write(Field::GUEST_IA32_SYSENTER_CS, system.sysenter_cs & 0xffff_ffff);
    write(Field::GUEST_IA32_SYSENTER_ESP, system.sysenter_esp);
    write(Field::GUEST_IA32_SYSENTER_EIP, system.sysenter_eip);
    write(Field::GUEST_IA32_PAT, system.pat);
}

/// The guest's KERNEL_GS_BASE, which SWAPGS changes, while it is in the CPU.
pub fn kernel_gs_base() -> u64 {
    read_msr(IA32_KERNEL_GS_BASE)
}

/// CR2 and DR6, while they are in the CPU.
pub fn cr2_and_dr6() -> (u64, u64) {
    let (cr2, dr6);
    // SAFETY: Reading them has no effect.
    unsafe { asm!("mov {}, cr2", "mov {}, dr6", out(reg) cr2, out(reg) dr6, options(nomem, nostack, preserves_flags)) };
    (cr2, dr6)
}

/// Puts them into the CPU.
pub fn load_cr2_and_dr6(cr2: u64, dr6: u64) {
    // SAFETY: The kernel reads CR2 behind a page fault only, which sets it anew, and DR6 never. Upper halves are zero.
    unsafe {
        asm!("mov cr2, {}", "mov dr6, {}", in(reg) cr2, in(reg) dr6 & 0xffff_ffff,
            options(nomem, nostack, preserves_flags));
    }
}

/// Does to DR6 and DR7 what a #DB does beside its delivery: its exit has not (SDM 3C, "Architectural State Before a VM
/// Exit").
pub fn note_debug_exception(causes: u64) {
    let (cr2, dr6) = cr2_and_dr6();
    let not_rtm = !causes & DR6_NOT_RTM;
    let dr6 = dr6 & !(0xf | DR6_NOT_RTM) | causes & DR6_CAUSES | not_rtm;
    load_cr2_and_dr6(cr2, dr6);
    write(Field::GUEST_DR7, read(Field::GUEST_DR7) & !DR7_GD);
}
