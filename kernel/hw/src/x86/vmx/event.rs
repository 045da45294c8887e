//! Events that are injected, that are an exit's cause, or whose delivery an exit interrupted (SDM 3C, "VM-Entry Controls
//! for Event Injection", "Information for VM Exits Due to Vectored Events", "… That Occur During Event Delivery").

/// VM-entry or VM-exit interruption information, or IDT-vectoring information. The error code is a field of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interruption(pub u32);

/// Kind of event, in bits 10:8.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum InterruptionType {
    /// External interrupt.
    ExternalInterrupt = 0,
    /// Reserved.
    Reserved = 1,
    /// Non-maskable interrupt, vector 2.
    Nmi = 2,
    /// Exception of the hardware.
    HardwareException = 3,
    /// INT n.
    SoftwareInterrupt = 4,
    /// INT1.
    PrivilegedSoftwareException = 5,
    /// INT3 or INTO.
    SoftwareException = 6,
    /// Other event: with vector 0, a monitor trap flag exit, on entry only.
    Other = 7,
}

impl Interruption {
    /// No event.
    pub const NONE: Self = Self(0);

    const ERROR_CODE_VALID: u32 = 1 << 11;
    const NMI_UNBLOCKING: u32 = 1 << 12;
    const VALID: u32 = 1 << 31;

    /// An event without error code.
    #[must_use]
    pub const fn new(kind: InterruptionType, vector: u8) -> Self {
        Self(Self::VALID | (kind as u32) << 8 | vector as u32)
    }

    /// An exception of the hardware with an error code, which has to be in its field.
    #[must_use]
    pub const fn with_error_code(vector: u8) -> Self {
        Self(Self::new(InterruptionType::HardwareException, vector).0 | Self::ERROR_CODE_VALID)
    }

    /// There is an event.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 & Self::VALID != 0
    }

    /// Its kind.
    #[must_use]
    pub const fn kind(self) -> InterruptionType {
        match self.0 >> 8 & 0x7 {
            0 => InterruptionType::ExternalInterrupt,
            1 => InterruptionType::Reserved,
            2 => InterruptionType::Nmi,
            3 => InterruptionType::HardwareException,
            4 => InterruptionType::SoftwareInterrupt,
            5 => InterruptionType::PrivilegedSoftwareException,
            6 => InterruptionType::SoftwareException,
            _ => InterruptionType::Other,
        }
    }

    /// Its vector.
    #[must_use]
    pub const fn vector(self) -> u8 {
        self.0 as u8
    }

    /// An error code goes with it.
    #[must_use]
    pub const fn has_error_code(self) -> bool {
        self.0 & Self::ERROR_CODE_VALID != 0
    }

    /// Of an exit: IRET had already ended the blocking by NMI when it faulted, so it has to be set again.
    #[must_use]
    pub const fn is_nmi_unblocking(self) -> bool {
        self.0 & Self::NMI_UNBLOCKING != 0
    }

    /// What an interrupted event is injected with: bit 12 is undefined there, and reserved on entry.
    #[must_use]
    pub const fn for_entry(self) -> Self {
        Self(self.0 & !Self::NMI_UNBLOCKING)
    }
}

const _: () = {
    assert!(Interruption::new(InterruptionType::ExternalInterrupt, 0x31).0 == 0x8000_0031);
    assert!(Interruption::with_error_code(14).0 == 0x8000_0b0e && !Interruption::NONE.is_valid());
};
