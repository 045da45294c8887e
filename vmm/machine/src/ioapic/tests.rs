//! The I/O APIC as a kernel programs it, and against a model of one pin.

use proptest::prelude::*;

use super::*;

const MASKED: u64 = 1 << 16;
const LEVEL: u64 = 1 << 15;
const REMOTE_IRR: u64 = 1 << 14;
const LOGICAL: u64 = 1 << 11;

fn read(ioapic: &mut IoApic, register: u8) -> u32 {
    ioapic.write(0, &[register]);
    let mut data = [0; 4];
    ioapic.read(0x10, &mut data);
    u32::from_le_bytes(data)
}

fn write(ioapic: &mut IoApic, register: u8, value: u32) {
    ioapic.write(0, &u32::from(register).to_le_bytes());
    ioapic.write(0x10, &value.to_le_bytes());
}

fn program(ioapic: &mut IoApic, pin: u8, entry: u64) {
    write(ioapic, 0x11 + 2 * pin, (entry >> 32) as u32);
    write(ioapic, 0x10 + 2 * pin, entry as u32);
}

fn entry(ioapic: &mut IoApic, pin: u8) -> u64 {
    u64::from(read(ioapic, 0x11 + 2 * pin)) << 32 | u64::from(read(ioapic, 0x10 + 2 * pin))
}

/// Pin 5 is programmed so.
fn programmed(entry: u64) -> IoApic {
    let mut ioapic = IoApic::new(2);
    program(&mut ioapic, 5, entry);
    ioapic
}

fn messages(ioapic: &mut IoApic) -> Vec<Message> {
    core::iter::from_fn(|| ioapic.take_message()).collect()
}

#[test]
fn it_tells_version_and_number_of_pins() {
    assert_eq!(read(&mut IoApic::new(2), 1), 0x0017_0020);
}

#[test]
fn its_id_is_given_and_can_be_changed() {
    let mut ioapic = IoApic::new(33);
    assert_eq!(read(&mut ioapic, 0), 33 << 24);
    write(&mut ioapic, 0, 7 << 24);
    assert_eq!(read(&mut ioapic, 0), 7 << 24);
}

#[test]
fn all_pins_are_masked_after_reset() {
    let mut ioapic = IoApic::new(0);
    assert!((0..PINS).all(|pin| entry(&mut ioapic, pin) == MASKED));
}

#[test]
fn an_entry_keeps_what_exists_but_for_the_read_only_bits() {
    assert_eq!(entry(&mut programmed(u64::MAX), 5), 0xff00_0000_0001_afff);
}

#[test]
fn registers_that_do_not_exist_are_zero_and_cannot_be_written() {
    let mut ioapic = IoApic::new(2);
    for register in [3, 0x0f, 0x40, 0xff] {
        write(&mut ioapic, register, u32::MAX);
        assert_eq!(read(&mut ioapic, register), 0);
    }
    assert_eq!(ioapic.take_message(), None);
}

#[test]
fn a_message_has_what_the_entry_says() {
    let cases = [
        (0x0300_0000_0000_0031, 0xfee0_3000, 0x4031),
        (0xff00_0000_0000_0031 | LOGICAL, 0xfeef_f004, 0x4031),
        (0x0100_0000_0000_0041 | 0x100, 0xfee0_1008, 0x4141),
        (0x0100_0000_0000_0041 | LEVEL, 0xfee0_1000, 0xc041),
        (0x400, 0xfee0_0000, 0x4400),
        (0x400 | LEVEL, 0xfee0_0000, 0x4400),
        (0x500, 0xfee0_0000, 0x4500),
    ];
    for (entry, address, data) in cases {
        let mut ioapic = programmed(entry);
        ioapic.set_line(5, true);
        assert_eq!(messages(&mut ioapic), [Message { address, data }], "{entry:#x}");
    }
}

#[test]
fn reserved_delivery_modes_and_that_of_the_8259_send_nothing() {
    for mode in [0x300, 0x600, 0x700] {
        for trigger in [0, LEVEL] {
            let mut ioapic = programmed(0x31 | mode | trigger);
            ioapic.set_line(5, true);
            assert_eq!(messages(&mut ioapic), []);
        }
    }
}

#[test]
fn an_edge_sends_one_message_for_each_rise() {
    let mut ioapic = programmed(0x31);
    for _ in 0..3 {
        ioapic.set_line(5, true);
        ioapic.set_line(5, true);
        assert_eq!(messages(&mut ioapic).len(), 1);
        ioapic.set_line(5, false);
        assert_eq!(messages(&mut ioapic), []);
    }
}

#[test]
fn an_edge_on_a_masked_pin_is_lost() {
    let mut ioapic = programmed(0x31 | MASKED);
    ioapic.set_line(5, true);
    program(&mut ioapic, 5, 0x31);
    assert_eq!(messages(&mut ioapic), []);
}

#[test]
fn a_level_is_sent_once_until_its_eoi_and_again_if_it_is_still_asserted() {
    let mut ioapic = programmed(0x31 | LEVEL);
    ioapic.set_line(5, true);
    assert_eq!(messages(&mut ioapic).len(), 1);
    assert_eq!(entry(&mut ioapic, 5) & REMOTE_IRR, REMOTE_IRR);
    assert_eq!(messages(&mut ioapic), []);
    ioapic.end_of_interrupt(0x31);
    assert_eq!(messages(&mut ioapic).len(), 1);
    ioapic.set_line(5, false);
    ioapic.end_of_interrupt(0x31);
    assert_eq!(messages(&mut ioapic), []);
    assert_eq!(entry(&mut ioapic, 5) & REMOTE_IRR, 0);
}

#[test]
fn a_level_that_fell_and_rose_before_its_eoi_is_sent_after_it() {
    let mut ioapic = programmed(0x31 | LEVEL);
    ioapic.set_line(5, true);
    messages(&mut ioapic);
    ioapic.set_line(5, false);
    ioapic.set_line(5, true);
    assert_eq!(messages(&mut ioapic), []);
    ioapic.end_of_interrupt(0x31);
    assert_eq!(messages(&mut ioapic).len(), 1);
}

#[test]
fn an_eoi_of_another_vector_changes_nothing() {
    let mut ioapic = programmed(0x31 | LEVEL);
    ioapic.set_line(5, true);
    messages(&mut ioapic);
    ioapic.end_of_interrupt(0x32);
    assert_eq!(messages(&mut ioapic), []);
}

#[test]
fn the_eoi_register_ends_an_interrupt_by_its_vector() {
    let mut ioapic = programmed(0x31 | LEVEL);
    ioapic.set_line(5, true);
    messages(&mut ioapic);
    ioapic.write(0x40, &0x31u32.to_le_bytes());
    assert_eq!(messages(&mut ioapic).len(), 1);
}

#[test]
fn one_eoi_ends_all_levels_of_that_vector() {
    let mut ioapic = programmed(0x31 | LEVEL);
    program(&mut ioapic, 6, 0x31 | LEVEL);
    ioapic.set_line(5, true);
    ioapic.set_line(6, true);
    assert_eq!(messages(&mut ioapic).len(), 2);
    ioapic.end_of_interrupt(0x31);
    assert_eq!(messages(&mut ioapic).len(), 2);
}

#[test]
fn a_masked_level_is_sent_when_it_is_unmasked() {
    let mut ioapic = programmed(0x31 | LEVEL | MASKED);
    ioapic.set_line(5, true);
    assert_eq!(messages(&mut ioapic), []);
    program(&mut ioapic, 5, 0x31 | LEVEL);
    assert_eq!(messages(&mut ioapic).len(), 1);
}

#[test]
fn a_level_that_awaits_its_eoi_is_not_sent_again_by_masking_and_unmasking() {
    let mut ioapic = programmed(0x31 | LEVEL);
    ioapic.set_line(5, true);
    messages(&mut ioapic);
    program(&mut ioapic, 5, 0x31 | LEVEL | MASKED);
    program(&mut ioapic, 5, 0x31 | LEVEL);
    assert_eq!(messages(&mut ioapic), []);
}

#[test]
fn making_a_pin_edge_triggered_and_level_triggered_again_ends_its_interrupt() {
    // How Linux ends an interrupt of an I/O APIC without an EOI register.
    let mut ioapic = programmed(0x31 | LEVEL);
    ioapic.set_line(5, true);
    messages(&mut ioapic);
    program(&mut ioapic, 5, 0x31 | MASKED);
    program(&mut ioapic, 5, 0x31 | LEVEL);
    assert_eq!(messages(&mut ioapic).len(), 1);
}

#[test]
fn pins_that_do_not_exist_do_nothing() {
    let mut ioapic = IoApic::new(0);
    for pin in [24, 31, 32, 255] {
        ioapic.set_line(pin, true);
    }
    assert_eq!(messages(&mut ioapic), []);
}

#[test]
fn accesses_of_any_place_and_size_are_harmless() {
    let mut ioapic = programmed(0x31);
    for offset in [0, 1, 3, 0x0f, 0x10, 0x11, 0x12, 0x20, 0x3e, 0x40, 0xfff] {
        for size in 0..=8 {
            ioapic.write(offset, &[0xff; 8][..size]);
            ioapic.read(offset, &mut [0; 8][..size]);
        }
    }
}

#[test]
fn part_of_a_register_can_be_read() {
    let mut ioapic = IoApic::new(0);
    ioapic.write(0, &[1]);
    let mut byte = [0];
    ioapic.read(0x12, &mut byte);
    assert_eq!(byte, [0x17]);
}

/// What a pin is, told in the words of the data sheet.
#[derive(Default)]
struct Pin {
    entry: u64,
    is_asserted: bool,
    has_edge: bool,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Line(bool),
    Program { vector: u8, is_level: bool, is_masked: bool },
    Eoi(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let vector = 0x30u8..0x33;
    prop_oneof![
        any::<bool>().prop_map(Step::Line),
        (vector.clone(), any::<bool>(), any::<bool>()).prop_map(|(vector, is_level, is_masked)| Step::Program {
            vector,
            is_level,
            is_masked
        }),
        vector.prop_map(Step::Eoi),
    ]
}

impl Pin {
    fn is(&self, bit: u64) -> bool {
        self.entry & bit != 0
    }

    /// Messages that the step causes: none or one.
    fn step(&mut self, step: Step) -> usize {
        match step {
            Step::Line(level) => {
                self.has_edge |= level && !self.is_asserted && !self.is(LEVEL) && !self.is(MASKED);
                self.is_asserted = level;
            }
            Step::Program { vector, is_level, is_masked } => {
                let awaits_eoi = self.is(REMOTE_IRR) && is_level;
                self.entry = u64::from(vector)
                    | if is_level { LEVEL } else { 0 }
                    | if is_masked { MASKED } else { 0 }
                    | if awaits_eoi { REMOTE_IRR } else { 0 };
            }
            Step::Eoi(vector) if self.entry as u8 == vector => self.entry &= !REMOTE_IRR,
            Step::Eoi(_) => {}
        }
        let sends_level = self.is(LEVEL) && self.is_asserted && !self.is(REMOTE_IRR);
        let sends = !self.is(MASKED) && if self.is(LEVEL) { sends_level } else { self.has_edge };
        if sends && self.is(LEVEL) {
            self.entry |= REMOTE_IRR;
        }
        self.has_edge = false;
        usize::from(sends)
    }
}

proptest! {
    #[test]
    fn a_pin_does_what_the_data_sheet_says(steps in proptest::collection::vec(step(), 0..100)) {
        let mut ioapic = programmed(0x30);
        let mut pin = Pin { entry: 0x30, ..Pin::default() };
        for step in steps {
            match step {
                Step::Line(level) => ioapic.set_line(5, level),
                Step::Program { vector, is_level, is_masked } => {
                    let entry = u64::from(vector) | if is_level { LEVEL } else { 0 } | if is_masked { MASKED } else { 0 };
                    write(&mut ioapic, 0x1a, entry as u32);
                }
                Step::Eoi(vector) => ioapic.end_of_interrupt(vector),
            }
            prop_assert_eq!(messages(&mut ioapic).len(), pin.step(step));
            prop_assert_eq!(entry(&mut ioapic, 5), pin.entry);
        }
    }
}
