//! The message buffer: bytes and handles that travel with a message.
//!
//! The kernel reads and writes the buffer during calls, and so does the log. That is why no reference to it is handed
//! out: everything is copied in and out. What arrived in it is valid until the thread's next call that sends or
//! receives; writing to the log keeps it.
#![expect(unsafe_code, reason = "the buffer is shared with the kernel and reached through its address")]

use core::ptr;

use dragonfly_abi::arch::{THREAD_STATE_SIZE, ThreadState};
use dragonfly_abi::{HandleTransfer, MESSAGE_DATA_SIZE, MESSAGE_HANDLES, MessageBuffer, MessageTag, Status};

use crate::stack::control_block;
use crate::sys::Message;

/// A thread's message buffer.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// Points to a mapped buffer that only this thread, and the kernel for it, uses.
    pointer: *mut MessageBuffer,
}

/// The calling thread's message buffer.
#[must_use]
pub fn buffer() -> Buffer {
    Buffer { pointer: control_block().message_buffer }
}

impl Buffer {
    /// Puts bytes at the start of the data.
    ///
    /// # Errors
    /// [`Status::BadArgument`] for more than [`MESSAGE_DATA_SIZE`].
    pub fn write(self, bytes: &[u8]) -> Result<(), Status> {
        if bytes.len() > MESSAGE_DATA_SIZE {
            return Err(Status::BadArgument);
        }
        // SAFETY: the buffer is mapped and as large as that; `bytes` is no part of it, for no reference to it exists.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.data(), bytes.len()) };
        Ok(())
    }

    /// Copies the first bytes of the data out, as many as fit; gives their number.
    pub fn read(self, into: &mut [u8]) -> usize {
        let size = into.len().min(MESSAGE_DATA_SIZE);
        // SAFETY: as in `write`.
        unsafe { ptr::copy_nonoverlapping(self.data(), into.as_mut_ptr(), size) };
        size
    }

    /// Puts the handles of the next message in.
    ///
    /// # Errors
    /// [`Status::BadArgument`] for more than [`MESSAGE_HANDLES`].
    pub fn write_handles(self, handles: &[HandleTransfer]) -> Result<(), Status> {
        if handles.len() > MESSAGE_HANDLES {
            return Err(Status::BadArgument);
        }
        // SAFETY: the field is mapped and as large as that.
        unsafe { ptr::copy_nonoverlapping(handles.as_ptr(), (&raw mut (*self.pointer).handles).cast(), handles.len()) };
        Ok(())
    }

    /// All places for handles. The tag of the message says how many of them it brought.
    #[must_use]
    pub fn handles(self) -> [HandleTransfer; MESSAGE_HANDLES] {
        // SAFETY: the field is mapped, and every bit pattern is a valid value.
        unsafe { (&raw const (*self.pointer).handles).read() }
    }

    /// How many handles the next messages may bring, [`MESSAGE_HANDLES`] at most. Whoever sends more is refused.
    pub fn accept_handles(self, count: u32) {
        // SAFETY: the field is mapped.
        unsafe { (&raw mut (*self.pointer).accept_handles).write(count) };
    }

    /// How long a message with [`MessageTag::timed`] waits.
    pub fn set_timeout_ns(self, timeout_ns: u64) {
        // SAFETY: the field is mapped.
        unsafe { (&raw mut (*self.pointer).timeout_ns).write(timeout_ns) };
    }

    /// The registers of the thread whose fault was received.
    #[must_use]
    pub fn thread_state(self) -> ThreadState {
        const { assert!(THREAD_STATE_SIZE <= MESSAGE_DATA_SIZE) };
        // SAFETY: the data is mapped and large enough, and every bit pattern is a valid value.
        unsafe { self.data().cast::<ThreadState>().read_unaligned() }
    }

    /// Puts the registers in with which a faulted thread is to go on.
    pub fn set_thread_state(self, state: &ThreadState) {
        // SAFETY: as in `thread_state`.
        unsafe { self.data().cast::<ThreadState>().write_unaligned(*state) };
    }

    fn data(self) -> *mut u8 {
        // SAFETY: only computes an address within the buffer.
        unsafe { (&raw mut (*self.pointer).data).cast() }
    }
}

impl Message {
    /// A message with bytes and handles, which are put into the calling thread's message buffer: it is to be sent
    /// before anything else is.
    ///
    /// # Errors
    /// [`Status::BadArgument`] for more than fits.
    pub fn with(label: u32, words: [u64; 4], bytes: &[u8], handles: &[HandleTransfer]) -> Result<Self, Status> {
        buffer().write(bytes)?;
        buffer().write_handles(handles)?;
        Ok(Self { tag: MessageTag::new(label, bytes.len(), handles.len()), words })
    }

    /// Copies the bytes that came with the message out, as many as fit; gives their number.
    pub fn read(&self, into: &mut [u8]) -> usize {
        let size = into.len().min(self.tag.bytes());
        into.get_mut(..size).map_or(0, |into| buffer().read(into))
    }

    /// The handle at a place among those that came with the message.
    #[must_use]
    pub fn handle(&self, index: usize) -> Option<HandleTransfer> {
        if index < self.tag.handles() { buffer().handles().get(index).copied() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use dragonfly_abi::arch::ThreadState;
    use dragonfly_abi::{Handle, HandleTransfer, MESSAGE_DATA_SIZE, MessageBuffer, Rights, Status};

    use super::Buffer;

    fn with_buffer(test: impl FnOnce(Buffer)) {
        let mut page = Box::new(MessageBuffer::new());
        test(Buffer { pointer: &raw mut *page });
    }

    #[test]
    fn bytes_are_read_back_as_they_were_written() {
        with_buffer(|buffer| {
            assert_eq!(buffer.write(b"hello"), Ok(()));
            let mut bytes = [0; 3];
            assert_eq!(buffer.read(&mut bytes), 3);
            assert_eq!(&bytes, b"hel");
        });
    }

    #[test]
    fn a_full_buffer_fits_and_one_byte_more_does_not() {
        with_buffer(|buffer| {
            assert_eq!(buffer.write(&[7; MESSAGE_DATA_SIZE]), Ok(()));
            assert_eq!(buffer.write(&[7; MESSAGE_DATA_SIZE + 1]), Err(Status::BadArgument));
            let mut bytes = [0; MESSAGE_DATA_SIZE + 100];
            assert_eq!(buffer.read(&mut bytes), MESSAGE_DATA_SIZE);
            assert!(bytes[..MESSAGE_DATA_SIZE].iter().all(|byte| *byte == 7));
        });
    }

    #[test]
    fn at_most_eight_handles_fit() {
        with_buffer(|buffer| {
            let one = HandleTransfer::copy(Handle(5), Rights::SEND);
            assert_eq!(buffer.write_handles(&[one; 9]), Err(Status::BadArgument));
            assert_eq!(buffer.write_handles(&[one; 2]), Ok(()));
            assert_eq!(buffer.handles()[..3], [one, one, HandleTransfer::default()]);
        });
    }

    #[test]
    fn registers_are_read_back_as_they_were_written() {
        with_buffer(|buffer| {
            let state = ThreadState { rip: 0x20_0000, r15: u64::MAX, ..ThreadState::default() };
            buffer.set_thread_state(&state);
            assert_eq!(buffer.thread_state(), state);
        });
    }
}
