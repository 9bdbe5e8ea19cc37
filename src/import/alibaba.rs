//! The Alibaba block traces of 2020: no header, a row a request, all volumes in one file.
//!
//! ```text
//! device_id,opcode,offset,length,timestamp
//! 0,R,126703661056,4096,1577808000000046
//! ```
//!
//! The timestamp is Unix time in microseconds, offset and length are bytes, the opcode is R or W.
//! (The volumes' sizes stand in a file of their own, `device_size.csv`, which is not read.)
//!
//! Source: <https://github.com/alibaba/block-traces>.

use super::ImportOptions;
use super::dataset::clock::{Clock, Epoch, TimeUnit};
use super::dataset::columns::{Columns, RowFormat};
use super::dataset::fields::{Fields, Separator};
use super::dataset::text::{Device, Parsed, Skip, TextRows};
use super::dataset::{About, DataSet, lacks, probe};
use super::job::Job;
use super::registry::Confidence;
use super::source::Source;
use crate::base::{BlockOp, Result};
use crate::trace::NotRecorded;

const COLUMNS: usize = 5;

/// The importer.
pub struct Alibaba;

impl DataSet for Alibaba {
    type Input = TextRows<Rows>;

    fn about(&self) -> About {
        About {
            lacks: lacks() | NotRecorded::COMPLETIONS,
            interpretation: &["offset and length: bytes", "device: device_id"],
            ..About::of("alibaba", "Alibaba block traces: device_id,opcode,offset,length,timestamp")
        }
    }

    fn clock(&self, told: Option<TimeUnit>) -> Clock {
        Clock::new(Epoch::Unix, TimeUnit::Us, told)
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
        columns.expect(COLUMNS..=COLUMNS, "row does not have 5 fields")?;
        let device = columns.number_name()?;
        let op = match columns.text()? {
            b"R" | b"r" => BlockOp::Read,
            b"W" | b"w" => BlockOp::Write,
            _ => return Err(Skip::Malformed("opcode is neither R nor W")),
        };
        let (offset, len) = (columns.whole()?, columns.whole()?);
        let time = columns.time(clock)?;
        Ok(Parsed { device: Device::Name(device), ..Parsed::request(time, op, offset, len) })
    }

    fn is_header(&self, fields: Fields<'_>) -> bool {
        fields.get(0).eq_ignore_ascii_case(b"device_id")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::dataset::columns::testing::both_ways_agree;
    use crate::import::testing::{import_bytes, import_with, losses, sample};

    const ROWS: &str = "device_id,opcode,offset,length,timestamp\n\
        7,R,4096,512,1577808000000046\n419,\"W\",0,4096,1577808000000050\n\
        7,W,8192,512,1577808000000049\n";

    #[test]
    fn each_volume_is_a_stream() {
        let (report, out) = import_bytes(ROWS.as_bytes()).unwrap();
        assert_eq!(report.format, "alibaba");
        assert_eq!(
            out.issues_brief(),
            [
                (0, BlockOp::Read, 4096, 512),
                (3000, BlockOp::Write, 8192, 512),
                (4000, BlockOp::Write, 0, 4096),
            ]
        );
        assert_eq!(out.streams.iter().map(|s| &s.device).collect::<Vec<_>>(), ["7", "419"]);
        assert!(losses(&report).is_empty());
    }

    #[test]
    fn nanoseconds_where_the_format_has_microseconds_are_noticed_or_told() {
        let text = "7,R,4096,512,1577808000000046000\n7,R,0,512,1577808000000047000\n";
        let (report, out) = import_bytes(text.as_bytes()).unwrap();
        assert_eq!(out.issues_brief()[1].0, 1000);
        assert!(report.summary.notes[0].contains("no dates in microseconds"));
        let options = ImportOptions { time_unit: Some(TimeUnit::Ns), ..ImportOptions::default() };
        let (report, told) = import_with(text.as_bytes(), &options).unwrap();
        assert!(report.summary.notes.is_empty());
        assert_eq!(told.events, out.events);
    }

    #[test]
    fn times_that_are_no_dates_at_all_count_from_a_start() {
        let (report, out) = import_bytes(b"7,R,4096,512,5\n7,R,0,512,7\n").unwrap();
        assert_eq!(out.issues_brief()[1].0, 2000);
        assert_eq!(out.header.as_ref().unwrap().origin_unix_ns, None);
        assert!(report.summary.notes[0].contains("no date in microseconds"));
    }

    #[test]
    fn the_documented_rows() {
        let Some(data) = sample("traces/alibaba-block-documented/rows.csv") else { return };
        let (report, out) = import_bytes(&data).unwrap();
        assert_eq!(report.format, "alibaba");
        assert_eq!((out.issues().len(), out.streams.len()), (7, 6));
        assert!(report.summary.losses.is_empty() && report.summary.notes.is_empty());
    }

    #[test]
    fn plain_lines_are_what_the_long_way_makes_of_them() {
        both_ways_agree(Rows, Alibaba.clock(None), "419,W,8792731648,16384,1577808000000046");
    }
}
