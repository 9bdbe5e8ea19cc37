//! What came of comparing two machines.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bus::{BusCounts, Death};
use super::{TraceReport, WallReport};
use crate::base::TimeGrade;

/// Name and version of the JSON form; as for [`SCHEMA`](super::SCHEMA).
pub const AGAINST_SCHEMA: &str = "qtrace.against-report/1";

/// Everything that was found out by doing the same to two machines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgainstReport {
    /// [`AGAINST_SCHEMA`].
    pub schema: String,
    /// Version of the program that wrote it.
    pub qtrace: String,
    /// Whether the whole trace was gone through.
    pub complete: bool,
    /// Whether the user stopped it.
    pub interrupted: bool,
    /// The test: `port-trace`, `mmio-trace`.
    pub test: String,
    /// The two machines.
    pub machines: [String; 2],
    /// Every option with the value that was in force.
    pub settings: BTreeMap<String, String>,
    /// The trace.
    pub trace: TraceReport,
    /// What the times of each are worth.
    pub time_grades: [TimeGrade; 2],
    /// How far the clocks moved.
    pub duration_ns: u64,
    /// What was done to each.
    pub done: BusCounts,
    /// Reads of devices that both have.
    pub both: PairCounts,
    /// Reads of devices that one of them has not: made, compared, and no part of the verdict.
    pub apart: PairCounts,
    /// Every region that was accessed, those with the most reads first.
    pub regions: Vec<PairRegion>,
    /// What differed, by region and register, in order of the first time.
    pub differences: Vec<DifferenceGroup>,
    /// Groups of differences beyond those that are listed.
    pub differences_unlisted: u64,
    /// Differences that are accepted, by what accepts them.
    pub accepted: Vec<AcceptedGroup>,
    /// Which machine came to its end, and how, if one did; that is a difference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub died: Option<PairDeath>,
    /// Whether the machines did the same.
    pub verdict: PairVerdict,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// What differs from run to run.
    pub wall: WallReport,
}

/// Reads, by what came of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairCounts {
    /// All of them.
    pub reads: u64,
    /// The same in both machines.
    pub equal: u64,
    /// Different, and accepted.
    pub accepted: u64,
    /// Different.
    pub different: u64,
}

/// A region of the bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairRegion {
    /// As the trace calls it.
    pub name: String,
    /// The device behind it; empty where it is not known.
    pub device: String,
    /// Whether both machines have that device.
    pub both: bool,
    /// Writes made.
    pub writes: u64,
    /// Reads.
    #[serde(flatten)]
    pub reads: PairCounts,
}

/// Name and version of the JSON form of [`AgainstTests`].
pub const AGAINST_TESTS_SCHEMA: &str = "qtrace.against-tests/1";

/// Test cases on two machines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgainstTests {
    /// [`AGAINST_TESTS_SCHEMA`].
    pub schema: String,
    /// Version of the program that wrote it.
    pub qtrace: String,
    /// The two machines, as they were asked for.
    pub machines: [String; 2],
    /// `--seed`.
    pub seed: u64,
    /// Whether the user stopped it.
    pub interrupted: bool,
    /// How many cases ended how.
    pub summary: AgainstSummary,
    /// The cases in the order in which they ran.
    pub cases: Vec<AgainstCase>,
}

/// How many cases ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgainstSummary {
    /// [`AgainstStatus::Same`].
    pub same: usize,
    /// [`AgainstStatus::Different`].
    pub different: usize,
    /// [`AgainstStatus::Skipped`].
    pub skipped: usize,
    /// [`AgainstStatus::Failed`].
    pub failed: usize,
    /// [`AgainstStatus::Error`].
    pub errors: usize,
    /// Comparisons made in all of them.
    pub checks: u64,
    /// Differences that are accepted.
    pub accepted: u64,
}

/// How a case came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgainstStatus {
    /// Nothing differs but what is accepted.
    Same,
    /// Something does.
    Different,
    /// It does not apply to one of the machines.
    Skipped,
    /// The first machine failed it, so that there is nothing to compare with.
    Failed,
    /// It could not be run or compared, or its turn did not come.
    Error,
}

/// A case on two machines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgainstCase {
    /// `rtc/drift`.
    pub case: String,
    /// How it came out.
    pub status: AgainstStatus,
    /// Why it was skipped, or what went wrong.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Whether the machines did the same.
    pub verdict: PairVerdict,
    /// What differed.
    pub differences: Vec<DifferenceGroup>,
    /// Groups of differences beyond those.
    pub differences_unlisted: u64,
    /// Differences that are accepted.
    pub accepted: Vec<AcceptedGroup>,
    /// Which machine came to its end, and how, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub died: Option<PairDeath>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// Differences of one register of one region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DifferenceGroup {
    /// The device; empty where none is known to be behind the region.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub device: String,
    /// The region; `memory`, `interrupts` or `acknowledge` for what is no access.
    pub region: String,
    /// Its register.
    pub register: String,
    /// How many there are.
    pub count: u64,
    /// The first ones.
    pub first: Vec<Difference>,
}

/// Differences that are accepted for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedGroup {
    /// Where: the rule.
    pub rule: String,
    /// What differs.
    pub what: String,
    /// The section that allows it, or the name of the bug.
    pub why: String,
    /// How many there are.
    pub count: u64,
    /// The first ones.
    pub first: Vec<Difference>,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Where, as far as that is not said above it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub of: String,
    /// The event of the trace.
    pub event: u64,
    /// When it was recorded.
    pub time_ns: u64,
    /// What each machine did.
    pub got: [String; 2],
}

/// The end of one of two machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairDeath {
    /// Which of them, 0 or 1.
    pub machine: usize,
    /// How.
    #[serde(flatten)]
    pub death: Death,
}

/// Whether two machines did the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairVerdict {
    /// Nothing differs but what is accepted.
    pub pass: bool,
    /// Comparisons made of what both have: reads, memory, interrupts.
    pub checks: u64,
    /// Differences that are accepted.
    pub accepted: u64,
    /// Those that are not.
    pub divergences: u64,
}
