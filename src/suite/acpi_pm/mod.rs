//! Tests of ACPI power management: the timer, PM1 event and control registers, SCI, GPE0.
//!
//! No case writes SLP_EN: it may end the machine.

mod events;
mod ops;
#[cfg(test)]
mod tests;
mod timer;

use super::module::{Case, Module};
use super::outcome::Outcome;
use super::thread::TestThread;
use crate::machine::builtin::Chips;

/// The module `acpi-pm`.
pub struct AcpiPm;

const CASES: &[Case] = &[
    Case::timed("timer-rate", "the timer counts 3,579,545 a second, to the count", timer::rate),
    Case::timed("timer-width", "the timer has 24 bits and cannot be written", timer::width),
    Case::timed(
        "timer-status",
        "TMR_STS: each change of bit 23 sets it, only a 1 clears it",
        timer::status,
    ),
    Case::irq("timer-sci", "an enabled change of bit 23 is an SCI, to the nanosecond", timer::sci),
    Case::irq("timer-late-enable", "enabling a status that is set is an SCI", timer::late_enable),
    Case::irq("sci-enable", "without SCI_EN there is no SCI", timer::sci_enable),
    Case::new("registers", "enables, SCI_EN and SLP_TYP keep what is written", events::registers),
    Case::new("acpi-mode", "the SMI command port switches SCI_EN", events::acpi_mode),
    Case::new("gpe0", "enables of GPE0 keep what is written, a quiet status reads 0", events::gpe0),
    Case::irq("fuzz", "after any accesses the timer interrupts", timer::fuzz),
];

impl Module for AcpiPm {
    fn name(&self) -> &'static str {
        "acpi-pm"
    }

    fn purpose(&self) -> &'static str {
        "ACPI power management: timer, events, SCI"
    }

    fn cases(&self) -> &'static [Case] {
        CASES
    }

    fn chips(&self) -> Chips {
        // The SMI command port.
        Chips::PM | Chips::SYSTEM
    }

    fn init(&self, thread: &mut TestThread<'_>) -> Outcome {
        ops::quiet(thread)
    }

    fn cleanup(&self, thread: &mut TestThread<'_>) -> Outcome {
        ops::quiet(thread)
    }
}
