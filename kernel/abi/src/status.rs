//! How a call ended.

/// How a system call ended. The values are part of the interface and never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// No call has this number.
    BadCall = 1,
    /// The handle names nothing: never given out, closed, or revoked.
    BadHandle = 2,
    /// The handle names an object of another type than the call wants.
    BadType = 3,
    /// The handle lacks a right that the call needs.
    Denied = 4,
    /// An argument is out of its range or not aligned.
    BadArgument = 5,
    /// The machine has no free memory left.
    OutOfMemory = 6,
    /// The account of the domain that would pay has too little left.
    QuotaExceeded = 7,
    /// The handle table is full.
    NoHandles = 8,
    /// The time-out came first.
    TimedOut = 9,
    /// Nothing is there now, and the call was not to wait.
    WouldBlock = 10,
    /// A bounded part of the work is done; the same call again goes on with it.
    Again = 11,
    /// The object or the peer was destroyed while the call waited for it.
    Aborted = 12,
    /// The object is in use in a way that excludes this call.
    Busy = 13,
    /// Something is mapped in the range already.
    Overlap = 14,
    /// Nothing is mapped there.
    NotMapped = 15,
    /// The CPU does not exist, or the domain may not use it.
    BadCpu = 16,
    /// There is no caller to reply to.
    NoCaller = 17,
    /// The receiver does not accept the handles that come with the message.
    Refused = 18,
    /// The thread is not in a state for this call.
    BadState = 19,
    /// This machine cannot do it.
    NotSupported = 20,
}

impl Status {
    /// Every status, in the order of its value.
    pub const ALL: [Self; 21] = [
        Self::Ok,
        Self::BadCall,
        Self::BadHandle,
        Self::BadType,
        Self::Denied,
        Self::BadArgument,
        Self::OutOfMemory,
        Self::QuotaExceeded,
        Self::NoHandles,
        Self::TimedOut,
        Self::WouldBlock,
        Self::Again,
        Self::Aborted,
        Self::Busy,
        Self::Overlap,
        Self::NotMapped,
        Self::BadCpu,
        Self::NoCaller,
        Self::Refused,
        Self::BadState,
        Self::NotSupported,
    ];

    /// The status with this value, if there is one.
    #[must_use]
    pub fn from_raw(raw: u64) -> Option<Self> {
        Self::ALL.get(usize::try_from(raw).ok()?).copied()
    }

    /// What it means, for people.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Ok => "done",
            Self::BadCall => "no such system call",
            Self::BadHandle => "the handle names nothing",
            Self::BadType => "the handle names an object of another type",
            Self::Denied => "the handle lacks a right",
            Self::BadArgument => "an argument is out of range or not aligned",
            Self::OutOfMemory => "the machine has no free memory left",
            Self::QuotaExceeded => "the domain's memory quota is used up",
            Self::NoHandles => "the handle table is full",
            Self::TimedOut => "the time-out came first",
            Self::WouldBlock => "nothing is there now",
            Self::Again => "a part is done, call again",
            Self::Aborted => "the object or the peer was destroyed",
            Self::Busy => "the object is in use",
            Self::Overlap => "something is mapped there already",
            Self::NotMapped => "nothing is mapped there",
            Self::BadCpu => "no such CPU, or not allowed",
            Self::NoCaller => "there is no caller to reply to",
            Self::Refused => "the receiver does not accept the handles",
            Self::BadState => "the thread is not in a state for this",
            Self::NotSupported => "this machine cannot do it",
        }
    }
}

impl core::fmt::Display for Status {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(self.describe())
    }
}

impl core::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::Status;

    #[test]
    fn every_status_stands_at_its_value() {
        for (value, status) in Status::ALL.into_iter().enumerate() {
            assert_eq!(status as usize, value);
            assert_eq!(Status::from_raw(value as u64), Some(status));
        }
        assert_eq!(Status::from_raw(Status::ALL.len() as u64), None);
        assert_eq!(Status::from_raw(u64::MAX), None);
    }
}
