//! ACPI tables, found from their root.

use super::cpu::peek;
use super::{Check, ensure, rsdp_address};

/// A table.
#[derive(Clone, Copy, Debug)]
pub struct Table(u64);

impl Table {
    /// Its name.
    pub fn signature(self) -> [u8; 4] {
        peek(self.0)
    }

    /// Its length in bytes.
    pub fn length(self) -> u64 {
        peek::<u32>(self.0 + 4).into()
    }

    /// A field.
    pub fn field<T: Copy>(self, offset: u64) -> T {
        peek(self.0 + offset)
    }

    /// The sum of all its bytes, which is to be 0.
    pub fn sum(self) -> u8 {
        sum(self.0, self.length())
    }
}

fn sum(address: u64, length: u64) -> u8 {
    (0..length).fold(0, |sum, offset| sum.wrapping_add(peek(address + offset)))
}

/// Whether the root pointer and the table of tables are what they should be.
///
/// # Errors
/// They are not.
pub fn check_root() -> Check {
    let root = rsdp_address();
    ensure("signature of the root pointer", peek::<[u8; 8]>(root) == *b"RSD PTR ")?;
    ensure("checksum of the root pointer's first part", sum(root, 20) == 0)?;
    if peek::<u8>(root + 15) < 2 {
        return Ok(());
    }
    ensure("checksum of the root pointer", sum(root, peek::<u32>(root + 20).into()) == 0)
}

/// All tables that the table of tables names; itself first.
pub fn tables() -> impl Iterator<Item = Table> {
    let root = rsdp_address();
    let is_extended = peek::<u8>(root + 15) >= 2;
    let list = Table(if is_extended { peek(root + 24) } else { peek::<u32>(root + 16).into() });
    let size = if is_extended { 8 } else { 4 };
    let count = list.length().saturating_sub(36) / size;
    let entries = (0..count).map(move |index| {
        let entry = 36 + index * size;
        Table(if is_extended { list.field(entry) } else { list.field::<u32>(entry).into() })
    });
    core::iter::once(list).chain(entries)
}

/// The table of that name.
pub fn find(signature: &[u8; 4]) -> Option<Table> {
    tables().find(|table| table.signature() == *signature)
}

/// The table at an address.
pub const fn at(address: u64) -> Table {
    Table(address)
}

/// Local APICs that are enabled in the MADT.
pub fn local_apics() -> usize {
    let Some(madt) = find(b"APIC") else { return 1 };
    let mut offset = 44;
    let mut count = 0;
    while offset + 2 <= madt.length() {
        let (kind, length): (u8, u8) = (madt.field(offset), madt.field(offset + 1));
        let flags: u32 = match kind {
            0 => madt.field(offset + 4),
            9 => madt.field(offset + 8),
            _ => 0,
        };
        count += usize::from(flags & 1 != 0);
        offset += u64::from(length.max(2));
    }
    count
}
