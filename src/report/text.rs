//! A report for people: aligned tables, units on every number, the time's grade beside durations.

use std::fmt::Write as _;

use super::lines::{self, line, table};
use super::{Histogram, OpReport, Report};
use crate::base::units::{human_bytes, human_nanos};
use crate::oracle::finding::Finding;
use crate::oracle::verdict::{Unverifiable, Verdict, Verify};

/// Findings printed in full; of further ones a line.
const FINDINGS_IN_FULL: usize = 3;

/// Lines of further findings.
const FINDINGS_IN_LINES: usize = 17;

/// Bytes on a line of a dump.
const DUMP_LINE: usize = 16;

/// The text of a report.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    head(&mut out, report);
    operations(&mut out, report);
    pacing(&mut out, report);
    checks(&mut out, &report.verdict);
    for (n, finding) in report.verdict.findings.iter().take(FINDINGS_IN_FULL).enumerate() {
        render_finding(&mut out, n + 1, finding);
    }
    further_findings(&mut out, &report.verdict);
    tail(&mut out, report);
    out
}

fn head(out: &mut String, report: &Report) {
    lines::trace(out, &report.trace);
    let machine = &report.machine;
    let parts = [&machine.kind, &machine.board, &machine.device, &machine.transport];
    let words: Vec<&str> = parts.iter().map(|s| s.as_str()).filter(|s| !s.is_empty()).collect();
    line(out, "machine", &words.join(" "));
    let target = &report.target;
    let made = match (target.created, target.snapshot) {
        (true, _) => ", made for this run",
        (false, true) => ", left untouched (snapshot)",
        (false, false) => "",
    };
    let size = human_bytes(target.size);
    let target = format!("{} ({}, {size}{made})", target.path, target.format);
    line(out, "target", target.trim_start());
    lines::incomplete(out, report.complete, report.interrupted);
    let duration = human_nanos(report.duration_ns);
    let what =
        format!("{} requests in {duration} ({})", report.requests(), report.time_grade.name());
    line(out, "done", &what);
}

fn operations(out: &mut String, report: &Report) {
    if report.ops.is_empty() {
        return;
    }
    let titles = ["op", "count", "bytes", "errors", "IOPS", "bandwidth"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    rows.extend(report.ops.iter().map(throughput_row));
    let _ = write!(out, "\n{}", table(&rows));
    let grade = report.time_grade.name();
    let mut rows = vec![titles_of_latency(&format!("latency ({grade})"))];
    for op in &report.ops {
        rows.push(latency_row(op.op.name(), &op.latency));
        if let Some(recorded) = &op.recorded_latency {
            rows.push(latency_row("  recorded", recorded));
        }
    }
    let _ = write!(out, "\n{}", table(&rows));
}

/// A rate: with one decimal where it is small.
pub fn rate(per_second: f64) -> String {
    if per_second < 100.0 { format!("{per_second:.1}") } else { format!("{per_second:.0}") }
}

fn throughput_row(op: &OpReport) -> Vec<String> {
    vec![
        op.op.name().to_owned(),
        op.count.to_string(),
        human_bytes(op.bytes),
        op.errors.to_string(),
        op.iops.map_or("-".to_owned(), rate),
        op.bytes_per_second.map_or("-".to_owned(), |n| format!("{}/s", human_bytes(n as u64))),
    ]
}

fn titles_of_latency(first: &str) -> Vec<String> {
    [first, "p50", "p90", "p99", "p99.9", "max", "mean"].map(str::to_owned).to_vec()
}

fn latency_row(name: &str, histogram: &Histogram) -> Vec<String> {
    let mut row = vec![name.to_owned()];
    if histogram.count() == 0 {
        return row;
    }
    row.extend([0.5, 0.9, 0.99, 0.999].map(|q| human_nanos(histogram.quantile(q))));
    row.extend([human_nanos(histogram.max()), human_nanos(histogram.mean())]);
    row
}

fn pacing(out: &mut String, report: &Report) {
    let grade = report.time_grade.name();
    out.push('\n');
    if let Some(lateness) = &report.lateness {
        let rows =
            [titles_of_latency(&format!("lateness ({grade})")), latency_row("issue", lateness)];
        let _ = writeln!(out, "{}", table(&rows));
    }
    let why = match report.timing.why.as_str() {
        "" => String::new(),
        why => format!(": {why}"),
    };
    line(out, "timing", &format!("{}{why}", report.timing.status.name()));
    let counts = [
        (report.held, "held back because they overlapped one in flight"),
        (report.splits, "split, being larger than the device takes"),
        (report.expansions, "carried out as several, to keep their meaning"),
    ];
    for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
        line(out, "requests", &format!("{count} {what}"));
    }
    for skip in &report.skipped {
        line(out, "left out", &format!("{} {}", skip.count, skip.reason));
    }
}

fn checks(out: &mut String, verdict: &Verdict) {
    let checked = match verdict.verify {
        Verify::None => "nothing but statuses (verify=none)".to_owned(),
        Verify::Reads | Verify::Full => format!(
            "{} of data in {} reads",
            human_bytes(verdict.read_bytes_checked),
            verdict.reads_checked
        ),
    };
    line(out, "checked", &checked);
    if let Some(bytes) = verdict.image_bytes_checked {
        line(out, "", &format!("{} of the target against the model", human_bytes(bytes)));
    }
    if let Some(bytes) = verdict.comparison_bytes_checked {
        line(out, "", &format!("{} of the target against comparison_img", human_bytes(bytes)));
    }
    let maps = [
        (&verdict.unverifiable_read_bytes, "of reads"),
        (&verdict.unverifiable_image_bytes, "of the target"),
    ];
    for (map, of) in maps {
        for (reason, bytes) in map {
            line(out, "not checked", &format!("{} {of}: {}", human_bytes(*bytes), why(*reason)));
        }
    }
    if verdict.failed_as_recorded > 0 {
        line(
            out,
            "failed",
            &format!("{} requests, as in the recording", verdict.failed_as_recorded),
        );
    }
}

fn why(reason: Unverifiable) -> &'static str {
    match reason {
        Unverifiable::Discarded => "discarded, so unspecified",
        Unverifiable::NotWritten => "not written by this trace",
        Unverifiable::FailedWrite => "a write to it failed",
        Unverifiable::Unanswered => "a write to it had no answer",
        Unverifiable::Contested => "too many overlapping writes",
        Unverifiable::FailedRead => "the read failed",
    }
}

/// Appends a finding in full: what, where, who, and the bytes.
pub fn render_finding(out: &mut String, number: usize, finding: &Finding) {
    let (name, kind) = (finding.name(), finding.kind.to_string());
    let kind = if kind == name { String::new() } else { format!(" ({kind})") };
    let _ = writeln!(out, "\nfinding {number}: {name}{kind}");
    let _ = writeln!(out, "  {}", finding.message);
    if let Some(writer) = &finding.last_writer {
        let at = human_nanos(writer.time_ns);
        let _ = writeln!(out, "  last written by {writer}, {at} into the recording");
    }
    if !finding.alternatives.is_empty() {
        let names: Vec<&str> = finding.alternatives.iter().map(|f| f.name()).collect();
        let _ = writeln!(out, "  would look the same: {}", names.join(", "));
    }
    if finding.occurrences > 1 {
        let _ = writeln!(out, "  seen {} times", finding.occurrences);
    }
    for line in finding.obituary.iter().flat_map(|obituary| obituary.lines().into_iter().skip(1)) {
        let _ = writeln!(out, "  {line}");
    }
    dump(out, finding);
}

/// Expected and got, line by line; differing lines are marked.
fn dump(out: &mut String, finding: &Finding) {
    let (expected, got) = (&finding.expected.0, &finding.got.0);
    let lines = expected.chunks(DUMP_LINE).zip(got.chunks(DUMP_LINE));
    for (offset, (expected, got)) in (finding.shown_from..).step_by(DUMP_LINE).zip(lines) {
        if expected == got {
            let _ = writeln!(out, "    {offset:#012x} {}", dump_line(expected));
        } else {
            let _ = writeln!(out, "  - {offset:#012x} {}", dump_line(expected));
            let _ = writeln!(out, "  + {offset:#012x} {}", dump_line(got));
        }
    }
    if !expected.is_empty() {
        let _ = writeln!(out, "  (- expected, + got)");
    }
}

fn dump_line(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (n, byte) in bytes.iter().enumerate() {
        let _ = write!(text, "{}{byte:02x}", if n == DUMP_LINE / 2 { "  " } else { " " });
    }
    let printable = |b: &u8| if b.is_ascii_graphic() || *b == b' ' { char::from(*b) } else { '.' };
    let ascii: String = bytes.iter().map(printable).collect();
    format!("{text:<50} |{ascii}|")
}

fn further_findings(out: &mut String, verdict: &Verdict) {
    let further = verdict.findings.iter().skip(FINDINGS_IN_FULL);
    if verdict.findings.len() > FINDINGS_IN_FULL {
        out.push('\n');
    }
    for (n, finding) in (FINDINGS_IN_FULL + 1..).zip(further).take(FINDINGS_IN_LINES) {
        let _ = writeln!(out, "finding {n}: {}: {}", finding.name(), finding.message);
    }
    let shown = verdict.findings.len().min(FINDINGS_IN_FULL + FINDINGS_IN_LINES) as u64;
    if verdict.findings_total > shown {
        let _ = writeln!(out, "and {} more findings", verdict.findings_total - shown);
    }
}

fn tail(out: &mut String, report: &Report) {
    out.push('\n');
    for note in &report.notes {
        line(out, "note", note);
    }
    if let Some(sha) = &report.run_log_sha256 {
        line(out, "run log", &format!("sha256 {sha}"));
    }
    if let Some(sha) = &report.image_sha256 {
        line(out, "image", &format!("sha256 {sha}"));
    }
    let verdict = &report.verdict;
    let word = match (verdict.pass, report.complete, verdict.findings_total) {
        (false, false, 0) => "no finding, and the run is not complete".to_owned(),
        (false, _, 1) => "FAIL: 1 finding".to_owned(),
        (false, _, n) => format!("FAIL: {n} findings"),
        (true, false, _) => "no finding, and the run is not complete".to_owned(),
        (true, true, _) => "PASS".to_owned(),
    };
    line(out, "verdict", &word);
}
