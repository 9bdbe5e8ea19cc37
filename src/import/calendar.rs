//! Dates and times of day, as logs write them, in nanoseconds since 1970.

use super::lines::{number, seconds};

/// Seconds of a minute, with a leap second, in nanoseconds.
const MINUTE_NS_MAX: u64 = 61_000_000_000;

/// `YYYY-MM-DD` and `HH:MM:SS[.fraction]` as nanoseconds since 1970-01-01 of the same zone; a
/// fraction has at most 9 digits, a leap second is 60. `None` for no date, one before 1970, or one
/// past the year 2554, where 64 bits end.
pub fn unix_ns(date: &[u8], time: &[u8]) -> Option<u64> {
    let &[y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1] = date else { return None };
    let [h0, h1, b':', n0, n1, b':', second @ ..] = time else { return None };
    let (month, day) = (number(&[m0, m1])?, number(&[d0, d1])?);
    let days = days_since_1970(number(&[y0, y1, y2, y3])?, month, day)?;
    let (hour, minute) = (number(&[*h0, *h1])?, number(&[*n0, *n1])?);
    let second_ns = seconds(second).filter(|ns| *ns < MINUTE_NS_MAX)?;
    if hour > 23 || minute > 59 {
        return None;
    }
    let minutes = days.checked_mul(24)?.checked_add(hour)?.checked_mul(60)?.checked_add(minute)?;
    minutes.checked_mul(60_000_000_000)?.checked_add(second_ns)
}

/// Days of the Gregorian calendar; `None` for no date, or one before 1970.
pub fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let leap_day = |month: u64| u64::from(leap && month > 2);
    let before = BEFORE.get(usize::try_from(month.checked_sub(1)?).ok()?)? + leap_day(month);
    let next = BEFORE.get(usize::try_from(month).ok()?).copied().unwrap_or(365);
    let len = next + leap_day(month + 1) - before;
    if year < 1970 || day == 0 || day > len {
        return None;
    }
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    let years = (year - 1970) * 365 + leaps(year - 1) - leaps(1969);
    Some(years + before + day - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_the_calendar() {
        for (date, days) in [
            ((1970, 1, 1), Some(0)),
            ((1972, 2, 29), Some(789)),
            ((1972, 3, 1), Some(790)),
            ((2000, 12, 31), Some(11_322)),
            ((2001, 1, 1), Some(11_323)),
            ((2024, 2, 29), Some(19_782)),
            ((2026, 9, 24), Some(20_720)),
            ((2100, 3, 1), Some(47_541)),
            ((2023, 2, 29), None),
            ((2100, 2, 29), None),
            ((2023, 4, 31), None),
            ((2023, 0, 1), None),
            ((2023, 13, 1), None),
            ((2023, 1, 0), None),
            ((1969, 12, 31), None),
        ] {
            assert_eq!(days_since_1970(date.0, date.1, date.2), days, "{date:?}");
        }
    }

    #[test]
    fn times_of_day() {
        let at = |date: &str, time: &str| unix_ns(date.as_bytes(), time.as_bytes());
        assert_eq!(at("1970-01-02", "00:00:01"), Some(86_401_000_000_000));
        assert_eq!(at("2026-11-22", "08:45:21.345295"), Some(1_795_337_121_345_295_000));
        assert_eq!(at("2016-12-31", "23:59:60"), Some(1_483_228_800_000_000_000));
        for (date, time) in [
            ("2026-11-22", "24:00:00"),
            ("2026-11-22", "08:60:00"),
            ("2026-11-22", "08:45:61"),
            ("2026-11-22", "8:45:21"),
            ("2026-11-22", "08:45"),
            ("2026/11/22", "08:45:21"),
            ("9999-11-22", "08:45:21"),
            ("", ""),
        ] {
            assert_eq!(at(date, time), None, "{date} {time}");
        }
    }
}
