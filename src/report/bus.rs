//! What came of replaying a bus trace.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{TraceReport, WallReport};
use crate::base::TimeGrade;
use crate::machine::Obituary;

/// Name and version of the JSON form; as for [`SCHEMA`](super::SCHEMA).
pub const BUS_SCHEMA: &str = "qtrace.bus-report/1";

/// Everything that was found out by replaying a bus trace. All of it but [`BusReport::wall`]
/// follows from trace, options and devices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BusReport {
    /// [`BUS_SCHEMA`].
    pub schema: String,
    /// Version of the program that wrote it.
    pub qtrace: String,
    /// Whether the whole trace was replayed.
    pub complete: bool,
    /// Whether the user stopped it.
    pub interrupted: bool,
    /// The test: `port-trace`, `mmio-trace`.
    pub test: String,
    /// What the trace was replayed on.
    pub machine: String,
    /// Every option with the value that was in force.
    pub settings: BTreeMap<String, String>,
    /// The trace.
    pub trace: TraceReport,
    /// What the machine's times are worth.
    pub time_grade: TimeGrade,
    /// How far the machine's clock moved.
    pub duration_ns: u64,
    /// What was replayed.
    pub done: BusCounts,
    /// Reads of devices that the machine has.
    pub modelled: ReadCounts,
    /// Reads of devices that it has not: made, compared, and no part of the verdict.
    pub foreign: ReadCounts,
    /// Every region that was accessed, those with the most reads first.
    pub regions: Vec<RegionReport>,
    /// What differed, by region and register, in order of the first time.
    pub mismatches: Vec<MismatchReport>,
    /// Groups of mismatches beyond those that are listed.
    pub mismatches_unlisted: u64,
    /// How the machine came to its end, if it did; that is a divergence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub died: Option<Death>,
    /// Whether the machine was right.
    pub verdict: BusVerdict,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// What differs from run to run.
    pub wall: WallReport,
}

/// Events of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusCounts {
    /// Events looked at.
    pub events: u64,
    /// Reads made.
    pub reads: u64,
    /// Writes made.
    pub writes: u64,
    /// Ranges of guest memory written or filled.
    pub memory_writes: u64,
    /// Ranges of guest memory compared.
    pub memory_checks: u64,
    /// Interrupts expected, and levels looked at.
    pub interrupts: u64,
    /// Acknowledge cycles made.
    pub acknowledges: u64,
    /// Steps of the clock.
    pub steps: u64,
    /// Events left out, as the notes say.
    pub left_out: u64,
}

/// Reads, by what came of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadCounts {
    /// All of them.
    pub reads: u64,
    /// The recorded value, whatever the policy.
    pub equal: u64,
    /// Not the recorded value, but as the policy asks: equal under its mask, or soon after.
    pub within: u64,
    /// Not the recorded value, and the policy is to ignore that.
    pub ignored: u64,
    /// Not as the policy asks.
    pub different: u64,
}

impl ReadCounts {
    /// Those that are as the policy asks.
    pub fn right(&self) -> u64 {
        self.equal + self.within + self.ignored
    }

    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.reads += other.reads;
        self.equal += other.equal;
        self.within += other.within;
        self.ignored += other.ignored;
        self.different += other.different;
    }
}

/// A region of the bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionReport {
    /// As the trace calls it.
    pub name: String,
    /// The device behind it; empty where it is not modelled.
    pub device: String,
    /// Whether the machine has that device.
    pub modelled: bool,
    /// Writes made.
    pub writes: u64,
    /// Reads.
    #[serde(flatten)]
    pub reads: ReadCounts,
}

/// Mismatches of one register of one region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MismatchReport {
    /// The region; `memory`, `interrupts` or `acknowledge` for what is no access.
    pub region: String,
    /// Its register.
    pub register: String,
    /// How many checks of it failed.
    pub count: u64,
    /// The first ones.
    pub first: Vec<Mismatch>,
}

/// The end of a machine that nobody asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// The event of the trace that was under way; those shortly before it may have done it.
    pub event: u64,
    /// How it ended, with its last words.
    pub obituary: Obituary,
}

/// One check that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mismatch {
    /// The event of the trace.
    pub event: u64,
    /// When it was recorded.
    pub time_ns: u64,
    /// What the recording has.
    pub expected: String,
    /// What the machine did.
    pub got: String,
}

/// Whether a machine did what the recording says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusVerdict {
    /// Enough checks were right.
    pub pass: bool,
    /// Checks made of modelled devices: reads, memory, interrupts.
    pub checks: u64,
    /// Those that failed.
    pub divergences: u64,
    /// Checks that were right, in parts per million, rounded down.
    pub right_ppm: u32,
    /// The least of that to pass.
    pub fail_below_ppm: u32,
    /// Reads of any device whose value was the recorded one, whatever the policy, in parts per
    /// million of all reads, rounded down.
    pub equal_ppm: u32,
}

/// A part of a whole in parts per million, rounded down; all of nothing is all.
pub fn ppm(part: u64, whole: u64) -> u32 {
    const MILLION: u128 = 1_000_000;
    match whole {
        0 => MILLION as u32,
        whole => (u128::from(part.min(whole)) * MILLION / u128::from(whole)) as u32,
    }
}

/// Parts per million as a percentage, with no more digits than it has.
pub fn percent(ppm: u32) -> String {
    let text = format!("{}.{:04}", ppm / 10_000, ppm % 10_000);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_down_so_that_all_means_all() {
        assert_eq!(ppm(0, 0), 1_000_000);
        assert_eq!(ppm(999_999_999, 1_000_000_000), 999_999);
        assert_eq!(ppm(u64::MAX, u64::MAX), 1_000_000);
        assert_eq!(percent(ppm(1, 3)), "33.3333%");
        assert_eq!((percent(1_000_000), percent(970_000)), ("100%".into(), "97%".into()));
        assert_eq!((percent(5), percent(0)), ("0.0005%".into(), "0%".into()));
    }
}
