//! The accounts of a run: oracle, statistics and run log, told of every request.

use xxhash_rust::xxh3::xxh3_64;

use super::engine::{Accounts, Answer, Done};
use super::run_log::{Record, RunLog};
use crate::base::{BlockOp, Result};
use crate::driver::BlockStatus;
use crate::oracle::{Oracle, PlannedRequest};
use crate::report::RunStats;

/// See the module.
pub struct Books<'a> {
    /// Checks the answers.
    pub oracle: Oracle,
    /// Counts and times.
    pub stats: RunStats,
    /// Every answer, byte for byte.
    pub log: RunLog,
    /// Completions of the recording that carry an error.
    pub recorded_errors: u64,
    /// Device requests that failed here.
    pub errors: u64,
    wants_data: bool,
    progress: &'a mut dyn FnMut(u64),
}

impl<'a> Books<'a> {
    /// Empty books. `progress` is told now and then how many events were taken.
    pub fn new(oracle: Oracle, log: RunLog, progress: &'a mut dyn FnMut(u64)) -> Self {
        let wants_data = oracle.wants_data();
        let stats = RunStats::new();
        Self { oracle, stats, log, recorded_errors: 0, errors: 0, wants_data, progress }
    }

    fn judge(&mut self, answer: &Answer<'_>) -> Result<()> {
        let (token, status) = (answer.token, answer.status);
        let failed = matches!(status, BlockStatus::IoErr | BlockStatus::Unsupported);
        self.errors += u64::from(status != BlockStatus::Ok);
        if !self.wants_data {
            if status == BlockStatus::Ok {
                return Ok(());
            }
            // Nothing is verified and the oracle knows of no request: it hears of those that fail.
            self.oracle.issued(token, answer.request)?;
        }
        if failed && answer.failed_in_recording {
            self.oracle.failed_as_recorded(token)
        } else {
            self.oracle.completed(token, status, answer.data)
        }
    }
}

impl Accounts for Books<'_> {
    fn wants_data(&self) -> bool {
        self.wants_data
    }

    fn issued(&mut self, token: u64, request: &PlannedRequest) -> Result<()> {
        if self.wants_data { self.oracle.issued(token, request) } else { Ok(()) }
    }

    fn answered(&mut self, answer: &Answer<'_>) -> Result<()> {
        let digest = answer.data.map_or(0, xxh3_64);
        self.judge(answer)?;
        self.log.push(&Record {
            request: answer.request,
            part: answer.part,
            issue: answer.issue,
            complete: answer.complete,
            status: answer.status,
            digest,
        })
    }

    fn done(&mut self, done: &Done) {
        self.stats.completed(done.op, done.bytes, done.complete - done.issue, done.ok);
        if let Some(due) = done.due {
            self.stats.late(done.issue - due);
        }
    }

    fn recorded(&mut self, op: BlockOp, latency_ns: u64) {
        self.stats.recorded(op, latency_ns);
    }

    fn recorded_error(&mut self, _status: u16) {
        self.recorded_errors += 1;
    }

    fn progress(&mut self, events: u64) {
        (self.progress)(events);
    }
}
