//! The virtual-APIC page: what the processor has of the guest's local APIC (SDM 3C, "APIC Virtualization and Virtual
//! Interrupts").
//!
//! Always the task priority. With virtual-interrupt delivery also requests and what is in service, lent by the local APIC;
//! the processor then delivers, and in x2APIC mode it ends interrupts and lets the guest interrupt itself, too.
#![expect(unsafe_code, reason = "the page is the processor's while the guest runs")]

use dragonfly_hw::x86::apic::{IRR, ISR, TPR};
use dragonfly_hw::x86::vmx::control::SecondaryControls;
use dragonfly_hw::x86::vmx::field::Field;
use dragonfly_vapic::{LocalApic, VectorSet};

use super::VmxVcpu;
use super::capability::setup;
use super::vmcs::{read, write};
use crate::arch::x86_64::X86;
use crate::frames::OwnedFrame;

/// A virtual-APIC page.
pub struct VirtualApic {
    pub page: OwnedFrame<X86>,
    /// The processor delivers interrupts.
    pub delivers: bool,
    /// It has what it delivers.
    is_lent: bool,
    /// Vectors whose end is an exit, as the VMCS has them.
    eoi_exits: VectorSet,
}

impl VirtualApic {
    pub fn new(page: OwnedFrame<X86>, delivers: bool) -> Self {
        Self { page, delivers, is_lent: false, eoi_exits: [0; 4] }
    }

    /// The register at an offset.
    pub fn register(&self, offset: u32) -> u32 {
        // SAFETY: The page is this object's, offsets of registers are in it, and the guest does not run: the processor
        // leaves it alone.
        unsafe { self.page.pointer().byte_add(offset as usize).cast::<u32>().read_volatile() }
    }

    /// Sets it.
    pub fn set_register(&mut self, offset: u32, value: u32) {
        // SAFETY: As in `register`.
        unsafe { self.page.pointer().byte_add(offset as usize).cast::<u32>().write_volatile(value) };
    }

    /// Eight registers, at an offset and 16 bytes apart.
    fn set(&self, offset: u32) -> VectorSet {
        let register = |index: u32| u64::from(self.register(offset + (index << 4)));
        [0, 2, 4, 6].map(|index| register(index) | register(index + 1) << 32)
    }

    fn write_set(&mut self, offset: u32, set: VectorSet) {
        for (index, word) in (0..).step_by(2).zip(set) {
            self.set_register(offset + (index << 4), word as u32);
            self.set_register(offset + ((index + 1) << 4), (word >> 32) as u32);
        }
    }

    /// Whether the processor has nothing to be lent that it has not.
    #[inline]
    pub fn is_supplied(&self) -> bool {
        self.is_lent || !self.delivers
    }

    /// Lets the processor deliver what is requested.
    #[inline(never)]
    pub fn lend(&mut self, apic: &LocalApic) {
        let (mut requests, mut in_service) = (apic.lend_requests(), read(Field::GUEST_INTERRUPT_STATUS) & 0xff00);
        if self.is_lent {
            let lent = self.set(IRR);
            requests = core::array::from_fn(|word| requests[word] | lent[word]);
        } else {
            self.is_lent = true;
            self.write_set(ISR, apic.in_service());
            self.set_register(TPR, apic.task_priority().into());
            in_service = highest(apic.in_service()) << 8;
        }
        self.write_set(IRR, requests);
        write(Field::GUEST_INTERRUPT_STATUS, in_service | highest(requests));
        let level = apic.level_triggered();
        if self.eoi_exits != level {
            self.eoi_exits = level;
            let fields = [
                Field::EOI_EXIT_BITMAP_0,
                Field::EOI_EXIT_BITMAP_1,
                Field::EOI_EXIT_BITMAP_2,
                Field::EOI_EXIT_BITMAP_3,
            ];
            fields.into_iter().zip(level).for_each(|(field, word)| write(field, word));
        }
    }

    /// Gives the local APIC what the processor has of it.
    #[inline(never)]
    pub fn take_back(&mut self, apic: &LocalApic) {
        if core::mem::take(&mut self.is_lent) {
            apic.take_back(self.set(IRR), self.set(ISR), self.register(TPR) as u8);
        }
    }
}

/// The highest vector of a set, 0 for none.
fn highest(set: VectorSet) -> u64 {
    let highest = set.iter().rposition(|word| *word != 0);
    highest.map_or(0, |word| (word as u64) << 6 | u64::from(set[word].ilog2()))
}

impl VmxVcpu {
    /// Lets the processor virtualize the registers of x2APIC mode, or leaves them all to exits.
    pub(super) fn virtualize_x2apic(&mut self, is_x2apic: bool) {
        let Some(setup) = setup() else { return };
        let Some(bitmap) = setup.x2apic_msr_bitmap else { return };
        let mut secondary = setup.secondary;
        secondary.set(SecondaryControls::VIRTUALIZE_X2APIC_MODE, is_x2apic);
        secondary.set(SecondaryControls::ENABLE_PML, self.log.is_on);
        write(Field::SECONDARY_PROCESSOR_BASED_CONTROLS, secondary.bits().into());
        write(Field::MSR_BITMAP, if is_x2apic { bitmap } else { setup.msr_bitmap }.as_u64());
    }
}
