//! The periodic interrupt (register A, RS; table 5).

use super::ops::{self, SECOND};
use crate::base::Nanos;
use crate::driver::cmos::*;
use crate::machine::IrqEvent;
use crate::suite::outcome::Outcome;
use crate::suite::thread::TestThread;

/// Edges measured at each rate.
const EDGES: u64 = 16;

/// Takes the next periodic interrupt, which is due within `patience`, and finds its moment.
fn take(t: &mut TestThread<'_>, irq: &IrqEvent, patience: u64) -> Outcome<Nanos> {
    let at = t.expect_next_irq("periodic interrupt", irq, Nanos(patience))?;
    acknowledge(t)?;
    Ok(at)
}

fn acknowledge(t: &mut TestThread<'_>) -> Outcome {
    let flags = ops::flags(t)?;
    t.expect("register C, IRQF and PF", flags & (C_IRQF | C_PF), C_IRQF | C_PF)
}

/// Every rate: edges one period apart, the first within a period.
pub fn rates(t: &mut TestThread<'_>) -> Outcome {
    let irq = ops::watch(t)?;
    for (rate, hz) in (0..).zip(RATES) {
        ops::put(t, REGISTER_A, A_DIVIDER_32KHZ | rate)?;
        ops::flags(t)?;
        irq.take();
        ops::enable(t, B_PIE)?;
        match u64::from(hz) {
            0 => {
                t.step(Nanos(2 * SECOND.0))?;
                t.expect("interrupts at rate 0", irq.take(), 0)?;
                ops::expect_flags(t, "register C, PF at rate 0", C_PF, 0)?;
            }
            hz => rate_is(t, &irq, hz)?,
        }
        ops::disable(t, B_PIE)?;
    }
    Ok(())
}

fn rate_is(t: &mut TestThread<'_>, irq: &IrqEvent, hz: u64) -> Outcome {
    let period = SECOND.0.div_ceil(hz);
    let start = take(t, irq, period + 1)?;
    for edge in 1..=EDGES {
        // Edges lie on whole nanoseconds: at most one away from the exact moment.
        let exact = start + edge * SECOND.0 / hz;
        let what = format!("periodic interrupt {edge} periods after another at {hz} Hz");
        t.expect_irq_between(&what, irq, (Nanos(exact.0 - 1), exact + 1))?;
        acknowledge(t)?;
    }
    Ok(())
}

/// Two rates in turn. The chip's edges come from one divider, QEMU's count from the last edge:
/// either way the next one is at most a period of the new rate away.
pub fn change(t: &mut TestThread<'_>) -> Outcome {
    const ROUNDS: u64 = 50;
    let irq = ops::watch(t)?;
    ops::put(t, REGISTER_A, A_DIVIDER_32KHZ | rate_of(8))?;
    ops::flags(t)?;
    ops::enable(t, B_PIE)?;
    let mut start = t.now();
    for round in 0..=ROUNDS {
        for hz in [8, 2] {
            ops::put(t, REGISTER_A, A_DIVIDER_32KHZ | rate_of(hz))?;
            take(t, &irq, SECOND.0 / u64::from(hz) + 1)?;
        }
        // The first round only finds an edge of the slower rate to measure from.
        if round == 0 {
            start = t.now();
        }
    }
    // No round is shorter than the slower period, nor longer than both: nothing was lost.
    let took = t.now() - start;
    let (first, last) = (ROUNDS * SECOND.0 / 2, ROUNDS * (SECOND.0 / 2 + SECOND.0 / 8));
    ops::expect_between(t, "50 rounds of 8 Hz and 2 Hz", took, (first - 1, last + 2 * ROUNDS))
}

/// The number of a rate that the chip has.
fn rate_of(hz: u32) -> u8 {
    rate(hz).unwrap_or(0)
}
