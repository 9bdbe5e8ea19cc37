//! fio's iolog, versions 2 and 3 (fio HOWTO, "Trace file format"; what the program does wins).
//!
//! ```text
//! fio version 2 iolog              fio version 3 iolog
//! FILE add|open|close              USEC FILE add|open|close
//! FILE ACTION OFFSET LENGTH        USEC FILE ACTION OFFSET LENGTH
//! FILE wait TIME 0
//! ```
//!
//! - `write_iolog=` with append puts several runs in one file, each with a header of its own.
//! - v2's `wait` is documented as microseconds since the wait before, and executed as
//!   milliseconds since the start of the job: see [`WaitUnit`].
//! - A `sync` carries the offset of some request before it and length 0: neither means anything.
//! - File names may hold spaces (fio writes them so and cannot read them back): a line is parsed
//!   from its right end.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::job::{Job, Request, line_place};
use super::lines::{Lines, number};
use super::registry::{Confidence, Importer, Probe};
use super::sort::Sorter;
use super::source::Source;
use super::summary::counted;
use super::{ImportOptions, WaitUnit, note_condition};
use crate::base::error::Place;
use crate::base::limits::SORT_WINDOW_EVENTS;
use crate::base::{BlockOp, Error, Nanos, OpFlags, Result};
use crate::trace::{NotRecorded, PayloadRef, StreamId};

const HEADER_V2: &[u8] = b"fio version 2 iolog";
const HEADER_V3: &[u8] = b"fio version 3 iolog";

/// The importer.
pub struct FioIolog;

impl Importer for FioIolog {
    fn name(&self) -> &'static str {
        "fio-iolog"
    }

    fn description(&self) -> &'static str {
        "fio's write_iolog, versions 2 and 3"
    }

    fn options(&self) -> &'static [&'static str] {
        &["--iolog-wait"]
    }

    fn probe(&self, probe: &Probe<'_>) -> Option<Confidence> {
        let mut lines = probe.head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let line = lines.find(|line| !line.is_empty())?;
        let header = version(line).is_some() || other_version(line).is_some();
        header.then_some(Confidence::Certain)
    }

    fn import(
        &self,
        sources: Vec<Source>,
        options: &ImportOptions,
        job: &mut Job<'_>,
    ) -> Result<()> {
        job.lacks(lacks());
        for source in sources {
            Reader::new(options, source.path()).read(source, job)?;
        }
        Ok(())
    }
}

fn lacks() -> NotRecorded {
    use NotRecorded as N;
    N::WRITE_DATA
        | N::READ_DATA
        | N::COMPLETIONS
        | N::STATUS
        | N::WRITE_ZEROES
        | N::FUA
        | N::PREFLUSH
        | N::QUEUES
        | N::CPUS
        | N::DEVICE_SIZE
        | N::UNMAP
        | N::HINTS
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Version {
    V2,
    V3,
}

fn version(line: &[u8]) -> Option<Version> {
    match line {
        HEADER_V2 => Some(Version::V2),
        HEADER_V3 => Some(Version::V3),
        _ => None,
    }
}

/// The version that the header of another one names.
fn other_version(line: &[u8]) -> Option<&[u8]> {
    line.strip_prefix(b"fio version ")?.strip_suffix(b" iolog")
}

/// A line's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action<'l> {
    Request { file: &'l [u8], op: BlockOp, offset: u64, len: u64 },
    Wait(u64),
    File,
}

/// Splits off the last space-separated word.
fn split_last(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = text.trim_ascii_end();
    let at = text.iter().rposition(u8::is_ascii_whitespace)?;
    Some((text[..at].trim_ascii_end(), &text[at + 1..]))
}

/// What follows the time stamp of v3, or the whole line of v2.
fn parse_action(text: &[u8]) -> Result<Action<'_>, &'static str> {
    let (rest, last) = split_last(text).ok_or(MALFORMED)?;
    if matches!(last, b"add" | b"open" | b"close") {
        return Ok(Action::File);
    }
    let len = number(last).ok_or(MALFORMED)?;
    let (rest, offset) = split_last(rest).ok_or(MALFORMED)?;
    let offset = number(offset).ok_or(MALFORMED)?;
    let (file, word) = split_last(rest).ok_or(MALFORMED)?;
    let op = match word {
        b"wait" => return Ok(Action::Wait(offset)),
        b"read" => BlockOp::Read,
        b"write" => BlockOp::Write,
        b"trim" => BlockOp::Discard,
        b"sync" | b"datasync" | b"syncfs" => BlockOp::Flush,
        b"sync_file_range" => return Err("sync_file_range: no request of a device"),
        _ => return Err("unknown action"),
    };
    let range = op.has_range();
    Ok(Action::Request {
        file,
        op,
        offset: if range { offset } else { 0 },
        len: if range { len } else { 0 },
    })
}

const MALFORMED: &str = "malformed line";

/// A request waiting for its turn in time.
struct Timed {
    time: u64,
    stream: StreamId,
    op: BlockOp,
    offset: u64,
    len: u64,
}

struct Reader {
    path: PathBuf,
    wait_unit: WaitUnit,
    version: Option<Version>,
    runs: u64,
    /// Where the present run begins, and the latest time seen, in nanoseconds.
    run_base: u64,
    clock: u64,
    /// Waits between requests, and those that no request follows yet.
    waits: u64,
    waits_pending: u64,
    requested: bool,
    timed: bool,
    sorter: Sorter<Timed, fn(&Timed) -> u64>,
    origin: Option<u64>,
    versions: HashSet<Version>,
}

impl Reader {
    fn new(options: &ImportOptions, path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            wait_unit: options.iolog_wait.unwrap_or_default(),
            version: None,
            runs: 0,
            run_base: 0,
            clock: 0,
            waits: 0,
            waits_pending: 0,
            requested: false,
            timed: false,
            sorter: Sorter::new(SORT_WINDOW_EVENTS, |timed| timed.time),
            origin: None,
            versions: HashSet::new(),
        }
    }

    fn read(mut self, source: Source, job: &mut Job<'_>) -> Result<()> {
        job.interpret("offsets and lengths: bytes");
        job.interpret("sync, datasync and syncfs: flush; trim: discard");
        let mut lines = Lines::new(source);
        while let Some((line, text)) = lines.read_line()? {
            job.tick()?;
            self.line(line, text, job)?;
        }
        while let Some(timed) = self.sorter.pop() {
            self.emit(timed, job)?;
        }
        note_condition(lines.source(), job);
        self.finish(job);
        Ok(())
    }

    fn line(&mut self, line: u64, text: &[u8], job: &mut Job<'_>) -> Result<()> {
        let text = text.trim_ascii();
        if text.is_empty() {
            return Ok(());
        }
        if let Some(version) = version(text) {
            self.begin_run(version, job);
            return Ok(());
        }
        if let Some(other) = other_version(text) {
            let what = format!("fio iolog version {} is not known", other.escape_ascii());
            let error = Error::input(what).path(&self.path).at(Place::Line(line));
            return Err(error.hint("versions 2 and 3 are"));
        }
        let parsed = match self.version {
            Some(Version::V3) => self.parse_v3(text),
            Some(Version::V2) => self.parse_v2(text),
            None => Err("line before the 'fio version N iolog' header"),
        };
        let (time, action) = match parsed {
            Ok(parsed) => parsed,
            // fio has no comments; people write them.
            Err(_) if text.starts_with(b"#") => return Ok(()),
            Err(reason) => {
                job.summary.malformed(reason, || line_place(line));
                return Ok(());
            }
        };
        if let Action::Request { file, op, offset, len } = action
            && job.accepts(op, offset, len, || line_place(line))
            && let Some(stream) = job.stream(file, None, || line_place(line))?
            && let Some(timed) = self.sorter.push(Timed { time, stream, op, offset, len })
        {
            self.emit(timed, job)?;
        }
        Ok(())
    }

    /// A header: another run, placed after what came before it.
    fn begin_run(&mut self, version: Version, job: &mut Job<'_>) {
        if self.versions.insert(version) {
            job.interpret(match (version, self.wait_unit) {
                (Version::V3, _) => "version 3 times: microseconds since the start of the log",
                (Version::V2, WaitUnit::Ms) => {
                    "version 2 wait: milliseconds since the start of the job, as fio does"
                }
                (Version::V2, WaitUnit::Us) => {
                    "version 2 wait: microseconds since the wait before, as fio's manual says"
                }
            });
        }
        self.version = Some(version);
        self.runs += 1;
        self.run_base = self.clock;
    }

    fn parse_v3<'l>(&mut self, text: &'l [u8]) -> Result<(u64, Action<'l>), &'static str> {
        let at = text.iter().position(u8::is_ascii_whitespace).ok_or(MALFORMED)?;
        let (stamp, rest) = text.split_at(at);
        let stamp = number(stamp).and_then(|us| us.checked_mul(1_000)).ok_or(MALFORMED)?;
        let action = parse_action(rest.trim_ascii())?;
        if matches!(action, Action::Wait(_)) {
            return Err("wait in a version 3 log (fio ignores it too)");
        }
        let time = self.run_base.checked_add(stamp).ok_or("time out of range")?;
        self.clock = self.clock.max(time);
        self.timed = true;
        Ok((time, action))
    }

    fn parse_v2<'l>(&mut self, text: &'l [u8]) -> Result<(u64, Action<'l>), &'static str> {
        let action = parse_action(text)?;
        if let Action::Wait(amount) = action {
            let until = match self.wait_unit {
                WaitUnit::Ms => {
                    amount.checked_mul(1_000_000).and_then(|ns| ns.checked_add(self.run_base))
                }
                WaitUnit::Us => amount.checked_mul(1_000).and_then(|ns| ns.checked_add(self.clock)),
            };
            // A wait for a time that has passed waits for nothing.
            self.clock = self.clock.max(until.ok_or("time out of range")?);
            // What nothing stands before, or nothing follows, sets no time.
            self.waits_pending += u64::from(self.requested);
        } else if matches!(action, Action::Request { .. }) {
            self.requested = true;
            self.waits += std::mem::take(&mut self.waits_pending);
            self.timed |= self.waits > 0;
        }
        Ok((self.clock, action))
    }

    fn emit(&mut self, timed: Timed, job: &mut Job<'_>) -> Result<()> {
        let origin = *self.origin.get_or_insert(timed.time);
        let request = Request {
            time: Nanos(timed.time.saturating_sub(origin)),
            tag: job.counts().requests(),
            stream: timed.stream,
            op: timed.op,
            flags: OpFlags::empty(),
            offset: timed.offset,
            len: timed.len,
            payload: PayloadRef::Absent,
            cpu: None,
        };
        job.issue(request)
    }

    fn finish(&self, job: &mut Job<'_>) {
        if !self.timed {
            job.not_recorded |= NotRecorded::TIMES;
        }
        if self.runs > 1 {
            let runs = self.runs;
            job.summary.note(format!("{runs} runs in one log, placed one after the other"));
        }
        if self.versions.len() > 1 {
            job.summary.note("the log mixes versions 2 and 3");
        }
        if self.waits > 0 {
            let waits = counted(self.waits, "wait sets", "waits set");
            job.summary.note(format!("{waits} the times; the rest follow at once"));
        }
        if self.sorter.disordered() > 0 {
            let count = counted(self.sorter.disordered(), "request", "requests");
            job.summary.note(format!("{count} put into order of time"));
        }
        if self.sorter.late() > 0 {
            let count = counted(self.sorter.late(), "request is", "requests are");
            job.summary.note(format!("{count} out of order of time"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ErrorKind;
    use crate::import::testing::{import_bytes, import_with, sample};

    const V2: &str = "fio version 2 iolog\n/dev/vdb add\n/dev/vdb open\n";

    fn issues(text: &str) -> Vec<(u64, BlockOp, u64, u64)> {
        import_bytes(text.as_bytes()).unwrap().1.issues_brief()
    }

    #[test]
    fn version_2_actions() {
        let text = format!(
            "{V2}/dev/vdb read 0 4096\n/dev/vdb write 8192 512\n/dev/vdb sync 77 0\n\
             /dev/vdb datasync 0 0\n/dev/vdb trim 65536 65536\n/dev/vdb close\n"
        );
        let (report, out) = import_bytes(text.as_bytes()).unwrap();
        assert_eq!(
            out.issues_brief(),
            [
                (0, BlockOp::Read, 0, 4096),
                (0, BlockOp::Write, 8192, 512),
                (0, BlockOp::Flush, 0, 0),
                (0, BlockOp::Flush, 0, 0),
                (0, BlockOp::Discard, 65536, 65536),
            ]
        );
        assert!(report.summary.not_recorded.contains(NotRecorded::TIMES));
        assert!(report.summary.losses.is_empty());
        assert_eq!(out.streams[0].device, "/dev/vdb");
    }

    #[test]
    fn version_2_wait_is_absolute_milliseconds_unless_told_otherwise() {
        let text = format!(
            "{V2}f read 0 512\nf wait 10 0\nf read 512 512\nf wait 5 0\nf read 0 512\n\
             f wait 30 0\nf read 0 512\n"
        );
        let times = |options: &ImportOptions| -> Vec<u64> {
            let (report, out) = import_with(text.as_bytes(), options).unwrap();
            assert!(!report.summary.not_recorded.contains(NotRecorded::TIMES));
            out.issues_brief().iter().map(|issue| issue.0).collect()
        };
        assert_eq!(times(&ImportOptions::default()), [0, 10_000_000, 10_000_000, 30_000_000]);
        let us = ImportOptions { iolog_wait: Some(WaitUnit::Us), ..ImportOptions::default() };
        assert_eq!(times(&us), [0, 10_000, 15_000, 45_000]);
    }

    #[test]
    fn version_3_times_are_microseconds_from_the_first_request() {
        let text = "fio version 3 iolog\n33 f add\n168 f open\n174 f read 0 4096\n\
                    200 f write 4096 4096\n252 f sync 13496320 0\n";
        assert_eq!(
            issues(text),
            [
                (0, BlockOp::Read, 0, 4096),
                (26_000, BlockOp::Write, 4096, 4096),
                (78_000, BlockOp::Flush, 0, 0),
            ]
        );
    }

    #[test]
    fn an_appended_run_follows_the_one_before() {
        let text = "fio version 3 iolog\n10 f read 0 512\n30 f read 0 512\n\
                    fio version 3 iolog\n5 f write 0 512\n";
        assert_eq!(
            issues(text),
            [
                (0, BlockOp::Read, 0, 512),
                (20_000, BlockOp::Read, 0, 512),
                (25_000, BlockOp::Write, 0, 512)
            ]
        );
        let (report, _) = import_bytes(text.as_bytes()).unwrap();
        assert_eq!(report.summary.notes, ["2 runs in one log, placed one after the other"]);
    }

    #[test]
    fn names_may_hold_spaces_and_each_file_is_a_stream() {
        let text = "fio version 3 iolog\n1 my disk.img add\n2 my disk.img read 0 512\n\
                    3 b write 512 512\n4 read write 0 512\n";
        let (_, out) = import_bytes(text.as_bytes()).unwrap();
        let names: Vec<_> = out.streams.iter().map(|info| info.device.as_str()).collect();
        assert_eq!(names, ["my disk.img", "b", "read"]);
    }

    #[test]
    fn disordered_times_are_put_in_order() {
        let text = "fio version 3 iolog\n20 f read 0 512\n10 f write 0 512\n";
        assert_eq!(issues(text), [(0, BlockOp::Write, 0, 512), (10_000, BlockOp::Read, 0, 512)]);
    }

    #[test]
    fn bad_lines_are_counted_and_the_rest_is_read() {
        let text = "fio version 3 iolog\n1 f read 0 512\nnonsense\n2 f frobnicate 0 512\n\
                    3 f read -1 512\n4 f wait 5 0\n5 f read 0 0\n6 f write 0 x\n\
                    18446744073709551615 f read 0 512\n7 f write 18446744073709551615 512\n";
        let (report, out) = import_bytes(text.as_bytes()).unwrap();
        assert_eq!(out.events.len(), 1);
        let losses: Vec<_> = report
            .summary
            .losses
            .iter()
            .map(|loss| (loss.reason.as_str(), loss.count, loss.first.as_str()))
            .collect();
        assert_eq!(
            losses,
            [
                ("malformed line", 4, "line 3"),
                ("unknown action", 1, "line 4"),
                ("wait in a version 3 log (fio ignores it too)", 1, "line 6"),
                ("request of length 0", 1, "line 7"),
                ("range past the largest disk there can be (1 EiB)", 1, "line 10"),
            ]
        );
    }

    #[test]
    fn comments_are_no_loss_and_what_is_no_request_is_named() {
        let text = "fio version 3 iolog\n# a comment\n1 f write 0 512\n2 f sync_file_range 0 0\n\
                    3 f syncfs 0 0\n";
        let (report, out) = import_bytes(text.as_bytes()).unwrap();
        assert_eq!(out.issues_brief()[1].1, BlockOp::Flush);
        let losses: Vec<_> = report.summary.losses.iter().map(|loss| &loss.reason).collect();
        assert_eq!(losses, ["sync_file_range: no request of a device"]);
    }

    #[test]
    fn another_version_is_told() {
        let error = import_bytes(b"fio version 4 iolog\n1 f read 0 512\n").unwrap_err();
        assert_eq!(error.to_string(), "test-input: line 1: fio iolog version 4 is not known");
    }

    #[test]
    fn a_wait_after_the_last_request_sets_no_time() {
        let text = format!("{V2}d wait 9 0\nd read 0 512\nd wait 10 0\n");
        let (report, _) = import_bytes(text.as_bytes()).unwrap();
        assert!(report.summary.notes.is_empty(), "{:?}", report.summary.notes);
        assert!(report.summary.not_recorded.contains(NotRecorded::TIMES));
        let (report, _) = import_bytes(format!("{text}d read 0 512\n").as_bytes()).unwrap();
        assert_eq!(report.summary.notes, ["1 wait sets the times; the rest follow at once"]);
        assert!(!report.summary.not_recorded.contains(NotRecorded::TIMES));
    }

    #[test]
    fn nothing_to_import_and_nothing_readable_differ() {
        let error = import_bytes(V2.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Nothing);
        let error = import_bytes(format!("{V2}what\nis this\n").as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input);
        assert!(error.to_string().contains("malformed line at line 4"), "{error}");
    }

    #[test]
    fn the_real_logs() {
        if let Some(data) = sample("traces/fio-iolog/fio333-v3-psync.iolog") {
            let text = String::from_utf8(data.clone()).unwrap();
            let count = |word: &str| {
                text.lines().filter(|line| line.split(' ').nth(2) == Some(word)).count() as u64
            };
            let (report, _) = import_bytes(&data).unwrap();
            assert_eq!(report.ops.issues_of(BlockOp::Read), count("read"));
            assert_eq!(report.ops.issues_of(BlockOp::Write), count("write"));
            assert_eq!(report.ops.issues_of(BlockOp::Flush), count("sync"));
            assert!(report.summary.losses.is_empty());
        }
        if let Some(data) = sample("traces/fio-iolog/handwritten-v2.iolog") {
            let (report, _) = import_bytes(&data).unwrap();
            assert_eq!(report.ops.issues, [1, 1, 2, 1, 0, 0]);
        }
    }
}
