//! A PCI function that the supervisor gave to this domain: its configuration page and the memory of its BARs.

use alloc::format;
use alloc::sync::Arc;

use dragonfly_rt::abi::PAGE_SIZE;
use dragonfly_rt::named;

use crate::error::OpenError;
use crate::hal::Registers;

/// Registers of every function's configuration (PCI 3.0 6.1).
const VENDOR: u64 = 0x00;
const DEVICE: u64 = 0x02;
const COMMAND: u64 = 0x04;
const STATUS: u64 = 0x06;
const BASE_ADDRESS: u64 = 0x10;
const CAPABILITIES: u64 = 0x34;

/// Bits of the command register: memory accesses are answered, the function may access memory, no INTx.
const MEMORY_SPACE: u16 = 1 << 1;
const BUS_MASTER: u16 = 1 << 2;
const INTX_DISABLE: u16 = 1 << 10;

/// Bit of the status register: there is a list of capabilities.
const HAS_CAPABILITIES: u16 = 1 << 4;

/// Capabilities are four bytes at least, from 0x40 to 0xff: a longer list has a loop.
const MAX_CAPABILITIES: usize = 48;

/// A vendor's own capability, which virtio uses.
pub(crate) const CAPABILITY_VENDOR: u8 = 0x09;

/// A function with its registers mapped.
#[derive(Debug)]
pub(crate) struct Function {
    config: Registers,
    bars: [Option<Arc<Registers>>; 6],
}

/// A part of a BAR.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    registers: Arc<Registers>,
    offset: u64,
    length: u64,
}

impl Function {
    /// The function that the domain has under a name: the handles `NAME` and `NAME.bar0` to `NAME.bar5`. `None` if there
    /// is none.
    ///
    /// # Errors
    /// Its registers cannot be mapped.
    pub(crate) fn open(name: &str) -> Result<Option<Self>, OpenError> {
        let Some(page) = named(name) else { return Ok(None) };
        let config = Registers::map(page)?;
        let mut bars = [const { None }; 6];
        for (number, bar) in bars.iter_mut().enumerate() {
            if let Some(memory) = named(&format!("{name}.bar{number}")) {
                *bar = Some(Arc::new(Registers::map(memory)?));
            }
        }
        Ok(Some(Self { config, bars }))
    }

    /// A function of a test: its configuration page and one BAR.
    #[cfg(test)]
    pub(crate) fn of_test(config: Registers, number: usize, bar: Registers) -> Self {
        let mut bars = [const { None }; 6];
        bars[number] = Some(Arc::new(bar));
        Self { config, bars }
    }

    /// Vendor and device number.
    pub(crate) fn identity(&self) -> (u16, u16) {
        (self.config.read_u16(VENDOR), self.config.read_u16(DEVICE))
    }

    /// Lets the function answer memory accesses, and keeps it from interrupting by a line and from accessing memory, in which
    /// a driver that was here before may have left it to.
    pub(crate) fn enable(&self) {
        let command = self.config.read_u16(COMMAND) & !BUS_MASTER;
        self.config.write_u16(COMMAND, command | MEMORY_SPACE | INTX_DISABLE);
    }

    /// Says whether the function may access memory.
    pub(crate) fn set_bus_master(&self, may: bool) {
        let command = self.config.read_u16(COMMAND) & !BUS_MASTER;
        self.config.write_u16(COMMAND, command | if may { BUS_MASTER } else { 0 });
    }

    /// Where each capability with that number is.
    pub(crate) fn capabilities(&self, number: u8) -> impl Iterator<Item = u64> + '_ {
        let has_list = self.config.read_u16(STATUS) & HAS_CAPABILITIES != 0;
        let mut next = if has_list { self.config.read_u8(CAPABILITIES) } else { 0 };
        let all = core::iter::from_fn(move || {
            let place = u64::from(next & !3);
            next = self.config.read_u8(place + 1);
            // The first 64 bytes are the header.
            (place >= 0x40).then_some(place)
        });
        all.take(MAX_CAPABILITIES).filter(move |place| self.config.read_u8(*place) == number)
    }

    /// The configuration page.
    pub(crate) fn config(&self) -> &Registers {
        &self.config
    }

    /// A part of a BAR; `None` if it is not in a memory BAR that was given.
    pub(crate) fn window(&self, bar: u8, offset: u32, length: u32) -> Option<Window> {
        let registers = self.bars.get(usize::from(bar))?.as_ref()?;
        // Of a BAR that is smaller than a page, the page around it is mapped. The lowest four bits are flags.
        let in_page = self.config.read_u32(BASE_ADDRESS + 4 * u64::from(bar)) & (PAGE_SIZE as u32 - 1) & !0xf;
        let (offset, length) = (u64::from(offset) + u64::from(in_page), u64::from(length));
        (offset.checked_add(length)? <= registers.size()).then(|| Window {
            registers: registers.clone(),
            offset,
            length,
        })
    }
}

/// Defines an access of a width: a read and a write. What lies outside reads as ones and takes no writes.
macro_rules! access {
    ($read:ident, $write:ident, $width:ty) => {
        pub(crate) fn $read(&self, offset: u64) -> $width {
            self.place(offset, size_of::<$width>()).map_or(<$width>::MAX, |place| self.registers.$read(place))
        }

        pub(crate) fn $write(&self, offset: u64, value: $width) {
            if let Some(place) = self.place(offset, size_of::<$width>()) {
                self.registers.$write(place, value);
            }
        }
    };
}

impl Window {
    access!(read_u8, write_u8, u8);
    access!(read_u16, write_u16, u16);
    access!(read_u32, write_u32, u32);

    /// A 64-bit register is written in halves (virtio 1.2 4.1.3.1).
    pub(crate) fn write_u64(&self, offset: u64, value: u64) {
        self.write_u32(offset, value as u32);
        self.write_u32(offset.saturating_add(4), (value >> 32) as u32);
    }

    /// Size in bytes.
    pub(crate) const fn length(&self) -> u64 {
        self.length
    }

    fn place(&self, offset: u64, width: usize) -> Option<u64> {
        let end = offset.checked_add(width as u64)?;
        (end <= self.length).then(|| self.offset + offset)
    }
}
