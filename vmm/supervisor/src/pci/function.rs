//! One function: what it is, where its registers are, and its way from domain to domain.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use dragonfly_abi::PAGE_SIZE;
use dragonfly_rt::Mapping;
use thiserror::Error;

use super::config::{BASE_ADDRESS, COMMAND_IO, COMMAND_MASTER, COMMAND_MEMORY, Page, Registers};

/// How many base address registers an endpoint has.
pub(crate) const BASES: usize = 6;

/// Base address register: it is one of I/O ports.
const IS_IO: u32 = 1 << 0;
/// Base address register of memory: bits 2:1, of which this value says that the next register is the upper half.
const TYPE: u32 = 3 << 1;
const TYPE_64: u32 = 2 << 1;
/// Base address register of memory: the bits that are no address.
const MEMORY_FLAGS: u32 = 0xf;

/// Where a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) bus: u8,
    pub(crate) device: u8,
    pub(crate) function: u8,
}

/// Memory that a function answers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bar {
    /// Number of its first base address register.
    pub(crate) number: usize,
    /// Physical address.
    pub(crate) address: u64,
    /// Bytes: a power of two, to which the address is aligned.
    pub(crate) size: u64,
}

/// A function cannot be handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum PciError {
    /// It shares a page with another function.
    #[error("its bar{bar} shares the page at {page:#x} with {other}: only firmware that keeps them apart can help")]
    SharedPage {
        /// Number of the base address register.
        bar: usize,
        /// Physical address of the page.
        page: u64,
        /// The other function.
        other: Place,
    },
}

/// A function that was found, with its configuration page mapped for as long as the supervisor runs.
pub(crate) struct Function {
    pub(crate) place: Place,
    /// Vendor and device.
    pub(crate) id: (u16, u16),
    /// Physical address of its configuration page.
    pub(crate) page: u64,
    /// Its configuration page.
    pub(crate) mapping: Mapping,
    /// What its base address registers hold as firmware left them.
    pub(crate) bases: [u32; BASES],
    /// Functions with registers in a page of which this one has a part only.
    pub(crate) neighbours: Vec<(u64, Place)>,
}

impl Function {
    /// Whether it is of this kind.
    pub(crate) fn is(&self, vendor: u16, device: u16) -> bool {
        self.id == (vendor, device)
    }

    /// The memory that it answers to, in whole pages. It answers to nothing meanwhile and afterwards.
    pub(crate) fn bars(&self) -> Result<Vec<Bar>, PciError> {
        let bars = probe(&self.registers(), &self.bases);
        bars.into_iter().map(|bar| self.whole_pages(bar)).collect()
    }

    fn whole_pages(&self, bar: Bar) -> Result<Bar, PciError> {
        if bar.size >= PAGE_SIZE {
            return Ok(bar);
        }
        let page = bar.address & !(PAGE_SIZE - 1);
        match self.neighbours.iter().find(|(other, _)| *other & !(PAGE_SIZE - 1) == page) {
            Some((_, other)) => Err(PciError::SharedPage { bar: bar.number, page, other: *other }),
            None => Ok(Bar { number: bar.number, address: page, size: PAGE_SIZE }),
        }
    }

    /// Lets it answer to its memory, where firmware put that. That it uses memory by itself is for its driver to allow, once
    /// it has reset it: it may still have the requests of the driver before.
    pub(crate) fn enable(&self) {
        enable(&self.registers(), &self.bases);
    }

    /// Lets it use memory by itself no more. What it has begun may end within moments.
    pub(crate) fn stop(&self) {
        let registers = self.registers();
        registers.set_command(registers.command() & !COMMAND_MASTER);
    }

    fn registers(&self) -> Page<'_> {
        Page { mapping: &self.mapping, start: 0 }
    }
}

/// The registers as they are.
pub(crate) fn bases(registers: &impl Registers) -> [u32; BASES] {
    let mut offset = BASE_ADDRESS;
    [(); BASES].map(|()| {
        let value = registers.read(offset);
        offset += 4;
        value
    })
}

/// The memory registers among the first `count`: number, whether the next is the upper half, and address.
pub(crate) fn memory_bases(bases: &[u32]) -> Vec<(usize, bool, u64)> {
    let mut found = Vec::new();
    let mut rest = bases.iter().copied().enumerate();
    while let Some((number, low)) = rest.next() {
        if low & IS_IO != 0 {
            continue;
        }
        let is_64 = low & TYPE == TYPE_64;
        let high = if is_64 { rest.next().map_or(0, |(_, high)| high) } else { 0 };
        let address = u64::from(high) << 32 | u64::from(low & !MEMORY_FLAGS);
        // One that firmware gave no address, or that is not there, which reads as zero.
        if address != 0 {
            found.push((number, is_64, address));
        }
    }
    found
}

/// Finds the sizes by writing ones: address bits that stay zero are within the range (PCI Local Bus 3.0, 6.2.5.1). The
/// function must answer to nothing meanwhile, since the address is another one then.
fn probe(registers: &impl Registers, bases: &[u32; BASES]) -> Vec<Bar> {
    registers.set_command(registers.command() & !(COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER));
    let sized = memory_bases(bases).into_iter().filter_map(|(number, is_64, address)| {
        let low = BASE_ADDRESS + 4 * number as u64;
        let ones = |offset: u64| {
            let before = registers.read(offset);
            registers.write(offset, u32::MAX);
            let mask = registers.read(offset);
            registers.write(offset, before);
            mask
        };
        let low_mask = ones(low) & !MEMORY_FLAGS;
        let high_mask = if is_64 && number + 1 < BASES { ones(low + 4) } else { u32::MAX };
        let mask = u64::from(high_mask) << 32 | u64::from(low_mask);
        let size = (!mask).checked_add(1)?;
        // A device that keeps to the rules has a power of two, and firmware aligns to it.
        (size.is_power_of_two() && address.is_multiple_of(size)).then_some(Bar { number, address, size })
    });
    sized.collect()
}

fn enable(registers: &impl Registers, bases: &[u32; BASES]) {
    let command = registers.command() & !(COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER);
    registers.set_command(command);
    let mut offset = BASE_ADDRESS;
    for base in bases {
        registers.write(offset, *base);
        offset += 4;
    }
    registers.set_command(command | COMMAND_MEMORY);
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
}

impl fmt::Display for Function {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (vendor, device) = self.id;
        write!(formatter, "{} ({vendor:04x}:{device:04x})", self.place)
    }
}

/// Name of the handle to a range of registers.
pub(crate) fn bar_name(function: &str, bar: &Bar) -> String {
    alloc::format!("{function}.bar{}", bar.number)
}

#[cfg(test)]
mod tests {
    use super::super::config::{COMMAND, Registers};
    use super::super::model::Model;
    use super::{Bar, bases, enable, memory_bases, probe};

    /// A 32-bit range, ports, a 64-bit range, nothing.
    fn device() -> Model {
        Model::endpoint(0x1af4, 0x1042)
            .base(0, 0xfebd_0000, 0xffff_f000)
            .base(1, 0xc001, 0xffc0)
            .base(2, 0x4000_000c, 0xffff_c000)
            .base(3, 0x38, 0xffff_ffff)
    }

    #[test]
    fn sizes_are_found_and_everything_is_as_it_was_but_for_what_the_function_answers_to() {
        let device = device();
        device.write(COMMAND, 7);
        let before = bases(&device);
        let found = probe(&device, &before);
        let wanted = [
            Bar { number: 0, address: 0xfebd_0000, size: 0x1000 },
            Bar { number: 2, address: 0x38_4000_0000, size: 0x4000 },
        ];
        assert_eq!(found, wanted);
        assert_eq!(bases(&device), before);
        assert_eq!(device.command(), 0);
        assert!(!device.was_moved_while_it_answered());
    }

    #[test]
    fn ranges_of_more_than_4_gib_are_sized() {
        let device = Model::endpoint(1, 1).base(0, 0xc, 0).base(1, 0x100, 0xffff_fff0);
        let found = probe(&device, &bases(&device));
        assert_eq!(found, [Bar { number: 0, address: 0x100_0000_0000, size: 0x10_0000_0000 }]);
    }

    #[test]
    fn a_range_without_an_address_a_broken_size_and_an_upper_half_past_the_end_are_passed_over() {
        let device = Model::endpoint(1, 1)
            .base(0, 0, 0xffff_f000)
            .base(1, 0x1000, 0xff0f_f000)
            .base(2, 0x1000, 0xffff_c000)
            .base(5, 0x8000_0004, 0xffff_f000);
        assert_eq!(memory_bases(&bases(&device)).len(), 3);
        assert_eq!(probe(&device, &bases(&device)), [Bar { number: 5, address: 0x8000_0000, size: 0x1000 }]);
    }

    #[test]
    fn a_function_is_handed_out_where_firmware_put_it_whatever_the_last_domain_did() {
        let device = device();
        let firmware = bases(&device);
        device.write(0x10, 0x1000);
        device.write(0x18, 0);
        device.set_command(7 | 1 << 10);
        enable(&device, &firmware);
        assert_eq!(bases(&device), firmware);
        assert_eq!(device.command(), 2 | 1 << 10);
    }
}
