//! One end of a UNIX socket: bytes and file descriptors come in, messages come out.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use arrayvec::ArrayVec;
use dragonfly_vhost_user::{HEADER_LEN, Header, MAX_PAYLOAD, MAX_RESOURCES, MessageError, Received, Reply};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use thiserror::Error;

/// Why nothing more is to be expected of a client.
#[derive(Debug, Error)]
pub enum InboxError {
    /// It closed the connection.
    #[error("the client went away")]
    Closed,
    /// It closed the connection, or broke it, within a message.
    #[error("the client went away in the middle of a message")]
    CutShort,
    /// More file descriptors came along with a message than any has.
    #[error("more than {MAX_RESOURCES} file descriptors came with one message")]
    TooManyDescriptors,
    /// It sends requests, but does not read the answers.
    #[error("the client does not read its answers")]
    AnswersUnread,
    /// What came is no message.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The kernel says so.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// A connection, which never waits.
#[derive(Debug)]
pub struct Inbox {
    stream: UnixStream,
    bytes: [u8; HEADER_LEN + MAX_PAYLOAD],
    filled: usize,
    descriptors: ArrayVec<OwnedFd, MAX_RESOURCES>,
}

impl Inbox {
    /// A new connection.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, bytes: [0; HEADER_LEN + MAX_PAYLOAD], filled: 0, descriptors: ArrayVec::new() }
    }

    /// The next message, if all of it is there. Its payload is [`Self::payload`], until this is called again.
    ///
    /// # Errors
    /// The client is gone or sends what is no message.
    pub fn receive(&mut self) -> Result<Option<(Header, ArrayVec<OwnedFd, MAX_RESOURCES>)>, InboxError> {
        if !self.fill(HEADER_LEN)? {
            return Ok(None);
        }
        let header = self.bytes.first_chunk().map(|bytes| Header::parse(*bytes));
        let header = header.ok_or(InboxError::CutShort)??;
        if !self.fill(HEADER_LEN + header.payload_len)? {
            return Ok(None);
        }
        self.filled = 0;
        Ok(Some((header, std::mem::take(&mut self.descriptors))))
    }

    /// The bytes behind the header of the message that was received last.
    #[must_use]
    pub fn payload(&self, header: &Header) -> &[u8] {
        self.bytes.get(HEADER_LEN..HEADER_LEN + header.payload_len).unwrap_or_default()
    }

    /// A message as a session takes it.
    #[must_use]
    pub fn message(&self, header: Header, resources: ArrayVec<OwnedFd, MAX_RESOURCES>) -> Received<'_, OwnedFd> {
        Received { header, payload: self.payload(&header), resources }
    }

    /// Sends an answer.
    ///
    /// # Errors
    /// The client is gone, or does not read.
    pub fn send(&self, reply: &Reply<OwnedFd>) -> Result<(), InboxError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors: ArrayVec<BorrowedFd<'_>, 1> = reply.resource.iter().map(AsFd::as_fd).collect();
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match sendmsg(&self.stream, &[IoSlice::new(reply.bytes())], &mut control, flags) {
            Ok(sent) if sent == reply.bytes().len() => Ok(()),
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Err(InboxError::AnswersUnread),
            Err(errno) => Err(InboxError::System(errno.into())),
        }
    }

    /// Reads until so many bytes of the message are there; false if they are not yet.
    fn fill(&mut self, wanted: usize) -> Result<bool, InboxError> {
        while self.filled < wanted {
            let room = self.bytes.get_mut(self.filled..wanted).unwrap_or_default();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_RESOURCES))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let received = match recvmsg(&self.stream, &mut [IoSliceMut::new(room)], &mut control, flags) {
                Ok(received) => received,
                Err(rustix::io::Errno::AGAIN) => return Ok(false),
                Err(rustix::io::Errno::INTR) => continue,
                // A client that died with answers unread resets the connection.
                Err(rustix::io::Errno::CONNRESET) if self.filled == 0 => return Err(InboxError::Closed),
                Err(errno) => return Err(InboxError::System(errno.into())),
            };
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    for descriptor in descriptors {
                        self.descriptors.try_push(descriptor).map_err(|_| InboxError::TooManyDescriptors)?;
                    }
                }
            }
            if received.flags.contains(ReturnFlags::CTRUNC) {
                return Err(InboxError::TooManyDescriptors);
            }
            match received.bytes {
                0 if self.filled == 0 => return Err(InboxError::Closed),
                0 => return Err(InboxError::CutShort),
                bytes => self.filled += bytes,
            }
        }
        Ok(true)
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
