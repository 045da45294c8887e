//! The twelve bytes in front of each message.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{error::MessageError, request::Request};

/// Bytes of a header.
pub const HEADER_LEN: usize = size_of::<Words>();
/// The most bytes that follow a header: a configuration space of 256 bytes, with its place.
pub const MAX_PAYLOAD: usize = 268;

/// Version of the protocol, in the two lowest bits of the flags.
const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
struct Words {
    request: u32,
    flags: u32,
    size: u32,
}

/// A checked header of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What is asked for.
    pub request: Request,
    /// Whether the front end waits for an answer even if the request has none of its own.
    pub needs_reply: bool,
    /// Bytes that follow, at most [`MAX_PAYLOAD`].
    pub payload_len: usize,
}

impl Header {
    /// Reads a request's header.
    ///
    /// # Errors
    /// Another version, an answer in place of a request, an unknown request, or more bytes than any request has.
    pub fn parse(bytes: [u8; HEADER_LEN]) -> Result<Self, MessageError> {
        let words: Words = zerocopy::transmute!(bytes);
        if words.flags & VERSION_MASK != VERSION {
            return Err(MessageError::Version { flags: words.flags });
        }
        if words.flags & REPLY != 0 {
            return Err(MessageError::UnaskedReply);
        }
        let request = Request::from_id(words.request).ok_or(MessageError::UnknownRequest { id: words.request })?;
        match usize::try_from(words.size) {
            Ok(payload_len) if payload_len <= MAX_PAYLOAD => {
                Ok(Self { request, needs_reply: words.flags & NEED_REPLY != 0, payload_len })
            }
            _ => Err(MessageError::TooLong { request, size: words.size }),
        }
    }

    /// A request's header as a front end sends it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let flags = VERSION | if self.needs_reply { NEED_REPLY } else { 0 };
        bytes(self.request, flags, self.payload_len)
    }

    /// The header of an answer to `request`.
    #[must_use]
    pub(crate) fn of_reply(request: Request, payload_len: usize) -> [u8; HEADER_LEN] {
        bytes(request, VERSION | REPLY, payload_len)
    }
}

fn bytes(request: Request, flags: u32, payload_len: usize) -> [u8; HEADER_LEN] {
    // No payload is longer than MAX_PAYLOAD, so none is cut off here.
    let size = u32::try_from(payload_len).unwrap_or(u32::MAX);
    zerocopy::transmute!(Words { request: request as u32, flags, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(request: u32, flags: u32, size: u32) -> Result<Header, MessageError> {
        Header::parse(zerocopy::transmute!(Words { request, flags, size }))
    }

    #[test]
    fn a_headers_fields_are_read() {
        let expected = Header { request: Request::SetVringNum, needs_reply: true, payload_len: 8 };
        assert_eq!(header(8, 9, 8), Ok(expected));
        assert_eq!(Header::parse(expected.to_bytes()), Ok(expected));
    }

    #[test]
    fn a_header_that_breaks_the_protocol_is_refused_by_name() {
        for (request, flags, size, error) in [
            (1, 0, 0, MessageError::Version { flags: 0 }),
            (1, 2, 0, MessageError::Version { flags: 2 }),
            (1, 5, 0, MessageError::UnaskedReply),
            (0, 1, 0, MessageError::UnknownRequest { id: 0 }),
            (77, 1, 0, MessageError::UnknownRequest { id: 77 }),
            (1, 1, 269, MessageError::TooLong { request: Request::GetFeatures, size: 269 }),
            (1, 1, u32::MAX, MessageError::TooLong { request: Request::GetFeatures, size: u32::MAX }),
        ] {
            assert_eq!(header(request, flags, size), Err(error));
        }
    }

    #[test]
    fn every_request_is_found_by_its_number() {
        for request in Request::ALL {
            assert_eq!(Request::from_id(*request as u32), Some(*request));
        }
    }
}
