//! What the cases have in common.

use std::sync::Arc;

use crate::base::Nanos;
use crate::driver::cmos::{self, *};
use crate::machine::{IrqEvent, IrqSource};
use crate::suite::outcome::Outcome;
use crate::suite::thread::TestThread;

/// A second.
pub const SECOND: Nanos = Nanos(1_000_000_000);
/// The longest update cycle (table 6).
pub const UPDATE_MAX: u64 = 1_984_000;
/// From UIP to the update (table 6).
pub const BEFORE_UPDATE: u64 = 244_140;
/// From the divider's release to the first update (register A).
pub const FIRST_UPDATE: u64 = 500_000_000;

/// The interrupt's line.
const IRQ: u32 = 8;

/// Reads a byte.
pub fn get(t: &mut TestThread<'_>, index: u8) -> Outcome<u8> {
    Ok(cmos::read(t.machine().bus()?, index))
}

/// Writes a byte.
pub fn put(t: &mut TestThread<'_>, index: u8, value: u8) -> Outcome {
    cmos::write(t.machine().bus()?, index, value);
    Ok(())
}

/// Takes register C.
pub fn flags(t: &mut TestThread<'_>) -> Outcome<u8> {
    Ok(cmos::take_flags(t.machine().bus()?))
}

/// Enables interrupts in register B.
pub fn enable(t: &mut TestThread<'_>, interrupts: u8) -> Outcome {
    cmos::enable(t.machine().bus()?, interrupts);
    Ok(())
}

/// Disables interrupts in register B.
pub fn disable(t: &mut TestThread<'_>, interrupts: u8) -> Outcome {
    cmos::disable(t.machine().bus()?, interrupts);
    Ok(())
}

/// Watches interrupt 8.
pub fn watch(t: &mut TestThread<'_>) -> Outcome<Arc<IrqEvent>> {
    t.watch(IrqSource::Intx(IRQ))
}

/// The level of interrupt 8.
pub fn level(t: &mut TestThread<'_>) -> Outcome<bool> {
    Ok(t.machine().interrupts()?.intx_level(IRQ))
}

/// A time on a day that no case cares about: 2 February 2011, a Wednesday.
pub fn at(hour: u8, minute: u8, second: u8) -> DateTime {
    DateTime { year: 2011, month: 2, day: 2, weekday: 4, hour, minute, second }
}

/// Stops the divider, sets format and time, and starts it: the first update is half a second
/// away, so that whole seconds from now lie between updates. Flags are clear, no rate is set.
pub fn start(t: &mut TestThread<'_>, format: Format, time: &DateTime) -> Outcome {
    stop(t, format, time)?;
    put(t, REGISTER_A, A_DIVIDER_32KHZ)
}

/// As [`start`], with the divider still stopped.
pub fn stop(t: &mut TestThread<'_>, format: Format, time: &DateTime) -> Outcome {
    put(t, REGISTER_A, A_DIVIDER_RESET)?;
    put(t, REGISTER_B, format.bits())?;
    cmos::write_time(t.machine().bus()?, time, format);
    flags(t).map(|_| ())
}

/// Takes the interrupt of the `update`-th update (from 1) since the divider was released.
pub fn take_update(
    t: &mut TestThread<'_>,
    what: &str,
    irq: &IrqEvent,
    (released, update): (Nanos, u64),
) -> Outcome {
    let begin = released + (FIRST_UPDATE + (update - 1) * SECOND.0);
    t.expect_irq_between(what, irq, (begin, begin + UPDATE_MAX)).map(|_| ())
}

/// Writes the alarm.
pub fn alarm(t: &mut TestThread<'_>, [hour, minute, second]: [Option<u8>; 3]) -> Outcome {
    cmos::set_alarm(t.machine().bus()?, hour, minute, second);
    Ok(())
}

/// Finds whether the bits of `mask` in a byte are `want`.
pub fn expect_byte(t: &mut TestThread<'_>, what: &str, index: u8, mask: u8, want: u8) -> Outcome {
    let got = get(t, index)? & mask;
    t.expect(what, got, want)
}

/// Takes register C and finds whether the bits of `mask` are `want`.
pub fn expect_flags(t: &mut TestThread<'_>, what: &str, mask: u8, want: u8) -> Outcome {
    expect_byte(t, what, REGISTER_C, mask, want)
}

/// Finds whether interrupt 8 is at a level.
pub fn expect_level(t: &mut TestThread<'_>, what: &str, want: bool) -> Outcome {
    let got = level(t)?;
    t.expect(what, got, want)
}

/// Finds whether the time bytes are those of `time`.
pub fn expect_time(t: &mut TestThread<'_>, what: &str, format: Format, time: &DateTime) -> Outcome {
    let want = time.bytes(format);
    let mut got = want;
    for (index, byte) in &mut got {
        *byte = get(t, *index)?;
    }
    let bytes = |list: [(u8, u8); 8]| {
        list.map(|(index, byte)| format!("{index:02x}h: {byte:02x}h")).join(", ")
    };
    if got == want { Ok(()) } else { t.failed(what, bytes(want), bytes(got)) }
}

/// The time, read as a guest must.
pub fn read_time(t: &mut TestThread<'_>) -> Outcome<DateTime> {
    // An update, with its warning, takes at most 2.3 ms.
    for _ in 0..10 {
        if let Some(time) = cmos::read_time(t.machine().bus()?)? {
            return Ok(time);
        }
        t.step(Nanos::from_micros(300))?;
    }
    t.failed("register A, UIP", "clear within 3 ms", "set all the time")
}

/// Finds whether `got` nanoseconds lie in `first` to `last`.
pub fn expect_between(
    t: &TestThread<'_>,
    what: &str,
    got: u64,
    (first, last): (u64, u64),
) -> Outcome {
    if (first..=last).contains(&got) {
        return Ok(());
    }
    t.failed(what, format!("{first} to {last} ns"), format!("{got} ns"))
}
