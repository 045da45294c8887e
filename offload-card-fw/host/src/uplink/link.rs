//! Network interfaces of Linux, opened for frames: TAP devices, and packet sockets at interfaces that others use too.
//!
//! The other module with `unsafe`: neither `rustix` nor the standard library has these calls. What is relied on: the
//! structures given to the kernel are those that it expects, initialised, and live for the call.
#![expect(unsafe_code, reason = "ioctl, setsockopt and recvmsg of interfaces have no safe wrapper")]

use std::{
    ffi::{CString, c_int, c_void},
    io::{self, IoSlice, IoSliceMut},
    mem::{self, MaybeUninit},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};

use dragonfly_card_devices::tables::Interface;
use rustix::fs::{Mode, OFlags, open};
use thiserror::Error;

/// Bytes of `struct virtio_net_hdr`, which is before each frame of either kind of interface.
pub const HEADER: usize = 10;

/// Bytes of Ethernet's addresses, behind which a VLAN tag goes, and of that.
const ADDRESSES: usize = 12;
const TAG: usize = 4;
/// `EtherType` of a tag, where the kernel does not say it (IEEE 802.1Q).
const TAGGED: u16 = 0x8100;

/// Why an interface cannot be used: what whoever runs the card can do about it.
#[derive(Debug, Error)]
pub enum LinkError {
    /// There is no TAP device, or it is another's.
    #[error("cannot use the TAP device {name}: {reason}{}", remedy(reason, TAP_REMEDY))]
    Tap {
        /// Its name.
        name: String,
        /// What the kernel says.
        reason: io::Error,
    },
    /// There is no such interface, or its frames are not for this process.
    #[error("cannot share the interface {name}: {reason}{}", remedy(reason, SHARED_REMEDY))]
    Shared {
        /// Its name.
        name: String,
        /// What the kernel says.
        reason: io::Error,
    },
}

const TAP_REMEDY: &str = ": make it as root by `ip tuntap add NAME mode tap user $USER`, or run the card in a network \
                          namespace of its own (`unshare --user --map-root-user --net`)";
const SHARED_REMEDY: &str =
    ": give the program the right to by `setcap cap_net_raw+ep offload-card`, or use a `tap` in place of `interface`";

/// What to do about a lack of rights; of other errors, the name tells enough.
fn remedy(reason: &io::Error, remedy: &'static str) -> &'static str {
    if reason.kind() == io::ErrorKind::PermissionDenied { remedy } else { "" }
}

/// An open interface, which never waits.
#[derive(Debug)]
pub struct Link {
    descriptor: OwnedFd,
    /// Frames are messages of a packet socket, not of a TAP device.
    is_shared: bool,
}

impl Link {
    /// Opens an interface.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub fn open(interface: &Interface) -> Result<Self, LinkError> {
        let (opened, is_shared) = match interface {
            Interface::Tap(name) => (tap(name).map_err(|reason| LinkError::Tap { name: name.clone(), reason }), false),
            Interface::Shared(name) => {
                (shared(name).map_err(|reason| LinkError::Shared { name: name.clone(), reason }), true)
            }
        };
        Ok(Self { descriptor: opened?, is_shared })
    }

    /// Takes the next frame: its bytes in `buffer`, of which their number is given. A longer one is cut.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if there is none; others if the interface is down or gone.
    pub fn receive(&self, header: &mut [u8; HEADER], buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_shared {
            return receive_message(&self.descriptor, header, buffer);
        }
        let read = rustix::io::readv(&self.descriptor, &mut [IoSliceMut::new(header), IoSliceMut::new(buffer)])?;
        Ok(read.saturating_sub(HEADER))
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// It is lost: the interface is down or gone, has no room, or takes no frames of such a length.
    pub fn send(&self, header: &[u8; HEADER], frame: &[u8]) -> io::Result<()> {
        Ok(rustix::io::writev(&self.descriptor, &[IoSlice::new(header), IoSlice::new(frame)]).map(drop)?)
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// A TAP device, which is made if it is not there (Linux: Documentation/networking/tuntap.rst).
fn tap(name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let descriptor = open("/dev/net/tun", flags, Mode::empty())?;
    // SAFETY: All fields of the structure are integers, arrays of them, or pointers, which may be null.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    // All flags are low bits.
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: The call takes a `struct ifreq`, which lives for it.
    check(unsafe { libc::ioctl(descriptor.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    let header_len = HEADER as c_int;
    // SAFETY: The call reads an `int`, which lives for it.
    check(unsafe { libc::ioctl(descriptor.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const header_len) })?;
    // What the system may leave to the card: what virtio-net's guests may.
    let offloads = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    let more = offloads | libc::TUN_F_USO4 | libc::TUN_F_USO6;
    // Linux has known UDP's since 6.2.
    // SAFETY: The call takes a number.
    if check(unsafe { libc::ioctl(descriptor.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(more)) }).is_err() {
        // SAFETY: As above.
        check(unsafe { libc::ioctl(descriptor.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(offloads)) })?;
    }
    Ok(descriptor)
}

/// A packet socket at an interface (packet(7)), which sees frames for all stations, and none that the system sends.
fn shared(name: &str) -> io::Result<OwnedFd> {
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // No protocol: nothing comes before the socket is at its interface.
    // SAFETY: The call takes numbers.
    let number = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
    // SAFETY: The socket was just made, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    let name = CString::new(name).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: The call reads a string that ends with a zero, which lives for it.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    // Interfaces are counted by `int`s.
    let index = index as c_int;
    for option in [libc::PACKET_VNET_HDR, libc::PACKET_AUXDATA, libc::PACKET_IGNORE_OUTGOING] {
        set_option(&socket, option, &1)?;
    }
    // SAFETY: All fields of the structures are integers and arrays of them.
    let (mut place, mut membership): (libc::sockaddr_ll, libc::packet_mreq) = unsafe { mem::zeroed() };
    membership.mr_ifindex = index;
    membership.mr_type = libc::PACKET_MR_PROMISC as u16;
    set_option(&socket, libc::PACKET_ADD_MEMBERSHIP, &membership)?;
    place.sll_family = libc::AF_PACKET as u16;
    place.sll_protocol = protocol;
    place.sll_ifindex = index;
    // SAFETY: The call reads a `struct sockaddr_ll`, which lives for it, and of which the length is given.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const place).cast(), len_of::<libc::sockaddr_ll>()) })?;
    Ok(socket)
}

fn set_option<T>(socket: &OwnedFd, option: c_int, value: &T) -> io::Result<()> {
    let value: *const T = value;
    // SAFETY: The call reads the value, of which the length is given and which lives for it.
    check(unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, value.cast::<c_void>(), len_of::<T>())
    })
    .map(drop)
}

/// Takes a message of a packet socket, and puts the tag back that the kernel or the network card has taken off.
fn receive_message(socket: &OwnedFd, header: &mut [u8; HEADER], buffer: &mut [u8]) -> io::Result<usize> {
    // Room for the tag, which goes behind the addresses.
    let room = buffer.len().checked_sub(TAG).ok_or(io::ErrorKind::InvalidInput)?;
    let mut control = MaybeUninit::<[u64; 8]>::zeroed();
    let mut parts = [IoSliceMut::new(header), IoSliceMut::new(buffer.get_mut(..room).unwrap_or_default())];
    // SAFETY: All fields of the structure are integers, or pointers, which may be null.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    // The standard library promises that the slices have the layout of `struct iovec`.
    message.msg_iov = parts.as_mut_ptr().cast();
    message.msg_iovlen = parts.len();
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: What the structure points to lives for the call and may be written, as far as the lengths say.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    let mut len = received.saturating_sub(HEADER);
    if let Some([kind, control]) = tag_of(&message)
        && len >= ADDRESSES
    {
        buffer.copy_within(ADDRESSES..len, ADDRESSES + TAG);
        let tag = [kind, control].map(u16::to_be_bytes);
        buffer.iter_mut().skip(ADDRESSES).zip(tag.into_iter().flatten()).for_each(|(to, from)| *to = from);
        len += TAG;
        // Where the checksum begins, if it is partial (flag 1), moves with the bytes.
        if header[0] & 1 != 0 {
            let start = u16::from_le_bytes([header[6], header[7]]).saturating_add(TAG as u16);
            [header[6], header[7]] = start.to_le_bytes();
        }
    }
    Ok(len)
}

/// The tag that came beside a message: its `EtherType` and its control information.
fn tag_of(message: &libc::msghdr) -> Option<[u16; 2]> {
    // SAFETY: The kernel has filled the structure's control buffer as far as its length now says.
    let first = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: It is null or points to a whole header within the buffer, which is aligned to 8 bytes.
    let control = unsafe { first.as_ref() }?;
    let needed = len_of::<libc::tpacket_auxdata>() as usize;
    // SAFETY: The call computes a length.
    let is_auxiliary = control.cmsg_level == libc::SOL_PACKET
        && control.cmsg_type == libc::PACKET_AUXDATA
        && control.cmsg_len >= unsafe { libc::CMSG_LEN(needed as u32) } as usize;
    if !is_auxiliary {
        return None;
    }
    // SAFETY: By its length, the control message holds the structure, of which every bit pattern is one.
    let auxiliary: libc::tpacket_auxdata = unsafe { ptr::read_unaligned(libc::CMSG_DATA(first).cast()) };
    let has = |flag: u32| auxiliary.tp_status & flag != 0;
    let kind = if has(libc::TP_STATUS_VLAN_TPID_VALID) { auxiliary.tp_vlan_tpid } else { TAGGED };
    has(libc::TP_STATUS_VLAN_VALID).then_some([kind, auxiliary.tp_vlan_tci])
}

/// A structure's length, as the kernel takes it.
const fn len_of<T>() -> libc::socklen_t {
    // Those here have a few dozen bytes.
    size_of::<T>() as libc::socklen_t
}

/// What a call of the C library says.
fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
