//! Carries vhost-user's messages over a UNIX socket.

use std::{
    io::{self, IoSlice, Read},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use dragonfly_vhost_user::{HEADER_LEN, Header, MAX_MESSAGE, Request, Transport};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// How long a back end may take to listen, or to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most file descriptors that go with a message.
const MAX_FILES: usize = 8;

/// A connection to a back end.
#[derive(Debug)]
pub struct Socket(UnixStream);

impl Socket {
    /// Connects to a back end, which may still be about to listen.
    ///
    /// # Errors
    /// It does not listen in time.
    pub fn connect(path: &Path) -> Result<Self> {
        let begin = Instant::now();
        loop {
            match UnixStream::connect(path) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE))?;
                    return Ok(Self(stream));
                }
                Err(error) if begin.elapsed() > PATIENCE => {
                    return Err(error).with_context(|| format!("nobody listens at {}", path.display()));
                }
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Transport for Socket {
    type Resource = Arc<OwnedFd>;
    type Error = io::Error;

    fn exchange(
        &mut self,
        message: &[u8],
        resources: &[Arc<OwnedFd>],
        answer: &mut [u8; MAX_MESSAGE],
    ) -> io::Result<usize> {
        let files: Vec<_> = resources.iter().map(|file| file.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&files)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        sendmsg(&self.0, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL)?;
        let header = message.first_chunk().and_then(|header| Header::parse(*header).ok());
        if !header.is_some_and(|header| is_answered(header.request)) {
            return Ok(0);
        }
        let (head, rest) = answer.split_at_mut(HEADER_LEN);
        self.0.read_exact(head)?;
        // The third word is the number of bytes that follow.
        let len = head.last_chunk().map_or(0, |word| u32::from_le_bytes(*word)) as usize;
        let rest = rest.get_mut(..len).ok_or(io::ErrorKind::InvalidData)?;
        self.0.read_exact(rest)?;
        Ok(HEADER_LEN + len)
    }
}

/// Whether a request that does not ask for it is answered all the same.
const fn is_answered(request: Request) -> bool {
    matches!(
        request,
        Request::GetFeatures
            | Request::GetProtocolFeatures
            | Request::GetQueueNum
            | Request::GetVringBase
            | Request::GetConfig
            | Request::GetMaxMemSlots
            | Request::GetStatus
    )
}
