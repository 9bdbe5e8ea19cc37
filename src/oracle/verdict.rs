//! The oracle's last word.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::finding::Finding;
use crate::base::limits::FINDINGS_MAX;

/// How much is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// Nothing but statuses.
    None,
    /// Every read.
    Reads,
    /// Every read, and the whole target afterwards.
    #[default]
    Full,
}

/// Why bytes could not be checked. The names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unverifiable {
    /// Discarded: what it reads as is unspecified.
    Discarded,
    /// Not written by this trace, on a target that was there before.
    NotWritten,
    /// A write to it failed: old or new content are both right.
    FailedWrite,
    /// A write to it had no answer when the run ended.
    Unanswered,
    /// More overlapping writes than are kept apart.
    Contested,
    /// The read itself failed.
    FailedRead,
}

/// Findings, and how much was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether nothing was found.
    pub pass: bool,
    /// How much was asked to be checked.
    pub verify: Verify,
    /// What was wrong, in the order it was seen; the first [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// How many there were in all.
    pub findings_total: u64,
    /// Reads whose data was looked at.
    pub reads_checked: u64,
    /// Bytes of reads that were compared with an expectation.
    pub read_bytes_checked: u64,
    /// Bytes of the target that were compared with the model; absent when that was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_bytes_checked: Option<u64>,
    /// Bytes compared with the comparison image; absent when that was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison_bytes_checked: Option<u64>,
    /// Bytes of reads that could not be checked, by reason.
    #[serde(default)]
    pub unverifiable_read_bytes: BTreeMap<Unverifiable, u64>,
    /// Bytes of the target that could not be checked, by reason.
    #[serde(default)]
    pub unverifiable_image_bytes: BTreeMap<Unverifiable, u64>,
    /// Requests that failed as they had in the recording.
    #[serde(default)]
    pub failed_as_recorded: u64,
}

impl Verdict {
    /// A verdict with nothing found.
    pub fn new(verify: Verify) -> Self {
        Self { pass: true, verify, ..Self::default() }
    }

    /// Adds a finding, kept whole while there is room. Returns its place in the list if it was.
    pub fn add(&mut self, finding: Finding) -> Option<usize> {
        self.pass = false;
        self.findings_total += 1;
        if self.findings.len() >= FINDINGS_MAX {
            return None;
        }
        self.findings.push(finding);
        Some(self.findings.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::finding::FindingKind;

    #[test]
    fn findings_past_the_limit_are_counted() {
        let mut verdict = Verdict::new(Verify::Full);
        assert!(verdict.pass);
        for _ in 0..FINDINGS_MAX + 5 {
            verdict.add(Finding::new(FindingKind::StatusError, "x"));
        }
        assert!(!verdict.pass);
        assert_eq!(verdict.findings.len(), FINDINGS_MAX);
        assert_eq!(verdict.findings_total, FINDINGS_MAX as u64 + 5);
    }
}
