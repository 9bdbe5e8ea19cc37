//! The timer, its status, and SCI (ACPI §4.7.2.1, §4.7.3).

use super::ops::*;
use crate::base::Nanos;
use crate::driver::acpi::{SCI, SCI_EN, SLP_EN, TIMER, TIMER_BITS, TMR};
use crate::machine::IrqSource;
use crate::suite::outcome::Outcome;
use crate::suite::thread::TestThread;

const MASK: u64 = (1 << TIMER_BITS) - 1;
/// From one change of bit 23 to the next.
const HALF: u64 = 1 << (TIMER_BITS - 1);

pub fn rate(t: &mut TestThread<'_>) -> Outcome {
    let pm = open(t)?;
    for nanos in [1_000_000, 999_999_999, 4_000_000_000, 3_600_000_000_000] {
        let (start, from) = (t.now(), timer(t, pm)?);
        t.step(Nanos(nanos))?;
        let ticks = u64::from(timer(t, pm)?.wrapping_sub(from)) & MASK;
        let expected = TIMER.ticks(Nanos(t.now() - start));
        if ticks != expected & MASK && ticks != (expected + 1) & MASK {
            let what = format!("ticks in {nanos} ns, modulo 2^24");
            return t.failed(what, format!("{} or one more", expected & MASK), ticks.to_string());
        }
    }
    Ok(())
}

pub fn width(t: &mut TestThread<'_>) -> Outcome {
    let pm = open(t)?;
    for _ in 0..2 {
        before_change(t, pm)?;
        for _ in 0..2 {
            let value = timer(t, pm)?;
            t.expect("bits 31:24 of the timer", value >> TIMER_BITS, 0)?;
            step(t, 10)?;
        }
    }
    // One of the two changes was the one from all ones to zero.
    before_change(t, pm)?;
    let before = timer(t, pm)?;
    step(t, 6)?;
    let passed = u64::from(timer(t, pm)?.wrapping_sub(before)) & MASK;
    t.check(
        (6..=7).contains(&passed),
        format!("the timer goes on over a change: {passed} ticks in 6"),
    )?;
    let before = timer(t, pm)?;
    pm.write_timer(t.machine().bus()?, 0x00ab_cdef);
    let after = timer(t, pm)?;
    t.expect("timer after it was written", after, before)
}

pub fn status(t: &mut TestThread<'_>) -> Outcome {
    let pm = open(t)?;
    for _ in 0..3 {
        before_change(t, pm)?;
        pm.clear(t.machine().bus()?, u16::MAX);
        expect_status(t, pm, "before bit 23 changes", false)?;
        step(t, 4)?;
        expect_status(t, pm, "after bit 23 changed", true)?;
        step(t, 1_000)?;
        pm.clear(t.machine().bus()?, 0);
        expect_status(t, pm, "after 0 was written", true)?;
        pm.clear(t.machine().bus()?, !TMR);
        expect_status(t, pm, "after the other bits were cleared", true)?;
        pm.clear(t.machine().bus()?, TMR);
        expect_status(t, pm, "after it was cleared", false)?;
        step(t, HALF - 1_100)?;
        expect_status(t, pm, "shortly before the next change", false)?;
    }
    // Several changes are one status.
    step(t, 5 * HALF)?;
    pm.clear(t.machine().bus()?, TMR);
    expect_status(t, pm, "cleared after several changes", false)
}

pub fn sci(t: &mut TestThread<'_>) -> Outcome {
    let pm = open(t)?;
    let event = t.watch(IrqSource::Intx(SCI))?;
    before_change(t, pm)?;
    pm.clear(t.machine().bus()?, u16::MAX);
    enable(t, pm, TMR)?;
    let mut last: Option<Nanos> = None;
    for _ in 0..4 {
        expect_sci(t, "before bit 23 changes", false)?;
        let patience = TIMER.time_of(HALF + 4);
        let now = t.expect_next_irq("an SCI as bit 23 changes", &event, patience)?;
        if let Some(last) = last {
            let took = now - last;
            let exact = TIMER.time_of(HALF).0;
            let what = format!("{took} ns from one SCI to the next: {exact}, or one less");
            t.check((exact - 1..=exact).contains(&took), what)?;
        }
        last = Some(now);
        expect_status(t, pm, "with the SCI", true)?;
        step(t, 1_000)?;
        expect_sci(t, "until its status is cleared", true)?;
        pm.clear(t.machine().bus()?, TMR);
        expect_sci(t, "after its status is cleared", false)?;
    }
    pm.set_enables(t.machine().bus()?, 0);
    step(t, 2 * HALF)?;
    t.expect("SCIs of an event that is not enabled", event.take(), 0)
}

pub fn late_enable(t: &mut TestThread<'_>) -> Outcome {
    let pm = open(t)?;
    let event = t.watch(IrqSource::Intx(SCI))?;
    pm.set_control(t.machine().bus()?, SCI_EN);
    step(t, HALF + 10)?;
    expect_sci(t, "of an event that is not enabled", false)?;
    pm.set_enables(t.machine().bus()?, TMR);
    t.expect("SCIs as a pending event is enabled", event.take(), 1)?;
    expect_sci(t, "of a pending event", true)?;
    pm.set_enables(t.machine().bus()?, 0);
    expect_sci(t, "after the event was disabled", false)?;
    expect_status(t, pm, "after the event was disabled", true)
}

pub fn sci_enable(t: &mut TestThread<'_>) -> Outcome {
    let pm = open(t)?;
    let event = t.watch(IrqSource::Intx(SCI))?;
    pm.set_enables(t.machine().bus()?, TMR);
    step(t, HALF + 10)?;
    expect_status(t, pm, "in legacy mode", true)?;
    t.expect("SCIs in legacy mode", event.take(), 0)?;
    pm.set_control(t.machine().bus()?, SCI_EN);
    t.expect("SCIs as ACPI mode begins", event.take(), 1)?;
    pm.set_control(t.machine().bus()?, 0);
    expect_sci(t, "after ACPI mode ended", false)
}

pub fn fuzz(t: &mut TestThread<'_>) -> Outcome {
    let pm = open(t)?;
    for _ in 0..1_000 {
        let choice = t.prng().next_u64();
        let value = (choice >> 16) as u16;
        let bus = t.machine().bus()?;
        match choice & 7 {
            0 => pm.clear(bus, value),
            1 => pm.set_enables(bus, value),
            2 => pm.set_control(bus, value & !SLP_EN),
            3 => pm.write_timer(bus, value.into()),
            4 => pm.set_gpe0(bus, value >> 8 & 15 & (2 * pm.gpe0_half() - 1), value as u8),
            5 => _ = pm.status(bus),
            6 => _ = pm.timer(bus),
            _ => t.step(Nanos(choice >> 32 & 0x00ff_ffff))?,
        }
    }
    quiet(t)?;
    sci(t)
}
