//! DiskSim's validation traces, captured from real disks: blank-separated, no header.
//!
//! ```text
//! R|W HIT|MISS BLOCK SIZE SERVICE NEXT
//! R Hit    1975456   4  15362.00000  56074.00000
//! ```
//!
//! BLOCK and SIZE count 512 bytes. SERVICE is the microseconds from issue to completion and NEXT
//! those from the completion to the issue of the next request: one request is in flight at a time.
//! The second word is what the disk's cache did; it is not kept. A line that cannot be read leaves
//! its times out: what follows comes that much too early.
//!
//! Source: DiskSim 4.0, `disksim_iotrace.c` (`iotrace_validate_get_ioreq_event` adds NEXT to the
//! time at which it is called), `disksim_iodriver.c` (which calls it when a request completes).

use super::ImportOptions;
use super::dataset::clock::{Clock, Epoch, TimeUnit};
use super::dataset::fields::{Fields, Separator, scaled, whole};
use super::dataset::text::{LineFormat, NOT_A_NUMBER, Parsed, Skip, TextRows};
use super::dataset::{About, DataSet, probe};
use super::job::Job;
use super::registry::Confidence;
use super::source::Source;
use crate::base::{BlockOp, Result, SECTOR_SIZE};

const COLUMNS: usize = 6;
/// What the times count.
const MICROSECOND_NS: u64 = 1_000;

/// The importer.
pub struct DisksimValidate;

impl DataSet for DisksimValidate {
    type Input = TextRows<Rows>;

    fn about(&self) -> About {
        About {
            options: &[],
            interpretation: &[
                "block and size: units of 512 bytes",
                "service: us from issue to completion; next: us from completion to the issue that follows",
            ],
            ..About::of(
                "disksim-validate",
                "DiskSim validation traces: R|W Hit|Miss block size service(us) next(us)",
            )
        }
    }

    fn clock(&self, told: Option<TimeUnit>) -> Clock {
        // Times are sums of gaps.
        Clock::new(Epoch::Start, TimeUnit::Ns, told)
    }

    fn looks_like(&self, head: &[u8]) -> Option<Confidence> {
        probe::likely(head, Rows::default(), self.clock(None))
    }

    fn inputs(
        &self,
        sources: Vec<Source>,
        _options: &ImportOptions,
        _job: &mut Job<'_>,
    ) -> Result<Vec<Self::Input>> {
        Ok(TextRows::all(sources, Rows::default))
    }
}

#[derive(Default)]
pub(super) struct Rows {
    /// When the next request is issued.
    now: u64,
}

impl LineFormat for Rows {
    const SEPARATOR: Separator = Separator::Blanks;

    fn parse<'l>(&mut self, fields: Fields<'l>, clock: &mut Clock) -> Result<Parsed<'l>, Skip> {
        if fields.len() != COLUMNS {
            return Err(Skip::Malformed("row does not have 6 fields"));
        }
        let op = match fields.get(0) {
            b"R" => BlockOp::Read,
            b"W" => BlockOp::Write,
            _ => return Err(Skip::Malformed("operation is neither R nor W")),
        };
        if whole(fields.get(1)).is_some() {
            return Err(Skip::Malformed("a number where the cache's answer stands"));
        }
        let bytes = |at| whole(fields.get(at))?.checked_mul(SECTOR_SIZE);
        let offset = bytes(2).ok_or(NOT_A_NUMBER)?;
        let len = bytes(3).ok_or(NOT_A_NUMBER)?;
        let latency = scaled(fields.get(4), MICROSECOND_NS).ok_or(NOT_A_NUMBER)?;
        let next = scaled(fields.get(5), MICROSECOND_NS).ok_or(NOT_A_NUMBER)?;
        let time = clock.read_ticks(self.now).ok_or(NOT_A_NUMBER)?;
        let done = time.checked_add(latency).ok_or(NOT_A_NUMBER)?;
        self.now = done.checked_add(next).ok_or(NOT_A_NUMBER)?;
        Ok(Parsed { latency: Some(latency), ..Parsed::request(time, op, offset, len) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::testing::{import_bytes, losses, sample};

    #[test]
    fn the_next_request_is_issued_after_the_one_before_completed() {
        let text = "R Hit 8 4 15.5 100.0\nW Miss 16 1 1.0 50.00\nE Hit 1 1 1 1\nR Hit 0 8 2 3\n";
        let (report, out) = import_bytes(text.as_bytes()).unwrap();
        assert_eq!(report.format, "disksim-validate");
        assert_eq!(
            out.issues_brief(),
            [
                (0, BlockOp::Read, 4096, 2048),
                (115_500, BlockOp::Write, 8192, 512),
                (166_500, BlockOp::Read, 0, 4096),
            ]
        );
        assert_eq!(out.completes(), [(0, 15_500, 0), (1, 116_500, 0), (2, 168_500, 0)]);
        assert_eq!(losses(&report), [("operation is neither R nor W", 1, "line 3")]);
    }

    #[test]
    fn the_real_sample() {
        let name = "traces/disksim/cheetah9LP.validate.head500.trace";
        let Some(data) = sample(name) else { return };
        let (report, out) = import_bytes(&data).unwrap();
        assert_eq!(report.format, "disksim-validate");
        assert_eq!((report.ops.issues[0], report.ops.issues[1]), (317, 183));
        assert_eq!(out.completes().len(), 500);
        assert!(report.summary.losses.is_empty());
    }
}
