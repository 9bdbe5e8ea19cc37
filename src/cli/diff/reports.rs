//! Two reports: timing side by side, and limits on it.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::Outcome;
use crate::base::{BlockOp, Result};
use crate::report::lines::table;
use crate::report::threshold::{METRICS, Metric, Threshold};
use crate::report::{Report, TimingStatus};

/// One figure in both.
#[derive(Serialize)]
struct Row {
    /// The operation; absent for all together.
    #[serde(skip_serializing_if = "Option::is_none")]
    op: Option<BlockOp>,
    metric: &'static str,
    #[serde(serialize_with = "number")]
    a: Option<f64>,
    #[serde(serialize_with = "number")]
    b: Option<f64>,
    /// b / a.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
}

#[derive(Serialize)]
struct Checked {
    expression: String,
    #[serde(serialize_with = "number")]
    a: Option<f64>,
    #[serde(serialize_with = "number")]
    b: Option<f64>,
    failed: bool,
}

#[derive(Serialize)]
struct Json {
    schema: &'static str,
    kind: &'static str,
    a: String,
    b: String,
    identical: bool,
    rows: Vec<Row>,
    fail_if: Vec<Checked>,
    /// Why limits could not be judged: each makes the exit code 6.
    not_judged: Vec<String>,
    notes: Vec<String>,
}

/// Compares them. Differing figures are no failure; a limit that is passed is.
pub fn compare(
    paths: (&Path, &Path),
    a: &Report,
    b: &Report,
    limits: &[Threshold],
) -> Result<Outcome> {
    let rows = rows(a, b);
    let checked = limits.iter().map(|limit| limit.check(a, b)).collect::<Result<Vec<_>>>()?;
    let notes = notes(a, b);
    // A limit on times that mean nothing must not pass by luck.
    let not_judged: Vec<String> = [("A", a), ("B", b)]
        .into_iter()
        .filter(|(_, r)| r.timing.status == TimingStatus::Invalid && !limits.is_empty())
        .map(|(name, _)| format!("timing of {name} is INVALID, so no limit can be judged"))
        .collect();
    let failed = checked.iter().any(|c| c.failed) || !not_judged.is_empty();
    let mut text = String::new();
    let _ = writeln!(text, "A  {}\nB  {}\n", paths.0.display(), paths.1.display());
    text.push_str(&table(&table_rows(&rows, a, b)));
    for note in &notes {
        let _ = writeln!(text, "note: {note}");
    }
    for outcome in &checked {
        let _ = writeln!(text, "{outcome}");
    }
    for why in &not_judged {
        let _ = writeln!(text, "FAIL  {why}");
    }
    let json = Json {
        schema: super::SCHEMA,
        kind: "reports",
        a: paths.0.display().to_string(),
        b: paths.1.display().to_string(),
        identical: same_but_wall(a, b),
        rows,
        fail_if: checked
            .into_iter()
            .map(|c| Checked { expression: c.text, a: c.a, b: Some(c.b), failed: c.failed })
            .collect(),
        not_judged,
        notes,
    };
    Outcome::new(text, &json, if failed { super::EXIT_TIMING } else { 0 })
}

/// Whole numbers without a fraction.
fn number<S: serde::Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        None => serializer.serialize_none(),
        Some(n) if n.fract() == 0.0 && *n < 1e15 => serializer.serialize_u64(*n as u64),
        Some(n) => serializer.serialize_f64(*n),
    }
}

fn same_but_wall(a: &Report, b: &Report) -> bool {
    let mut b = b.clone();
    b.wall = a.wall.clone();
    *a == b
}

fn rows(a: &Report, b: &Report) -> Vec<Row> {
    let present = |op: &BlockOp| a.ops.iter().chain(&b.ops).any(|row| row.op == *op);
    let ops = BlockOp::ALL.into_iter().filter(present).map(Some);
    let mut rows = Vec::new();
    for op in std::iter::once(None).chain(ops) {
        for (name, metric) in METRICS {
            let (a, b) = (metric.of(a, op), metric.of(b, op));
            let ratio = match (a, b) {
                (Some(a), Some(b)) if a > 0.0 => Some(b / a),
                _ => None,
            };
            if a.is_some() || b.is_some() {
                rows.push(Row { op, metric: name, a, b, ratio });
            }
        }
    }
    rows
}

fn table_rows(rows: &[Row], a: &Report, b: &Report) -> Vec<Vec<String>> {
    let grade = |report: &Report, name: &str| format!("{name} ({})", report.time_grade.name());
    let mut table = vec![vec![String::new(), grade(a, "A"), grade(b, "B"), "B/A".to_owned()]];
    for row in rows {
        let metric = METRICS.iter().find(|(name, _)| *name == row.metric).map(|(_, m)| *m);
        let show = |v: Option<f64>| match (metric, v) {
            (Some(metric), Some(value)) => Metric::show(metric, value),
            _ => "-".to_owned(),
        };
        let name = match row.op {
            Some(op) => format!("{op}.{}", row.metric),
            None => row.metric.to_owned(),
        };
        let ratio = row.ratio.map_or(String::new(), |ratio| format!("{ratio:.3}"));
        table.push(vec![name, show(row.a), show(row.b), ratio]);
    }
    table
}

/// What makes the two less comparable, or shows that they did not do the same.
fn notes(a: &Report, b: &Report) -> Vec<String> {
    let mut notes = Vec::new();
    if a.time_grade != b.time_grade {
        notes.push("their times are of different grades".to_owned());
    }
    for (name, report) in [("A", a), ("B", b)] {
        if report.timing.status == TimingStatus::Invalid {
            notes.push(format!("the timing of {name} is INVALID: {}", report.timing.why));
        }
        if !report.complete {
            notes.push(format!("{name} is not complete"));
        }
        if report.verdict.findings_total > 0 {
            notes.push(format!("{name} has {} findings", report.verdict.findings_total));
        }
    }
    for (what, a, b) in [
        ("final images", &a.image_sha256, &b.image_sha256),
        ("run logs", &a.run_log_sha256, &b.run_log_sha256),
        ("traces", &a.trace.sha256, &b.trace.sha256),
    ] {
        if a.is_some() && b.is_some() && a != b {
            notes.push(format!("the {what} differ (SHA-256)"));
        }
    }
    let mut changed: Vec<String> = Vec::new();
    for key in a.settings.keys().chain(b.settings.keys()) {
        let (a, b) = (a.settings.get(key), b.settings.get(key));
        let value = |v: Option<&String>| v.cloned().unwrap_or_else(|| "(none)".to_owned());
        let line = format!("{key}: {} -> {}", value(a), value(b));
        if a != b && !changed.contains(&line) {
            changed.push(line);
        }
    }
    notes.extend(changed.into_iter().map(|line| format!("setting {line}")));
    notes
}
