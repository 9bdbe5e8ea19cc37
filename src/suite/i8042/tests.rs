use super::I8042;
use crate::machine::builtin::device::Wire;
use crate::machine::builtin::devices::i8042;
use crate::suite::testbed::{Deaf, Lie, Testbed, all_pass, caught};

const WINDOWS: &[(u64, u64)] = &[(0x60, 1), (0x64, 1)];
const STATUS: usize = 1;

fn right() -> Testbed {
    Testbed::new(WINDOWS, |wire, _| {
        Box::new(i8042::I8042::new(wire(1), wire(12), Wire::open(), Wire::open()))
    })
}

#[test]
fn every_case_passes_on_an_i8042() {
    all_pass(&I8042, right);
}

#[test]
fn each_fault_is_caught_by_its_case() {
    let faults: [(&str, Lie, &str); 11] = [
        ("self-test", |w, _, v| if w == STATUS { v & !4 } else { v }, "system flag"),
        ("interface-test", |w, _, v| if w == STATUS { v } else { v | 1 }, "keyboard interface"),
        ("command-byte", |w, _, v| if w == STATUS { v } else { v & !0x20 }, "command byte"),
        ("output-buffer", |w, _, v| if w == STATUS { v & !0x20 } else { v }, "0xd3"),
        ("output-port", |w, _, v| if w == STATUS { v } else { v | 2 }, "A20 gate"),
        ("keyboard-identify", |_, _, v| if v == 0x41 { 0x83 } else { v }, "translated"),
        ("keyboard-echo", |_, _, v| if v == 0xee { 0xfa } else { v }, "the echo"),
        ("keyboard-reset", |_, _, v| if v == 0xaa { 0xfc } else { v }, "a reset"),
        ("keyboard-commands", |_, _, v| if v == 0xfe { 0xfa } else { v }, "no command"),
        ("keyboard-commands", |_, _, v| if v == 3 { 2 } else { v }, "the scan set"),
        ("aux", |w, _, v| if w == STATUS { v & !0x20 } else { v }, "mouse's identity"),
    ];
    for (case, lie, what) in faults {
        let found = caught(&I8042, case, right().lying(lie));
        assert!(found.contains(what), "{case}: {found}");
    }
}

#[test]
fn a_controller_that_misses_commands_is_caught() {
    let faults: [(&str, Deaf, &str); 4] = [
        ("disable", |w, _, v| w == STATUS && v == 0xad, "OBF while the keyboard is held"),
        ("disable", |w, _, v| w == STATUS && v == 0xa7, "OBF while the mouse is held"),
        ("command-byte", |w, _, v| w == STATUS && v == 0xa8, "after command 0xa8"),
        ("aux", |w, _, v| w != STATUS && v == 0xee, "wrap mode"),
    ];
    for (case, deaf, what) in faults {
        let found = caught(&I8042, case, right().deaf(deaf));
        assert!(found.contains(what), "{case}: {found}");
    }
}

#[test]
fn crossed_and_missing_wires_are_caught() {
    let build = |irq1: u32, irq12: u32| {
        Testbed::new(WINDOWS, |wire, _| {
            Box::new(i8042::I8042::new(wire(irq1), wire(irq12), Wire::open(), Wire::open()))
        })
    };
    for case in ["irq1", "irq12"] {
        caught(&I8042, case, build(12, 1));
        caught(&I8042, case, build(2, 3));
    }
}
