//! The SPC trace format, in which UMass publishes its Financial and WebSearch traces: no header,
//! a row a request, in order of time.
//!
//! ```text
//! ASU,LBA,SIZE,OPCODE,TIMESTAMP[,further fields]
//! 0,20941264,8192,W,0.551706,Alpha/NT
//! ```
//!
//! ASU names an application storage unit, each with addresses of its own; LBA counts its blocks,
//! SIZE is in bytes; OPCODE is R or W in either case; TIMESTAMP is seconds since the start. Rows
//! may have further fields, which differ from row to row and mean nothing to others. The size of
//! a block is not in the file: 512 bytes in the published traces, `--unit` tells another.
//!
//! Source: SPC Trace File Format Specification, revision 1.0.1, §2 and §3.

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

/// Fields that every row has.
const COLUMNS_MIN: usize = 5;

/// The importer.
pub struct Spc;

impl DataSet for Spc {
    type Input = TextRows<Rows>;

    fn about(&self) -> About {
        About {
            options: &[UNIT, TIME_UNIT],
            lacks: lacks() | NotRecorded::COMPLETIONS,
            ..About::of("spc", "SPC and UMass traces: ASU,LBA,SIZE,OPCODE,TIMESTAMP")
        }
    }

    fn clock(&self, told: Option<TimeUnit>) -> Clock {
        Clock::new(Epoch::Start, TimeUnit::S, told)
    }

    fn looks_like(&self, head: &[u8]) -> Option<Confidence> {
        probe::likely(head, Rows { block_bytes: SECTOR_SIZE }, self.clock(None))
    }

    fn inputs(
        &self,
        sources: Vec<Source>,
        options: &ImportOptions,
        job: &mut Job<'_>,
    ) -> Result<Vec<Self::Input>> {
        let block_bytes = options.unit_bytes.unwrap_or(SECTOR_SIZE);
        let told = if options.unit_bytes.is_some() { "as told" } else { "assumed (--unit)" };
        job.interpret(format!("LBA: blocks of {block_bytes} bytes, {told}; SIZE: bytes"));
        job.interpret("device: ASU");
        Ok(TextRows::all(sources, || Rows { block_bytes }))
    }
}

pub(super) struct Rows {
    block_bytes: u64,
}

impl RowFormat for Rows {
    const SEPARATOR: Separator = Separator::Byte(b',');

    fn row<'l, C: Columns<'l>>(
        &self,
        columns: &mut C,
        clock: &mut Clock,
    ) -> Result<Parsed<'l>, Skip> {
        columns.expect(COLUMNS_MIN..=usize::MAX, "row has less than 5 fields")?;
        let device = Device::Name(columns.number_name()?);
        let (offset, len) = (columns.units(self.block_bytes)?, columns.whole()?);
        let op = match columns.text()? {
            b"R" | b"r" => BlockOp::Read,
            b"W" | b"w" => BlockOp::Write,
            _ => return Err(Skip::Malformed("opcode is neither R nor W")),
        };
        let time = columns.time(clock)?;
        Ok(Parsed { device, ..Parsed::request(time, op, offset, len) })
    }

    fn is_header(&self, fields: Fields<'_>) -> bool {
        fields.get(0).eq_ignore_ascii_case(b"asu")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::dataset::columns::testing::both_ways_agree;
    use crate::import::testing::{import_bytes, import_many, import_with, losses, sample};

    const ROWS: &str =
        "0,100,8192,W,0.5,host/x\r\n0,90,512,r,0.75\r\n1,100,512,w,1.0e0,0x1,5,t\r\n";

    #[test]
    fn each_unit_has_addresses_of_its_own() {
        let (report, out) = import_bytes(ROWS.as_bytes()).unwrap();
        assert_eq!(report.format, "spc");
        assert_eq!(
            out.issues_brief(),
            [
                (0, BlockOp::Write, 51_200, 8192),
                (250_000_000, BlockOp::Read, 46_080, 512),
                (500_000_000, BlockOp::Write, 51_200, 512),
            ]
        );
        assert_eq!(out.streams.iter().map(|s| &s.device).collect::<Vec<_>>(), ["0", "1"]);
        assert_eq!(out.header.as_ref().unwrap().origin_unix_ns, None);
        assert!(out.completes().is_empty());
        assert!(report.summary.not_recorded.contains(NotRecorded::COMPLETIONS));
    }

    #[test]
    fn another_block_size_is_told() {
        let options = ImportOptions { unit_bytes: Some(4096), ..ImportOptions::default() };
        let (report, out) = import_with(ROWS.as_bytes(), &options).unwrap();
        assert_eq!(out.issues()[0].offset, 409_600);
        assert!(report.interpretation.iter().any(|line| line.contains("4096 bytes, as told")));
    }

    #[test]
    fn bad_rows_are_counted() {
        let text = format!(
            "{ROWS}\n# note\n0,1,512,E,2\n0,1,512\n0,-1,512,R,2\n0,1,512,R,x\n\
                            0,18446744073709551615,512,R,2\n"
        );
        let (report, out) = import_bytes(text.as_bytes()).unwrap();
        assert_eq!(out.issues().len(), 3);
        assert_eq!(
            losses(&report),
            [
                ("opcode is neither R nor W", 1, "line 6"),
                ("row has less than 5 fields", 1, "line 7"),
                ("field is not a number", 3, "line 8"),
            ]
        );
    }

    #[test]
    fn files_are_merged_by_time() {
        let (a, b) = (&b"0,0,512,R,1\n0,0,512,R,3\n"[..], &b"1,0,512,W,0.5\n1,0,512,W,2\n"[..]);
        let (_, out) = import_many(&[("a", a), ("b", b)], &ImportOptions::default()).unwrap();
        let order: Vec<_> = out.issues_brief().iter().map(|i| (i.0 / 500_000_000, i.1)).collect();
        use BlockOp::{Read, Write};
        assert_eq!(order, [(0, Write), (1, Read), (3, Write), (5, Read)]);
    }

    #[test]
    fn the_documented_rows() {
        let Some(data) = sample("traces/spc-umass-documented/spec-example.spc") else { return };
        let (report, out) = import_bytes(&data).unwrap();
        assert_eq!(report.format, "spc");
        assert_eq!(out.issues().len(), 8);
        assert!(report.summary.losses.is_empty());
    }

    #[test]
    fn plain_lines_are_what_the_long_way_makes_of_them() {
        both_ways_agree(Rows { block_bytes: 512 }, Spc.clock(None), "0,20941264,8192,W,0.551706,x");
    }
}
