//! An import from files into a trace file.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::external::{Key, LateEvents, since};
use super::job::Sink;
use super::source::{Meter, Source};
use super::{ImportOptions, ImportReport, inputs, run};
use crate::base::{Error, Nanos, Result};
use crate::trace::{
    Complete, Event, Issue, PayloadRef, StreamId, StreamInfo, Trace, TraceHeader, TraceSummary,
    TraceWriter,
};

/// Imports `inputs` into a new trace at `output`, which appears whole or not at all (a file of
/// that name is replaced: the caller asks first).
///
/// # Errors
/// Usage, Input and Nothing as said above; Incomplete when the trace cannot be written;
/// Interrupted when `options.stop` became true.
pub fn import(
    inputs: &[PathBuf],
    output: &Path,
    options: &ImportOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<ImportReport> {
    let meter = Meter::new(options.stop.clone());
    let mut sink = FileSink::new(output);
    let result = open_and_run(inputs, options, &meter, &mut sink, progress);
    // A stop shows up as whatever read or write it broke.
    meter.check_stop()?;
    let report = result?;
    sink.finish(&report.summary, &meter)?;
    Ok(report)
}

fn open_and_run(
    inputs: &[PathBuf],
    options: &ImportOptions,
    meter: &Meter,
    sink: &mut dyn Sink,
    progress: &mut dyn FnMut(u64),
) -> Result<ImportReport> {
    let paths = inputs::expand(inputs)?;
    let sources: Result<Vec<_>> = paths.iter().map(|path| Source::open(path, meter)).collect();
    run(sources?, options, meter.clone(), sink, progress)
}

/// A trace file as a [`Sink`]; nothing exists before the first event.
struct FileSink<'p> {
    output: &'p Path,
    writer: Option<TraceWriter>,
    header: TraceHeader,
    /// How far the origin has moved since the first event.
    moved: Key,
    /// Key of the last event in the file.
    last: Key,
    late: LateEvents,
}

impl<'p> FileSink<'p> {
    fn new(output: &'p Path) -> Self {
        let late = LateEvents::new(output);
        Self { output, writer: None, header: TraceHeader::default(), moved: 0, last: 0, late }
    }

    fn writer(&mut self) -> Result<&mut TraceWriter> {
        let output = self.output;
        let missing = || Error::incomplete("the trace was not begun").path(output);
        self.writer.as_mut().ok_or_else(missing)
    }

    /// The writer, for an event of that time that can be written as it is.
    #[inline]
    fn writer_at(&mut self, time: Nanos) -> Option<&mut TraceWriter> {
        let key = Key::from(time.0);
        if self.moved != 0 || key < self.last {
            return None;
        }
        self.last = key;
        self.writer.as_mut()
    }

    /// Ends the trace, in order of time.
    fn finish(self, summary: &TraceSummary, meter: &Meter) -> Result<()> {
        let Some(writer) = self.writer else { return Ok(()) };
        if self.late.is_empty() {
            return writer.finish(summary.clone());
        }
        let unsorted = writer.finish_unnamed(summary.clone())?;
        let unsorted = Trace::open(&unsorted)?;
        let mut header = self.header;
        let moved = u64::try_from(self.moved).unwrap_or(u64::MAX);
        header.origin_unix_ns = header.origin_unix_ns.map(|origin| origin.saturating_sub(moved));
        let mut writer = TraceWriter::create(self.output, header)?;
        for info in unsorted.streams() {
            writer.stream(info.clone())?;
        }
        merge(&unsorted, self.late, -self.moved, &mut writer, meter)?;
        writer.finish(summary.clone())
    }
}

/// Writes the events of `unsorted` and the late ones in order of time, which counts from `origin`.
fn merge(
    unsorted: &Trace,
    late: LateEvents,
    origin: Key,
    writer: &mut TraceWriter,
    meter: &Meter,
) -> Result<()> {
    let mut late = late.into_sorted()?;
    let mut put = |event: &Event| {
        if writer.events().is_multiple_of(EVENTS_PER_LOOK) {
            meter.check_stop()?;
        }
        writer.event(event)
    };
    let mut cursor = unsorted.cursor(0);
    while let Some((_, mut event)) = cursor.next()? {
        let key = Key::from(event.time().0);
        // Of equal times the event in the file came first.
        while late.peek().is_some_and(|late| late < key) {
            late.next(origin)?.map_or(Ok(()), |event| put(&event))?;
        }
        event.set_time(since(key, origin));
        put(&event)?;
    }
    while let Some(event) = late.next(origin)? {
        put(&event)?;
    }
    Ok(())
}

/// Events merged between two looks whether the user wants to stop.
const EVENTS_PER_LOOK: u64 = 1 << 16;

impl Sink for FileSink<'_> {
    fn begin(&mut self, header: TraceHeader) -> Result<()> {
        self.header = header.clone();
        self.writer.insert(TraceWriter::create(self.output, header)?).write_behind()
    }

    fn stream(&mut self, info: StreamInfo) -> Result<StreamId> {
        self.writer()?.stream(info)
    }

    fn payload(&mut self, data: &[u8]) -> Result<PayloadRef> {
        self.writer()?.payload(data)
    }

    fn payload_from(&mut self, len: u64, source: &mut dyn Read) -> Result<PayloadRef> {
        self.writer()?.payload_from(len, source)
    }

    fn event(&mut self, event: &Event) -> Result<()> {
        self.writer()?.event(event)
    }

    fn event_anywhere(&mut self, event: &Event) -> Result<()> {
        let key = Key::from(event.time().0) - self.moved;
        if key < self.last {
            return self.late.add(key, event);
        }
        self.last = key;
        if self.moved == 0 {
            return self.writer()?.event(event);
        }
        let mut event = *event;
        event.set_time(since(key, 0));
        self.writer()?.event(&event)
    }

    fn issue_anywhere(&mut self, issue: &Issue) -> Result<()> {
        match self.writer_at(issue.time) {
            Some(writer) => writer.issue(issue),
            None => self.event_anywhere(&Event::Issue(*issue)),
        }
    }

    fn complete_anywhere(&mut self, complete: &Complete) -> Result<()> {
        match self.writer_at(complete.time) {
            Some(writer) => writer.complete(complete),
            None => self.event_anywhere(&Event::Complete(*complete)),
        }
    }

    fn earlier_origin(&mut self, by: Nanos) -> Result<()> {
        self.moved += Key::from(by.0);
        Ok(())
    }
}
