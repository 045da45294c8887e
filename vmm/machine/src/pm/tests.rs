//! The registers.

use super::*;

const SECOND: u64 = 1_000_000_000;
/// When the timer's top bit changes for the first time: about 600 seconds.
const FIRST_CHANGE_NS: u64 = 599_932_015_941;

fn write(pm: &mut Pm, offset: u16, value: u16) -> bool {
    let [low, high] = value.to_le_bytes();
    let first = pm.write(offset, low, 0);
    pm.write(offset + 1, high, 0) || first
}

#[test]
fn the_timer_counts_at_its_frequency() {
    let pm = Pm::new();
    for (now_ns, ticks) in [(0, 0), (SECOND, 3_579_545), (10 * SECOND, 35_795_450), (280, 1), (279, 0)] {
        assert_eq!(pm.read(TIMER_OFFSET, now_ns), ticks, "{now_ns}");
    }
}

#[test]
fn the_timer_wraps_at_32_bits() {
    assert_eq!(Pm::new().read(TIMER_OFFSET, 1200 * SECOND), (1200 * 3_579_545u64 - (1 << 32)) as u32);
}

#[test]
fn parts_of_registers_can_be_read() {
    let mut pm = Pm::new();
    assert_eq!(pm.read(TIMER_OFFSET + 2, SECOND), 3_579_545 >> 16);
    write(&mut pm, 2, 0x0120);
    assert_eq!((pm.read(0, 0), pm.read(2, 0), pm.read(3, 0)), (0x0120_0000, 0x0120, 0x01));
}

#[test]
fn the_platform_is_always_in_acpi_mode() {
    let mut pm = Pm::new();
    write(&mut pm, CONTROL_OFFSET, 0);
    assert_eq!(pm.read(CONTROL_OFFSET, 0) & 1, 1);
}

#[test]
fn all_events_that_a_kernel_may_enable_read_back() {
    let mut pm = Pm::new();
    write(&mut pm, 2, 0xffff);
    assert_eq!(pm.read(2, 0), 0x0721);
}

#[test]
fn soft_off_needs_its_sleep_type_and_the_enable_bit() {
    for (value, is_off) in [(0x3400, true), (0x3401, true), (0x1400, false), (0x2000, false), (0x3800, false)] {
        assert_eq!(write(&mut Pm::new(), CONTROL_OFFSET, value), is_off, "{value:#x}");
    }
}

#[test]
fn the_sleep_type_reads_back_and_the_enable_bit_does_not() {
    let mut pm = Pm::new();
    write(&mut pm, CONTROL_OFFSET, 0x2800);
    assert_eq!(pm.read(CONTROL_OFFSET, 0), 0x0801);
}

#[test]
fn the_power_button_interrupts_if_enabled_until_its_status_is_cleared() {
    let mut pm = Pm::new();
    pm.press_power_button();
    assert!(!pm.interrupt(0));
    write(&mut pm, 2, 0x0100);
    assert!(pm.interrupt(0));
    assert_eq!(pm.read(0, 0) & 0xffff, 0x0100);
    write(&mut pm, 0, 0x0100);
    assert!(!pm.interrupt(0));
    assert_eq!(pm.read(0, 0) & 0xffff, 0);
}

#[test]
fn writing_zeros_clears_no_status() {
    let mut pm = Pm::new();
    pm.press_power_button();
    write(&mut pm, 0, 0);
    assert_eq!(pm.read(0, 0) & 0xffff, 0x0100);
}

#[test]
fn a_change_of_the_timers_top_bit_is_an_event_that_is_told_in_advance() {
    let mut pm = Pm::new();
    assert_eq!(pm.deadline_ns(0), None);
    write(&mut pm, 2, 0x0001);
    assert_eq!(pm.deadline_ns(0), Some(FIRST_CHANGE_NS));
    assert!(!pm.interrupt(FIRST_CHANGE_NS - 1));
    assert!(pm.interrupt(FIRST_CHANGE_NS));
    assert_eq!(pm.deadline_ns(FIRST_CHANGE_NS), None);
    assert!(!pm.write(0, 1, FIRST_CHANGE_NS));
    assert!(!pm.interrupt(FIRST_CHANGE_NS));
    assert!(pm.deadline_ns(FIRST_CHANGE_NS).is_some_and(|next| next > FIRST_CHANGE_NS));
}

#[test]
fn the_end_of_time_is_harmless() {
    let mut pm = Pm::new();
    write(&mut pm, 2, 0x0001);
    assert!(!pm.write(0, 1, u64::MAX));
    assert_eq!(pm.read(TIMER_OFFSET, u64::MAX), (u128::from(u64::MAX) * 3_579_545 / 1_000_000_000) as u32);
    assert_eq!(pm.deadline_ns(u64::MAX), None);
}
