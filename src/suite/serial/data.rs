//! Registers and characters.

use super::port::*;
use crate::suite::{Outcome, TestThread};

/// §8.0, tables I and II. MCR at reset is left out: the data sheet has 0 and PCs power on with OUT2.
pub fn registers(t: &mut TestThread<'_>) -> Outcome {
    quiet(t)?;
    expect(t, "IER after it was cleared", IER, 0xff, 0)?;
    expect(t, "IIR with nothing pending", IIR, 0xff, 0x01)?;
    expect(t, "LSR of an idle port", LSR, 0xff, IDLE)?;
    // Not to the end: bit 7 would bring the divisor latch to IER's address, bit 6 sends a break.
    for value in [0x00, 0x15, 0x2a, 0x3f, EIGHT_N_1] {
        t.outb(LCR, value)?;
        expect(t, "LCR holds what was written", LCR, 0xff, value)?;
    }
    for value in [0x00, 0x05, 0x0a, 0xff, 0x00] {
        t.outb(IER, value)?;
        expect(t, "IER bits 3:0 hold and 7:4 are 0", IER, 0xff, value & 0x0f)?;
    }
    for value in [0x1f, 0x15, 0x0a, 0xe8] {
        t.outb(MCR, value)?;
        expect(t, "MCR bits 4:0 hold and 7:5 are 0", MCR, 0xff, value & 0x1f)?;
    }
    let lines = t.inb(MSR)?;
    t.outb(MSR, !lines)?;
    expect(t, "MSR bits 7:4 are the modem's", MSR, 0xf0, lines & 0xf0)
}

/// §8.10.
pub fn scratch(t: &mut TestThread<'_>) -> Outcome {
    quiet(t)?;
    for value in 0..=0xff {
        t.outb(SCR, value)?;
        expect(t, "SCR holds what was written", SCR, 0xff, value)?;
    }
    expect(t, "LCR after SCR was written", LCR, 0xff, EIGHT_N_1)?;
    expect(t, "IER after SCR was written", IER, 0xff, 0)?;
    expect(t, "LSR after SCR was written", LSR, 0xff, IDLE)
}

/// §8.1, DLAB, and §8.3.
pub fn divisor_latch(t: &mut TestThread<'_>) -> Outcome {
    loopback(t)?;
    t.outb(IER, 0x04)?;
    t.outb(LCR, EIGHT_N_1 | DLAB)?;
    for (low, high) in [(0x01, 0x00), (0xff, 0xaa), (0x0c, 0x00)] {
        t.outb(DATA, low)?;
        t.outb(IER, high)?;
        expect(t, "DLL holds what was written", DATA, 0xff, low)?;
        expect(t, "DLM holds what was written", IER, 0xff, high)?;
    }
    expect(t, "LSR: a divisor is no character", LSR, DR, 0)?;
    t.outb(LCR, EIGHT_N_1)?;
    expect(t, "IER behind the divisor latch", IER, 0xff, 0x04)?;
    send(t, &[0x5a])?;
    let received = drain(t)?;
    t.expect("a character behind the divisor latch", received, vec![0x5a])?;
    t.outb(LCR, EIGHT_N_1 | DLAB)?;
    expect(t, "DLL after a character was sent", DATA, 0xff, 0x0c)
}

/// §8.5 and §8.6, bits 7:6.
pub fn fifo(t: &mut TestThread<'_>) -> Outcome {
    loopback(t)?;
    expect(t, "IIR bits 7:6 with FIFOs off", IIR, 0xc0, 0)?;
    t.outb(FCR, 0x01)?;
    expect(t, "IIR bits 7:6 with FIFOs on", IIR, 0xc0, 0xc0)?;
    send(t, b"abc")?;
    t.outb(FCR, 0x03)?;
    expect(t, "LSR.DR after the receiver FIFO was cleared", LSR, DR, 0)?;
    expect(t, "the clear bit is not kept: FIFOs are on", IIR, 0xc0, 0xc0)?;
    send(t, b"abc")?;
    t.outb(FCR, 0x00)?;
    expect(t, "LSR.DR after FIFOs were switched off", LSR, DR, 0)?;
    expect(t, "IIR bits 7:6 with FIFOs off again", IIR, 0xc0, 0)?;
    send(t, b"x")?;
    t.outb(FCR, 0x01)?;
    expect(t, "LSR.DR after FIFOs were switched on", LSR, DR, 0)
}

/// §8.8, bit 4, and §8.4, bits 0, 5 and 6.
pub fn through_the_loop(t: &mut TestThread<'_>) -> Outcome {
    loopback(t)?;
    for byte in [0x00, 0x55, 0xff] {
        send(t, &[byte])?;
        expect(t, "LSR with a character", LSR, 0xff, IDLE | DR)?;
        expect(t, "the character in RBR", DATA, 0xff, byte)?;
        expect(t, "LSR after RBR was read", LSR, 0xff, IDLE)?;
    }
    t.outb(FCR, 0x01)?;
    let text: Vec<u8> = (0..16).map(|_| t.prng().next_u64() as u8).collect();
    send(t, &text)?;
    let received = drain(t)?;
    t.expect("16 characters through the FIFO", received, text)
}

/// §8.4, bit 1: the FIFO keeps what it has, the buffer does not; reading LSR clears the bit.
pub fn overrun(t: &mut TestThread<'_>) -> Outcome {
    loopback(t)?;
    send(t, b"ab")?;
    expect(t, "LSR.OE after a second character", LSR, OE | DR, OE | DR)?;
    expect(t, "LSR.OE after LSR was read", LSR, OE | DR, DR)?;
    expect(t, "RBR has the later character", DATA, 0xff, b'b')?;
    t.outb(FCR, 0x01)?;
    let text: Vec<u8> = (b'A'..=b'P').collect();
    send(t, &text)?;
    expect(t, "LSR.OE with 16 characters in the FIFO", LSR, OE, 0)?;
    send(t, b"!")?;
    expect(t, "LSR.OE after a 17th character", LSR, OE, OE)?;
    let received = drain(t)?;
    t.expect("the FIFO after an overrun", received, text)
}
