//! Walks the buses: the first one, then those behind the bridges found.

use alloc::vec::Vec;
use core::ops::RangeInclusive;

use dragonfly_abi::{PAGE_SIZE, Rights, Status};
use dragonfly_rt::Mapping;
use dragonfly_rt::sys::{Memory, Owned, PciSegment, System};

use super::config::{Header, Page, Registers};
use super::function::{Function, Place, bases, memory_bases};

/// Configuration space of a bus: 32 devices of 8 functions, a page each.
const BUS_SIZE: u64 = 1 << 20;
/// Bytes of a device's functions.
const DEVICE_SIZE: u64 = 8 * PAGE_SIZE;
/// Base address registers of a bridge.
const BRIDGE_BASES: usize = 2;

/// What a walk finds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// Endpoints: where, and vendor and device.
    endpoints: Vec<(Place, (u16, u16))>,
    /// Addresses of registers in memory, and whose they are.
    registers: Vec<(u64, Place)>,
    /// Buses behind bridges.
    buses: Vec<u8>,
}

/// The endpoints of the machine's segment group 0, in the order of their places.
pub(crate) fn machine() -> Result<Vec<Function>, Status> {
    let Some(segment) = first_segment()? else { return Ok(Vec::new()) };
    let start_of = |bus: u8| segment.address + u64::from(bus) * BUS_SIZE;
    let found = walk(segment.first_bus..=segment.last_bus, |bus, found| {
        let mapping = Mapped::new(start_of(bus), BUS_SIZE)?;
        look(bus, |offset| Page { mapping: &mapping.mapping, start: offset }, found);
        Ok(())
    })?;
    let function = |(place, id): (Place, (u16, u16))| {
        let offset = u64::from(place.device) * DEVICE_SIZE + u64::from(place.function) * PAGE_SIZE;
        let page = start_of(place.bus) + offset;
        let Mapped { mapping, .. } = Mapped::new(page, PAGE_SIZE)?;
        let bases = bases(&Page { mapping: &mapping, start: 0 });
        let neighbours = found.registers.iter().copied().filter(|(_, other)| *other != place).collect();
        Ok(Function { place, id, page, mapping, bases, neighbours })
    };
    let mut functions = found.endpoints.iter().copied().map(function).collect::<Result<Vec<_>, Status>>()?;
    functions.sort_by_key(|function| function.place);
    Ok(functions)
}

/// The first range of buses in group 0.
fn first_segment() -> Result<Option<PciSegment>, Status> {
    for index in 0.. {
        match System::OWN.pci_segment(index)? {
            Some(segment) if segment.group == 0 => return Ok(Some(segment)),
            Some(_) => {}
            None => break,
        }
    }
    Ok(None)
}

/// Registers in the supervisor's memory.
struct Mapped {
    mapping: Mapping,
    _memory: Owned<Memory>,
}

impl Mapped {
    fn new(address: u64, size: u64) -> Result<Self, Status> {
        let memory = System::OWN.device_memory(address, size)?;
        let mapping = Mapping::new(*memory, 0, size, Rights::READ | Rights::WRITE)?;
        Ok(Self { mapping, _memory: memory })
    }
}

/// Looks at the first bus and at each that is behind a bridge, once, whatever numbers the bridges hold.
fn walk(
    buses: RangeInclusive<u8>,
    mut look: impl FnMut(u8, &mut Found) -> Result<(), Status>,
) -> Result<Found, Status> {
    let mut found = Found::default();
    let mut seen = alloc::vec![*buses.start()];
    let mut next = 0;
    while let Some(bus) = seen.get(next).copied() {
        next += 1;
        look(bus, &mut found)?;
        for behind in found.buses.drain(..) {
            if buses.contains(&behind) && !seen.contains(&behind) {
                seen.push(behind);
            }
        }
    }
    Ok(found)
}

/// Looks at all functions of a bus.
fn look<R: Registers>(bus: u8, registers_at: impl Fn(u64) -> R, found: &mut Found) {
    for device in 0..32_u8 {
        let start = u64::from(device) * DEVICE_SIZE;
        let first = registers_at(start);
        if first.id().is_none() {
            continue;
        }
        let count = if first.has_several_functions() { 8 } else { 1 };
        for function in 0..count {
            let registers = registers_at(start + u64::from(function) * PAGE_SIZE);
            let Some(id) = registers.id() else { continue };
            let place = Place { bus, device, function };
            let bases = bases(&registers);
            let bases = match registers.header() {
                Header::Endpoint => {
                    found.endpoints.push((place, id));
                    &bases[..]
                }
                Header::Bridge(behind) => {
                    found.buses.push(behind);
                    &bases[..BRIDGE_BASES]
                }
                Header::Other => &[],
            };
            found.registers.extend(memory_bases(bases).into_iter().map(|(.., address)| (address, place)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::function::Place;
    use super::super::model::Model;
    use super::{DEVICE_SIZE, Found, look, walk};

    fn place(bus: u8, device: u8, function: u8) -> Place {
        Place { bus, device, function }
    }

    /// Walks a machine of these functions.
    fn search(functions: &[(Place, Model)], last_bus: u8) -> Found {
        let at = |place: Place| (place.bus, u64::from(place.device) * DEVICE_SIZE + u64::from(place.function) * 4096);
        let functions: BTreeMap<_, _> = functions.iter().map(|(place, model)| (at(*place), model.clone())).collect();
        let found = walk(0..=last_bus, |bus, found| {
            look(bus, |offset| functions.get(&(bus, offset)).cloned().unwrap_or_else(Model::nothing), found);
            Ok(())
        });
        found.unwrap()
    }

    #[test]
    fn functions_are_found_on_the_first_bus_and_behind_bridges() {
        let found = search(
            &[
                (place(0, 0, 0), Model::endpoint(0x8086, 1)),
                (place(0, 3, 0), Model::bridge(2)),
                (place(0, 31, 0), Model::endpoint(0x8086, 2).with_more_functions()),
                (place(0, 31, 7), Model::endpoint(0x8086, 3).base(5, 0xfebd_1000, 0xffff_f000)),
                (place(2, 0, 0), Model::bridge(3)),
                (place(3, 1, 0), Model::endpoint(0x1af4, 4)),
            ],
            255,
        );
        let places: Vec<_> = found.endpoints.iter().map(|(place, id)| (*place, id.1)).collect();
        assert_eq!(places, [(place(0, 0, 0), 1), (place(0, 31, 0), 2), (place(0, 31, 7), 3), (place(3, 1, 0), 4)]);
        assert_eq!(found.registers, [(0xfebd_1000, place(0, 31, 7))]);
    }

    #[test]
    fn further_functions_are_looked_for_only_where_the_first_says_that_there_are_some() {
        let found = search(&[(place(0, 1, 0), Model::endpoint(1, 1)), (place(0, 1, 1), Model::endpoint(1, 2))], 255);
        assert_eq!(found.endpoints.len(), 1);
        assert_eq!(search(&[(place(0, 1, 1), Model::endpoint(1, 2))], 255).endpoints, []);
    }

    #[test]
    fn bridges_that_lead_in_circles_or_out_of_the_segment_are_not_followed() {
        let found = search(
            &[
                (place(0, 1, 0), Model::bridge(1)),
                (place(0, 2, 0), Model::bridge(0)),
                (place(0, 3, 0), Model::bridge(9)),
                (place(1, 0, 0), Model::bridge(1)),
                (place(1, 1, 0), Model::endpoint(1, 1)),
                (place(9, 0, 0), Model::endpoint(1, 1)),
            ],
            8,
        );
        assert_eq!(found.endpoints, [(place(1, 1, 0), (1, 1))]);
    }
}
