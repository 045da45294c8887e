//! Modes of the local APIC, and which messages are for it.

use dragonfly_hw::x86::msr::{APIC_BASE_ADDRESS, ApicBase};

use crate::{BROADCAST, Fault, LocalApic};

/// The register page's address after reset.
const DEFAULT_ADDRESS: u64 = 0xfee0_0000;

/// The mode bits of `IA32_APIC_BASE`.
const X2APIC: u64 = ApicBase::EN.bits() | ApicBase::EXTD.bits();
const XAPIC: u64 = ApicBase::EN.bits();

/// `IA32_APIC_BASE` in x2APIC mode.
pub(crate) const fn initial_base(id: u32) -> u64 {
    DEFAULT_ADDRESS | X2APIC | if id == 0 { ApicBase::BSP.bits() } else { 0 }
}

/// Bits 31:28 of the destination format: the flat model; all others are 1.
pub(crate) const FORMAT_FLAT: u32 = u32::MAX;

/// The logical destination in x2APIC mode: a cluster, and a bit in it (SDM 3A, "Deriving Logical x2APIC ID from the
/// Local x2APIC ID").
pub(crate) const fn logical_x2apic_id(id: u32) -> u32 {
    (id >> 4) << 16 | 1 << (id & 15)
}

/// Checks a value of `IA32_APIC_BASE` by itself: no reserved bit, no mode that does not exist.
pub(crate) const fn is_base_valid(base: u64) -> bool {
    let known = APIC_BASE_ADDRESS | ApicBase::BSP.bits() | X2APIC;
    base & !known == 0 && base & X2APIC != ApicBase::EXTD.bits()
}

impl LocalApic {
    /// `IA32_APIC_BASE`. May be read on any CPU.
    #[inline]
    pub fn apic_base(&self) -> u64 {
        self.base.get()
    }

    /// The guest writes `IA32_APIC_BASE` (SDM 3A, "Local APIC State After It Has Been Software Disabled", "x2APIC State
    /// Transitions"). Switched off, the APIC loses its state.
    ///
    /// # Errors
    /// General protection if a reserved bit is set, or the mode cannot be entered from the present one.
    pub fn set_apic_base(&self, base: u64) -> Result<(), Fault> {
        let (from, to) = (self.base.get() & X2APIC, base & X2APIC);
        let is_forbidden = matches!((from, to), (0, X2APIC) | (X2APIC, XAPIC));
        if !is_base_valid(base) || is_forbidden {
            return Err(Fault);
        }
        self.base.set(base);
        if to == 0 && from != 0 {
            self.reset();
            self.xapic_id.set(self.id & 0xff);
        }
        self.update_acceptance();
        Ok(())
    }

    /// In x2APIC mode: the registers are MSRs.
    #[inline]
    pub fn is_x2apic(&self) -> bool {
        self.base.get() & ApicBase::EXTD.bits() != 0
    }

    /// In xAPIC mode: the registers are a page.
    #[inline]
    pub fn is_xapic(&self) -> bool {
        self.base.get() & X2APIC == XAPIC
    }

    /// Whether a message for `destination` is for this APIC (SDM 3A, "Determining IPI Destination", "Logical Destination
    /// Mode in x2APIC Mode"). May be called on any CPU.
    #[inline]
    pub fn destined(&self, destination: u32, is_logical: bool) -> bool {
        if destination == BROADCAST {
            return true;
        }
        if self.is_x2apic() {
            if !is_logical {
                return destination == self.id;
            }
            let own = logical_x2apic_id(self.id);
            return destination >> 16 == own >> 16 && destination & own & 0xffff != 0;
        }
        // All ones is for all, in both logical models too; wider destinations are of x2APIC mode only.
        if destination >= 0xff {
            return destination == 0xff;
        }
        if !is_logical {
            return destination == self.xapic_id.get();
        }
        let own = self.logical_id.get();
        if self.format.get() == FORMAT_FLAT {
            return destination & own != 0;
        }
        destination >> 4 == own >> 4 && destination & own & 0xf != 0
    }
}
