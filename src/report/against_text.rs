//! A comparison of two machines for people.

use std::fmt::Write as _;

use super::against::{
    AcceptedGroup, AgainstReport, Difference, DifferenceGroup, PairCounts, PairDeath, PairRegion,
};
use super::suite_text::printable;
use super::text::table;
use crate::base::units::human_nanos;

/// Groups shown; JSON has them all.
const GROUPS_SHOWN: usize = 40;

/// Regions shown; JSON has them all.
const REGIONS_SHOWN: usize = 60;

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

fn line(out: &mut String, key: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{key:<12} {value}");
}

fn head(out: &mut String, report: &AgainstReport) {
    let trace = &report.trace;
    line(out, "trace", &format!("{} ({}, {} events)", trace.path, trace.format, trace.events));
    if let Some(why) = &trace.truncated {
        line(out, "", &format!("ends early: {why}"));
    }
    let [first, second] = &report.machines;
    line(out, "machine A", &printable(first));
    line(out, "machine B", &printable(second));
    if !report.complete {
        let why = if report.interrupted { "interrupted" } else { "NOT COMPLETE" };
        line(out, "run", &format!("{why}: what follows is what was done until then"));
    }
    let done = &report.done;
    let mut what = format!("{} reads, {} writes", done.reads, done.writes);
    for (count, name) in [
        (done.memory_writes, "memory writes"),
        (done.memory_checks, "memory checks"),
        (done.interrupts, "interrupts"),
        (done.acknowledges, "acknowledges"),
        (done.steps, "clock steps"),
    ] {
        if count > 0 {
            let _ = write!(what, ", {count} {name}");
        }
    }
    let [ours, theirs] = report.time_grades.map(|grade| grade.name());
    let duration = human_nanos(report.duration_ns);
    line(out, "done", &format!("{what} in {duration} (A {ours}, B {theirs})"));
}

fn regions(out: &mut String, title: &str, regions: &[&PairRegion], sum: &PairCounts) {
    let titles = [title, "device", "writes", "reads", "equal", "accepted", "different"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for region in regions.iter().take(REGIONS_SHOWN) {
        rows.push(row(&region.name, &region.device, region.writes, &region.reads));
    }
    let writes = regions.iter().map(|region| region.writes).sum();
    let all = match regions.len().saturating_sub(REGIONS_SHOWN) {
        0 => "all".to_owned(),
        hidden => format!("all, {hidden} not shown"),
    };
    rows.push(row(&all, "", writes, sum));
    let _ = write!(out, "\n{}", table(&rows));
}

fn row(name: &str, device: &str, writes: u64, reads: &PairCounts) -> Vec<String> {
    let PairCounts { reads, equal, accepted, different } = *reads;
    let mut row = vec![printable(name), device.to_owned()];
    row.extend([writes, reads, equal, accepted, different].map(|n| n.to_string()));
    row
}

/// `3 times`, `once`.
pub fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
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
    let more = report.differences.len().saturating_sub(GROUPS_SHOWN) as u64;
    let more = more.saturating_add(report.differences_unlisted);
    if more > 0 {
        let _ = writeln!(out, "\nand {more} more registers with differences");
    }
    if let Some(death) = &report.died {
        out.push('\n');
        died(out, death);
    }
}

/// The end of a machine.
pub(super) fn died(out: &mut String, PairDeath { machine, death }: &PairDeath) {
    let name = if *machine == 0 { 'A' } else { 'B' };
    let _ = writeln!(out, "machine_died: {name}, at event {}", death.event);
    for line in death.obituary.lines() {
        let _ = writeln!(out, "  {}", printable(&line));
    }
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
