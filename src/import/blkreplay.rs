//! blkreplay's load files: a preamble in free text, a header line, then a row a request.
//!
//! ```text
//! start ; sector; length ; op ;  replay_delay=0 ; replay_duration=0
//!       2.110378217 ;      6064504 ;    8 ; W ; 0.0 ; 0.0
//! ```
//!
//! `start` is seconds since the start, sector and length count 512 bytes. Of op the first letter
//! counts, in either case; blktrace's others may follow (`RA`). The last two are zero in a load; in
//! what a replay writes, under a header that begins `orig_start` and with lines of `INFO:` between,
//! the request went out `replay_delay` seconds after `start` and took `replay_duration`, which then
//! is its completion.
//!
//! Source: blkreplay by T. Schöbel-Theuer, <https://github.com/schoebel/blkreplay>.

use super::ImportOptions;
use super::dataset::clock::{Clock, Epoch, TimeUnit};
use super::dataset::fields::{Fields, Separator, scaled, whole};
use super::dataset::text::{LineFormat, NOT_A_NUMBER, Parsed, Skip, TextRows};
use super::dataset::{About, DataSet, probe};
use super::job::Job;
use super::registry::Confidence;
use super::source::Source;
use crate::base::{BlockOp, Result, SECTOR_SIZE};

/// Columns without those that only a replay fills in.
const COLUMNS_MIN: usize = 4;
/// What the times count.
const SECOND_NS: u64 = 1_000_000_000;

/// The importer.
pub struct Blkreplay;

impl DataSet for Blkreplay {
    type Input = TextRows<Rows>;

    fn about(&self) -> About {
        About {
            options: &[],
            interpretation: &[
                "sector and length: units of 512 bytes",
                "issue: start + replay_delay; completion: replay_duration later, if not 0",
            ],
            ..About::of(
                "blkreplay",
                "blkreplay loads: start ; sector ; length ; op ; replay_delay ; replay_duration",
            )
        }
    }

    fn clock(&self, told: Option<TimeUnit>) -> Clock {
        Clock::new(Epoch::Start, TimeUnit::S, told)
    }

    fn looks_like(&self, head: &[u8]) -> Option<Confidence> {
        let header = probe::whole_lines(head)
            .any(|line| line.starts_with(b"start ;") || line.starts_with(b"orig_start ;"));
        let likely = probe::likely(head, Rows::default(), self.clock(None));
        if header { Some(Confidence::Certain) } else { likely }
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
    /// A row has come: what cannot be read from now on is no preamble.
    begun: bool,
}

impl LineFormat for Rows {
    const SEPARATOR: Separator = Separator::Byte(b';');

    fn parse<'l>(&mut self, fields: Fields<'l>, clock: &mut Clock) -> Result<Parsed<'l>, Skip> {
        if fields.len() < COLUMNS_MIN {
            let quiet = !self.begun || fields.get(0).starts_with(b"INFO:");
            return Err(if quiet { Skip::Quiet } else { Skip::Malformed("less than 4 fields") });
        }
        let seconds = |at| match fields.get(at) {
            b"" => Some(0),
            text => scaled(text, SECOND_NS),
        };
        let bytes = |at| whole(fields.get(at))?.checked_mul(SECTOR_SIZE);
        let start = clock.read(fields.get(0)).ok_or(NOT_A_NUMBER)?;
        let offset = bytes(1).ok_or(NOT_A_NUMBER)?;
        let len = bytes(2).ok_or(NOT_A_NUMBER)?;
        let op = match fields.get(3) {
            [b'R' | b'r', ..] => BlockOp::Read,
            [b'W' | b'w', ..] => BlockOp::Write,
            _ => return Err(Skip::Malformed("operation is neither R nor W")),
        };
        let delay = seconds(4).ok_or(NOT_A_NUMBER)?;
        let latency = seconds(5).ok_or(NOT_A_NUMBER)?;
        let time = start.checked_add(delay).ok_or(NOT_A_NUMBER)?;
        let latency = Some(latency).filter(|ns| *ns > 0);
        self.begun = true;
        Ok(Parsed { latency, ..Parsed::request(time, op, offset, len) })
    }

    fn is_header(&self, fields: Fields<'_>) -> bool {
        matches!(fields.get(0), b"start" | b"orig_start")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::testing::{import_bytes, losses, plain_sample};
    use crate::trace::NotRecorded;

    const LOAD: &str = "Some words; and a licence\n\n####\n\
        start ; sector; length ; op ;  replay_delay=0 ; replay_duration=0\n\
        \x20    0.000000000 ;      100 ;    8 ; W ; 0.0 ; 0.0\n\
        \x20    2.110378217 ;      200 ;    1 ; R ; 0.0 ; 0.0\n";

    #[test]
    fn a_load_has_no_completions() {
        let (report, out) = import_bytes(LOAD.as_bytes()).unwrap();
        assert_eq!(report.format, "blkreplay");
        assert_eq!(
            out.issues_brief(),
            [(0, BlockOp::Write, 51_200, 4096), (2_110_378_217, BlockOp::Read, 102_400, 512)]
        );
        assert!(out.completes().is_empty());
        assert!(report.summary.not_recorded.contains(NotRecorded::COMPLETIONS));
        assert!(report.summary.losses.is_empty());
    }

    #[test]
    fn a_replay_has_them() {
        let text = format!("{LOAD} 3.0 ; 8 ; 8 ; R ; 0.5 ; 0.25\nwhat\n 4 ; 8 ; 8 ; X ; 0 ; 0\n");
        let (report, out) = import_bytes(text.as_bytes()).unwrap();
        assert_eq!(out.issues_brief()[2].0, 3_500_000_000);
        assert_eq!(out.completes(), [(2, 3_750_000_000, 0)]);
        assert!(!report.summary.not_recorded.contains(NotRecorded::COMPLETIONS));
        assert_eq!(
            losses(&report),
            [("less than 4 fields", 1, "line 8"), ("operation is neither R nor W", 1, "line 9")]
        );
    }

    #[test]
    fn a_header_may_stand_amid_the_preamble_and_letters_may_follow_the_operation() {
        let text = LOAD.replace(" ; R ;", " ;RA ;").replacen("####", "start ; sector;\n####", 1);
        let text =
            text.replacen("start ; sector; length ; op ;", "start ; a; b ; op ; c\nmore\n", 1);
        let (report, out) = import_bytes(text.as_bytes()).unwrap();
        assert_eq!(out.issues_brief()[1].1, BlockOp::Read);
        assert!(report.summary.losses.is_empty(), "{:?}", report.summary.losses);
    }

    #[test]
    fn what_a_replay_prints_has_a_header_of_its_own() {
        let text = "INFO: max_threads = 1\n\
            orig_start ; sector; length ; op ;  replay_delay; replay_duration\n\
            \x20  1.000000000 ;  8 ;   8 ; w ;   0.000000500 ;   0.000100000\n\
            INFO: done\n\
            \x20  2.000000000 ;  8 ;   8 ; R ;   0.000000500 ;   0.000100000\n";
        let (report, out) = import_bytes(text.as_bytes()).unwrap();
        assert_eq!(report.format, "blkreplay");
        assert_eq!(out.issues_brief()[1], (1_000_000_000, BlockOp::Read, 4096, 4096));
        assert_eq!(out.completes()[0], (0, 100_000, 0));
        assert!(report.summary.losses.is_empty(), "{:?}", report.summary.losses);
    }

    #[test]
    fn the_real_sample() {
        let name = "traces/blkreplay-load/windows-shared-server.load.gz";
        let Some(data) = plain_sample(name) else { return };
        let rows = String::from_utf8_lossy(&data).lines().filter(|l| l.contains(" ; W ;")).count();
        let (report, out) = import_bytes(&data).unwrap();
        assert_eq!(report.format, "blkreplay");
        assert_eq!(report.ops.issues_of(BlockOp::Write), rows as u64);
        assert_eq!(out.issues().len(), 1403 - 32, "lines but preamble and header");
        assert!(report.summary.losses.is_empty());
    }
}
