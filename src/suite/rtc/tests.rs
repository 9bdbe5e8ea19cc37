//! The cases on builtin machines, with QEMU's RTC, and with wrong ones.

use std::sync::Arc;

use super::rig::{Fault, Rig};
use super::*;
use crate::base::options::Options;
use crate::base::{HostClock, VirtualClock};
use crate::driver::cmos::*;
use crate::machine::Machine;
use crate::machine::builtin::{Board, BuiltinConfig, BuiltinMachine, Chips, Reference};
use crate::suite::outcome::Stop;

fn case(name: &str) -> Case {
    *CASES.iter().find(|case| case.name == name).unwrap()
}

/// Runs a case with everything that belongs to it; its outcome and what it said.
fn run(machine: &mut dyn Machine, case: &Case, options: &str) -> (Outcome, Vec<String>) {
    let options = Options::parse(options, case.options).unwrap();
    let mut thread = TestThread::new(machine, options, 1);
    let outcome = Rtc
        .init(&mut thread)
        .and_then(|()| (case.run)(&mut thread))
        .and_then(|()| Rtc.cleanup(&mut thread));
    (outcome, thread.take_lines())
}

fn rig() -> Rig {
    Rig::new(Arc::new(VirtualClock::new()))
}

fn builtin(board: Board, chips: Chips, reference: Reference) -> BuiltinMachine {
    let clock = Arc::new(VirtualClock::new());
    let config = BuiltinConfig { board, chips, reference, clock, ..BuiltinConfig::default() };
    BuiltinMachine::new(config).unwrap()
}

#[test]
fn every_case_passes_on_a_machine_of_its_own() {
    for case in CASES {
        let mut machine = builtin(Board::Pc, Chips::RTC, Reference::DataSheets);
        let (outcome, _) = run(&mut machine, case, "");
        assert!(outcome.is_ok(), "{}: {outcome:?}", case.name);
    }
}

#[test]
fn cases_follow_each_other_on_one_machine() {
    for board in [Board::Pc, Board::Q35] {
        let mut machine = builtin(board, Chips::FULL, Reference::DataSheets);
        for case in CASES.iter().chain(CASES) {
            let (outcome, _) = run(&mut machine, case, "");
            assert!(outcome.is_ok(), "{}: {outcome:?}", case.name);
            let level = machine.interrupts().unwrap().intx_level(8);
            assert!(!level, "{} leaves interrupt 8", case.name);
        }
    }
}

#[test]
fn qemus_model_passes_all_but_the_case_that_is_known_to_differ() {
    for case in CASES {
        let mut machine = builtin(Board::Pc, Chips::RTC, Reference::Qemu);
        let (outcome, _) = run(&mut machine, case, "");
        let differs = case.name == "periodic-flag-without-enable";
        assert_eq!(outcome.is_err(), differs, "{}: {outcome:?}", case.name);
    }
}

#[test]
fn drift_is_exactly_zero_on_a_virtual_clock() {
    let (outcome, lines) = run(&mut rig(), &case("drift"), "");
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(
        lines,
        [
            "hz: 2, duration_ms: 5000, exp_duration: 5000, drift ratio: 0.000000",
            "hz: 1024, duration_ms: 5000, exp_duration: 5000, drift ratio: 0.000000",
        ]
    );
    // Whole periods only, at a rate whose period is no whole number of nanoseconds.
    let options = "hz=8192,duration_ms=7,threshold=0";
    let (outcome, lines) = run(&mut rig(), &case("drift"), options);
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(lines, ["hz: 8192, duration_ms: 6, exp_duration: 6, drift ratio: 0.000000"]);
}

#[test]
fn drift_on_the_hosts_clock_says_so_and_has_a_threshold() {
    let mut rig = Rig::new(Arc::new(HostClock::new()));
    // The threshold is what is tested, not the host: no host is so slow.
    let (outcome, lines) = run(&mut rig, &case("drift"), "hz=16,duration_ms=250,threshold=100");
    assert!(outcome.is_ok(), "{outcome:?}");
    assert!(lines[0].starts_with("hz: 16, duration_ms: "), "{lines:?}");
    assert!(lines[0].ends_with(" (host time)"), "{lines:?}");
    let (outcome, _) = run(&mut rig, &case("drift"), "hz=16,duration_ms=250,threshold=0");
    assert!(matches!(outcome, Err(Stop::Failed(_))), "{outcome:?}");
}

#[test]
fn options_that_measure_nothing_are_refused() {
    for options in ["hz=3", "hz=0", "threshold=-1", "threshold=nan", "hz=2,duration_ms=499"] {
        let (outcome, _) = run(&mut rig(), &case("drift"), options);
        assert!(matches!(outcome, Err(Stop::Error(_))), "{options}: {outcome:?}");
    }
}

/// Faults, and the case that must find each.
const FAULTS: &[(&str, Fault)] = &[
    ("alarm", |index, value| if index == REGISTER_C { value & !C_AF } else { value }),
    ("alarm-12h-midnight", |index, value| if index == HOURS { value | 0x80 } else { value }),
    ("update-ended", |index, value| if index == REGISTER_C { value & !C_UF } else { value }),
    ("periodic", |index, value| if index == REGISTER_C { value & !C_PF } else { value }),
    ("register-c", |index, value| if index == REGISTER_C { value | C_UF } else { value }),
    ("uip", |index, value| if index == REGISTER_A { value & !A_UIP } else { value }),
    ("uip-stuck", |index, value| if index == REGISTER_A { value | A_UIP } else { value }),
    ("divider-reset", |index, value| if index == REGISTER_A { value | A_UIP } else { value }),
    (
        "divider-reset-periodic",
        |index, value| {
            if index == REGISTER_C { value | C_PF } else { value }
        },
    ),
    ("set", |index, value| if index == REGISTER_B { value | B_UIE } else { value }),
    ("time-24h-bcd", |index, value| if index == SECONDS { value & 0x3f } else { value }),
    ("time-12h-bcd", |index, value| if index == HOURS { value & 0x7f } else { value }),
    ("time-12h-binary", |index, value| if index == HOURS { value & 0x7f } else { value }),
    ("calendar", |index, value| if index == MONTH && value == 12 { 0 } else { value }),
    ("leap-day", |index, value| if index == DATE_OF_THE_MONTH && value == 29 { 30 } else { value }),
    ("day-of-week", |index, value| if index == DAY_OF_THE_WEEK { value % 7 } else { value }),
    ("century", |index, value| if index == CENTURY { 0x20 } else { value }),
    ("before-1970", |index, value| if index == CENTURY { 0x20 } else { value }),
    ("after-2262", |index, value| if index == CENTURY { 0x20 } else { value }),
    (
        "flags-without-enables",
        |index, value| if index == REGISTER_C { value & !C_AF } else { value },
    ),
    (
        "periodic-flag-without-enable",
        |index, value| {
            if index == REGISTER_C { value & !C_PF } else { value }
        },
    ),
    ("read-only", |index, value| if index == REGISTER_D { value & !D_VRT } else { value }),
    ("ram", |index, value| if index == 0x55 { value ^ 1 } else { value }),
    ("registers", |index, value| if index == 0x7f { value | 0x10 } else { value }),
];

#[test]
fn each_fault_fails_the_case_that_is_about_it() {
    for (name, fault) in FAULTS {
        let mut rig = rig().faulty(*fault);
        let (outcome, _) = run(&mut rig, &case(name), "");
        let Err(Stop::Failed(finding)) = outcome else { panic!("{name}: {outcome:?}") };
        assert_ne!(finding.expected, finding.got, "{name}: {finding:?}");
    }
}

#[test]
fn one_flipped_month_is_named_by_its_case() {
    let fault: Fault = |index, value| if index == MONTH { value ^ 1 } else { value };
    let mut rig = rig().faulty(fault);
    let (outcome, _) = run(&mut rig, &case("calendar"), "");
    let Err(Stop::Failed(finding)) = outcome else { panic!("{outcome:?}") };
    assert!(finding.what.contains("1980-01-31"), "{finding:?}");
    assert!(finding.expected.contains("08h: 02h") && finding.got.contains("08h: 03h"));
}
