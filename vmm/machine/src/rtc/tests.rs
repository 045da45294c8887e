//! The clock as a kernel reads and sets it.

use proptest::prelude::*;

use super::*;

/// 2024-02-29 13:45:59 UTC, a Thursday.
const LEAP_DAY: u64 = 1_709_214_359;

fn read(rtc: &mut Rtc, register: u8, host_s: u64) -> u8 {
    rtc.write_index(register);
    rtc.read_data(host_s)
}

fn write(rtc: &mut Rtc, register: u8, value: u8, host_s: u64) {
    rtc.write_index(register);
    rtc.write_data(value, host_s);
}

/// Century, year, month, day, day of the week, hours, minutes, seconds.
fn time(rtc: &mut Rtc, host_s: u64) -> [u8; 8] {
    [CENTURY, YEAR, MONTH, DAY, DAY_OF_WEEK, HOURS, MINUTES, SECONDS].map(|register| read(rtc, register, host_s))
}

#[test]
fn it_shows_the_hosts_time_in_bcd_and_24_hours() {
    assert_eq!(time(&mut Rtc::new(), LEAP_DAY), [0x20, 0x24, 0x02, 0x29, 5, 0x13, 0x45, 0x59]);
}

#[test]
fn it_shows_binary_numbers_if_it_is_told_to() {
    let mut rtc = Rtc::new();
    write(&mut rtc, REGISTER_B, B_BINARY | B_24_HOURS, LEAP_DAY);
    assert_eq!(time(&mut rtc, LEAP_DAY), [20, 24, 2, 29, 5, 13, 45, 59]);
}

#[test]
fn hours_can_be_those_of_a_half_day() {
    let mut rtc = Rtc::new();
    write(&mut rtc, REGISTER_B, 0, 0);
    for (hour, shown) in [(0, 0x12), (1, 0x01), (11, 0x11), (12, 0x92), (13, 0x81), (23, 0x91)] {
        assert_eq!(read(&mut rtc, HOURS, hour * 3600), shown, "{hour}");
        write(&mut rtc, HOURS, shown, hour * 3600);
        assert_eq!(read(&mut rtc, HOURS, hour * 3600), shown, "{hour}");
    }
}

#[test]
fn it_runs() {
    let mut rtc = Rtc::new();
    assert_eq!(time(&mut rtc, LEAP_DAY + 1)[6..], [0x46, 0x00]);
}

#[test]
fn it_goes_on_from_the_time_that_it_is_set_to() {
    let mut rtc = Rtc::new();
    write(&mut rtc, REGISTER_B, B_SET | B_24_HOURS, LEAP_DAY);
    for (register, value) in
        [(SECONDS, 0x58), (MINUTES, 0x59), (HOURS, 0x23), (DAY, 0x31), (MONTH, 0x12), (YEAR, 0x99), (CENTURY, 0x19)]
    {
        write(&mut rtc, register, value, LEAP_DAY + 5);
    }
    // It stands still until the setting ends.
    assert_eq!(read(&mut rtc, SECONDS, LEAP_DAY + 100), 0x58);
    write(&mut rtc, REGISTER_B, B_24_HOURS, LEAP_DAY + 100);
    assert_eq!(time(&mut rtc, LEAP_DAY + 100), [0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x58]);
    assert_eq!(time(&mut rtc, LEAP_DAY + 102), [0x20, 0x00, 0x01, 0x01, 7, 0x00, 0x00, 0x00]);
}

#[test]
fn an_update_is_never_in_progress() {
    let mut rtc = Rtc::new();
    write(&mut rtc, REGISTER_A, 0xff, 0);
    assert_eq!(read(&mut rtc, REGISTER_A, 0), 0x7f);
}

#[test]
fn an_update_shows_once_when_the_second_has_changed() {
    let mut rtc = Rtc::new();
    read(&mut rtc, REGISTER_C, 100);
    assert_eq!(read(&mut rtc, REGISTER_C, 100), 0);
    assert_eq!(read(&mut rtc, REGISTER_C, 101), 0x10);
    assert_eq!(read(&mut rtc, REGISTER_C, 101), 0);
}

#[test]
fn memory_and_time_are_valid() {
    let mut rtc = Rtc::new();
    write(&mut rtc, REGISTER_D, 0, 0);
    assert_eq!(read(&mut rtc, REGISTER_D, 0), 0x80);
}

#[test]
fn memory_keeps_what_is_written() {
    let mut rtc = Rtc::new();
    for register in (0x0e..0x80).filter(|register| *register != CENTURY) {
        write(&mut rtc, register, register ^ 0x55, 0);
    }
    for register in (0x0e..0x80).filter(|register| *register != CENTURY) {
        assert_eq!(read(&mut rtc, register, 0), register ^ 0x55);
    }
}

#[test]
fn the_bit_that_masks_nmi_does_not_choose_another_register() {
    assert_eq!(read(&mut Rtc::new(), 0x80 | MINUTES, LEAP_DAY), 0x45);
}

#[test]
fn a_value_that_is_on_no_clock_changes_nothing() {
    let mut rtc = Rtc::new();
    for (register, value) in [(SECONDS, 0x60), (MINUTES, 0x7a), (HOURS, 0x24), (MONTH, 0x13), (MONTH, 0), (DAY, 0x32)] {
        write(&mut rtc, register, value, LEAP_DAY);
    }
    assert_eq!(time(&mut rtc, LEAP_DAY), time(&mut Rtc::new(), LEAP_DAY));
}

#[test]
fn dates_of_other_calendars_agree() {
    for (seconds, (year, month, day), day_of_week) in [
        (0, (1970, 1, 1), 5),
        (951_782_400, (2000, 2, 29), 3),
        (951_868_800, (2000, 3, 1), 4),
        (4_107_542_400, (2100, 3, 1), 2),
        (1_795_305_600, (2026, 11, 22), 1),
        (u64::MAX, (9999, 12, 31), 6),
    ] {
        let date = DateTime::from_seconds(seconds);
        assert_eq!((date.year, date.month, date.day), (year, month, day));
        assert_eq!(date.day_of_week(), day_of_week, "{seconds}");
    }
}

proptest! {
    #[test]
    fn seconds_survive_the_way_through_a_date(seconds in 0u64..=253_402_300_799) {
        let date = DateTime::from_seconds(seconds);
        prop_assert!(date.is_on_a_clock());
        prop_assert_eq!(date.seconds(), seconds);
    }

    #[test]
    fn nothing_that_is_written_stops_the_clock_from_showing_a_time(
        writes in proptest::collection::vec((any::<u8>(), any::<u8>()), 0..50),
        host_s in any::<u64>(),
    ) {
        let mut rtc = Rtc::new();
        for (register, value) in writes {
            write(&mut rtc, register, value, host_s);
        }
        write(&mut rtc, REGISTER_B, B_BINARY | B_24_HOURS, host_s);
        let [_, _, month, day, day_of_week, hour, minute, second] = time(&mut rtc, host_s);
        prop_assert!((1..=12).contains(&month) && (1..=31).contains(&day) && (1..=7).contains(&day_of_week));
        prop_assert!(hour < 24 && minute < 60 && second < 60);
    }
}
