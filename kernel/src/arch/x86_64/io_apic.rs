//! The I/O APICs: interrupt lines of devices.
#![expect(unsafe_code, reason = "the I/O APICs are reached through device memory")]

use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use dragonfly_hw::x86::ioapic::{IOAPICVER, IOREGSEL, IOWIN, RedirectionEntry, input_count, ioredtbl};

use crate::arch::Trigger;

/// I/O APICs that the kernel uses.
const MAX: usize = 16;

/// One I/O APIC: its registers and the lines at its inputs.
struct IoApic {
    registers: AtomicPtr<u32>,
    first_line: AtomicU32,
    inputs: AtomicU32,
}

static IO_APICS: [IoApic; MAX] = [const {
    IoApic {
        registers: AtomicPtr::new(core::ptr::null_mut()),
        first_line: AtomicU32::new(0),
        inputs: AtomicU32::new(0),
    }
}; MAX];
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Takes an I/O APIC into use, with all inputs masked, and gives the number of its inputs.
///
/// # Safety
/// `registers` is the uncached mapping of an I/O APIC's registers and stays so. Called on one CPU at boot.
pub unsafe fn add(registers: *mut u32, first_line: u32) -> u32 {
    let index = COUNT.load(Ordering::Acquire);
    let Some(io_apic) = IO_APICS.get(index) else { return 0 };
    io_apic.registers.store(registers, Ordering::Release);
    io_apic.first_line.store(first_line, Ordering::Release);
    let inputs = input_count(io_apic.read(IOAPICVER));
    io_apic.inputs.store(inputs, Ordering::Release);
    for input in 0..inputs {
        io_apic.write_entry(input, RedirectionEntry::OFF);
    }
    COUNT.store(index + 1, Ordering::Release);
    inputs
}

/// Highest line number, plus one.
pub fn line_count() -> u32 {
    let end = |io_apic: &IoApic| {
        io_apic.first_line.load(Ordering::Relaxed).saturating_add(io_apic.inputs.load(Ordering::Relaxed))
    };
    IO_APICS.iter().take(COUNT.load(Ordering::Acquire)).map(end).max().unwrap_or(0)
}

/// Sends a line to a CPU as a vector, not masked. False if no I/O APIC has the line.
pub fn route(line: u32, vector: u8, apic_id: u8, trigger: Trigger) -> bool {
    let Some((io_apic, input)) = find(line) else { return false };
    let mut entry = RedirectionEntry::fixed(vector, apic_id);
    if trigger.is_level {
        entry = entry.level_triggered();
    }
    if trigger.is_active_low {
        entry = entry.active_low();
    }
    io_apic.write_entry(input, entry.unmasked());
    true
}

/// Masks a line or lets it come.
pub fn set_masked(line: u32, is_masked: bool) {
    let Some((io_apic, input)) = find(line) else { return };
    let entry = RedirectionEntry(u64::from(io_apic.read(ioredtbl(input as u8))));
    let entry = if is_masked { entry.masked() } else { entry.unmasked() };
    io_apic.write(ioredtbl(input as u8), entry.low());
}

fn find(line: u32) -> Option<(&'static IoApic, u32)> {
    IO_APICS.iter().take(COUNT.load(Ordering::Acquire)).find_map(|io_apic| {
        let input = line.checked_sub(io_apic.first_line.load(Ordering::Relaxed))?;
        (input < io_apic.inputs.load(Ordering::Relaxed)).then_some((io_apic, input))
    })
}

impl IoApic {
    fn read(&self, register: u32) -> u32 {
        let registers = self.registers.load(Ordering::Relaxed);
        // SAFETY: `add` got the mapping; select and window are its two registers. Accesses are serialised by the
        // routing lock, or by boot being on one CPU.
        unsafe {
            registers.byte_add(IOREGSEL as usize).write_volatile(register);
            registers.byte_add(IOWIN as usize).read_volatile()
        }
    }

    fn write(&self, register: u32, value: u32) {
        let registers = self.registers.load(Ordering::Relaxed);
        // SAFETY: As in `read`.
        unsafe {
            registers.byte_add(IOREGSEL as usize).write_volatile(register);
            registers.byte_add(IOWIN as usize).write_volatile(value);
        }
    }

    fn write_entry(&self, input: u32, entry: RedirectionEntry) {
        let register = ioredtbl(input as u8);
        // Masked while the halves do not belong together.
        self.write(register, entry.masked().low());
        self.write(register + 1, entry.high());
        self.write(register, entry.low());
    }
}
