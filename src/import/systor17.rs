//! The SYSTOR '17 traces of a virtual desktop infrastructure (SNIA IOTTA set 4928): a file a LUN
//! and hour, with a header.
//!
//! ```text
//! Timestamp,Response,IOType,LUN,Offset,Size
//! 1455591804.310701000,0.006475000,R,0,203468398592,32768
//! ```
//!
//! Timestamp is the issue in Unix seconds (UTC, exact to the microsecond), Response the seconds
//! until the answer, Offset and Size are bytes. Rows stand in order of their answers, more or
//! less. IOType is R, W or blank: blank where no answer was seen, and then it is not known what
//! was asked; Response is blank where it is not known.
//!
//! Source: the README of the set; Lee et al., Understanding storage traffic characteristics on
//! enterprise virtual desktop infrastructure, SYSTOR 2017.

use super::ImportOptions;
use super::dataset::clock::{Clock, Epoch, TimeUnit};
use super::dataset::columns::{Columns, RowFormat};
use super::dataset::fields::{Fields, Separator};
use super::dataset::text::{Device, Parsed, Skip, TextRows};
use super::dataset::{About, DataSet, probe};
use super::job::Job;
use super::registry::Confidence;
use super::source::Source;
use crate::base::{BlockOp, Result};

const COLUMNS: usize = 6;
/// What Response counts.
const SECOND_NS: u64 = 1_000_000_000;

/// The importer.
pub struct Systor17;

impl DataSet for Systor17 {
    type Input = TextRows<Rows>;

    fn about(&self) -> About {
        About {
            interpretation: &[
                "response: seconds, from issue to completion; blank: no completion",
                "offset and size: bytes",
                "device: LUN",
            ],
            ..About::of("systor17", "SYSTOR '17 traces: Timestamp,Response,IOType,LUN,Offset,Size")
        }
    }

    fn clock(&self, told: Option<TimeUnit>) -> Clock {
        Clock::new(Epoch::Unix, TimeUnit::S, told)
    }

    fn looks_like(&self, head: &[u8]) -> Option<Confidence> {
        probe::likely(head, Rows, self.clock(None))
    }

    fn inputs(
        &self,
        sources: Vec<Source>,
        _options: &ImportOptions,
        _job: &mut Job<'_>,
    ) -> Result<Vec<Self::Input>> {
        Ok(TextRows::all(sources, || Rows))
    }
}

pub(super) struct Rows;

impl RowFormat for Rows {
    const SEPARATOR: Separator = Separator::Byte(b',');

    fn row<'l, C: Columns<'l>>(
        &self,
        columns: &mut C,
        clock: &mut Clock,
    ) -> Result<Parsed<'l>, Skip> {
        columns.expect(COLUMNS..=COLUMNS, "row does not have 6 fields")?;
        let time = columns.time(clock)?;
        let latency = columns.scaled_or_empty(SECOND_NS)?;
        let op = match columns.text()? {
            b"R" | b"r" => BlockOp::Read,
            b"W" | b"w" => BlockOp::Write,
            b"" => return Err(Skip::Lost("type is blank: the source did not see what was asked")),
            _ => return Err(Skip::Malformed("type is neither R nor W")),
        };
        let device = Device::Name(columns.number_name()?);
        let (offset, len) = (columns.whole()?, columns.whole()?);
        Ok(Parsed { device, latency, ..Parsed::request(time, op, offset, len) })
    }

    fn is_header(&self, fields: Fields<'_>) -> bool {
        fields.get(0).eq_ignore_ascii_case(b"timestamp")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::dataset::columns::testing::both_ways_agree;
    use crate::import::testing::{import_bytes, import_with, losses, plain_sample};
    use crate::trace::Event;

    const ROWS: &str = "Timestamp,Response,IOType,LUN,Offset,Size\n\
        1455591804.000002000,0.000001000,R,0,4096,512\n\
        1455591804.000001000,,W,1,8192,1024\n\
        1455591804.000003000,,,1,8192,1024\n\
        1455591804.000004000,0.5,W,0,0.0,512.0\n";

    #[test]
    fn rows_are_put_in_order_and_a_blank_is_no_guess() {
        let (report, out) = import_bytes(ROWS.as_bytes()).unwrap();
        assert_eq!(report.format, "systor17");
        assert_eq!(
            out.issues_brief(),
            [
                (0, BlockOp::Write, 8192, 1024),
                (1000, BlockOp::Read, 4096, 512),
                (3000, BlockOp::Write, 0, 512),
            ]
        );
        assert_eq!(out.completes(), [(0, 2000, 0), (2, 500_003_000, 0)]);
        let blank = "type is blank: the source did not see what was asked";
        assert_eq!(losses(&report), [(blank, 1, "line 4")]);
        let origin = out.header.as_ref().unwrap().origin_unix_ns;
        assert_eq!(origin, Some(1_455_591_804_000_001_000));
        let note = "1 row was out of order of time in the input and put in order";
        assert_eq!(report.summary.notes, [note]);
    }

    #[test]
    fn a_header_may_be_missing_or_come_again() {
        let rows = ROWS.split_once('\n').unwrap().1;
        let (report, out) = import_bytes(format!("{rows}{ROWS}").as_bytes()).unwrap();
        assert_eq!(out.issues().len(), 6);
        assert_eq!(losses(&report).len(), 1);
    }

    #[test]
    fn milliseconds_where_the_format_has_seconds_are_noticed() {
        let text = "1455591804000,0.001,R,0,4096,512\n";
        let (report, out) = import_bytes(text.as_bytes()).unwrap();
        let origin = out.header.as_ref().unwrap().origin_unix_ns;
        assert_eq!(origin, Some(1_455_591_804_000_000_000));
        assert!(report.summary.notes[0].contains("but in milliseconds"), "{:?}", report.summary);
        assert!(report.interpretation.iter().any(|line| line.starts_with("times: milliseconds")));
    }

    #[test]
    fn a_response_beyond_the_end_of_time_comes_behind_its_issue() {
        let text = b"1.0,0.5,R,0,0,512\n18446744073.709551615,0.5,R,0,512,512\n\
            2.0,18446744073.709551615,R,0,1024,512\n";
        let options = ImportOptions { from: Some("systor17".into()), ..ImportOptions::default() };
        let (_, out) = import_with(text, &options).unwrap();
        let kinds: Vec<_> = out
            .events
            .iter()
            .map(|event| match event {
                Event::Issue(issue) => (issue.tag, false),
                Event::Complete(complete) => (complete.tag, true),
                _ => unreachable!("rows are requests"),
            })
            .collect();
        assert_eq!(kinds[..3], [(0, false), (0, true), (2, false)]);
        let at = |tag, done| kinds.iter().position(|kind| *kind == (tag, done)).unwrap();
        assert!(at(1, false) < at(1, true) && at(2, true) > 2 && kinds.len() == 6, "{kinds:?}");
    }

    #[test]
    fn the_real_samples() {
        for (name, reads) in [("systor17-additional-sample", 700), ("systor17-traces-sample", 826)]
        {
            let name = format!("traces/systor17/{name}.csv.gz");
            let Some(data) = plain_sample(&name) else { return };
            let (report, out) = import_bytes(&data).unwrap();
            assert_eq!(out.issues().len(), 999, "all rows but the header");
            assert_eq!(report.ops.issues_of(BlockOp::Read), reads);
            assert_eq!(out.completes().len(), 999);
            assert!(report.summary.losses.is_empty());
            assert!(out.events.is_sorted_by_key(|event| event.time()));
        }
    }

    #[test]
    fn plain_lines_are_what_the_long_way_makes_of_them() {
        both_ways_agree(
            Rows,
            Systor17.clock(None),
            "1455592800.026587,0.000141000,W,4,98765432,4096",
        );
    }
}
