//! What VT-x can do here, and which of it is used.
#![expect(unsafe_code, reason = "permission maps are written in memory")]

use core::arch::x86_64::__cpuid;

use dragonfly_acpi::Acpi;
use dragonfly_hw::x86::apic::{EOI, IRR, ISR, PPR, SELF_IPI, TPR, VECTOR_REGISTERS, x2apic_msr};
use dragonfly_hw::x86::control::{Cr0, Cr4};
use dragonfly_hw::x86::cpuid::{LEAF_FEATURES, Leaf1Ecx};
use dragonfly_hw::x86::msr::{
    FeatureControl, IA32_EFER, IA32_FEATURE_CONTROL, IA32_FMASK, IA32_FS_BASE, IA32_GS_BASE, IA32_KERNEL_GS_BASE,
    IA32_LSTAR, IA32_PAT, IA32_STAR, IA32_SYSENTER_CS, IA32_SYSENTER_EIP, IA32_SYSENTER_ESP, IA32_VMX_BASIC,
    IA32_VMX_CR0_FIXED0, IA32_VMX_CR0_FIXED1, IA32_VMX_CR4_FIXED0, IA32_VMX_CR4_FIXED1, IA32_VMX_EPT_VPID_CAP,
    IA32_VMX_MISC, IA32_VMX_PROCBASED_CTLS2, IA32_VMX_TRUE_ENTRY_CTLS, IA32_VMX_TRUE_EXIT_CTLS,
    IA32_VMX_TRUE_PINBASED_CTLS, IA32_VMX_TRUE_PROCBASED_CTLS,
};
use dragonfly_hw::x86::vmx::capability::{AllowedControls, Basic, EptVpidCapability, FixedBits, Misc};
use dragonfly_hw::x86::vmx::control::{EntryControls, ExitControls, PinControls, PrimaryControls, SecondaryControls};
use dragonfly_hw::x86::vmx::ept::Eptp;
use dragonfly_hw::x86::vmx::region::{MSR_BITMAP_SIZE, MSR_BITMAP_WRITE, msr_bitmap_bit};
use dragonfly_memory::{EptTracking, HostPhys, PageSize, PhysicalMemory};
use spin::Once;

use super::super::capability::{Names, is_asked_for, is_wanted, new_map};
use crate::arch::x86_64::registers::read_msr;
use crate::arch::x86_64::{X86, clock};

/// Registers that the guest reads and writes itself: the VMCS has them, or they are its own while it runs.
const GUEST_MSRS: [u32; 7] =
    [IA32_FS_BASE, IA32_GS_BASE, IA32_KERNEL_GS_BASE, IA32_SYSENTER_CS, IA32_SYSENTER_ESP, IA32_SYSENTER_EIP, IA32_PAT];
/// Registers that the guest reads itself. Writes are seen, so that it is known what to put back.
const READABLE_MSRS: [u32; 4] = [IA32_STAR, IA32_LSTAR, IA32_FMASK, IA32_EFER];

const PIN: PinControls =
    PinControls::EXTERNAL_INTERRUPT_EXITING.union(PinControls::NMI_EXITING).union(PinControls::VIRTUAL_NMIS);
const PRIMARY: PrimaryControls = PrimaryControls::HLT_EXITING
    .union(PrimaryControls::USE_TSC_OFFSETTING)
    .union(PrimaryControls::MWAIT_EXITING)
    .union(PrimaryControls::MONITOR_EXITING)
    .union(PrimaryControls::RDPMC_EXITING)
    .union(PrimaryControls::USE_TPR_SHADOW)
    .union(PrimaryControls::UNCONDITIONAL_IO_EXITING)
    .union(PrimaryControls::USE_MSR_BITMAPS)
    .union(PrimaryControls::ACTIVATE_SECONDARY);
const SECONDARY: SecondaryControls = SecondaryControls::ENABLE_EPT.union(SecondaryControls::UNRESTRICTED_GUEST);
const EXIT: ExitControls = ExitControls::SAVE_DEBUG_CONTROLS
    .union(ExitControls::HOST_ADDRESS_SPACE_SIZE)
    .union(ExitControls::ACKNOWLEDGE_INTERRUPT)
    .union(ExitControls::SAVE_PAT)
    .union(ExitControls::LOAD_PAT)
    .union(ExitControls::SAVE_EFER)
    .union(ExitControls::LOAD_EFER);
const ENTRY: EntryControls =
    EntryControls::LOAD_DEBUG_CONTROLS.union(EntryControls::LOAD_PAT).union(EntryControls::LOAD_EFER);
const EPT: EptVpidCapability = EptVpidCapability::PAGE_WALK_LENGTH_4
    .union(EptVpidCapability::MEMORY_TYPE_WB)
    .union(EptVpidCapability::INVEPT)
    .union(EptVpidCapability::INVEPT_SINGLE_CONTEXT);
const VPID: EptVpidCapability = EptVpidCapability::INVVPID.union(EptVpidCapability::INVVPID_ALL_CONTEXTS);

/// Instructions that a guest has if the processor lets it.
const INSTRUCTIONS: SecondaryControls = SecondaryControls::ENABLE_RDTSCP
    .union(SecondaryControls::ENABLE_INVPCID)
    .union(SecondaryControls::ENABLE_XSAVES_XRSTORS)
    .union(SecondaryControls::WBINVD_EXITING);

/// A guest that nothing interrupts is left after this time of its own, by the preemption timer, which goes on over other
/// exits. An interrupt that the processor owes is then late and not lost: Bochs 3.0 holds interrupts back for as long as
/// a guest has its own off from the entry on (docs/CAVEATS.md).
const LONGEST_STAY_MS: u64 = 2;

/// How guests are run on this machine.
#[derive(Debug)]
pub struct Setup {
    /// First word of each region.
    pub revision: u32,
    /// Pin-based controls.
    pub pin: u32,
    /// Value of the preemption timer.
    pub preemption_timer: u32,
    /// Primary processor-based controls.
    pub primary: u32,
    /// Secondary processor-based controls.
    pub secondary: SecondaryControls,
    /// Exit controls.
    pub exit: u32,
    /// Entry controls.
    pub entry: u32,
    /// How it is known to which pages a guest has written.
    pub tracking: EptTracking,
    /// Of the EPT pointer.
    pub eptp: Eptp,
    /// The largest page of the second stage.
    pub largest_page: PageSize,
    /// What CR0 must be while a guest runs: PE and PG are free.
    pub cr0: FixedBits,
    /// What CR4 must be.
    pub cr4: FixedBits,
    /// Which registers are the guest's to read and write.
    pub msr_bitmap: HostPhys,
    /// The same in x2APIC mode, if the processor has that mode of guests.
    pub x2apic_msr_bitmap: Option<HostPhys>,
    /// The processor is Bochs's, which does some things that none may (docs/CAVEATS.md).
    pub is_bochs: bool,
}

impl Setup {
    /// Whether the processor takes interrupts for guests out of memory.
    pub fn has_posted_interrupts(&self) -> bool {
        PinControls::from_bits_retain(self.pin).contains(PinControls::POSTED_INTERRUPTS)
    }
}

static SETUP: Once<Setup> = Once::new();

/// How guests are run, if they can be.
pub fn setup() -> Option<&'static Setup> {
    SETUP.get()
}

/// Finds out whether this machine has what guests need, and says why not.
pub fn detect(acpi: &Acpi) -> bool {
    let features = Leaf1Ecx::from_bits_retain(__cpuid(LEAF_FEATURES).ecx);
    if !features.contains(Leaf1Ecx::VMX) {
        return false;
    }
    // QEMU's tables have the same name.
    let is_bochs = &acpi.oem == b"BOCHS " && !features.contains(Leaf1Ecx::HYPERVISOR);
    match choose(is_bochs) {
        Ok(setup) => {
            SETUP.call_once(|| setup);
            true
        }
        Err(reason) => {
            log::warn!("no virtual machines: {reason}");
            false
        }
    }
}

fn choose(is_bochs: bool) -> Result<Setup, &'static str> {
    let control = FeatureControl::from_bits_retain(read_msr(IA32_FEATURE_CONTROL));
    if control.contains(FeatureControl::LOCK) && !control.contains(FeatureControl::VMX_OUTSIDE_SMX) {
        return Err("the firmware has disabled VT-x");
    }
    let basic = Basic(read_msr(IA32_VMX_BASIC));
    if !basic.has_true_controls() {
        return Err("VT-x without controls that may be off");
    }
    let allowed = |register| AllowedControls(read_msr(register));
    let primary = allowed(IA32_VMX_TRUE_PROCBASED_CTLS).adjust(PRIMARY.bits());
    if !PrimaryControls::from_bits_retain(primary).contains(PRIMARY) {
        return Err("VT-x lacks the TPR shadow, MSR bit maps or secondary controls");
    }
    let offered = allowed(IA32_VMX_PROCBASED_CTLS2);
    let ept = EptVpidCapability::from_bits_retain(if offered.allowed() & SECONDARY.bits() == SECONDARY.bits() {
        read_msr(IA32_VMX_EPT_VPID_CAP)
    } else {
        return Err("VT-x lacks EPT or unrestricted guests");
    });
    if !ept.contains(EPT) {
        return Err("VT-x lacks EPT with four levels in write-back memory and INVEPT");
    }
    let has_vpid = ept.contains(VPID);
    let features = [
        ("vpid", "vmx.vpid", SecondaryControls::ENABLE_VPID, has_vpid),
        ("pause-loop exiting", "vmx.ple", SecondaryControls::PAUSE_LOOP_EXITING, true),
        ("scaling of time-stamp counters", "vmx.tsc-scaling", SecondaryControls::USE_TSC_SCALING, true),
        (
            "virtual-interrupt delivery",
            "vmx.vid",
            SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY,
            // Bochs delivers some where it must not (docs/CAVEATS.md).
            !is_bochs || is_asked_for("vmx.vid"),
        ),
        ("APIC-register virtualisation", "vmx.apic-registers", SecondaryControls::APIC_REGISTER_VIRTUALIZATION, true),
    ];
    let mut wanted = SECONDARY | INSTRUCTIONS;
    for (_, option, control, is_there) in features {
        wanted.set(control, is_there && is_wanted(option));
    }
    let mut secondary = SecondaryControls::from_bits_retain(offered.adjust(wanted.bits()));
    let delivers = secondary.contains(SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY);
    let has_x2apic = delivers && offered.allowed() & SecondaryControls::VIRTUALIZE_X2APIC_MODE.bits() != 0;
    if !has_x2apic {
        secondary.remove(SecondaryControls::APIC_REGISTER_VIRTUALIZATION);
    }
    let mut wanted = PIN;
    wanted.set(PinControls::POSTED_INTERRUPTS, delivers && is_wanted("vmx.posted-interrupts"));
    wanted.set(PinControls::PREEMPTION_TIMER, is_wanted("vmx.preemption-timer"));
    let pin = allowed(IA32_VMX_TRUE_PINBASED_CTLS).adjust(wanted.bits());
    let mut wanted = EXIT;
    // Must be off without the timer (SDM 3C, "VM-Execution Control Fields").
    let pin_controls = PinControls::from_bits_retain(pin);
    wanted.set(ExitControls::SAVE_PREEMPTION_TIMER, pin_controls.contains(PinControls::PREEMPTION_TIMER));
    let exit = allowed(IA32_VMX_TRUE_EXIT_CTLS).adjust(wanted.bits());
    let entry = allowed(IA32_VMX_TRUE_ENTRY_CTLS).adjust(ENTRY.bits());
    if !pin_controls.contains(PIN)
        || !ExitControls::from_bits_retain(exit).contains(EXIT)
        || !EntryControls::from_bits_retain(entry).contains(ENTRY)
    {
        return Err("VT-x lacks virtual NMIs, or does not switch IA32_PAT and IA32_EFER");
    }
    let has_dirty = ept.contains(EptVpidCapability::ACCESSED_DIRTY) && is_wanted("vmx.ept-ad");
    let tracking = match has_dirty {
        false => EptTracking::Protection,
        true if offered.allowed() & SecondaryControls::ENABLE_PML.bits() != 0 && is_wanted("vmx.pml") => {
            EptTracking::Log
        }
        true => EptTracking::Flags,
    };
    let largest_page = if ept.contains(EptVpidCapability::PAGE_1G) && is_wanted("vmx.ept-1g") {
        PageSize::Size1G
    } else if ept.contains(EptVpidCapability::PAGE_2M) && is_wanted("vmx.ept-2m") {
        PageSize::Size2M
    } else {
        PageSize::Size4K
    };
    let fixed = |zero, one| FixedBits { fixed_0: read_msr(zero), fixed_1: read_msr(one) };
    let cr0 = fixed(IA32_VMX_CR0_FIXED0, IA32_VMX_CR0_FIXED1);
    let paging = (Cr0::PE | Cr0::PG).bits();
    let setup = Setup {
        revision: basic.revision(),
        pin,
        preemption_timer: preemption_timer(),
        primary,
        secondary,
        exit,
        entry,
        tracking,
        eptp: if has_dirty { Eptp::AD } else { Eptp::empty() },
        largest_page,
        cr0: FixedBits { fixed_0: cr0.fixed_0 & !paging, ..cr0 },
        cr4: fixed(IA32_VMX_CR4_FIXED0, IA32_VMX_CR4_FIXED1),
        msr_bitmap: msr_bitmap(&[], &[]).ok_or(NO_MAPS)?,
        x2apic_msr_bitmap: if has_x2apic { Some(x2apic_msr_bitmap(secondary).ok_or(NO_MAPS)?) } else { None },
        is_bochs,
    };
    report(&setup, features.map(|(name, _, control, _)| (name, secondary.contains(control))));
    Ok(setup)
}

fn report(setup: &Setup, features: [(&'static str, bool); 5]) {
    let all = features.into_iter().chain([
        ("posted interrupts", setup.has_posted_interrupts()),
        ("preemption timer", PinControls::from_bits_retain(setup.pin).contains(PinControls::PREEMPTION_TIMER)),
        ("accessed and dirty flags", setup.eptp.contains(Eptp::AD)),
        ("page-modification log", setup.tracking == EptTracking::Log),
        ("2M pages", setup.largest_page != PageSize::Size4K),
        ("1G pages", setup.largest_page == PageSize::Size1G),
    ]);
    let list = |is_used: bool| all.clone().filter(move |(_, used)| *used == is_used).map(|(name, _)| name);
    log::info!("virtual machines by VT-x with EPT; used: {}", Names(list(true)));
    log::info!("VT-x features that are missing or off: {}", Names(list(false)));
}

/// The preemption timer's count for [`LONGEST_STAY_MS`].
fn preemption_timer() -> u32 {
    let ticks = clock::frequency_hz() / 1000 * LONGEST_STAY_MS;
    u32::try_from(ticks >> Misc(read_msr(IA32_VMX_MISC)).preemption_timer_shift()).unwrap_or(u32::MAX)
}

/// What there is no memory for.
const NO_MAPS: &str = "no memory for permission maps";

/// As [`msr_bitmap`], but for what the processor virtualizes of x2APIC mode: it keeps these registers itself.
fn x2apic_msr_bitmap(secondary: SecondaryControls) -> Option<HostPhys> {
    const WRITES: [u32; 3] = [x2apic_msr(TPR), x2apic_msr(EOI), x2apic_msr(SELF_IPI)];
    const READS: [u32; 18] = {
        let mut list = [x2apic_msr(TPR); 18];
        list[1] = x2apic_msr(PPR);
        let mut index = 0;
        while index < VECTOR_REGISTERS {
            list[2 + index as usize] = x2apic_msr(ISR) + index;
            list[10 + index as usize] = x2apic_msr(IRR) + index;
            index += 1;
        }
        list
    };
    let has_reads = secondary.contains(SecondaryControls::APIC_REGISTER_VIRTUALIZATION);
    msr_bitmap(if has_reads { &READS } else { &READS[..1] }, &WRITES)
}

/// A map that makes every access an exit but those to [`GUEST_MSRS`], reads of [`READABLE_MSRS`], and those named.
fn msr_bitmap(reads: &[u32], writes: &[u32]) -> Option<HostPhys> {
    let map = new_map(MSR_BITMAP_SIZE)?;
    let reads = GUEST_MSRS.iter().chain(&READABLE_MSRS).chain(reads).filter_map(|msr| msr_bitmap_bit(*msr));
    let writes = GUEST_MSRS.iter().chain(writes).filter_map(|msr| msr_bitmap_bit(*msr));
    let writes = writes.map(|bit| bit + MSR_BITMAP_WRITE);
    for bit in reads.chain(writes) {
        // SAFETY: The map was just made, is this large, and no guest uses it yet.
        unsafe {
            let byte = X86.pointer(map).add(bit as usize / 8);
            byte.write(byte.read() & !(1 << (bit % 8)));
        }
    }
    Some(map)
}

/// Bits of CR4 that are the guest's own; it does not have what the others switch on.
pub const GUEST_CR4: Cr4 = Cr4::VME
    .union(Cr4::PVI)
    .union(Cr4::TSD)
    .union(Cr4::DE)
    .union(Cr4::PSE)
    .union(Cr4::PAE)
    .union(Cr4::MCE)
    .union(Cr4::PGE)
    .union(Cr4::PCE)
    .union(Cr4::OSFXSR)
    .union(Cr4::OSXMMEXCPT)
    .union(Cr4::UMIP)
    .union(Cr4::LA57)
    .union(Cr4::FSGSBASE)
    .union(Cr4::PCIDE)
    .union(Cr4::OSXSAVE)
    .union(Cr4::SMEP)
    .union(Cr4::SMAP)
    .union(Cr4::PKE);
