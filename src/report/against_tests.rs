//! Test cases on two machines, for people: a line for each case, what differs below it, a summary.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::against::{AcceptedGroup, AgainstCase, AgainstStatus, AgainstTests};
use super::against_text::{accepted, died, different};
use super::lines::{self, printable, times};

/// Registers of one case that are shown; JSON has them all.
const GROUPS_SHOWN: usize = 20;

impl AgainstStatus {
    /// The word in text reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Different => "DIFFERS",
            Self::Skipped => "skipped",
            Self::Failed => "FAILED",
            Self::Error => "ERROR",
        }
    }
}

/// One case as it ends.
pub fn case(case: &AgainstCase) -> String {
    let verdict = &case.verdict;
    let mut out = format!("{:8} {}", case.status.name(), case.case);
    if !case.reason.is_empty() {
        let _ = write!(out, ": {}", printable(&case.reason));
    } else if verdict.divergences > 0 {
        let _ = write!(out, ": {} of {} checks", verdict.divergences, verdict.checks);
    } else {
        let _ = write!(out, ": {} checks", verdict.checks);
    }
    if verdict.accepted > 0 {
        let _ = write!(out, ", {} accepted", verdict.accepted);
    }
    out.push('\n');
    let mut below = String::new();
    for group in case.differences.iter().take(GROUPS_SHOWN) {
        different(&mut below, group);
    }
    if let Some(more) = lines::more(case.differences.len(), GROUPS_SHOWN, case.differences_unlisted)
    {
        let _ = writeln!(below, "{more}");
    }
    if let Some(death) = &case.died {
        died(&mut below, death);
    }
    if case.status == AgainstStatus::Different {
        case.notes.iter().for_each(|note| {
            let _ = writeln!(below, "note: {}", printable(note));
        });
    }
    for line in below.lines() {
        let _ = writeln!(out, "         {line}");
    }
    out
}

/// What was accepted in all cases, by what accepts it.
fn accepted_in_all(cases: &[AgainstCase]) -> Vec<AcceptedGroup> {
    let mut groups: BTreeMap<(&str, &str), AcceptedGroup> = BTreeMap::new();
    for group in cases.iter().flat_map(|case| &case.accepted) {
        groups
            .entry((&group.rule, &group.why))
            .and_modify(|sum| sum.count += group.count)
            .or_insert_with(|| AcceptedGroup { first: Vec::new(), ..group.clone() });
    }
    groups.into_values().collect()
}

/// What stands behind the cases.
pub fn summary(report: &AgainstTests) -> String {
    let mut out = String::new();
    let groups = accepted_in_all(&report.cases);
    if !groups.is_empty() {
        out.push('\n');
    }
    for group in &groups {
        accepted(&mut out, group);
    }
    let sums = report.summary;
    let _ = write!(out, "\n{} the same, {} different", sums.same, sums.different);
    for (count, word) in [
        (sums.failed, "failed on the first machine"),
        (sums.errors, "could not be compared"),
        (sums.skipped, "skipped"),
    ] {
        if count > 0 {
            let _ = write!(out, ", {count} {word}");
        }
    }
    let [first, second] = report.machines.each_ref().map(|machine| printable(machine));
    let (checks, accepted) = (sums.checks, times(sums.accepted));
    let seed = report.seed;
    let _ = writeln!(out, " (A {first}, B {second}, seed {seed})");
    let _ = writeln!(out, "{checks} checks; what is accepted came {accepted}");
    out
}

/// The whole report.
pub fn render(report: &AgainstTests) -> String {
    let mut out: String = report.cases.iter().map(case).collect();
    out.push_str(&summary(report));
    out
}
