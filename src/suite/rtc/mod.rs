//! Tests of the real-time clock: MC146818 behind ports 70h and 71h, interrupt 8.
//!
//! What a case expects stands in the data sheet. Two details differ between the chip and QEMU's
//! model of it, and cases leave room for both: an update takes up to 1984 us on the chip and no
//! time in QEMU, and the phase of the periodic edges against the updates.

mod alarm;
mod calendar;
mod drift;
mod flags;
mod ops;
mod periodic;
mod registers;
#[cfg(test)]
mod rig;
mod setting;
#[cfg(test)]
mod tests;
mod time;
mod update;

use super::module::{Case, Module};
use super::outcome::Outcome;
use super::thread::TestThread;
use crate::driver::cmos::{A_DIVIDER_32KHZ, B_24H, REGISTER_A, REGISTER_B};
use crate::driver::pit;
use crate::machine::Capabilities;
use crate::machine::builtin::Chips;

/// The module `rtc`.
pub struct Rtc;

const CASES: &[Case] = &[
    Case::new("drift", "the periodic interrupt keeps its rate", drift::drift)
        .needs(Capabilities::PIO.union(Capabilities::INTX).union(Capabilities::TIMERS))
        .options(drift::OPTIONS),
    Case::irq("periodic", "every rate of register A is exact, and rate 0 is none", periodic::rates),
    Case::irq("periodic-change", "a new rate takes over from the old", periodic::change),
    Case::irq("alarm", "an alarm interrupts in its second, once a day", alarm::once_a_day),
    Case::irq(
        "alarm-12h-midnight",
        "the same in the 12-hour format, from an evening to a morning",
        alarm::other_half,
    ),
    Case::irq("alarm-dont-care", "alarm bytes of C0h and above match always", alarm::dont_care),
    Case::irq("alarm-12h", "an alarm tells morning from afternoon", alarm::twelve_hours),
    Case::irq("alarm-invalid", "alarm bytes that no time has never match", alarm::invalid),
    Case::irq("update-ended", "each update sets UF and interrupts", update::ended),
    Case::timed("uip", "UIP rises 244 us before an update and falls with its end", update::uip),
    Case::irq("uip-stuck", "moving the alarm away does not hold UIP", update::uip_stuck),
    Case::irq(
        "divider-reset",
        "the divider stops all, its first update is 0.5 s later",
        update::divider,
    ),
    Case::irq(
        "divider-reset-periodic",
        "no periodic interrupt while the divider stands",
        update::divider_periodic,
    ),
    Case::irq("set", "SET holds the time, keeps the divider going and clears UIE", setting::set),
    Case::timed("time", "the time follows the machine's clock for a year", time::follows),
    Case::timed("time-24h-bcd", "every second, minute and hour: BCD, 24 hours", time::hours_24_bcd),
    Case::timed("time-24h-binary", "the same: binary, 24 hours", time::hours_24_binary),
    Case::timed("time-12h-bcd", "the same: BCD, 12 hours", time::hours_12_bcd),
    Case::timed("time-12h-binary", "the same: binary, 12 hours", time::hours_12_binary),
    Case::timed(
        "format-switch",
        "a running clock changes its format and keeps time",
        setting::switch,
    ),
    Case::timed("calendar", "the end of every month, in years of each leap rule", calendar::months),
    Case::timed("leap-day", "29 February comes and goes", calendar::leap_day),
    Case::timed("day-of-week", "the day of the week advances at midnight", calendar::weekdays),
    Case::timed("century", "years 1980, 2011 and 2080 hold; a century ends", calendar::century),
    Case::timed("before-1970", "every month of 1900, and 1899's end", calendar::before_1970),
    Case::timed("after-2262", "every month of 2399, and 2299's end", calendar::after_2262),
    Case::irq(
        "register-c",
        "reading clears flags and interrupt; enables act at once",
        flags::register_c,
    ),
    Case::timed(
        "flags-without-enables",
        "AF and UF are set with no interrupt enabled",
        flags::bare,
    ),
    Case::timed(
        "periodic-flag-without-enable",
        "PF is set with no interrupt enabled",
        flags::bare_periodic,
    ),
    Case::timed("registers", "a seeded walk over the registers", registers::walk),
    Case::new("read-only", "UIP, registers C and D cannot be written", registers::read_only),
    Case::new("ram", "every byte of CMOS RAM is its own", registers::ram),
    Case::timed("fuzz", "any bytes in any register leave a clock that can be set", registers::fuzz),
    Case::timed("invalid-time", "a time that is none becomes one", registers::invalid_time),
];

impl Module for Rtc {
    fn name(&self) -> &'static str {
        "rtc"
    }

    fn purpose(&self) -> &'static str {
        "MC146818 real-time clock and CMOS RAM"
    }

    fn cases(&self) -> &'static [Case] {
        CASES
    }

    fn chips(&self) -> Chips {
        Chips::RTC
    }

    fn init(&self, thread: &mut TestThread<'_>) -> Outcome {
        // Cases let days pass: the interval timer's interrupts would be millions.
        pit::park(thread.machine().bus()?);
        quiet(thread, A_DIVIDER_32KHZ)
    }

    fn cleanup(&self, thread: &mut TestThread<'_>) -> Outcome {
        // 1024 Hz, off, is what firmware leaves.
        quiet(thread, A_DIVIDER_32KHZ | 6)
    }
}

/// No interrupts, BCD and 24 hours.
fn quiet(thread: &mut TestThread<'_>, register_a: u8) -> Outcome {
    ops::put(thread, REGISTER_B, B_24H)?;
    ops::put(thread, REGISTER_A, register_a)?;
    ops::flags(thread).map(|_| ())
}
