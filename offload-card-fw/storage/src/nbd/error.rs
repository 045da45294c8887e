//! What goes wrong with a server.

use thiserror::Error;

/// Why a connection to a server is of no use: the server's fault, or that of whoever named it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum NbdError {
    /// Something else listens there.
    #[error("what answers there is no NBD server")]
    NoServer,
    /// The server is too old.
    #[error("the server does not know fixed newstyle negotiation with NBD_OPT_GO: use a newer one")]
    TooOld,
    /// There is no such export, or not yet.
    #[error("the server has no export of this name")]
    NoExport,
    /// The server wants TLS.
    #[error("the server requires TLS, which is not supported: use a tunnel, or a server without")]
    TlsRequired,
    /// The server does not want this client.
    #[error("the server refuses this client")]
    Policy,
    /// The server is about to end.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The export has too large blocks, too small requests, or both make no sense.
    #[error("the server wants blocks of {least_bytes} bytes and requests of {most_bytes} at most, which cannot be")]
    BlockSize {
        /// Bytes of the smallest block.
        least_bytes: u32,
        /// Bytes of the largest request.
        most_bytes: u32,
    },
    /// The export has not even one block.
    #[error("the export is empty")]
    Empty,
    /// The server does not do what it is asked during negotiation.
    #[error("the server refuses the export with error {0:#x}")]
    Refused(u32),
    /// A reply during negotiation that cannot be.
    #[error("the server breaks the protocol: a reply of {bytes} bytes and kind {kind:#x} to option {option}")]
    OptionReply {
        /// The option that it says it answers.
        option: u32,
        /// The reply's type.
        kind: u32,
        /// Its length, in bytes.
        bytes: u32,
    },
    /// The server said that all was said, but not how large the export is.
    #[error("the server breaks the protocol: it does not tell the export's size")]
    NoSize,
    /// After a reconnection: there is another disk.
    #[error("the export has another size, or is otherwise not what it was")]
    Changed,
    /// A reply that begins with something else.
    #[error("the server breaks the protocol: a reply with the magic number {0:#x}")]
    ReplyMagic(u32),
    /// A reply to nothing.
    #[error("the server breaks the protocol: a reply to {0:#x}, which it was not asked")]
    UnknownReply(u64),
}

impl NbdError {
    /// Whether it may be otherwise when the server is asked again.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::NoExport | Self::Policy | Self::ShuttingDown)
    }
}
