//! Packet capture in the classic pcap format (draft-ietf-opsawg-pcap), nanosecond variant.

/// What of a port's frames is captured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CaptureConfig {
    /// Most bytes of a frame that are kept. What the switch sees of a frame is its head, so not much more than that.
    pub snap_length: u32,
    /// Frames that the port sends to the switch.
    pub received: bool,
    /// Frames that the switch sends to the port, as they were before tags and tunnels changed.
    pub sent: bool,
    /// Only TCP and UDP with this port on either side.
    pub transport_port: Option<u16>,
}

/// The bytes that a capture begins with, for frames of at most `snap_length` bytes.
#[must_use]
pub fn file_header(snap_length: u32) -> [u8; 24] {
    let mut header = [0; 24];
    let fields = [MAGIC_NANOSECONDS, VERSION, 0, 0, snap_length, LINKTYPE_ETHERNET];
    for (to, field) in header.as_chunks_mut::<4>().0.iter_mut().zip(fields) {
        *to = field.to_le_bytes();
    }
    header
}

const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
/// 2.4, the major number in the low half.
const VERSION: u32 = 4 << 16 | 2;
const LINKTYPE_ETHERNET: u32 = 1;

/// One captured frame: `header` and then `bytes` are appended to the capture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// Time, captured length, length on the wire.
    pub header: [u8; 16],
    /// The frame's first bytes.
    pub bytes: &'a [u8],
}

impl<'a> Record<'a> {
    /// A record of a frame of `length` bytes that begins with `head`. The time counts from wherever the clock counts.
    #[must_use]
    pub fn new(head: &'a [u8], length: usize, snap_length: u32, now_ns: u64) -> Self {
        let kept = head.len().min(length).min(snap_length as usize);
        let bytes = head.get(..kept).unwrap_or(head);
        let mut header = [0; 16];
        // The format's seconds have 32 bits, and frames are shorter than 2^32.
        let fields = [(now_ns / 1_000_000_000) as u32, (now_ns % 1_000_000_000) as u32, kept as u32, length as u32];
        for (to, field) in header.as_chunks_mut::<4>().0.iter_mut().zip(fields) {
            *to = field.to_le_bytes();
        }
        Self { header, bytes }
    }
}
