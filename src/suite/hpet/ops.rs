//! The block's registers as software sees them, and what the cases have in common.

use std::sync::Arc;

use crate::base::Nanos;
use crate::machine::{IrqEvent, IrqSource};
use crate::suite::outcome::Outcome;
use crate::suite::thread::TestThread;

/// Where PC chipsets have the block.
const BASE: u64 = 0xfed0_0000;

/// General capabilities and ID (§2.3.4).
pub const GCAP_ID: u64 = 0x000;
/// General configuration (§2.3.5).
pub const GEN_CONF: u64 = 0x010;
/// General interrupt status (§2.3.6).
pub const GINTR_STA: u64 = 0x020;
/// Main counter (§2.3.7).
pub const MAIN_CNT: u64 = 0x0f0;

/// GEN_CONF: the counter runs.
pub const ENABLE: u64 = 1 << 0;
/// GEN_CONF: legacy replacement route.
pub const LEGACY: u64 = 1 << 1;

/// Timer: level triggered (§2.3.8).
pub const LEVEL: u64 = 1 << 1;
/// Timer: interrupts enabled.
pub const INT_ENB: u64 = 1 << 2;
/// Timer: periodic.
pub const PERIODIC: u64 = 1 << 3;
/// Timer: can be periodic.
pub const PERIODIC_CAP: u64 = 1 << 4;
/// Timer: has 64 bits.
pub const SIZE_CAP: u64 = 1 << 5;
/// Timer: the next write sets the accumulator.
pub const VAL_SET: u64 = 1 << 6;
/// Timer: works with 32 bits.
pub const MODE_32: u64 = 1 << 8;
/// Timer: interrupt route, bits 13:9.
pub const ROUTE_SHIFT: u32 = 9;
/// Timer: mask of the route.
pub const ROUTE: u64 = 31 << ROUTE_SHIFT;
/// Timer: interrupts are messages.
pub const FSB_EN: u64 = 1 << 14;
/// Timer: can send messages.
pub const FSB_CAP: u64 = 1 << 15;

const FEMTOS_PER_NANO: u64 = 1_000_000;

/// Configuration of timer `n`.
pub const fn conf(n: u64) -> u64 {
    0x100 + 0x20 * n
}

/// Comparator of timer `n`.
pub const fn comparator(n: u64) -> u64 {
    conf(n) + 8
}

/// FSB route of timer `n`.
pub const fn fsb_route(n: u64) -> u64 {
    conf(n) + 16
}

/// Reads 64 bits.
pub fn read(t: &mut TestThread<'_>, register: u64) -> Outcome<u64> {
    t.load(BASE + register, 8)
}

/// Writes 64 bits.
pub fn write(t: &mut TestThread<'_>, register: u64, value: u64) -> Outcome {
    t.store(BASE + register, 8, value)
}

/// Reads the half at `offset`.
pub fn read_half(t: &mut TestThread<'_>, offset: u64) -> Outcome<u64> {
    t.load(BASE + offset, 4)
}

/// Writes the half at `offset`.
pub fn write_half(t: &mut TestThread<'_>, offset: u64, value: u64) -> Outcome {
    t.store(BASE + offset, 4, value)
}

/// A finding unless a register reads `expected`.
pub fn expect_register(
    t: &mut TestThread<'_>,
    what: &str,
    register: u64,
    expected: u64,
) -> Outcome {
    let got = read(t, register)?;
    t.expect(what, got, expected)
}

/// Timers of the block.
pub fn timers(t: &mut TestThread<'_>) -> Outcome<u64> {
    Ok((read(t, GCAP_ID)? >> 8 & 31) + 1)
}

/// The time of `counts`, rounded up to a nanosecond.
pub fn time_of(t: &mut TestThread<'_>, counts: u64) -> Outcome<Nanos> {
    let period_fs = read(t, GCAP_ID)? >> 32;
    let nanos = (u128::from(counts) * u128::from(period_fs)).div_ceil(FEMTOS_PER_NANO.into());
    Ok(Nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
}

/// Lets `counts` pass.
pub fn step(t: &mut TestThread<'_>, counts: u64) -> Outcome {
    let time = time_of(t, counts)?;
    t.step(time)
}

/// The lowest route that timer `n` offers, as a line and as it is written.
pub fn route(t: &mut TestThread<'_>, n: u64) -> Outcome<(u32, u64)> {
    let offered = (read(t, conf(n))? >> 32) as u32;
    let line = offered.trailing_zeros();
    if line >= 24 {
        return t.failed(
            format!("routes of timer {n}"),
            "an input of the I/O APIC",
            format!("{offered:#x}"),
        );
    }
    Ok((line, u64::from(line) << ROUTE_SHIFT))
}

/// Routes timer `n` with `conf` and watches its line.
pub fn routed(t: &mut TestThread<'_>, n: u64, mode: u64) -> Outcome<(u32, Arc<IrqEvent>)> {
    let (line, route) = route(t, n)?;
    write(t, conf(n), mode | route)?;
    Ok((line, t.watch(IrqSource::Intx(line))?))
}

/// The level of a line.
pub fn level(t: &mut TestThread<'_>, line: u32) -> Outcome<bool> {
    Ok(t.machine().interrupts()?.intx_level(line))
}

/// How many edges an interrupt may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edges {
    /// It is one interrupt.
    One,
    /// The case looks at the moments only; another one counts.
    OneOrTwo,
}

/// Runs to just before and just after `end`: `before` interrupts by then, one at it.
pub fn expect_at(
    t: &mut TestThread<'_>,
    what: &str,
    event: &IrqEvent,
    when: (Nanos, u64),
) -> Outcome {
    expect_match(t, what, event, when, Edges::One)
}

/// As [`expect_at`], of interrupts that make so many edges.
pub fn expect_match(
    t: &mut TestThread<'_>,
    what: &str,
    event: &IrqEvent,
    (end, before): (Nanos, u64),
    edges: Edges,
) -> Outcome {
    let interrupts = |count: u64, due: u64| match edges {
        Edges::OneOrTwo if (due..=2 * due).contains(&count) => due,
        _ => count,
    };
    // A count begins anywhere in the nanoseconds of the one before.
    let count = time_of(t, 1)?.0 + 1;
    t.run_until(Nanos(end.0.saturating_sub(count)))?;
    let came = interrupts(event.take(), before);
    t.expect(&format!("{what}: interrupts before the match"), came, before)?;
    t.run_until(Nanos(end.0.saturating_add(count)))?;
    let came = interrupts(event.take(), 1);
    t.expect(&format!("{what}: interrupts at the match"), came, 1)
}

/// Runs to just after `at`: one interrupt around it, or none, and none before. How many.
pub fn expect_perhaps(
    t: &mut TestThread<'_>,
    what: &str,
    event: &IrqEvent,
    at: Nanos,
) -> Outcome<u64> {
    let margin = time_of(t, 2)?.0;
    t.expect_quiet_until(what, event, Nanos(at.0.saturating_sub(margin)))?;
    t.run_until(Nanos(at.0.saturating_add(margin)))?;
    match event.take() {
        count @ 0..=1 => Ok(count),
        count => t.failed(what, "one interrupt at most", format!("{count}")),
    }
}
