//! The FIU traces (homes, mail, web; SNIA IOTTA sets 390 and 391): blank-separated, no header.
//!
//! ```text
//! TIME PID PROCESS LBA SIZE W|R MAJOR MINOR [MD5]
//! 89968195792462 20782 gzip 283193184 8 R 6 0 56f11b711d91a065a2b6458eca924523
//! ```
//!
//! TIME is nanoseconds since a start that is not recorded; LBA and SIZE count blocks of 512 bytes.
//! MD5 is of the block's content (of 4096 bytes, in the homes traces of 512); a hash is no data,
//! so it is not kept. PROCESS may hold blanks: a line is read from its end.
//!
//! Source: the README of the sets; Koller and Rangaswami, I/O Deduplication, FAST 2010.

use super::ImportOptions;
use super::dataset::clock::{Clock, Epoch, TimeUnit};
use super::dataset::columns::Columns;
use super::dataset::fields::{Fields, Separator, whole};
use super::dataset::quick::Quick;
use super::dataset::text::{Device, LineFormat, NOT_A_NUMBER, Parsed, Skip, TextRows};
use super::dataset::{About, DataSet, lacks, probe};
use super::job::Job;
use super::registry::Confidence;
use super::source::Source;
use crate::base::{BlockOp, Result, SECTOR_SIZE};
use crate::trace::NotRecorded;

/// Fields of a row without its hash, when the process is one word.
const COLUMNS_MIN: usize = 8;

/// The importer.
pub struct Fiu;

impl DataSet for Fiu {
    type Input = TextRows<Rows>;

    fn about(&self) -> About {
        About {
            lacks: lacks() | NotRecorded::COMPLETIONS,
            interpretation: &[
                "LBA and size: blocks of 512 bytes",
                "device: major,minor",
                "MD5 of contents: not kept",
            ],
            ..About::of("fiu", "FIU traces: TIME PID PROCESS LBA SIZE W|R MAJOR MINOR MD5")
        }
    }

    fn clock(&self, told: Option<TimeUnit>) -> Clock {
        Clock::new(Epoch::Start, TimeUnit::Ns, told)
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

impl LineFormat for Rows {
    const SEPARATOR: Separator = Separator::Blanks;

    fn parse<'l>(&mut self, fields: Fields<'l>, clock: &mut Clock) -> Result<Parsed<'l>, Skip> {
        // A hash is whatever follows the device: copies have it cut short.
        let hashed = op(fields.last_but(2)).is_none() && op(fields.last_but(3)).is_some();
        let skip = usize::from(hashed);
        if fields.len() < COLUMNS_MIN + skip {
            return Err(Skip::Malformed("row has less than 8 fields"));
        }
        let (minor, major) = (fields.last_but(skip), fields.last_but(skip + 1));
        let op = op(fields.last_but(skip + 2));
        let op = op.ok_or(Skip::Malformed("operation is neither R nor W"))?;
        for number in [fields.get(1), major, minor] {
            whole(number).ok_or(NOT_A_NUMBER)?;
        }
        let bytes = |field| whole(field).and_then(|blocks| blocks.checked_mul(SECTOR_SIZE));
        let len = bytes(fields.last_but(skip + 3)).ok_or(NOT_A_NUMBER)?;
        let offset = bytes(fields.last_but(skip + 4)).ok_or(NOT_A_NUMBER)?;
        let time = clock.read(fields.get(0)).ok_or(NOT_A_NUMBER)?;
        let device = Device::Pair(major, b',', minor);
        Ok(Parsed { device, ..Parsed::request(time, op, offset, len) })
    }

    #[inline]
    fn quick<'l>(&self, line: &mut Quick<'l>, clock: &mut Clock) -> Option<Parsed<'l>> {
        self.plain(line, clock).ok()
    }
}

impl Rows {
    /// A line whose process has a name of one word.
    #[inline]
    fn plain<'l>(&self, line: &mut Quick<'l>, clock: &mut Clock) -> Result<Parsed<'l>, Skip> {
        line.expect(COLUMNS_MIN..=COLUMNS_MIN + 1, "")?;
        let time = line.time(clock)?;
        line.whole()?;
        line.text()?;
        let (offset, len) = (line.units(SECTOR_SIZE)?, line.units(SECTOR_SIZE)?);
        let op = op(line.text()?).ok_or(NOT_A_NUMBER)?;
        let (major, minor) = (line.number_name()?, line.number_name()?);
        if !line.has_ended() {
            line.text()?;
        }
        let device = Device::Pair(major, b',', minor);
        Ok(Parsed { device, ..Parsed::request(time, op, offset, len) })
    }
}

fn op(text: &[u8]) -> Option<BlockOp> {
    match text {
        b"R" | b"r" => Some(BlockOp::Read),
        b"W" | b"w" => Some(BlockOp::Write),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::dataset::columns::testing::both_ways_agree;
    use crate::import::testing::{import_bytes, losses, sample};

    #[test]
    fn a_process_may_hold_blanks_and_a_hash_may_be_missing() {
        let text = "100 1 my own proc 8 16 W 6 0 00112233445566778899aabbccddeeff\r\n\
                    250 1 x 0 8 R 8 16\n260 1 x 8 8 R 8 16 e6b0\n\
                    300 1 x 0 8 R 8\n301 1 x 0 8 E 8 1\n302 y x 0 8 R 8 1\n";
        let (report, out) = import_bytes(text.as_bytes()).unwrap();
        assert_eq!(report.format, "fiu");
        assert_eq!(
            out.issues_brief(),
            [
                (0, BlockOp::Write, 4096, 8192),
                (150, BlockOp::Read, 0, 4096),
                (160, BlockOp::Read, 4096, 4096)
            ]
        );
        assert_eq!(out.streams.iter().map(|s| &s.device).collect::<Vec<_>>(), ["6,0", "8,16"]);
        assert_eq!(
            losses(&report),
            [
                ("row has less than 8 fields", 1, "line 4"),
                ("operation is neither R nor W", 1, "line 5"),
                ("field is not a number", 1, "line 6"),
            ]
        );
    }

    #[test]
    fn a_rate_that_no_device_has_is_doubted() {
        // Microseconds taken for nanoseconds.
        let rows = (0..200u64).map(|n| format!("{} 1 p 0 8 R 8 0\n", n * 5));
        let (report, _) = import_bytes(rows.collect::<String>().as_bytes()).unwrap();
        let note = &report.summary.notes[0];
        assert!(note.contains("really in nanoseconds? --time-unit"), "{note}");
    }

    #[test]
    fn the_documented_row() {
        let Some(data) = sample("traces/fiu-documented/rows.txt") else { return };
        let (report, out) = import_bytes(&data).unwrap();
        assert_eq!(report.format, "fiu");
        assert_eq!(out.issues_brief(), [(0, BlockOp::Read, 283_193_184 * 512, 4096)]);
        assert!(report.summary.losses.is_empty());
    }

    #[test]
    fn plain_lines_are_what_the_long_way_makes_of_them() {
        both_ways_agree(
            Rows,
            Fiu.clock(None),
            "89966181 4892 syslogd 904265560 8 W 6 0 531e779099b0dcbd",
        );
    }
}
