//! `serial`: a 16550A at the first port of a PC. Everything a case sends stays inside the chip, by
//! loopback.

mod data;
mod interrupts;
mod modem;
mod port;
#[cfg(test)]
mod tests;

use super::{Case, Module, Outcome, TestThread};
use crate::machine::Capabilities;
use crate::machine::builtin::Chips;

/// The module.
#[derive(Debug)]
pub struct Serial;

/// Ports, and the port's interrupt as a descriptor.
const WITH_IRQ: Capabilities = Capabilities::PIO.union(Capabilities::INTX);

const CASES: &[Case] = &[
    Case::new("registers", "reset values, and which bits of each register hold", data::registers),
    Case::new(
        "scratch",
        "the scratch register holds every value and disturbs nothing",
        data::scratch,
    ),
    Case::new("divisor-latch", "DLAB swaps the divisor latch in and out", data::divisor_latch),
    Case::new("fifo", "FIFO control: identification bits, clearing, switching empties", data::fifo),
    Case::new("loopback", "characters come back in order; LSR says when", data::through_the_loop),
    Case::new("overrun", "one character too many: LSR.OE, with and without FIFOs", data::overrun),
    Case::new("modem", "in loopback the modem inputs are the modem outputs", modem::lines),
    Case::new("modem-delta", "MSR's delta bits and their interrupt, in loopback", modem::deltas)
        .needs(WITH_IRQ),
    Case::new(
        "thr-interrupt",
        "transmitter empty: asserted, taken back, asserted again",
        interrupts::transmitter,
    )
    .needs(WITH_IRQ),
    Case::new(
        "receive-interrupt",
        "received data: by character, and by FIFO trigger level",
        interrupts::receiver,
    )
    .needs(WITH_IRQ),
    Case::new(
        "priority",
        "IIR shows the most urgent of several interrupts first",
        interrupts::priority,
    )
    .needs(WITH_IRQ),
    Case::new(
        "timeout",
        "characters below the trigger level interrupt after four character times",
        interrupts::timeout,
    )
    .needs(WITH_IRQ.union(Capabilities::VIRTUAL_CLOCK)),
];

impl Module for Serial {
    fn name(&self) -> &'static str {
        "serial"
    }

    fn purpose(&self) -> &'static str {
        "16550A serial port at 3F8h: registers, FIFOs, modem lines, interrupts"
    }

    fn cases(&self) -> &'static [Case] {
        CASES
    }

    fn chips(&self) -> Chips {
        Chips::SERIAL
    }

    fn cleanup(&self, thread: &mut TestThread<'_>) -> Outcome {
        port::quiet(thread)
    }
}
