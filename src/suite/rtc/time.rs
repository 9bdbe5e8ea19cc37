//! The time of day, second by second (time, calendar, and alarm locations).

use super::ops::{self, SECOND};
use crate::base::Nanos;
use crate::driver::cmos::*;
use crate::suite::outcome::Outcome;
use crate::suite::thread::TestThread;

/// The clock as the machine started it, or as an earlier case left it, over a year.
pub fn follows(t: &mut TestThread<'_>) -> Outcome {
    const STEPS: [u64; 7] = [1, 59, 60, 3541, 3600, 82_800, 364 * 86_400];
    let register_b = ops::get(t, REGISTER_B)?;
    // Away from an update, so that whole seconds stay away from them.
    while ops::get(t, REGISTER_A)? & A_UIP != 0 {
        t.step(Nanos::from_micros(300))?;
    }
    let (mut before, mut days) = (ops::read_time(t)?, 0);
    for seconds in STEPS {
        t.step(Nanos(seconds * SECOND.0))?;
        let now = ops::read_time(t)?;
        days += seconds / 86_400 + u64::from(second_of_day(&now) < second_of_day(&before));
        let passed = (second_of_day(&now) + 86_400 - second_of_day(&before)) % 86_400;
        t.expect("seconds of the day", u64::from(passed), seconds % 86_400)?;
        before = now;
    }
    t.expect("days in a step of a year and those before", days, 365)?;
    ops::expect_byte(t, "register B", REGISTER_B, 0xff, register_b)?;
    ops::expect_byte(t, "register D", REGISTER_D, 0xff, D_VRT)
}

fn second_of_day(time: &DateTime) -> u32 {
    (u32::from(time.hour) * 60 + u32::from(time.minute)) * 60 + u32::from(time.second)
}

/// BCD, 24 hours.
pub fn hours_24_bcd(t: &mut TestThread<'_>) -> Outcome {
    every(t, Format { binary: false, hours_24: true })
}

/// Binary, 24 hours.
pub fn hours_24_binary(t: &mut TestThread<'_>) -> Outcome {
    every(t, Format { binary: true, hours_24: true })
}

/// BCD, 12 hours.
pub fn hours_12_bcd(t: &mut TestThread<'_>) -> Outcome {
    every(t, Format { binary: false, hours_24: false })
}

/// Binary, 12 hours.
pub fn hours_12_binary(t: &mut TestThread<'_>) -> Outcome {
    every(t, Format { binary: true, hours_24: false })
}

/// Every second of a minute, minute of an hour and hour of a day, with each carry.
fn every(t: &mut TestThread<'_>, format: Format) -> Outcome {
    ops::start(t, format, &ops::at(11, 58, 0))?;
    for second in 1..=60 {
        t.step(SECOND)?;
        let time = ops::at(11, 58 + second / 60, second % 60);
        ops::expect_time(t, "each second", format, &time)?;
    }
    ops::start(t, format, &ops::at(20, 0, 59))?;
    for minute in 1..=60 {
        t.step(Nanos(60 * SECOND.0))?;
        let time = ops::at(20 + minute / 60, minute % 60, 59);
        ops::expect_time(t, "each minute", format, &time)?;
    }
    for hour in 0..24 {
        ops::start(t, format, &ops::at(hour, 59, 59))?;
        t.step(SECOND)?;
        let (day, weekday) = if hour == 23 { (3, 5) } else { (2, 4) };
        let time = DateTime { day, weekday, ..ops::at((hour + 1) % 24, 0, 0) };
        ops::expect_time(t, "each hour", format, &time)?;
    }
    ops::start(t, format, &ops::at(0, 30, 0))?;
    for hour in 1..24 {
        t.step(Nanos(3600 * SECOND.0))?;
        ops::expect_time(t, "each hour of a day", format, &ops::at(hour, 30, 0))?;
    }
    Ok(())
}
