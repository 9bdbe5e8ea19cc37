//! The MSR Cambridge block traces (SNIA IOTTA set 388): comma-separated, no header line.
//!
//! ```text
//! Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime
//! 128166372003061629,hm,1,Read,383496192,32768,413
//! ```
//!
//! Timestamp is the issue time and ResponseTime the latency, both in Windows FILETIME ticks of
//! 100 ns; the former counts from 1601-01-01 UTC. Offset and Size are bytes.

use csv::ByteRecord;

use super::job::{Job, Request, line_place};
use super::lines::{LineLimit, number};
use super::registry::{Confidence, Importer, Probe};
use super::sort::Sorter;
use super::source::Source;
use super::summary::counted;
use super::{ImportOptions, note_condition};
use crate::base::limits::SORT_WINDOW_EVENTS;
use crate::base::{BlockOp, Error, Nanos, OpFlags, Result};
use crate::trace::{NotRecorded, PayloadRef, StreamId};

const FIELDS: usize = 7;
/// Nanoseconds of a FILETIME tick ([MS-DTYP] §2.3.3).
const TICK_NS: u64 = 100;
/// Ticks from 1601-01-01 to the Unix epoch.
const UNIX_EPOCH_TICKS: u64 = 116_444_736_000_000_000;
const FIRST_FIELD_OF_HEADER: &[u8] = b"timestamp";

/// The importer.
pub struct MsrCsv;

impl Importer for MsrCsv {
    fn name(&self) -> &'static str {
        "msr-csv"
    }

    fn description(&self) -> &'static str {
        "MSR Cambridge traces: Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime"
    }

    fn probe(&self, probe: &Probe<'_>) -> Option<Confidence> {
        // Of the first lines, one must be a row; a header line may stand before it.
        let rows = probe.head.split(|byte| *byte == b'\n').take(2);
        let fits = |line: &[u8]| {
            let fields: Vec<_> = line.split(|byte| *byte == b',').collect();
            let [ticks, host, disk, op, offset, size, response] = fields.as_slice() else {
                return false;
            };
            let fields = [*ticks, *host, *disk, *op, *offset, *size, *response];
            parse(fields).is_ok_and(|row| row.ticks > UNIX_EPOCH_TICKS)
        };
        rows.into_iter().any(fits).then_some(Confidence::Likely)
    }

    fn import(
        &self,
        sources: Vec<Source>,
        _options: &ImportOptions,
        job: &mut Job<'_>,
    ) -> Result<()> {
        job.lacks(lacks());
        job.interpret("times: Windows FILETIME, ticks of 100 ns since 1601-01-01 UTC");
        job.interpret("response time: ticks of 100 ns, from issue to completion");
        job.interpret("offset and size: bytes");
        job.interpret("device: hostname_disknumber");
        for source in sources {
            Reader::new().read(source, job)?;
        }
        Ok(())
    }
}

fn lacks() -> NotRecorded {
    use NotRecorded as N;
    N::WRITE_DATA
        | N::READ_DATA
        | N::STATUS
        | N::FLUSHES
        | N::DISCARDS
        | N::WRITE_ZEROES
        | N::FUA
        | N::PREFLUSH
        | N::QUEUES
        | N::CPUS
        | N::DEVICE_SIZE
        | N::UNMAP
        | N::HINTS
}

/// A row, as it stands.
#[derive(Clone, Copy, Debug)]
struct Row<'r> {
    ticks: u64,
    host: &'r [u8],
    disk: &'r [u8],
    op: BlockOp,
    offset: u64,
    size: u64,
    response_ticks: u64,
}

fn parse(fields: [&[u8]; FIELDS]) -> Result<Row<'_>, &'static str> {
    let [ticks, host, disk, op, offset, size, response] = fields.map(<[u8]>::trim_ascii);
    let op = if op.eq_ignore_ascii_case(b"read") {
        BlockOp::Read
    } else if op.eq_ignore_ascii_case(b"write") {
        BlockOp::Write
    } else {
        return Err("type is neither Read nor Write");
    };
    const BAD: &str = "field is not a number";
    number(disk).ok_or(BAD)?;
    Ok(Row {
        ticks: number(ticks).filter(|t| *t <= u64::MAX / TICK_NS).ok_or(BAD)?,
        host,
        disk,
        op,
        offset: number(offset).ok_or(BAD)?,
        size: number(size).ok_or(BAD)?,
        response_ticks: number(response).ok_or(BAD)?,
    })
}

/// Of events at one time, completions of earlier requests come first, then issues, then the
/// completions of those issues that took no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Complete,
    Issue,
    CompleteAtOnce,
}

/// One side of a request waiting for its turn.
struct Timed {
    time: u64,
    stream: StreamId,
    tag: u64,
    /// Operation, offset and length of an issue; `None` for a completion.
    issue: Option<(BlockOp, u64, u64)>,
}

struct Reader {
    sorter: Sorter<(u64, Class), Timed>,
    origin: Option<u64>,
    device: Vec<u8>,
    requests: u64,
}

impl Reader {
    fn new() -> Self {
        Self {
            sorter: Sorter::new(SORT_WINDOW_EVENTS),
            origin: None,
            device: Vec::new(),
            requests: 0,
        }
    }

    fn read(mut self, source: Source, job: &mut Job<'_>) -> Result<()> {
        let path = source.path().to_path_buf();
        // The traces quote nothing; quotes taken seriously would let one swallow lines.
        let mut rows = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .quoting(false)
            .from_reader(LineLimit::new(source));
        let mut record = ByteRecord::new();
        while rows.read_byte_record(&mut record).map_err(csv_error).map_err(|e| e.path(&path))? {
            job.tick()?;
            let line = record.position().map_or(0, csv::Position::line);
            self.row(&record, line, job)?;
        }
        while let Some(timed) = self.sorter.pop() {
            self.emit(timed, job)?;
        }
        note_condition(rows.get_ref().source(), job);
        if self.sorter.late() > 0 {
            let count = counted(self.sorter.late(), "event is", "events are");
            job.summary.note(format!("{count} out of order of time"));
        }
        Ok(())
    }

    fn row(&mut self, record: &ByteRecord, line: u64, job: &mut Job<'_>) -> Result<()> {
        let mut fields = [&[][..]; FIELDS];
        let parsed = if record.len() == FIELDS {
            for (field, value) in fields.iter_mut().zip(record) {
                *field = value;
            }
            parse(fields)
        } else {
            Err("row does not have 7 fields")
        };
        let row = match parsed {
            Ok(row) => row,
            Err(_) if line == 1 && is_header(record) => return Ok(()),
            Err(reason) => {
                job.summary.malformed(reason, || line_place(line));
                return Ok(());
            }
        };
        self.device.clear();
        self.device.extend_from_slice(row.host);
        self.device.push(b'_');
        self.device.extend_from_slice(row.disk);
        let Some(stream) = job.stream(&self.device, None, || line_place(line))? else {
            return Ok(());
        };
        if !job.accepts(row.op, row.offset, row.size, || line_place(line)) {
            return Ok(());
        }
        let time = row.ticks * TICK_NS;
        let latency = row.response_ticks.saturating_mul(TICK_NS);
        let tag = self.requests;
        self.requests += 1;
        let issue = Some((row.op, row.offset, row.size));
        self.push(Class::Issue, Timed { time, stream, tag, issue }, job)?;
        let class = if latency == 0 { Class::CompleteAtOnce } else { Class::Complete };
        let time = time.saturating_add(latency);
        self.push(class, Timed { time, stream, tag, issue: None }, job)
    }

    fn push(&mut self, class: Class, timed: Timed, job: &mut Job<'_>) -> Result<()> {
        match self.sorter.push((timed.time, class), timed) {
            Some(timed) => self.emit(timed, job),
            None => Ok(()),
        }
    }

    fn emit(&mut self, timed: Timed, job: &mut Job<'_>) -> Result<()> {
        let origin = *self.origin.get_or_insert_with(|| {
            job.header.origin_unix_ns = timed.time.checked_sub(UNIX_EPOCH_TICKS * TICK_NS);
            timed.time
        });
        let time = Nanos(timed.time.saturating_sub(origin));
        let Timed { stream, tag, .. } = timed;
        let Some((op, offset, len)) = timed.issue else {
            return job.complete(time, stream, tag, 0);
        };
        job.issue(Request {
            time,
            tag,
            stream,
            op,
            flags: OpFlags::empty(),
            offset,
            len,
            payload: PayloadRef::Absent,
            cpu: None,
        })
    }
}

fn is_header(record: &ByteRecord) -> bool {
    record.get(0).is_some_and(|f| f.trim_ascii().eq_ignore_ascii_case(FIRST_FIELD_OF_HEADER))
}

/// Unpacks the error that [`LineLimit`] or the input gave, out of the csv crate's.
fn csv_error(error: csv::Error) -> Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => match error.downcast::<Error>() {
            Ok(ours) => ours,
            Err(error) => Error::input("cannot read").source(error),
        },
        other => Error::input("cannot read as CSV").source(format!("{other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ErrorKind;
    use crate::import::testing::{import_bytes, import_with, sample};
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
                ("field is not a number", 2, "line 5"),
                ("request of length 0", 1, "line 8"),
            ]
        );
    }

    #[test]
    fn only_bad_rows_are_an_input_error() {
        let options = ImportOptions { from: Some("msr-csv".into()), ..ImportOptions::default() };
        let error = import_with(b"a,b\nc\n", &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input);
        let long = vec![b'1'; 200_000];
        let error = import_with(&long, &options).unwrap_err();
        assert_eq!(error.to_string(), "test-input: line 1: line longer than 65536 bytes");
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
}
