//! One export under way: the events that are meant, where bytes go, and what is lost on the way.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::ExportOptions;
use crate::base::error::IoContext;
use crate::base::{Error, ErrorKind, Nanos, Result};
use crate::import::summary::Summary;
use crate::trace::{Chooser, Cursor, Event, Filter, Item, Joined, PayloadRef, StreamId, Trace};

/// Payload bytes copied at once.
const CHUNK_BYTES: usize = 256 << 10;

/// Events between two looks at the progress and the stop flag.
const EVENTS_PER_LOOK: u64 = 4096;

/// Where the bytes of an export go.
pub type Out<'t> = &'t mut (dyn Write + Send);

/// An export: what the formats read from and write to.
pub struct Job<'t> {
    /// The trace.
    pub trace: &'t Trace,
    /// What the user asked for.
    pub options: &'t ExportOptions,
    /// What was lost, by reason, and notes.
    pub summary: Summary,
    filter: Filter,
    /// `None` when a format writes to it by itself.
    out: Option<Out<'t>>,
    name: String,
    records: u64,
    marks: u64,
    misfits: u64,
    stop: Option<Arc<AtomicBool>>,
    progress: &'t mut dyn FnMut(u64),
}

/// The names of the devices that requests are exported of, in order.
pub(super) fn devices<'j>(job: &'j Job<'_>) -> Vec<&'j str> {
    let streams = (0..).zip(job.trace.streams().iter().zip(job.trace.totals()));
    let mut devices: Vec<&str> = streams
        .filter(|(number, (_, totals))| {
            job.has_stream(StreamId(*number)) && totals.issues.iter().any(|n| *n > 0)
        })
        .map(|(_, (info, _))| info.device.as_str())
        .collect();
    devices.sort_unstable();
    devices.dedup();
    devices
}

impl<'t> Job<'t> {
    /// An export of what `filter` means of `trace` to `out`, which goes by `name`.
    pub fn new(
        trace: &'t Trace,
        filter: Filter,
        options: &'t ExportOptions,
        (out, name): (Out<'t>, &str),
        progress: &'t mut dyn FnMut(u64),
    ) -> Self {
        Self {
            trace,
            options,
            summary: Summary::default(),
            filter,
            out: Some(out),
            name: name.to_owned(),
            records: 0,
            marks: 0,
            misfits: 0,
            stop: options.stop.clone(),
            progress,
        }
    }

    /// The events that are meant, from the first; a format may go over them twice.
    pub fn events(&self) -> Events<'t> {
        let cursor = self.trace.cursor(self.filter.events.from).near(self.filter.times);
        Events { cursor, chooser: Chooser::new(self.filter.clone()), end: self.filter.events.to }
    }

    /// The requests that are meant with their answers, and the other events.
    pub fn joined(&self) -> JoinedEvents<'t> {
        let cursor = self.trace.cursor(self.filter.events.from).near(self.filter.times);
        let joined = Joined::over(cursor, self.trace.totals().iter().any(|t| t.completes > 0));
        let chooser = Chooser::new(self.filter.clone());
        JoinedEvents { joined, chooser, end: self.filter.events.to }
    }

    /// Whether `stream` is meant.
    pub fn has_stream(&self, stream: StreamId) -> bool {
        self.filter.streams.as_ref().is_none_or(|streams| streams.contains(&stream.0))
    }

    /// Reports progress at event `number`, and notices a stop.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`] when the user stopped the export.
    pub fn tick(&mut self, number: u64) -> Result<()> {
        if !number.is_multiple_of(EVENTS_PER_LOOK) {
            return Ok(());
        }
        (self.progress)(number);
        if self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            let stopped = Error::new(ErrorKind::Interrupted, "export stopped");
            return Err(stopped.hint("nothing was written"));
        }
        Ok(())
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// `Incomplete`: they cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.out {
            Some(out) => out.write_all(bytes).writing(&self.name, "cannot write the export"),
            None => Err(Error::incomplete("another writer has the output").path(&self.name)),
        }
    }

    /// Where bytes go, for a format that writes them by itself; nothing else can be written then.
    ///
    /// # Errors
    /// `Incomplete`: it was taken before.
    pub fn take_out(&mut self) -> Result<Out<'t>> {
        let taken = || Error::incomplete("another writer has the output").path(&self.name);
        self.out.take().ok_or_else(taken)
    }

    /// Writes bytes that hold a record (a request, an access, a mark) and counts it.
    ///
    /// # Errors
    /// `Incomplete`: they cannot be written.
    pub fn record(&mut self, bytes: &[u8]) -> Result<()> {
        self.records += 1;
        self.write(bytes)
    }

    /// As [`Job::record`], of a mark in a format that is about requests.
    ///
    /// # Errors
    /// `Incomplete`: they cannot be written.
    pub fn mark(&mut self, bytes: &[u8]) -> Result<()> {
        self.marks += 1;
        self.record(bytes)
    }

    /// Whether nothing was written but such marks.
    pub fn has_marks_only(&self) -> bool {
        self.records == self.marks
    }

    /// Counts records that were written by other means.
    pub fn count(&mut self, records: u64) {
        self.records += records;
    }

    /// Records written.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Counts one thing of event `number` that the format has no place for.
    pub fn lose(&mut self, reason: &str, number: u64) {
        self.summary.lose(reason, || format!("event {number}"));
    }

    /// As [`Job::lose`], of what the ignore list of [`super::registry::Exporter::lacks`] does not
    /// name: an event that is left out or changed, and that a comparison will find.
    pub fn misfit(&mut self, reason: &str, number: u64) {
        self.misfits += 1;
        self.lose(reason, number);
    }

    /// An event that was made, and that a comparison will find; what it is stands in a note.
    pub fn made(&mut self) {
        self.misfits += 1;
    }

    /// How many events a comparison will find.
    pub fn misfits(&self) -> u64 {
        self.misfits
    }

    /// Hands the `total` bytes of `payload` to `take`, piece by piece.
    ///
    /// # Errors
    /// `Input`: they cannot be read; those of `take`.
    pub fn payload(
        &mut self,
        payload: PayloadRef,
        total: u64,
        mut take: impl FnMut(&mut Self, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut piece = vec![0; usize::try_from(total).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES)];
        let mut at = 0;
        while at < total {
            let n = usize::try_from(total - at).unwrap_or(CHUNK_BYTES).min(piece.len());
            self.trace.read_payload(payload, total, at, &mut piece[..n])?;
            take(self, &piece[..n])?;
            at += n as u64;
        }
        Ok(())
    }

    /// The name of a stream's device.
    pub fn device(&self, stream: StreamId) -> &'t str {
        self.trace.streams().get(stream.0 as usize).map_or("", |info| info.device.as_str())
    }

    /// What the output is called, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The events that are meant.
pub struct Events<'t> {
    cursor: Cursor<'t>,
    chooser: Chooser,
    end: u64,
}

impl Events<'_> {
    /// The next one with its number.
    ///
    /// # Errors
    /// `Input`: the trace is damaged; `Interrupted`.
    pub fn next(&mut self, job: &mut Job<'_>) -> Result<Option<(u64, Event)>> {
        while self.cursor.position() < self.end
            && let Some((number, event)) = self.cursor.next()?
        {
            job.tick(number)?;
            if self.chooser.takes(number, &event) {
                return Ok(Some((number, event)));
            }
        }
        Ok(None)
    }
}

/// The requests that are meant, with their answers, and the other events. A request's answer is
/// there also when it lies past the end of the part that is meant.
pub struct JoinedEvents<'t> {
    joined: Joined<'t>,
    chooser: Chooser,
    end: u64,
}

impl JoinedEvents<'_> {
    /// The next one.
    ///
    /// # Errors
    /// `Input`: the trace is damaged; `Interrupted`.
    pub fn next(&mut self, job: &mut Job<'_>) -> Result<Option<Item>> {
        while let Some(item) = self.joined.next()? {
            if item.number >= self.end {
                return Ok(None);
            }
            job.tick(item.number)?;
            if self.chooser.takes(item.number, &item.event) {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }
}

/// Seconds and nanoseconds.
pub fn split_seconds(time: Nanos) -> (u64, u64) {
    (time.0 / 1_000_000_000, time.0 % 1_000_000_000)
}

/// What is said of an event that a format has no place for.
pub(super) fn lost_event(event: &Event) -> &'static str {
    match event {
        Event::Issue(_) => "request",
        Event::Complete(_) => "completion",
        Event::Mark(_) => "mark",
        Event::Bus(_) => "access to the bus",
        Event::Memory(_) => "event of guest memory",
        Event::Irq(_) => "interrupt",
        Event::Ack(_) => "interrupt acknowledge",
        Event::Clock(_) => "step of the clock",
    }
}
