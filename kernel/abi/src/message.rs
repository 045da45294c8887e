//! Messages: a tag and four words in registers, bytes and handles in the message buffer.

use crate::{FOREVER, Handle, Rights};

/// Bytes of data that fit into a message buffer.
pub const MESSAGE_DATA_SIZE: usize = 3840;

/// Handles that fit into a message.
pub const MESSAGE_HANDLES: usize = 8;

/// A handle on its way through a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct HandleTransfer {
    /// Sent: the sender's handle. Received: the receiver's new one.
    pub handle: Handle,
    /// Sent: the rights that the receiver is to get, of those that the sender has, and [`HandleTransfer::MOVE`].
    /// Received: the rights it got.
    pub rights: u32,
}

impl HandleTransfer {
    /// The sender's handle goes: it is closed once the receiver has its own.
    pub const MOVE: u32 = 1 << 31;

    /// Gives a copy with these rights.
    #[must_use]
    pub const fn copy(handle: Handle, rights: Rights) -> Self {
        Self { handle, rights: rights.bits() }
    }

    /// Gives the handle away, narrowed to these rights.
    #[must_use]
    pub const fn give(handle: Handle, rights: Rights) -> Self {
        Self { handle, rights: rights.bits() | Self::MOVE }
    }
}

/// A page that a thread shares with the kernel. Kernel memory, mapped writable into the thread's domain.
#[derive(Clone, Debug)]
#[repr(C, align(4096))]
pub struct MessageBuffer {
    /// How long a call or reply-receive with [`MessageTag::TIMED`] waits, in nanoseconds.
    pub timeout_ns: u64,
    /// How many handles a receive or a call's reply may bring, 0 to [`MESSAGE_HANDLES`].
    pub accept_handles: u32,
    /// Zero.
    pub reserved: u32,
    /// Handles sent or received.
    pub handles: [HandleTransfer; MESSAGE_HANDLES],
    /// Zero.
    pub reserved_words: [u64; 22],
    /// Bytes sent or received.
    pub data: [u8; MESSAGE_DATA_SIZE],
}

impl MessageBuffer {
    /// A buffer that accepts no handles and holds nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            timeout_ns: FOREVER,
            accept_handles: 0,
            reserved: 0,
            handles: [HandleTransfer { handle: Handle::NULL, rights: 0 }; MESSAGE_HANDLES],
            reserved_words: [0; 22],
            data: [0; MESSAGE_DATA_SIZE],
        }
    }
}

impl Default for MessageBuffer {
    fn default() -> Self {
        Self::new()
    }
}

const _: () = {
    assert!(size_of::<MessageBuffer>() == 4096);
    assert!(core::mem::offset_of!(MessageBuffer, handles) == 16);
    assert!(core::mem::offset_of!(MessageBuffer, data) == 256);
};

/// What a received message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// A call; it wants a reply.
    Call,
    /// Bits of the bound notification, in `w0`; wants no reply.
    Notification,
    /// A thread's fault, see [`FaultKind`](crate::FaultKind); it wants a reply, see [`FaultReply`](crate::FaultReply).
    Fault,
}

/// The first word of a message.
///
/// Bits 0 to 11: bytes of data; 12 to 15: handles; 16: [`MessageTag::TIMED`]; 24 to 25: kind (set by the kernel,
/// ignored when sent); 32 to 63: the label, free for the two domains to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct MessageTag(pub u64);

impl MessageTag {
    /// The time-out of the message buffer holds for this call.
    pub const TIMED: u64 = 1 << 16;

    const KIND_SHIFT: u32 = 24;

    /// A tag for so many bytes and handles.
    ///
    /// More than fits is cut off here and refused by the kernel's own check.
    #[must_use]
    pub const fn new(label: u32, bytes: usize, handles: usize) -> Self {
        Self((label as u64) << 32 | (handles as u64 & 0xf) << 12 | (bytes as u64 & 0xfff))
    }

    /// The same tag with the time-out in force.
    #[must_use]
    pub const fn timed(self) -> Self {
        Self(self.0 | Self::TIMED)
    }

    /// The same tag as another kind of message; for the kernel.
    #[must_use]
    pub const fn with_kind(self, kind: MessageKind) -> Self {
        let bits = match kind {
            MessageKind::Call => 0,
            MessageKind::Notification => 1,
            MessageKind::Fault => 2,
        };
        Self(self.0 & !(3 << Self::KIND_SHIFT) | bits << Self::KIND_SHIFT)
    }

    /// What kind of message it is.
    #[must_use]
    pub const fn kind(self) -> MessageKind {
        match self.0 >> Self::KIND_SHIFT & 3 {
            1 => MessageKind::Notification,
            2 => MessageKind::Fault,
            _ => MessageKind::Call,
        }
    }

    /// The label.
    #[must_use]
    pub const fn label(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Bytes of data in the message buffer; more than [`MESSAGE_DATA_SIZE`] is an error.
    #[must_use]
    pub const fn bytes(self) -> usize {
        (self.0 & 0xfff) as usize
    }

    /// Handles in the message buffer; more than [`MESSAGE_HANDLES`] is an error.
    #[must_use]
    pub const fn handles(self) -> usize {
        (self.0 >> 12 & 0xf) as usize
    }

    /// Whether the time-out of the message buffer holds.
    #[must_use]
    pub const fn is_timed(self) -> bool {
        self.0 & Self::TIMED != 0
    }

    /// Whether everything of the message is in registers.
    #[must_use]
    pub const fn is_short(self) -> bool {
        self.0 & (0xffff | Self::TIMED) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::{MessageKind, MessageTag};

    #[test]
    fn a_tag_gives_back_what_it_was_made_of() {
        let tag = MessageTag::new(0xdead_beef, 3840, 8).timed().with_kind(MessageKind::Fault);
        assert_eq!((tag.label(), tag.bytes(), tag.handles()), (0xdead_beef, 3840, 8));
        assert!(tag.is_timed());
        assert_eq!(tag.kind(), MessageKind::Fault);
        assert!(!tag.is_short());
        assert!(MessageTag::new(7, 0, 0).is_short());
    }
}
