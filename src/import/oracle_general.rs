//! libCacheSim's oracleGeneral: packed records of 24 bytes, little endian, no header.
//!
//! ```text
//! u32 time, u64 obj_id, u32 size, i64 next_access_vtime
//! ```
//!
//! The time is in seconds, the size in bytes. It is a trace for caches: it says which object is
//! accessed and not whether it is read or written, nor what an object's number counts, which is
//! what its converter took (for block traces mostly the sector). So `--op` and `--unit` must be
//! told. `next_access_vtime` is the number of the next access to the object, -1 for none; it is
//! not kept.
//!
//! Source: <https://github.com/1a1a11a/libCacheSim>, `oracleGeneral.h`.

use super::ImportOptions;
use super::dataset::binary::{RecordFormat, RecordRows};
use super::dataset::clock::{Clock, Epoch, TimeUnit};
use super::dataset::text::{NOT_A_NUMBER, Parsed, Skip};
use super::dataset::{About, DataSet, lacks};
use super::job::Job;
use super::registry::{Confidence, OP, TIME_UNIT, UNIT};
use super::source::Source;
use crate::base::{BlockOp, Error, Result};
use crate::trace::NotRecorded;

const RECORD_BYTES: usize = 24;
/// Records that a probe looks at, and fewest that it judges by.
const PROBE_RECORDS: usize = 64;
const PROBE_RECORDS_MIN: usize = 2;
/// An object larger than this is no access to a disk.
const SIZE_MAX: u32 = 1 << 30;

/// The importer.
pub struct OracleGeneral;

impl DataSet for OracleGeneral {
    type Input = RecordRows<Records>;

    fn about(&self) -> About {
        About {
            options: &[OP, UNIT, TIME_UNIT],
            lacks: lacks() | NotRecorded::COMPLETIONS,
            ..About::of(
                "oracle-general",
                "libCacheSim's oracleGeneral, binary (say --op and --unit: the format does not)",
            )
        }
    }

    fn clock(&self, told: Option<TimeUnit>) -> Clock {
        Clock::new(Epoch::Start, TimeUnit::S, told)
    }

    fn looks_like(&self, head: &[u8]) -> Option<Confidence> {
        let mut last = 0;
        let mut seen = 0;
        for (number, bytes) in head.chunks_exact(RECORD_BYTES).take(PROBE_RECORDS).enumerate() {
            let record = Record::read(bytes)?;
            let next = u64::try_from(record.next);
            let fits = record.time >= last
                && (1..=SIZE_MAX).contains(&record.size)
                && (record.next == -1 || next.is_ok_and(|next| next > number as u64));
            if !fits {
                return None;
            }
            last = record.time;
            seen += 1;
        }
        (seen >= PROBE_RECORDS_MIN).then_some(Confidence::Possible)
    }

    fn inputs(
        &self,
        sources: Vec<Source>,
        options: &ImportOptions,
        job: &mut Job<'_>,
    ) -> Result<Vec<Self::Input>> {
        let (Some(op), Some(unit_bytes)) = (options.op, options.unit_bytes) else {
            let what = "oracle-general does not say what an access is, nor what an address counts";
            let hint = "say both: --op read --unit sector (or --op write, --unit byte, --unit 4k)";
            let path = sources.first().map(|source| source.path().to_path_buf());
            return Err(Error::usage(what).hint(hint).path(path.unwrap_or_default()));
        };
        job.lacks(self.about().lacks | never(op));
        job.interpret(format!("every access: {op}, as told"));
        job.interpret(format!("obj_id: units of {unit_bytes} bytes, as told; size: bytes"));
        let several = sources.len() > 1;
        let records = Records { op, unit_bytes };
        let input = |source| RecordRows::new(source, records, several);
        Ok(sources.into_iter().map(input).collect())
    }
}

/// What cannot be in a trace all of whose accesses are `op`.
fn never(op: BlockOp) -> NotRecorded {
    if op == BlockOp::Read { NotRecorded::empty() } else { NotRecorded::READS }
}

struct Record {
    time: u32,
    object: u64,
    size: u32,
    next: i64,
}

impl Record {
    fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            time: u32::from_le_bytes(*bytes.first_chunk()?),
            object: u64::from_le_bytes(*bytes.get(4..)?.first_chunk()?),
            size: u32::from_le_bytes(*bytes.get(12..)?.first_chunk()?),
            next: i64::from_le_bytes(*bytes.get(16..)?.first_chunk()?),
        })
    }
}

#[derive(Clone, Copy)]
pub(super) struct Records {
    op: BlockOp,
    unit_bytes: u64,
}

impl RecordFormat for Records {
    fn record_bytes(&self) -> usize {
        RECORD_BYTES
    }

    fn parse(&mut self, bytes: &[u8], clock: &mut Clock) -> Result<Parsed<'static>, Skip> {
        let record = Record::read(bytes).ok_or(Skip::Malformed("short record"))?;
        let time = clock.read_ticks(record.time.into()).ok_or(NOT_A_NUMBER)?;
        let offset = record.object.checked_mul(self.unit_bytes);
        let offset = offset.ok_or(Skip::Lost("obj_id past the largest disk there can be"))?;
        Ok(Parsed::request(time, self.op, offset, record.size.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ErrorKind;
    use crate::import::testing::{import_bytes, import_with, losses, sample};

    fn record(time: u32, object: u64, size: u32, next: i64) -> Vec<u8> {
        let (time, object, size) = (time.to_le_bytes(), object.to_le_bytes(), size.to_le_bytes());
        [&time[..], &object, &size, &next.to_le_bytes()].concat()
    }

    fn told() -> ImportOptions {
        ImportOptions {
            op: Some(BlockOp::Write),
            unit_bytes: Some(512),
            ..ImportOptions::default()
        }
    }

    #[test]
    fn what_the_format_does_not_say_must_be_told() {
        let data = [record(5, 8, 512, 1), record(6, 8, 4096, -1), record(6, u64::MAX, 512, -1)];
        let data = data.concat();
        let error = import_bytes(&data).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.hint_text().unwrap().contains("--op read --unit sector"));
        let (report, out) = import_with(&data, &told()).unwrap();
        assert_eq!(report.format, "oracle-general");
        assert_eq!(
            out.issues_brief(),
            [(0, BlockOp::Write, 4096, 512), (1_000_000_000, BlockOp::Write, 4096, 4096)]
        );
        let reason = "obj_id past the largest disk there can be";
        assert_eq!(losses(&report), [(reason, 1, "test-input offset 48")]);
        assert!(report.summary.not_recorded.contains(NotRecorded::READS));
    }

    #[test]
    fn the_real_sample() {
        let name = "traces/oraclegeneral/cloudPhysicsIO.head10000.oracleGeneral.bin";
        let Some(data) = sample(name) else { return };
        let (report, out) = import_with(&data, &told()).unwrap();
        assert_eq!(report.format, "oracle-general");
        assert_eq!(out.issues().len(), 10_000);
        assert!(report.summary.losses.is_empty());
    }
}
