//! The Tencent CBS traces of 2018 and 2020 (SNIA IOTTA set 27917): no header, a row a request, all
//! volumes in one file, nearly in order of time.
//!
//! ```text
//! Timestamp,Offset,Size,IOType,VolumeID
//! 1538323199,13896880,128,0,1063
//! ```
//!
//! Timestamp is Unix time in whole seconds, Offset and Size count sectors of 512 bytes, IOType is
//! 0 for a read and 1 for a write. Copies have been published with Offset and Size in bytes: where
//! every one of the first rows is a multiple of 512 they are read so, with a note; `--unit` tells.
//!
//! Source: Zhang et al., OSCA: An online-model based cache allocation scheme in cloud block storage
//! systems, USENIX ATC 2020, and the README of the set.

use super::ImportOptions;
use super::dataset::clock::{Clock, Epoch, TimeUnit};
use super::dataset::columns::{Columns, RowFormat};
use super::dataset::fields::{Fields, Separator};
use super::dataset::text::{Device, Parsed, Skip, TextRows};
use super::dataset::{About, DataSet, lacks, probe};
use super::job::Job;
use super::registry::{Confidence, TIME_UNIT, UNIT};
use super::source::Source;
use crate::base::{BlockOp, Result, SECTOR_SIZE};
use crate::trace::NotRecorded;

const COLUMNS: usize = 5;
/// Rows that must all be multiples of 512 before they are taken to be in bytes.
const ROWS_TO_JUDGE_MIN: usize = 16;

/// The importer.
pub struct Tencent;

impl DataSet for Tencent {
    type Input = TextRows<Rows>;

    fn about(&self) -> About {
        About {
            options: &[UNIT, TIME_UNIT],
            lacks: lacks() | NotRecorded::COMPLETIONS,
            ..About::of(
                "tencent",
                "Tencent CBS traces: Timestamp,Offset,Size,IOType,VolumeID (0 is a read)",
            )
        }
    }

    fn clock(&self, told: Option<TimeUnit>) -> Clock {
        clock(told)
    }

    fn looks_like(&self, head: &[u8]) -> Option<Confidence> {
        probe::likely(head, Rows { unit_bytes: 1 }, clock(None))
    }

    fn inputs(
        &self,
        sources: Vec<Source>,
        options: &ImportOptions,
        job: &mut Job<'_>,
    ) -> Result<Vec<Self::Input>> {
        let mut sources = sources;
        let head = sources.first_mut().map(Source::head).transpose()?.unwrap_or_default();
        let (unit_bytes, why) = match options.unit_bytes {
            Some(bytes) => (bytes, "as told"),
            None if in_bytes(&head) => {
                job.summary.note(
                    "offsets and sizes are all multiples of 512: read as bytes, where the format \
                     has sectors (--unit overrides)",
                );
                (1, "by the look of them")
            }
            _ => (SECTOR_SIZE, "as the format has it"),
        };
        job.interpret(format!("offset and size: units of {unit_bytes} bytes, {why}"));
        job.interpret("IOType: 0 read, 1 write");
        job.interpret("device: VolumeID");
        job.interpret("resolution of times: 1 s, so that requests of one second are in file order");
        Ok(TextRows::all(sources, || Rows { unit_bytes }))
    }
}

fn clock(told: Option<TimeUnit>) -> Clock {
    Clock::new(Epoch::Unix, TimeUnit::S, told)
}

/// Whether the first rows look like bytes and not like sectors.
fn in_bytes(head: &[u8]) -> bool {
    let rows = Rows { unit_bytes: 1 };
    let looked = probe::look(head, rows, clock(None), |_, row| {
        row.offset % SECTOR_SIZE == 0 && row.len % SECTOR_SIZE == 0
    });
    looked.misfit == 0 && looked.fit >= ROWS_TO_JUDGE_MIN
}

pub(super) struct Rows {
    unit_bytes: u64,
}

impl RowFormat for Rows {
    const SEPARATOR: Separator = Separator::Byte(b',');

    fn row<'l, C: Columns<'l>>(
        &self,
        columns: &mut C,
        clock: &mut Clock,
    ) -> Result<Parsed<'l>, Skip> {
        columns.expect(COLUMNS..=COLUMNS, "row does not have 5 fields")?;
        let time = columns.time(clock)?;
        let (offset, len) = (columns.units(self.unit_bytes)?, columns.units(self.unit_bytes)?);
        let op = match columns.text()? {
            b"0" => BlockOp::Read,
            b"1" => BlockOp::Write,
            _ => return Err(Skip::Malformed("IOType is neither 0 nor 1")),
        };
        let device = Device::Name(columns.number_name()?);
        Ok(Parsed { device, ..Parsed::request(time, op, offset, len) })
    }

    fn is_header(&self, fields: Fields<'_>) -> bool {
        fields.get(0).eq_ignore_ascii_case(b"timestamp")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::dataset::columns::testing::both_ways_agree;
    use crate::import::testing::{import_bytes, import_with, losses, sample};

    #[test]
    fn sectors_and_seconds() {
        let text = b"1538323200,100,8,1,1058\n1538323199,0,16,0,1063\n1538323201,5,1,2,7\n";
        let (report, out) = import_bytes(text).unwrap();
        assert_eq!(report.format, "tencent");
        assert_eq!(
            out.issues_brief(),
            [(0, BlockOp::Read, 0, 8192), (1_000_000_000, BlockOp::Write, 51_200, 4096)]
        );
        assert_eq!(losses(&report), [("IOType is neither 0 nor 1", 1, "line 3")]);
    }

    #[test]
    fn a_copy_in_bytes_is_noticed_or_told() {
        let text: String = (0..20).map(|n| format!("1538323200,{},4096,1,7\n", n * 8192)).collect();
        let (report, out) = import_bytes(text.as_bytes()).unwrap();
        assert_eq!(out.issues()[1].offset, 8192);
        assert!(report.summary.notes[0].contains("read as bytes"));
        assert!(report.interpretation.iter().any(|l| l.contains("1 bytes, by the look of them")));
        let options = ImportOptions { unit_bytes: Some(512), ..ImportOptions::default() };
        let (report, out) = import_with(text.as_bytes(), &options).unwrap();
        assert_eq!(out.issues()[1].offset, 8192 * 512);
        assert!(report.summary.notes.is_empty());
    }

    #[test]
    fn the_real_sample() {
        let Some(data) = sample("traces/tencent-cbs/cloud_storage-sample.bz2") else { return };
        let (report, out) = import_bytes(&data).unwrap();
        assert_eq!(out.issues().len(), 50_000);
        assert_eq!(out.streams.len(), 2038);
        assert!(report.summary.losses.is_empty());
        let note = "144 rows were out of order of time in the input and put in order";
        assert!(report.summary.notes.iter().any(|n| n == note), "{:?}", report.summary.notes);
        assert!(out.events.is_sorted_by_key(|event| event.time()));
    }

    #[test]
    fn plain_lines_are_what_the_long_way_makes_of_them() {
        both_ways_agree(Rows { unit_bytes: 512 }, clock(None), "1538323200,12910952,128,0,1063");
    }
}
