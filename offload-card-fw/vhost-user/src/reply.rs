//! Answers to the front end.

use arrayvec::ArrayVec;
use zerocopy::{Immutable, IntoBytes};

use crate::{
    header::{HEADER_LEN, Header, MAX_PAYLOAD},
    request::Request,
};

/// An answer, ready to be sent.
#[derive(Debug)]
pub struct Reply<R> {
    bytes: ArrayVec<u8, { HEADER_LEN + MAX_PAYLOAD }>,
    /// What goes along with it.
    pub resource: Option<R>,
}

impl<R> Reply<R> {
    /// An answer with one value.
    pub(crate) fn new<T: IntoBytes + Immutable>(request: Request, payload: &T) -> Self {
        Self::of_parts(request, payload.as_bytes(), &[])
    }

    /// An answer whose payload comes in two parts. What does not fit is left out; nothing that a session sends is as long.
    pub(crate) fn of_parts(request: Request, first: &[u8], second: &[u8]) -> Self {
        let mut bytes = ArrayVec::new();
        let len = (first.len() + second.len()).min(MAX_PAYLOAD);
        bytes.extend(Header::of_reply(request, len));
        bytes.extend(first.iter().chain(second).copied().take(len));
        Self { bytes, resource: None }
    }

    /// All bytes, header first.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes behind the header.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(HEADER_LEN..).unwrap_or_default()
    }
}
