//! A bus report for people.

use std::fmt::Write as _;

use super::bus::{BusReport, MismatchReport, ReadCounts, RegionReport, percent};
use super::lines::{self, GROUPS_SHOWN, RegionRow, line, printable, times};
use crate::base::units::human_nanos;

/// The text of a report.
pub fn render(report: &BusReport) -> String {
    let mut out = String::new();
    head(&mut out, report);
    let (modelled, foreign): (Vec<&RegionReport>, Vec<&RegionReport>) =
        report.regions.iter().partition(|region| region.modelled);
    regions(&mut out, "modelled", &modelled, &report.modelled);
    if !foreign.is_empty() {
        regions(&mut out, "not modelled", &foreign, &report.foreign);
    }
    for group in report.mismatches.iter().take(GROUPS_SHOWN) {
        mismatch(&mut out, group);
    }
    let shown = lines::more(report.mismatches.len(), GROUPS_SHOWN, report.mismatches_unlisted);
    if let Some(more) = shown {
        let _ = writeln!(out, "\n{more}");
    }
    if let Some(death) = &report.died {
        out.push('\n');
        lines::died(&mut out, "", death);
    }
    tail(&mut out, report);
    out
}

fn head(out: &mut String, report: &BusReport) {
    lines::trace(out, &report.trace);
    line(out, "machine", &printable(&report.machine));
    lines::incomplete(out, report.complete, report.interrupted);
    let (duration, grade) = (human_nanos(report.duration_ns), report.time_grade.name());
    line(out, "done", &format!("{} in {duration} ({grade})", lines::done(&report.done)));
}

fn regions(out: &mut String, title: &str, regions: &[&RegionReport], sum: &ReadCounts) {
    let rows: Vec<_> = regions.iter().map(|region| row(region)).collect();
    let columns = ["reads", "equal", "within", "ignored", "different"];
    lines::regions(out, (title, columns), &rows, counts(sum));
}

fn row(region: &RegionReport) -> RegionRow<'_, 5> {
    let RegionReport { name, device, writes, reads, .. } = region;
    RegionRow { name, device, writes: *writes, reads: counts(reads) }
}

fn counts(&ReadCounts { reads, equal, within, ignored, different }: &ReadCounts) -> [u64; 5] {
    [reads, equal, within, ignored, different]
}

fn mismatch(out: &mut String, group: &MismatchReport) {
    let MismatchReport { region, register, count, first } = group;
    let (region, count) = (printable(region), times(*count));
    let _ = writeln!(out, "\n{region} {register}: different {count}");
    for one in first {
        let _ = writeln!(
            out,
            "  event {}, {}: expected {}, got {}",
            one.event,
            human_nanos(one.time_ns),
            one.expected,
            one.got
        );
    }
}

fn tail(out: &mut String, report: &BusReport) {
    out.push('\n');
    for note in &report.notes {
        line(out, "note", &printable(note));
    }
    let verdict = &report.verdict;
    let reads = report.modelled.reads + report.foreign.reads;
    let equal = report.modelled.equal + report.foreign.equal;
    line(
        out,
        "equal reads",
        &format!("{equal} of {reads} ({}), whatever the policy", percent(verdict.equal_ppm)),
    );
    let right = verdict.checks.saturating_sub(verdict.divergences);
    let share = percent(verdict.right_ppm);
    line(
        out,
        "checks",
        &format!("{right} of {} ({share}) of modelled devices are right", verdict.checks),
    );
    let wanted = match verdict.fail_below_ppm {
        1_000_000 => String::new(),
        ppm => format!(" (fail_below={})", percent(ppm)),
    };
    let word = match (verdict.pass, report.complete, verdict.divergences) {
        (false, _, 1) => format!("FAIL: 1 divergence{wanted}"),
        (false, _, n) if n > 0 => format!("FAIL: {n} divergences{wanted}"),
        (true, true, 0) if verdict.checks == 0 && report.foreign.reads > 0 => {
            "NOTHING CHECKED: every read is of a device that is not modelled".to_owned()
        }
        (_, false, _) => "no divergence, and the run is not complete".to_owned(),
        (true, true, 0) => "PASS".to_owned(),
        (_, _, n) => format!("PASS with {n} divergences{wanted}"),
    };
    line(out, "verdict", &word);
}
