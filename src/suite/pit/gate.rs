//! GATE of counter 2, and port 61h.

use super::ops::*;
use crate::driver::pit::{self, CLOCK, GATE2, REFRESH, SPEAKER};
use crate::suite::outcome::Outcome;
use crate::suite::thread::TestThread;

pub fn restarts(t: &mut TestThread<'_>) -> Outcome {
    for mode in [1, 5, 2, 3] {
        gate(t, true)?;
        start(t, mode, 1_000)?;
        step(t, 700)?;
        gate(t, false)?;
        gate(t, true)?;
        step(t, 10)?;
        let by = if mode == 3 { 2 } else { 1 };
        let expected = 1_000 - 10 * by;
        let what = format!("count 10 clocks after GATE rose, mode {mode}");
        let got = count(t)?;
        expect_in(t, &what, got.into(), expected - by..=expected + 2 * by)?;
    }
    // Mode 3 begins with the high half.
    let seen = runs(t, 1_200)?;
    expect_shape(t, "OUT after GATE rose, mode 3", &seen, Run { high: true, clocks: 490 }, &[500])
}

pub fn stops(t: &mut TestThread<'_>) -> Outcome {
    for mode in [0, 4] {
        gate(t, true)?;
        start(t, mode, 100)?;
        step(t, 40)?;
        gate(t, false)?;
        let held = count(t)?;
        step(t, 1_000)?;
        expect_count(t, &format!("count while GATE is low, mode {mode}"), held)?;
        gate(t, true)?;
        step(t, 10)?;
        let passed = u64::from(held.wrapping_sub(count(t)?));
        expect_in(t, &format!("counts after GATE rose, mode {mode}"), passed, 9..=11)?;
    }
    for mode in [2, 3] {
        gate(t, true)?;
        start(t, mode, 10)?;
        wait_for_low(t)?;
        gate(t, false)?;
        let seen = runs(t, 60)?;
        t.expect(&format!("OUT while GATE is low, mode {mode}"), shape(&seen), "-60".into())?;
    }
    Ok(())
}

fn wait_for_low(t: &mut TestThread<'_>) -> Outcome {
    for _ in 0..100 {
        if !out2(t)? {
            return Ok(());
        }
        t.step(crate::base::Nanos(200))?;
    }
    t.failed("OUT", "low once in 10 clocks", "high")
}

pub fn port_61(t: &mut TestThread<'_>) -> Outcome {
    for value in [0, GATE2, SPEAKER, GATE2 | SPEAKER] {
        pit::write_port_61(t.machine().bus()?, value);
        let read = pit::read_port_61(t.machine().bus()?) & (GATE2 | SPEAKER);
        t.expect("gate and speaker bits of port 61h", read, value)?;
    }
    start(t, 0, 50)?;
    expect_out2(t, "OUT2 in port 61h before terminal count", false)?;
    step(t, 60)?;
    expect_out2(t, "OUT2 in port 61h after it", true)?;
    // A refresh cycle each 18 clocks.
    let mut changes = 0;
    let mut last = pit::read_port_61(t.machine().bus()?) & REFRESH;
    for _ in 0..100 {
        t.step(CLOCK.time_of(18))?;
        let level = pit::read_port_61(t.machine().bus()?) & REFRESH;
        changes += u64::from(level != last);
        last = level;
    }
    expect_in(t, "changes of the refresh bit in 100 cycles", changes, 99..=100)
}
