//! When a timer matches.

use super::ops::*;
use crate::base::Nanos;
use crate::suite::outcome::Outcome;
use crate::suite::thread::TestThread;

/// Starts the counter at 0; the moment of it.
fn go(t: &mut TestThread<'_>) -> Outcome<Nanos> {
    write(t, GEN_CONF, ENABLE)?;
    Ok(t.now())
}

/// The time of `counts` after `start`.
fn after(t: &mut TestThread<'_>, start: Nanos, counts: u64) -> Outcome<Nanos> {
    Ok(start + time_of(t, counts)?.0)
}

pub fn one_shot(t: &mut TestThread<'_>) -> Outcome {
    for n in 0..timers(t)? {
        super::quiet(t)?;
        let (_, event) = routed(t, n, INT_ENB)?;
        write(t, comparator(n), 50_000)?;
        let start = go(t)?;
        let what = format!("timer {n} at 50,000");
        let end = after(t, start, 50_000)?;
        expect_at(t, &what, &event, (end, 0))?;
        step(t, 10_000_000)?;
        t.expect("further interrupts", event.take(), 0)?;
        expect_register(t, "comparator of a one-shot timer", comparator(n), 50_000)?;
        // A further comparator while the counter runs.
        let next = read(t, MAIN_CNT)? + 70_000;
        write(t, comparator(n), next)?;
        let end = after(t, start, next)?;
        expect_at(t, &format!("timer {n}, set while the counter runs"), &event, (end, 0))?;
    }
    Ok(())
}

/// A timer that can be periodic.
fn periodic_timer(t: &mut TestThread<'_>) -> Outcome<u64> {
    for n in 0..timers(t)? {
        if read(t, conf(n))? & PERIODIC_CAP != 0 {
            return Ok(n);
        }
    }
    t.skip("no timer can be periodic")
}

/// Sets the accumulator of periodic timer `n`, then its period.
fn set_periodic(t: &mut TestThread<'_>, n: u64, first: u64, period: u64) -> Outcome {
    let mode = read(t, conf(n))?;
    write(t, conf(n), mode | VAL_SET)?;
    write(t, comparator(n), first)?;
    write(t, comparator(n), period)
}

pub fn periodic(t: &mut TestThread<'_>) -> Outcome {
    let n = periodic_timer(t)?;
    let (_, event) = routed(t, n, INT_ENB | PERIODIC)?;
    set_periodic(t, n, 50_000, 100_000)?;
    let mode = read(t, conf(n))?;
    t.expect("VAL_SET after a write of the comparator", mode & VAL_SET, 0)?;
    expect_register(t, "comparator set through VAL_SET", comparator(n), 50_000)?;
    let start = go(t)?;
    // The match to look at, and how many came between the one before and it.
    for (periods, between) in [(0, 0), (1, 0), (2, 0), (1_000, 997), (11_000, 9_999)] {
        let due = 50_000 + 100_000 * periods;
        let end = after(t, start, due)?;
        expect_at(t, &format!("period {periods}"), &event, (end, between))?;
        expect_register(t, "comparator after a match", comparator(n), due + 100_000)?;
    }
    Ok(())
}

pub fn periodic_change(t: &mut TestThread<'_>) -> Outcome {
    let n = periodic_timer(t)?;
    let (_, event) = routed(t, n, INT_ENB | PERIODIC)?;
    set_periodic(t, n, 100_000, 100_000)?;
    let start = go(t)?;
    step(t, 150_000)?;
    t.expect("interrupts in 150,000 counts", event.take(), 1)?;
    // Without VAL_SET the match that is due stays.
    write(t, comparator(n), 30_000)?;
    expect_register(t, "comparator after a new period", comparator(n), 200_000)?;
    for due in [200_000, 230_000, 260_000] {
        let end = after(t, start, due)?;
        expect_at(t, &format!("match at {due}"), &event, (end, 0))?;
    }
    Ok(())
}

pub fn narrow(t: &mut TestThread<'_>) -> Outcome {
    let (_, event) = routed(t, 0, INT_ENB | MODE_32)?;
    write(t, comparator(0), 0x7_0000_8000)?;
    let half = read(t, comparator(0))? & 0xffff_ffff;
    t.expect("comparator of a 32-bit timer, lower half", half, 0x8000)?;
    write(t, MAIN_CNT, 0x3_ffff_8000)?;
    let start = go(t)?;
    let end = after(t, start, 0x1_0000)?;
    expect_at(t, "32-bit match beyond the lower half's end", &event, (end, 0))?;
    // Around once: the same low half again.
    let end = after(t, start, 0x1_0001_0000)?;
    expect_at(t, "32-bit match after 2^32 counts", &event, (end, 0))
}

pub fn fuzz(t: &mut TestThread<'_>) -> Outcome {
    for _ in 0..2_000 {
        let choice = t.prng().next_u64();
        let register = match choice & 7 {
            0 => GEN_CONF,
            1 => GINTR_STA,
            2 => MAIN_CNT,
            3 | 4 => conf(choice >> 8 & 3),
            5 => comparator(choice >> 8 & 3),
            _ => choice >> 8 & 0x3f8,
        };
        let value = choice >> 32;
        match choice >> 4 & 3 {
            0 => t.step(Nanos(value & 0xffff))?,
            1 => _ = read(t, register)?,
            2 => write_half(t, register, value & !FSB_EN)?,
            // Short periods would only cost time.
            _ => write(t, register, value & !FSB_EN & !PERIODIC)?,
        }
    }
    super::quiet(t)?;
    one_shot(t)
}
