//! The NVMe driver's commands as requests: of a capture that has no events of the block layer.
//!
//! A command is joined to its completion by controller, queue and command identifier. Each queue of
//! a disk is a stream.

use std::collections::HashMap;

use super::input::{Events, Heard, next_command};
use super::nvme::{self, Command, Key, What};
use crate::base::limits::SORT_WINDOW_EVENTS;
use crate::base::{Nanos, Result};
use crate::import::blktrace::outstanding::OUTSTANDING_MAX;
use crate::import::job::{self, Job, line_place};
use crate::import::sort::{Merger, Sorter};
use crate::import::summary::counted;
use crate::import::text_records::TextRecords;
use crate::import::{note_condition, nvme_status};
use crate::trace::{NotRecorded, PayloadRef, StreamId};

/// By time and line.
type ByTime = fn(&Heard) -> (u64, u64);

/// Follows commands.
pub(super) struct Commands {
    unit: u64,
    sorter: Sorter<Heard, ByTime>,
    origin: Option<u64>,
    /// Tag and stream of what was issued; nothing of a command that was left out.
    in_flight: HashMap<Key, Option<(u64, StreamId)>>,
    /// Commands whose identifier was used again before they were answered.
    unanswered: u64,
}

impl Commands {
    /// Commands whose logical blocks have `unit` bytes.
    pub fn new(unit: u64) -> Self {
        Self {
            unit,
            sorter: Sorter::new(SORT_WINDOW_EVENTS, |heard| (heard.0, heard.1)),
            origin: None,
            in_flight: HashMap::new(),
            unanswered: 0,
        }
    }

    /// Merges the inputs by time and writes their requests.
    ///
    /// # Errors
    /// Those of the inputs and of the job.
    pub fn read(mut self, mut inputs: Vec<TextRecords<Events>>, job: &mut Job<'_>) -> Result<()> {
        let mut merger = Merger::default();
        let key = |(time, ..): &Heard| *time;
        while let Some(heard) = merger.next(&mut inputs, key, |input| next_command(input, job))? {
            if let Some(heard) = self.sorter.push(heard) {
                self.command(heard, job)?;
            }
        }
        while let Some(item) = self.sorter.pop() {
            self.command(item, job)?;
        }
        self.finish(&inputs, job);
        Ok(())
    }

    fn command(&mut self, (time, line, command): Heard, job: &mut Job<'_>) -> Result<()> {
        let time = Nanos(time.saturating_sub(*self.origin.get_or_insert(time)));
        match &command.what {
            What::Complete(status) => {
                match self.in_flight.remove(&command.key) {
                    Some(Some((tag, stream))) => {
                        return job.complete(time, stream, tag, nvme_status::errno(*status));
                    }
                    Some(None) => {}
                    None => {
                        let reason = "completion of a request whose issue is not in the capture";
                        job.summary.lose(reason, || line_place(line));
                    }
                }
                Ok(())
            }
            What::Setup { request: Err(reason), .. } => {
                job.summary.lose(reason, || line_place(line));
                self.follow(command.key, None, line, job);
                Ok(())
            }
            What::Setup { disk, request: Ok(request) } => {
                let issued = self.issue(time, line, &command, disk.as_bytes(), *request, job)?;
                self.follow(command.key, issued, line, job);
                Ok(())
            }
        }
    }

    /// Looks for the completion of a command.
    fn follow(&mut self, key: Key, issued: Option<(u64, StreamId)>, line: u64, job: &mut Job<'_>) {
        if self.in_flight.len() >= OUTSTANDING_MAX && !self.in_flight.contains_key(&key) {
            let reason = "completion not looked for: too many requests in flight";
            job.summary.lose(reason, || line_place(line));
        } else if let Some(Some(_)) = self.in_flight.insert(key, issued) {
            self.unanswered += 1;
        }
    }

    /// Writes a request; gives its tag and stream when it can stand in the trace.
    fn issue(
        &mut self,
        time: Nanos,
        line: u64,
        command: &Command,
        disk: &[u8],
        request: nvme::Request,
        job: &mut Job<'_>,
    ) -> Result<Option<(u64, StreamId)>> {
        let place = || line_place(line);
        let nvme::Request { op, flags, block, blocks } = request;
        let Some(stream) = job.queue_stream(disk, command.key.queue, None, place)? else {
            return Ok(None);
        };
        let bytes = |blocks: u64| blocks.saturating_mul(self.unit);
        let (offset, len) = (bytes(block), bytes(blocks));
        if !job.accepts(op, offset, len, place) {
            return Ok(None);
        }
        let tag = job.counts().requests();
        let (payload, cpu) = (PayloadRef::Absent, command.cpu);
        job.issue(job::Request { time, tag, stream, op, flags, offset, len, payload, cpu })?;
        Ok(Some((tag, stream)))
    }

    fn finish(&self, inputs: &[TextRecords<Events>], job: &mut Job<'_>) {
        if job.counts().completes == 0 {
            job.not_recorded |= NotRecorded::COMPLETIONS | NotRecorded::STATUS;
        } else {
            let open = self.in_flight.values().flatten().count() as u64 + self.unanswered;
            if open > 0 {
                job.summary.note(format!("{open} requests have no completion in the capture"));
            }
        }
        let unused: Vec<_> = inputs.iter().flat_map(|input| input.format.unused()).collect();
        if !unused.is_empty() {
            let unused = unused.join(", ");
            job.summary.note(format!("other events of the driver, not needed: {unused}"));
        }
        if self.sorter.late() > 0 {
            let count = counted(self.sorter.late(), "event is", "events are");
            job.summary.note(format!("{count} out of order of time"));
        }
        for input in inputs {
            note_condition(input.source(), job);
        }
    }
}
