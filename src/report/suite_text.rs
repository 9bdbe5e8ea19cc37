//! A run of tests for people: a line for each case, what it said below it, and a summary.

use std::fmt::Write;

use super::lines::printable;
use crate::base::TimeGrade;
use crate::base::units::human_nanos;
use crate::suite::{CaseResult, Finding, Status, SuiteReport};

/// One case as it ends.
pub fn case(case: &CaseResult) -> String {
    let mut out = format!("{:8} {}", case.status.name(), case.name());
    if !case.options.is_empty() {
        let options: Vec<String> = case.options.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let _ = write!(out, " {}", printable(&options.join(",")));
    }
    if case.status != Status::NotRun {
        let _ = write!(out, "  {}", human_nanos(case.wall.elapsed_ns));
    }
    if !case.reason.is_empty() {
        let _ = write!(out, ": {}", printable(&case.reason));
    }
    out.push('\n');
    let mut below = |text: &str| {
        let _ = writeln!(out, "         {}", printable(text));
    };
    case.all_lines().for_each(&mut below);
    if let (Some(grade), false) = (case.time_grade, case.wall.lines.is_empty()) {
        below(&format!("(times are {})", grade.name()));
    }
    if let Some(found) = &case.finding {
        below(&finding(found, case.time_grade));
    }
    case.notes.iter().for_each(|note| below(note));
    if let Some(path) = &case.artifacts {
        below(&format!("kept in {path}"));
    }
    out
}

/// A finding in one line.
pub fn finding(finding: &Finding, grade: Option<TimeGrade>) -> String {
    let mut out = finding.to_string();
    let time = finding.time_ns.0;
    if time > 0 && grade != Some(TimeGrade::RealTime) {
        let _ = write!(out, " (at {} of machine time)", human_nanos(time));
    }
    out
}

/// The last line.
pub fn summary(report: &SuiteReport) -> String {
    let counts = report.summary;
    let mut out = format!("{} passed, {} failed", counts.passed, counts.failed);
    for (count, word) in [
        (counts.errors, "could not be run"),
        (counts.skipped, "skipped"),
        (counts.not_run, "not run"),
    ] {
        if count > 0 {
            let _ = write!(out, ", {count} {word}");
        }
    }
    let time = human_nanos(report.wall.elapsed_ns);
    let _ = writeln!(out, " in {time} ({}, seed {})", printable(&report.machine), report.seed);
    out
}

/// The whole report.
pub fn render(report: &SuiteReport) -> String {
    let mut out: String = report.cases.iter().map(case).collect();
    out.push_str(&summary(report));
    out
}
