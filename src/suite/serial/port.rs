//! The port as its driver sees it (PC16550D data sheet, table II).

use crate::base::Nanos;
use crate::suite::{Outcome, TestThread};

/// Receiver buffer, transmitter holding register; low divisor latch.
pub const DATA: u16 = 0x3f8;
/// Interrupt enable; high divisor latch.
pub const IER: u16 = 0x3f9;
/// Interrupt identification when read.
pub const IIR: u16 = 0x3fa;
/// FIFO control when written.
pub const FCR: u16 = 0x3fa;
/// Line control.
pub const LCR: u16 = 0x3fb;
/// Modem control.
pub const MCR: u16 = 0x3fc;
/// Line status.
pub const LSR: u16 = 0x3fd;
/// Modem status.
pub const MSR: u16 = 0x3fe;
/// Scratch.
pub const SCR: u16 = 0x3ff;
/// The first port's interrupt on a PC.
pub const IRQ: u32 = 4;

/// How long an interrupt that follows from an access may take to be seen.
pub const SOON: Nanos = Nanos(10_000_000);

/// LCR: divisor latch access.
pub const DLAB: u8 = 0x80;
/// LCR: 8 data bits, no parity, one stop bit: ten bits a character.
pub const EIGHT_N_1: u8 = 0x03;
/// MCR: loopback, with OUT2, which on a PC opens the interrupt line.
pub const LOOP: u8 = 0x18;
/// LSR of an idle transmitter and an empty receiver.
pub const IDLE: u8 = 0x60;
/// LSR: data ready.
pub const DR: u8 = 0x01;
/// LSR: overrun error.
pub const OE: u8 = 0x02;

/// Puts the port into a known state: 8N1, FIFOs off, no interrupt, no loopback, nothing received.
pub fn quiet(t: &mut TestThread<'_>) -> Outcome {
    t.outb(LCR, EIGHT_N_1)?;
    t.outb(IER, 0)?;
    // On and off again: either switch empties both FIFOs.
    t.outb(FCR, 1)?;
    t.outb(FCR, 0)?;
    t.outb(MCR, 0x08)?;
    for register in [LSR, DATA, IIR, MSR] {
        t.inb(register)?;
    }
    Ok(())
}

/// As [`quiet`], with the transmitter wired to the receiver.
pub fn loopback(t: &mut TestThread<'_>) -> Outcome {
    quiet(t)?;
    t.outb(MCR, LOOP)?;
    t.inb(MSR)?;
    Ok(())
}

/// Sends characters into the loop.
pub fn send(t: &mut TestThread<'_>, bytes: &[u8]) -> Outcome {
    bytes.iter().try_for_each(|byte| t.outb(DATA, *byte))
}

/// Reads characters while there are any, at most 64.
pub fn drain(t: &mut TestThread<'_>) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    while bytes.len() < 64 && t.inb(LSR)? & DR != 0 {
        bytes.push(t.inb(DATA)?);
    }
    Ok(bytes)
}

/// A finding unless `register`'s bits of `mask` are `expected`.
pub fn expect(
    t: &mut TestThread<'_>,
    what: &str,
    register: u16,
    mask: u8,
    expected: u8,
) -> Outcome {
    let got = t.inb(register)? & mask;
    t.expect(what, got, expected)
}
