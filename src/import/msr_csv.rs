//! The MSR Cambridge block traces (SNIA IOTTA set 388): comma-separated, no header line.
//!
//! ```text
//! Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime
//! 128166372003061629,hm,1,Read,383496192,32768,413
//! ```
//!
//! Timestamp is the issue time and ResponseTime the latency, both in Windows FILETIME ticks of
//! 100 ns; the former counts from 1601-01-01 UTC. Offset and Size are bytes.

use super::ImportOptions;
use super::dataset::clock::{Clock, TimeUnit};
use super::dataset::columns::{Columns, RowFormat};
use super::dataset::fields::{Fields, Separator};
use super::dataset::text::{Device, Parsed, Skip, TextRows};
use super::dataset::{About, DataSet, probe};
use super::job::Job;
use super::registry::Confidence;
use super::source::Source;
use crate::base::{BlockOp, Result};

const COLUMNS: usize = 7;
/// Nanoseconds of a FILETIME tick ([MS-DTYP] §2.3.3).
const TICK_NS: u64 = 100;
/// How a header that copies have begins.
const HEADER: &[u8] = b"timestamp,hostname,disknumber,";
/// 1970-01-01 in ticks since 1601: the traces are of 2007, copies may have shifted dates, and of a
/// trace without dates our own export counts from here.
const TICKS_MIN: u64 = 116_444_736_000_000_000;

/// The importer.
pub struct MsrCsv;

impl DataSet for MsrCsv {
    type Input = TextRows<Rows>;

    fn about(&self) -> About {
        About {
            interpretation: &[
                "response time: ticks of 100 ns, from issue to completion",
                "offset and size: bytes",
                "device: hostname_disknumber",
            ],
            ..About::of(
                "msr-csv",
                "MSR Cambridge traces: Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime",
            )
        }
    }

    fn clock(&self, told: Option<TimeUnit>) -> Clock {
        Clock::filetime(told)
    }

    fn looks_like(&self, head: &[u8]) -> Option<Confidence> {
        // With the header times may count from a start of somebody's own.
        let start = head.get(..HEADER.len()).unwrap_or_default();
        let header = start.eq_ignore_ascii_case(HEADER);
        let since = if header { 0 } else { TICKS_MIN };
        let looked =
            probe::look(head, Rows, self.clock(None), |_, row| row.time / TICK_NS >= since);
        looked.fits().then_some(Confidence::Likely)
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
        columns.expect(COLUMNS..=COLUMNS, "row does not have 7 fields")?;
        let time = columns.time(clock)?;
        let (host, disk) = (columns.text()?, columns.number_name()?);
        let op = match columns.text()? {
            b"Read" => BlockOp::Read,
            b"Write" => BlockOp::Write,
            op if op.eq_ignore_ascii_case(b"read") => BlockOp::Read,
            op if op.eq_ignore_ascii_case(b"write") => BlockOp::Write,
            _ => return Err(Skip::Malformed("type is neither Read nor Write")),
        };
        let (offset, len) = (columns.whole()?, columns.whole()?);
        let latency = columns.scaled_or_empty(TICK_NS)?;
        let device = Device::Pair(host, b'_', disk);
        Ok(Parsed { device, latency, ..Parsed::request(time, op, offset, len) })
    }

    fn is_header(&self, fields: Fields<'_>) -> bool {
        fields.get(0).eq_ignore_ascii_case(b"timestamp")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ErrorKind;
    use crate::import::dataset::columns::testing::both_ways_agree;
    use crate::import::testing::{import_bytes, import_many, import_with, losses, sample};
    use crate::trace::Event;

    const T: u64 = 128_166_372_003_061_629;

    #[test]
    fn a_row_is_an_issue_and_a_completion() {
        let text =
            format!("{T},hm,1,Read,383496192,32768,413\r\n{},hm,0,write,0,512,0\r\n", T + 10);
        let (report, out) = import_bytes(text.as_bytes()).unwrap();
        assert_eq!(report.format, "msr-csv");
        assert_eq!(
            out.issues_brief(),
            [(0, BlockOp::Read, 383_496_192, 32768), (1000, BlockOp::Write, 0, 512)]
        );
        assert_eq!(out.completes(), [(1, 1000, 0), (0, 41_300, 0)]);
        assert_eq!(out.streams.iter().map(|s| &s.device).collect::<Vec<_>>(), ["hm_1", "hm_0"]);
        // 2007-02-22 17:00:00.3061629 UTC.
        let origin = out.header.unwrap().origin_unix_ns;
        assert_eq!(origin, Some(1_172_163_600_306_162_900));
    }

    #[test]
    fn events_of_one_time_come_in_an_order_that_can_be_replayed() {
        // The first ends when the second, which takes no time, begins.
        let text = format!("{T},h,0,Read,0,512,5\n{},h,0,Read,512,512,0\n", T + 5);
        let (_, out) = import_bytes(text.as_bytes()).unwrap();
        let order: Vec<_> = out
            .events
            .iter()
            .map(|event| match event {
                Event::Issue(issue) => ("issue", issue.tag),
                Event::Complete(complete) => ("complete", complete.tag),
                _ => ("other", 0),
            })
            .collect();
        assert_eq!(order, [("issue", 0), ("complete", 0), ("issue", 1), ("complete", 1)]);
    }

    #[test]
    fn unsorted_rows_are_sorted_and_the_origin_is_the_earliest() {
        let text = format!("{},h,0,Read,0,512,1\n{T},h,0,Write,0,512,1\n", T + 100);
        let (_, out) = import_bytes(text.as_bytes()).unwrap();
        assert_eq!(
            out.issues_brief(),
            [(0, BlockOp::Write, 0, 512), (10_000, BlockOp::Read, 0, 512)]
        );
    }

    #[test]
    fn a_header_line_is_skipped_and_bad_rows_are_counted_with_their_lines() {
        let text = format!(
            "Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime\n{T},h,0,Read,0,512,1\n\
             {T},h,0,Erase,0,512,1\n{T},h,0,Read,0,512\n{T},h,0,Read,-5,512,1\n\"\n\
             18446744073709551615,h,0,Read,0,512,1\n{T},h,0,Read,0,0,1\n{T},h,0,Write,0,512,7"
        );
        let (report, out) = import_bytes(text.as_bytes()).unwrap();
        assert_eq!(out.issues().len(), 2);
        let losses: Vec<_> = report
            .summary
            .losses
            .iter()
            .map(|loss| (loss.reason.as_str(), loss.count, loss.first.as_str()))
            .collect();
        assert_eq!(
            losses,
            [
                ("type is neither Read nor Write", 1, "line 3"),
                ("row does not have 7 fields", 2, "line 4"),
                ("field is not a number", 1, "line 5"),
                ("time too great for its unit, see --time-unit", 1, "line 7"),
                ("request of length 0", 1, "line 8"),
            ]
        );
    }

    #[test]
    fn with_a_header_times_may_count_from_anything() {
        let rows = "10,h,0,Read,0,512,1\n30,h,0,Write,0,512,1\n";
        let header = "\u{feff}Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime\n";
        let (report, out) = import_bytes(format!("{header}{rows}").as_bytes()).unwrap();
        assert_eq!((report.format.as_str(), out.issues_brief()[1].0), ("msr-csv", 2000));
        assert!(report.summary.losses.is_empty());
        let times = "times: ticks of 100 ns since a start that is not recorded";
        assert!(report.interpretation.iter().any(|line| line == times));
        assert!(import_bytes(rows.as_bytes()).is_err());
    }

    #[test]
    fn times_of_1970_are_our_own_export_of_a_trace_without_dates() {
        let rows = "116444736000000000,h,0,Read,0,512,1\n116444736000000030,h,0,Write,0,512,1\n";
        let (report, out) = import_bytes(rows.as_bytes()).unwrap();
        assert_eq!((report.format.as_str(), out.issues_brief()[1].0), ("msr-csv", 3000));
    }

    #[test]
    fn a_time_that_its_unit_makes_too_great_says_so() {
        let options = ImportOptions {
            from: Some("msr-csv".into()),
            time_unit: Some(TimeUnit::S),
            ..ImportOptions::default()
        };
        let text = format!("{T},h,0,Read,0,512,1\n");
        let error = import_with(text.as_bytes(), &options).unwrap_err().to_string();
        assert!(error.contains("time too great for its unit, see --time-unit"), "{error}");
    }

    #[test]
    fn a_loss_of_one_of_several_inputs_says_of_which() {
        let good = format!("{T},h,0,Read,0,512,1\n");
        let bad = format!("{good}{T},h,0,Erase,0,512,1\n");
        let inputs = [("a.csv", good.as_bytes()), ("b.csv", bad.as_bytes())];
        let (report, _) = import_many(&inputs, &ImportOptions::default()).unwrap();
        assert_eq!(losses(&report), [("type is neither Read nor Write", 1, "b.csv line 2")]);
    }

    #[test]
    fn only_bad_rows_are_an_input_error() {
        let options = ImportOptions { from: Some("msr-csv".into()), ..ImportOptions::default() };
        let error = import_with(b"a,b\nc\n", &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input);
        let long = vec![b'1'; 200_000];
        let error = import_with(&long, &options).unwrap_err();
        let said = error.to_string();
        assert!(said.contains("1 record lost, first: row does not have 7 fields"), "{said}");
    }

    #[test]
    fn one_device_can_be_picked() {
        let text = format!("{T},h,0,Read,0,512,1\n{T},h,1,Read,0,512,1\n");
        let options = ImportOptions { device: Some("h_1".into()), ..ImportOptions::default() };
        let (report, out) = import_with(text.as_bytes(), &options).unwrap();
        assert_eq!((out.streams.len(), out.issues().len()), (1, 1));
        assert_eq!(report.summary.losses[0].reason, "another device than the one asked for");
    }

    #[test]
    fn the_real_sample() {
        let Some(data) = sample("traces/msr-cambridge/msr-cambridge1-sample.csv") else { return };
        let (report, out) = import_bytes(&data).unwrap();
        assert_eq!(out.issues().len(), 1000);
        assert_eq!(out.completes().len(), 1000);
        assert!(report.summary.losses.is_empty() && report.summary.notes.is_empty());
        // 2007-02-22 17:22:09 UTC.
        assert_eq!(out.header.unwrap().origin_unix_ns.unwrap() / 1_000_000_000, 1_172_164_929);
    }

    #[test]
    fn plain_lines_are_what_the_long_way_makes_of_them() {
        both_ways_agree(
            Rows,
            MsrCsv.clock(None),
            "128166372003061629,hm,1,Read,383496192,32768,413",
        );
    }
}
