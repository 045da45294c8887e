//! A guest's memory with RAM and a device, and vCPUs in each mode.

use dragonfly_emulate::{Cpu, GuestPhys, Memory, Miss, Ports, Segment};

/// Bytes of RAM, from 0 on.
pub const RAM: usize = 1 << 20;
/// Guest-physical address of a device of [`DEVICE_SIZE`] bytes, which keeps what is written.
pub const DEVICE: u64 = 0xfed0_0000;
pub const DEVICE_SIZE: u64 = 0x2000;
/// Where code is put, linear and physical.
pub const CODE: u64 = 0x8000;
/// Root of the page tables that [`Bus::map`] builds.
pub const ROOT: u64 = 0x1_0000;

/// Page-table entry bits.
pub const P: u64 = 1;
pub const RW: u64 = 2;
pub const US: u64 = 4;
pub const A: u64 = 1 << 5;
pub const D: u64 = 1 << 6;
pub const PS: u64 = 1 << 7;
pub const XD: u64 = 1 << 63;

/// An access that is no RAM's, with its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    Read(u64, usize),
    Write(u64, Vec<u8>),
    In(u16, usize),
    Out(u16, Vec<u8>),
}

#[derive(Clone)]
pub struct Bus {
    pub ram: Vec<u8>,
    pub device: Vec<u8>,
    pub events: Vec<Event>,
    /// The next comparisons that find something else.
    pub lost_races: usize,
    next_table: u64,
}

impl Bus {
    pub fn new() -> Self {
        Self {
            ram: vec![0; RAM],
            device: vec![0; DEVICE_SIZE as usize],
            events: Vec::new(),
            lost_races: 0,
            next_table: ROOT + 0x1000,
        }
    }

    pub fn put(&mut self, address: u64, bytes: &[u8]) {
        let address = address as usize;
        self.ram[address..address + bytes.len()].copy_from_slice(bytes);
    }

    pub fn word(&self, address: u64) -> u64 {
        let address = address as usize;
        u64::from_le_bytes(self.ram[address..address + 8].try_into().unwrap())
    }

    pub fn put_word(&mut self, address: u64, value: u64) {
        self.put(address, &value.to_le_bytes());
    }

    /// Maps a page of 4 KiB in tables of so many levels at [`ROOT`]; tables allow everything.
    pub fn map(&mut self, levels: u32, linear: u64, physical: u64, flags: u64) {
        let entry = self.entry(levels, linear);
        self.put_word(entry, physical | flags);
    }

    /// Address of the lowest level's entry for a linear address; makes tables on the way.
    pub fn entry(&mut self, levels: u32, linear: u64) -> u64 {
        let mut table = ROOT;
        for level in (2..=levels).rev() {
            let entry = table + 8 * (linear >> (12 + 9 * (level - 1)) & 0x1ff);
            if self.word(entry) & P == 0 {
                let has_rights = level != 3 || levels != 3;
                self.put_word(entry, self.next_table | P | if has_rights { RW | US } else { 0 });
                self.next_table += 0x1000;
            }
            table = self.word(entry) & 0x000f_ffff_ffff_f000;
        }
        table + 8 * (linear >> 12 & 0x1ff)
    }

    fn place(&mut self, address: GuestPhys, size: usize) -> Result<&mut [u8], Miss> {
        assert!(size >= 1 && address.0 % 4096 + size as u64 <= 4096, "{address} {size}");
        let (bytes, offset) = match address.0 {
            DEVICE..=u64::MAX => (&mut self.device, address.0 - DEVICE),
            _ => (&mut self.ram, address.0),
        };
        usize::try_from(offset).ok().and_then(|at| bytes.get_mut(at..)?.get_mut(..size)).ok_or(Miss(address))
    }
}

impl Memory for Bus {
    fn ram_word(&self, GuestPhys(address): GuestPhys) -> Option<u64> {
        let bytes = self.ram.get(address as usize & !7..)?;
        Some(u64::from_le_bytes(*bytes.first_chunk()?))
    }

    fn read(&mut self, address: GuestPhys, bytes: &mut [u8]) -> Result<(), Miss> {
        if address.0 >= DEVICE {
            self.events.push(Event::Read(address.0, bytes.len()));
        }
        bytes.copy_from_slice(self.place(address, bytes.len())?);
        Ok(())
    }

    fn write(&mut self, address: GuestPhys, bytes: &[u8]) -> Result<(), Miss> {
        if address.0 >= DEVICE {
            self.events.push(Event::Write(address.0, bytes.to_vec()));
        }
        self.place(address, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    fn compare_exchange(&mut self, address: GuestPhys, current: &[u8], new: &[u8]) -> Result<bool, Miss> {
        if self.lost_races > 0 {
            self.lost_races -= 1;
            return Ok(false);
        }
        assert_eq!(current.len(), new.len());
        if address.0 < DEVICE && *self.place(address, current.len())? != *current {
            return Ok(false);
        }
        self.write(address, new)?;
        Ok(true)
    }
}

impl Ports for Bus {
    fn input(&mut self, port: u16, bytes: &mut [u8]) {
        self.events.push(Event::In(port, bytes.len()));
        bytes.copy_from_slice(&0xa5a4_a3a2_u32.to_le_bytes()[..bytes.len()]);
    }

    fn output(&mut self, port: u16, bytes: &[u8]) {
        self.events.push(Event::Out(port, bytes.to_vec()));
    }
}

const CODE_64: u32 = 0xa09b;
const CODE_32: u32 = 0xc09b;
const DATA: u32 = 0xc093;

/// Real mode with all bases 0, at [`CODE`].
pub fn real_mode() -> Cpu {
    let segment = Segment { selector: 0, attributes: 0x93, limit: 0xffff, base: 0 };
    Cpu {
        general: [0; 16],
        rip: CODE,
        rflags: 2,
        segments: [segment; 6],
        cpl: 0,
        cr0: 0x10,
        cr3: 0,
        cr4: 0,
        efer: 0,
        physical_address_bits: 40,
    }
}

/// 32-bit protected mode with flat segments, without paging.
pub fn protected_mode() -> Cpu {
    let segment = |attributes| Segment { selector: 8, attributes, limit: u32::MAX, base: 0 };
    let mut segments = [segment(DATA); 6];
    segments[1] = segment(CODE_32);
    Cpu { segments, cr0: 0x11, ..real_mode() }
}

/// 64-bit mode with tables at [`ROOT`], write protection and no-execute.
pub fn long_mode() -> Cpu {
    let mut cpu = Cpu { cr0: 0x8001_0011, cr3: ROOT, cr4: 0x20, efer: 0xd00, ..protected_mode() };
    cpu.segments[1].attributes = CODE_64;
    cpu
}

/// Where [`long_world`] shows the device.
pub const DEVICE_LINEAR: u64 = 0xffff_8000_0000_0000;
/// Where [`long_world`] shows two pages of RAM, the second of which is followed by nothing.
pub const DATA_LINEAR: u64 = 0x20_0000;
/// Where those pages lie.
pub const DATA_PHYSICAL: u64 = 0x4_0000;

/// 64-bit mode with this code at RIP, RAM and the device mapped.
pub fn long_world(code: &[u8]) -> (Cpu, Bus) {
    let mut bus = Bus::new();
    bus.put(CODE, code);
    bus.map(4, CODE, CODE, P);
    for page in [0, 0x1000] {
        bus.map(4, DATA_LINEAR + page, DATA_PHYSICAL + page, P | RW);
        bus.map(4, DEVICE_LINEAR + page, DEVICE + page, P | RW);
    }
    (long_mode(), bus)
}
