//! Message signalled interrupts: what a device writes, and where (SDM 3A, "Message Signalled Interrupts"; APM 2, chapter 16).

/// The addresses of such messages: 1 MiB from here on.
pub const ADDRESS_BASE: u64 = 0xfee0_0000;
/// Bits of the address that are those of [`ADDRESS_BASE`].
pub const ADDRESS_MASK: u64 = !0xf_ffff;

flags! {
    /// Bits of the address beside base and destination.
    Address: u64 {
        LOGICAL      2  "The destination is logical, not an APIC ID."
        REDIRECTION  3  "The destination may be narrowed down to the processor of lowest priority."
        REMAPPABLE   4  "The message names an entry of an interrupt remapping table; without such a table, bits 11:5 are \
                         bits 14:8 of the destination for hypervisors that offer KVM's MSI_EXT_DEST_ID."
    }

    /// Bits of the data beside the vector (7:0) and the delivery mode ([`apic::DELIVERY_MODE`](super::apic::DELIVERY_MODE)).
    Data: u32 {
        ASSERT      14  "Level-triggered: assert, else de-assert. Edge-triggered: not used."
        LEVEL       15  "Level-triggered; else edge-triggered."
    }
}

impl Address {
    /// The message to the processor or, if logical, the processors `destination`.
    #[must_use]
    pub const fn new(destination: u8) -> Self {
        Self::from_bits_retain(ADDRESS_BASE | (destination as u64) << 12)
    }

    /// The address is one of messages.
    #[must_use]
    pub const fn is_message(self) -> bool {
        self.bits() & ADDRESS_MASK == ADDRESS_BASE
    }

    /// APIC ID or logical destination.
    #[must_use]
    pub const fn destination(self) -> u8 {
        (self.bits() >> 12) as u8
    }

    /// The same with the further bits that KVM's MSI_EXT_DEST_ID gives a destination: 15 in all.
    #[must_use]
    pub const fn extended_destination(self) -> u16 {
        ((self.bits() >> 5 & 0x7f) << 8) as u16 | self.destination() as u16
    }
}

impl Data {
    /// The vector.
    #[must_use]
    pub const fn vector(self) -> u8 {
        self.bits() as u8
    }

    /// The delivery mode, as [`apic::DELIVERY_FIXED`](super::apic::DELIVERY_FIXED) and the like.
    #[must_use]
    pub const fn delivery_mode(self) -> u32 {
        self.bits() & super::apic::DELIVERY_MODE
    }
}

const _: () = {
    let address = Address::from_bits_retain(0xfee0_3024);
    assert!(address.is_message() && address.destination() == 3 && address.extended_destination() == 0x103);
    assert!(address.contains(Address::LOGICAL) && !address.contains(Address::REDIRECTION));
    assert!(Address::new(3).bits() == 0xfee0_3000 && !Address::from_bits_retain(0xfed0_0000).is_message());
    let data = Data::from_bits_retain(0xc131);
    assert!(data.vector() == 0x31 && data.delivery_mode() == super::apic::DELIVERY_LOWEST);
    assert!(data.contains(Data::LEVEL));
};
