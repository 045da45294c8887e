//! What a test says when something is not as it should be.

use alloc::format;
use alloc::string::String;
use core::fmt::{self, Debug, Display};
use core::panic::Location;

use dragonfly_abi::Status;

/// Why a test failed, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(String);

/// What a test comes to.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure at the caller's line.
    #[track_caller]
    #[must_use]
    pub fn new(message: impl Display) -> Self {
        let place = Location::caller();
        let file = place.file().rsplit('/').next().unwrap_or_default();
        Self(format!("{message} ({file}:{})", place.line()))
    }

    /// A failure that another domain has told.
    #[must_use]
    pub fn reported(message: &str) -> Self {
        Self(String::from(message))
    }

    /// Says in which of several cases it was.
    #[must_use]
    pub fn in_case(self, case: impl Display) -> Self {
        Self(format!("{case}: {}", self.0))
    }
}

impl Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A call that was to succeed did not.
impl From<Status> for Failure {
    #[track_caller]
    fn from(status: Status) -> Self {
        Self::new(format_args!("a call failed: {status:?}"))
    }
}

/// Fails unless both are equal.
///
/// # Errors
/// The failure, with both values.
#[track_caller]
pub fn equal<T: PartialEq + Debug>(what: impl Display, found: T, wanted: T) -> Outcome {
    if found == wanted {
        return Ok(());
    }
    Err(Failure::new(format_args!("{what}: {found:x?} in place of {wanted:x?}")))
}

/// Fails unless a call ended with this status.
///
/// # Errors
/// The failure, with what the call gave.
#[track_caller]
pub fn refused<T: Debug>(what: impl Display, result: Result<T, Status>, wanted: Status) -> Outcome {
    match result {
        Err(status) if status == wanted => Ok(()),
        other => Err(Failure::new(format_args!("{what}: {other:x?} in place of {wanted:?}"))),
    }
}

/// Fails unless the condition holds.
///
/// # Errors
/// The failure, with the message.
#[track_caller]
pub fn that(condition: bool, message: impl Display) -> Outcome {
    if condition { Ok(()) } else { Err(Failure::new(message)) }
}

#[cfg(test)]
mod tests {
    use dragonfly_abi::Status;

    use super::{Failure, Outcome, equal, refused};

    #[test]
    fn a_failure_names_the_line_of_the_check() {
        let failure = equal("the answer", 41, 42).unwrap_err();
        assert!(failure.to_string().starts_with("the answer: 29 in place of 2a (check.rs:"), "{failure}");
    }

    #[test]
    fn a_question_mark_on_a_status_names_its_own_line() {
        fn failing() -> Outcome {
            Err(Status::Denied)?;
            Ok(())
        }
        let line = line!() - 3;
        let text = failing().unwrap_err().to_string();
        assert_eq!(text, format!("a call failed: Denied (check.rs:{line})"));
    }

    #[test]
    fn a_call_with_another_status_is_a_failure() {
        assert_eq!(refused("a call", Err::<(), _>(Status::Busy), Status::Busy), Ok(()));
        assert!(refused("a call", Err::<(), _>(Status::Busy), Status::Denied).is_err());
        assert!(refused("a call", Ok(3), Status::Denied).is_err());
    }

    #[test]
    fn a_case_is_named_before_the_failure() {
        let text = Failure::new("wrong").in_case("case 3").to_string();
        assert!(text.starts_with("case 3: wrong (check.rs:"), "{text}");
    }
}
