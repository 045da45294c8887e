//! VLANs (IEEE 802.1Q): which ones a port is in, and what becomes of a frame's tag between ports.

use alloc::vec::Vec;

use crate::packet::{FlowKey, ethertype};

/// How a port takes part in VLANs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VlanMode {
    /// In one VLAN, without tags. A tag with VLAN 0, which only carries a priority, is taken off.
    Access(u16),
    /// In several, told apart by the (outer) tag.
    Trunk {
        /// Those with tags.
        tagged: Vec<u16>,
        /// That of frames without a tag, if they are welcome.
        native: Option<u16>,
    },
}

impl VlanMode {
    /// The VLAN of a frame that comes from the port; `None` if the port may not send it.
    #[must_use]
    pub fn classify(&self, key: &FlowKey) -> Option<u16> {
        match (self, key.outer_vlan()) {
            (Self::Access(vlan), None | Some(0)) => Some(*vlan),
            (Self::Access(_), Some(_)) => None,
            (Self::Trunk { native, .. }, None | Some(0)) => *native,
            (Self::Trunk { tagged, .. }, Some(vlan)) => tagged.contains(&vlan).then_some(vlan),
        }
    }

    /// Whether the port gets frames of a VLAN.
    #[must_use]
    pub fn is_in(&self, vlan: u16) -> bool {
        match self {
            Self::Access(own) => *own == vlan,
            Self::Trunk { tagged, native } => *native == Some(vlan) || tagged.contains(&vlan),
        }
    }

    /// What is to be done to a frame of `vlan`, which came with the tags in `key`, before the port gets it.
    #[must_use]
    pub fn edit(&self, key: &FlowKey, vlan: u16) -> TagEdit {
        let wants_tag = matches!(self, Self::Trunk { native, .. } if *native != Some(vlan));
        match (key.outer_vlan(), wants_tag) {
            (None, false) => TagEdit::Keep,
            (None, true) => TagEdit::Push(vlan),
            (Some(_), false) => TagEdit::Pop,
            (Some(present), true) if present == vlan => TagEdit::Keep,
            (Some(_), true) => TagEdit::Set(vlan),
        }
    }

    /// All VLANs that the port is in.
    pub fn all(&self) -> impl Iterator<Item = u16> {
        let (one, many) = match self {
            Self::Access(vlan) => (Some(*vlan), &[][..]),
            Self::Trunk { tagged, native } => (*native, &tagged[..]),
        };
        one.into_iter().chain(many.iter().copied())
    }
}

/// What becomes of a frame's (outer) tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TagEdit {
    /// It stays, or there is none.
    Keep,
    /// It is taken off.
    Pop,
    /// One with this VLAN is put in.
    Push(u16),
    /// Its VLAN is replaced; its priority stays.
    Set(u16),
}

const MACS: usize = 12;
const TAG: usize = 4;

impl TagEdit {
    /// Begins `prefix` with what comes in place of the frame's first bytes; gives how many bytes it wrote, and how many
    /// of the frame's it replaces. `None` if the frame is too short to have been forwarded.
    pub(crate) fn write(self, head: &[u8], prefix: &mut [u8]) -> Option<(usize, usize)> {
        let (length, skip) = match self {
            Self::Keep => return Some((0, 0)),
            Self::Pop => (MACS, MACS + TAG),
            Self::Push(_) => (MACS + TAG, MACS),
            Self::Set(_) => (MACS + TAG, MACS + TAG),
        };
        prefix.get_mut(..MACS)?.copy_from_slice(head.get(..MACS)?);
        if let Self::Push(vlan) | Self::Set(vlan) = self {
            let tag = prefix.get_mut(MACS..MACS + TAG)?;
            let mut kind = ethertype::VLAN.to_be_bytes();
            let mut control = vlan;
            if let Self::Set(_) = self {
                let [a, b, priority, _] = *crate::bytes::array(head, MACS)?;
                kind = [a, b];
                control |= u16::from(priority & 0xf0) << 8;
            }
            let (first, second) = tag.split_at_mut(2);
            first.copy_from_slice(&kind);
            second.copy_from_slice(&control.to_be_bytes());
        }
        Some((length, skip))
    }
}
