//! Interrupts 1 and 12 ("Controller Command Byte", bits 0 and 1).

use super::port::*;
use crate::base::Nanos;
use crate::machine::{IrqEvent, IrqSource};
use crate::suite::{Outcome, TestThread};

/// How long an interrupt that follows from an access may take to be seen.
const SOON: Nanos = Nanos(10_000_000);

/// Reads the bytes that an answer has, with an interrupt before each.
fn answer(t: &mut TestThread<'_>, what: &str, irq: &IrqEvent, bytes: &[u8], aux: bool) -> Outcome {
    for byte in bytes {
        let edges = t.expect_irq(what, irq, SOON)?;
        t.expect(&format!("interrupts for one byte of {what}"), edges, 1)?;
        let got = next(t, what)?;
        t.expect(what, got, (*byte, aux))?;
    }
    t.expect(&format!("interrupts after {what}"), irq.take(), 0)
}

/// A byte of the loop command, with the interrupt off, on, and switched on while the byte waits.
fn gate(t: &mut TestThread<'_>, line: u32, bit: u8, loop_command: u8) -> Outcome {
    let irq = t.watch(IrqSource::Intx(line))?;
    set_ctr(t, 0)?;
    command_with(t, loop_command, 0x11)?;
    t.expect("interrupts with the enable bit off", irq.take(), 0)?;
    set_ctr(t, bit)?;
    t.expect_irq("an interrupt when it is enabled over a waiting byte", &irq, SOON)?;
    next(t, "the waiting byte")?;
    let high = t.machine().interrupts()?.intx_level(line);
    t.expect("the interrupt line after the byte was read", high, false)?;
    command_with(t, loop_command, 0x22)?;
    answer(t, "a byte of the loop command", &irq, &[0x22], bit == AUXINT)
}

/// Interrupt 1.
pub fn irq1(t: &mut TestThread<'_>) -> Outcome {
    gate(t, 1, KBDINT, 0xd2)?;
    let irq = t.watch(IrqSource::Intx(1))?;
    let other = t.watch(IrqSource::Intx(12))?;
    set_ctr(t, KBDINT | AUXINT)?;
    data(t, 0xf2)?;
    answer(t, "the keyboard's identity", &irq, &[ACK, 0xab, 0x83], false)?;
    t.expect("interrupt 12 for keyboard bytes", other.take(), 0)
}

/// Interrupt 12.
pub fn irq12(t: &mut TestThread<'_>) -> Outcome {
    gate(t, 12, AUXINT, 0xd3)?;
    let irq = t.watch(IrqSource::Intx(12))?;
    let other = t.watch(IrqSource::Intx(1))?;
    set_ctr(t, KBDINT | AUXINT)?;
    to_mouse(t, 0xf2)?;
    answer(t, "the mouse's identity", &irq, &[ACK, 0x00], true)?;
    t.expect("interrupt 1 for mouse bytes", other.take(), 0)
}
