//! The calendar: months, leap years, days of the week, centuries.

use super::ops::{self, SECOND};
use crate::base::Nanos;
use crate::driver::cmos::*;
use crate::suite::outcome::Outcome;
use crate::suite::thread::TestThread;

/// Years of each leap rule: by 4, by 100 and by 400, and around the ends of centuries.
const YEARS: &[u16] = &[1980, 1999, 2000, 2001, 2004, 2011, 2024, 2080, 2099, 2100];

/// Days before each month of a year without a leap day.
const BEFORE_MONTH: [u16; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];

fn leap(year: u16) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn month_days(year: u16, month: u8) -> u8 {
    match month {
        2 => 28 + u8::from(leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// 1 for Sunday.
fn weekday(year: u16, month: u8, day: u8) -> u8 {
    let before = u32::from(year) - 1;
    let leap_days = before / 4 - before / 100 + before / 400;
    let months = BEFORE_MONTH.get(usize::from(month) - 1).copied().unwrap_or(0);
    let leap_day = u32::from(month > 2 && leap(year));
    // 1 January of year 1 was a Monday.
    ((before * 365 + leap_days + u32::from(months) + leap_day + u32::from(day)) % 7) as u8 + 1
}

/// The last second of a day.
fn evening(year: u16, month: u8, day: u8) -> DateTime {
    let weekday = weekday(year, month, day);
    DateTime { year, month, day, weekday, hour: 23, minute: 59, second: 59 }
}

/// The first second of a day.
fn midnight(year: u16, month: u8, day: u8) -> DateTime {
    DateTime { hour: 0, minute: 0, second: 0, ..evening(year, month, day) }
}

/// Finds whether `to` is the second after `from`, in every format.
fn follows(t: &mut TestThread<'_>, from: &DateTime, to: &DateTime) -> Outcome {
    let what = format!("a second after {}-{:02}-{:02}", from.year, from.month, from.day);
    for format in Format::ALL {
        ops::start(t, format, from)?;
        t.step(SECOND)?;
        ops::expect_time(t, &what, format, to)?;
    }
    Ok(())
}

/// The end of each month.
pub fn months(t: &mut TestThread<'_>) -> Outcome {
    YEARS.iter().try_for_each(|year| months_of(t, *year))
}

fn months_of(t: &mut TestThread<'_>, year: u16) -> Outcome {
    for month in 1..=12 {
        let last = evening(year, month, month_days(year, month));
        let first = match month {
            12 => midnight(year + 1, 1, 1),
            _ => midnight(year, month + 1, 1),
        };
        follows(t, &last, &first)?;
    }
    Ok(())
}

/// 28 February, and the day before the end of other months.
pub fn leap_day(t: &mut TestThread<'_>) -> Outcome {
    YEARS.iter().try_for_each(|year| leap_day_of(t, *year))
}

fn leap_day_of(t: &mut TestThread<'_>, year: u16) -> Outcome {
    let next = if leap(year) { midnight(year, 2, 29) } else { midnight(year, 3, 1) };
    follows(t, &evening(year, 2, 28), &next)?;
    for month in [1, 4, 12] {
        let day = month_days(year, month);
        follows(t, &evening(year, month, day - 1), &midnight(year, month, day))?;
    }
    Ok(())
}

/// Years before 1970, where counts of seconds since then are negative.
pub fn before_1970(t: &mut TestThread<'_>) -> Outcome {
    months_of(t, 1900)?;
    leap_day_of(t, 1900)?;
    follows(t, &evening(1899, 12, 31), &midnight(1900, 1, 1))
}

/// Years that are more than 2^63 nanoseconds after 1970.
pub fn after_2262(t: &mut TestThread<'_>) -> Outcome {
    months_of(t, 2399)?;
    leap_day_of(t, 2399)?;
    follows(t, &evening(2299, 12, 31), &midnight(2300, 1, 1))
}

/// Ten days, one by one and at a leap.
pub fn weekdays(t: &mut TestThread<'_>) -> Outcome {
    let format = Format { binary: false, hours_24: true };
    ops::start(t, format, &evening(2024, 2, 24))?;
    for day in 25..=35 {
        t.step(SECOND)?;
        let (month, day) = if day <= 29 { (2, day) } else { (3, day - 29) };
        ops::expect_time(t, "each midnight", format, &midnight(2024, month, day))?;
        t.step(Nanos(86_399 * SECOND.0))?;
        ops::expect_time(t, "each evening", format, &evening(2024, month, day))?;
    }
    // A year with a leap day is 52 weeks and two days.
    t.step(Nanos(366 * 86_400 * SECOND.0))?;
    ops::expect_time(t, "366 days later", format, &evening(2025, 3, 7))
}

/// Years that are set and read, and ends of centuries.
pub fn century(t: &mut TestThread<'_>) -> Outcome {
    for year in [1980, 2011, 2080, 2011] {
        for format in Format::ALL {
            let time = DateTime { year, month: 2, day: 2, ..ops::at(2, 4, 58) };
            let time = DateTime { weekday: weekday(year, 2, 2), ..time };
            ops::start(t, format, &time)?;
            ops::expect_time(t, "the time that was set", format, &time)?;
            t.step(SECOND)?;
            let time = DateTime { second: 59, ..time };
            ops::expect_time(t, "a second later", format, &time)?;
        }
    }
    for year in [1999, 2099, 2199] {
        follows(t, &evening(year, 12, 31), &midnight(year + 1, 1, 1))?;
    }
    Ok(())
}
