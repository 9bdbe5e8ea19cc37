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
    /// The latest time written.
    written: u64,
    rows: u64,
    late: u64,
}

impl Emitter {
    /// Takes the next rows, which are in order of time.
    ///
    /// # Errors
    /// Those of the job's sink.
    pub(super) fn rows(&mut self, rows: &[Row], clock: &Clock, job: &mut Job<'_>) -> Result<()> {
        // What came too late for the sort window is not in order.
        self.waiting.begin(rows.iter().map(|row| row.time).max().unwrap_or_default());
        for row in rows {
            if let Some(time) = row.ends().filter(|time| *time > row.time) {
                self.waiting.push(Due { time, ..due(row) });
            }
        }
        self.waiting.sort();
        for row in rows {
            self.complete_until(row.time, clock, job)?;
            self.row(row, clock, job)?;
        }
        self.complete_until(u64::MAX, clock, job)?;
        while let Some(due) = self.waiting.pop_surplus() {
            self.complete(due, clock, job)?;
        }
        self.rows += rows.len() as u64;
        Ok(())
    }

    #[inline]
    fn row(&mut self, row: &Row, clock: &Clock, job: &mut Job<'_>) -> Result<()> {
        let Some(op) = row.op else { return self.complete(due(row), clock, job) };
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
        // Behind its own issue, not before those of the same time.
        if row.ends() == Some(row.time) { self.complete(due(row), clock, job) } else { Ok(()) }
    }

    #[inline]
    fn complete_until(&mut self, time: u64, clock: &Clock, job: &mut Job<'_>) -> Result<()> {
        while let Some(due) = self.waiting.pop_until(time) {
            self.complete(due, clock, job)?;
        }
        Ok(())
    }

    #[inline]
    fn complete(&mut self, due: Due, clock: &Clock, job: &mut Job<'_>) -> Result<()> {
        let time = self.time(due.time, clock, job)?;
        job.complete(time, due.stream, due.tag, 0)
    }

    /// The time of an event since the origin.
    #[inline]
    fn time(&mut self, time: u64, clock: &Clock, job: &mut Job<'_>) -> Result<Nanos> {
        let origin = match self.origin {
            Some(origin) if origin <= time => origin,
            other => self.set_origin(time, other, clock, job)?,
        };
        self.late += u64::from(time < self.written);
        self.written = self.written.max(time);
        Ok(Nanos(time - origin))
    }

    /// The first event, and whatever is before all others, sets the origin.
    #[cold]
    fn set_origin(
        &mut self,
        time: u64,
        before: Option<u64>,
        clock: &Clock,
        job: &mut Job<'_>,
    ) -> Result<u64> {
        match before {
            Some(origin) => job.earlier_origin(Nanos(origin - time))?,
            None => job.header.origin_unix_ns = clock.unix_ns(time),
        }
        self.origin = Some(time);
        Ok(time)
    }

    /// Writes the completions that are left.
    ///
    /// # Errors
    /// Those of the job's sink.
    pub(super) fn finish(&mut self, clock: &Clock, job: &mut Job<'_>) -> Result<()> {
        self.waiting.begin(u64::MAX);
        self.waiting.sort();
        self.complete_until(u64::MAX, clock, job)
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
        let first = self.origin.unwrap_or_default();
        if let Some(note) = clock.doubt(self.written - first, self.rows) {
            job.summary.note(note);
        }
    }
}

/// The completion of a row at its own time.
#[inline]
fn due(row: &Row) -> Due {
    Due { time: row.time, tag: row.tag, stream: row.stream }
}
