//! Interrupts (§8.6, §8.7, §8.11).

use super::port::*;
use crate::base::{Frequency, Nanos};
use crate::machine::IrqSource;
use crate::suite::{Outcome, TestThread};

/// IER: received data.
const RDI: u8 = 0x01;
/// IER: transmitter holding register empty.
const THRI: u8 = 0x02;
/// IER: receiver line status.
const RLSI: u8 = 0x04;
/// IIR bits 3:0: nothing.
const NONE: u8 = 0x01;
/// IIR bits 3:0: transmitter holding register empty.
const IIR_THR: u8 = 0x02;
/// IIR bits 3:0: received data.
const IIR_RDA: u8 = 0x04;
/// IIR bits 3:0: line status.
const IIR_RLS: u8 = 0x06;
/// IIR bits 3:0: character timeout.
const IIR_CTI: u8 = 0x0c;
/// The PC's crystal over the 16 clocks of a bit: bits a second at divisor 1.
const BIT_CLOCK: Frequency = Frequency::new(115_200);

/// Asserted when enabled and empty, taken back by reading IIR, asserted again by each character.
pub fn transmitter(t: &mut TestThread<'_>) -> Outcome {
    loopback(t)?;
    t.outb(FCR, 0x01)?;
    let irq = t.watch(IrqSource::Intx(IRQ))?;
    t.outb(IER, THRI)?;
    t.expect_irq("enabling the interrupt while THR is empty", &irq, SOON)?;
    expect(t, "IIR when THR is empty", IIR, 0x0f, IIR_THR)?;
    expect(t, "IIR after it said so", IIR, 0x0f, NONE)?;
    t.expect("interrupts without a character", irq.take(), 0)?;
    send(t, b"a")?;
    t.expect_irq("THR is empty again", &irq, SOON)?;
    expect(t, "LSR before IIR is read", LSR, IDLE, IDLE)?;
    expect(t, "IIR after LSR was read", IIR, 0x0f, IIR_THR)?;
    send(t, b"b")?;
    t.outb(IER, 0)?;
    expect(t, "IIR when it is disabled", IIR, 0x0f, NONE)?;
    t.outb(IER, THRI)?;
    expect(t, "IIR when it is enabled again", IIR, 0x0f, IIR_THR)
}

/// By character without FIFOs; at 1, 4, 8, 14 characters with them, and gone below the level.
pub fn receiver(t: &mut TestThread<'_>) -> Outcome {
    loopback(t)?;
    let irq = t.watch(IrqSource::Intx(IRQ))?;
    t.outb(IER, RDI)?;
    t.expect("interrupts with nothing received", irq.take(), 0)?;
    send(t, b"x")?;
    t.expect_irq("a received character", &irq, SOON)?;
    expect(t, "IIR with a received character", IIR, 0x0f, IIR_RDA)?;
    expect(t, "IIR again: it is no acknowledgement", IIR, 0x0f, IIR_RDA)?;
    t.inb(DATA)?;
    expect(t, "IIR after RBR was read", IIR, 0x0f, NONE)?;
    for (bits, level) in [(0x00, 1), (0x40, 4), (0x80, 8), (0xc0, 14)] {
        t.outb(FCR, 0x03 | bits)?;
        irq.take();
        for _ in 1..level {
            send(t, b"y")?;
        }
        let what = format!("interrupts below {level} characters");
        t.expect(&what, irq.take(), 0)?;
        send(t, b"z")?;
        t.expect_irq(&format!("{level} characters in the FIFO"), &irq, SOON)?;
        expect(t, "IIR at the trigger level", IIR, 0x0f, IIR_RDA)?;
        t.inb(DATA)?;
        expect(t, "IIR below the trigger level", IIR, 0x0f, NONE)?;
    }
    Ok(())
}

/// Line status before received data before transmitter empty; each goes when it was served.
pub fn priority(t: &mut TestThread<'_>) -> Outcome {
    loopback(t)?;
    let irq = t.watch(IrqSource::Intx(IRQ))?;
    send(t, b"ab")?;
    t.expect("interrupts while none is enabled", irq.take(), 0)?;
    t.outb(IER, RDI | THRI | RLSI)?;
    t.expect_irq("three interrupts enabled at once", &irq, SOON)?;
    expect(t, "IIR with three pending: line status", IIR, 0x0f, IIR_RLS)?;
    expect(t, "LSR with an overrun", LSR, OE, OE)?;
    expect(t, "IIR after LSR was read: received data", IIR, 0x0f, IIR_RDA)?;
    t.inb(DATA)?;
    expect(t, "IIR after RBR was read: transmitter", IIR, 0x0f, IIR_THR)?;
    expect(t, "IIR after all were served", IIR, 0x0f, NONE)?;
    let high = t.machine().interrupts()?.intx_level(IRQ);
    t.expect("the interrupt line after all were served", high, false)
}

/// §8.11: four character times after the last character came or was read.
pub fn timeout(t: &mut TestThread<'_>) -> Outcome {
    /// 10 bits a character at 9600 baud, divisor 12.
    const FOUR_CHARS: Nanos = BIT_CLOCK.time_of(4 * 10 * 12);
    loopback(t)?;
    t.outb(LCR, EIGHT_N_1 | DLAB)?;
    t.outb(DATA, 12)?;
    t.outb(IER, 0)?;
    t.outb(LCR, EIGHT_N_1)?;
    t.outb(FCR, 0x81)?;
    let irq = t.watch(IrqSource::Intx(IRQ))?;
    t.outb(IER, RDI)?;
    send(t, b"abc")?;
    // The divisor's clock runs free: the time may be a bit short.
    let bit = BIT_CLOCK.time_of(12);
    t.step(Nanos(FOUR_CHARS.0 - 2 * bit.0))?;
    t.expect("interrupts before four character times", irq.take(), 0)?;
    t.expect_irq("four character times without a character", &irq, Nanos(3 * bit.0))?;
    expect(t, "IIR at the timeout", IIR, 0x0f, IIR_CTI)?;
    expect(t, "the first character", DATA, 0xff, b'a')?;
    expect(t, "IIR after RBR was read", IIR, 0x0f, NONE)?;
    t.expect_irq("four character times after the reading", &irq, Nanos(FOUR_CHARS.0 + bit.0))?;
    let rest = drain(t)?;
    t.expect("the other characters", rest, b"bc".to_vec())?;
    irq.take();
    t.step(Nanos(10 * FOUR_CHARS.0))?;
    t.expect("interrupts of an empty FIFO", irq.take(), 0)
}
