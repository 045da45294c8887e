//! Exceptions that are injected into the guest.

use dragonfly_rt::guest::StatePage;

/// An exception of the processor (SDM 3A 6.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exception {
    /// Its vector.
    pub(crate) vector: u8,
    /// The error code, for exceptions that push one.
    pub(crate) error_code: Option<u32>,
}

/// Interruption type: a hardware exception (SDM 3C, "VM-Entry Controls for Event Injection").
const HARDWARE_EXCEPTION: u64 = 3 << 8;
const HAS_ERROR_CODE: u64 = 1 << 11;
const VALID: u64 = 1 << 31;

impl Exception {
    /// #DB.
    pub(crate) const DEBUG: Self = Self { vector: 1, error_code: None };
    /// #UD: no such instruction.
    pub(crate) const UNDEFINED: Self = Self { vector: 6, error_code: None };
    /// #GP(0): not with these operands.
    pub(crate) const PROTECTION: Self = Self { vector: 13, error_code: Some(0) };

    /// The event, and its error code, for the state page.
    pub(crate) fn event(self) -> (u64, u64) {
        let has_error_code = if self.error_code.is_some() { HAS_ERROR_CODE } else { 0 };
        (VALID | HARDWARE_EXCEPTION | has_error_code | u64::from(self.vector), self.error_code.unwrap_or(0).into())
    }

    /// Lets the vCPU get it at its next entry.
    pub(crate) fn inject(self, state: &StatePage) {
        let (event, error_code) = self.event();
        state.set_event(event, error_code);
    }
}

#[cfg(test)]
mod tests {
    use super::Exception;

    #[test]
    fn an_exception_has_the_form_of_an_entry_interruption() {
        assert_eq!(Exception::UNDEFINED.event(), (0x8000_0306, 0));
        assert_eq!(Exception::PROTECTION.event(), (0x8000_0b0d, 0));
        assert_eq!(Exception { vector: 14, error_code: Some(7) }.event(), (0x8000_0b0e, 7));
    }
}
