//! How an emulation ends.

use core::fmt;

use dragonfly_hw::x86::exception::{Exception, PageFaultError};

use crate::memory::{GuestPhys, Miss};

/// An exception for the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Its vector.
    pub exception: Exception,
    /// The error code, for exceptions that push one.
    pub error_code: Option<u32>,
    /// The linear address that CR2 gets, for page faults.
    pub cr2: Option<u64>,
}

impl Fault {
    /// #GP(0).
    pub(crate) const GENERAL_PROTECTION: Self = Self::with_zero(Exception::GeneralProtection);
    /// #SS(0).
    pub(crate) const STACK: Self = Self::with_zero(Exception::StackSegmentFault);
    /// #AC(0).
    pub(crate) const ALIGNMENT: Self = Self::with_zero(Exception::AlignmentCheck);

    const fn with_zero(exception: Exception) -> Self {
        Self { exception, error_code: Some(0), cr2: None }
    }

    /// #PF.
    pub(crate) fn page(linear: u64, error: PageFaultError) -> Self {
        Self { exception: Exception::PageFault, error_code: Some(error.bits() as u32), cr2: Some(linear) }
    }
}

/// Why an access to the guest's memory does not take place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// The guest gets an exception.
    Fault(Fault),
    /// Another vCPU changed the memory in between: the guest is to run the instruction again.
    Retry,
    /// Nothing answers.
    Miss(GuestPhys),
    /// What cannot be emulated.
    Unsupported,
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Miss> for Stop {
    fn from(Miss(address): Miss) -> Self {
        Self::Miss(address)
    }
}

/// What became of the instruction. In each case the guest can be entered with the registers as they are now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was executed, RIP is at the next one. What a finished instruction brings with it is the caller's: blocking by STI
    /// or MOV SS ends, and with RFLAGS.TF set the guest gets #DB with DR6.BS.
    Done,
    /// Some iterations of a repeated string instruction were executed, RIP is still at it. With RFLAGS.TF set, which
    /// limits a call to one iteration, the guest gets #DB with DR6.BS.
    Partial,
    /// Nothing was done, as memory or the instruction changed in between: the guest is to run it again.
    Retry,
    /// The guest gets this exception. RIP is at the instruction; nothing of it was done but, of a repeated string
    /// instruction, the iterations before.
    Fault(Fault),
}

/// Most bytes of an instruction (SDM 2A, "Instruction Format").
pub const MAX_INSTRUCTION_BYTES: usize = 15;

/// Why an instruction cannot be emulated; the guest cannot go on. The registers are as before it, or, in a repeated string
/// instruction, as before the iteration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EmulateError {
    /// It is none of those that are emulated.
    Unsupported {
        /// The bytes from RIP on, those of the instruction first.
        bytes: [u8; MAX_INSTRUCTION_BYTES],
        /// How many of them could be fetched.
        length: usize,
    },
    /// The owner of the memory has nothing at an address that the instruction or the page walk needs.
    Miss(GuestPhys),
}

impl fmt::Display for EmulateError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported { bytes, length } => {
                formatter.write_str("an instruction that cannot be emulated:")?;
                bytes.iter().take(*length).try_for_each(|byte| write!(formatter, " {byte:02x}"))
            }
            Self::Miss(address) => write!(formatter, "an access to guest-physical {address}, where there is nothing"),
        }
    }
}

impl core::error::Error for EmulateError {}
