//! Frames built by hand, and an output that writes down what the switch decides.
#![expect(dead_code, reason = "each test program uses a part")]

use dragonfly_vswitch::{
    Edit, Frame, MAX_PREFIX, MacAddress, Offload, Output, PortConfig, PortId, Prefix, Role, Switch, SwitchConfig,
    capture::Record,
    counters::DropReason,
    policy::{Action, Direction, GroupId, Rule, Service},
};

pub const SECOND: u64 = 1_000_000_000;

/// The RFC 1071 sum, word by word.
pub fn naive_checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) * 256 + u32::from(*pair.get(1).unwrap_or(&0));
        sum = sum % 65536 + sum / 65536;
    }
    !(sum as u16)
}

pub fn mac(last: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, last])
}

/// What a TCP segment says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp {
    pub flags: u8,
    pub sequence: u32,
    pub acknowledgement: u32,
    pub window: u16,
}

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// A frame to be built.
#[derive(Clone, Debug)]
pub struct Build {
    pub source_mac: MacAddress,
    pub destination_mac: MacAddress,
    pub tags: Vec<[u8; 4]>,
    /// Last bytes of 10.0.0.x, or of fd00::x.
    pub addresses: ([u8; 4], [u8; 4]),
    pub is_v6: bool,
    pub flags_and_offset: u16,
    pub identification: u16,
    pub protocol: u8,
    pub transport: Vec<u8>,
}

impl Build {
    /// IPv4 from 10.0.0.`from` to 10.0.0.`to`, with Ethernet addresses alike.
    pub fn ip(from: u8, to: u8, protocol: u8, transport: Vec<u8>) -> Self {
        Self {
            source_mac: mac(from),
            destination_mac: mac(to),
            tags: Vec::new(),
            addresses: ([10, 0, 0, from], [10, 0, 0, to]),
            is_v6: false,
            flags_and_offset: 0x4000,
            identification: 0,
            protocol,
            transport,
        }
    }

    pub fn udp(from: u8, to: u8, ports: (u16, u16), data: &[u8]) -> Self {
        let mut transport = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
        transport.extend((8 + data.len() as u16).to_be_bytes());
        transport.extend([0, 0]);
        transport.extend(data);
        Self::ip(from, to, 17, transport)
    }

    pub fn tcp(from: u8, to: u8, ports: (u16, u16), tcp: Tcp, data: &[u8]) -> Self {
        let mut transport = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
        transport.extend(tcp.sequence.to_be_bytes());
        transport.extend(tcp.acknowledgement.to_be_bytes());
        transport.extend([0x50, tcp.flags]);
        transport.extend(tcp.window.to_be_bytes());
        transport.extend([0; 4]);
        transport.extend(data);
        Self::ip(from, to, 6, transport)
    }

    pub fn icmp(from: u8, to: u8, kind: u8, code: u8, rest: &[u8]) -> Self {
        let mut transport = vec![kind, code, 0, 0];
        transport.extend(rest);
        Self::ip(from, to, 1, transport)
    }

    pub fn v6(mut self) -> Self {
        self.is_v6 = true;
        self.protocol = if self.protocol == 1 { 58 } else { self.protocol };
        self
    }

    pub fn tag(mut self, vlan: u16) -> Self {
        self.tags.push([0x81, 0, (vlan >> 8) as u8, vlan as u8]);
        self
    }

    pub fn fragment(mut self, identification: u16, offset: u16, more: bool) -> Self {
        self.identification = identification;
        self.flags_and_offset = offset / 8 + if more { 0x2000 } else { 0 };
        self
    }

    /// The pseudo header's bytes.
    pub fn pseudo_header(&self) -> Vec<u8> {
        let (source, destination) = self.address_bytes();
        let mut bytes = [source, destination].concat();
        bytes.extend([0, self.protocol]);
        bytes.extend((self.transport.len() as u16).to_be_bytes());
        bytes
    }

    fn address_bytes(&self) -> (Vec<u8>, Vec<u8>) {
        let long = |address: [u8; 4]| [&[0xfd][..], &[0; 14], &address[3..]].concat();
        if self.is_v6 {
            (long(self.addresses.0), long(self.addresses.1))
        } else {
            (self.addresses.0.to_vec(), self.addresses.1.to_vec())
        }
    }

    /// Everything from the IP header on.
    pub fn packet(&self) -> Vec<u8> {
        let (source, destination) = self.address_bytes();
        let mut packet;
        if self.is_v6 {
            packet = vec![0x60, 0, 0, 0];
            packet.extend((self.transport.len() as u16).to_be_bytes());
            packet.extend([self.protocol, 64]);
        } else {
            packet = vec![0x45, 0];
            packet.extend((20 + self.transport.len() as u16).to_be_bytes());
            packet.extend(self.identification.to_be_bytes());
            packet.extend(self.flags_and_offset.to_be_bytes());
            packet.extend([64, self.protocol, 0, 0]);
        }
        packet.extend(source);
        packet.extend(destination);
        if !self.is_v6 {
            let sum = naive_checksum(&packet);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        packet.extend(&self.transport);
        packet
    }

    pub fn frame(&self) -> Vec<u8> {
        let mut frame = [self.destination_mac.0, self.source_mac.0].concat();
        frame.extend(self.tags.concat());
        frame.extend(if self.is_v6 { [0x86, 0xdd] } else { [8, 0] });
        frame.extend(self.packet());
        frame
    }
}

/// An ARP message from `from` that asks for or tells 10.0.0.`from`.
pub fn arp(from: u8, sender: u8, is_reply: bool) -> Vec<u8> {
    let mut frame = [[0xff; 6], mac(from).0].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1 + u8::from(is_reply)]);
    frame.extend(mac(from).0);
    frame.extend([10, 0, 0, sender]);
    frame.extend([0; 6]);
    frame.extend([10, 0, 0, 99]);
    frame
}

/// A frame with what a guest said about it.
pub struct Offered<'a>(pub &'a [u8], pub Offload);

impl Frame for Offered<'_> {
    fn head(&self) -> &[u8] {
        &self.0[..self.0.len().min(dragonfly_vswitch::packet::HEAD)]
    }

    fn length(&self) -> usize {
        self.0.len()
    }

    fn offload(&self) -> Offload {
        self.1
    }
}

/// What came out: whole frames, as the ports get them.
#[derive(Default)]
pub struct Recorder<'a> {
    pub frames: &'a [&'a [u8]],
    pub sent: Vec<(PortId, Vec<u8>)>,
    pub numbers: Vec<usize>,
    pub originated: Vec<(PortId, Vec<u8>)>,
    pub captured: Vec<u8>,
}

impl Output for Recorder<'_> {
    fn forward(&mut self, number: usize, port: PortId, edit: &Edit<'_>) {
        let frame = self.frames[number];
        let mut prefix = [0; MAX_PREFIX];
        let splice = edit.write(frame, frame.len(), &mut prefix).expect("the frame was forwarded");
        self.sent.push((port, [&prefix[..splice.written], &frame[splice.skip..]].concat()));
        self.numbers.push(number);
    }

    fn originate(&mut self, port: PortId, frame: &[u8]) {
        self.originated.push((port, frame.to_vec()));
    }

    fn captured(&mut self, _: PortId, record: &Record<'_>) {
        self.captured.extend(record.header);
        self.captured.extend(record.bytes);
    }
}

/// Sends frames, gives what came out.
pub fn send<'a>(switch: &mut Switch, port: u16, frames: &'a [&'a [u8]], now_ns: u64) -> Recorder<'a> {
    let mut recorder = Recorder { frames, ..Recorder::default() };
    let offered: Vec<_> = frames.iter().map(|frame| Offered(frame, Offload::default())).collect();
    switch.receive(PortId(port), &offered, now_ns, &mut recorder);
    recorder
}

/// Sends one frame and gives the ports that got it.
pub fn ports_of(switch: &mut Switch, port: u16, frame: &[u8], now_ns: u64) -> Vec<u16> {
    send(switch, port, &[frame], now_ns).sent.iter().map(|(port, _)| port.0).collect()
}

/// A switch with guests at ports 0 to `guests` and each one's station `mac(port)` known.
pub fn switch_of(configs: Vec<PortConfig>) -> Switch {
    let mut switch = Switch::new(SwitchConfig::new(1));
    for (id, config) in configs.into_iter().enumerate() {
        switch.add_port(PortId(id as u16), config).expect("a port of its own");
    }
    switch
}

pub fn guest() -> PortConfig {
    PortConfig::new(Role::Guest)
}

/// A guest that uses security group 0.
pub fn filtered() -> PortConfig {
    PortConfig { groups: Some(vec![GroupId(0)]), ..guest() }
}

/// Lets the switch learn that station `mac(port)` is at each port.
pub fn introduce(switch: &mut Switch, ports: u16, now_ns: u64) {
    for port in 0..ports {
        send(switch, port, &[&arp(port as u8, port as u8, false)], now_ns);
    }
}

pub fn rule(priority: u16, direction: Direction, action: Action, remote: Option<Prefix>, service: Service) -> Rule {
    Rule { priority, direction, action, remote, service }
}

pub fn prefix(text: &str) -> Option<Prefix> {
    let (address, length) = text.split_once('/').expect("address/length");
    let prefix = Prefix::new(address.parse().expect("an address"), length.parse().expect("a length"));
    assert!(prefix.is_some(), "{text}");
    prefix
}

pub fn drops(switch: &Switch, port: u16, reason: DropReason) -> u64 {
    switch.counters(PortId(port)).map_or(0, |counters| counters.dropped(reason))
}
