//! How a guest's machine comes to its end.

/// How a guest's machine comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The guest switched it off.
    PowerOff,
    /// The guest asked for a reset.
    Reset,
    /// The guest cannot go on; the report is on the log.
    Crash,
}

impl End {
    /// What is said of the guest then.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::PowerOff => "has switched its machine off",
            Self::Reset => "has reset its machine",
            Self::Crash => "has crashed",
        }
    }
}
