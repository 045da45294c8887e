//! Message-signalled interrupts: how a device wakes whoever waits for it (PCI 3.0 6.8.2; virtio 1.2 4.1.5.1.2).

use dragonfly_rt::abi::Status;
use dragonfly_rt::sys::{Interrupt, InterruptMessage, Notification, Owned, System};
use log::warn;

use crate::pci::{Function, Window};
use crate::transport::OnBus;

/// What a device's interrupt does: it sets these bits of a notification, and is taken by that CPU.
#[derive(Clone, Copy, Debug)]
pub struct Wake {
    /// Who waits for the device waits for this.
    pub notification: Notification,
    /// What is set in it, at least one.
    pub bits: u64,
    /// Best the one of who waits.
    pub cpu: u32,
}

/// Lets a queue that is not set up yet interrupt. Without, the device is used all the same, and the log says so.
pub(crate) fn set_interrupt<T: OnBus>(
    name: &str,
    transport: &mut T,
    queue: u16,
    wake: Wake,
) -> Option<Owned<Interrupt>> {
    let mut bind = || {
        let interrupt = System::OWN.message_interrupt()?;
        let message = interrupt.bind_message(wake.notification, wake.bits, wake.cpu)?;
        if transport.set_message(queue, message) { Ok(interrupt) } else { Err(Status::NotSupported) }
    };
    bind().inspect_err(|status| warn!("{name} is polled, as it cannot interrupt: {status}")).ok()
}

/// The capability MSI-X.
const CAPABILITY: u8 = 0x11;

/// Where it has what: message control (bits 10:0: entries of the table, less 1; 14: none interrupts; 15: it is in use), and
/// the table's BAR (bits 2:0) and offset in it.
const CONTROL: u64 = 2;
const CONTROL_SIZE: u16 = 0x7ff;
const CONTROL_MASKED: u16 = 1 << 14;
const CONTROL_ENABLED: u16 = 1 << 15;
const TABLE: u64 = 4;
const TABLE_BAR: u32 = 7;

/// An entry: address, data, and a word whose lowest bit keeps it from interrupting.
const ENTRY_BYTES: u64 = 16;
const ENTRY_DATA: u64 = 8;
const ENTRY_CONTROL: u64 = 12;
const ENTRY_MASKED: u32 = 1;

/// A function's table of messages.
#[derive(Debug)]
pub(crate) struct MessageTable {
    table: Window,
    entries: u16,
    control: u64,
}

impl MessageTable {
    /// The table, if the function has one.
    pub(crate) fn find(function: &Function) -> Option<Self> {
        let place = function.capabilities(CAPABILITY).next()?;
        let entries = (function.config().read_u16(place + CONTROL) & CONTROL_SIZE) + 1;
        let table = function.config().read_u32(place + TABLE);
        let table = function.window((table & TABLE_BAR) as u8, table & !TABLE_BAR, u32::from(entries) * 16)?;
        Some(Self { table, entries, control: place + CONTROL })
    }

    /// Lets an entry interrupt with a message. `false` if there is no such entry.
    pub(crate) fn set(&self, function: &Function, entry: u16, message: InterruptMessage) -> bool {
        if entry >= self.entries {
            return false;
        }
        let place = u64::from(entry) * ENTRY_BYTES;
        // An entry changes only while it is masked.
        self.table.write_u32(place + ENTRY_CONTROL, ENTRY_MASKED);
        self.table.write_u64(place, message.address);
        self.table.write_u32(place + ENTRY_DATA, message.data);
        self.table.write_u32(place + ENTRY_CONTROL, 0);
        let control = function.config().read_u16(self.control);
        function.config().write_u16(self.control, (control | CONTROL_ENABLED) & !CONTROL_MASKED);
        true
    }
}
