//! Capabilities and the main counter.

use super::ops::*;
use crate::base::Nanos;
use crate::suite::outcome::Outcome;
use crate::suite::thread::TestThread;

/// Longest period that the specification allows: 100 ns (§2.3.4).
const PERIOD_FS_MAX: u64 = 0x05f5_e100;

pub fn capabilities(t: &mut TestThread<'_>) -> Outcome {
    let id = read(t, GCAP_ID)?;
    let (period, vendor) = (id >> 32, id >> 16 & 0xffff);
    t.check(
        (1..=PERIOD_FS_MAX).contains(&period),
        format!("a period of {period} fs, at most 100 ns"),
    )?;
    t.check(vendor != 0 && vendor != 0xffff, format!("vendor {vendor:04x}"))?;
    t.check(id & 0xff != 0, "a revision, which is not 0")?;
    t.check(id >> 13 & 1 != 0, "a 64-bit main counter")?;
    t.check(id >> 15 & 1 != 0, "the legacy replacement route")?;
    let timers = timers(t)?;
    t.check(timers >= 3, format!("{timers} timers, at least 3"))?;
    let capabilities = |conf: u64| conf & (PERIODIC_CAP | SIZE_CAP | FSB_CAP) | conf >> 32 << 32;
    let mut periodic = 0;
    for n in 0..timers {
        let before = read(t, conf(n))?;
        t.check(before >> 32 != 0 || before & FSB_CAP != 0, format!("timer {n} has a route"))?;
        periodic += u64::from(before & PERIODIC_CAP != 0);
        write(t, conf(n), !before & !(INT_ENB | FSB_EN))?;
        let after = read(t, conf(n))?;
        t.expect(
            "capabilities of a timer after a write",
            capabilities(after),
            capabilities(before),
        )?;
        write(t, conf(n), 0)?;
    }
    t.check(periodic >= 1, "a timer that can be periodic")?;
    write(t, GCAP_ID, !id)?;
    expect_register(t, "capabilities after a write", GCAP_ID, id)
}

pub fn rate(t: &mut TestThread<'_>) -> Outcome {
    write(t, GEN_CONF, ENABLE)?;
    let period_fs = u128::from(read(t, GCAP_ID)? >> 32);
    for nanos in [1_000, 999_999_999, 3_600_000_000_000] {
        let (start, from) = (t.now(), read(t, MAIN_CNT)?);
        t.step(Nanos(nanos))?;
        let counts = u128::from(read(t, MAIN_CNT)? - from);
        let expected = u128::from(t.now() - start) * 1_000_000 / period_fs;
        if counts != expected && counts != expected + 1 {
            let what = format!("counts in {nanos} ns");
            return t.failed(what, format!("{expected} or one more"), counts.to_string());
        }
    }
    Ok(())
}

pub fn halted_write(t: &mut TestThread<'_>) -> Outcome {
    write(t, MAIN_CNT, 0x1_ffff_fff0)?;
    expect_register(t, "main counter, written whole", MAIN_CNT, 0x1_ffff_fff0)?;
    t.step(Nanos::from_millis(1))?;
    expect_register(t, "main counter, halted for a millisecond", MAIN_CNT, 0x1_ffff_fff0)?;
    write_half(t, MAIN_CNT + 4, 5)?;
    expect_register(t, "main counter, upper half written", MAIN_CNT, 0x5_ffff_fff0)?;
    write_half(t, MAIN_CNT, 0xffff_fff8)?;
    write(t, GEN_CONF, ENABLE)?;
    step(t, 0x10)?;
    let low = read_half(t, MAIN_CNT)?;
    t.check(
        low.wrapping_sub(7) <= 2,
        format!("the counter goes on from what was written: {low:#x}"),
    )?;
    let high = read_half(t, MAIN_CNT + 4)?;
    t.expect("upper half after the lower one went around", high, 6)?;
    write(t, GEN_CONF, 0)?;
    let held = read(t, MAIN_CNT)?;
    t.step(Nanos::from_millis(1))?;
    expect_register(t, "main counter, halted again", MAIN_CNT, held)
}

pub fn halves(t: &mut TestThread<'_>) -> Outcome {
    for register in [GCAP_ID, GEN_CONF, GINTR_STA, MAIN_CNT, conf(0), comparator(1)] {
        let whole = read(t, register)?;
        let halves = read_half(t, register)? | read_half(t, register + 4)? << 32;
        t.expect(&format!("register {register:#x} in halves"), halves, whole)?;
    }
    write_half(t, comparator(2), 0x89ab_cdef)?;
    write_half(t, comparator(2) + 4, 0x0123_4567)?;
    expect_register(t, "comparator written in halves", comparator(2), 0x0123_4567_89ab_cdef)?;
    write_half(t, comparator(2), 1)?;
    expect_register(t, "comparator, lower half written", comparator(2), 0x0123_4567_0000_0001)
}
