//! What became of the cases: the data of every report.

use std::collections::BTreeMap;

use serde::Serialize;

use super::outcome::Finding;
use crate::base::{ErrorKind, TimeGrade};

/// Name and version of the JSON form. Fields may be added under the same number.
pub const SCHEMA: &str = "qtrace.test/1";

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The device did what the case checks.
    Passed,
    /// It did not, or the case panicked or hung.
    Failed,
    /// The case does not apply here.
    Skipped,
    /// The case could not be run: a wrong option value, a machine that cannot be built.
    Error,
    /// Its turn did not come.
    NotRun,
}

impl Status {
    /// The word in text reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::Skipped => "skipped",
            Self::Error => "ERROR",
            Self::NotRun => "not run",
        }
    }
}

/// One case.
#[derive(Clone, Debug, Serialize)]
pub struct CaseResult {
    /// Its module: `rtc`.
    pub module: String,
    /// Its name within the module: `drift`.
    pub case: String,
    /// Its options as given.
    pub options: BTreeMap<String, String>,
    /// How it ended.
    pub status: Status,
    /// Why it was skipped or could not be run; empty otherwise.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What was wrong, when it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finding: Option<Finding>,
    /// What it said, on a machine whose time is the test's.
    pub lines: Vec<String>,
    /// What the reader should know of how it ran.
    pub notes: Vec<String>,
    /// What its times are worth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_grade: Option<TimeGrade>,
    /// How far it moved the machine's clock, where that is the test's to move.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_time_ns: Option<u64>,
    /// The folder that keeps what is known of the failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<String>,
    /// What differs from run to run.
    pub wall: CaseWall,
    /// Decides the exit code, when it could not be run.
    #[serde(skip)]
    pub error_kind: Option<ErrorKind>,
}

impl CaseResult {
    /// `rtc/drift`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.module, self.case)
    }

    /// Everything it said.
    pub fn all_lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().chain(&self.wall.lines).map(String::as_str)
    }
}

/// What differs from run to run of one case.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CaseWall {
    /// How long it took by the host's clock.
    pub elapsed_ns: u64,
    /// What it said, on a machine that runs in real time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
}

/// How many cases ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// [`Status::Passed`].
    pub passed: usize,
    /// [`Status::Failed`].
    pub failed: usize,
    /// [`Status::Skipped`].
    pub skipped: usize,
    /// [`Status::Error`].
    pub errors: usize,
    /// [`Status::NotRun`].
    pub not_run: usize,
}

/// A run of cases.
#[derive(Clone, Debug, Serialize)]
pub struct SuiteReport {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Version of the program.
    pub qtrace: &'static str,
    /// The machine as `--machine` named it.
    pub machine: String,
    /// `--seed`.
    pub seed: u64,
    /// Whether the user stopped it.
    pub interrupted: bool,
    /// How many cases ended how.
    pub summary: Summary,
    /// The cases in the order in which they ran.
    pub cases: Vec<CaseResult>,
    /// What differs from run to run.
    pub wall: SuiteWall,
}

/// What differs from run to run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SuiteWall {
    /// Unix time of the start, in seconds.
    pub started_unix: u64,
    /// How long it all took by the host's clock.
    pub elapsed_ns: u64,
}

impl SuiteReport {
    /// Counts a list of cases.
    pub fn summarize(cases: &[CaseResult]) -> Summary {
        let count = |status| cases.iter().filter(|case| case.status == status).count();
        Summary {
            passed: count(Status::Passed),
            failed: count(Status::Failed),
            skipped: count(Status::Skipped),
            errors: count(Status::Error),
            not_run: count(Status::NotRun),
        }
    }

    /// The exit code: 130 when it was interrupted, 1 when a case failed, else the code of the
    /// first case that could not be run, 4 when none ran, else 0.
    pub fn exit_code(&self) -> u8 {
        if self.interrupted {
            return ErrorKind::Interrupted.exit_code();
        }
        if self.summary.failed > 0 {
            return 1;
        }
        if let Some(kind) = self.cases.iter().find_map(|case| case.error_kind) {
            return kind.exit_code();
        }
        if self.summary.passed == 0 { ErrorKind::Nothing.exit_code() } else { 0 }
    }
}
