//! The guest's limits of speculation: IA32_SPEC_CTRL (SDM 3A, "Speculation Control"), on processors that name it in CPUID
//! leaf 7. The host's value is in force whenever the guest is not.

use crate::arch::x86_64::mitigations;

/// What a guest has asked for.
pub struct Speculation {
    control: u64,
    /// It is not what the host has. A guest that has not asked runs with the host's, which limits no less and spares its
    /// exits two writes.
    differs: bool,
}

impl Speculation {
    /// As after reset: none of its own.
    pub fn new() -> Self {
        Self { control: 0, differs: false }
    }

    /// The guest writes its register. Gives whether it may: bits that its CPU does not have fault.
    pub fn set(&mut self, control: u64) -> bool {
        if control & !mitigations::controls() != 0 {
            return false;
        }
        self.control = control;
        self.differs = control != mitigations::host_control();
        true
    }

    /// The guest is about to run.
    #[inline]
    pub fn before_entry(&self) {
        if self.differs {
            mitigations::write_control(self.control);
        }
    }

    /// It has been left.
    #[inline]
    pub fn after_exit(&self) {
        if self.differs {
            mitigations::write_control(mitigations::host_control());
        }
    }
}
