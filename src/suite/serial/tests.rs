use super::Serial;
use crate::machine::builtin::device::Wire;
use crate::machine::builtin::devices::serial;
use crate::suite::testbed::{Lie, Testbed, all_pass, caught};

fn right() -> Testbed {
    Testbed::new(&[(0x3f8, 8)], |wire, _| Box::new(serial::Serial::new(wire(4))))
}

#[test]
fn every_case_passes_on_a_16550() {
    all_pass(&Serial, right);
}

#[test]
fn each_fault_is_caught_by_its_case() {
    let faults: [(&str, Lie, &str); 10] = [
        // THRE without TEMT.
        ("registers", |_, at, v| if at == 5 { v & !0x40 } else { v }, "LSR of an idle port"),
        ("scratch", |_, at, v| if at == 7 { v & 0x7f } else { v }, "SCR holds"),
        ("divisor-latch", |_, at, v| if at == 1 { v & 0x0f } else { v }, "DLM holds"),
        // A chip that always has FIFOs, as simple models do.
        ("fifo", |_, at, v| if at == 2 { v | 0xc0 } else { v }, "FIFOs off"),
        ("loopback", |_, at, v| if at == 0 { v & 0x7f } else { v }, "the character in RBR"),
        ("overrun", |_, at, v| if at == 5 { v & !2 } else { v }, "LSR.OE"),
        ("modem", |_, at, v| if at == 6 { v | 0x10 } else { v }, "MSR bits 7:4 with MCR"),
        ("modem-delta", |_, at, v| if at == 6 { v & 0xf0 } else { v }, "MSR after CTS"),
        // Two interrupts at once in IIR.
        ("priority", |_, at, v| if at == 2 && v == 4 { 6 } else { v }, "received data"),
        ("timeout", |_, at, v| if at == 2 && v == 0xcc { 0xc4 } else { v }, "IIR at the timeout"),
    ];
    for (case, lie, what) in faults {
        let found = caught(&Serial, case, right().lying(lie));
        assert!(found.contains(what), "{case}: {found}");
    }
}

#[test]
fn a_port_without_its_wire_is_caught() {
    for case in ["thr-interrupt", "receive-interrupt", "priority", "modem-delta", "timeout"] {
        let mute = Testbed::new(&[(0x3f8, 8)], |_, _| Box::new(serial::Serial::new(Wire::open())));
        caught(&Serial, case, mute);
    }
}
