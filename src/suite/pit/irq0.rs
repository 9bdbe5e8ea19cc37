//! OUT0 as interrupt 0.

use super::ops::{expect_in, step};
use crate::base::Nanos;
use crate::base::options::OptionSpec;
use crate::driver::pit::{self, CLOCK, Control};
use crate::machine::{IrqEvent, IrqSource};
use crate::suite::outcome::Outcome;
use crate::suite::thread::TestThread;

pub const OPTIONS: &[OptionSpec] = &[OptionSpec {
    name: "periods",
    value: "N",
    default: "1000",
    help: "interrupts to wait for, with each count",
}];

const PERIODS_MAX: u64 = 1_000_000;

/// Programs counter 0 and waits for the first interrupt: its moment is the case's zero.
fn first(t: &mut TestThread<'_>, event: &IrqEvent, mode: u8, count: u16) -> Outcome<Nanos> {
    Control::new(0, mode).start(t.machine().bus()?, count);
    let start = t.now();
    // Programming may have raised OUT.
    event.take();
    let what = "the first interrupt 0";
    let first = t.expect_next_irq(what, event, CLOCK.time_of(2 * clocks(count) + 2))?;
    let (least, most) = until_end(count);
    expect_in(t, "nanoseconds to the first interrupt 0", first - start, least..=most)?;
    Ok(first)
}

/// Nanoseconds from a count to its end: it is loaded with the next clock, and a nanosecond of
/// rounding is nobody's fault.
fn until_end(count: u16) -> (u64, u64) {
    let clocks = clocks(count);
    (CLOCK.time_of(clocks).0 - 1, CLOCK.time_of(clocks + 1).0)
}

fn clocks(count: u16) -> u64 {
    if count == 0 { 0x1_0000 } else { count.into() }
}

/// After `periods` from `start`, exactly so many interrupts have come; a moment before, one less.
fn expect_periods(
    t: &mut TestThread<'_>,
    event: &IrqEvent,
    start: Nanos,
    (count, periods): (u16, u64),
) -> Outcome {
    // A nanosecond of rounding at either end.
    let end = start.0.saturating_add(CLOCK.time_of(periods * clocks(count)).0);
    t.run_until(Nanos(end - 3))?;
    let what = format!("interrupts in {periods} periods of {} clocks, less 3 ns", clocks(count));
    t.expect(&what, event.take(), periods - 1)?;
    t.run_until(Nanos(end + 1))?;
    let what = format!("interrupts at the end of {periods} periods of {} clocks", clocks(count));
    t.expect(&what, event.take(), 1)
}

pub fn rate(t: &mut TestThread<'_>) -> Outcome {
    let periods: u64 = t.options().number("periods", 1_000)?;
    let periods = periods.clamp(1, PERIODS_MAX);
    let event = t.watch(IrqSource::Intx(0))?;
    for (mode, count) in [(2, 1_193), (3, 1_193), (2, 11_932), (3, 65_535), (2, 0), (2, 2), (3, 2)]
    {
        let start = first(t, &event, mode, count)?;
        expect_periods(t, &event, start, (count, periods))?;
    }
    Ok(())
}

pub fn hour(t: &mut TestThread<'_>) -> Outcome {
    let event = t.watch(IrqSource::Intx(0))?;
    let start = first(t, &event, 3, 0)?;
    t.run_until(Nanos(start.0.saturating_add(3_600_000_000_000)))?;
    t.expect("interrupts in an hour", event.take(), 3_600 * CLOCK.hertz() / 0x1_0000)
}

pub fn once(t: &mut TestThread<'_>) -> Outcome {
    let event = t.watch(IrqSource::Intx(0))?;
    let control = Control::new(0, 0);
    control.write(t.machine().bus()?);
    event.take();
    for count in [100, 20_000, 1, 0] {
        control.write_count(t.machine().bus()?, count);
        let start = t.now();
        let (least, most) = until_end(count);
        let when = (start + least, start + most);
        let came = t.expect_irq_between("interrupt at terminal count", &event, when)?;
        t.expect("interrupts at terminal count", came, 1)?;
        step(t, 200_000)?;
        t.expect("further interrupts", event.take(), 0)?;
    }
    Ok(())
}

pub fn fuzz(t: &mut TestThread<'_>) -> Outcome {
    for _ in 0..2_000 {
        let choice = t.prng().next_u64();
        let port = [0x40, 0x41, 0x42, 0x43, 0x43, 0x61][(choice % 6) as usize];
        let byte = (choice >> 8) as u8;
        match choice >> 16 & 3 {
            0 => t.step(Nanos(choice >> 20 & 0xffff))?,
            1 => _ = t.inb(port)?,
            _ => t.outb(port, byte)?,
        }
    }
    // Status and count latches may be full: a control word and a read of each end that.
    let bus = t.machine().bus()?;
    for counter in 0..3 {
        Control::new(counter, 0).write(bus);
        (0..3).for_each(|_| _ = pit::read_byte(bus, counter));
    }
    let event = t.watch(IrqSource::Intx(0))?;
    let start = first(t, &event, 2, 1_193)?;
    expect_periods(t, &event, start, (1_193, 100))
}
