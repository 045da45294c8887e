//! The page that a domain finds its arguments and handles in.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use core::mem::offset_of;

use dragonfly_abi::{ABI_VERSION, Handle, PAGE_SIZE, StartInfo};
use thiserror::Error;

use super::layout::{HEAP_END, HEAP_START, MESSAGE_BUFFER};

/// Room for arguments in bytes.
const ARGUMENTS_SIZE: usize = size_of::<[u8; 1024]>();

const _: () = assert!(offset_of!(StartInfo, arguments) + ARGUMENTS_SIZE <= PAGE_SIZE as usize);

/// Arguments do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("arguments and handle names take {size} bytes, but only {ARGUMENTS_SIZE} fit")]
pub struct StartPageError {
    /// Bytes that they take, with the words for the handles.
    pub size: usize,
}

/// The arguments of a domain, as words: its own, and one `handle.NAME=NUMBER` for each named handle.
#[derive(Clone, Debug, Default)]
pub(super) struct Words(String);

impl Words {
    /// The domain's own arguments.
    pub(super) fn new(arguments: &str) -> Self {
        Self(arguments.into())
    }

    /// Adds the number of a named handle.
    pub(super) fn add_handle(&mut self, name: &str, handle: Handle) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, " handle.{name}={}", handle.0);
    }

    /// The bytes of a start page with these words.
    ///
    /// # Errors
    /// [`StartPageError`] if they are too long.
    pub(super) fn start_page(&self, cpus: u32, tsc_hz: u64, bundle_size: u64) -> Result<Vec<u8>, StartPageError> {
        let text = self.0.as_bytes();
        let Some(length) = u32::try_from(text.len()).ok().filter(|_| text.len() <= ARGUMENTS_SIZE) else {
            return Err(StartPageError { size: text.len() });
        };
        // Field by field in the order of the structure, none of which is padded.
        let mut page = Vec::with_capacity(offset_of!(StartInfo, arguments) + text.len());
        page.extend_from_slice(&StartInfo::MAGIC.to_le_bytes());
        page.extend_from_slice(&ABI_VERSION.to_le_bytes());
        page.extend_from_slice(&cpus.to_le_bytes());
        for word in [HEAP_START, HEAP_END, tsc_hz, MESSAGE_BUFFER, bundle_size] {
            page.extend_from_slice(&word.to_le_bytes());
        }
        page.extend_from_slice(&length.to_le_bytes());
        page.extend_from_slice(&0_u32.to_le_bytes());
        page.extend_from_slice(text);
        Ok(page)
    }
}

#[cfg(test)]
#[expect(unsafe_code, reason = "reads the page as a domain does")]
mod tests {
    use dragonfly_abi::{ABI_VERSION, Handle, StartInfo};

    use super::{ARGUMENTS_SIZE, StartPageError, Words};
    use crate::arguments;
    use crate::loader::layout::{HEAP_END, HEAP_START, MESSAGE_BUFFER};

    #[test]
    fn a_domain_reads_what_the_loader_wrote() {
        let mut words = Words::new("role=ping  count=3");
        words.add_handle("pong", Handle::new(6, 0));
        let mut page = words.start_page(4, 2_000_000_000, 123).unwrap();
        page.resize(4096, 0);
        // SAFETY: the page is longer than the structure, of which every bit pattern is a value.
        let info: StartInfo = unsafe { page.as_ptr().cast::<StartInfo>().read_unaligned() };
        assert_eq!((info.magic, info.abi_version, info.cpus), (StartInfo::MAGIC, ABI_VERSION, 4));
        assert_eq!((info.heap_start, info.heap_end, info.tsc_hz), (HEAP_START, HEAP_END, 2_000_000_000));
        assert_eq!((info.message_buffer, info.bundle_size, info.reserved), (MESSAGE_BUFFER, 123, 0));
        let text = str::from_utf8(&info.arguments[..info.arguments_length as usize]).unwrap();
        assert_eq!(text, "role=ping  count=3 handle.pong=6");
        assert_eq!(arguments::handle_number(text, "pong"), Some(6));
    }

    #[test]
    fn arguments_that_do_not_fit_are_refused() {
        assert!(Words::new(&"x".repeat(ARGUMENTS_SIZE)).start_page(1, 0, 0).is_ok());
        let refused = Words::new(&"x".repeat(ARGUMENTS_SIZE + 1)).start_page(1, 0, 0);
        assert_eq!(refused, Err(StartPageError { size: ARGUMENTS_SIZE + 1 }));
    }
}
