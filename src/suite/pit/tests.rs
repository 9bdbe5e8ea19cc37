//! The module on a right chip, and on wrong ones.

use super::Pit;
use crate::machine::builtin::devices::pit as chip;
use crate::suite::testbed::{Testbed, all_pass, caught};
use crate::suite::wrong_chip::Fault;

fn machine(fault: Fault) -> Testbed {
    let windows = [(0x40, 4), (0x61, 1)];
    Testbed::new(&windows, |wire, _| fault.on(chip::Pit::new(wire(0))))
}

#[test]
fn a_right_chip_passes() {
    all_pass(&Pit, || machine(Fault::NONE));
}

/// The mode bits of a control word for counter 2, changed.
const fn is_control(window: usize, offset: u64) -> bool {
    window == 0 && offset == 3
}

#[test]
fn a_wrong_rate_is_found() {
    // One part in a million: the thousandth interrupt is late by more than a nanosecond.
    let slow = Fault { speed_ppm: 999_999, ..Fault::NONE };
    assert!(caught(&Pit, "irq0-rate", machine(slow)).starts_with("interrupts"));
    let fast = Fault { speed_ppm: 1_000_050, ..Fault::NONE };
    assert_eq!(caught(&Pit, "irq0-hour", machine(fast)), "interrupts in an hour");
    let fast = Fault { speed_ppm: 1_010_000, ..Fault::NONE };
    assert!(caught(&Pit, "counting", machine(fast)).starts_with("counts in 10,000 clocks"));
    assert_eq!(caught(&Pit, "wait", machine(fast)), "nanoseconds of a wait");
    // A count one too large.
    let longer: fn(usize, u64, u64) -> Option<u64> = |window, offset, value| {
        Some(if (window, offset) == (0, 2) && value > 1 { value + 1 } else { value })
    };
    let longer = Fault { write: longer, ..Fault::NONE };
    for case in ["terminal-count", "one-shot", "rate", "strobe", "triggered-strobe"] {
        assert!(!caught(&Pit, case, machine(longer)).is_empty(), "{case}");
    }
}

#[test]
fn a_wrong_mode_is_found() {
    /// Control words of `FROM` do what those of `TO` do.
    fn swap<const FROM: u64, const TO: u64>(window: usize, offset: u64, value: u64) -> Option<u64> {
        let programs = is_control(window, offset) && value >> 6 == 2 && value & 0x30 != 0;
        let swapped = programs && value >> 1 & 7 == FROM;
        Some(if swapped { value & !0x0e | TO << 1 } else { value })
    }
    let cases: [(&str, fn(usize, u64, u64) -> Option<u64>); 8] = [
        ("terminal-count", swap::<0, 4>),
        ("one-shot", swap::<1, 5>),
        ("rate-generator", swap::<2, 3>),
        ("square-wave", swap::<3, 2>),
        ("square-wave", swap::<7, 2>),
        ("strobe", swap::<4, 0>),
        ("triggered-strobe", swap::<5, 1>),
        ("counting", swap::<3, 2>),
    ];
    for (case, write) in cases {
        let found = caught(&Pit, case, machine(Fault { write, ..Fault::NONE }));
        assert!(!found.is_empty(), "{case}");
    }
}

#[test]
fn lost_commands_are_found() {
    type Write = fn(usize, u64, u64) -> Option<u64>;
    let no_latch: Write = |w, o, value| (!(is_control(w, o) && value & 0x30 == 0)).then_some(value);
    assert_eq!(
        caught(&Pit, "latch", machine(Fault { write: no_latch, ..Fault::NONE })),
        "latched count"
    );
    let no_read_back: Write =
        |w, o, value| (!(is_control(w, o) && value >> 6 == 3)).then_some(value);
    let deaf = Fault { write: no_read_back, ..Fault::NONE };
    assert_eq!(caught(&Pit, "read-back", machine(deaf)), "status of counter 0");
    assert!(caught(&Pit, "null-count", machine(deaf)).starts_with("null count"));
    let no_bcd: Write = |w, o, value| Some(if is_control(w, o) { value & !1 } else { value });
    let binary = Fault { write: no_bcd, ..Fault::NONE };
    assert!(caught(&Pit, "bcd", machine(binary)).starts_with("count 100 clocks"));
    assert_eq!(caught(&Pit, "read-back", machine(binary)), "status of counter 2");
    let high_only: Write = |w, o, value| {
        Some(if is_control(w, o) && value & 0x30 == 0x10 { value | 0x30 } else { value })
    };
    let wide = Fault { write: high_only, ..Fault::NONE };
    assert!(caught(&Pit, "access", machine(wide)).starts_with("count, access Low"));
    let no_control: Write = |w, o, value| (!(is_control(w, o) && value == 0xb8)).then_some(value);
    let deaf = Fault { write: no_control, ..Fault::NONE };
    assert!(caught(&Pit, "control-word", machine(deaf)).starts_with("high byte"));
    let counts_lost: Write = |w, o, value| ((w, o, value) != (0, 0, 0x20)).then_some(value);
    let deaf = Fault { write: counts_lost, ..Fault::NONE };
    assert_eq!(caught(&Pit, "irq0-once", machine(deaf)), "interrupt at terminal count");
    let deaf =
        Fault { write: |w, o, v| (!(is_control(w, o) && v == 0x34)).then_some(v), ..Fault::NONE };
    assert!(caught(&Pit, "fuzz", machine(deaf)).starts_with("interrupts in 100 periods"));
}

#[test]
fn a_wrong_gate_or_port_61_is_found() {
    type Write = fn(usize, u64, u64) -> Option<u64>;
    type Read = fn(usize, u64, u64) -> u64;
    let always_gated: Write = |window, _, value| Some(if window == 1 { value | 1 } else { value });
    let open = Fault { write: always_gated, ..Fault::NONE };
    for case in ["gate", "gate-stops", "port-61", "triggered-strobe"] {
        assert!(!caught(&Pit, case, machine(open)).is_empty(), "{case}");
    }
    let no_refresh: Read = |window, _, value| if window == 1 { value & !0x10 } else { value };
    let dead = Fault { read: no_refresh, ..Fault::NONE };
    assert!(caught(&Pit, "port-61", machine(dead)).starts_with("changes of the refresh"));
    let upside_down: Read = |window, _, value| if window == 1 { value ^ 0x20 } else { value };
    let wrong = Fault { read: upside_down, ..Fault::NONE };
    assert_eq!(caught(&Pit, "port-61", machine(wrong)), "OUT2 in port 61h before terminal count");
    // A chip that loads every count at once.
    let eager: Read =
        |window, offset, value| if (window, offset) == (0, 2) { value & !0x40 } else { value };
    let eager = Fault { read: eager, ..Fault::NONE };
    assert_eq!(caught(&Pit, "null-count", machine(eager)), "null count after a control word");
}

/// A count takes effect at once, not with the next period: as if the counter were programmed anew.
#[test]
fn a_count_that_takes_over_early_is_found() {
    let restart: fn(usize, u64, u64) -> Option<u64> =
        |window, offset, value| Some(if (window, offset, value) == (0, 2, 6) { 9 } else { value });
    let wrong = Fault { write: restart, ..Fault::NONE };
    assert!(caught(&Pit, "new-count", machine(wrong)).starts_with("mode 2: OUT"));
    let first_byte_lost: fn(usize, u64, u64) -> Option<u64> =
        |window, offset, value| ((window, offset, value) != (0, 2, 50)).then_some(value);
    let wrong = Fault { write: first_byte_lost, ..Fault::NONE };
    assert_eq!(caught(&Pit, "half-count", machine(wrong)), "OUT after the first byte of a count");
}
