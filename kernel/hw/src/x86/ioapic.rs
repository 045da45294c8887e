//! I/O APIC (82093AA data sheet, chapter 3; ICH and PCH data sheets, "I/O APIC").

// Offsets from the I/O APIC's address. Registers are 32 bits wide.
constants! { u64 {
    IOREGSEL    0x00    "Index of the register that IOWIN shows."
    IOWIN       0x10    "The register."
    EOIR        0x40    "End of interrupt by vector, write-only; only from version 0x20."
}}

// Indices.
constants! { u32 {
    IOAPICID    0x00    "I/O APIC ID in bits 27:24."
    IOAPICVER   0x01    "Version (7:0), highest redirection entry (23:16)."
    IOAPICARB   0x02    "Arbitration ID in bits 27:24."
}}

/// Index of the low half of the redirection entry of `input`; the high half follows.
#[must_use]
pub const fn ioredtbl(input: u8) -> u32 {
    0x10 + 2 * input as u32
}

/// How many inputs an I/O APIC has, from its `IOAPICVER`.
#[must_use]
pub const fn input_count(ioapicver: u32) -> u32 {
    (ioapicver >> 16 & 0xff) + 1
}

/// Redirection entry: what happens when an input is asserted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct RedirectionEntry(pub u64);

impl RedirectionEntry {
    const DELIVERY_STATUS: u64 = 1 << 12;
    const ACTIVE_LOW: u64 = 1 << 13;
    const REMOTE_IRR: u64 = 1 << 14;
    const LEVEL: u64 = 1 << 15;
    const MASKED: u64 = 1 << 16;

    /// Nothing happens.
    pub const OFF: Self = Self(Self::MASKED);

    /// `vector` on the processor `apic_id`; edge, active high.
    #[must_use]
    pub const fn fixed(vector: u8, apic_id: u8) -> Self {
        Self((apic_id as u64) << 56 | vector as u64)
    }

    /// The same with an input that is active low.
    #[must_use]
    pub const fn active_low(self) -> Self {
        Self(self.0 | Self::ACTIVE_LOW)
    }

    /// The same with a level-triggered input.
    #[must_use]
    pub const fn level_triggered(self) -> Self {
        Self(self.0 | Self::LEVEL)
    }

    /// The same, held back.
    #[must_use]
    pub const fn masked(self) -> Self {
        Self(self.0 | Self::MASKED)
    }

    /// The same, not held back.
    #[must_use]
    pub const fn unmasked(self) -> Self {
        Self(self.0 & !Self::MASKED)
    }

    /// An interrupt was sent and not accepted yet.
    #[must_use]
    pub const fn is_pending(self) -> bool {
        self.0 & Self::DELIVERY_STATUS != 0
    }

    /// A level-triggered interrupt was accepted and its EOI has not come.
    #[must_use]
    pub const fn awaits_eoi(self) -> bool {
        self.0 & Self::REMOTE_IRR != 0
    }

    /// The half at [`ioredtbl`].
    #[must_use]
    pub const fn low(self) -> u32 {
        self.0 as u32
    }

    /// The half after it.
    #[must_use]
    pub const fn high(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

const _: () = {
    let entry = RedirectionEntry::fixed(0x31, 5).active_low().level_triggered().masked();
    assert!(entry.low() == 0x1_a031 && entry.high() == 0x0500_0000);
    assert!(entry.unmasked().low() == 0xa031);
};
