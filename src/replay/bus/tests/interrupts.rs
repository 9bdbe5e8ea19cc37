//! Interrupts and acknowledges of a recording, beside those of a toy.

use super::{MMIO_TEST, Script, mismatch, replay};
use crate::base::Nanos;
use crate::trace::{AckEvent, Event};

#[test]
fn interrupts_come_or_are_missed_and_none_comes_unasked() {
    let mut script = Script::new();
    script.out(0x99, 1);
    script.irq("ioapic", 5, true);
    script.out(0x300, 0);
    script.irq("ioapic", 5, true);
    script.out(0x99, 0);
    script.irq("ioapic", 5, true);
    script.irq("ioapic", 5, false);
    script.out(0x99, 1);
    let (report, _) = script.replay(MMIO_TEST, "");
    let [group] = report.mismatches.as_slice() else { panic!("{:?}", report.mismatches) };
    assert_eq!((group.region.as_str(), group.register.as_str()), ("interrupts", "lines 0x5"));
    let want = [mismatch(3, 0, "it fired", "nothing"), mismatch(7, 0, "nothing", "it fired")];
    assert_eq!(group.first, want);
    assert_eq!(report.verdict.divergences, 2);
}

/// A recorder that was killed between a write and the interrupt that came of it.
#[test]
fn what_a_cut_may_have_taken_is_no_divergence() {
    let mut script = Script::new();
    for port in [0x99, 0x99] {
        script.out(port, 1);
        script.irq("ioapic", 5, true);
    }
    script.out(0x99, 1);
    let (_dir, path) = script.finish();
    let (whole, _) = replay(&path, MMIO_TEST, "");
    assert_eq!((whole.complete, whole.verdict.divergences), (true, 1));
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    let (cut, _) = replay(&path, MMIO_TEST, "");
    assert_eq!((cut.complete, cut.done.writes, cut.verdict.divergences), (false, 3, 0));
}

#[test]
fn a_line_that_should_be_low_is_looked_at_when_all_is_said() {
    let mut script = Script::new();
    script.out(0x99, 1);
    script.irq("ioapic", 5, false);
    script.irq("ioapic", 5, true);
    script.out(0x300, 0);
    script.irq("ioapic", 5, false);
    script.out(0x300, 0);
    let (report, _) = script.replay(MMIO_TEST, "");
    let [group] = report.mismatches.as_slice() else { panic!("{:?}", report.mismatches) };
    assert_eq!(group.first, [mismatch(4, 0, "low", "high")]);
}

#[test]
fn a_tap_looks_from_when_the_test_does() {
    let mut script = Script::new();
    script.out(0x99, 1);
    script.irq("intx", 5, false);
    script.out(0x99, 1);
    script.irq("intx", 5, true);
    let (report, _) = script.replay(MMIO_TEST, "");
    assert_eq!((report.verdict.divergences, report.done.interrupts), (0, 2));
}

#[test]
fn acknowledges_are_compared() {
    let mut script = Script::new();
    let stream = Script::stream("intx");
    for vector in [None, Some(0x21)] {
        script.event(Event::Ack(AckEvent { time: Nanos(0), stream, cpu: 0, vector }));
        script.out(0x99, 1);
    }
    let (report, _) = script.replay(MMIO_TEST, "");
    let [group] = report.mismatches.as_slice() else { panic!("{:?}", report.mismatches) };
    assert_eq!((group.region.as_str(), group.register.as_str()), ("acknowledge", "CPU 0"));
    assert_eq!(group.first, [mismatch(2, 0, "vector 0x21", "vector 0x20")]);
}
