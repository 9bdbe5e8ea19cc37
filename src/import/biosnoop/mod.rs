//! biosnoop: a line for each completed request, of bcc (in Python, and in C of its `libbpf-tools`)
//! and of bpftrace.
//!
//! ```text
//! TIME(s)     COMM           PID    DISK    T SECTOR     BYTES  QUE(ms) LAT(ms)     bcc, -Q
//! 0.000004    supervise      1950   xvda1   W 13092560   4096      0.01    0.74
//! TIMESTAMP    COMM           PID     DISK    T    SECTOR     BYTES   LAT(ms)       libbpf-tools, -t
//! 12:34:56.123 fio            306     vda     FWFS 7904       4096      0.953
//! TIME(us)     COMM             PID     DEV      RWBS SECTOR       BYTES    LAT(us)  a bpftrace script
//! 21431991     fio              306     254,32   R    7904         4096     2608
//! ```
//!
//! - The heading names the columns and the units of times; `-Q` adds QUE, `-P` a pattern. Sectors have
//!   512 bytes. A command may hold blanks. A text without its heading is read as bcc's.
//! - TIME is that of the *completion*; the issue was LAT before it (stage D: given to the driver), or
//!   with `--stage Q` QUE before that (put into the scheduler). LAT has two digits of milliseconds.
//! - T is R or W in bcc's: R is all that is no write. In the others it is RWBS.
//! - Sector 18446744073709551615 (or -1) is that of flushes and of packet commands.
//! - `?` in COMM, without a disk (or with `<unknown>`), is a request whose start bcc's tool did not
//!   see: it knows no place of it, so it is lost.
//! - biosnoop.bt as bpftrace has it prints neither sector nor length: nothing can be imported.
//! - Several tables in one text are runs, each of which begins where the one before ended.
//!
//! Sources: bcc's `tools/biosnoop.py`, `libbpf-tools/biosnoop.c`; bpftrace's `tools/biosnoop.bt`.

mod table;
#[cfg(test)]
mod tests;
mod words;

use self::table::{Table, Why};
use super::dataset::clock::{Clock, Epoch};
use super::dataset::probe::whole_lines;
use super::dataset::streams::Streams;
use super::dataset::text::{Device, Parsed};
use super::dataset::{self, Context, import_rows};
use super::job::{Job, line_place};
use super::lines::{Lines, number};
use super::registry::{Confidence, Importer, Probe, STAGE, TIME_UNIT};
use super::source::Source;
use super::summary::counted;
use super::{ImportOptions, Stage, TimeUnit};
use crate::base::{Error, Result};
use crate::trace::NotRecorded;

/// Added to all times: the first row's request was issued before the tool's own zero.
const BEFORE_START_NS: u64 = 1 << 60;
/// A time of day that is so much before the one of the row above is of the day after.
const HALF_DAY_NS: u64 = 43_200_000_000_000;

/// What bcc's R and W cannot say.
const OF_LETTERS: NotRecorded = NotRecorded::FLUSHES
    .union(NotRecorded::DISCARDS)
    .union(NotRecorded::WRITE_ZEROES)
    .union(NotRecorded::FUA)
    .union(NotRecorded::PREFLUSH)
    .union(NotRecorded::HINTS);

/// The importer.
pub struct Biosnoop;

impl Importer for Biosnoop {
    fn name(&self) -> &'static str {
        "biosnoop"
    }

    fn description(&self) -> &'static str {
        "biosnoop of bcc, of its libbpf-tools, and of bpftrace with sectors"
    }

    fn options(&self) -> &'static [&'static str] {
        &[STAGE, TIME_UNIT]
    }

    fn probe(&self, probe: &Probe<'_>) -> Option<Confidence> {
        if heading(probe.head).is_some() {
            return Some(Confidence::Likely);
        }
        let lines = || whole_lines(probe.head).filter(|line| !line.trim_ascii().is_empty());
        let table = lines().find_map(Table::of_row)?;
        let is_row = |line: &&[u8]| table.row(line, Stage::Dispatch, None) != Err(Why::NoRow);
        (lines().filter(is_row).count() * 4 >= lines().count() * 3).then_some(Confidence::Possible)
    }

    fn import(
        &self,
        mut sources: Vec<Source>,
        options: &ImportOptions,
        job: &mut Job<'_>,
    ) -> Result<()> {
        let Some(mut source) = sources.pop() else { return Ok(()) };
        let table = heading(&source.head()?);
        let stage = options.stage.unwrap_or(Stage::Dispatch);
        if let Some(table) = &table {
            check(table, options.stage).map_err(|error| error.path(source.path()))?;
        }
        describe(table.as_ref(), stage, job);
        // Times are put together here, in nanoseconds: the clock says what they were.
        let unit = table.as_ref().and_then(Table::time_unit).unwrap_or(TimeUnit::Ns);
        let clock = Clock::new(Epoch::Start, unit, options.time_unit);
        import_rows(vec![Text::new(source, stage, options.time_unit)], clock, job)
    }
}

/// The first heading of a table.
fn heading(head: &[u8]) -> Option<Table> {
    whole_lines(head).find_map(Table::of_heading)
}

/// # Errors
/// Input: the table says nothing of places. Usage: it does not have the stage asked for.
fn check(table: &Table, stage: Option<Stage>) -> Result<()> {
    if !table.has_places() {
        return Err(Error::input("this biosnoop prints neither SECTOR nor BYTES of requests")
            .hint("bpftrace's own script is such; bcc's prints both"));
    }
    if stage == Some(Stage::Queue) && !table.has_queue_times() {
        return Err(Error::usage("--stage Q: there is no column QUE")
            .hint("biosnoop -Q prints it; leave --stage out"));
    }
    Ok(())
}

fn describe(table: Option<&Table>, stage: Stage, job: &mut Job<'_>) {
    use NotRecorded as N;
    let letters = table.is_some_and(|table| table.read_or_write);
    let lacks = dataset::lacks() | N::ISSUE_ORDER;
    job.lacks(if letters { lacks } else { lacks - OF_LETTERS });
    job.interpret(match stage {
        Stage::Queue => "stage: Q (queued): LAT and QUE before the completion",
        Stage::Dispatch => "stage: D (dispatched): LAT before the completion",
    });
    job.interpret("TIME: that of the completion");
    job.interpret("SECTOR: units of 512 bytes; BYTES: bytes");
    if letters {
        job.interpret("T: W writes; R all else (discards and write-zeroes stand as reads)");
    }
}

/// The rows of a text.
struct Text {
    lines: Lines,
    streams: Streams,
    stage: Stage,
    told: Option<TimeUnit>,
    table: Option<Table>,
    /// Where the table's times count from, and its greatest so far.
    base: u64,
    last: u64,
    runs: u64,
    rows_of_run: u64,
}

impl Text {
    fn new(source: Source, stage: Stage, told: Option<TimeUnit>) -> Self {
        let streams = Streams::new(&source, false);
        let lines = Lines::new(source);
        let (base, last) = (BEFORE_START_NS, BEFORE_START_NS);
        Self { lines, streams, stage, told, table: None, base, last, runs: 0, rows_of_run: 0 }
    }
}

/// What a line is.
enum Found<'l> {
    Row(Parsed<'l>, bool),
    Skipped,
    /// The tool lost so many.
    Lost(u64),
    Why(Why),
}

impl dataset::RowByRow for Text {
    fn next_row(
        &mut self,
        context: &mut Context,
        job: &mut Job<'_>,
    ) -> Result<Option<dataset::Row>> {
        let Self { lines, streams, stage, told, table, base, last, runs, rows_of_run } = self;
        let mut run = Run { stage: *stage, told: *told, table, base, last, runs, rows_of_run };
        while let Some((line, text)) = lines.read_line()? {
            job.tick()?;
            let place = || line_place(line);
            match run.line(text) {
                Found::Row(parsed, has_flags) => {
                    if has_flags {
                        job.not_recorded.remove(OF_LETTERS);
                    }
                    if let Some(row) = streams.row(&parsed, context, job, place)? {
                        return Ok(Some(row));
                    }
                }
                Found::Skipped => {}
                Found::Lost(count) => {
                    job.summary.lose_many("events that the tool lost", count, place);
                }
                Found::Why(Why::Lost(reason)) => job.summary.lose(reason, place),
                Found::Why(Why::NoRow) => job.summary.malformed("line that is no row", place),
            }
        }
        if *runs > 1 {
            let count = counted(*runs, "table", "tables");
            job.summary
                .note(format!("{count} in one text: each begins where the one before ended"));
        }
        Ok(None)
    }

    fn source(&self) -> Option<&Source> {
        Some(self.lines.source())
    }
}

/// What of a text changes while its lines are read.
struct Run<'t> {
    stage: Stage,
    told: Option<TimeUnit>,
    table: &'t mut Option<Table>,
    base: &'t mut u64,
    last: &'t mut u64,
    runs: &'t mut u64,
    rows_of_run: &'t mut u64,
}

impl Run<'_> {
    fn line<'l>(&mut self, text: &'l [u8]) -> Found<'l> {
        if let Some(table) = Table::of_heading(text).filter(Table::has_places) {
            *self.table = Some(table);
            // bpftrace and bcc begin a run with it; some print it again every page.
            *self.rows_of_run = 0;
            return Found::Skipped;
        }
        if is_remark(text) {
            return Found::Skipped;
        }
        if let Some(count) = lost(text) {
            return Found::Lost(count);
        }
        let table = match &mut *self.table {
            Some(table) => table,
            none => match Table::of_row(text) {
                Some(table) => none.insert(table),
                None => return Found::Why(Why::NoRow),
            },
        };
        match table.row(text, self.stage, self.told) {
            Ok(row) => Found::Row(self.timed(&row), row.has_flags),
            Err(why) => Found::Why(why),
        }
    }

    /// A row with its time among all others'.
    fn timed<'l>(&mut self, row: &table::Row<'l>) -> Parsed<'l> {
        let mut done = self.base.saturating_add(row.done);
        // A heading behind which times go on is one of the same run.
        if *self.rows_of_run == 0 && (*self.runs == 0 || done < *self.last) {
            if *self.runs > 0 {
                *self.base = *self.last;
                done = self.base.saturating_add(row.done);
            }
            *self.runs += 1;
        }
        *self.rows_of_run += 1;
        if done.saturating_add(HALF_DAY_NS) < *self.last {
            *self.base = self.base.saturating_add(2 * HALF_DAY_NS);
            done = self.base.saturating_add(row.done);
        }
        *self.last = (*self.last).max(done);
        let time = done.saturating_sub(row.latency.unwrap_or(0));
        let request = Parsed::request(time, row.op, row.offset, row.len);
        let (device, flags, latency) = (Device::Name(row.disk), row.flags, row.latency);
        Parsed { device, flags, latency, ..request }
    }
}

/// What the tools and those who keep their output say beside rows.
fn is_remark(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    let starts = [&b"#"[..], b"@", b"Attach", b"Tracing ", b"[...]", b"^C"];
    line.is_empty() || starts.iter().any(|start| line.starts_with(start))
}

/// `Lost 12 events`, `Possibly lost 12 samples`, `lost 12 events on CPU #0`.
fn lost(line: &[u8]) -> Option<u64> {
    let line = line.trim_ascii();
    let starts = [&b"Lost "[..], b"lost ", b"Possibly lost "];
    let rest = starts.iter().find_map(|start| line.strip_prefix(*start))?;
    let mut words = rest.split(u8::is_ascii_whitespace);
    let count = number(words.next()?)?;
    matches!(words.next()?, b"events" | b"samples").then_some(count)
}
