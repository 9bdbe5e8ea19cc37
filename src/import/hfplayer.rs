//! hfplayer's CSV of NetApp E-Series traces. The header names each column and its type; which
//! there are differs from trace to trace.
//!
//! ```text
//! #DUMP_OFFSET.I,ELAPSED_USECS.D,ELAPSED_TICKS.I,CMD.S,INFLIGHT_IOS.I,…,LUN_SSID.I,…,LBA.I,NBLKS.I,…
//! ```
//!
//! ELAPSED_USECS is microseconds since the start; LBA and NBLKS count 512 bytes; LUN_SSID is the
//! volume. CMD is RD or WR for a whole request, whose LATENCY_USECS (0 where it is not known) is
//! its response time; or RD_IN and WR_IN for its issue and RD_OUT and WR_OUT for its completion,
//! joined by SEQID. An issue, too, may have its LATENCY_USECS, put there when the completion was
//! seen: then it counts, and the completion's row, if there is one, says nothing more.
//!
//! Source: hfplayer 3.0, <https://github.com/umn-cris/hfplayer>, `HFParsed.cc`.

use std::collections::HashSet;

use super::ImportOptions;
use super::dataset::clock::{Clock, Epoch, TimeUnit};
use super::dataset::fields::{Fields, Separator, scaled, whole};
use super::dataset::text::{Device, LineFormat, NOT_A_NUMBER, Parsed, Skip, TextRows};
use super::dataset::{About, DataSet, probe};
use super::job::Job;
use super::registry::Confidence;
use super::source::Source;
use crate::base::limits::{DISK_BYTES_MAX, IMPORT_IN_FLIGHT_MAX};
use crate::base::{BlockOp, Result, SECTOR_SIZE};

/// What LATENCY_USECS counts.
const MICROSECOND_NS: u64 = 1_000;

/// The importer.
pub struct Hfplayer;

impl DataSet for Hfplayer {
    type Input = TextRows<Rows>;

    fn about(&self) -> About {
        About {
            options: &[],
            takes_several: false,
            interpretation: &[
                "LBA and NBLKS: units of 512 bytes",
                "CMD: RD and WR requests, _IN issues with LATENCY_USECS or without, _OUT completions",
                "device: LUN_SSID",
            ],
            ..About::of(
                "hfplayer",
                "hfplayer's NetApp CSV: #DUMP_OFFSET.I,ELAPSED_USECS.D,…,CMD.S,…,LBA.I,NBLKS.I,…",
            )
        }
    }

    fn clock(&self, told: Option<TimeUnit>) -> Clock {
        Clock::new(Epoch::Start, TimeUnit::Us, told)
    }

    fn looks_like(&self, head: &[u8]) -> Option<Confidence> {
        let header = |line: &[u8]| line.split(|byte| *byte == b',').any(|name| name == b"CMD.S");
        probe::whole_lines(head).take(4).any(header).then_some(Confidence::Certain)
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

/// Where the columns are that matter.
#[derive(Clone, Copy)]
struct Columns {
    elapsed: usize,
    command: usize,
    lba: usize,
    blocks: usize,
    lun: Option<usize>,
    latency: Option<usize>,
    sequence: Option<usize>,
}

impl Columns {
    /// Those that a header names; the type behind the point is no part of a name.
    fn of(fields: Fields<'_>) -> Option<Self> {
        let find = |wanted: &[u8]| {
            (0..fields.len()).find(|at| {
                let name = fields.get(*at);
                let name = name.strip_prefix(b"#").unwrap_or(name);
                name.split(|byte| *byte == b'.').next() == Some(wanted)
            })
        };
        Some(Self {
            elapsed: find(b"ELAPSED_USECS")?,
            command: find(b"CMD")?,
            lba: find(b"LBA")?,
            blocks: find(b"NBLKS")?,
            lun: find(b"LUN_SSID"),
            latency: find(b"LATENCY_USECS"),
            sequence: find(b"SEQID"),
        })
    }
}

#[derive(Default)]
pub(super) struct Rows {
    columns: Option<Columns>,
    /// Sequence numbers of issues whose completion has not come.
    open: HashSet<u64>,
    /// The first sequence number of an issue that has its response time itself.
    answered_from: Option<u64>,
}

impl Rows {
    /// Joins an issue and its completion.
    fn join(&mut self, sequence: Option<u64>, issue: bool) -> Result<u64, Skip> {
        let sequence = sequence.ok_or(Skip::Malformed("no SEQID to join issue and completion"))?;
        if !issue {
            let known = self.open.remove(&sequence);
            if !known && self.answered_from.is_some_and(|first| sequence >= first) {
                return Err(Skip::Quiet);
            }
            let lost = Skip::Lost("completion of a request whose issue is not in the trace");
            return if known { Ok(sequence) } else { Err(lost) };
        }
        if self.open.len() >= IMPORT_IN_FLIGHT_MAX {
            return Err(Skip::Lost("more requests in flight than an import remembers"));
        }
        let fresh = self.open.insert(sequence);
        if fresh { Ok(sequence) } else { Err(Skip::Malformed("SEQID of a request in flight")) }
    }
}

impl LineFormat for Rows {
    const SEPARATOR: Separator = Separator::Byte(b',');

    fn parse<'l>(&mut self, fields: Fields<'l>, clock: &mut Clock) -> Result<Parsed<'l>, Skip> {
        if fields.line().trim_ascii_start().starts_with(b"#") {
            self.columns = Columns::of(fields).or(self.columns);
            return Err(Skip::Quiet);
        }
        let columns =
            self.columns.ok_or(Skip::Malformed("row before a header with CMD and LBA"))?;
        let command = fields.get(columns.command);
        let (name, phase) = match command.iter().position(|byte| *byte == b'_') {
            Some(at) => command.split_at(at),
            None => (command, &[][..]),
        };
        let op = match name {
            b"RD" => BlockOp::Read,
            b"WR" => BlockOp::Write,
            _ => return Err(Skip::Malformed("CMD is neither RD nor WR")),
        };
        let time = clock.read(fields.get(columns.elapsed)).ok_or(NOT_A_NUMBER)?;
        let device = columns.lun.map_or(Device::Only, |at| Device::Name(fields.get(at)));
        let sequence = columns.sequence.and_then(|at| whole(fields.get(at)));
        if phase == b"_OUT" {
            let tag = Some(self.join(sequence, false)?);
            return Ok(Parsed { device, tag, op: None, ..Parsed::request(time, op, 0, 0) });
        }
        let bytes = |at| whole(fields.get(at))?.checked_mul(SECTOR_SIZE);
        let offset = bytes(columns.lba).ok_or(NOT_A_NUMBER)?;
        let len = bytes(columns.blocks).ok_or(NOT_A_NUMBER)?;
        let latency = columns.latency.map(|at| scaled(fields.get(at), MICROSECOND_NS));
        let latency = latency.map(|ns| ns.ok_or(NOT_A_NUMBER)).transpose()?.filter(|ns| *ns > 0);
        let row = Parsed { device, latency, ..Parsed::request(time, op, offset, len) };
        match phase {
            b"" => Ok(row),
            b"_IN" if latency.is_some() => {
                self.answered_from = self.answered_from.or(sequence);
                Ok(Parsed { tag: sequence, ..row })
            }
            // What the job will not take must not be waited for.
            b"_IN" if len == 0 || offset.saturating_add(len) > DISK_BYTES_MAX => Ok(row),
            b"_IN" => Ok(Parsed { tag: Some(self.join(sequence, true)?), ..row }),
            _ => Err(Skip::Malformed("CMD is neither RD nor WR")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::testing::{import_bytes, losses, sample};
    use crate::trace::NotRecorded;

    #[test]
    fn whole_requests_have_a_latency() {
        let text = "#ELAPSED_USECS.D,CMD.S,LUN_SSID.I,LBA.I,NBLKS.I,LATENCY_USECS.D\n\
                    50,RD,6,2,2,200\n100.5,WR,7,4,1,0\n1,XX,6,2,2,200\n1,RD,6,-2,2,200\n";
        let (report, out) = import_bytes(text.as_bytes()).unwrap();
        assert_eq!(report.format, "hfplayer");
        assert_eq!(
            out.issues_brief(),
            [(0, BlockOp::Read, 1024, 1024), (50_500, BlockOp::Write, 2048, 512)]
        );
        assert_eq!(out.completes(), [(0, 200_000, 0)]);
        assert_eq!(out.streams.iter().map(|s| &s.device).collect::<Vec<_>>(), ["6", "7"]);
        assert_eq!(
            losses(&report),
            [("CMD is neither RD nor WR", 1, "line 4"), ("field is not a number", 1, "line 5")]
        );
    }

    #[test]
    fn issues_and_completions_are_joined() {
        let text = "#ELAPSED_USECS.D,CMD.S,SEQID.I,LUN_SSID.I,LBA.I,NBLKS.I\n\
                    0,RD_IN,10,0,8,8\n5,WR_IN,11,0,16,8\n7,WR_OUT,11,0,0,0\n9,RD_OUT,10,0,0,0\n\
                    9,RD_OUT,10,0,0,0\n";
        let (report, out) = import_bytes(text.as_bytes()).unwrap();
        assert_eq!(out.issues().iter().map(|i| i.tag).collect::<Vec<_>>(), [10, 11]);
        assert_eq!(out.completes(), [(11, 7_000, 0), (10, 9_000, 0)]);
        let reason = "completion of a request whose issue is not in the trace";
        assert_eq!(losses(&report), [(reason, 1, "line 6")]);
    }

    #[test]
    fn an_issue_may_have_its_response_time() {
        let header = "#ELAPSED_USECS.D,CMD.S,SEQID.I,LUN_SSID.I,LBA.I,NBLKS.I,LATENCY_USECS.D\n";
        let rows = "0,RD_IN,10,0,8,8,20.5\n5,WR_IN,11,0,16,8,0\n";
        let ends = "7,WR_OUT,11,0,0,0,2\n20.5,RD_OUT,10,0,0,0,20.5\n21,RD_OUT,9,0,0,0,50\n";
        let (report, out) = import_bytes(format!("{header}{rows}{ends}").as_bytes()).unwrap();
        assert_eq!(out.completes(), [(11, 7_000, 0), (10, 20_500, 0)]);
        let reason = "completion of a request whose issue is not in the trace";
        assert_eq!(losses(&report), [(reason, 1, "line 6")]);
        let (_, out) = import_bytes(format!("{header}{rows}").as_bytes()).unwrap();
        assert_eq!(out.completes(), [(10, 20_500, 0)]);
    }

    #[test]
    fn the_real_samples() {
        for (name, rows, completions) in
            [("sampleTrace.csv", 19, 19), ("sample_raw.head.trace", 299, 0)]
        {
            let name = format!("traces/hfplayer-netapp/{name}");
            let Some(data) = sample(&name) else { return };
            let (report, out) = import_bytes(&data).unwrap();
            assert_eq!(report.format, "hfplayer");
            assert_eq!((out.issues().len(), out.completes().len()), (rows, completions));
            assert!(report.summary.losses.is_empty(), "{:?}", report.summary.losses);
            let none = report.summary.not_recorded.contains(NotRecorded::COMPLETIONS);
            assert_eq!(none, completions == 0);
        }
    }
}
