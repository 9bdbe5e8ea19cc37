//! The log of nbdkit's log filter (`nbdkit --filter=log … logfile=FILE`): every request that NBD
//! clients made, with its answer. Source: nbdkit-log-filter(1), and `filters/log` of nbdkit 1.2 to
//! 1.44; checked against logs of 1.32.
//!
//! ```text
//! DATE TIME.USEC connection=N Connect export="" tls=0 size=0x… …
//! DATE TIME.USEC connection=N Read|Write|Zero|Trim id=I offset=0x… count=0x… [fua=0|1] [trim=] [fast=] ...
//! DATE TIME.USEC connection=N Flush id=I ...
//! DATE TIME.USEC connection=N ...Read id=I return=0
//! DATE TIME.USEC connection=N ...Write id=I return=-1 error=EIO         since 1.23.11
//! DATE TIME.USEC connection=N ...Write id=I return=-1 (EFBIG=>ENOSPC)   before
//! ```
//!
//! - `line`: what a line holds. Times are UTC, in microseconds; offsets and counts are bytes;
//!   errors are the names that NBD has a number for.
//! - The device is the export, a connection is one of its queues. Connections number from 1 again
//!   where several runs append to one log.
//! - Of a write-zeroes `trim=1` is UNMAP; `fast=1` has no place in a trace and is noted. Extents
//!   (block status) and Cache (prefetch) are no operations of a trace and are counted.
//! - A line with the answer to Extents may be megabytes long: its beginning is enough.

mod line;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use self::line::{Call, Line, Refusal, call, connect, parse, status};
use super::job::{Job, Request, line_place};
use super::lines::Lines;
use super::log_clock::LogClock;
use super::registry::{Confidence, Importer, Probe};
use super::source::Source;
use super::summary::counted;
use super::{ImportOptions, note_condition};
use crate::base::limits::{DISK_BYTES_MAX, IMPORT_IN_FLIGHT_MAX};
use crate::base::{Nanos, Result};
use crate::trace::{NotRecorded, PayloadRef, StreamId};

/// Connections open at once, and bytes of their exports' names: far more than a server has.
const CONNECTIONS_MAX: usize = 1 << 16;
const NAMES_BYTES_MAX: usize = 16 << 20;

const MALFORMED: &str = "malformed line";
const TOO_MANY: &str = "more connections than are kept";

/// The importer.
pub struct NbdkitLog;

impl Importer for NbdkitLog {
    fn name(&self) -> &'static str {
        "nbdkit-log"
    }

    fn description(&self) -> &'static str {
        "nbdkit's log filter: requests of NBD clients with their answers"
    }

    fn probe(&self, probe: &Probe<'_>) -> Option<Confidence> {
        let known = |text: &[u8]| {
            let line = parse(text)?;
            match line.action {
                b"Connect" | b"Read" | b"Write" | b"Flush" | b"Trim" | b"Zero" | b"Extents"
                | b"Cache" | b"Disconnect" => {
                    line.connection.is_some().then_some(Confidence::Certain)
                }
                b"Ready" | b"Fork" | b"Preconnect" | b"ListExports" => Some(Confidence::Likely),
                _ => None,
            }
        };
        probe.head.split(|byte| *byte == b'\n').filter_map(known).max()
    }

    fn import(&self, sources: Vec<Source>, _: &ImportOptions, job: &mut Job<'_>) -> Result<()> {
        use NotRecorded as N;
        job.lacks(N::WRITE_DATA | N::READ_DATA | N::PREFLUSH | N::CPUS | N::HINTS);
        job.interpret("times: microseconds since 1970-01-01 UTC");
        job.interpret("offset and count: bytes; device: the export; queue: the connection");
        job.interpret("Trim: discard; Zero: write-zeroes, with trim=1 UNMAP");
        for source in sources {
            Reader::new().read(source, job)?;
        }
        Ok(())
    }
}

/// A request without an answer yet; `None` where it is not in the trace.
type Open = Option<(StreamId, u64)>;

/// A connection that is open.
#[derive(Default)]
struct Connection {
    export: Vec<u8>,
    bytes: Option<u64>,
    /// Its stream, once it had a request that is wanted.
    stream: Option<StreamId>,
    /// By id.
    open: HashMap<u64, Open>,
}

struct Reader {
    clock: LogClock,
    connections: HashMap<u64, Connection>,
    names_bytes: usize,
    open: usize,
    sized: bool,
    fast: u64,
    unanswered: usize,
}

impl Reader {
    fn new() -> Self {
        Self {
            clock: LogClock::unix(),
            connections: HashMap::new(),
            names_bytes: 0,
            open: 0,
            sized: false,
            fast: 0,
            unanswered: 0,
        }
    }

    fn read(mut self, source: Source, job: &mut Job<'_>) -> Result<()> {
        let mut lines = Lines::new(source);
        while let Some((number, text)) = lines.read_line()? {
            job.tick()?;
            match parse(text) {
                Some(line) => self.line(number, &line, job)?,
                // A mark that somebody put into a log that is appended to.
                None if text.trim_ascii().is_empty() || text.starts_with(b"#") => {}
                None => job.summary.malformed(MALFORMED, || line_place(number)),
            }
        }
        note_condition(lines.source(), job);
        self.finish(job);
        Ok(())
    }

    fn line(&mut self, number: u64, line: &Line<'_>, job: &mut Job<'_>) -> Result<()> {
        let place = || line_place(number);
        match (line.action, line.connection) {
            // What the server does, of itself.
            (b"Ready" | b"Fork" | b"Preconnect" | b"ListExports", _) => Ok(()),
            (b"Connect", Some(connection)) => {
                self.connect(connection, line.rest, number, job);
                Ok(())
            }
            (b"Disconnect", Some(connection)) => {
                self.forget(connection);
                Ok(())
            }
            (_, Some(connection)) => match line.id {
                Some(id) if line.ends => self.answer((connection, id), number, line, job),
                Some(id) => self.request((connection, id), number, line, job),
                None => {
                    job.summary.malformed("request without an id", place);
                    Ok(())
                }
            },
            _ => {
                job.summary.malformed("line without a connection", place);
                Ok(())
            }
        }
    }

    fn connect(&mut self, connection: u64, rest: &[u8], number: u64, job: &mut Job<'_>) {
        self.forget(connection);
        let (export, bytes) = connect(rest);
        if self.names_bytes + export.len() > NAMES_BYTES_MAX {
            return job.summary.lose(TOO_MANY, || line_place(number));
        }
        let bytes = bytes.filter(|bytes| (1..=DISK_BYTES_MAX).contains(bytes));
        let (names_bytes, sized) = (export.len(), bytes.is_some());
        let Some(known) = self.connection(connection) else {
            return job.summary.lose(TOO_MANY, || line_place(number));
        };
        (known.export, known.bytes) = (export, bytes);
        self.names_bytes += names_bytes;
        self.sized |= sized;
    }

    /// A connection, which the log may not show the beginning of.
    fn connection(&mut self, number: u64) -> Option<&mut Connection> {
        let room = self.connections.len() < CONNECTIONS_MAX;
        match self.connections.entry(number) {
            Entry::Occupied(known) => Some(known.into_mut()),
            Entry::Vacant(new) => room.then(|| new.insert(Connection::default())),
        }
    }

    /// A connection ends, or begins anew: what it left open stays without an answer.
    fn forget(&mut self, connection: u64) {
        if let Some(old) = self.connections.remove(&connection) {
            self.names_bytes -= old.export.len();
            self.open -= old.open.len();
            self.unanswered += old.unanswered();
        }
    }

    fn request(
        &mut self,
        (connection, id): (u64, u64),
        number: u64,
        line: &Line<'_>,
        job: &mut Job<'_>,
    ) -> Result<()> {
        let room = self.open < IMPORT_IN_FLIGHT_MAX;
        let Some(known) = self.connection(connection) else {
            job.summary.lose(TOO_MANY, || line_place(number));
            return Ok(());
        };
        let Some((call, stream)) = known.wanted(connection, number, line, job)? else {
            if room {
                self.open += usize::from(known.open.insert(id, None).is_none());
            }
            return Ok(());
        };
        let tag = job.counts().requests();
        if room {
            let before = known.open.insert(id, Some((stream, tag)));
            self.open += usize::from(before.is_none());
        }
        self.fast += u64::from(call.fast);
        let time = self.clock.time(line.time, job);
        job.issue(Request {
            time,
            tag,
            stream,
            op: call.op,
            flags: call.flags,
            offset: call.offset,
            len: call.count,
            payload: PayloadRef::Absent,
            cpu: None,
        })
    }

    fn answer(
        &mut self,
        (connection, id): (u64, u64),
        number: u64,
        line: &Line<'_>,
        job: &mut Job<'_>,
    ) -> Result<()> {
        let place = || line_place(number);
        let known = self.connections.get_mut(&connection);
        let Some(open) = known.and_then(|known| known.open.remove(&id)) else {
            job.summary.lose("answer to a request that the log does not hold", place);
            return Ok(());
        };
        self.open -= 1;
        let Some((stream, tag)) = open else { return Ok(()) };
        let Some(status) = status(line.rest) else {
            job.summary.malformed("answer without return=", place);
            return Ok(());
        };
        let time: Nanos = self.clock.time(line.time, job);
        job.complete(time, stream, tag, status)
    }

    fn finish(&self, job: &mut Job<'_>) {
        if job.counts().completes == 0 {
            job.not_recorded |= NotRecorded::COMPLETIONS | NotRecorded::STATUS;
        }
        if !self.sized {
            job.not_recorded |= NotRecorded::DEVICE_SIZE;
        }
        if self.fast > 0 {
            let count = counted(self.fast, "zero is a fast one", "zeroes are fast ones");
            job.summary.note(format!("{count} (may fail at once): not kept"));
        }
        let open = self.connections.values().map(Connection::unanswered).sum::<usize>();
        let unanswered = self.unanswered + open;
        if unanswered > 0 {
            let count = counted(unanswered as u64, "request has", "requests have");
            job.summary.note(format!("{count} no answer in the log"));
        }
        self.clock.finish(["event", "events"], job);
    }
}

impl Connection {
    /// Requests of the trace that have no answer.
    fn unanswered(&self) -> usize {
        self.open.values().filter(|open| open.is_some()).count()
    }

    /// The request that a line begins, with its stream, when it can stand in the trace; what
    /// cannot is counted.
    fn wanted(
        &mut self,
        queue: u64,
        number: u64,
        line: &Line<'_>,
        job: &mut Job<'_>,
    ) -> Result<Option<(Call, StreamId)>> {
        let place = || line_place(number);
        let call = match call(line) {
            Ok(call) => call,
            Err(Refusal::NoRequest(reason)) => {
                job.summary.lose(reason, place);
                return Ok(None);
            }
            Err(Refusal::Malformed) => {
                job.summary.malformed(MALFORMED, place);
                return Ok(None);
            }
        };
        if !job.accepts(call.op, call.offset, call.count, place) {
            return Ok(None);
        }
        if self.stream.is_none() {
            let queue = u32::try_from(queue).unwrap_or(u32::MAX);
            self.stream = job.queue_stream(&self.export, queue, self.bytes, place)?;
        }
        Ok(self.stream.map(|stream| (call, stream)))
    }
}
