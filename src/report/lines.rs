//! What the text reports share: rows of a key and a value, tables, and words for what all of them
//! tell.

use std::fmt::Write as _;

use super::TraceReport;
use super::bus::{BusCounts, Death};
pub use crate::base::terminal::printable;

/// Registers with differences that a text shows; JSON has them all.
pub const GROUPS_SHOWN: usize = 40;

/// Regions that a text shows; JSON has them all.
const REGIONS_SHOWN: usize = 60;

/// A key and its value.
pub fn line(out: &mut String, key: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{key:<12} {value}");
}

/// Columns to the width of their widest cell; the first to the left, the others to the right.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut text = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = match column {
                0 => write!(text, "{cell:<width$}"),
                _ => write!(text, "  {cell:>width$}"),
            };
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

/// The trace that was replayed.
pub fn trace(out: &mut String, trace: &TraceReport) {
    let (path, format) = (printable(&trace.path), printable(&trace.format));
    line(out, "trace", &format!("{path} ({format}, {} events)", trace.events));
    if let Some(why) = &trace.truncated {
        line(out, "", &format!("ends early: {why}"));
    }
}

/// Says of a run that did not come to its end that it did not.
pub fn incomplete(out: &mut String, complete: bool, interrupted: bool) {
    if !complete {
        let why = if interrupted { "interrupted" } else { "NOT COMPLETE" };
        line(out, "run", &format!("{why}: what follows is what was done until then"));
    }
}

/// What was done to a bus, in words.
pub fn done(counts: &BusCounts) -> String {
    let mut what = format!("{} reads, {} writes", counts.reads, counts.writes);
    for (count, name) in [
        (counts.memory_writes, "memory writes"),
        (counts.memory_checks, "memory checks"),
        (counts.interrupts, "interrupts"),
        (counts.acknowledges, "acknowledges"),
        (counts.steps, "clock steps"),
    ] {
        if count > 0 {
            let _ = write!(what, ", {count} {name}");
        }
    }
    what
}

/// A row of [`regions`].
pub struct RegionRow<'a, const N: usize> {
    /// The region.
    pub name: &'a str,
    /// Its device; empty where it is not known.
    pub device: &'a str,
    /// Writes.
    pub writes: u64,
    /// Reads, by what came of them.
    pub reads: [u64; N],
}

/// A table of regions under `titles`, with the sums of all of them as its last row.
pub fn regions<const N: usize>(
    out: &mut String,
    (title, columns): (&str, [&str; N]),
    regions: &[RegionRow<'_, N>],
    sum: [u64; N],
) {
    let mut titles = [title, "device", "writes"].map(str::to_owned).to_vec();
    titles.extend(columns.map(str::to_owned));
    let mut rows = vec![titles];
    rows.extend(regions.iter().take(REGIONS_SHOWN).map(RegionRow::cells));
    let name = match regions.len().saturating_sub(REGIONS_SHOWN) {
        0 => "all".to_owned(),
        hidden => format!("all, {hidden} not shown"),
    };
    let writes = regions.iter().map(|region| region.writes).sum();
    rows.push(RegionRow { name: &name, device: "", writes, reads: sum }.cells());
    let _ = write!(out, "\n{}", table(&rows));
}

impl<const N: usize> RegionRow<'_, N> {
    fn cells(&self) -> Vec<String> {
        let mut cells = vec![printable(self.name), self.device.to_owned(), self.writes.to_string()];
        cells.extend(self.reads.map(|n| n.to_string()));
        cells
    }
}

/// How many registers differ beyond the `shown` of them, those that no report lists among them.
pub fn more(registers: usize, shown: usize, unlisted: u64) -> Option<String> {
    let more = unlisted.saturating_add(registers.saturating_sub(shown) as u64);
    (more > 0).then(|| format!("and {more} more registers with differences"))
}

/// `3 times`, `once`.
pub fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// The end of a machine, which `of` names where there are two.
pub fn died(out: &mut String, of: &str, Death { event, obituary }: &Death) {
    let _ = writeln!(out, "machine_died: {of}at event {event}");
    for line in obituary.lines() {
        let _ = writeln!(out, "  {}", printable(&line));
    }
}
