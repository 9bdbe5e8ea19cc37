//! What a run counts while it runs.

use std::collections::BTreeMap;

use super::histogram::Histogram;
use super::{OpReport, SkipReport};
use crate::base::BlockOp;

/// Counts of one operation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OpStats {
    /// Requests of the trace that were carried out, failed ones too.
    pub count: u64,
    /// Bytes of their ranges, of those that succeeded.
    pub bytes: u64,
    /// How many of them failed.
    pub errors: u64,
    /// From issue to completion.
    pub latency: Histogram,
    /// The same in the recording.
    pub recorded: Histogram,
}

/// The accumulators of a run. Recording costs a few nanoseconds and allocates only at the first
/// request of an operation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunStats {
    ops: [OpStats; BlockOp::ALL.len()],
    /// How late requests were issued, against the plan; empty when the pacing has no times.
    pub lateness: Histogram,
    /// Requests held back because they overlapped one in flight.
    pub held: u64,
    /// Requests cut into pieces, being larger than the device takes.
    pub splits: u64,
    /// Requests that became several for their meaning: a FUA write as write and flush.
    pub expansions: u64,
    skipped: BTreeMap<String, u64>,
}

impl RunStats {
    /// All zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// A request of the trace was answered after `latency_ns`.
    #[inline]
    pub fn completed(&mut self, op: BlockOp, bytes: u64, latency_ns: u64, ok: bool) {
        let stats = self.op_mut(op);
        stats.count += 1;
        if ok {
            stats.bytes += bytes;
        } else {
            stats.errors += 1;
        }
        stats.latency.record(latency_ns);
    }

    /// The recording has this latency for a request.
    #[inline]
    pub fn recorded(&mut self, op: BlockOp, latency_ns: u64) {
        self.op_mut(op).recorded.record(latency_ns);
    }

    /// A request was issued so long after it was due.
    #[inline]
    pub fn late(&mut self, ns: u64) {
        self.lateness.record(ns);
    }

    /// `count` requests were left out for `reason` (a stable, short phrase).
    pub fn skipped(&mut self, reason: &str, count: u64) {
        if count > 0 {
            *self.skipped.entry(reason.to_owned()).or_default() += count;
        }
    }

    /// Counts of `op`.
    pub fn op(&self, op: BlockOp) -> &OpStats {
        &self.ops[op.index()]
    }

    fn op_mut(&mut self, op: BlockOp) -> &mut OpStats {
        &mut self.ops[op.index()]
    }

    /// Requests answered.
    pub fn requests(&self) -> u64 {
        self.ops.iter().map(|op| op.count).sum()
    }

    /// Adds everything another accumulator counted.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.ops.iter_mut().zip(&other.ops) {
            mine.count += theirs.count;
            mine.bytes += theirs.bytes;
            mine.errors += theirs.errors;
            mine.latency.merge(&theirs.latency);
            mine.recorded.merge(&theirs.recorded);
        }
        self.lateness.merge(&other.lateness);
        self.held += other.held;
        self.splits += other.splits;
        self.expansions += other.expansions;
        for (reason, count) in &other.skipped {
            *self.skipped.entry(reason.clone()).or_default() += count;
        }
    }

    /// The rows of a report for a run that took `duration_ns`, in the order of [`BlockOp::ALL`];
    /// operations that did not occur are left out.
    pub fn op_reports(&self, duration_ns: u64) -> Vec<OpReport> {
        let present = |stats: &&OpStats| stats.count > 0 || stats.recorded.count() > 0;
        let per_second = |count: u64| match duration_ns {
            0 => None,
            ns => Some(count as f64 * 1e9 / ns as f64),
        };
        let rows = BlockOp::ALL.into_iter().zip(&self.ops).filter(|(_, stats)| present(stats));
        rows.map(|(op, stats)| OpReport {
            op,
            count: stats.count,
            bytes: stats.bytes,
            errors: stats.errors,
            iops: per_second(stats.count),
            bytes_per_second: per_second(stats.bytes),
            latency: stats.latency.clone(),
            recorded_latency: (stats.recorded.count() > 0).then(|| stats.recorded.clone()),
        })
        .collect()
    }

    /// What was left out, by reason.
    pub fn skip_reports(&self) -> Vec<SkipReport> {
        let rows = self.skipped.iter();
        rows.map(|(reason, &count)| SkipReport { reason: reason.clone(), count }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_rates_and_only_what_occurred() {
        let mut stats = RunStats::new();
        for _ in 0..10 {
            stats.completed(BlockOp::Write, 4096, 1000, true);
        }
        stats.completed(BlockOp::Write, 4096, 1000, false);
        stats.recorded(BlockOp::Read, 5);
        stats.skipped("other device", 2);
        stats.skipped("nothing", 0);
        let rows = stats.op_reports(2_000_000_000);
        assert_eq!(rows.iter().map(|r| r.op).collect::<Vec<_>>(), [BlockOp::Read, BlockOp::Write]);
        let write = &rows[1];
        assert_eq!((write.count, write.bytes, write.errors), (11, 40960, 1));
        assert_eq!((write.iops, write.bytes_per_second), (Some(5.5), Some(20480.0)));
        assert_eq!(stats.op_reports(0)[1].iops, None, "no rate without a duration");
        assert_eq!(stats.skip_reports().len(), 1);
    }

    #[test]
    fn merging_adds() {
        let mut a = RunStats::new();
        a.completed(BlockOp::Read, 512, 10, true);
        a.held = 1;
        let mut b = a.clone();
        b.skipped("x", 3);
        b.late(7);
        a.merge(&b);
        assert_eq!((a.requests(), a.held, a.lateness.count()), (2, 2, 1));
        assert_eq!(a.op(BlockOp::Read).latency.count(), 2);
        assert_eq!(a.skip_reports()[0].count, 3);
    }
}
