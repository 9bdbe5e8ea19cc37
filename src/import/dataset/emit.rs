//! Rows in order of time become issues and completions: each completion waits for its time among
//! those of the requests in flight.

use super::Row;
use super::clock::Clock;
use super::waiting::{Due, Waiting};
use crate::base::{Nanos, Result};
use crate::import::job::{Job, Request};
use crate::import::summary::counted;
use crate::trace::PayloadRef;

/// Writes rows.
#[derive(Default)]
pub(super) struct Emitter {
    /// Completions that wait for their time.
    waiting: Waiting,
    /// The first time, from which all count.
    origin: Option<u64>,
    first: u64,
    last: u64,
    /// Time of the event written last.
    written: u64,
    rows: u64,
    late: u64,
}

impl Emitter {
    /// Takes the next row.
    ///
    /// # Errors
    /// Those of the job's sink.
    pub(super) fn row(&mut self, row: &Row, clock: &Clock, job: &mut Job<'_>) -> Result<()> {
        while let Some(due) = self.waiting.pop_until(row.time) {
            self.complete(due, clock, job)?;
        }
        self.rows += 1;
        let due = Due { time: row.time, tag: row.tag, stream: row.stream };
        let Some(op) = row.op else { return self.complete(due, clock, job) };
        let time = self.time(row.time, clock, job)?;
        job.issue(Request {
            time,
            tag: row.tag,
            stream: row.stream,
            op,
            flags: row.flags,
            offset: row.offset,
            len: row.len,
            payload: PayloadRef::Absent,
            cpu: None,
        })?;
        match row.latency {
            Row::NO_LATENCY => Ok(()),
            // Behind its own issue, not before those of the same time.
            0 => self.complete(due, clock, job),
            latency => {
                self.waiting.push(Due { time: row.time.saturating_add(latency), ..due });
                match self.waiting.pop_surplus() {
                    Some(due) => self.complete(due, clock, job),
                    None => Ok(()),
                }
            }
        }
    }

    fn complete(&mut self, due: Due, clock: &Clock, job: &mut Job<'_>) -> Result<()> {
        let time = self.time(due.time, clock, job)?;
        job.complete(time, due.stream, due.tag, 0)
    }

    /// The time of an event since the origin, which the first one sets.
    fn time(&mut self, time: u64, clock: &Clock, job: &mut Job<'_>) -> Result<Nanos> {
        let origin = match self.origin {
            Some(origin) if origin <= time => origin,
            Some(origin) => {
                job.earlier_origin(Nanos(origin - time))?;
                self.first = time;
                time
            }
            None => {
                job.header.origin_unix_ns = clock.unix_ns(time);
                self.first = time;
                time
            }
        };
        self.origin = Some(origin);
        self.late += u64::from(time < self.written);
        self.written = self.written.max(time);
        self.last = self.last.max(time);
        Ok(Nanos(time - origin))
    }

    /// Writes the completions that are left.
    ///
    /// # Errors
    /// Those of the job's sink.
    pub(super) fn finish(&mut self, clock: &Clock, job: &mut Job<'_>) -> Result<()> {
        while let Some(due) = self.waiting.pop_until(u64::MAX) {
            self.complete(due, clock, job)?;
        }
        Ok(())
    }

    /// Says what was put in order, and what is odd about the times.
    pub(super) fn notes(&self, disordered: u64, clock: &Clock, job: &mut Job<'_>) {
        if disordered > 0 {
            let count = counted(disordered, "row was", "rows were");
            job.summary.note(format!("{count} out of order of time in the input and put in order"));
        }
        if self.late > 0 {
            let count = counted(self.late, "event", "events");
            job.summary.note(format!("{count} came too late for the sort window: sorted on disk"));
        }
        if let Some(note) = clock.doubt(self.last - self.first, self.rows) {
            job.summary.note(note);
        }
    }
}
