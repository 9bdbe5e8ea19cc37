//! What a match does.

use super::ops::*;
use crate::base::GuestAddr;
use crate::driver::pit::{CLOCK, Control};
use crate::machine::{GuestRam, IrqSource};
use crate::suite::outcome::Outcome;
use crate::suite::thread::TestThread;

/// Where a message goes, and what it is.
const MAILBOX: GuestAddr = GuestAddr(0x2000);
const MESSAGE: u32 = 0x5a5a_4041;

fn expect_level(t: &mut TestThread<'_>, what: &str, line: u32, high: bool) -> Outcome {
    let got = super::ops::level(t, line)?;
    t.expect(what, got, high)
}

fn level_of(t: &mut TestThread<'_>, n: u64) -> Outcome {
    let (line, event) = routed(t, n, INT_ENB | LEVEL)?;
    write(t, comparator(n), 10_000)?;
    write(t, GEN_CONF, ENABLE)?;
    step(t, 9_000)?;
    expect_level(t, "line before the match", line, false)?;
    expect_register(t, "status before the match", GINTR_STA, 0)?;
    step(t, 2_000)?;
    t.expect("interrupts at the match", event.take(), 1)?;
    expect_level(t, "line after the match", line, true)?;
    expect_register(t, "status after the match", GINTR_STA, 1 << n)?;
    write(t, GINTR_STA, !(1 << n))?;
    expect_register(t, "status after zero was written to it", GINTR_STA, 1 << n)?;
    expect_level(t, "line after other bits were cleared", line, true)?;
    write(t, GINTR_STA, 1 << n)?;
    expect_register(t, "status after one was written to it", GINTR_STA, 0)?;
    expect_level(t, "line after its bit was cleared", line, false)?;
    let next = read(t, MAIN_CNT)? + 10_000;
    write(t, comparator(n), next)?;
    step(t, 11_000)?;
    t.expect("interrupts at the next match", event.take(), 1)?;
    write(t, GINTR_STA, 1 << n)
}

pub fn level(t: &mut TestThread<'_>) -> Outcome {
    for n in 0..timers(t)? {
        super::quiet(t)?;
        level_of(t, n)?;
    }
    Ok(())
}

pub fn edge_status(t: &mut TestThread<'_>) -> Outcome {
    let (line, event) = routed(t, 1, INT_ENB)?;
    write(t, comparator(1), 10_000)?;
    write(t, GEN_CONF, ENABLE)?;
    step(t, 20_000)?;
    t.expect("interrupts at the match", event.take(), 1)?;
    expect_register(t, "status of an edge-triggered timer", GINTR_STA, 0)?;
    expect_level(t, "line after an edge", line, false)
}

pub fn status_without_enable(t: &mut TestThread<'_>) -> Outcome {
    let (line, event) = routed(t, 1, LEVEL)?;
    write(t, comparator(1), 10_000)?;
    write(t, GEN_CONF, ENABLE)?;
    step(t, 20_000)?;
    t.expect("interrupts of a timer whose interrupt is off", event.take(), 0)?;
    expect_register(t, "status of a timer whose interrupt is off", GINTR_STA, 1 << 1)?;
    let mode = read(t, conf(1))?;
    write(t, conf(1), mode | INT_ENB)?;
    expect_level(t, "line once the interrupt is on", line, true)
}

pub fn disable(t: &mut TestThread<'_>) -> Outcome {
    let (_, event) = routed(t, 0, INT_ENB)?;
    write(t, comparator(0), 10_000)?;
    step(t, 50_000)?;
    t.expect("interrupts while halted from the start", event.take(), 0)?;
    write(t, GEN_CONF, ENABLE)?;
    step(t, 5_000)?;
    write(t, GEN_CONF, 0)?;
    step(t, 50_000)?;
    t.expect("interrupts while halted on the way", event.take(), 0)?;
    write(t, GEN_CONF, ENABLE)?;
    step(t, 4_900)?;
    t.expect("interrupts before the rest of the way", event.take(), 0)?;
    step(t, 200)?;
    t.expect("interrupts after it", event.take(), 1)
}

pub fn routes(t: &mut TestThread<'_>) -> Outcome {
    for n in 0..timers(t)? {
        let offered = read(t, conf(n))? >> 32;
        for line in 1..32 {
            write(t, conf(n), line << ROUTE_SHIFT)?;
            let kept = (read(t, conf(n))? & ROUTE) >> ROUTE_SHIFT == line;
            let what = format!("timer {n}: route {line} reads back");
            t.expect(&what, kept, offered >> line & 1 != 0)?;
        }
        write(t, conf(n), 0)?;
    }
    Ok(())
}

pub fn legacy(t: &mut TestThread<'_>) -> Outcome {
    let irq0 = t.watch(IrqSource::Intx(0))?;
    let irq8 = t.watch(IrqSource::Intx(8))?;
    // The 8254 at about 1 kHz.
    Control::new(0, 2).start(t.machine().bus()?, 1_193);
    t.step(CLOCK.time_of(10 * 1_193))?;
    t.check(irq0.take() >= 9, "interrupts of the 8254 before the legacy route is on")?;
    for (n, counts) in [(0, 20_000), (1, 30_000)] {
        write(t, conf(n), INT_ENB)?;
        write(t, comparator(n), counts)?;
    }
    write(t, GEN_CONF, ENABLE | LEGACY)?;
    irq0.take();
    step(t, 25_000)?;
    t.expect("interrupts 0 in 25,000 counts, of timer 0", irq0.take(), 1)?;
    t.expect("interrupts 8 in 25,000 counts, of timer 1", irq8.take(), 0)?;
    t.step(CLOCK.time_of(10 * 1_193))?;
    t.expect("interrupts 0 after timer 0's", irq0.take(), 0)?;
    t.expect("interrupts 8, of timer 1", irq8.take(), 1)?;
    write(t, GEN_CONF, ENABLE)?;
    irq0.take();
    t.step(CLOCK.time_of(10 * 1_193))?;
    t.check(irq0.take() >= 9, "interrupts of the 8254 after the legacy route is off")
}

pub fn message(t: &mut TestThread<'_>) -> Outcome {
    if read(t, conf(0))? & FSB_CAP == 0 {
        return t.skip("no timer can send messages");
    }
    // Into RAM, where every machine shows it.
    let ram = t.ram()?;
    let word = |ram: &GuestRam| {
        let mut bytes = [0; 4];
        ram.read(MAILBOX, &mut bytes);
        u32::from_le_bytes(bytes)
    };
    ram.write(MAILBOX, &[0; 4]);
    write(t, fsb_route(0), MAILBOX.0 << 32 | u64::from(MESSAGE))?;
    write(t, conf(0), INT_ENB | FSB_EN)?;
    write(t, comparator(0), 10_000)?;
    write(t, GEN_CONF, ENABLE)?;
    step(t, 9_000)?;
    t.expect("message before the match", word(&ram), 0)?;
    step(t, 2_000)?;
    t.expect("message at the match", word(&ram), MESSAGE)?;
    expect_register(t, "status of a timer that sends messages", GINTR_STA, 0)
}
