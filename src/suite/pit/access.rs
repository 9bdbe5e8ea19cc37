//! How counts and status are written and read (8254, "Write Operations", "Read Operations").

use super::ops::*;
use crate::driver::pit::{self, Access, Control, Latch, Status};
use crate::suite::outcome::Outcome;
use crate::suite::thread::TestThread;

pub fn bytes(t: &mut TestThread<'_>) -> Outcome {
    gate(t, true)?;
    for (access, written, after_10) in
        [(Access::Low, 0x56, 0x4b..=0x4d), (Access::High, 0x1200, 0x1100..=0x1100)]
    {
        let control = Control { access, ..Control::new(COUNTER, 0) };
        control.start(t.machine().bus()?, written);
        step(t, 10)?;
        for _ in 0..3 {
            let count = control.read_count(t.machine().bus()?);
            let what = format!("count, access {access:?}, each read");
            expect_in(t, &what, count.into(), after_10.clone())?;
        }
    }
    let both = Control::new(COUNTER, 0);
    both.start(t.machine().bus()?, 0x1234);
    step(t, 10)?;
    for _ in 0..3 {
        let count = both.read_count(t.machine().bus()?);
        expect_in(t, "count, low byte first, each pair of reads", count.into(), 0x1229..=0x122b)?;
    }
    Ok(())
}

pub fn latch(t: &mut TestThread<'_>) -> Outcome {
    gate(t, true)?;
    start(t, 0, 0x4000)?;
    step(t, 0x10)?;
    let control = Control::new(COUNTER, 0);
    let live = control.read_count(t.machine().bus()?);
    pit::latch(t.machine().bus()?, COUNTER);
    step(t, 0x111)?;
    // A second latch command is ignored until the first is read.
    pit::latch(t.machine().bus()?, COUNTER);
    let latched = control.read_count(t.machine().bus()?);
    t.expect("latched count", latched, live)?;
    let later = control.read_count(t.machine().bus()?);
    let passed = u64::from(live.wrapping_sub(later));
    expect_in(t, "counts since the latched one, once it was read", passed, 0x110..=0x112)?;
    // Other counters are not held.
    pit::latch(t.machine().bus()?, 0);
    step(t, 0x100)?;
    let passed = u64::from(later.wrapping_sub(control.read_count(t.machine().bus()?)));
    expect_in(t, "counts of counter 2 while counter 0 is latched", passed, 0xff..=0x101)?;
    let _ = Control::new(0, 0).read_count(t.machine().bus()?);
    Ok(())
}

pub fn read_back(t: &mut TestThread<'_>) -> Outcome {
    gate(t, true)?;
    let first = Control { access: Access::Low, mode: 2, ..Control::new(0, 2) };
    let third = Control { bcd: true, mode: 3, ..Control::new(COUNTER, 3) };
    first.start(t.machine().bus()?, 0xf0);
    third.start(t.machine().bus()?, 0x5000);
    step(t, 16)?;
    let bus = t.machine().bus()?;
    pit::read_back(bus, 0b101, Latch::Both);
    step(t, 100)?;
    // A further command for what is latched is ignored.
    pit::read_back(t.machine().bus()?, 0b101, Latch::Both);
    let status = Status::from(pit::read_byte(t.machine().bus()?, 0));
    t.expect("status of counter 0", status.control, first.status())?;
    let count = first.read_count(t.machine().bus()?);
    expect_in(t, "count of counter 0, latched after 16 clocks", count.into(), 0xdf..=0xe1)?;
    let status = Status::from(pit::read_byte(t.machine().bus()?, COUNTER));
    t.expect("status of counter 2", status.control, third.status())?;
    t.expect("OUT in the status of counter 2", status.out, true)?;
    // The latched pair is of one moment; reading it again is live.
    let latched = third.read_count(t.machine().bus()?);
    let live = third.read_count(t.machine().bus()?);
    t.check(latched != live, "the count goes on after it was read")?;
    only_status(t)
}

/// Status alone, and OUT in it.
fn only_status(t: &mut TestThread<'_>) -> Outcome {
    start(t, 0, 1000)?;
    let status = pit::status(t.machine().bus()?, COUNTER);
    t.expect("status after mode 0", status.control, Control::new(COUNTER, 0).status())?;
    t.expect("OUT in the status before terminal count", status.out, false)?;
    step(t, 1_010)?;
    let status = pit::status(t.machine().bus()?, COUNTER);
    t.expect("OUT in the status after it", status.out, true)?;
    // Mode numbers 6 and 7 are kept as written.
    for mode in 0..8 {
        let control = Control::new(COUNTER, mode);
        control.start(t.machine().bus()?, 100);
        let status = pit::status(t.machine().bus()?, COUNTER);
        t.expect("mode bits of the status", status.control, control.status())?;
    }
    Ok(())
}

pub fn control_word(t: &mut TestThread<'_>) -> Outcome {
    gate(t, false)?;
    let control = Control::new(COUNTER, 4);
    control.write(t.machine().bus()?);
    pit::write_byte(t.machine().bus()?, COUNTER, 0xaa);
    control.start(t.machine().bus()?, 0x1234);
    step(t, 3)?;
    let count = control.read_count(t.machine().bus()?);
    t.expect("high byte of a count after half a count and a control word", count >> 8, 0x12)?;
    // One byte is read of two: a control word begins with the low one again.
    let _ = pit::read_byte(t.machine().bus()?, COUNTER);
    control.start(t.machine().bus()?, 0x5678);
    step(t, 3)?;
    let count = control.read_count(t.machine().bus()?);
    t.expect("high byte of a count after half a read and a control word", count >> 8, 0x56)
}
