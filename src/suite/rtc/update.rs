//! The update cycle: its end, its warning, and the divider that starts it (update cycle; register
//! A, UIP and DV; table 6).

use super::ops::{self, BEFORE_UPDATE, FIRST_UPDATE, SECOND, UPDATE_MAX};
use crate::base::Nanos;
use crate::driver::cmos::*;
use crate::suite::outcome::Outcome;
use crate::suite::thread::TestThread;

const BCD: Format = Format { binary: false, hours_24: true };

fn uip_is(t: &mut TestThread<'_>, what: &str, set: bool) -> Outcome {
    let uip = ops::get(t, REGISTER_A)? & A_UIP;
    t.expect(what, uip, if set { A_UIP } else { 0 })
}

/// Each second: the interrupt, UF, and a time that is complete and advanced.
pub fn ended(t: &mut TestThread<'_>) -> Outcome {
    let irq = ops::watch(t)?;
    ops::start(t, BCD, &ops::at(2, 4, 50))?;
    let released = t.now();
    irq.take();
    ops::enable(t, B_UIE)?;
    for update in 1..=20u8 {
        ops::take_update(t, "update-ended interrupt", &irq, (released, update.into()))?;
        let flags = ops::flags(t)?;
        t.expect("register C", flags & !C_PF, C_IRQF | C_UF)?;
        uip_is(t, "register A, UIP after the update", false)?;
        let second = 50 + update;
        let time = ops::at(2, 4 + second / 60, second % 60);
        ops::expect_time(t, "the time after the update", BCD, &time)?;
    }
    ops::disable(t, B_UIE)?;
    t.step(Nanos(2 * SECOND.0))?;
    t.expect("interrupts with UIE clear", irq.take(), 0)
}

/// UIP over two updates, to the microsecond.
pub fn uip(t: &mut TestThread<'_>) -> Outcome {
    const MICROSECOND: u64 = 1000;
    ops::start(t, BCD, &ops::at(2, 4, 58))?;
    let released = t.now().0;
    for update in 0..2 {
        let begin = released + FIRST_UPDATE + update * SECOND.0;
        t.run_until(Nanos(begin - BEFORE_UPDATE - MICROSECOND))?;
        uip_is(t, "register A, UIP 245 us before an update", false)?;
        ops::expect_flags(t, "register C, UF before an update", C_UF, 0)?;
        t.run_until(Nanos(begin - BEFORE_UPDATE + MICROSECOND))?;
        uip_is(t, "register A, UIP 243 us before an update", true)?;
        t.run_until(Nanos(begin - MICROSECOND))?;
        uip_is(t, "register A, UIP 1 us before an update", true)?;
        let end = fall(t, begin)?;
        ops::expect_between(t, "UIP after the update began", end - begin, (0, UPDATE_MAX))?;
        ops::expect_flags(t, "register C, UF when UIP has fallen", C_UF, C_UF)?;
        let time = ops::at(2, 4, 59);
        let time = if update == 0 { time } else { ops::at(2, 5, 0) };
        ops::expect_time(t, "the time when UIP has fallen", BCD, &time)?;
    }
    Ok(())
}

/// The time at which UIP is found clear after `begin`, looking every 16 us.
fn fall(t: &mut TestThread<'_>, begin: u64) -> Outcome<u64> {
    for look in 0..=UPDATE_MAX / 16_000 {
        t.run_until(Nanos(begin + look * 16_000))?;
        if ops::get(t, REGISTER_A)? & A_UIP == 0 {
            return Ok(t.now().0);
        }
    }
    t.failed("register A, UIP", "clear 1984 us after the update began", "set")
}

/// An alarm is about to come when UIP is read, and is then moved away.
pub fn uip_stuck(t: &mut TestThread<'_>) -> Outcome {
    let irq = ops::watch(t)?;
    ops::start(t, BCD, &ops::at(2, 4, 58))?;
    let released = t.now();
    let begin = released + (FIRST_UPDATE + SECOND.0);
    ops::enable(t, B_UIE)?;
    ops::take_update(t, "update-ended interrupt", &irq, (released, 1))?;
    ops::disable(t, B_UIE)?;
    ops::expect_time(t, "the time", BCD, &ops::at(2, 4, 59))?;
    // UF is left set.
    ops::alarm(t, [Some(2), None, None])?;
    t.run_until(Nanos(begin - Nanos(BEFORE_UPDATE / 2)))?;
    uip_is(t, "register A, UIP 122 us before the update", true)?;
    ops::alarm(t, [Some(3), None, None])?;
    t.run_until(begin + (UPDATE_MAX + BEFORE_UPDATE / 2))?;
    uip_is(t, "register A, UIP 122 us after the update's end", false)?;
    ops::expect_time(t, "the time", BCD, &ops::at(2, 5, 0))
}

/// The divider in reset: no update, no UIP; then the first update.
pub fn divider(t: &mut TestThread<'_>) -> Outcome {
    let irq = ops::watch(t)?;
    for reset in [A_DIVIDER_RESET, 0x60] {
        let time = ops::at(2, 4, 58);
        ops::stop(t, BCD, &time)?;
        ops::put(t, REGISTER_A, reset)?;
        ops::flags(t)?;
        irq.take();
        ops::enable(t, B_UIE)?;
        for _ in 0..40 {
            t.step(Nanos(SECOND.0 / 16 + 1))?;
            uip_is(t, "register A, UIP with the divider in reset", false)?;
        }
        t.expect("interrupts with the divider in reset", irq.take(), 0)?;
        ops::expect_time(t, "the time with the divider in reset", BCD, &time)?;
        ops::disable(t, B_UIE)?;
        first_update(t, &time)?;
    }
    Ok(())
}

/// The divider in reset has no edge that a rate could take (register A, DV; table 4).
pub fn divider_periodic(t: &mut TestThread<'_>) -> Outcome {
    let irq = ops::watch(t)?;
    for reset in [A_DIVIDER_RESET, 0x60] {
        ops::stop(t, BCD, &ops::at(2, 4, 58))?;
        // 1024 Hz, were the divider running.
        ops::put(t, REGISTER_A, reset | 6)?;
        ops::flags(t)?;
        irq.take();
        ops::enable(t, B_PIE)?;
        t.step(Nanos(2 * SECOND.0))?;
        t.expect("periodic interrupts with the divider in reset", irq.take(), 0)?;
        ops::expect_flags(t, "register C, PF with the divider in reset", C_PF, 0)?;
        ops::disable(t, B_PIE)?;
    }
    Ok(())
}

fn first_update(t: &mut TestThread<'_>, time: &DateTime) -> Outcome {
    ops::put(t, REGISTER_A, A_DIVIDER_32KHZ)?;
    let begin = t.now().0 + FIRST_UPDATE;
    t.run_until(Nanos(begin - BEFORE_UPDATE - 1000))?;
    uip_is(t, "register A, UIP 245 us before the first update", false)?;
    ops::expect_time(t, "the time before the first update", BCD, time)?;
    t.run_until(Nanos(begin - BEFORE_UPDATE + 1000))?;
    uip_is(t, "register A, UIP 243 us before the first update", true)?;
    t.run_until(Nanos(begin + UPDATE_MAX))?;
    uip_is(t, "register A, UIP after the first update", false)?;
    let time = DateTime { second: time.second + 1, ..*time };
    ops::expect_time(t, "the time after the first update", BCD, &time)
}
