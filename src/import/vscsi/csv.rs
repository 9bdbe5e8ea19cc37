//! The CSV rendering of CloudPhysics traces.

use super::operation;
use crate::base::{Result, SECTOR_SIZE};
use crate::import::ImportOptions;
use crate::import::dataset::clock::{Clock, Epoch, TimeUnit};
use crate::import::dataset::columns::{Columns, RowFormat};
use crate::import::dataset::fields::{Fields, Separator, Splitter};
use crate::import::dataset::text::{Parsed, Skip, TextRows};
use crate::import::dataset::{About, DataSet, lacks, probe};
use crate::import::job::Job;
use crate::import::lines::hex;
use crate::import::registry::Confidence;
use crate::import::source::Source;
use crate::trace::NotRecorded;

const HEADER: [&str; 5] = ["version", "time", "op", "size", "lbn"];
const COLUMNS: usize = HEADER.len();

/// The importer.
pub struct VscsiCsv;

impl DataSet for VscsiCsv {
    type Input = TextRows<Rows>;

    fn about(&self) -> About {
        About {
            lacks: (lacks() - NotRecorded::FLUSHES) | NotRecorded::COMPLETIONS,
            interpretation: &["lbn: units of 512 bytes; size: bytes; op: SCSI code in hexadecimal"],
            ..About::of(
                "vscsi-csv",
                "CloudPhysics traces as CSV: version,time,op,size,lbn (op in hexadecimal)",
            )
        }
    }

    fn clock(&self, told: Option<TimeUnit>) -> Clock {
        Clock::new(Epoch::Start, TimeUnit::S, told).or(TimeUnit::Us)
    }

    fn looks_like(&self, head: &[u8]) -> Option<Confidence> {
        let mut splitter = Splitter::new(Rows::SEPARATOR);
        let first = probe::whole_lines(head).find(|line| !line.trim_ascii().is_empty())?;
        let fields = splitter.split(first);
        let is = |(at, name): (usize, &str)| fields.get(at).eq_ignore_ascii_case(name.as_bytes());
        let header = fields.len() == HEADER.len() && HEADER.into_iter().enumerate().all(is);
        header.then_some(Confidence::Certain)
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

pub(in crate::import) struct Rows;

impl RowFormat for Rows {
    const SEPARATOR: Separator = Separator::Byte(b',');

    fn row<'l, C: Columns<'l>>(
        &self,
        columns: &mut C,
        clock: &mut Clock,
    ) -> Result<Parsed<'l>, Skip> {
        columns.expect(COLUMNS..=COLUMNS, "row does not have 5 fields")?;
        columns.whole()?;
        let time = columns.time(clock)?;
        let command = hex(columns.text()?).and_then(|code| u8::try_from(code).ok());
        let op = operation(command.ok_or(Skip::Malformed("op is no SCSI code"))?)?;
        let (len, offset) = (columns.whole()?, columns.units(SECTOR_SIZE)?);
        let (offset, len) = if op.has_range() { (offset, len) } else { (0, 0) };
        Ok(Parsed::request(time, op, offset, len))
    }

    fn is_header(&self, fields: Fields<'_>) -> bool {
        fields.get(0).eq_ignore_ascii_case(b"version")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::dataset::columns::testing::both_ways_agree;

    #[test]
    fn a_header_in_quotes_behind_blank_lines_is_one() {
        for text in ["version,time,op,size,lbn\n", "\n \n\"Version\",\"time\",op, size ,lbn\r\n"] {
            let found = VscsiCsv.looks_like(format!("{text}1,2,2a,512,8\n").as_bytes());
            assert_eq!(found, Some(Confidence::Certain), "{text}");
        }
        for text in ["", "\n\n", "version,time,op,size\n", "1,2,2a,512,8\n"] {
            assert_eq!(VscsiCsv.looks_like(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn plain_lines_are_what_the_long_way_makes_of_them() {
        both_ways_agree(Rows, VscsiCsv.clock(None), "1,5633.898611,2a,512,42932745");
    }
}
