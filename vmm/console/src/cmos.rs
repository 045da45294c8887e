//! The machine's real-time clock (Motorola MC146818A, "Address map"; century in the byte that PCs use for it).

use dragonfly_abi::Status;
use dragonfly_rt::sys::Ports;

const INDEX_PORT: u16 = 0x70;
const DATA_PORT: u16 = 0x71;

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
const CENTURY: u8 = 0x32;

/// The registers of the time, in the order of [`Reading`].
const TIME: [u8; 7] = [SECONDS, MINUTES, HOURS, DAY, MONTH, YEAR, CENTURY];

const UPDATE_IN_PROGRESS: u8 = 1 << 7;
const HOURS_OF_DAY: u8 = 1 << 1;
const BINARY: u8 = 1 << 2;
const AFTERNOON: u8 = 1 << 7;

/// How often the clock is asked before it counts as broken. An update takes 2 ms, a read more than a microsecond.
const ATTEMPTS: usize = 10_000;

/// The clock's registers.
type Reading = [u8; TIME.len()];

/// Seconds since 1970-01-01 00:00, taking the clock to be in UTC. `None` if there is no clock or it makes no sense.
pub(crate) fn read(ports: Ports) -> Result<Option<u64>, Status> {
    read_with(|register| {
        ports.write(INDEX_PORT, 1, register.into())?;
        ports.read(DATA_PORT, 1).map(|value| value as u8)
    })
}

fn read_with(mut register: impl FnMut(u8) -> Result<u8, Status>) -> Result<Option<u64>, Status> {
    let mut last: Option<Reading> = None;
    for _ in 0..ATTEMPTS {
        if register(STATUS_A)? & UPDATE_IN_PROGRESS != 0 {
            continue;
        }
        let mut reading = Reading::default();
        for (value, number) in reading.iter_mut().zip(TIME) {
            *value = register(number)?;
        }
        // An update may have begun in the middle: only what is read twice counts.
        if last.replace(reading) == Some(reading) {
            return Ok(seconds(reading, register(STATUS_B)?));
        }
    }
    Ok(None)
}

fn seconds(reading: Reading, status_b: u8) -> Option<u64> {
    let decimal = |value: u8| if status_b & BINARY != 0 { value } else { (value >> 4) * 10 + (value & 0xf) };
    let [second, minute, hour, day, month, year, century] = reading;
    let hour = if status_b & HOURS_OF_DAY != 0 {
        decimal(hour)
    } else {
        decimal(hour & !AFTERNOON) % 12 + if hour & AFTERNOON != 0 { 12 } else { 0 }
    };
    let [second, minute, day, month, year] = [second, minute, day, month, year].map(decimal);
    // A clock without the byte has something else there.
    let century = Some(decimal(century)).filter(|century| (19..=21).contains(century)).unwrap_or(20);
    let year = u64::from(century) * 100 + u64::from(year);
    let fits = second < 60 && minute < 60 && hour < 24 && (1..=31).contains(&day) && (1..=12).contains(&month);
    if !fits {
        return None;
    }
    let days = days(year, month.into(), day.into())?;
    Some(days * 86_400 + u64::from(hour) * 3600 + u64::from(minute) * 60 + u64::from(second))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    // Years that begin in March have the leap day at their end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let since_march = (153 * month + 2) / 5 + day - 1;
    let since_zero = year * 365 + year / 4 - year / 100 + year / 400 + since_march;
    // 1970-01-01 counted that way.
    since_zero.checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::{Reading, STATUS_A, STATUS_B, TIME, read_with, seconds};

    const BCD_24: u8 = 0x02;
    const BINARY_12: u8 = 0x04;

    #[test]
    fn dates_are_counted_from_1970() {
        let cases: [(Reading, u64); 5] = [
            ([0x00, 0x00, 0x00, 0x01, 0x01, 0x70, 0x19], 0),
            ([0x59, 0x59, 0x23, 0x31, 0x12, 0x69, 0x20], 3_155_759_999),
            ([0x40, 0x46, 0x01, 0x09, 0x09, 0x01, 0x20], 1_000_000_000),
            ([0x00, 0x00, 0x12, 0x29, 0x02, 0x24, 0x20], 1_709_208_000),
            ([0x00, 0x00, 0x12, 0x01, 0x03, 0x24, 0x20], 1_709_294_400),
        ];
        for (reading, wanted) in cases {
            assert_eq!(seconds(reading, BCD_24), Some(wanted), "{reading:x?}");
        }
    }

    #[test]
    fn binary_numbers_and_twelve_hours_are_understood() {
        assert_eq!(seconds([40, 46, 1, 9, 9, 1, 20], BINARY_12), Some(1_000_000_000));
        assert_eq!(seconds([40, 46, 0x80 | 1, 9, 9, 1, 20], BINARY_12), Some(1_000_000_000 + 12 * 3600));
        assert_eq!(seconds([40, 46, 12, 9, 9, 1, 20], BINARY_12), Some(1_000_000_000 - 3600));
    }

    #[test]
    fn a_clock_without_a_century_is_in_this_one() {
        let with = seconds([0, 0, 0, 1, 1, 0x26, 0x20], BCD_24);
        assert_eq!(seconds([0, 0, 0, 1, 1, 0x26, 0], BCD_24), with);
    }

    #[test]
    fn what_is_no_date_is_no_time() {
        for reading in [[0xff; 7], [0; 7], [0, 0, 0x24, 1, 1, 0x26, 0x20], [0, 0, 0, 1, 0x13, 0x26, 0x20]] {
            assert_eq!(seconds(reading, BCD_24), None, "{reading:x?}");
        }
    }

    #[test]
    fn a_clock_that_is_always_being_updated_is_given_up() {
        assert_eq!(read_with(|_| Ok(0xff)), Ok(None));
    }

    #[test]
    fn a_time_that_changes_while_it_is_read_is_read_again() {
        let mut reads = 0;
        let read = read_with(|register| {
            reads += 1;
            Ok(match register {
                STATUS_A => 0,
                STATUS_B => BCD_24,
                // The first reading stops before the turn of the year, the second begins after it.
                _ if reads < 8 => {
                    [0x59, 0x59, 0x23, 0x31, 0x12, 0x69, 0x19][TIME.iter().position(|r| *r == register).unwrap()]
                }
                _ => [0x00, 0x00, 0x00, 0x01, 0x01, 0x70, 0x19][TIME.iter().position(|r| *r == register).unwrap()],
            })
        });
        assert_eq!(read, Ok(Some(0)));
    }
}
