//! Dates of the Gregorian calendar.

/// Last second of the year 9999, since 1970-01-01.
const LAST_SECOND: u64 = 253_402_300_799;
const SECONDS_PER_DAY: u64 = 86_400;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_DAYS: u64 = 719_468;
/// 400 years, after which the calendar repeats.
const DAYS_PER_ERA: u64 = 146_097;

/// A date and time of day. A date that does not exist, such as February 30, counts on from the month's first day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DateTime {
    pub year: u16,
    pub month: u8,
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
}

impl DateTime {
    /// The date `seconds` after 1970-01-01; the last one that there is if it is later.
    ///
    /// Years begin in March here, so that the leap day is the last one of the year and months are 153 days in five.
    pub fn from_seconds(seconds: u64) -> Self {
        let seconds = seconds.min(LAST_SECOND);
        let (days, second_of_day) = (seconds / SECONDS_PER_DAY + EPOCH_DAYS, seconds % SECONDS_PER_DAY);
        let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        Self {
            year: year as u16,
            month: month as u8,
            day: day as u8,
            hour: (second_of_day / 3600) as u8,
            minute: (second_of_day / 60 % 60) as u8,
            second: (second_of_day % 60) as u8,
        }
    }

    /// Seconds since 1970-01-01; 0 for earlier dates.
    pub fn seconds(self) -> u64 {
        let second_of_day = u64::from(self.hour) * 3600 + u64::from(self.minute) * 60 + u64::from(self.second);
        (self.days_from_march_0() * SECONDS_PER_DAY + second_of_day).saturating_sub(EPOCH_DAYS * SECONDS_PER_DAY)
    }

    /// 1 for Sunday.
    pub fn day_of_week(self) -> u8 {
        // 0000-03-01 was a Wednesday.
        ((self.days_from_march_0() + 3) % 7 + 1) as u8
    }

    /// Whether each part is in the range that a clock has for it.
    pub const fn is_on_a_clock(self) -> bool {
        self.year <= 9999
            && matches!(self.month, 1..=12)
            && matches!(self.day, 1..=31)
            && self.hour < 24
            && self.minute < 60
            && self.second < 60
    }

    /// Days since 0000-03-01; 0 for the two months before.
    fn days_from_march_0(self) -> u64 {
        let is_before_march = self.month <= 2;
        let year = u64::from(self.year).saturating_sub(u64::from(is_before_march));
        let month_from_march =
            u64::from(self.month) + if is_before_march { 9 } else { 0 } - if is_before_march { 0 } else { 3 };
        let day_of_year = (153 * month_from_march + 2) / 5 + u64::from(self.day).saturating_sub(1);
        year * 365 + year / 4 - year / 100 + year / 400 + day_of_year
    }
}
