//! Flags and the interrupt (interrupts; register C).

use super::ops::{self, SECOND};
use crate::base::Nanos;
use crate::driver::cmos::{self, *};
use crate::suite::outcome::Outcome;
use crate::suite::thread::TestThread;

const BCD: Format = Format { binary: false, hours_24: true };

/// UF, its enable, and interrupt 8 between them.
pub fn register_c(t: &mut TestThread<'_>) -> Outcome {
    ops::start(t, BCD, &ops::at(2, 4, 50))?;
    ops::alarm(t, [Some(12), None, None])?;
    ops::flags(t)?;
    ops::expect_level(t, "interrupt 8 with no flag", false)?;

    t.step(SECOND)?;
    ops::expect_level(t, "interrupt 8 with UF and without UIE", false)?;
    ops::enable(t, B_UIE)?;
    ops::expect_level(t, "interrupt 8 when UIE meets UF", true)?;
    for index in [REGISTER_A, REGISTER_B, REGISTER_D, SECONDS] {
        ops::get(t, index)?;
    }
    ops::expect_level(t, "interrupt 8 after reads of others", true)?;
    ops::expect_flags(t, "register C", 0xff, C_IRQF | C_UF)?;
    ops::expect_level(t, "interrupt 8 after register C is read", false)?;
    ops::expect_flags(t, "register C, read again", 0xff, 0)?;

    let irq = ops::watch(t)?;
    t.step(Nanos(3 * SECOND.0))?;
    ops::expect_level(t, "interrupt 8, not acknowledged", true)?;
    t.expect("edges of interrupt 8, not acknowledged", irq.take(), 1)?;
    ops::disable(t, B_UIE)?;
    ops::expect_level(t, "interrupt 8 when UIE is cleared", false)?;
    ops::expect_flags(t, "register C with UIE clear", 0xff, C_UF)?;
    two_at_once(t)
}

/// Alarm and update together are one interrupt with two flags.
fn two_at_once(t: &mut TestThread<'_>) -> Outcome {
    ops::start(t, BCD, &ops::at(2, 4, 50))?;
    ops::alarm(t, [None; 3])?;
    let irq = ops::watch(t)?;
    ops::enable(t, B_AIE)?;
    t.step(SECOND)?;
    t.expect("edges of interrupt 8", irq.take(), 1)?;
    ops::expect_flags(t, "register C", 0xff, C_IRQF | C_AF | C_UF)?;
    ops::expect_level(t, "interrupt 8", false)?;
    ops::disable(t, B_AIE)
}

/// UF and AF without their enables: for programs that poll.
pub fn bare(t: &mut TestThread<'_>) -> Outcome {
    ops::start(t, BCD, &ops::at(2, 4, 50))?;
    ops::alarm(t, [None, None, Some(52)])?;
    t.step(SECOND)?;
    ops::expect_flags(t, "register C after an update", 0xff, C_UF)?;
    t.step(SECOND)?;
    ops::expect_flags(t, "register C after an alarm", 0xff, C_AF | C_UF)
}

/// PF is set whatever PIE is (register C, PF).
pub fn bare_periodic(t: &mut TestThread<'_>) -> Outcome {
    ops::start(t, BCD, &ops::at(2, 4, 50))?;
    cmos::set_rate(t.machine().bus()?, 64)?;
    ops::flags(t)?;
    t.step(Nanos(SECOND.0 / 64 + 1))?;
    ops::expect_flags(t, "register C after a period", 0xff, C_PF)
}
