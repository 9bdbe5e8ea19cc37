//! A verdict as bytes: text, JSON.

pub mod against;
pub mod against_tests;
pub mod against_text;
pub mod bus;
pub mod bus_text;
pub mod histogram;
pub mod json;
pub mod junit;
pub mod lines;
pub mod qtest_log;
pub mod qtest_log_text;
pub mod stats;
pub mod suite_text;
pub mod tap;
pub mod text;
pub mod threshold;

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::base::{BlockOp, TimeGrade};
use crate::oracle::verdict::Verdict;
use crate::trace::{Trace, Truncation};
pub use histogram::Histogram;
pub use stats::RunStats;

/// Name and version of the JSON form. Fields may be added under the same number; readers ignore
/// what they do not know.
pub const SCHEMA: &str = "qtrace.report/1";

/// Everything that was found out by a run.
///
/// All of it but [`Report::wall`] follows from the trace, the options and the device's behaviour:
/// under a virtual clock two runs differ in `wall` alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// Version of the program that wrote it.
    pub qtrace: String,
    /// Whether the whole plan was carried out and every check that was asked for was made.
    pub complete: bool,
    /// Whether the user stopped it.
    pub interrupted: bool,
    /// The test module: `block-trace-virtio`.
    pub test: String,
    /// What the trace was replayed on.
    pub machine: MachineReport,
    /// Options as they were given.
    pub options: BTreeMap<String, String>,
    /// Every option with the value that was in force.
    pub settings: BTreeMap<String, String>,
    /// Seed of stamps and of everything drawn.
    pub seed: u64,
    /// The trace.
    pub trace: TraceReport,
    /// The image written to.
    pub target: ImageReport,
    /// The image compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<ImageReport>,
    /// What every duration in here is worth.
    pub time_grade: TimeGrade,
    /// From the first issue to the last completion, by the run's clock.
    pub duration_ns: u64,
    /// One row for each operation that occurred.
    pub ops: Vec<OpReport>,
    /// How late requests were issued; absent when the pacing has no times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lateness: Option<Histogram>,
    /// Whether the times of this run mean anything.
    pub timing: TimingReport,
    /// Requests held back because they overlapped one in flight.
    pub held: u64,
    /// Requests cut into pieces, being larger than the device takes.
    pub splits: u64,
    /// Requests that became several for their meaning.
    pub expansions: u64,
    /// Requests left out, by reason.
    pub skipped: Vec<SkipReport>,
    /// SHA-256 of the run log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_log_sha256: Option<String>,
    /// SHA-256 of the target's guest-visible bytes after the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_sha256: Option<String>,
    /// Whether the answers were right.
    pub verdict: Verdict,
    /// What a reader should know.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The fault that was injected, where one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<FaultReport>,
    /// What differs from run to run.
    pub wall: WallReport,
}

impl Report {
    /// A report in which nothing has happened.
    pub fn new(test: &str, time_grade: TimeGrade) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            qtrace: env!("CARGO_PKG_VERSION").to_owned(),
            complete: false,
            interrupted: false,
            test: test.to_owned(),
            machine: MachineReport::default(),
            options: BTreeMap::new(),
            settings: BTreeMap::new(),
            seed: 0,
            trace: TraceReport::default(),
            target: ImageReport::default(),
            comparison: None,
            time_grade,
            duration_ns: 0,
            ops: Vec::new(),
            lateness: None,
            timing: TimingReport::default(),
            held: 0,
            splits: 0,
            expansions: 0,
            skipped: Vec::new(),
            run_log_sha256: None,
            image_sha256: None,
            verdict: Verdict::default(),
            notes: Vec::new(),
            fault: None,
            wall: WallReport::default(),
        }
    }

    /// Takes over what the run counted. [`Report::duration_ns`] must be set before.
    pub fn set_stats(&mut self, stats: &RunStats) {
        self.ops = stats.op_reports(self.duration_ns);
        self.lateness = (stats.lateness.count() > 0).then(|| stats.lateness.clone());
        (self.held, self.splits, self.expansions) = (stats.held, stats.splits, stats.expansions);
        self.skipped = stats.skip_reports();
    }

    /// Requests answered.
    pub fn requests(&self) -> u64 {
        self.ops.iter().map(|op| op.count).sum()
    }

    /// Bytes moved.
    pub fn bytes(&self) -> u64 {
        self.ops.iter().map(|op| op.bytes).sum()
    }

    /// Requests that failed.
    pub fn errors(&self) -> u64 {
        self.ops.iter().map(|op| op.errors).sum()
    }

    /// Latency over all operations.
    pub fn latency(&self) -> Histogram {
        let mut all = Histogram::new();
        self.ops.iter().for_each(|op| all.merge(&op.latency));
        all
    }
}

/// What a trace was replayed on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineReport {
    /// `builtin`, `qemu`, `vhost-user`.
    pub kind: String,
    /// `pc`, `q35`; empty where there is none.
    pub board: String,
    /// `virtio-blk-pci`.
    pub device: String,
    /// `modern`, `legacy`.
    pub transport: String,
    /// Features negotiated, by the specification's names.
    pub features: Vec<String>,
    /// Anything else worth knowing: queues, queue size, version of a real machine.
    #[serde(default)]
    pub details: BTreeMap<String, String>,
}

/// The trace that was replayed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceReport {
    /// Its file.
    pub path: String,
    /// Where it came from: `dm-log-writes`, `blktrace`, ….
    pub format: String,
    /// Events in it.
    pub events: u64,
    /// SHA-256 of the file, where it was computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Where and why it ends early, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<String>,
    /// What it does not record.
    #[serde(default)]
    pub not_recorded: Vec<String>,
}

impl TraceReport {
    /// What `trace` says of itself.
    pub fn of(trace: &Trace) -> Self {
        let lost = |cut: &Truncation| {
            format!("{} ({} bytes after offset {} lost)", cut.why, cut.bytes_lost, cut.offset)
        };
        Self {
            path: trace.path().display().to_string(),
            format: trace.header().source_format.clone(),
            events: trace.events(),
            sha256: None,
            truncated: trace.truncation().map(lost),
            not_recorded: trace.summary().not_recorded.names(),
        }
    }
}

/// An image of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageReport {
    /// Its file.
    pub path: String,
    /// `raw`, `qcow2`, ….
    pub format: String,
    /// How it is reached when not directly.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub via: String,
    /// Guest-visible bytes.
    pub size: u64,
    /// Whether this run made it.
    #[serde(default)]
    pub created: bool,
    /// Whether writes went to a temporary overlay.
    #[serde(default)]
    pub snapshot: bool,
}

/// One operation's figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpReport {
    /// Which.
    pub op: BlockOp,
    /// Requests of the trace that were carried out.
    pub count: u64,
    /// Bytes of those that succeeded.
    pub bytes: u64,
    /// Those that failed.
    pub errors: u64,
    /// Requests a second; absent when the run took no time.
    pub iops: Option<f64>,
    /// Bytes a second; absent when the run took no time.
    pub bytes_per_second: Option<f64>,
    /// From issue to completion.
    pub latency: Histogram,
    /// The same in the recording, where it has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded_latency: Option<Histogram>,
}

/// A fault that was asked for, and whether it came to pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultReport {
    /// As the option has it: `drop:10`.
    pub fault: String,
    /// Whether the write it names was reached.
    pub fired: bool,
    /// Writes that reached the image.
    pub writes: u64,
}

/// Requests left out for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkipReport {
    /// Why.
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// Whether the times of a run mean anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimingStatus {
    /// The run kept to its plan.
    Valid,
    /// It did not.
    Invalid,
    /// The pacing has no times to keep.
    #[default]
    NotTimed,
}

impl TimingStatus {
    /// The word that reports print.
    pub fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Invalid => "INVALID",
            Self::NotTimed => "not timed",
        }
    }
}

/// See [`TimingStatus`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimingReport {
    /// The verdict.
    pub status: TimingStatus,
    /// Why, in words; empty when there is nothing to say.
    #[serde(default)]
    pub why: String,
}

/// What differs from run to run, and is left out when two runs are compared for equality.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WallReport {
    /// Unix time of the start, in seconds.
    pub started_unix: u64,
    /// Name of the machine that ran it.
    pub host: String,
    /// How long it took by the host's clock, checks included.
    pub elapsed_ns: u64,
}

impl WallReport {
    /// Of a run that began at `started` and ends now.
    pub fn since(started: (Instant, SystemTime)) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self {
            started_unix: started.1.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            host: host.trim_end().to_owned(),
            elapsed_ns: u64::try_from(started.0.elapsed().as_nanos()).unwrap_or(u64::MAX),
        }
    }
}

#[cfg(test)]
mod tests;
