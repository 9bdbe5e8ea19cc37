//! Setting the clock (register B: SET, DM, 24/12).

use super::ops::{self, SECOND};
use crate::base::Nanos;
use crate::driver::cmos::{self, *};
use crate::suite::outcome::Outcome;
use crate::suite::thread::TestThread;

/// SET in every format.
pub fn set(t: &mut TestThread<'_>) -> Outcome {
    for format in Format::ALL {
        ops::start(t, format, &ops::at(22, 10, 11))?;
        ops::put(t, REGISTER_B, format.bits() | B_UIE)?;
        ops::put(t, REGISTER_B, format.bits() | B_UIE | B_SET)?;
        let register_b = ops::get(t, REGISTER_B)?;
        t.expect("register B after SET with UIE", register_b, format.bits() | B_SET)?;
        let time = ops::at(2, 4, 58);
        cmos::write_time(t.machine().bus()?, &time, format);
        held(t, format, &time)?;
        ops::put(t, REGISTER_B, format.bits())?;
        ops::expect_time(t, "the time when SET is cleared", format, &time)?;
        t.step(SECOND)?;
        ops::expect_time(t, "the time a second later", format, &ops::at(2, 4, 59))?;
    }
    divider_goes_on(t)
}

/// For two seconds nothing moves; the periodic interrupt goes on.
fn held(t: &mut TestThread<'_>, format: Format, time: &DateTime) -> Outcome {
    cmos::set_rate(t.machine().bus()?, 16)?;
    ops::flags(t)?;
    let irq = ops::watch(t)?;
    ops::enable(t, B_PIE)?;
    for _ in 0..32 {
        t.expect_next_irq("periodic interrupt under SET", &irq, Nanos(SECOND.0 / 16 + 1))?;
        let flags = ops::flags(t)?;
        t.expect("register C, IRQF and PF", flags & (C_IRQF | C_PF), C_IRQF | C_PF)?;
        let uip = ops::get(t, REGISTER_A)? & A_UIP;
        t.expect("register A, UIP under SET", uip, 0)?;
    }
    ops::disable(t, B_PIE)?;
    ops::expect_time(t, "the time under SET", format, time)
}

/// SET does not move the updates: they still come half a second after whole seconds.
fn divider_goes_on(t: &mut TestThread<'_>) -> Outcome {
    let (format, time) = (Format { binary: false, hours_24: true }, ops::at(2, 4, 57));
    ops::start(t, format, &ops::at(22, 10, 11))?;
    let released = t.now().0;
    t.step(Nanos(SECOND.0 / 4))?;
    ops::put(t, REGISTER_B, format.bits() | B_SET)?;
    cmos::write_time(t.machine().bus()?, &time, format);
    t.run_until(Nanos(released + 3 * SECOND.0 + SECOND.0 / 4))?;
    ops::put(t, REGISTER_B, format.bits())?;
    t.run_until(Nanos(released + 3 * SECOND.0 + SECOND.0 * 49 / 100))?;
    ops::expect_time(t, "the time before the next update", format, &time)?;
    t.run_until(Nanos(released + 3 * SECOND.0 + SECOND.0 * 51 / 100))?;
    ops::expect_time(t, "the time after the next update", format, &ops::at(2, 4, 58))
}

/// The data sheet asks the program to set the time anew after a change of DM or 24/12; a PC's
/// clock that runs shows the same time in the new format.
pub fn switch(t: &mut TestThread<'_>) -> Outcome {
    ops::start(t, Format { binary: false, hours_24: true }, &ops::at(21, 58, 55))?;
    for (hours, format) in (1..).zip(Format::ALL.into_iter().rev()) {
        ops::put(t, REGISTER_B, format.bits())?;
        t.step(Nanos(3600 * SECOND.0))?;
        let (days, hour) = ((21 + hours) / 24, (21 + hours) % 24);
        let time = DateTime { day: 2 + days, weekday: 4 + days, ..ops::at(hour, 58, 55) };
        ops::expect_time(t, "the time in another format", format, &time)?;
    }
    Ok(())
}
