//! The definitions agree with those of the `x86_64` and `x86` crates, which others wrote from the same manuals.

use dragonfly_hw::x86::control::{Cr0, Cr4, Rflags, Xcr0};
use dragonfly_hw::x86::descriptor::{KERNEL_CODE, KERNEL_DATA, Tss64, USER_CODE, USER_DATA, tss_descriptor};
use dragonfly_hw::x86::exception::{Exception, PageFaultError};
use dragonfly_hw::x86::msr::{self, ApicBase, Efer};
use dragonfly_hw::x86::paging::Entry;
use x86_64::registers::control::{Cr0Flags, Cr4Flags, EferFlags};
use x86_64::registers::rflags::RFlags;
use x86_64::registers::xcontrol::XCr0Flags;
use x86_64::structures::gdt::{Descriptor, DescriptorFlags};
use x86_64::structures::idt::{ExceptionVector, PageFaultErrorCode};
use x86_64::structures::paging::PageTableFlags;
use x86_64::structures::tss::TaskStateSegment;

/// Compares flags one by one: ours on the left, theirs on the right.
macro_rules! assert_same_bits {
    ($($ours:expr => $theirs:expr,)*) => {
        $(assert_eq!(u64::from($ours.bits()), u64::from($theirs.bits()), stringify!($ours));)*
    };
}

#[test]
fn control_registers_have_the_same_bits() {
    assert_same_bits! {
        Cr0::PE => Cr0Flags::PROTECTED_MODE_ENABLE,
        Cr0::MP => Cr0Flags::MONITOR_COPROCESSOR,
        Cr0::EM => Cr0Flags::EMULATE_COPROCESSOR,
        Cr0::TS => Cr0Flags::TASK_SWITCHED,
        Cr0::ET => Cr0Flags::EXTENSION_TYPE,
        Cr0::NE => Cr0Flags::NUMERIC_ERROR,
        Cr0::WP => Cr0Flags::WRITE_PROTECT,
        Cr0::AM => Cr0Flags::ALIGNMENT_MASK,
        Cr0::NW => Cr0Flags::NOT_WRITE_THROUGH,
        Cr0::CD => Cr0Flags::CACHE_DISABLE,
        Cr0::PG => Cr0Flags::PAGING,
        Cr4::VME => Cr4Flags::VIRTUAL_8086_MODE_EXTENSIONS,
        Cr4::PVI => Cr4Flags::PROTECTED_MODE_VIRTUAL_INTERRUPTS,
        Cr4::TSD => Cr4Flags::TIMESTAMP_DISABLE,
        Cr4::DE => Cr4Flags::DEBUGGING_EXTENSIONS,
        Cr4::PSE => Cr4Flags::PAGE_SIZE_EXTENSION,
        Cr4::PAE => Cr4Flags::PHYSICAL_ADDRESS_EXTENSION,
        Cr4::MCE => Cr4Flags::MACHINE_CHECK_EXCEPTION,
        Cr4::PGE => Cr4Flags::PAGE_GLOBAL,
        Cr4::PCE => Cr4Flags::PERFORMANCE_MONITOR_COUNTER,
        Cr4::OSFXSR => Cr4Flags::OSFXSR,
        Cr4::OSXMMEXCPT => Cr4Flags::OSXMMEXCPT_ENABLE,
        Cr4::UMIP => Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION,
        Cr4::LA57 => Cr4Flags::L5_PAGING,
        Cr4::VMXE => Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS,
        Cr4::SMXE => Cr4Flags::SAFER_MODE_EXTENSIONS,
        Cr4::FSGSBASE => Cr4Flags::FSGSBASE,
        Cr4::PCIDE => Cr4Flags::PCID,
        Cr4::OSXSAVE => Cr4Flags::OSXSAVE,
        Cr4::KL => Cr4Flags::KEY_LOCKER,
        Cr4::SMEP => Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION,
        Cr4::SMAP => Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION,
        Cr4::PKE => Cr4Flags::PROTECTION_KEY_USER,
        Cr4::CET => Cr4Flags::CONTROL_FLOW_ENFORCEMENT,
        Cr4::PKS => Cr4Flags::PROTECTION_KEY_SUPERVISOR,
        Efer::SCE => EferFlags::SYSTEM_CALL_EXTENSIONS,
        Efer::LME => EferFlags::LONG_MODE_ENABLE,
        Efer::LMA => EferFlags::LONG_MODE_ACTIVE,
        Efer::NXE => EferFlags::NO_EXECUTE_ENABLE,
        Efer::SVME => EferFlags::SECURE_VIRTUAL_MACHINE_ENABLE,
        Efer::LMSLE => EferFlags::LONG_MODE_SEGMENT_LIMIT_ENABLE,
        Efer::FFXSR => EferFlags::FAST_FXSAVE_FXRSTOR,
        Efer::TCE => EferFlags::TRANSLATION_CACHE_EXTENSION,
        Xcr0::X87 => XCr0Flags::X87,
        Xcr0::SSE => XCr0Flags::SSE,
        Xcr0::AVX => XCr0Flags::AVX,
        Xcr0::BNDREGS => XCr0Flags::BNDREG,
        Xcr0::BNDCSR => XCr0Flags::BNDCSR,
        Xcr0::OPMASK => XCr0Flags::OPMASK,
        Xcr0::ZMM_HI256 => XCr0Flags::ZMM_HI256,
        Xcr0::HI16_ZMM => XCr0Flags::HI16_ZMM,
        Xcr0::PKRU => XCr0Flags::MPK,
        ApicBase::BSP => x86_64::registers::model_specific::ApicBaseFlags::BSP,
        ApicBase::EXTD => x86_64::registers::model_specific::ApicBaseFlags::X2APIC_ENABLE,
        ApicBase::EN => x86_64::registers::model_specific::ApicBaseFlags::LAPIC_ENABLE,
    }
}

#[test]
fn flags_and_page_table_entries_have_the_same_bits() {
    assert_same_bits! {
        Rflags::CF => RFlags::CARRY_FLAG,
        Rflags::PF => RFlags::PARITY_FLAG,
        Rflags::AF => RFlags::AUXILIARY_CARRY_FLAG,
        Rflags::ZF => RFlags::ZERO_FLAG,
        Rflags::SF => RFlags::SIGN_FLAG,
        Rflags::TF => RFlags::TRAP_FLAG,
        Rflags::IF => RFlags::INTERRUPT_FLAG,
        Rflags::DF => RFlags::DIRECTION_FLAG,
        Rflags::OF => RFlags::OVERFLOW_FLAG,
        Rflags::NT => RFlags::NESTED_TASK,
        Rflags::RF => RFlags::RESUME_FLAG,
        Rflags::VM => RFlags::VIRTUAL_8086_MODE,
        Rflags::AC => RFlags::ALIGNMENT_CHECK,
        Rflags::VIF => RFlags::VIRTUAL_INTERRUPT,
        Rflags::VIP => RFlags::VIRTUAL_INTERRUPT_PENDING,
        Rflags::ID => RFlags::ID,
        Entry::P => PageTableFlags::PRESENT,
        Entry::RW => PageTableFlags::WRITABLE,
        Entry::US => PageTableFlags::USER_ACCESSIBLE,
        Entry::PWT => PageTableFlags::WRITE_THROUGH,
        Entry::PCD => PageTableFlags::NO_CACHE,
        Entry::A => PageTableFlags::ACCESSED,
        Entry::D => PageTableFlags::DIRTY,
        Entry::PS => PageTableFlags::HUGE_PAGE,
        Entry::G => PageTableFlags::GLOBAL,
        Entry::XD => PageTableFlags::NO_EXECUTE,
        PageFaultError::P => PageFaultErrorCode::PROTECTION_VIOLATION,
        PageFaultError::WR => PageFaultErrorCode::CAUSED_BY_WRITE,
        PageFaultError::US => PageFaultErrorCode::USER_MODE,
        PageFaultError::RSVD => PageFaultErrorCode::MALFORMED_TABLE,
        PageFaultError::ID => PageFaultErrorCode::INSTRUCTION_FETCH,
        PageFaultError::PK => PageFaultErrorCode::PROTECTION_KEY,
        PageFaultError::SS => PageFaultErrorCode::SHADOW_STACK,
        PageFaultError::SGX => PageFaultErrorCode::SGX,
        PageFaultError::RMP => PageFaultErrorCode::RMP,
    }
    let iopl = RFlags::IOPL_HIGH | RFlags::IOPL_LOW;
    assert_eq!(dragonfly_hw::x86::control::RFLAGS_IOPL, iopl.bits());
}

#[test]
fn segment_descriptors_are_the_same() {
    let accessed = DescriptorFlags::ACCESSED.bits();
    assert_eq!(KERNEL_CODE, DescriptorFlags::KERNEL_CODE64.bits() | accessed);
    assert_eq!(KERNEL_DATA, DescriptorFlags::KERNEL_DATA.bits() | accessed);
    assert_eq!(USER_CODE, DescriptorFlags::USER_CODE64.bits() | accessed);
    assert_eq!(USER_DATA, DescriptorFlags::USER_DATA.bits() | accessed);
}

#[test]
fn task_state_segment_and_its_descriptor_are_the_same() {
    static THEIRS: TaskStateSegment = TaskStateSegment::new();
    let Descriptor::SystemSegment(low, high) = Descriptor::tss_segment(&THEIRS) else { panic!("a user segment") };
    let base = core::ptr::from_ref(&THEIRS).addr() as u64;
    assert_eq!(tss_descriptor(base, size_of::<Tss64>() as u32 - 1), [low, high]);
    assert_eq!({ Tss64::EMPTY.io_map_base }, THEIRS.iomap_base);
    assert_eq!(core::mem::offset_of!(Tss64, ist), core::mem::offset_of!(TaskStateSegment, interrupt_stack_table));
    assert_eq!(core::mem::offset_of!(Tss64, rsp), core::mem::offset_of!(TaskStateSegment, privilege_stack_table));
}

#[test]
fn each_exception_has_the_same_vector() {
    for vector in 0..=255u8 {
        let ours = Exception::from_vector(vector);
        assert_eq!(ours.is_some(), ExceptionVector::try_from(vector).is_ok(), "vector {vector}");
        if let Some(exception) = ours {
            assert_eq!(exception.vector(), vector);
        }
    }
    assert_eq!(Exception::PageFault.vector(), ExceptionVector::Page as u8);
    assert_eq!(Exception::Security.vector(), ExceptionVector::Security as u8);
    assert_eq!((Exception::PageFault.mnemonic(), Exception::PageFault.name()), ("#PF", "Page Fault"));
}

#[test]
fn exceptions_with_an_error_code_are_those_of_the_manuals() {
    let with_code: Vec<u8> =
        (0..32).filter(|vector| Exception::from_vector(*vector).is_some_and(Exception::pushes_error_code)).collect();
    assert_eq!(with_code, [8, 10, 11, 12, 13, 14, 17, 21, 29, 30]);
}

#[test]
fn model_specific_registers_have_the_same_numbers() {
    use x86_64::registers::model_specific::{ApicBase, Efer, FsBase, GsBase, KernelGsBase, LStar, SFMask, Star};
    for (ours, theirs) in [
        (msr::IA32_APIC_BASE, ApicBase::MSR),
        (msr::IA32_EFER, Efer::MSR),
        (msr::IA32_STAR, Star::MSR),
        (msr::IA32_LSTAR, LStar::MSR),
        (msr::IA32_FMASK, SFMask::MSR),
        (msr::IA32_FS_BASE, FsBase::MSR),
        (msr::IA32_GS_BASE, GsBase::MSR),
        (msr::IA32_KERNEL_GS_BASE, KernelGsBase::MSR),
    ] {
        assert_eq!(format!("{theirs:?}"), format!("Msr({ours})"));
    }
}

#[test]
fn model_specific_registers_of_the_older_crate_have_the_same_numbers() {
    for (ours, theirs) in [
        (msr::IA32_TIME_STAMP_COUNTER, x86::msr::IA32_TIME_STAMP_COUNTER),
        (msr::IA32_PLATFORM_ID, x86::msr::IA32_PLATFORM_ID),
        (msr::IA32_APIC_BASE, x86::msr::IA32_APIC_BASE),
        (msr::MSR_EBL_CR_POWERON, x86::msr::MSR_EBL_CR_POWERON),
        (msr::MSR_SMI_COUNT, x86::msr::MSR_SMI_COUNT),
        (msr::IA32_FEATURE_CONTROL, x86::msr::IA32_FEATURE_CONTROL),
        (msr::IA32_TSC_ADJUST, x86::msr::IA32_TSC_ADJUST),
        (msr::IA32_BIOS_UPDT_TRIG, x86::msr::IA32_BIOS_UPDT_TRIG),
        (msr::IA32_BIOS_SIGN_ID, x86::msr::IA32_BIOS_SIGN_ID),
        (msr::IA32_PMC0, x86::msr::IA32_PMC0),
        (msr::MSR_FSB_FREQ, x86::msr::MSR_FSB_FREQ),
        (msr::MSR_PLATFORM_INFO, x86::msr::MSR_PLATFORM_INFO),
        (msr::MSR_PKG_CST_CONFIG_CONTROL, x86::msr::MSR_PKG_CST_CONFIG_CONTROL),
        (msr::IA32_MPERF, x86::msr::IA32_MPERF),
        (msr::IA32_APERF, x86::msr::IA32_APERF),
        (msr::IA32_MTRRCAP, x86::msr::IA32_MTRRCAP),
        (msr::IA32_SYSENTER_CS, x86::msr::IA32_SYSENTER_CS),
        (msr::IA32_SYSENTER_ESP, x86::msr::IA32_SYSENTER_ESP),
        (msr::IA32_SYSENTER_EIP, x86::msr::IA32_SYSENTER_EIP),
        (msr::IA32_MCG_CAP, x86::msr::IA32_MCG_CAP),
        (msr::IA32_MCG_STATUS, x86::msr::IA32_MCG_STATUS),
        (msr::IA32_MCG_CTL, x86::msr::IA32_MCG_CTL),
        (msr::IA32_PERFEVTSEL0, x86::msr::IA32_PERFEVTSEL0),
        (msr::IA32_PERF_STATUS, x86::msr::IA32_PERF_STATUS),
        (msr::IA32_PERF_CTL, x86::msr::IA32_PERF_CTL),
        (msr::IA32_THERM_INTERRUPT, x86::msr::IA32_THERM_INTERRUPT),
        (msr::IA32_THERM_STATUS, x86::msr::IA32_THERM_STATUS),
        (msr::IA32_MISC_ENABLE, x86::msr::IA32_MISC_ENABLE),
        (msr::IA32_DEBUGCTL, x86::msr::IA32_DEBUGCTL),
        (msr::MSR_POWER_CTL, x86::msr::MSR_POWER_CTL),
        (msr::IA32_MTRR_PHYSBASE0, x86::msr::IA32_MTRR_PHYSBASE0),
        (msr::IA32_MTRR_PHYSMASK0, x86::msr::IA32_MTRR_PHYSMASK0),
        (msr::IA32_MTRR_FIX64K_00000, x86::msr::IA32_MTRR_FIX64K_00000),
        (msr::IA32_MTRR_FIX16K_80000, x86::msr::IA32_MTRR_FIX16K_80000),
        (msr::IA32_MTRR_FIX16K_A0000, x86::msr::IA32_MTRR_FIX16K_A0000),
        (msr::IA32_MTRR_FIX4K_C0000, x86::msr::IA32_MTRR_FIX4K_C0000),
        (msr::IA32_PAT, x86::msr::IA32_PAT),
        (msr::IA32_MTRR_DEF_TYPE, x86::msr::IA32_MTRR_DEF_TYPE),
        (msr::IA32_PERF_CAPABILITIES, x86::msr::IA32_PERF_CAPABILITIES),
        (msr::IA32_PERF_GLOBAL_CTRL, x86::msr::IA32_PERF_GLOBAL_CTRL),
        (msr::IA32_MC0_CTL, x86::msr::IA32_MC0_CTL),
        (msr::IA32_VMX_BASIC, x86::msr::IA32_VMX_BASIC),
        (msr::IA32_VMX_PINBASED_CTLS, x86::msr::IA32_VMX_PINBASED_CTLS),
        (msr::IA32_VMX_PROCBASED_CTLS, x86::msr::IA32_VMX_PROCBASED_CTLS),
        (msr::IA32_VMX_EXIT_CTLS, x86::msr::IA32_VMX_EXIT_CTLS),
        (msr::IA32_VMX_ENTRY_CTLS, x86::msr::IA32_VMX_ENTRY_CTLS),
        (msr::IA32_VMX_MISC, x86::msr::IA32_VMX_MISC),
        (msr::IA32_VMX_CR0_FIXED0, x86::msr::IA32_VMX_CR0_FIXED0),
        (msr::IA32_VMX_CR0_FIXED1, x86::msr::IA32_VMX_CR0_FIXED1),
        (msr::IA32_VMX_CR4_FIXED0, x86::msr::IA32_VMX_CR4_FIXED0),
        (msr::IA32_VMX_CR4_FIXED1, x86::msr::IA32_VMX_CR4_FIXED1),
        (msr::IA32_VMX_VMCS_ENUM, x86::msr::IA32_VMX_VMCS_ENUM),
        (msr::IA32_VMX_PROCBASED_CTLS2, x86::msr::IA32_VMX_PROCBASED_CTLS2),
        (msr::IA32_VMX_EPT_VPID_CAP, x86::msr::IA32_VMX_EPT_VPID_CAP),
        (msr::IA32_VMX_TRUE_PINBASED_CTLS, x86::msr::IA32_VMX_TRUE_PINBASED_CTLS),
        (msr::IA32_VMX_TRUE_PROCBASED_CTLS, x86::msr::IA32_VMX_TRUE_PROCBASED_CTLS),
        (msr::IA32_VMX_TRUE_EXIT_CTLS, x86::msr::IA32_VMX_TRUE_EXIT_CTLS),
        (msr::IA32_VMX_TRUE_ENTRY_CTLS, x86::msr::IA32_VMX_TRUE_ENTRY_CTLS),
        (msr::IA32_VMX_VMFUNC, x86::msr::IA32_VMX_VMFUNC),
        (msr::MSR_RAPL_POWER_UNIT, x86::msr::MSR_RAPL_POWER_UNIT),
        (msr::IA32_TSC_DEADLINE, x86::msr::IA32_TSC_DEADLINE),
        (msr::IA32_EFER, x86::msr::IA32_EFER),
        (msr::IA32_STAR, x86::msr::IA32_STAR),
        (msr::IA32_LSTAR, x86::msr::IA32_LSTAR),
        (msr::IA32_CSTAR, x86::msr::IA32_CSTAR),
        (msr::IA32_FMASK, x86::msr::IA32_FMASK),
        (msr::IA32_FS_BASE, x86::msr::IA32_FS_BASE),
        (msr::IA32_GS_BASE, x86::msr::IA32_GS_BASE),
        (msr::IA32_TSC_AUX, x86::msr::IA32_TSC_AUX),
    ] {
        assert_eq!(ours, theirs, "{ours:#x} {theirs:#x}");
    }
}
