//! The runner, with cases that end in every way.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::known::KnownBug;
use super::machines::MachineChoice;
use super::results::{CaseResult, Status, SuiteReport};
use super::runner::{RunOptions, run};
use super::select::plan;
use super::testing::MODULES;
use crate::report::{junit, suite_text, tap};

fn options() -> RunOptions {
    RunOptions {
        deadline: Duration::from_secs(20),
        ..RunOptions::new(MachineChoice::parse("builtin").unwrap())
    }
}

fn report(words: &[&str], options: &RunOptions) -> SuiteReport {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let plan = plan(MODULES, &words).unwrap();
    let mut told = Vec::new();
    let tell = &mut |case: &CaseResult| told.push(case.name());
    let report = run(&plan, options, &AtomicBool::new(false), tell).unwrap();
    let names: Vec<String> = report.cases.iter().map(CaseResult::name).collect();
    assert_eq!(told, names);
    report
}

fn only(words: &[&str]) -> CaseResult {
    report(words, &options()).cases.remove(0)
}

#[test]
fn cases_that_pass_say_their_lines() {
    let report = report(&["good", "number=3"], &options());
    assert_eq!((report.summary.passed, report.exit_code()), (3, 0));
    assert!(report.cases[1].lines[0].starts_with("number 3 random "));
    assert_eq!(report.cases[2].machine_time_ns, Some(3_600_000_000_000));
}

#[test]
fn the_seed_decides_what_is_random() {
    let line = |seed| {
        let options = RunOptions { seed, ..options() };
        report(&["good/options"], &options).cases.remove(0).lines
    };
    assert_eq!(line(1), line(1));
    assert_ne!(line(1), line(2));
}

#[test]
fn a_failure_is_a_finding() {
    let case = only(&["bad/fail"]);
    assert_eq!(case.status, Status::Failed);
    let finding = case.finding.unwrap();
    assert_eq!((&*finding.what, &*finding.expected), ("host bridge", "0x0"));
    assert!(finding.got.ends_with("8086"), "{finding:?}");
}

#[test]
fn a_panic_and_a_hang_fail_and_the_rest_go_on() {
    let quick = RunOptions { deadline: Duration::from_millis(200), ..options() };
    for fresh in ["fresh=on", "fresh=off"] {
        let words = [fresh, "bad/panic", "bad/hang", "good/pass"];
        let report = report(&words, &quick);
        let [panic, hang, pass] = &report.cases[..] else { panic!("three cases") };
        assert_eq!((panic.status, hang.status), (Status::Failed, Status::Failed));
        let text = &panic.finding.as_ref().unwrap().got;
        assert!(text.contains("as asked") && text.contains("testing.rs:"), "{text}");
        assert_eq!(panic.lines, ["before it panics"]);
        assert!(hang.finding.as_ref().unwrap().what.contains("hung"));
        assert!(hang.notes[0].contains("abandoned"));
        assert_eq!(pass.status, Status::Passed);
        assert!(pass.notes.is_empty(), "a new machine");
        assert_eq!(report.exit_code(), 1);
    }
}

#[test]
fn skips_say_why() {
    let report = report(&["bad/skip", "bad/needs"], &options());
    assert_eq!(report.summary.skipped, 2);
    assert_eq!(report.cases[0].reason, "it is Sunday");
    assert_eq!(report.cases[1].reason, "builtin lacks a vhost-user ring interface");
    assert_eq!(report.exit_code(), 4, "nothing ran");
    let case = only(&["good/time", "clock=host"]);
    assert_eq!((case.status, &*case.reason), (Status::Skipped, "builtin lacks a virtual clock"));
}

#[test]
fn what_the_driver_met_is_a_failure_and_a_wrong_value_is_none() {
    let case = only(&["bad/driver"]);
    assert_eq!(case.status, Status::Failed);
    assert!(case.finding.unwrap().got.contains("not in flight"));
    let report = report(&["bad/usage"], &options());
    let case = &report.cases[0];
    assert_eq!((case.status, &*case.notes[0]), (Status::Error, "hint: try z"));
    assert_eq!(report.exit_code(), 2);
}

const BUG: KnownBug = KnownBug {
    machine: "builtin",
    case: "bad/fail",
    finding: "host bridge",
    what: "its id is not 0",
    section: "PCI 3.0 §6.1",
};

#[test]
fn a_known_bug_is_a_skip_that_hides_nothing() {
    let known = |bugs| RunOptions { known_bugs: bugs, ..options() };
    let report = report(&["good/pass", "bad/fail"], &known(&[BUG]));
    let case = &report.cases[1];
    let reason = "builtin bug: its id is not 0 (PCI 3.0 §6.1)";
    assert_eq!((case.status, &*case.reason), (Status::Skipped, reason));
    assert!(case.notes[0].starts_with("found: host bridge: expected 0x0, got 0x"), "{case:?}");
    assert_eq!((report.summary.skipped, report.exit_code()), (1, 0));
    for text in [
        suite_text::render(&report),
        tap::render(&report),
        junit::render(&report),
        serde_json::to_string(&report).unwrap(),
    ] {
        assert!(text.contains(reason) && text.contains("found: host bridge: exp"), "{text}");
    }
    assert!(tap::render(&report).contains("ok 2 - bad/fail # SKIP builtin bug"));
    assert!(junit::render(&report).contains("<skipped message=\"builtin bug"));
}

#[test]
fn what_a_known_bug_does_not_explain_is_a_failure() {
    let status = |bug: KnownBug, case: &str| {
        let bugs = Box::leak(Box::new([bug]));
        let quick = Duration::from_millis(200);
        let options = RunOptions { known_bugs: bugs, deadline: quick, ..options() };
        report(&[case], &options).cases.remove(0)
    };
    let other = KnownBug { finding: "guest bridge", ..BUG };
    assert_eq!(status(other, "bad/fail").status, Status::Failed);
    assert_eq!(status(KnownBug { machine: "qemu", ..BUG }, "bad/fail").status, Status::Failed);
    for case in ["bad/hang", "bad/panic"] {
        let any = KnownBug { case, finding: "", ..BUG };
        assert_eq!(status(any, case).status, Status::Failed, "{case}");
    }
    let passed = status(KnownBug { case: "good/pass", ..BUG }, "good/pass");
    assert_eq!(passed.status, Status::Passed);
    assert_eq!(passed.notes, ["a known bug did not show here: its id is not 0"]);
}

#[test]
fn machines_are_fresh_unless_chained() {
    let lines = |words: &[&str]| -> Vec<String> {
        let cases = report(words, &options()).cases;
        cases.into_iter().map(|case| case.lines[0].clone()).collect()
    };
    assert_eq!(lines(&["disks/first", "disks/first"]), ["marked 0", "marked 0"]);
    assert_eq!(lines(&["fresh=off", "disks/first", "disks/first"]), ["marked 0", "marked 7"]);
}

#[test]
fn a_chained_machine_has_what_all_its_cases_need() {
    // The first case needs no disk; the machine has the second one's all the same.
    let report = report(&["fresh=off", "good/pass", "disks/first", "good/pass"], &options());
    let reused: Vec<usize> = report.cases.iter().map(|case| case.notes.len()).collect();
    assert_eq!(reused, [0, 1, 1]);
    // A machine in which something failed is not used again.
    let report = self::report(&["fresh=off", "disks/fail", "disks/first"], &options());
    assert_eq!(report.cases[1].lines, ["marked 0"]);
}

#[test]
fn a_run_can_end_early_and_reports_all_the_same() {
    let quick = RunOptions { fail_fast: true, ..options() };
    let report = report(&["good/pass", "bad/fail", "good/pass"], &quick);
    assert_eq!((report.summary.passed, report.summary.failed, report.summary.not_run), (1, 1, 1));

    let plan = plan(MODULES, &["good".to_owned(), "bad/hang".to_owned()]).unwrap();
    let stop = AtomicBool::new(false);
    let raise = &mut |case: &CaseResult| {
        if case.case == "time" {
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    };
    let report = run(&plan, &options(), &stop, raise).unwrap();
    assert_eq!((report.summary.passed, report.summary.not_run), (3, 1));
    assert_eq!(report.exit_code(), 130);
}

#[test]
fn failures_keep_their_artifacts() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("made/for/it");
    let keeping = RunOptions { artifacts: Some(dir.clone()), seed: 9, ..options() };
    for _ in 0..2 {
        let report = report(&["good/pass", "bad/fail", "disks/fail", "disks/fail"], &keeping);
        let kept = report.cases[1].artifacts.as_ref().unwrap();
        assert!(kept.ends_with("bad-fail"));
        let mut names: Vec<_> = std::fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["bad-fail", "disks-fail", "disks-fail-2"], "whole folders, once each");
    }
    let log = std::fs::read_to_string(dir.join("bad-fail/bus.log")).unwrap();
    assert!(log.contains("port out 0xcf8 4 0x80000000"), "{log}");
    let finding = std::fs::read(dir.join("bad-fail/finding.json")).unwrap();
    let finding: serde_json::Value = serde_json::from_slice(&finding).unwrap();
    assert_eq!(finding["reproduce"], "qtrace test bad/fail --machine builtin --seed 9");
    let mut want = vec![0; 64 << 10];
    super::TestDisk::pattern(0, &mut want);
    assert_eq!(std::fs::read(dir.join("disks-fail/disk0.raw")).unwrap(), want);

    // What no run has made stays, and the report says so.
    let other = folder.path().join("other");
    std::fs::create_dir_all(other.join("bad-fail")).unwrap();
    std::fs::write(other.join("bad-fail/mine"), "precious").unwrap();
    let keeping = RunOptions { artifacts: Some(other.clone()), ..options() };
    let report = report(&["bad/fail"], &keeping);
    assert!(report.cases[0].notes[0].contains("no earlier run made it"));
    assert_eq!(std::fs::read_dir(&other).unwrap().count(), 1);
}
