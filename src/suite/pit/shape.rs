//! What OUT2 looks like in each mode (8254, "Mode Definitions").

use super::ops::*;
use crate::driver::pit::Control;
use crate::suite::outcome::Outcome;
use crate::suite::thread::TestThread;

const fn low(clocks: u64) -> Run {
    Run { high: false, clocks }
}

const fn high(clocks: u64) -> Run {
    Run { high: true, clocks }
}

/// Nothing comes after the runs that were compared.
fn expect_end(t: &TestThread<'_>, what: &str, seen: &[Run], len: usize) -> Outcome {
    if seen.len() == len { Ok(()) } else { t.failed(what, "no further change", shape(seen)) }
}

pub fn mode_0(t: &mut TestThread<'_>) -> Outcome {
    gate(t, true)?;
    start(t, 0, 20)?;
    expect_out2(t, "OUT after a control word of mode 0", false)?;
    let seen = runs(t, 100)?;
    expect_shape(t, "OUT with a count of 20", &seen, low(20), &[])?;
    expect_end(t, "OUT after terminal count", &seen, 2)?;
    new_count(t, 7)?;
    let seen = runs(t, 50)?;
    expect_shape(t, "OUT with a new count of 7", &seen, low(7), &[])?;
    expect_end(t, "OUT after the second terminal count", &seen, 2)
}

pub fn initial(t: &mut TestThread<'_>) -> Outcome {
    gate(t, true)?;
    start(t, 0, 20)?;
    step(t, 30)?;
    expect_out2(t, "OUT after terminal count", true)?;
    for mode in [0, 1, 0, 2, 0, 3, 0, 4, 0, 5] {
        Control::new(COUNTER, mode).write(t.machine().bus()?);
        expect_out2(t, &format!("OUT after a control word of mode {mode}"), mode != 0)?;
        step(t, 100)?;
        let what = format!("OUT after a control word of mode {mode} and no count");
        expect_out2(t, &what, mode != 0)?;
    }
    Ok(())
}

pub fn mode_1(t: &mut TestThread<'_>) -> Outcome {
    gate(t, false)?;
    start(t, 1, 10)?;
    let seen = runs(t, 40)?;
    t.expect("OUT before the trigger", shape(&seen), "-40".into())?;
    trigger(t)?;
    let seen = runs(t, 40)?;
    expect_pulse(t, "OUT after a trigger", &seen, 10)?;
    // A trigger during the pulse begins it again; a count written during it waits for a trigger.
    trigger(t)?;
    step(t, 5)?;
    new_count(t, 3)?;
    let seen = runs(t, 2)?;
    t.expect("OUT after a count during the pulse", shape(&seen), "_2".into())?;
    trigger(t)?;
    let seen = runs(t, 40)?;
    expect_shape(t, "OUT after a trigger during the pulse", &seen, low(3), &[])?;
    expect_end(t, "OUT after the pulse", &seen, 2)
}

/// A low pulse of exactly `clocks`, then nothing.
fn expect_pulse(t: &TestThread<'_>, what: &str, seen: &[Run], clocks: u64) -> Outcome {
    let pulses: Vec<u64> = seen.iter().filter(|run| !run.high).map(|run| run.clocks).collect();
    let ends_high = seen.last().is_some_and(|run| run.high);
    if pulses == [clocks] && ends_high {
        return Ok(());
    }
    t.failed(what, format!("_{clocks}, then high"), shape(seen))
}

fn trigger(t: &mut TestThread<'_>) -> Outcome {
    gate(t, false)?;
    gate(t, true)
}

pub fn rate(t: &mut TestThread<'_>) -> Outcome {
    gate(t, true)?;
    [(2, 9), (3, 9), (3, 10)].into_iter().try_for_each(|(mode, clocks)| rate_of(t, mode, clocks))
}

fn rate_of(t: &mut TestThread<'_>, mode: u8, clocks: u16) -> Outcome {
    start(t, mode, clocks)?;
    let seen = runs(t, 6 * u64::from(clocks))?;
    // From one rise to the next: a high run, which is whole but for the first, and a low one.
    let whole = seen.get(2..seen.len().saturating_sub(1)).unwrap_or_default();
    let low_first = usize::from(whole.first().is_some_and(|run| !run.high));
    let pairs = whole.get(low_first..).unwrap_or_default().chunks_exact(2);
    let periods: Vec<u64> = pairs.map(|pair| pair.iter().map(|run| run.clocks).sum()).collect();
    if periods.len() >= 3 && periods.iter().all(|period| *period == u64::from(clocks)) {
        return Ok(());
    }
    let what = format!("clocks from one rise of OUT to the next, mode {mode}");
    t.failed(what, clocks.to_string(), format!("{periods:?}: {}", shape(&seen)))
}

pub fn mode_2(t: &mut TestThread<'_>) -> Outcome {
    gate(t, true)?;
    rate_generator(t, 2)
}

fn rate_generator(t: &mut TestThread<'_>, mode: u8) -> Outcome {
    start(t, mode, 9)?;
    let seen = runs(t, 60)?;
    let what = format!("OUT in mode {mode} with a count of 9");
    expect_shape(t, &what, &seen, high(8), &[1, 8, 1, 8, 1, 8])?;
    start(t, mode, 2)?;
    let seen = runs(t, 20)?;
    expect_shape(t, "OUT with the smallest count, 2", &seen, high(1), &[1, 1, 1, 1, 1])
}

pub fn mode_3(t: &mut TestThread<'_>) -> Outcome {
    gate(t, true)?;
    square_wave(t, 3)
}

fn square_wave(t: &mut TestThread<'_>, mode: u8) -> Outcome {
    start(t, mode, 10)?;
    let seen = runs(t, 60)?;
    let what = format!("OUT in mode {mode} with a count of 10");
    expect_shape(t, &what, &seen, high(5), &[5, 5, 5, 5, 5])?;
    start(t, mode, 11)?;
    let seen = runs(t, 60)?;
    let what = format!("OUT in mode {mode} with a count of 11");
    expect_shape(t, &what, &seen, high(6), &[5, 6, 5, 6, 5])
}

/// "Control Word Format": M2 is not looked at in modes 2 and 3.
pub fn mode_bits(t: &mut TestThread<'_>) -> Outcome {
    gate(t, true)?;
    rate_of(t, 6, 9)?;
    rate_of(t, 7, 10)?;
    rate_generator(t, 6)?;
    square_wave(t, 7)
}

pub fn mode_4(t: &mut TestThread<'_>) -> Outcome {
    gate(t, true)?;
    start(t, 4, 10)?;
    let seen = runs(t, 60)?;
    expect_shape(t, "OUT with a count of 10", &seen, high(10), &[1])?;
    expect_end(t, "OUT after the strobe", &seen, 3)?;
    // A count begins anew, and no strobe comes when the count passes zero again.
    new_count(t, 30)?;
    step(t, 10)?;
    new_count(t, 10)?;
    let seen = runs(t, 60)?;
    expect_shape(t, "OUT with a new count of 10", &seen, high(10), &[1])?;
    step(t, 0x1_0000 - 70)?;
    let seen = runs(t, 60)?;
    t.expect("OUT 65,536 clocks after the strobe", shape(&seen), "-60".into())
}

pub fn mode_5(t: &mut TestThread<'_>) -> Outcome {
    gate(t, false)?;
    start(t, 5, 10)?;
    let seen = runs(t, 40)?;
    t.expect("OUT before the trigger", shape(&seen), "-40".into())?;
    trigger(t)?;
    let seen = runs(t, 60)?;
    expect_shape(t, "OUT after a trigger", &seen, high(10), &[1])?;
    expect_end(t, "OUT after the strobe", &seen, 3)?;
    trigger(t)?;
    step(t, 5)?;
    trigger(t)?;
    let seen = runs(t, 60)?;
    expect_shape(t, "OUT after a second trigger", &seen, high(10), &[1])
}
