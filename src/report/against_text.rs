//! A comparison of two machines for people.

use std::fmt::Write as _;

use super::against::{
    AcceptedGroup, AgainstReport, Difference, DifferenceGroup, PairCounts, PairDeath, PairRegion,
};
use super::lines::{self, GROUPS_SHOWN, RegionRow, line, printable, times};
use crate::base::units::human_nanos;

/// The text of a report.
pub fn render(report: &AgainstReport) -> String {
    let mut out = String::new();
    head(&mut out, report);
    let (both, apart): (Vec<&PairRegion>, Vec<&PairRegion>) =
        report.regions.iter().partition(|region| region.both);
    regions(&mut out, "in both", &both, &report.both);
    if !apart.is_empty() {
        regions(&mut out, "in one", &apart, &report.apart);
    }
    groups(&mut out, report);
    tail(&mut out, report);
    out
}

fn head(out: &mut String, report: &AgainstReport) {
    lines::trace(out, &report.trace);
    let [first, second] = &report.machines;
    line(out, "machine A", &printable(first));
    line(out, "machine B", &printable(second));
    lines::incomplete(out, report.complete, report.interrupted);
    let [ours, theirs] = report.time_grades.map(|grade| grade.name());
    let (what, duration) = (lines::done(&report.done), human_nanos(report.duration_ns));
    line(out, "done", &format!("{what} in {duration} (A {ours}, B {theirs})"));
}

fn regions(out: &mut String, title: &str, regions: &[&PairRegion], sum: &PairCounts) {
    let rows: Vec<_> = regions.iter().map(|region| row(region)).collect();
    let columns = ["reads", "equal", "accepted", "different"];
    lines::regions(out, (title, columns), &rows, counts(sum));
}

fn row(region: &PairRegion) -> RegionRow<'_, 4> {
    let PairRegion { name, device, writes, reads, .. } = region;
    RegionRow { name, device, writes: *writes, reads: counts(reads) }
}

fn counts(&PairCounts { reads, equal, accepted, different }: &PairCounts) -> [u64; 4] {
    [reads, equal, accepted, different]
}

/// One difference in a line.
pub fn difference(one: &Difference) -> String {
    let Difference { of, event, time_ns, got: [first, second] } = one;
    let of = if of.is_empty() { String::new() } else { format!("{}, ", printable(of)) };
    let time = human_nanos(*time_ns);
    format!("{of}event {event}, {time}: A {}, B {}", printable(first), printable(second))
}

/// What is accepted for one reason.
pub(super) fn accepted(out: &mut String, group: &AcceptedGroup) {
    let count = times(group.count);
    let _ = writeln!(out, "accepted {count}: {}: {}", group.rule, group.what);
    let _ = writeln!(out, "  because: {}", group.why);
    for one in &group.first {
        let _ = writeln!(out, "  {}", difference(one));
    }
}

/// What differs in one register.
pub(super) fn different(out: &mut String, group: &DifferenceGroup) {
    let (region, count) = (printable(&group.region), times(group.count));
    let device = match group.device.as_str() {
        device if device == region || device.is_empty() => String::new(),
        device => format!("{device}: "),
    };
    let _ = writeln!(out, "{device}{region} {}: different {count}", group.register);
    for one in &group.first {
        let _ = writeln!(out, "  {}", difference(one));
    }
}

fn groups(out: &mut String, report: &AgainstReport) {
    for group in &report.accepted {
        out.push('\n');
        accepted(out, group);
    }
    for group in report.differences.iter().take(GROUPS_SHOWN) {
        out.push('\n');
        different(out, group);
    }
    let shown = lines::more(report.differences.len(), GROUPS_SHOWN, report.differences_unlisted);
    if let Some(more) = shown {
        let _ = writeln!(out, "\n{more}");
    }
    if let Some(death) = &report.died {
        out.push('\n');
        died(out, death);
    }
}

/// The end of a machine.
pub(super) fn died(out: &mut String, PairDeath { machine, death }: &PairDeath) {
    lines::died(out, if *machine == 0 { "A, " } else { "B, " }, death);
}

fn tail(out: &mut String, report: &AgainstReport) {
    out.push('\n');
    for note in &report.notes {
        line(out, "note", &printable(note));
    }
    let verdict = &report.verdict;
    let same = verdict.checks.saturating_sub(verdict.divergences + verdict.accepted);
    let what = format!("{same} of {} equal, {} accepted", verdict.checks, verdict.accepted);
    line(out, "checks", &what);
    let word = match (verdict.pass, report.complete, verdict.divergences) {
        (false, _, 1) => "FAIL: 1 divergence".to_owned(),
        (false, _, n) => format!("FAIL: {n} divergences"),
        (true, false, _) => "no divergence, and the run is not complete".to_owned(),
        (true, true, _) if verdict.checks == 0 => {
            "NOTHING COMPARED: no access is of a device that both machines have".to_owned()
        }
        (true, true, _) => "PASS".to_owned(),
    };
    line(out, "verdict", &word);
}
