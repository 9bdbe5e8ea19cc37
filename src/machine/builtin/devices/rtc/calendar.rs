//! The time bytes, and what seconds do to them.

use super::bits::*;

/// Seconds of a day.
pub(super) const DAY_SECONDS: u32 = 86_400;

/// How time is written: DM and 24/12 of register B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    /// Binary, else two BCD digits.
    pub binary: bool,
    /// Hours 0 to 23, else 1 to 12 with a bit for the afternoon.
    pub hours_24: bool,
}

impl Format {
    /// The format that register B sets.
    pub fn of(control: RegisterB) -> Self {
        Self {
            binary: control.contains(RegisterB::DM),
            hours_24: control.contains(RegisterB::HOURS_24),
        }
    }

    /// The number in `byte`. A digit past 9 counts as what it is, so that every byte has one.
    fn decode(self, byte: u8) -> u32 {
        match self.binary {
            true => byte.into(),
            false => u32::from(byte >> 4) * 10 + u32::from(byte & 15),
        }
    }

    /// The byte for `value`, below 100.
    fn encode(self, value: u32) -> u8 {
        let value = (value % 100) as u8;
        if self.binary { value } else { ((value / 10) << 4) | (value % 10) }
    }

    /// The hour from 0 that `byte` stands for.
    fn decode_hour(self, byte: u8) -> u32 {
        if self.hours_24 {
            return self.decode(byte);
        }
        let afternoon = if byte & HOURS_PM != 0 { 12 } else { 0 };
        self.decode(byte & !HOURS_PM) % 12 + afternoon
    }

    fn encode_hour(self, hour: u32) -> u8 {
        if self.hours_24 {
            return self.encode(hour);
        }
        let afternoon = if hour >= 12 { HOURS_PM } else { 0 };
        self.encode((hour + 11) % 12 + 1) | afternoon
    }

    /// The number in `byte`, if it is written as the chip would and at most `max`.
    pub fn valid(self, byte: u8, max: u32) -> Option<u32> {
        let value = self.decode(byte);
        (value <= max && self.encode(value) == byte).then_some(value)
    }

    /// The hour from 0 in `byte`, if it is written as the chip would.
    pub fn valid_hour(self, byte: u8) -> Option<u32> {
        let hour = self.decode_hour(byte);
        (hour < 24 && self.encode_hour(hour) == byte).then_some(hour)
    }
}

/// The bytes that an update advances. They may hold anything: the data sheet leaves open what
/// becomes of values that are no time (time, calendar, and alarm locations), here the next update
/// carries their excess as a calculation would.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TimeBytes {
    second: u8,
    minute: u8,
    hour: u8,
    weekday: u8,
    day: u8,
    month: u8,
    year: u8,
    century: u8,
}

impl TimeBytes {
    /// The bytes for a time in seconds since 1970, UTC.
    pub fn from_unix(seconds: i64, format: Format) -> Self {
        let days = seconds.div_euclid(DAY_SECONDS.into());
        let mut time = Self::default();
        time.set_second_of_day(seconds.rem_euclid(DAY_SECONDS.into()) as u32, format);
        time.set_date(days, format);
        // 1970 began on a Thursday, the fifth day of a week from Sunday.
        time.weekday = (days + 4).rem_euclid(7) as u8 + 1;
        time
    }

    /// The byte at `index`, if it is one of these.
    pub fn byte(&mut self, index: u8) -> Option<&mut u8> {
        Some(match index {
            SECONDS => &mut self.second,
            MINUTES => &mut self.minute,
            HOURS => &mut self.hour,
            DAY_OF_THE_WEEK => &mut self.weekday,
            DATE_OF_THE_MONTH => &mut self.day,
            MONTH => &mut self.month,
            YEAR => &mut self.year,
            CENTURY | CENTURY_PS2 => &mut self.century,
            _ => return None,
        })
    }

    /// The second of the day, below [`DAY_SECONDS`].
    pub fn second_of_day(&self, format: Format) -> u32 {
        self.day_seconds(format) % DAY_SECONDS
    }

    fn day_seconds(&self, format: Format) -> u32 {
        let minutes = format.decode_hour(self.hour) * 60 + format.decode(self.minute);
        minutes * 60 + format.decode(self.second)
    }

    fn set_second_of_day(&mut self, second: u32, format: Format) {
        self.second = format.encode(second % 60);
        self.minute = format.encode(second / 60 % 60);
        self.hour = format.encode_hour(second / 3600 % 24);
    }

    /// `seconds` updates.
    pub fn advance(&mut self, seconds: u64, format: Format) {
        let total = u64::from(self.day_seconds(format)) + seconds;
        self.set_second_of_day((total % u64::from(DAY_SECONDS)) as u32, format);
        let days = total / u64::from(DAY_SECONDS);
        if days > 0 {
            self.set_date(self.date(format) + days as i64, format);
            // The day of the week is a counter of its own, set and advanced apart from the date.
            let weekday = u64::from(format.decode(self.weekday)) + 6 + days % 7;
            self.weekday = (weekday % 7) as u8 + 1;
        }
    }

    /// Days since 1970-01-01 of the date, by the Gregorian rule with the century byte.
    fn date(&self, format: Format) -> i64 {
        let year = format.decode(self.century) * 100 + format.decode(self.year);
        let month = i64::from(format.decode(self.month)) - 1;
        first_of_month(i64::from(year), month) + i64::from(format.decode(self.day)) - 1
    }

    fn set_date(&mut self, days: i64, format: Format) {
        let (year, month, day) = date_of(days);
        self.day = format.encode(day);
        self.month = format.encode(month);
        self.year = format.encode(year.rem_euclid(100) as u32);
        self.century = format.encode(year.div_euclid(100).rem_euclid(100) as u32);
    }

    /// Writes the same time in another format.
    pub fn rewrite(&mut self, from: Format, to: Format) {
        let (second, days) = (self.second_of_day(from), self.date(from));
        self.set_second_of_day(second, to);
        self.set_date(days, to);
    }
}

/// Days of a 400-year cycle, after which the Gregorian calendar repeats.
const CYCLE_DAYS: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_DAYS: i64 = 719_468;

/// Days since 1970-01-01 of the first of a month counted from 0, in a year that starts in March so
/// that a leap day comes last.
fn first_of_month(year: i64, month: i64) -> i64 {
    let months = year * 12 + month - 2;
    let (year, month) = (months.div_euclid(12), months.rem_euclid(12));
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // Months from March have 31, 30, 31, 30, 31 days, twice and a bit: 153 days in five.
    year * 365 + leaps + (153 * month + 2) / 5 - EPOCH_DAYS
}

/// Year, month from 1 and day from 1 of a day since 1970-01-01.
fn date_of(days: i64) -> (i64, u32, u32) {
    // The average month is close enough to be at most one too late.
    let cycles = days.div_euclid(CYCLE_DAYS);
    let rest = days - cycles * CYCLE_DAYS;
    let mut month = rest * 4800 / CYCLE_DAYS + 1;
    while first_of_month(1970, month) > rest {
        month -= 1;
    }
    let day = rest - first_of_month(1970, month) + 1;
    (1970 + cycles * 400 + month / 12, (month % 12) as u32 + 1, day as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BINARY: Format = Format { binary: true, hours_24: true };

    /// The calendar as one learns it.
    fn month_days(year: i64, month: u32) -> u32 {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        match month {
            2 => 28 + u32::from(leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    #[test]
    fn every_day_of_a_thousand_years_follows_the_one_before() {
        let first = first_of_month(1600, 0);
        assert_eq!(date_of(first), (1600, 1, 1));
        assert_eq!(date_of(0), (1970, 1, 1));
        let (mut year, mut month, mut day) = (1600, 1, 1);
        for days in first..first + 365_243 {
            assert_eq!(date_of(days), (year, month, day));
            assert_eq!(first_of_month(year, i64::from(month) - 1) + i64::from(day) - 1, days);
            day += 1;
            if day > month_days(year, month) {
                (month, day) = (month % 12 + 1, 1);
                year += i64::from(month == 1);
            }
        }
        assert_eq!((year, month, day), (2600, 1, 1));
    }

    #[test]
    fn formats_write_each_hour() {
        let bcd_12 = Format { binary: false, hours_24: false };
        let hours: Vec<u8> = (0..24).map(|hour| bcd_12.encode_hour(hour)).collect();
        assert_eq!(hours[..3], [0x12, 0x01, 0x02]);
        assert_eq!(hours[9..15], [0x09, 0x10, 0x11, 0x92, 0x81, 0x82]);
        for format in [bcd_12, BINARY, Format { binary: true, hours_24: false }] {
            assert!((0..24).all(|h| format.valid_hour(format.encode_hour(h)) == Some(h)));
            let valid = (0..=255).filter(|byte| format.valid_hour(*byte).is_some());
            assert_eq!(valid.count(), 24, "{format:?}");
        }
    }

    #[test]
    fn one_step_is_many_steps() {
        let start = TimeBytes::from_unix(951_782_399, BINARY);
        let (mut jump, mut walk) = (start.clone(), start);
        jump.advance(200_000, BINARY);
        (0..200_000).for_each(|_| walk.advance(1, BINARY));
        assert_eq!(jump, walk);
        assert_eq!(jump, TimeBytes::from_unix(951_782_399 + 200_000, BINARY));
    }

    #[test]
    fn any_bytes_advance_to_a_time() {
        let mut prng = crate::base::Prng::new(7);
        for round in 0..10_000u64 {
            let format = Format { binary: round & 1 != 0, hours_24: round & 2 != 0 };
            let mut time = TimeBytes::default();
            for index in (0..=9).chain([CENTURY]) {
                if let Some(byte) = time.byte(index) {
                    *byte = prng.next_u64() as u8;
                }
            }
            time.advance(u64::from(DAY_SECONDS) + prng.below(1 << 34), format);
            assert!(format.valid(time.second, 59).is_some(), "{time:x?}");
            assert!(format.valid_hour(time.hour).is_some(), "{time:x?}");
            assert!(format.valid(time.month, 12).is_some_and(|month| month > 0), "{time:x?}");
            assert!(format.valid(time.day, 31).is_some_and(|day| day > 0), "{time:x?}");
            assert!((1..=7).contains(&time.weekday), "{time:x?}");
        }
    }
}
