//! What a guest is interrupted by.

use dragonfly_hw::x86::control::{Cr0, Rflags};
use dragonfly_hw::x86::exception::Exception;
use dragonfly_hw::x86::vmx::control::PrimaryControls;
use dragonfly_hw::x86::vmx::event::{Interruption, InterruptionType};
use dragonfly_hw::x86::vmx::field::Field;
use dragonfly_hw::x86::vmx::state::Interruptibility;

use super::super::hardware::{Event, Hardware};
use super::VmxVcpu;
use super::state;
use super::vmcs::{read, write};

/// Bits of an event that mean something on entry.
const EVENT: u32 = 0x8000_0fff;

/// Lets the next entry deliver an event.
pub fn inject(event: Event) {
    let mut information = Interruption(event.information & EVENT);
    // Real mode has no error codes, and the entry is refused with one (SDM 3C, "VM-Entry Control Fields").
    if read(Field::GUEST_CR0) & Cr0::PE.bits() == 0 {
        information.0 &= !Event::HAS_ERROR_CODE;
    }
    write(Field::ENTRY_INTERRUPTION_INFORMATION, information.0.into());
    write(Field::ENTRY_EXCEPTION_ERROR_CODE, event.error_code.into());
    if is_software(information) {
        // The VMM has moved past the instruction, or knows what it does; the length is what is pushed beyond it.
        write(Field::ENTRY_INSTRUCTION_LENGTH, 1);
    }
}

/// Whether an event stands for an instruction, whose length goes with it.
fn is_software(information: Interruption) -> bool {
    matches!(
        information.kind(),
        InterruptionType::SoftwareInterrupt
            | InterruptionType::SoftwareException
            | InterruptionType::PrivilegedSoftwareException
    )
}

/// Gives an event whose delivery the exit interrupted to the guest again (SDM 3C, "Information for VM Exits During Event
/// Delivery").
pub fn redeliver(event: Interruption) {
    write(Field::ENTRY_INTERRUPTION_INFORMATION, event.for_entry().0.into());
    if event.has_error_code() {
        write(Field::ENTRY_EXCEPTION_ERROR_CODE, read(Field::IDT_VECTORING_ERROR_CODE));
    }
    if is_software(event) {
        write(Field::ENTRY_INSTRUCTION_LENGTH, read(Field::EXIT_INSTRUCTION_LENGTH));
    }
    if event.kind() == InterruptionType::Nmi {
        set_nmi_blocking(false);
    }
}

/// Says whether the guest is in an NMI's handler.
pub fn set_nmi_blocking(is_blocked: bool) {
    let mut blocking = Interruptibility::from_bits_retain(read(Field::GUEST_INTERRUPTIBILITY_STATE) as u32);
    blocking.set(Interruptibility::BLOCKING_BY_NMI, is_blocked);
    write(Field::GUEST_INTERRUPTIBILITY_STATE, blocking.bits().into());
}

fn is_event_pending() -> bool {
    Interruption(read(Field::ENTRY_INTERRUPTION_INFORMATION) as u32).is_valid()
}

impl VmxVcpu {
    /// Injects an interrupt if the guest can take it, or arranges to be told when it can.
    pub(super) fn offer_interrupt(&mut self, vector: Option<u8>) {
        let Some(vector) = vector else {
            self.set_primary(PrimaryControls::INTERRUPT_WINDOW_EXITING, false);
            self.set_threshold(0);
            return;
        };
        let class = vector >> 4;
        if class <= self.cr8() {
            self.set_primary(PrimaryControls::INTERRUPT_WINDOW_EXITING, false);
            self.set_threshold(class);
            return;
        }
        self.set_threshold(0);
        let shadow = Interruptibility::BLOCKING_BY_STI | Interruptibility::BLOCKING_BY_MOV_SS;
        let can_take = read(Field::GUEST_RFLAGS) & Rflags::IF.bits() != 0
            && read(Field::GUEST_INTERRUPTIBILITY_STATE) & u64::from(shadow.bits()) == 0
            && !is_event_pending();
        if can_take {
            let event = Interruption::new(InterruptionType::ExternalInterrupt, vector);
            write(Field::ENTRY_INTERRUPTION_INFORMATION, event.0.into());
            self.is_injected = true;
        }
        self.set_primary(PrimaryControls::INTERRUPT_WINDOW_EXITING, !can_take);
    }

    /// Raises the trap behind an instruction that was skipped with the trap flag set: the processor knows nothing of it.
    #[cold]
    #[inline(never)]
    pub(super) fn trap_step(&mut self) {
        if self.is_in_cpu {
            state::note_debug_exception(state::DR6_STEP);
        } else {
            self.dr6 |= state::DR6_STEP;
        }
        inject(Event::exception(Exception::Debug.vector(), None));
    }

    /// Injects an NMI if the guest can take it, or arranges to be told when it can.
    pub(super) fn inject_nmi_if_possible(&mut self) -> bool {
        let blocking = Interruptibility::from_bits_retain(read(Field::GUEST_INTERRUPTIBILITY_STATE) as u32);
        let can_take = !is_event_pending()
            && !blocking.intersects(
                Interruptibility::BLOCKING_BY_NMI
                    | Interruptibility::BLOCKING_BY_STI
                    | Interruptibility::BLOCKING_BY_MOV_SS,
            );
        if can_take {
            let event = Interruption::new(InterruptionType::Nmi, Exception::Nmi.vector());
            write(Field::ENTRY_INTERRUPTION_INFORMATION, event.0.into());
        }
        self.set_primary(PrimaryControls::NMI_WINDOW_EXITING, !can_take);
        can_take
    }
}
