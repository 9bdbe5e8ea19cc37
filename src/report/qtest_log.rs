//! What came of replaying a qtest log on a real QEMU.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::WallReport;

/// Name and version of the JSON form; as for [`SCHEMA`](super::SCHEMA).
pub const QTEST_LOG_SCHEMA: &str = "qtrace.qtest-log-report/1";

/// Everything that was found out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QtestLogReport {
    /// [`QTEST_LOG_SCHEMA`].
    pub schema: String,
    /// Version of the program that wrote it.
    pub qtrace: String,
    /// The report that was replayed.
    pub report: String,
    /// Which of its reproducers, from 1.
    pub reproducer: u64,
    /// How many it holds.
    pub reproducers: u64,
    /// Every option with the value that was in force.
    pub settings: BTreeMap<String, String>,
    /// The QEMU.
    pub machine: QtestMachine,
    /// What was sent.
    pub done: QtestCounts,
    /// Lines that were not sent, by reason.
    pub rejected: Vec<RejectedLines>,
    /// What happened in QEMU, as its monitor told, with how often: `RESET`, `SHUTDOWN`, …
    pub events: BTreeMap<String, u64>,
    /// How it came out.
    pub outcome: Outcome,
    /// How QEMU ended, when it did.
    pub finding: Option<QtestFinding>,
    /// The end of QEMU's stderr, when it survived.
    pub stderr: String,
    /// What else a reader should know.
    pub notes: Vec<String>,
    /// What differs from run to run.
    pub wall: WallReport,
}

/// The QEMU of a replay.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct QtestMachine {
    /// The program.
    pub binary: String,
    /// Its version.
    pub version: String,
    /// The program that the report names.
    pub reported: String,
    /// The machine's arguments as QEMU got them.
    pub args: Vec<String>,
    /// What was replaced or left out of the report's.
    pub changes: Vec<String>,
    /// Images that it got overlays of.
    pub images: Vec<String>,
}

/// Commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QtestCounts {
    /// In the report.
    pub commands: u64,
    /// Sent to QEMU.
    pub sent: u64,
    /// Answered.
    pub answered: u64,
    /// Of those, with `FAIL` or `ERR`.
    pub refused: u64,
}

/// How a replay came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// QEMU answered every command and what came after.
    Survived,
    /// QEMU ended with status 0 because the guest switched the machine off, or reset it under
    /// `-no-reboot`.
    PoweredOff,
    /// It died.
    Died,
    /// It did not answer, and was killed.
    Hung,
    /// It did not speak the protocol, and was killed.
    Broken,
    /// The user stopped the replay.
    Interrupted,
}

impl Outcome {
    /// Whether QEMU did nothing wrong.
    pub fn pass(self) -> bool {
        matches!(self, Self::Survived | Self::PoweredOff)
    }
}

/// A QEMU's end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QtestFinding {
    /// How it ended: `died of signal 6 (SIGABRT)`.
    pub what: String,
    /// The signal's number, if it was one.
    pub signal: Option<i32>,
    /// The exit status, if it was one.
    pub status: Option<i32>,
    /// The last commands, oldest first.
    pub last: Vec<SentCommand>,
    /// The end of its stderr.
    pub stderr: String,
    /// A line of shell that reproduces it; empty where there is no short one.
    pub reproduce: String,
}

/// A command that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentCommand {
    /// The line of the report that it stands in; 0 for one of our own at the end.
    pub line: u64,
    /// The command, cut to a bearable length.
    pub text: String,
    /// Whether QEMU answered it.
    pub answered: bool,
}

/// Lines that were not sent for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedLines {
    /// The reason in words.
    pub reason: String,
    /// Whether it was to be expected: a comment, an answer, the shell's part.
    pub expected: bool,
    /// How many.
    pub count: u64,
    /// The first ones.
    pub first: Vec<RejectedLine>,
}

/// A line that was not sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedLine {
    /// Its number in the report, from 1.
    pub line: u64,
    /// Its beginning.
    pub text: String,
}
