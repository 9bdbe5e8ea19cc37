//! Tests of the interval timer: Intel 8254 at ports 40h to 43h, interrupt 0, and port 61h.
//!
//! What a case expects stands in the data sheet. A count is loaded with the next clock, and where a
//! clock begins is not known, so that the first clock of a count is one more or less everywhere.

mod access;
mod count;
mod gate;
mod irq0;
mod ops;
mod shape;
#[cfg(test)]
mod tests;

use super::module::{Case, Module};
use super::outcome::Outcome;
use super::thread::TestThread;
use crate::driver::pit::{Control, write_port_61};
use crate::machine::builtin::Chips;

/// The module `pit`.
pub struct Pit;

const CASES: &[Case] = &[
    Case::timed(
        "counting",
        "counters count 1,193,182 a second: down by one, in mode 3 by two",
        count::rate,
    ),
    Case::timed(
        "terminal-count",
        "mode 0: OUT rises after the count and stays, a count lowers it",
        shape::mode_0,
    ),
    Case::timed("initial-output", "a control word alone sets OUT, at once", shape::initial),
    Case::timed("one-shot", "mode 1: a trigger makes one low pulse, and again", shape::mode_1),
    Case::timed("rate", "modes 2 and 3: OUT2 rises once in N clocks", shape::rate),
    Case::timed("rate-generator", "mode 2: low for one clock in N", shape::mode_2),
    Case::timed(
        "square-wave",
        "mode 3: half high, half low; odd counts one clock longer high",
        shape::mode_3,
    ),
    Case::timed("mode-bits", "modes 6 and 7 are modes 2 and 3", shape::mode_bits),
    Case::timed("strobe", "mode 4: one low clock, N clocks after a count is loaded", shape::mode_4),
    Case::timed("triggered-strobe", "mode 5: the same after a trigger", shape::mode_5),
    Case::timed("access", "one byte or two are written and read, low first", access::bytes),
    Case::timed("latch", "a latched count holds until it is read", access::latch),
    Case::timed(
        "read-back",
        "counts and status of several counters are latched at once",
        access::read_back,
    ),
    Case::timed("control-word", "a control word ends a half-written count", access::control_word),
    Case::timed("half-count", "mode 0: the first byte of two stops counting", count::half_count),
    Case::timed(
        "new-count",
        "modes 2 and 3: a new count waits for the end of the period",
        count::new_count,
    ),
    Case::timed(
        "null-count",
        "status says whether the count written is counted",
        count::null_count,
    ),
    Case::timed("bcd", "four decades: 10,000 counts", count::bcd),
    Case::timed("gate", "modes 1, 2, 3, 5: a rising GATE begins anew", gate::restarts),
    Case::timed(
        "gate-stops",
        "modes 0, 2, 3, 4: nothing is counted while GATE is low",
        gate::stops,
    ),
    Case::timed("port-61", "gate and speaker bits hold, OUT2 and refresh are seen", gate::port_61),
    Case::timed("wait", "a wait by counter 2 takes its time", count::wait),
    Case::irq("irq0-rate", "N interrupts in N periods, to the nanosecond", irq0::rate)
        .options(irq0::OPTIONS),
    Case::irq("irq0-hour", "65,543 interrupts in an hour of the largest count", irq0::hour),
    Case::irq("irq0-once", "mode 0: one interrupt for each count", irq0::once),
    Case::irq("fuzz", "after any accesses the timer can be programmed", irq0::fuzz),
];

impl Module for Pit {
    fn name(&self) -> &'static str {
        "pit"
    }

    fn purpose(&self) -> &'static str {
        "8254 interval timer and port 61h"
    }

    fn cases(&self) -> &'static [Case] {
        CASES
    }

    fn chips(&self) -> Chips {
        Chips::PIT
    }

    fn init(&self, thread: &mut TestThread<'_>) -> Outcome {
        quiet(thread)
    }

    fn cleanup(&self, thread: &mut TestThread<'_>) -> Outcome {
        quiet(thread)
    }
}

/// No counter runs, no interrupt is requested, the speaker is off.
fn quiet(thread: &mut TestThread<'_>) -> Outcome {
    let bus = thread.machine().bus()?;
    (0..3).for_each(|counter| Control::new(counter, 0).write(bus));
    write_port_61(bus, 0);
    Ok(())
}
