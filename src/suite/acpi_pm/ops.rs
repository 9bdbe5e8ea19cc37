//! What the cases have in common.

use crate::base::Nanos;
use crate::driver::acpi::{PowerManagement, SCI, SCI_EN, TIMER, TMR};
use crate::driver::pit;
use crate::suite::outcome::Outcome;
use crate::suite::thread::TestThread;

/// The block.
pub fn open(t: &mut TestThread<'_>) -> Outcome<PowerManagement> {
    Ok(PowerManagement::open(t.machine().bus()?))
}

/// Nothing is enabled, nothing pending. The interval timer is at rest: cases let hours pass.
pub fn quiet(t: &mut TestThread<'_>) -> Outcome {
    let pm = open(t)?;
    let bus = t.machine().bus()?;
    pit::park(bus);
    pm.set_control(bus, 0);
    pm.set_enables(bus, 0);
    pm.clear(bus, u16::MAX);
    for byte in 0..pm.gpe0_half() {
        pm.set_gpe0(bus, pm.gpe0_half() + byte, 0);
        pm.set_gpe0(bus, byte, u8::MAX);
    }
    Ok(())
}

/// ACPI mode with these events of PM1.
pub fn enable(t: &mut TestThread<'_>, pm: PowerManagement, events: u16) -> Outcome {
    let bus = t.machine().bus()?;
    pm.set_control(bus, SCI_EN);
    pm.set_enables(bus, events);
    Ok(())
}

/// The timer.
pub fn timer(t: &mut TestThread<'_>, pm: PowerManagement) -> Outcome<u32> {
    Ok(pm.timer(t.machine().bus()?))
}

/// Lets `ticks` of the timer pass, rounded up to a nanosecond.
pub fn step(t: &mut TestThread<'_>, ticks: u64) -> Outcome {
    t.step(TIMER.time_of(ticks))
}

/// Runs until bit 23 of the timer is about to change: in 2 to 3 ticks.
pub fn before_change(t: &mut TestThread<'_>, pm: PowerManagement) -> Outcome {
    const HALF: u64 = 1 << 23;
    let left = HALF - u64::from(timer(t, pm)?) % HALF;
    if left < 10 {
        step(t, 20)?;
        return before_change(t, pm);
    }
    t.run_until(Nanos(t.now().0.saturating_add(TIMER.time_of(left - 3).0)))
}

/// A finding unless TMR_STS is `set`.
pub fn expect_status(
    t: &mut TestThread<'_>,
    pm: PowerManagement,
    what: &str,
    set: bool,
) -> Outcome {
    let status = pm.status(t.machine().bus()?);
    t.expect(&format!("TMR_STS {what}"), status & TMR != 0, set)
}

/// A finding unless SCI is `high`.
pub fn expect_sci(t: &mut TestThread<'_>, what: &str, high: bool) -> Outcome {
    let level = t.machine().interrupts()?.intx_level(SCI);
    t.expect(&format!("SCI {what}"), level, high)
}
