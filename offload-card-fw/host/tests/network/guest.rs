//! A guest with a network stack.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::ChecksumCapabilities,
    socket::{icmp, tcp},
    time::Instant as Moment,
    wire::{EthernetAddress, HardwareAddress, Icmpv4Packet, Icmpv4Repr, IpCidr},
};

use crate::station::Station;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);
const TRANSFER: usize = 4 << 20;
const IDENT: u16 = 0x4d46;
/// Bytes of the headers of IPv4 and ICMP.
const ECHO_HEADERS: usize = 28;

/// The bytes of a transfer, no part of which is like another.
pub fn transfer() -> Vec<u8> {
    (0..TRANSFER as u32 / 4).flat_map(|word| word.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect()
}

/// A guest.
pub struct Guest {
    pub station: Station,
    interface: Interface,
    sockets: SocketSet<'static>,
    echo: SocketHandle,
    mtu: usize,
    begin: Instant,
}

impl Guest {
    /// With this address, of 24 bits, and packets of this length.
    pub fn new(mut station: Station, mac: [u8; 6], address: [u8; 4], mtu: usize) -> Self {
        let mac = HardwareAddress::Ethernet(EthernetAddress(mac));
        let mut interface = Interface::new(Config::new(mac), &mut station, Moment::ZERO);
        interface.update_ip_addrs(|list| list.push(IpCidr::new(Ipv4Addr::from(address).into(), 24)).unwrap());
        let mut sockets = SocketSet::new(vec![]);
        let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 8], vec![0; 1 << 16]);
        let mut echo = icmp::Socket::new(buffer(), buffer());
        echo.bind(icmp::Endpoint::Ident(IDENT)).unwrap();
        let echo = sockets.add(echo);
        Self { station, interface, sockets, echo, mtu, begin: Instant::now() }
    }

    fn turn(&mut self) {
        let now = Moment::from_micros(i64::try_from(self.begin.elapsed().as_micros()).unwrap());
        self.interface.poll(now, &mut self.station, &mut self.sockets);
    }

    /// Waits until there is an answer.
    fn until<T>(&mut self, what: &str, mut find: impl FnMut(&mut Self) -> Option<T>) -> T {
        let begin = Instant::now();
        loop {
            self.turn();
            if let Some(found) = find(self) {
                return found;
            }
            assert!(begin.elapsed() < PATIENCE, "{what}");
            self.station.wait();
        }
    }

    /// Sends echo requests, short ones and ones of full length, each until it is answered.
    pub fn ping(&mut self, to: [u8; 4]) {
        for (seq_no, len) in [(1, 56), (2, self.mtu - ECHO_HEADERS)] {
            let data: Vec<u8> = (0..len).map(|place| place as u8).collect();
            let request = Icmpv4Repr::EchoRequest { ident: IDENT, seq_no, data: &data };
            let mut next = Instant::now();
            self.until(&format!("no answer to a ping of {len} bytes"), |guest| {
                let socket = guest.sockets.get_mut::<icmp::Socket<'_>>(guest.echo);
                if Instant::now() >= next {
                    next += Duration::from_millis(500);
                    let room = socket.send(request.buffer_len(), Ipv4Addr::from(to).into()).unwrap();
                    request.emit(&mut Icmpv4Packet::new_unchecked(room), &ChecksumCapabilities::default());
                }
                let (bytes, from) = socket.recv().ok()?;
                let answer = Icmpv4Packet::new_checked(bytes).unwrap();
                let answer = Icmpv4Repr::parse(&answer, &ChecksumCapabilities::default()).unwrap();
                let expected = Icmpv4Repr::EchoReply { ident: IDENT, seq_no, data: &data };
                (from == Ipv4Addr::from(to).into() && answer == expected).then_some(())
            });
        }
    }

    /// Sends a transfer to a server, and takes one of the same bytes.
    pub fn exchange(&mut self, to: [u8; 4], port: u16) {
        let buffer = || tcp::SocketBuffer::new(vec![0; 1 << 16]);
        let handle = self.sockets.add(tcp::Socket::new(buffer(), buffer()));
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        socket.connect(self.interface.context(), (Ipv4Addr::from(to), port), 49_152 + port).unwrap();
        let bytes = transfer();
        let (mut sent, mut received) = (0, Vec::new());
        self.until("a transfer does not come to its end", |guest| {
            let socket = guest.sockets.get_mut::<tcp::Socket<'_>>(handle);
            if socket.may_send() {
                sent += socket.send_slice(&bytes[sent..]).unwrap();
            }
            while socket.can_recv() {
                socket.recv(|part| (part.len(), received.extend_from_slice(part))).unwrap();
            }
            (received.len() >= bytes.len()).then_some(())
        });
        assert!(received == bytes, "other bytes came than were sent");
        self.sockets.remove(handle);
    }

    /// Sends a packet of full length that must not be cut; gives the length that the answer says fits.
    pub fn longest_packet(&mut self, to: [u8; 4]) -> u16 {
        self.resolve(to);
        let data = vec![0; self.mtu - ECHO_HEADERS];
        let request = Icmpv4Repr::EchoRequest { ident: IDENT, seq_no: 9, data: &data };
        let socket = self.sockets.get_mut::<icmp::Socket<'_>>(self.echo);
        let room = socket.send(request.buffer_len(), Ipv4Addr::from(to).into()).unwrap();
        request.emit(&mut Icmpv4Packet::new_unchecked(room), &ChecksumCapabilities::default());
        self.turn();
        self.frame("no answer that it is too long", |frame| {
            // Ethernet, IPv4, and ICMP's type 3, code 4 with the length in the last two bytes of its header.
            (frame.get(12..14)? == [8, 0] && frame.get(34..36)? == [3, 4])
                .then(|| u16::from_be_bytes([frame[40], frame[41]]))
        })
    }

    /// The address that somebody asks for next.
    pub fn next_question(&mut self) -> [u8; 4] {
        self.frame("nobody asks", |frame| {
            (frame.get(12..14)? == [8, 6] && frame.get(20..22)? == [0, 1]).then(|| *frame[38..].first_chunk().unwrap())
        })
    }

    /// Makes the station known, by a short ping.
    fn resolve(&mut self, to: [u8; 4]) {
        let mtu = std::mem::replace(&mut self.mtu, ECHO_HEADERS + 1);
        self.ping(to);
        self.mtu = mtu;
    }

    /// Waits for a frame that is of interest; the stack does not see any until then.
    fn frame<T>(&mut self, what: &str, mut find: impl FnMut(&[u8]) -> Option<T>) -> T {
        let begin = Instant::now();
        loop {
            while let Some(frame) = self.station.receive_frame() {
                if let Some(found) = find(&frame) {
                    return found;
                }
            }
            assert!(begin.elapsed() < PATIENCE, "{what}");
            self.station.wait();
        }
    }
}
