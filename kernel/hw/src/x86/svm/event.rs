//! Events that are injected, or whose delivery an exit interrupted (APM 2, 15.20 and 15.7.2).

/// EVENTINJ and EXITINTINFO.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Debug,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
)]
#[repr(transparent)]
pub struct EventInjection(pub u64);

/// Kind of event, in bits 10:8 (APM 2, table 15-18). Values that are not listed are reserved: VMRUN refuses them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum EventType {
    /// External or virtual interrupt.
    Interrupt = 0,
    /// NMI; the vector is not used.
    Nmi = 2,
    /// Exception, a fault or a trap.
    Exception = 3,
    /// INT n.
    SoftwareInterrupt = 4,
}

impl EventInjection {
    /// No event.
    pub const NONE: Self = Self(0);

    const ERROR_CODE_VALID: u64 = 1 << 11;
    const VALID: u64 = 1 << 31;

    /// An event without error code.
    #[must_use]
    pub const fn new(kind: EventType, vector: u8) -> Self {
        Self(Self::VALID | (kind as u64) << 8 | vector as u64)
    }

    /// An exception with an error code.
    #[must_use]
    pub const fn with_error_code(vector: u8, error_code: u32) -> Self {
        Self(Self::new(EventType::Exception, vector).0 | Self::ERROR_CODE_VALID | (error_code as u64) << 32)
    }

    /// There is an event.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 & Self::VALID != 0
    }

    /// Its kind, `None` if it is reserved.
    #[must_use]
    pub const fn kind(self) -> Option<EventType> {
        match self.0 >> 8 & 0x7 {
            0 => Some(EventType::Interrupt),
            2 => Some(EventType::Nmi),
            3 => Some(EventType::Exception),
            4 => Some(EventType::SoftwareInterrupt),
            _ => None,
        }
    }

    /// Its vector.
    #[must_use]
    pub const fn vector(self) -> u8 {
        self.0 as u8
    }

    /// The error code that goes with it.
    #[must_use]
    pub const fn error_code(self) -> Option<u32> {
        if self.0 & Self::ERROR_CODE_VALID != 0 { Some((self.0 >> 32) as u32) } else { None }
    }
}

const _: () = {
    let page_fault = EventInjection::with_error_code(14, 6);
    assert!(page_fault.0 == 0x0000_0006_8000_0b0e && page_fault.is_valid() && page_fault.vector() == 14);
    assert!(EventInjection::new(EventType::Interrupt, 0x31).0 == 0x8000_0031);
    assert!(!EventInjection::NONE.is_valid() && EventInjection::NONE.error_code().is_none());
};
