//! Modem control and status, in loopback (§8.8, §8.9).

use super::port::*;
use crate::machine::IrqSource;
use crate::suite::{Outcome, TestThread};

/// MCR bit, and the MSR bit it is wired to in loopback: DTR to DSR, RTS to CTS, OUT1 to RI, OUT2 to
/// DCD.
const WIRES: [(u8, u8); 4] = [(0x01, 0x20), (0x02, 0x10), (0x04, 0x40), (0x08, 0x80)];
/// MCR: loopback alone.
const LOOP_ONLY: u8 = 0x10;
/// MSR: CTS changed.
const DCTS: u8 = 0x01;
/// MSR: RI fell.
const TERI: u8 = 0x04;
/// IER: modem status.
const MSI: u8 = 0x08;

/// Every combination of the four outputs.
pub fn lines(t: &mut TestThread<'_>) -> Outcome {
    quiet(t)?;
    let outside = t.inb(MSR)? & 0xf0;
    for outputs in 0..16 {
        t.outb(MCR, LOOP_ONLY | outputs)?;
        let wired = WIRES.iter().filter(|(from, _)| outputs & from != 0);
        let expected = wired.fold(0, |lines, (_, to)| lines | to);
        expect(
            t,
            &format!("MSR bits 7:4 with MCR {:#04x}", LOOP_ONLY | outputs),
            MSR,
            0xf0,
            expected,
        )?;
    }
    t.outb(MCR, 0x08)?;
    expect(t, "MSR bits 7:4 after loopback", MSR, 0xf0, outside)
}

/// In loopback the modem interrupts work, with MCR's outputs as their sources (§8.8, bit 4).
pub fn deltas(t: &mut TestThread<'_>) -> Outcome {
    loopback(t)?;
    let irq = t.watch(IrqSource::Intx(IRQ))?;
    t.outb(IER, MSI)?;
    t.expect("interrupts before any change", irq.take(), 0)?;
    t.outb(MCR, LOOP | 0x02)?;
    t.expect_irq("CTS changed", &irq, SOON)?;
    expect(t, "IIR after CTS changed", IIR, 0x0f, 0x00)?;
    expect(t, "MSR after CTS changed", MSR, 0x0f, DCTS)?;
    expect(t, "MSR deltas after it was read", MSR, 0x0f, 0)?;
    expect(t, "IIR after MSR was read", IIR, 0x0f, 0x01)?;
    t.outb(MCR, LOOP | 0x06)?;
    expect(t, "MSR deltas: RI's leading edge is none", MSR, 0x0f, 0)?;
    t.outb(MCR, LOOP | 0x02)?;
    expect(t, "MSR.TERI at RI's trailing edge", MSR, 0x0f, TERI)
}
