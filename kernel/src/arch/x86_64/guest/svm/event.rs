//! What a guest is interrupted by.

use dragonfly_hw::x86::control::Cr0;
use dragonfly_hw::x86::exception::Exception;
use dragonfly_hw::x86::svm::control::VirtualInterrupt;
use dragonfly_hw::x86::svm::event::{EventInjection, EventType};
use dragonfly_hw::x86::svm::intercept::Intercept3;

use super::super::hardware::Event;
use super::{SvmVcpu, TRAP_FLAG};

impl SvmVcpu {
    /// Gives an event whose delivery was interrupted by the exit to the guest again.
    pub(super) fn redeliver(&mut self) {
        let event = self.view().control.exit_int_info;
        if !event.is_valid() {
            return;
        }
        // Taken already, though its delivery was interrupted: QEMU's emulation keeps it pending, too.
        if event.kind() == Some(EventType::Interrupt) && self.offered == Some(event.vector()) {
            self.vmcb().control.virtual_interrupt &= !VirtualInterrupt::V_IRQ;
        }
        let is_again = match event.kind() {
            Some(EventType::Interrupt | EventType::Nmi) => true,
            // INT3 and INTO run again by themselves: the instruction pointer is at them.
            Some(EventType::Exception) => {
                let vector = event.vector();
                vector != Exception::Breakpoint.vector() && vector != Exception::Overflow.vector()
            }
            Some(EventType::SoftwareInterrupt) | None => false,
        };
        if is_again {
            self.vmcb().control.event_injection = event;
        }
    }

    /// An IRET of an NMI handler was to be executed: has it been?
    pub(super) fn look_at_iret(&mut self) {
        if self.iret_at != Some(self.view().save.rip) && !self.is_stepping {
            self.end_nmi();
        }
    }

    /// The guest can take an NMI again.
    pub(super) fn end_nmi(&mut self) {
        self.is_nmi_blocked = false;
        self.iret_at = None;
    }

    /// Lets the next entry deliver an event.
    pub(super) fn inject_event(&mut self, event: Event) {
        if !event.is_valid() {
            return;
        }
        // The forms differ only in privileged and software exceptions, which SVM counts among the exceptions.
        let kind = match event.information >> 8 & 7 {
            5 | 6 => 3,
            kind => kind,
        };
        // In real mode exceptions have no error code.
        let has_code = self.view().save.cr0 & Cr0::PE.bits() != 0;
        let mask = 0x8000_00ff | if has_code { Event::HAS_ERROR_CODE } else { 0 };
        let information = event.information & !(7 << 8) & mask | kind << 8;
        self.vmcb().control.event_injection =
            EventInjection(u64::from(information) | u64::from(event.error_code) << 32);
    }

    /// Injects an NMI if the guest can take it, or arranges to be told when it can.
    pub(super) fn inject_nmi_if_possible(&mut self) -> bool {
        if self.iret_at.is_some() && !self.is_stepping {
            // Leave the guest behind the IRET (as a trap of its flag, which IRET itself replaces).
            self.is_stepping = true;
            self.vmcb().save.rflags |= TRAP_FLAG;
        }
        let is_blocked = self.is_nmi_blocked;
        let control = &mut self.vmcb().control;
        if is_blocked || control.event_injection.is_valid() || !control.interrupt_shadow.is_empty() {
            return false;
        }
        control.event_injection = EventInjection::new(EventType::Nmi, Exception::Nmi.vector());
        control.intercept_3 |= Intercept3::IRET;
        self.is_nmi_blocked = true;
        true
    }
}
