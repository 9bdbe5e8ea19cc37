//! The module on a right chip, and on wrong ones.

use super::Pit;
use crate::machine::builtin::devices::pit as chip;
use crate::suite::Stop;
use crate::suite::testbed::{Testbed, all_pass, caught};
use crate::suite::wrong_chip::{Fault, Read, Write};

fn machine(fault: Fault) -> Testbed {
    let windows = [(0x40, 4), (0x61, 1)];
    Testbed::new(&windows, |wire, _| fault.on(chip::Pit::new(wire(0))))
}

/// What `case` finds on a chip with this fault.
fn found(case: &str, fault: Fault) -> String {
    caught(&Pit, case, machine(fault))
}

const fn is_control(window: usize, offset: u64) -> bool {
    window == 0 && offset == 3
}

const fn is_counter_2(window: usize, offset: u64) -> bool {
    window == 0 && offset == 2
}

#[test]
fn a_right_chip_passes() {
    all_pass(&Pit, || machine(Fault::NONE));
}

#[test]
fn a_wrong_rate_is_found() {
    // One part in a million: the thousandth interrupt is early by more than a nanosecond.
    let what = found("irq0-rate", Fault::running(1_000_001));
    assert_eq!(what, "interrupts in 1000 periods of 1193 clocks, less 3 ns");
    let what = found("irq0-rate", Fault::running(999_000));
    assert_eq!(what, "nanoseconds to the first interrupt 0");
    assert_eq!(found("irq0-hour", Fault::running(1_000_010)), "interrupts in an hour");
    let fast = Fault::running(1_010_000);
    assert!(found("counting", fast).starts_with("counts in 10,000 clocks"));
    assert_eq!(found("wait", fast), "nanoseconds of a wait");
}

#[test]
fn a_count_one_too_large_is_found() {
    let longer: Write =
        |w, offset, value| Some(value + u64::from(is_counter_2(w, offset) && value > 1));
    for (case, what) in [
        ("terminal-count", "OUT with a count of 20"),
        ("one-shot", "OUT after a trigger"),
        ("rate", "clocks from one rise of OUT to the next, mode 2"),
        ("strobe", "OUT with a count of 10"),
        ("triggered-strobe", "OUT after a trigger"),
    ] {
        // Twice one, as the first run may be one clock longer.
        let longer: Write = if case == "rate" {
            longer
        } else {
            |w, offset, value| Some(value + 2 * u64::from(is_counter_2(w, offset) && value > 1))
        };
        assert_eq!(found(case, Fault::writing(longer)), what);
    }
}

/// Control words of mode `FROM` do what those of `TO` do.
fn swap<const FROM: u64, const TO: u64>(window: usize, offset: u64, value: u64) -> Option<u64> {
    let programs = is_control(window, offset) && value >> 6 == 2 && value & 0x30 != 0;
    let swapped = programs && value >> 1 & 7 == FROM;
    Some(if swapped { value & !0x0e | TO << 1 } else { value })
}

#[test]
fn a_wrong_mode_is_found() {
    let cases: [(&str, Write, &str); 11] = [
        ("initial-output", swap::<0, 4>, "OUT after a control word of mode 0"),
        ("initial-output", swap::<4, 0>, "OUT after a control word of mode 4"),
        ("terminal-count", swap::<0, 4>, "OUT after a control word of mode 0"),
        ("one-shot", swap::<1, 5>, "OUT after a trigger"),
        ("rate-generator", swap::<2, 3>, "OUT in mode 2 with a count of 9"),
        ("square-wave", swap::<3, 2>, "OUT in mode 3 with a count of 10"),
        ("mode-bits", swap::<6, 0>, "clocks from one rise of OUT to the next, mode 6"),
        ("mode-bits", swap::<7, 2>, "OUT in mode 7 with a count of 10"),
        ("strobe", swap::<4, 0>, "OUT with a count of 10"),
        ("triggered-strobe", swap::<5, 1>, "OUT after a trigger"),
        ("counting", swap::<3, 2>, "count after 10 clocks of mode 3"),
    ];
    for (case, write, what) in cases {
        assert_eq!(found(case, Fault::writing(write)), what);
    }
}

#[test]
fn lost_commands_are_found() {
    let no_latch: Write = |w, o, value| (!is_control(w, o) || value & 0x30 != 0).then_some(value);
    assert_eq!(found("latch", Fault::writing(no_latch)), "latched count");
    let no_read_back: Write = |w, o, value| (!is_control(w, o) || value >> 6 != 3).then_some(value);
    assert_eq!(found("read-back", Fault::writing(no_read_back)), "status of counter 0");
    let no_control: Write = |w, o, value| (!is_control(w, o) || value != 0xb8).then_some(value);
    assert!(found("control-word", Fault::writing(no_control)).starts_with("high byte"));
    let no_count: Write = |w, o, value| ((w, o, value) != (0, 0, 0x20)).then_some(value);
    assert_eq!(found("irq0-once", Fault::writing(no_count)), "interrupt at terminal count");
    let no_mode_2: Write = |w, o, value| (!is_control(w, o) || value != 0x34).then_some(value);
    assert!(found("fuzz", Fault::writing(no_mode_2)).starts_with("interrupts in 100 periods"));
    let no_first_byte: Write = |w, o, value| ((w, o, value) != (0, 2, 50)).then_some(value);
    let what = found("half-count", Fault::writing(no_first_byte));
    assert_eq!(what, "OUT after the first byte of a count");
}

#[test]
fn ignored_bits_are_found() {
    let binary: Write = |w, o, value| Some(if is_control(w, o) { value & !1 } else { value });
    assert!(found("bcd", Fault::writing(binary)).starts_with("count 100 clocks"));
    assert_eq!(found("read-back", Fault::writing(binary)), "status of counter 2");
    let two_bytes: Write = |w, o, value| {
        Some(if is_control(w, o) && value & 0x30 == 0x10 { value | 0x30 } else { value })
    };
    assert!(found("access", Fault::writing(two_bytes)).starts_with("count, access Low"));
    let never_null: Read = |w, o, value| if is_counter_2(w, o) { value & !0x40 } else { value };
    let what = found("null-count", Fault::reading(never_null));
    assert_eq!(what, "null count after a control word");
}

#[test]
fn a_wrong_gate_or_port_61_is_found() {
    let always: Write = |window, _, value| Some(if window == 1 { value | 1 } else { value });
    for (case, what) in [
        ("gate", "count 10 clocks after GATE rose, mode 1"),
        ("gate-stops", "count while GATE is low, mode 0"),
        ("port-61", "gate and speaker bits of port 61h"),
        ("triggered-strobe", "OUT after a trigger"),
    ] {
        assert_eq!(found(case, Fault::writing(always)), what);
    }
    let no_refresh: Read = |window, _, value| if window == 1 { value & !0x10 } else { value };
    let what = found("port-61", Fault::reading(no_refresh));
    assert!(what.starts_with("changes of the refresh bit"));
    let inverted: Read = |window, _, value| if window == 1 { value ^ 0x20 } else { value };
    let what = found("port-61", Fault::reading(inverted));
    assert_eq!(what, "OUT2 in port 61h before terminal count");
}

#[test]
fn a_wrong_period_after_a_new_count_is_found() {
    let other: Write = |w, o, value| Some(if (w, o, value) == (0, 2, 6) { 9 } else { value });
    let what = found("new-count", Fault::writing(other));
    assert_eq!(what, "mode 2: OUT with a count written in a period");
}

/// The driver's wait gives up on a counter that does not end.
#[test]
fn a_wait_that_never_ends_is_an_error() {
    let stuck: Read = |window, _, value| if window == 1 { value & !0x20 } else { value };
    match machine(Fault::reading(stuck)).run(&Pit, "wait") {
        Err(Stop::Error(error)) => assert!(error.to_string().contains("counter 2"), "{error}"),
        other => panic!("{other:?}"),
    }
}
