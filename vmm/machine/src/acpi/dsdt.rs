//! Differentiated System Description Table (ACPI 6.5, 5.2.11.1): devices that cannot be found by trying.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use acpi_tables::aml::AddressSpaceCacheable::NotCacheable;
use acpi_tables::aml::{
    AddressSpace, And, Arg, CreateDWordField, Device, EISAName, Else, Equal, IO, If, Interrupt, Memory32Fixed, Method,
    Name, Or, Package, Path, ResourceTemplate, Return, Scope, Uuid,
};
use acpi_tables::sdt::Sdt;
use acpi_tables::{Aml, AmlSink};

use super::header;
use crate::platform::{
    COM1_PIN, COM1_PORTS, ECAM, PCI_ADDRESS_PORTS, PCI_DATA_PORTS, PCI_IO_WINDOW, PCI_WINDOW, PM_PORTS, RTC_PORTS,
    pci_high_window,
};
use crate::pm::SLEEP_TYPE_S5;

/// Integers of 64 bits.
const REVISION: u8 = 2;

pub fn dsdt(memory_bytes: u64) -> Sdt {
    let mut dsdt = header(*b"DSDT", REVISION);
    let sleep_type = SLEEP_TYPE_S5;
    // The sleep types of soft off (7.4.2).
    Name::new(path("_S5_"), &Package::new(vec![&sleep_type, &sleep_type, &0u8, &0u8])).to_aml_bytes(&mut dsdt);
    let devices = [host_bridge(memory_bytes), motherboard(), serial_port(), clock()].concat();
    dsdt.append_slice(&Scope::raw(path("\\_SB_"), devices));
    dsdt.update_checksum();
    dsdt
}

fn host_bridge(memory_bytes: u64) -> Vec<u8> {
    let high = pci_high_window(memory_bytes);
    let high = AddressSpace::<u64>::new_memory(NotCacheable, true, high.start, high.end - 1, None);
    let (low_first, low_last) = (PCI_WINDOW.start as u32, (PCI_WINDOW.end - 1) as u32);
    let windows: [&dyn Aml; 5] = [
        &AddressSpace::<u16>::new_bus_number(0, 0),
        &io(&(PCI_ADDRESS_PORTS.start..PCI_DATA_PORTS.end)),
        &AddressSpace::<u16>::new_io(PCI_IO_WINDOW.start as u16, (PCI_IO_WINDOW.end - 1) as u16, None),
        &AddressSpace::<u32>::new_memory(NotCacheable, true, low_first, low_last, None),
        &high,
    ];
    let objects: [&dyn Aml; 6] = [
        &Name::new(path("_CID"), &EISAName::new("PNP0A03")),
        &Name::new(path("_SEG"), &0u8),
        &Name::new(path("_BBN"), &0u8),
        // No wired interrupts: functions send messages.
        &Name::new(path("_PRT"), &Package::new(vec![])),
        &resources(&windows),
        &Encoded(operating_system_capabilities()),
    ];
    device("PCI0", "PNP0A08", 0, &objects)
}

/// What the machine itself takes of memory and ports; kernels use the memory-mapped configuration space only if it is
/// reserved here or in the map of memory (PCI Firmware Specification 3.3, 4.1.2).
fn motherboard() -> Vec<u8> {
    let ecam = Memory32Fixed::new(true, ECAM.start as u32, (ECAM.end - ECAM.start) as u32);
    device("MBRD", "PNP0C02", 0, &[&resources(&[&ecam, &io(&PM_PORTS)])])
}

fn serial_port() -> Vec<u8> {
    let interrupt = Interrupt::new(true, true, false, false, u32::from(COM1_PIN));
    device("COM1", "PNP0501", 1, &[&resources(&[&io(&COM1_PORTS), &interrupt])])
}

fn clock() -> Vec<u8> {
    device("RTC_", "PNP0B00", 0, &[&resources(&[&io(&RTC_PORTS)])])
}

/// `_OSC` of the host bridge (PCI Firmware Specification 3.3, 4.5): the kernel may control error reporting and the PCI
/// Express capabilities; there is no firmware that would mind.
fn operating_system_capabilities() -> Vec<u8> {
    const HOST_BRIDGE: &str = "33db4d5b-1ff7-401c-9657-7441c03dd766";
    const ADVANCED_ERROR_REPORTING: u8 = 1 << 3;
    const EXPRESS_CAPABILITIES: u8 = 1 << 4;
    const UNRECOGNIZED_UUID: u8 = 1 << 2;
    // Offsets of double words in the buffer of capabilities: what came of the call, and the control field.
    const STATUS: u8 = 0;
    const CONTROL: u8 = 8;
    let granted = ADVANCED_ERROR_REPORTING | EXPRESS_CAPABILITIES;
    let (control, status) = (path("CTRL"), path("STAT"));
    encoded(&Method::new(
        path("_OSC"),
        4,
        false,
        vec![
            &If::new(
                &Equal::new(&Arg(0), &Uuid::new(HOST_BRIDGE)),
                vec![&CreateDWordField::new(&control, &Arg(3), &CONTROL), &And::new(&control, &control, &granted)],
            ),
            &Else::new(vec![
                &CreateDWordField::new(&status, &Arg(3), &STATUS),
                &Or::new(&status, &status, &UNRECOGNIZED_UUID),
            ]),
            &Return::new(&Arg(3)),
        ],
    ))
}

/// A device with its identification and `objects`.
fn device(name: &str, hardware_id: &str, unique_id: u8, objects: &[&dyn Aml]) -> Vec<u8> {
    let hardware_id = Name::new(path("_HID"), &EISAName::new(hardware_id));
    let unique_id = Name::new(path("_UID"), &unique_id);
    let mut all: Vec<&dyn Aml> = vec![&hardware_id, &unique_id];
    all.extend(objects);
    encoded(&Device::new(path(name), all))
}

/// `_CRS`: what a device takes or passes on.
fn resources(descriptors: &[&dyn Aml]) -> Name {
    Name::new(path("_CRS"), &ResourceTemplate::new(descriptors.to_vec()))
}

fn io(ports: &Range<u16>) -> IO {
    IO::new(ports.start, ports.start, 1, ports.len() as u8)
}

/// A name of four letters.
fn path(name: &str) -> Path {
    Path::new(name)
}

fn encoded(object: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    object.to_aml_bytes(&mut bytes);
    bytes
}

/// An object that is AML already.
struct Encoded(Vec<u8>);

impl Aml for Encoded {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}
