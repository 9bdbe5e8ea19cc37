//! Traces made of traces: cut, selected, moved, scaled, merged, with other data or none.
//!
//! - [`input`]: what is kept of each trace, with requests and their answers together;
//! - [`places`], [`times`]: where and when a request stands afterwards;
//! - [`data`]: what becomes of the data.
//!
//! The result is a new trace whose header says what was changed, after what its sources said.

pub mod data;
pub mod input;
pub mod places;
pub mod times;

mod header;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use self::data::{Data, DataMode};
use self::input::{Input, Kept};
use self::places::Places;
use self::times::{Align, Times};
use crate::base::error::Place;
use crate::base::{Error, ErrorKind, Nanos, Result};
use crate::import::summary::{Summary, counted};
use crate::trace::{
    Event, Filter, Kinds, PayloadRef, Trace, TraceHeader, TraceSummary, TraceWriter,
};

/// Events between two looks at the progress and the stop flag.
const EVENTS_PER_LOOK: u64 = 4096;

/// What is to be done.
#[derive(Clone, Debug, Default)]
pub struct Edit {
    /// Kinds of events that are left out.
    pub drop: Kinds,
    /// Where requests go.
    pub places: Places,
    /// 50: everything in half the time.
    pub time_percent: Option<u64>,
    /// The first event that is kept stands at time 0.
    pub rebase: bool,
    /// How the times of several traces are put together; `None` is by wall clock where all have it.
    pub align: Option<Align>,
    /// What becomes of data.
    pub data: DataMode,
    /// Becomes true when the user wants to stop.
    pub stop: Option<Arc<AtomicBool>>,
}

/// A trace to be edited, and what is meant of it.
pub struct Source<'t> {
    /// The trace.
    pub trace: &'t Trace,
    /// What is meant.
    pub filter: Filter,
}

/// What an edit did.
#[derive(Clone, Debug, Default)]
pub struct EditReport {
    /// Events read.
    pub events_read: u64,
    /// Events written.
    pub events: u64,
    /// What was changed, as the new header says it.
    pub changes: Vec<String>,
    /// What came of it: what was left out, and what a reader should know.
    pub notes: Vec<String>,
}

/// Writes a new trace at `output`, which appears whole or not at all (a file of that name is
/// replaced: the caller asks first).
///
/// # Errors
/// Usage: an edit that cannot be made of these traces; Input: one of them is damaged; Nothing: no
/// event is kept; Incomplete: the trace cannot be written; Interrupted.
pub fn edit(
    sources: &[Source<'_>],
    output: &Path,
    edit: &Edit,
    progress: &mut dyn FnMut(u64),
) -> Result<EditReport> {
    Editor::new(sources, output, edit)?.run(progress)
}

struct Editor<'t> {
    edit: &'t Edit,
    sources: &'t [Source<'t>],
    inputs: Vec<Input<'t>>,
    times: Times,
    data: Data,
    header: TraceHeader,
    output: &'t Path,
    writer: Option<TraceWriter>,
    report: EditReport,
    /// Marks whose text was taken away.
    marks_cleared: u64,
}

impl<'t> Editor<'t> {
    fn new(sources: &'t [Source<'t>], output: &'t Path, edit: &'t Edit) -> Result<Self> {
        let Some(first) = sources.first() else { return Err(Error::usage("no trace to edit")) };
        data::check(sources, edit)?;
        let origins: Vec<Option<u64>> =
            sources.iter().map(|source| source.trace.header().origin_unix_ns).collect();
        let times = Times::new(&origins, edit)?;
        let mut next_stream = 0;
        let inputs: Vec<_> = sources
            .iter()
            .map(|source| Input::new(source.trace, &source.filter, edit.drop, &mut next_stream))
            .collect();
        let changes = header::changes(sources, edit, &times);
        let mut header = header::merged(sources, edit);
        header.interpretation.extend(changes.iter().map(|change| format!("edit: {change}")));
        header.origin_unix_ns = times.origin_unix_ns();
        if next_stream == 0 && !first.trace.streams().is_empty() {
            let nothing = Error::new(ErrorKind::Nothing, "no stream of the trace is selected");
            return Err(nothing.path(first.trace.path()));
        }
        Ok(Self {
            edit,
            sources,
            inputs,
            times,
            data: Data::new(edit.data.clone()),
            header,
            output,
            writer: None,
            report: EditReport { changes, ..EditReport::default() },
            marks_cleared: 0,
        })
    }

    fn run(mut self, progress: &mut dyn FnMut(u64)) -> Result<EditReport> {
        // Of events at one time, those of the trace that was named first come first.
        let mut heads = Vec::new();
        for input in &mut self.inputs {
            heads.push(input.next_kept()?);
        }
        loop {
            let time = |(at, head): (usize, &Option<Kept>)| {
                head.map(|kept| (self.times.shifted(at, kept.event.time()), at))
            };
            let Some((_, at)) = heads.iter().enumerate().filter_map(time).min() else { break };
            let Some(kept) = heads[at].take() else { break };
            heads[at] = self.inputs[at].next_kept()?;
            self.event(at, kept)?;
            if self.report.events.is_multiple_of(EVENTS_PER_LOOK) {
                progress(self.inputs.iter().map(Input::position).sum());
                self.check_stop()?;
            }
        }
        self.finish()
    }

    fn check_stop(&self) -> Result<()> {
        if self.edit.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            return Err(Error::new(ErrorKind::Interrupted, "edit stopped").hint("nothing kept"));
        }
        Ok(())
    }

    /// Writes an event of input `at`, changed.
    fn event(&mut self, at: usize, kept: Kept) -> Result<()> {
        let trace = self.sources[at].trace;
        let place = |error: Error| error.path(trace.path()).at(Place::Event(kept.number));
        if self.edit.rebase && self.writer.is_none() {
            self.times.rebase(at, kept.event.time());
            self.header.origin_unix_ns = self.times.origin_unix_ns();
        }
        let time = self.times.of(at, kept.event.time()).map_err(place)?;
        let stream = self.inputs[at].stream(kept.event.stream());
        let event = self.changed(at, &kept, time).map_err(place)?;
        let event = event::with_stream(event, stream);
        self.writer()?.event(&event)?;
        self.report.events += 1;
        Ok(())
    }

    fn changed(&mut self, at: usize, kept: &Kept, time: Nanos) -> Result<Event> {
        Ok(match kept.event {
            Event::Issue(mut issue) => {
                issue.time = time;
                issue.payload = self.data(at, issue.payload, issue.len, issue.offset)?;
                if issue.op.has_range() {
                    issue.offset = self.edit.places.of(issue.offset, issue.len)?;
                }
                Event::Issue(issue)
            }
            Event::Complete(mut complete) => {
                complete.time = time;
                let (offset, len) = kept.range;
                complete.payload = self.data(at, complete.payload, len, offset)?;
                Event::Complete(complete)
            }
            Event::Mark(mut mark) => {
                mark.time = time;
                if self.edit.data == DataMode::Keep {
                    mark.text = self.data(at, mark.text, mark.text_len, 0)?;
                } else {
                    self.marks_cleared += u64::from(mark.text_len > 0);
                    (mark.text, mark.text_len) = (PayloadRef::Absent, 0);
                }
                Event::Mark(mark)
            }
            Event::Bus(bus) => Event::Bus(crate::trace::BusEvent { time, ..bus }),
            Event::Memory(mut memory) => {
                memory.time = time;
                memory.payload = self.data(at, memory.payload, memory.len, 0)?;
                Event::Memory(memory)
            }
            Event::Irq(irq) => Event::Irq(crate::trace::IrqChange { time, ..irq }),
            Event::Ack(ack) => Event::Ack(crate::trace::AckEvent { time, ..ack }),
            Event::Clock(mut step) => {
                step.time = time;
                step.to = self.times.of(at, step.to)?;
                Event::Clock(step)
            }
        })
    }

    fn data(
        &mut self,
        at: usize,
        payload: PayloadRef,
        len: u64,
        offset: u64,
    ) -> Result<PayloadRef> {
        if payload == PayloadRef::Absent || self.edit.data == DataMode::Drop {
            return Ok(PayloadRef::Absent);
        }
        self.writer()?;
        let Some(writer) = &mut self.writer else { return Ok(PayloadRef::Absent) };
        self.data.copy((at, self.sources[at].trace), payload, (offset, len), writer)
    }

    /// The writer; it begins with the first event, since the header may depend on it.
    fn writer(&mut self) -> Result<&mut TraceWriter> {
        if self.writer.is_none() {
            let mut writer = TraceWriter::create(self.output, self.header.clone())?;
            for (input, source) in self.inputs.iter().zip(self.sources) {
                for (info, _) in source
                    .trace
                    .streams()
                    .iter()
                    .zip(input.streams())
                    .filter(|(_, id)| id.is_some())
                {
                    let mut info = info.clone();
                    if self.edit.places.moves() {
                        info.device_bytes = None;
                    }
                    writer.stream(info)?;
                }
            }
            self.writer = Some(writer);
        }
        let missing = || Error::incomplete("the trace was not begun").path(self.output);
        self.writer.as_mut().ok_or_else(missing)
    }

    fn finish(mut self) -> Result<EditReport> {
        let mut summary = Summary::default();
        for input in &self.inputs {
            self.report.events_read += input.position();
            input.tell(&mut summary);
        }
        self.data.tell(&mut summary);
        self.times.tell(&mut summary);
        if self.marks_cleared > 0 {
            let count = counted(self.marks_cleared, "mark", "marks");
            summary.note(format!("{count} kept without text"));
        }
        self.report.notes = summary.notes().to_vec();
        let Some(writer) = self.writer.take() else {
            return Err(Error::new(ErrorKind::Nothing, "no event of the trace is kept")
                .hint("qtrace info says what it holds; nothing was written"));
        };
        let mut whole = header::merged_summary(self.sources, self.header.not_recorded);
        whole.notes.extend(self.report.notes.iter().map(|note| format!("edit: {note}")));
        writer.finish(TraceSummary { streams: Vec::new(), ..whole })?;
        Ok(self.report)
    }
}

/// Events with one field changed.
mod event {
    use crate::trace::{Event, StreamId};

    /// The event, of another stream.
    pub(super) fn with_stream(mut event: Event, stream: StreamId) -> Event {
        match &mut event {
            Event::Issue(issue) => issue.stream = stream,
            Event::Complete(complete) => complete.stream = stream,
            Event::Mark(mark) => mark.stream = stream,
            Event::Bus(bus) => bus.stream = stream,
            Event::Memory(memory) => memory.stream = stream,
            Event::Irq(irq) => irq.stream = stream,
            Event::Ack(ack) => ack.stream = stream,
            Event::Clock(step) => step.stream = stream,
        }
        event
    }
}
