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

/// Sets the accumulator of periodic timer `n`, then its period. VAL_SET clears itself with a write
/// (§2.3.8), so that software which writes halves sets it for each of them.
fn set_periodic(t: &mut TestThread<'_>, n: u64, first: u64, period: u64) -> Outcome {
    let mode = read(t, conf(n))?;
    for (half, value) in [(0, first & 0xffff_ffff), (4, first >> 32)] {
        write(t, conf(n), mode | VAL_SET)?;
        write_half(t, comparator(n) + half, value)?;
    }
    write(t, comparator(n), period)
}

pub fn periodic_whole(t: &mut TestThread<'_>) -> Outcome {
    let n = periodic_timer(t)?;
    let (_, event) = routed(t, n, INT_ENB | PERIODIC)?;
    let mode = read(t, conf(n))?;
    write(t, conf(n), mode | VAL_SET)?;
    write(t, comparator(n), 0x1_0000_1000)?;
    expect_register(t, "comparator set through VAL_SET", comparator(n), 0x1_0000_1000)?;
    write(t, comparator(n), 100_000)?;
    expect_register(t, "comparator after the period was set", comparator(n), 0x1_0000_1000)?;
    write(t, MAIN_CNT, 0x1_0000_0000)?;
    let start = go(t)?;
    for due in [0x1000, 0x1000 + 100_000] {
        let end = after(t, start, due)?;
        expect_at(t, &format!("match at {due}"), &event, (end, 0))?;
    }
    Ok(())
}

pub fn periodic(t: &mut TestThread<'_>) -> Outcome {
    periods(t, Edges::OneOrTwo)
}

pub fn periodic_count(t: &mut TestThread<'_>) -> Outcome {
    periods(t, Edges::One)?;
    super::quiet(t)?;
    changed_period(t, Edges::One)
}

pub fn periodic_change(t: &mut TestThread<'_>) -> Outcome {
    changed_period(t, Edges::OneOrTwo)
}

fn periods(t: &mut TestThread<'_>, edges: Edges) -> Outcome {
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
        expect_match(t, &format!("period {periods}"), &event, (end, between), edges)?;
        expect_register(t, "comparator after a match", comparator(n), due + 100_000)?;
    }
    Ok(())
}

fn changed_period(t: &mut TestThread<'_>, edges: Edges) -> Outcome {
    let n = periodic_timer(t)?;
    let (_, event) = routed(t, n, INT_ENB | PERIODIC)?;
    set_periodic(t, n, 100_000, 100_000)?;
    let start = go(t)?;
    let end = after(t, start, 100_000)?;
    expect_match(t, "match at 100000", &event, (end, 0), edges)?;
    step(t, 50_000)?;
    // Without VAL_SET the match that is due stays.
    write(t, comparator(n), 30_000)?;
    expect_register(t, "comparator after a new period", comparator(n), 200_000)?;
    for due in [200_000, 230_000, 260_000] {
        let end = after(t, start, due)?;
        expect_match(t, &format!("match at {due}"), &event, (end, 0), edges)?;
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
    let wrap = after(t, start, 0x8000)?;
    expect_perhaps(t, "32-bit timer, where the lower half wraps around", &event, wrap)?;
    let end = after(t, start, 0x1_0000)?;
    expect_at(t, "32-bit match beyond the lower half's end", &event, (end, 0))
}

/// §2.3.9.2.1: "another interrupt when the main counter wraps around". That is the next time that
/// the low half matches, or else the moment at which it wraps: both are found in the field.
pub fn narrow_again(t: &mut TestThread<'_>) -> Outcome {
    let (_, event) = routed(t, 0, INT_ENB | MODE_32)?;
    write(t, comparator(0), 0x8000)?;
    let start = go(t)?;
    let end = after(t, start, 0x8000)?;
    expect_at(t, "32-bit match", &event, (end, 0))?;
    let wrap = after(t, start, 1 << 32)?;
    let at_wrap = expect_perhaps(t, "32-bit timer, after its match", &event, wrap)?;
    let again = after(t, start, (1 << 32) + 0x8000)?;
    let at_match = expect_perhaps(t, "32-bit timer, after the wrap", &event, again)?;
    t.check(at_wrap + at_match > 0, "interrupts of a 32-bit timer that goes around")
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
