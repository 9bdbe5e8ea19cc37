//! A bus report for people.

use std::fmt::Write as _;

use super::bus::{BusReport, Death, MismatchReport, ReadCounts, RegionReport, percent};
use super::text::table;
use crate::base::units::human_nanos;

/// Groups of mismatches shown; JSON has them all.
const GROUPS_SHOWN: usize = 40;

/// Regions shown; JSON has them all.
const REGIONS_SHOWN: usize = 60;

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
    let more = report.mismatches.len().saturating_sub(GROUPS_SHOWN) as u64;
    let more = more.saturating_add(report.mismatches_unlisted);
    if more > 0 {
        let _ = writeln!(out, "\nand {more} more registers with differences");
    }
    if let Some(Death { event, obituary }) = &report.died {
        let _ = writeln!(out, "\nmachine_died: at event {event}");
        for line in obituary.lines() {
            let _ = writeln!(out, "  {}", printable(&line));
        }
    }
    tail(&mut out, report);
    out
}

fn line(out: &mut String, key: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{key:<12} {value}");
}

fn head(out: &mut String, report: &BusReport) {
    let trace = &report.trace;
    line(out, "trace", &format!("{} ({}, {} events)", trace.path, trace.format, trace.events));
    if let Some(why) = &trace.truncated {
        line(out, "", &format!("ends early: {why}"));
    }
    line(out, "machine", &report.machine);
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
    let (duration, grade) = (human_nanos(report.duration_ns), report.time_grade.name());
    line(out, "done", &format!("{what} in {duration} ({grade})"));
}

fn regions(out: &mut String, title: &str, regions: &[&RegionReport], sum: &ReadCounts) {
    let titles = [title, "device", "writes", "reads", "equal", "within", "ignored", "different"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for region in regions.iter().take(REGIONS_SHOWN) {
        rows.push(row(&region.name, &region.device, region.writes, &region.reads));
    }
    let writes = regions.iter().map(|region| region.writes).sum();
    let hidden = regions.len().saturating_sub(REGIONS_SHOWN);
    let all = match hidden {
        0 => "all".to_owned(),
        hidden => format!("all, {hidden} not shown"),
    };
    rows.push(row(&all, "", writes, sum));
    let _ = write!(out, "\n{}", table(&rows));
}

fn row(name: &str, device: &str, writes: u64, reads: &ReadCounts) -> Vec<String> {
    let ReadCounts { reads, equal, within, ignored, different } = *reads;
    let mut row = vec![printable(name), device.to_owned()];
    row.extend([writes, reads, equal, within, ignored, different].map(|n| n.to_string()));
    row
}

fn mismatch(out: &mut String, group: &MismatchReport) {
    let MismatchReport { region, register, count, first } = group;
    let times = if *count == 1 { "once" } else { "times" };
    let count = if *count == 1 { String::new() } else { format!("{count} ") };
    let _ = writeln!(out, "\n{} {register}: different {count}{times}", printable(region));
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

/// Text out of a file, safe for a terminal.
fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { safe.extend(c.escape_debug()) } else { safe.push(c) }
    }
    safe
}
