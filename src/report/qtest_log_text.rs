//! A report of a replayed qtest log for people.

use std::fmt::Write as _;

use super::lines::line;
use super::qtest_log::{Outcome, QtestLogReport};
use crate::base::shell;

/// Characters of stderr shown; JSON has all that was kept.
const STDERR_SHOWN: usize = 2000;

/// The text of a report.
pub fn render(report: &QtestLogReport) -> String {
    let mut out = String::new();
    head(&mut out, report);
    rejected(&mut out, report);
    for note in &report.notes {
        line(&mut out, "note", note);
    }
    finding(&mut out, report);
    line(&mut out, "verdict", &verdict(report));
    out
}

fn head(out: &mut String, report: &QtestLogReport) {
    line(out, "report", &report.report);
    let machine = &report.machine;
    line(out, "machine", &format!("QEMU {} ({})", machine.version, machine.binary));
    line(out, "arguments", &shell::join(machine.args.iter().map(String::as_str)));
    for change in &machine.changes {
        line(out, "", change);
    }
    for image in &machine.images {
        line(out, "image", &format!("{image}, with a temporary overlay over it"));
    }
    let done = &report.done;
    let mut sent = format!("{} of {} sent, {} answered", done.sent, done.commands, done.answered);
    if done.refused > 0 {
        let _ = write!(sent, ", {} of them with FAIL", done.refused);
    }
    line(out, "commands", &sent);
    for (name, count) in &report.events {
        line(out, "event", &format!("{name} × {count}"));
    }
}

fn rejected(out: &mut String, report: &QtestLogReport) {
    for lines in &report.rejected {
        if lines.expected {
            line(out, "not sent", &format!("{} × {}", lines.reason, lines.count));
            continue;
        }
        line(out, "NOT SENT", &format!("{} × {}", lines.reason, lines.count));
        for shown in &lines.first {
            line(out, "", &format!("line {}: {}", shown.line, shown.text));
        }
    }
}

fn finding(out: &mut String, report: &QtestLogReport) {
    let Some(finding) = &report.finding else { return };
    let _ = writeln!(out, "\nQEMU {}", finding.what);
    let _ = writeln!(out, "last commands:");
    for command in &finding.last {
        let place = match command.line {
            0 => "barrier".to_owned(),
            line => format!("line {line}"),
        };
        let mark = if command.answered { "" } else { "    (not answered)" };
        let _ = writeln!(out, "  {place:>10}: {}{mark}", command.text);
    }
    let stderr = finding.stderr.trim();
    if !stderr.is_empty() {
        let _ = writeln!(out, "stderr:");
        let skip = stderr.len().saturating_sub(STDERR_SHOWN);
        let skip = (skip..stderr.len()).find(|at| stderr.is_char_boundary(*at)).unwrap_or(0);
        for line in stderr.get(skip..).unwrap_or_default().lines() {
            let _ = writeln!(out, "  {}", line.escape_debug());
        }
    }
    if !finding.reproduce.is_empty() {
        let _ = writeln!(out, "reproduce:\n  {}", finding.reproduce);
    }
    out.push('\n');
}

fn verdict(report: &QtestLogReport) -> String {
    let what = report.finding.as_ref().map_or("", |finding| finding.what.as_str());
    match report.outcome {
        Outcome::Survived => "survived: QEMU answered every command and the barriers".to_owned(),
        Outcome::PoweredOff => {
            let left = report.done.commands - report.done.sent.min(report.done.commands);
            format!("powered off: QEMU ended as the guest told it to; {left} commands not sent")
        }
        Outcome::Died | Outcome::Hung | Outcome::Broken => format!("FAILED: QEMU {what}"),
        Outcome::Interrupted => "interrupted: what stands above is partial".to_owned(),
    }
}
