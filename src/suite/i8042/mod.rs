//! `i8042`: the PS/2 controller, its keyboard and its mouse.

mod controller;
mod devices;
mod irq;
mod port;
#[cfg(test)]
mod tests;

use super::{Case, Module, Outcome, TestThread};
use crate::machine::Capabilities;
use crate::machine::builtin::Chips;

/// The module.
#[derive(Debug)]
pub struct I8042;

/// Ports, and interrupts as descriptors.
const WITH_IRQ: Capabilities = Capabilities::PIO.union(Capabilities::INTX);

const CASES: &[Case] = &[
    Case::new("self-test", "AAh answers 55h and sets the system flag", controller::self_test),
    Case::new("interface-test", "ABh and A9h find no fault", controller::interface_test),
    Case::new(
        "command-byte",
        "20h reads what 60h wrote; A7h, A8h, ADh, AEh set its bits",
        controller::command_byte,
    ),
    Case::new(
        "output-buffer",
        "status says when a byte waits, and whose it is",
        controller::output_buffer,
    ),
    Case::new("output-port", "D0h reads what D1h wrote: the A20 gate", controller::output_port),
    Case::new("disable", "a device whose clock is held keeps its bytes", controller::disable),
    Case::new(
        "keyboard-identify",
        "F2h answers ABh 83h, translated ABh 41h",
        devices::keyboard_identify,
    ),
    Case::new(
        "keyboard-echo",
        "EEh answers EEh, without an acknowledgement",
        devices::keyboard_echo,
    ),
    Case::new(
        "keyboard-reset",
        "FFh answers FAh, and AAh after the self test",
        devices::keyboard_reset,
    ),
    Case::new(
        "keyboard-commands",
        "arguments, scan sets and defaults are acknowledged; others are not",
        devices::keyboard_commands,
    ),
    Case::new("aux", "the mouse: identify, reset, status, poll, wrap mode", devices::aux),
    Case::new(
        "irq1",
        "a keyboard byte raises interrupt 1 if the command byte allows it",
        irq::irq1,
    )
    .needs(WITH_IRQ),
    Case::new(
        "irq12",
        "a mouse byte raises interrupt 12 if the command byte allows it",
        irq::irq12,
    )
    .needs(WITH_IRQ),
];

impl Module for I8042 {
    fn name(&self) -> &'static str {
        "i8042"
    }

    fn purpose(&self) -> &'static str {
        "PS/2 controller at 60h and 64h with keyboard and mouse"
    }

    fn cases(&self) -> &'static [Case] {
        CASES
    }

    fn chips(&self) -> Chips {
        Chips::I8042
    }

    fn init(&self, thread: &mut TestThread<'_>) -> Outcome {
        port::quiet(thread)
    }

    fn cleanup(&self, thread: &mut TestThread<'_>) -> Outcome {
        port::quiet(thread)
    }
}
