//! SDM §11.5.4. A count of N reaches 0 after N ticks of the divided clock, and a periodic one
//! begins again in that moment. (QEMU's takes N + 1.)

use super::super::sources::{Cpu, bus};
use super::super::{Outcome, TestThread};
use super::{end, read, write};
use crate::base::Nanos;
use crate::driver::apic::local::register;
use crate::driver::apic::{LocalApic, TimerMode};

const VECTOR: u8 = 0xec;

/// The bus clock has 1 GHz: a tick is a nanosecond.
const TICK_NS: u64 = 1;

fn start(t: &mut TestThread<'_>, mode: TimerMode, divisor: u32, count: u32) -> Outcome {
    LocalApic::default().start_timer(bus(t)?, mode, VECTOR, divisor, count);
    Ok(())
}

pub fn one_shot(t: &mut TestThread<'_>) -> Outcome {
    let cpu = Cpu::watch(t, 0)?;
    for (divisor, count) in [(1, 1), (1, 1000), (16, 62_500), (128, 1_000_003)] {
        let begin = t.now();
        start(t, TimerMode::OneShot, divisor, count)?;
        let time = u64::from(divisor) * u64::from(count) * TICK_NS;
        t.run_until(begin + (time - 1))?;
        cpu.expect_none(t, "a nanosecond before the end")?;
        let left = read(t, register::TMCCT)?;
        t.expect("the last tick", left, 1)?;
        t.run_until(begin + time)?;
        cpu.expect(t, "the end", VECTOR)?;
        end(t)?;
        let left = read(t, register::TMCCT)?;
        t.expect("the count at the end", left, 0)?;
        t.step(Nanos(3 * time))?;
        cpu.expect_none(t, "one shot")?;
    }
    Ok(())
}

pub fn periodic(t: &mut TestThread<'_>) -> Outcome {
    let cpu = Cpu::watch(t, 0)?;
    let begin = t.now();
    let (divisor, count) = (2, 333_333);
    start(t, TimerMode::Periodic, divisor, count)?;
    let period = Nanos(u64::from(divisor) * u64::from(count) * TICK_NS);
    for n in 1..=1000 {
        cpu.expect_within(t, "the next period's interrupt", VECTOR, period)?;
        let time = t.now() - begin;
        t.expect(&format!("time of interrupt {n}"), time, n * period.0)?;
        end(t)?;
    }
    t.step(Nanos(10 * period.0))?;
    cpu.expect(t, "periods that nobody took", VECTOR)?;
    end(t)?;
    cpu.expect_none(t, "are one interrupt")?;
    let left = read(t, register::TMCCT)?;
    t.expect("the count at a period's begin", left, count)
}

pub fn divide(t: &mut TestThread<'_>) -> Outcome {
    for shift in 0..8 {
        let divisor = 1u32 << shift;
        let begin = t.now();
        start(t, TimerMode::OneShot, divisor, 1000)?;
        for ticks in [1, 2, 500] {
            let time = u64::from(divisor) * ticks * TICK_NS;
            t.run_until(begin + (time - 1))?;
            let before = read(t, register::TMCCT)?;
            t.run_until(begin + time)?;
            let after = read(t, register::TMCCT)?;
            let left = 1000 - ticks as u32;
            let what = format!("the count around tick {ticks}, divided by {divisor}");
            t.expect(&what, (before, after), (left + 1, left))?;
        }
    }
    Ok(())
}

pub fn masked(t: &mut TestThread<'_>) -> Outcome {
    let cpu = Cpu::watch(t, 0)?;
    start(t, TimerMode::Periodic, 1, 1000)?;
    let entry = read(t, register::LVT_TIMER)?;
    write(t, register::LVT_TIMER, entry | crate::driver::apic::local::LVT_MASKED)?;
    t.step(Nanos(2_300))?;
    let left = read(t, register::TMCCT)?;
    t.expect("masked, it counts", left, 700)?;
    cpu.expect_none(t, "masked, it does not interrupt")?;
    write(t, register::LVT_TIMER, entry)?;
    cpu.expect_none(t, "what it missed is lost")?;
    cpu.expect_within(t, "unmasked, at its next end", VECTOR, Nanos(700))?;
    end(t)
}

pub fn stop(t: &mut TestThread<'_>) -> Outcome {
    let cpu = Cpu::watch(t, 0)?;
    start(t, TimerMode::Periodic, 1, 1000)?;
    t.step(Nanos(999))?;
    write(t, register::TMICT, 0)?;
    let left = read(t, register::TMCCT)?;
    t.expect("the count is stopped at 0", left, 0)?;
    t.step(Nanos(100_000))?;
    cpu.expect_none(t, "stopped")?;
    // A new count starts anew, whatever is left of the old one.
    start(t, TimerMode::OneShot, 1, 5000)?;
    t.step(Nanos(4000))?;
    write(t, register::TMICT, 5000)?;
    t.step(Nanos(4999))?;
    cpu.expect_none(t, "it began again")?;
    t.step(Nanos(1))?;
    cpu.expect(t, "the end of the new count", VECTOR)?;
    end(t)
}
