//! A run of tests in the Test Anything Protocol, version 14.

use std::fmt::Write;

use super::lines::printable;
use super::suite_text::finding;
use crate::suite::{CaseResult, Status, SuiteReport};

/// The whole report.
pub fn render(report: &SuiteReport) -> String {
    let mut out = format!("TAP version 14\n1..{}\n", report.cases.len());
    let _ = writeln!(out, "# machine {}, seed {}", printable(&report.machine), report.seed);
    for (case, number) in report.cases.iter().zip(1..) {
        render_case(&mut out, number, case);
    }
    if report.interrupted {
        out.push_str("Bail out! interrupted\n");
    }
    out
}

fn render_case(out: &mut String, number: usize, case: &CaseResult) {
    let name = escape(&case.name());
    let _ = match case.status {
        Status::Passed => writeln!(out, "ok {number} - {name}"),
        Status::Skipped => writeln!(out, "ok {number} - {name} # SKIP {}", escape(&case.reason)),
        Status::NotRun => writeln!(out, "ok {number} - {name} # SKIP not run"),
        Status::Failed | Status::Error => writeln!(out, "not ok {number} - {name}"),
    };
    for line in case.all_lines().chain(case.notes.iter().map(String::as_str)) {
        let _ = writeln!(out, "# {}", printable(line));
    }
    if matches!(case.status, Status::Failed | Status::Error) {
        diagnose(out, case);
    }
}

/// The YAML block of a test point. A JSON string is a YAML one.
fn diagnose(out: &mut String, case: &CaseResult) {
    let message = match &case.finding {
        Some(found) => finding(found, case.time_grade),
        None => case.reason.clone(),
    };
    let severity = if case.status == Status::Failed { "fail" } else { "error" };
    out.push_str("  ---\n");
    let mut field = |key: &str, value: &str| {
        let value = serde_json::Value::from(printable(value));
        let _ = writeln!(out, "  {key}: {value}");
    };
    field("message", &message);
    field("severity", severity);
    if let Some(path) = &case.artifacts {
        field("artifacts", path);
    }
    out.push_str("  ...\n");
}

/// `#` begins a directive and `\` escapes it.
fn escape(text: &str) -> String {
    printable(text).replace('\\', "\\\\").replace('#', "\\#")
}
