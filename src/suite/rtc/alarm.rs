//! The alarm (time, calendar, and alarm locations; register C, AF).

use super::ops::{self, SECOND};
use crate::base::Nanos;
use crate::driver::cmos::*;
use crate::machine::IrqEvent;
use crate::suite::outcome::Outcome;
use crate::suite::thread::TestThread;

const DAY: u64 = 86_400;
const BINARY: Format = Format { binary: true, hours_24: true };

/// Takes the alarm that must come with the `update`-th update since `released`.
fn take(t: &mut TestThread<'_>, irq: &IrqEvent, released: Nanos, update: u64) -> Outcome {
    ops::take_update(t, "alarm interrupt", irq, (released, update))?;
    let flags = ops::flags(t)?;
    t.expect("register C, IRQF and AF", flags & (C_IRQF | C_AF), C_IRQF | C_AF)?;
    ops::expect_flags(t, "register C, read again", 0xff, 0)
}

/// The alarm comes in its second, and then a day later.
pub fn once_a_day(t: &mut TestThread<'_>) -> Outcome {
    over_midnight(t, true)
}

/// In the 12-hour format an alarm of the morning, set in the evening before.
pub fn other_half(t: &mut TestThread<'_>) -> Outcome {
    over_midnight(t, false)
}

fn over_midnight(t: &mut TestThread<'_>, hours_24: bool) -> Outcome {
    let irq = ops::watch(t)?;
    for binary in [false, true] {
        let format = Format { binary, hours_24 };
        ops::start(t, format, &ops::at(23, 59, 58))?;
        let released = t.now();
        ops::alarm(t, [Some(0), Some(0), Some(1)])?;
        irq.take();
        ops::enable(t, B_AIE)?;
        take(t, &irq, released, 3)?;
        let time = DateTime { day: 3, weekday: 5, ..ops::at(0, 0, 1) };
        ops::expect_time(t, "the time of the alarm", format, &time)?;
        take(t, &irq, released, 3 + DAY)?;
        ops::disable(t, B_AIE)?;
    }
    Ok(())
}

/// A time, an alarm (hour, minute, second), and the updates from then on that it comes with.
type Pattern = ([u8; 3], [Option<u8>; 3], &'static [u64]);

const PATTERNS: &[Pattern] = &[
    ([10, 58, 58], [None, None, None], &[1, 2, 3, 4]),
    ([10, 58, 58], [None, None, Some(0)], &[2, 62, 122]),
    ([10, 58, 58], [None, Some(0), Some(0)], &[62, 3662]),
    ([10, 58, 58], [Some(11), Some(0), Some(0)], &[62, 62 + DAY]),
    ([10, 58, 58], [Some(10), Some(58), Some(58)], &[DAY, 2 * DAY]),
    ([11, 1, 57], [Some(11), Some(1), None], &[1, 2, DAY - 57, DAY - 56]),
    ([10, 59, 58], [None, Some(59), None], &[1, 3600 - 58, 3600 - 57]),
    ([11, 59, 58], [Some(11), None, None], &[1, DAY - 3598, DAY - 3597]),
    ([11, 58, 0], [Some(11), None, Some(30)], &[30, 90, DAY - 3450]),
];

/// The codes C0h to FFh match always, in any of the three bytes.
pub fn dont_care(t: &mut TestThread<'_>) -> Outcome {
    let irq = ops::watch(t)?;
    for code in [0xc0, 0xd5, 0xff] {
        for ([hour, minute, second], alarm, updates) in PATTERNS {
            ops::start(t, BINARY, &ops::at(*hour, *minute, *second))?;
            let released = t.now();
            ops::alarm(t, *alarm)?;
            for (index, byte) in [HOURS_ALARM, MINUTES_ALARM, SECONDS_ALARM].iter().zip(alarm) {
                if byte.is_none() {
                    ops::put(t, *index, code)?;
                }
            }
            irq.take();
            ops::enable(t, B_AIE)?;
            for update in *updates {
                take(t, &irq, released, *update)?;
            }
            ops::disable(t, B_AIE)?;
        }
    }
    Ok(())
}

/// In the 12-hour format 2 in the morning is not 2 in the afternoon.
pub fn twelve_hours(t: &mut TestThread<'_>) -> Outcome {
    let irq = ops::watch(t)?;
    for binary in [false, true] {
        let format = Format { binary, hours_24: false };
        ops::start(t, format, &ops::at(13, 59, 0))?;
        let released = t.now();
        ops::alarm(t, [Some(14), None, None])?;
        ops::enable(t, B_AIE)?;
        take(t, &irq, released, 60)?;
        ops::expect_byte(t, "hours", HOURS, 0xff, 0x82)?;
        ops::disable(t, B_AIE)?;

        ops::start(t, format, &ops::at(3, 0, 0))?;
        let released = t.now();
        ops::alarm(t, [Some(2), None, None])?;
        irq.take();
        ops::enable(t, B_AIE)?;
        t.run_until(Nanos(released.0 + 22 * 3600 * SECOND.0))?;
        t.expect("alarms from 3:00 to 1:00", irq.take(), 0)?;
        take(t, &irq, released, 23 * 3600)?;
        ops::disable(t, B_AIE)?;
    }
    Ok(())
}

/// Bytes that are neither a time nor a don't-care code: AF says that the time has matched the alarm
/// (register C, AF), which it never does.
pub fn invalid(t: &mut TestThread<'_>) -> Outcome {
    let irq = ops::watch(t)?;
    for (index, byte) in [(SECONDS_ALARM, 60), (MINUTES_ALARM, 0x7f), (HOURS_ALARM, 24)] {
        ops::start(t, BINARY, &ops::at(10, 58, 58))?;
        ops::alarm(t, [None; 3])?;
        ops::put(t, index, byte)?;
        irq.take();
        ops::enable(t, B_AIE)?;
        t.step(Nanos(2 * DAY * SECOND.0))?;
        t.expect("alarms in two days of a byte that no time has", irq.take(), 0)?;
        ops::disable(t, B_AIE)?;
    }
    Ok(())
}
