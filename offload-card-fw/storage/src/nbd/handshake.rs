//! Negotiation: which export, and what the server says of it.

use alloc::vec::Vec;

use zerocopy::{FromBytes, IntoBytes};

use super::error::NbdError;
use super::wire::{
    ERROR_BLOCK_SIZE_REQUIRED, ERROR_POLICY, ERROR_SHUTDOWN, ERROR_TLS_REQUIRED, ERROR_UNKNOWN, ERROR_UNSUPPORTED,
    FIXED_NEWSTYLE, GREETING_MAGIC, Greeting, INFO_BLOCK_SIZE, INFO_EXPORT, InfoBlockSize, InfoExport, NO_ZEROES,
    OPTION_GO, OPTION_MAGIC, OPTION_REPLY_MAGIC, OptionHeader, OptionReply, REPLY_ACK, REPLY_ERROR, REPLY_INFO,
    TransmissionFlags,
};
use crate::backend::{Geometry, SECTOR_BYTES};

/// No reply to an option is longer: what it has to say is some numbers, or a line of text.
const MAX_REPLY_BYTES: u32 = 16 << 10;
/// Blocks larger than that are no disk's.
const MAX_BLOCK_BYTES: u32 = 64 << 10;

/// What a server says of an export.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Export {
    /// Its size.
    pub bytes: u64,
    /// What can be done with it.
    pub flags: TransmissionFlags,
    /// Bytes of the smallest unit that can be read or written: a power of two from [`SECTOR_BYTES`] on.
    pub block_bytes: u32,
    /// Bytes of data that a command may have, at most: a multiple of `block_bytes`.
    pub max_data_bytes: u32,
}

impl Export {
    /// The export as a disk: as many whole blocks as it has.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        let blocks = self.bytes / u64::from(self.block_bytes.max(1));
        Geometry {
            capacity_sectors: blocks * u64::from(self.block_bytes) / SECTOR_BYTES as u64,
            block_bytes: self.block_bytes,
            is_read_only: self.flags.contains(TransmissionFlags::READ_ONLY),
        }
    }
}

/// What the server sends next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Greeting,
    Reply,
    /// The data of a reply of this kind.
    Data {
        kind: u32,
        bytes: u32,
    },
}

/// A negotiation under way.
#[derive(Debug)]
pub(super) struct Handshake {
    step: Step,
    /// Size and flags, once known.
    size: Option<(u64, TransmissionFlags)>,
    /// Smallest and largest number of bytes, if the server has told.
    blocks: Option<(u32, u32)>,
}

impl Handshake {
    pub(super) const fn new() -> Self {
        Self { step: Step::Greeting, size: None, blocks: None }
    }

    /// Bytes that [`take`](Self::take) needs next.
    pub(super) fn needs(&self) -> usize {
        match self.step {
            Step::Greeting => size_of::<Greeting>(),
            Step::Reply => size_of::<OptionReply>(),
            Step::Data { bytes, .. } => bytes as usize,
        }
    }

    /// Takes what the server has sent, as many bytes as are needed, and adds what is to be sent to it. Gives the export when
    /// both agree.
    pub(super) fn take(
        &mut self,
        received: &[u8],
        name: &str,
        to_send: &mut Vec<u8>,
    ) -> Result<Option<Export>, NbdError> {
        match self.step {
            Step::Greeting => {
                greet(received, name, to_send)?;
                self.step = Step::Reply;
            }
            Step::Reply => {
                let reply = OptionReply::read_from_bytes(received).map_err(|_| NbdError::NoServer)?;
                let (option, kind, bytes) = (reply.option.get(), reply.kind.get(), reply.bytes.get());
                if reply.magic.get() != OPTION_REPLY_MAGIC || option != OPTION_GO || bytes > MAX_REPLY_BYTES {
                    return Err(NbdError::OptionReply { option, kind, bytes });
                }
                self.step = Step::Data { kind, bytes };
            }
            Step::Data { kind, bytes } => {
                self.step = Step::Reply;
                let wrong = NbdError::OptionReply { option: OPTION_GO, kind, bytes };
                match kind {
                    REPLY_ACK => return self.export().map(Some),
                    REPLY_INFO => self.note(received).ok_or(wrong)?,
                    ERROR_UNSUPPORTED => return Err(NbdError::TooOld),
                    ERROR_POLICY => return Err(NbdError::Policy),
                    ERROR_TLS_REQUIRED => return Err(NbdError::TlsRequired),
                    ERROR_UNKNOWN => return Err(NbdError::NoExport),
                    ERROR_SHUTDOWN => return Err(NbdError::ShuttingDown),
                    // It was asked for block sizes, so it has nothing to complain about.
                    ERROR_BLOCK_SIZE_REQUIRED => return Err(wrong),
                    error if error & REPLY_ERROR != 0 => return Err(NbdError::Refused(error)),
                    _ => return Err(wrong),
                }
            }
        }
        Ok(None)
    }

    /// Notes what the server tells of the export; nothing if it cannot be that.
    fn note(&mut self, info: &[u8]) -> Option<()> {
        let kind = u16::from_be_bytes(*info.first_chunk()?);
        match kind {
            INFO_EXPORT => {
                let info = InfoExport::read_from_bytes(info).ok()?;
                self.size = Some((info.bytes.get(), TransmissionFlags::from_bits_truncate(info.flags.get())));
            }
            INFO_BLOCK_SIZE => {
                let info = InfoBlockSize::read_from_bytes(info).ok()?;
                self.blocks = Some((info.least_bytes.get(), info.most_bytes.get()));
            }
            // A server may tell what it was not asked.
            _ => {}
        }
        Some(())
    }

    fn export(&self) -> Result<Export, NbdError> {
        let (bytes, flags) = self.size.ok_or(NbdError::NoSize)?;
        // Without a word all servers take requests of any sector, and of 32 MiB ("Block size constraints").
        let (least_bytes, most_bytes) = self.blocks.unwrap_or((1, 32 << 20));
        let block_bytes = least_bytes.max(SECTOR_BYTES as u32);
        if !least_bytes.is_power_of_two() || block_bytes > MAX_BLOCK_BYTES || most_bytes < block_bytes {
            return Err(NbdError::BlockSize { least_bytes, most_bytes });
        }
        if bytes < u64::from(block_bytes) {
            return Err(NbdError::Empty);
        }
        let flags = if flags.contains(TransmissionFlags::HAS_FLAGS) { flags } else { TransmissionFlags::empty() };
        Ok(Export { bytes, flags, block_bytes, max_data_bytes: most_bytes - most_bytes % block_bytes })
    }
}

/// Answers the server's greeting, and asks for the export.
fn greet(received: &[u8], name: &str, to_send: &mut Vec<u8>) -> Result<(), NbdError> {
    let greeting = Greeting::read_from_bytes(received).map_err(|_| NbdError::NoServer)?;
    if greeting.magic.get() != GREETING_MAGIC {
        return Err(NbdError::NoServer);
    }
    let flags = greeting.flags.get();
    if greeting.option_magic.get() != OPTION_MAGIC || flags & FIXED_NEWSTYLE == 0 {
        return Err(NbdError::TooOld);
    }
    to_send.extend(u32::from(flags & (FIXED_NEWSTYLE | NO_ZEROES)).to_be_bytes());
    // Length of the name, the name, the number of things to know, and which.
    let bytes = (4 + name.len() + 2 + 2) as u32;
    let header = OptionHeader { magic: OPTION_MAGIC.into(), option: OPTION_GO.into(), bytes: bytes.into() };
    to_send.extend(header.as_bytes());
    to_send.extend((name.len() as u32).to_be_bytes());
    to_send.extend(name.as_bytes());
    to_send.extend(1_u16.to_be_bytes());
    to_send.extend(INFO_BLOCK_SIZE.to_be_bytes());
    Ok(())
}
