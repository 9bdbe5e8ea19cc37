//! The module on a right block, and on wrong ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::AcpiPm;
use crate::base::Nanos;
use crate::machine::builtin::device::{Device, LineSink, Wire};
use crate::machine::builtin::devices::pm::Pm;
use crate::machine::builtin::devices::system::{AcpiCommands, System, SystemWires};
use crate::suite::testbed::{Testbed, all_pass, caught};
use crate::suite::wrong_chip::{Fault, Read, Write};

/// Windows 0 and 1 are the power management's; this is the SMI command port.
const APM: usize = 2;

#[derive(Default)]
struct AcpiPin(AtomicBool);

impl LineSink for AcpiPin {
    fn set_line(&self, _line: u32, _source: u32, high: bool) {
        self.0.store(high, Ordering::Relaxed);
    }
}

/// Power management, and the port that switches its mode.
struct Power {
    pm: Pm,
    system: System,
    acpi: Arc<AcpiPin>,
}

impl Power {
    fn new(sci: Wire) -> Self {
        let acpi = Arc::new(AcpiPin::default());
        let wires = SystemWires { acpi: Wire::new(acpi.clone(), 0, 0), ..SystemWires::open() };
        Self { pm: Pm::new(sci), system: System::new(wires, AcpiCommands::PIIX4), acpi }
    }
}

impl Device for Power {
    fn name(&self) -> &'static str {
        "power"
    }

    fn read(&mut self, window: usize, offset: u64, size: u8, now: Nanos) -> u64 {
        match window {
            APM => self.system.read(1, offset, size, now),
            _ => self.pm.read(window, offset, size, now),
        }
    }

    fn write(&mut self, window: usize, offset: u64, size: u8, value: u64, now: Nanos) {
        if window != APM {
            return self.pm.write(window, offset, size, value, now);
        }
        self.system.write(1, offset, size, value, now);
        self.pm.set_acpi_enabled(self.acpi.0.load(Ordering::Relaxed));
    }

    fn deadline(&self) -> Option<Nanos> {
        self.pm.deadline()
    }

    fn run(&mut self, now: Nanos) {
        self.pm.run(now);
    }

    fn reset(&mut self, now: Nanos) {
        self.pm.reset(now);
    }
}

fn machine(fault: Fault) -> Testbed {
    let windows = [(0x600, 64), (0xafe0, 4), (0xb2, 2)];
    Testbed::new(&windows, |wire, _| fault.on(Power::new(wire(9))))
}

/// What `case` finds on a block with this fault.
fn found(case: &str, fault: Fault) -> String {
    caught(&AcpiPm, case, machine(fault))
}

const fn is(window: usize, offset: u64, register: u64) -> bool {
    window == 0 && offset == register
}

#[test]
fn a_right_block_passes() {
    all_pass(&AcpiPm, || machine(Fault::NONE));
}

#[test]
fn a_wrong_timer_is_found() {
    assert_eq!(
        found("timer-rate", Fault::running(1_000_001)),
        "ticks in 999999999 ns, modulo 2^24"
    );
    let wide: Read = |w, o, v| if is(w, o, 8) { v | 1 << 24 } else { v };
    assert_eq!(found("timer-width", Fault::reading(wide)), "bits 31:24 of the timer");
    let narrow: Read = |w, o, v| if is(w, o, 8) { v & 0x7f_ffff } else { v };
    let what = found("timer-width", Fault::reading(narrow));
    assert!(what.starts_with("the timer goes on over a change"), "{what}");
    assert!(found("timer-sci", Fault::running(1_000_001)).contains("ns from one SCI to the next"));
}

#[test]
fn a_wrong_status_is_found() {
    let unset: Read = |w, o, v| if is(w, o, 0) { v & !1 } else { v };
    assert_eq!(found("timer-status", Fault::reading(unset)), "TMR_STS after bit 23 changed");
    let stuck: Write = |w, o, v| Some(if is(w, o, 0) { v & !1 } else { v });
    assert_eq!(found("timer-status", Fault::writing(stuck)), "TMR_STS after it was cleared");
    let any_clears: Write = |w, o, v| Some(if is(w, o, 0) { v | 1 } else { v });
    assert_eq!(found("timer-status", Fault::writing(any_clears)), "TMR_STS after 0 was written");
    assert_eq!(found("timer-sci", Fault::writing(stuck)), "SCI after its status is cleared");
}

#[test]
fn wrong_enables_are_found() {
    let lost: Write = |w, o, v| (!is(w, o, 2)).then_some(v);
    assert_eq!(found("timer-sci", Fault::writing(lost)), "an SCI as bit 23 changes");
    assert_eq!(found("fuzz", Fault::writing(lost)), "an SCI as bit 23 changes");
    assert_eq!(
        found("timer-late-enable", Fault::writing(lost)),
        "SCIs as a pending event is enabled"
    );
    assert_eq!(found("registers", Fault::writing(lost)), "PM1 enable");
    let always: Write = |w, o, v| Some(if is(w, o, 4) { v | 1 } else { v });
    assert_eq!(found("sci-enable", Fault::writing(always)), "SCIs in legacy mode");
    let no_type: Read = |w, o, v| if is(w, o, 4) { v & 1 } else { v };
    assert_eq!(found("registers", Fault::reading(no_type)), "SCI_EN and SLP_TYP of PM1 control");
    let deaf: Write = |w, _, v| (w != APM).then_some(v);
    assert_eq!(found("acpi-mode", Fault::writing(deaf)), "SCI_EN after command 0xf1");
    let fixed: Write = |w, o, v| (!(w == 1 && o == 3)).then_some(v);
    assert_eq!(found("gpe0", Fault::writing(fixed)), "enables of GPE0, byte 1");
    let sticky: Read = |w, o, v| if w == 1 && o == 0 { v | 2 } else { v };
    assert_eq!(found("gpe0", Fault::reading(sticky)), "status of GPE0, byte 0");
}
