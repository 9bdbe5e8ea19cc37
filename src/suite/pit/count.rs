//! What the counting element holds.

use super::ops::*;
use crate::driver::pit::{self, Access, CLOCK, Control};
use crate::suite::outcome::Outcome;
use crate::suite::thread::TestThread;

pub fn rate(t: &mut TestThread<'_>) -> Outcome {
    gate(t, true)?;
    for (mode, by) in [(0, 1), (2, 1), (4, 1), (3, 2)] {
        start(t, mode, 60_000)?;
        step(t, 10)?;
        let first = count(t)?;
        let expected = 60_000 - 10 * by;
        let what = format!("count after 10 clocks of mode {mode}");
        expect_in(t, &what, first.into(), expected - by..=expected + 2 * by)?;
        step(t, 10_000)?;
        let passed = u64::from(first.wrapping_sub(count(t)?));
        let what = format!("counts in 10,000 clocks of mode {mode}");
        expect_in(t, &what, passed, 10_000 * by - by..=10_000 * by + by)?;
    }
    // After terminal count mode 0 counts on, around.
    start(t, 0, 100)?;
    step(t, 1_000)?;
    let around = count(t)?;
    expect_in(t, "count 900 clocks after terminal count", around.into(), 64_635..=64_637)
}

pub fn half_count(t: &mut TestThread<'_>) -> Outcome {
    gate(t, true)?;
    start(t, 0, 20)?;
    step(t, 30)?;
    expect_out2(t, "OUT after terminal count", true)?;
    let before = count(t)?;
    pit::write_byte(t.machine().bus()?, COUNTER, 50);
    expect_out2(t, "OUT after the first byte of a count", false)?;
    step(t, 1_000)?;
    expect_count(t, "count while half a count is written", before)?;
    expect_out2(t, "OUT while half a count is written", false)?;
    pit::write_byte(t.machine().bus()?, COUNTER, 0);
    let seen = runs(t, 100)?;
    expect_shape(t, "OUT with a count of 50", &seen, Run { high: false, clocks: 50 }, &[])
}

pub fn new_count(t: &mut TestThread<'_>) -> Outcome {
    gate(t, true)?;
    let high = |clocks| Run { high: true, clocks };
    start(t, 2, 20)?;
    step(t, 10)?;
    super::ops::new_count(t, 6)?;
    let seen = runs(t, 60)?;
    expect_shape(t, "mode 2: OUT with a count written in a period", &seen, high(9), &[1, 5, 1, 5])?;
    start(t, 3, 40)?;
    step(t, 10)?;
    super::ops::new_count(t, 6)?;
    let seen = runs(t, 60)?;
    expect_shape(t, "mode 3: OUT with a count written in a half", &seen, high(10), &[3, 3, 3, 3])
}

fn expect_null(t: &mut TestThread<'_>, what: &str, expected: bool) -> Outcome {
    let status = pit::status(t.machine().bus()?, COUNTER);
    t.expect(what, status.null_count, expected)
}

pub fn null_count(t: &mut TestThread<'_>) -> Outcome {
    gate(t, true)?;
    Control::new(COUNTER, 2).write(t.machine().bus()?);
    expect_null(t, "null count after a control word", true)?;
    Control::new(COUNTER, 2).write_count(t.machine().bus()?, 100);
    expect_null(t, "null count after a count", true)?;
    step(t, 2)?;
    expect_null(t, "null count after a clock", false)?;
    super::ops::new_count(t, 50)?;
    step(t, 10)?;
    expect_null(t, "null count in the period before a new count", true)?;
    step(t, 100)?;
    expect_null(t, "null count in the period after it", false)
}

pub fn bcd(t: &mut TestThread<'_>) -> Outcome {
    gate(t, true)?;
    let decades = Control { bcd: true, ..Control::new(COUNTER, 0) };
    decades.start(t.machine().bus()?, 0x1000);
    step(t, 100)?;
    let count = decades.latch_count(t.machine().bus()?);
    if ![0x0900, 0x0901, 0x0902].contains(&count) {
        return t.failed("count 100 clocks after 1000", "0x900 to 0x902", format!("{count:#x}"));
    }
    expect_out2(t, "OUT before terminal count", false)?;
    let seen = runs(t, 1_000)?;
    expect_shape(t, "OUT with 900 left", &seen, Run { high: false, clocks: 900 }, &[])?;
    decades.start(t.machine().bus()?, 0);
    step(t, 9_990)?;
    expect_out2(t, "OUT 9,990 clocks after the largest count", false)?;
    step(t, 20)?;
    expect_out2(t, "OUT 10,010 clocks after the largest count", true)?;
    let high = Control { access: Access::High, ..decades };
    high.start(t.machine().bus()?, 0x2000);
    step(t, 300)?;
    let count = high.read_count(t.machine().bus()?);
    t.expect("high byte 300 clocks after 2000", count, 0x1700)
}

pub fn wait(t: &mut TestThread<'_>) -> Outcome {
    for clocks in [100u16, 11_932, 0] {
        let start = t.now();
        pit::wait(t.machine(), clocks)?;
        let whole = CLOCK.time_of(if clocks == 0 { 0x1_0000 } else { clocks.into() }).0;
        let took = t.now() - start;
        expect_in(t, "nanoseconds of a wait", took, whole..=whole + whole / 20 + 2_000)?;
    }
    Ok(())
}
