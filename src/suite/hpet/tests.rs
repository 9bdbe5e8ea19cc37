//! The module on a right block, and on wrong ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Hpet;
use super::ops::ROUTE;
use crate::base::{GuestAddr, Nanos};
use crate::machine::GuestRam;
use crate::machine::builtin::device::{Device, LineSink, MessageSink, Wire};
use crate::machine::builtin::devices::{hpet, pit};
use crate::suite::testbed::{Testbed, all_pass, caught};
use crate::suite::wrong_chip::{Fault, Read, Write};
use crate::suite::{Module, Stop};

/// Window of the block behind [`Timers`]; the 8254 has the two before.
const BLOCK: usize = 2;

/// An HPET with the 8254 whose interrupt it takes over.
struct Timers {
    pit: pit::Pit,
    hpet: hpet::Hpet,
    legacy: Arc<LegacyPin>,
}

#[derive(Default)]
struct LegacyPin(AtomicBool);

impl LineSink for LegacyPin {
    fn set_line(&self, _line: u32, _source: u32, high: bool) {
        self.0.store(high, Ordering::Relaxed);
    }
}

impl Timers {
    fn new(wire: &dyn Fn(u32) -> Wire, replaces: bool) -> Self {
        let legacy = Arc::new(LegacyPin::default());
        let pin = if replaces { Wire::new(legacy.clone(), 0, 0) } else { Wire::open() };
        let wires = hpet::HpetWires { lines: (0..24).map(wire).collect(), legacy: pin };
        Self { pit: pit::Pit::new(wire(0)), hpet: hpet::Hpet::new(wires), legacy }
    }
}

impl Device for Timers {
    fn name(&self) -> &'static str {
        "timers"
    }

    fn read(&mut self, window: usize, offset: u64, size: u8, now: Nanos) -> u64 {
        match window {
            BLOCK => self.hpet.read(0, offset, size, now),
            _ => self.pit.read(window, offset, size, now),
        }
    }

    fn write(&mut self, window: usize, offset: u64, size: u8, value: u64, now: Nanos) {
        match window {
            BLOCK => self.hpet.write(0, offset, size, value, now),
            _ => self.pit.write(window, offset, size, value, now),
        }
        self.pit.set_irq0_enabled(!self.legacy.0.load(Ordering::Relaxed));
    }

    fn deadline(&self) -> Option<Nanos> {
        [self.pit.deadline(), self.hpet.deadline()].into_iter().flatten().min()
    }

    fn run(&mut self, now: Nanos) {
        self.pit.run(now);
        self.hpet.run(now);
    }

    fn reset(&mut self, now: Nanos) {
        self.pit.reset(now);
        self.hpet.reset(now);
    }
}

const WINDOWS: [(u64, u64); 3] = [(0x40, 4), (0x61, 1), (0xfed0_0000, 1024)];

fn machine(fault: Fault) -> Testbed {
    Testbed::new(&WINDOWS, |wire, _| fault.on(Timers::new(wire, true)))
}

/// What `case` finds on a block with this fault.
fn found(case: &str, fault: Fault) -> String {
    caught(&Hpet, case, machine(fault))
}

/// A block whose timers can send messages, here into RAM.
fn sending(fault: Fault) -> Testbed {
    struct IntoRam(Arc<GuestRam>);
    impl MessageSink for IntoRam {
        fn message(&self, addr: u64, data: u32) {
            self.0.write(GuestAddr(addr), &data.to_le_bytes());
        }
    }
    Testbed::new(&WINDOWS, |wire, ram| {
        let right = Timers::new(wire, true);
        let hpet = right.hpet.with_messages(Arc::new(IntoRam(ram)));
        fault.on(Timers { hpet, ..right })
    })
}

#[test]
fn a_right_block_passes() {
    let skips = |stop: &Stop| matches!(stop, Stop::Skipped(reason) if reason.contains("messages"));
    let mut shared = machine(Fault::NONE);
    for case in Hpet.cases() {
        for machine in [&mut machine(Fault::NONE), &mut shared] {
            match machine.run(&Hpet, case.name) {
                Ok(()) => assert_ne!(case.name, "message"),
                Err(stop) => assert!(case.name == "message" && skips(&stop), "{stop:?}"),
            }
        }
    }
    all_pass(&Hpet, || sending(Fault::NONE));
}

/// Offset within the block.
const fn is(window: usize, offset: u64, register: u64) -> bool {
    window == BLOCK && offset == register
}

const fn is_conf(window: usize, offset: u64) -> bool {
    window == BLOCK && offset >= 0x100 && offset & 0x1f == 0
}

const fn is_comparator(window: usize, offset: u64) -> bool {
    window == BLOCK && offset >= 0x100 && offset & 0x1f == 8
}

#[test]
fn wrong_capabilities_are_found() {
    let slow: Read = |w, o, v| if is(w, o, 0) { v & 0xffff_ffff | 0x0700_0000 << 32 } else { v };
    assert_eq!(
        found("capabilities", Fault::reading(slow)),
        "a period of 117440512 fs, at most 100 ns"
    );
    let nobody: Read = |w, o, v| if is(w, o, 0) { v & !0xffff_0000 } else { v };
    assert_eq!(found("capabilities", Fault::reading(nobody)), "vendor 0000");
    let two: Read = |w, o, v| if is(w, o, 0) { v & !0x1f00 | 0x100 } else { v };
    assert_eq!(found("capabilities", Fault::reading(two)), "2 timers, at least 3");
    let any: Write = |w, o, v| if is_conf(w, o) { Some(v & !ROUTE) } else { Some(v) };
    assert!(found("routes", Fault::writing(any)).starts_with("timer 0: route 2 "));
    let upper: Read = |w, o, v| if is(w, o, 0x12c) { v ^ 1 } else { v };
    assert_eq!(found("halves", Fault::reading(upper)), "register 0x128 in halves");
}

#[test]
fn a_wrong_counter_is_found() {
    // A part in a million is seen in an hour, not in a microsecond.
    assert_eq!(found("counter-rate", Fault::running(1_000_001)), "counts in 999999999 ns");
    let lost: Write = |w, o, v| (!is(w, o, 0xf4)).then_some(v);
    assert_eq!(found("halted-write", Fault::writing(lost)), "main counter, upper half written");
    let never_halts: Write = |w, o, v| Some(if is(w, o, 0x10) { v | 1 } else { v });
    let what = found("halted-write", Fault::writing(never_halts));
    assert_eq!(what, "main counter, written whole");
    assert!(found("disable", Fault::writing(never_halts)).starts_with("interrupts while halted"));
}

#[test]
fn wrong_matches_are_found() {
    let late: Write = |w, o, v| Some(if is_comparator(w, o) { v.wrapping_add(3) } else { v });
    assert!(found("one-shot", Fault::writing(late)).starts_with("timer 0 at 50,000"));
    assert!(found("fuzz", Fault::writing(late)).starts_with("timer 0 at 50,000"));
    let no_period: Write = |w, o, v| Some(if is_conf(w, o) { v & !0x8 } else { v });
    assert_eq!(found("periodic", Fault::writing(no_period)), "comparator set through VAL_SET");
    let no_val_set: Write = |w, o, v| Some(if is_conf(w, o) { v & !0x40 } else { v });
    assert_eq!(found("periodic", Fault::writing(no_val_set)), "comparator set through VAL_SET");
    let sticks: Read = |w, o, v| if is_conf(w, o) { v | 0x40 } else { v };
    let what = found("periodic", Fault::reading(sticks));
    assert_eq!(what, "VAL_SET after a write of the comparator");
    // Each write of the comparator sets the accumulator too.
    let early: Write = |w, o, v| Some(if is_comparator(w, o) && v == 30_000 { 40_000 } else { v });
    assert_eq!(
        found("periodic-change", Fault::writing(early)),
        "match at 230000: interrupts at the match"
    );
    let what = found("periodic-count", Fault::writing(early));
    assert_eq!(what, "match at 230000: interrupts at the match");
    let wide: Write = |w, o, v| Some(if is_conf(w, o) { v & !0x100 } else { v });
    assert!(found("32-bit", Fault::writing(wide)).starts_with("32-bit match"));
    let what = found("32-bit-again", Fault::writing(wide));
    assert_eq!(what, "interrupts of a 32-bit timer that goes around");
    // The upper half of a 64-bit write is lost.
    let narrow: Write = |w, o, v| Some(if is_comparator(w, o) { v & 0xffff_ffff } else { v });
    let what = found("periodic-whole", Fault::writing(narrow));
    assert_eq!(what, "comparator set through VAL_SET");
}

#[test]
fn wrong_outputs_are_found() {
    let edge: Write = |w, o, v| Some(if is_conf(w, o) { v & !0x2 } else { v });
    assert_eq!(found("level", Fault::writing(edge)), "line after the match");
    let level: Write = |w, o, v| Some(if is_conf(w, o) { v | 0x2 } else { v });
    assert_eq!(found("edge-status", Fault::writing(level)), "status of an edge-triggered timer");
    let clears_all: Write = |w, o, v| Some(if is(w, o, 0x20) { u64::MAX } else { v });
    let what = found("level", Fault::writing(clears_all));
    assert_eq!(what, "status after zero was written to it");
    let keeps: Write = |w, o, v| (!is(w, o, 0x20)).then_some(v);
    let what = found("level", Fault::writing(keeps));
    assert_eq!(what, "status after one was written to it");
    let none: Read = |w, o, v| if is(w, o, 0x20) { 0 } else { v };
    let what = found("status-without-enable", Fault::reading(none));
    assert_eq!(what, "status of a timer whose interrupt is off");
    let silent: Write = |w, o, v| (!is(w, o, 0x110)).then_some(v);
    assert_eq!(caught(&Hpet, "message", sending(Fault::writing(silent))), "message at the match");
}

#[test]
fn an_8254_that_goes_on_under_the_legacy_route_is_found() {
    let both = Testbed::new(&WINDOWS, |wire, _| Fault::NONE.on(Timers::new(wire, false)));
    assert_eq!(caught(&Hpet, "legacy", both), "interrupts 0 after timer 0's");
    let routed: Write = |w, o, v| Some(if is(w, o, 0x10) { v & !2 } else { v });
    let what = found("legacy", Fault::writing(routed));
    assert_eq!(what, "interrupts 0 after timer 0's");
}
