//! Tests of the high precision event timers (IA-PC HPET specification 1.0a).

mod counter;
mod modes;
mod ops;
mod outputs;
#[cfg(test)]
mod tests;

use super::module::{Case, Module};
use super::outcome::Outcome;
use super::thread::TestThread;
use crate::driver::pit::{self, Control};
use crate::machine::Capabilities;
use crate::machine::builtin::Chips;

/// The module `hpet`.
pub struct Hpet;

const MMIO: Capabilities = Capabilities::MMIO;
/// Cases that look at time need to move it.
const TIMED: Capabilities = MMIO.union(Capabilities::VIRTUAL_CLOCK);
/// Cases that look at interrupt lines as well.
const TIMED_IRQ: Capabilities = TIMED.union(Capabilities::INTX);
/// The case that looks at the 8254.
const PIT_IRQ: Capabilities = TIMED_IRQ.union(Capabilities::PIO);
/// The case that looks at messages.
const MESSAGE: Capabilities = TIMED.union(Capabilities::MEMORY);

const fn case(
    name: &'static str,
    purpose: &'static str,
    needs: Capabilities,
    run: fn(&mut TestThread<'_>) -> Outcome,
) -> Case {
    Case::new(name, purpose, run).needs(needs)
}

const CASES: &[Case] = &[
    case(
        "capabilities",
        "period, width, timers and vendor make sense and cannot be written",
        MMIO,
        counter::capabilities,
    ),
    case("counter-rate", "the main counter counts its period, to the count", TIMED, counter::rate),
    case(
        "halted-write",
        "the main counter is written while halted, whole or in halves",
        TIMED,
        counter::halted_write,
    ),
    case("halves", "64-bit registers are read and written in halves", MMIO, counter::halves),
    case("one-shot", "a match makes one interrupt, at its count", TIMED_IRQ, modes::one_shot),
    case(
        "periodic",
        "an interrupt at each match and no other time; a comparator that goes on",
        TIMED_IRQ,
        modes::periodic,
    ),
    case(
        "periodic-change",
        "a new period follows the match that is due",
        TIMED_IRQ,
        modes::periodic_change,
    ),
    case("periodic-count", "N interrupts in N periods, exactly", TIMED_IRQ, modes::periodic_count),
    case(
        "periodic-whole",
        "one 64-bit write sets the accumulator",
        TIMED_IRQ,
        modes::periodic_whole,
    ),
    case("32-bit", "a 32-bit timer compares the low half of the counter", TIMED_IRQ, modes::narrow),
    case(
        "32-bit-again",
        "a 32-bit timer interrupts again when the counter wraps around",
        TIMED_IRQ,
        modes::narrow_again,
    ),
    case("level", "a level lasts until its status bit is cleared", TIMED_IRQ, outputs::level),
    case("edge-status", "an edge leaves no status", TIMED_IRQ, outputs::edge_status),
    case(
        "status-without-enable",
        "a level timer with interrupts off still sets its status",
        TIMED_IRQ,
        outputs::status_without_enable,
    ),
    case("disable", "nothing interrupts while the counter is halted", TIMED_IRQ, outputs::disable),
    case("routes", "only offered routes read back", MMIO, outputs::routes),
    case(
        "legacy",
        "timers 0 and 1 replace interrupt 0 of the 8254 and interrupt 8",
        PIT_IRQ,
        outputs::legacy,
    ),
    case("message", "an interrupt as a message", MESSAGE, outputs::message),
    case("fuzz", "after any accesses the timers can be programmed", TIMED_IRQ, modes::fuzz),
];

impl Module for Hpet {
    fn name(&self) -> &'static str {
        "hpet"
    }

    fn purpose(&self) -> &'static str {
        "high precision event timers"
    }

    fn cases(&self) -> &'static [Case] {
        CASES
    }

    fn chips(&self) -> Chips {
        // The legacy replacement route is about the 8254's interrupt.
        Chips::HPET | Chips::PIT
    }

    fn init(&self, thread: &mut TestThread<'_>) -> Outcome {
        quiet(thread)
    }

    fn cleanup(&self, thread: &mut TestThread<'_>) -> Outcome {
        quiet(thread)
    }
}

/// Halted at zero, timers off, no status, and the 8254 silent.
fn quiet(t: &mut TestThread<'_>) -> Outcome {
    ops::write(t, ops::GEN_CONF, 0)?;
    ops::write(t, ops::MAIN_CNT, 0)?;
    for timer in 0..ops::timers(t)? {
        ops::write(t, ops::conf(timer), 0)?;
        ops::write(t, ops::comparator(timer), u64::MAX)?;
    }
    ops::write(t, ops::GINTR_STA, u64::MAX)?;
    Control::new(0, 0).write(t.machine().bus()?);
    pit::write_port_61(t.machine().bus()?, 0);
    Ok(())
}
