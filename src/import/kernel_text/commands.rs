//! The NVMe driver's commands as requests: of a capture that has no events of the block layer.
//!
//! A command is joined to its completion by controller, queue and command identifier. Each queue of
//! a disk is a stream.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::input::{Events, next_command};
use super::nvme::{self, Command, Key, What};
use crate::base::limits::SORT_WINDOW_EVENTS;
use crate::base::{Nanos, Result};
use crate::import::blktrace::outstanding::OUTSTANDING_MAX;
use crate::import::job::{self, Job, line_place};
use crate::import::sort::Sorter;
use crate::import::summary::counted;
use crate::import::text_records::TextRecords;
use crate::import::{note_condition, nvme_status};
use crate::trace::{NotRecorded, PayloadRef, StreamId};

/// Follows commands.
pub(super) struct Commands {
    unit: u64,
    sorter: Sorter<(u64, u64), (u64, u64, Command)>,
    origin: Option<u64>,
    in_flight: HashMap<Key, (u64, StreamId)>,
    /// Commands whose identifier was used again before they were answered.
    unanswered: u64,
}

impl Commands {
    /// Commands whose logical blocks have `unit` bytes.
    pub fn new(unit: u64) -> Self {
        Self {
            unit,
            sorter: Sorter::new(SORT_WINDOW_EVENTS),
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
        let mut heads = Vec::with_capacity(inputs.len());
        let mut order = BinaryHeap::new();
        for (index, input) in inputs.iter_mut().enumerate() {
            let head = next_command(input, job)?;
            order.extend(head.as_ref().map(|(time, ..)| Reverse((*time, index))));
            heads.push(head);
        }
        while let Some(Reverse((_, index))) = order.pop() {
            let Some(input) = inputs.get_mut(index) else { break };
            let next = next_command(input, job)?;
            order.extend(next.as_ref().map(|(time, ..)| Reverse((*time, index))));
            let item = heads.get_mut(index).and_then(|head| std::mem::replace(head, next));
            let Some((time, line, command)) = item else { continue };
            if let Some(item) = self.sorter.push((time, line), (time, line, command)) {
                self.command(item, job)?;
            }
        }
        while let Some(item) = self.sorter.pop() {
            self.command(item, job)?;
        }
        self.finish(&inputs, job);
        Ok(())
    }

    fn command(
        &mut self,
        (time, line, command): (u64, u64, Command),
        job: &mut Job<'_>,
    ) -> Result<()> {
        let time = Nanos(time.saturating_sub(*self.origin.get_or_insert(time)));
        match &command.what {
            What::Complete(status) => {
                let Some((tag, stream)) = self.in_flight.remove(&command.key) else {
                    // Of what is no request of a trace, too: the commands of the admin queue.
                    if command.key.queue > 0 {
                        let reason = "completion of a request whose issue is not in the capture";
                        job.summary.lose(reason, || line_place(line));
                    }
                    return Ok(());
                };
                job.complete(time, stream, tag, nvme_status::errno(*status))
            }
            What::Setup { request: Err(reason), .. } => {
                job.summary.lose(reason, || line_place(line));
                Ok(())
            }
            What::Setup { disk, request: Ok(request) } => {
                self.issue(time, line, &command, disk.as_bytes(), *request, job)
            }
        }
    }

    fn issue(
        &mut self,
        time: Nanos,
        line: u64,
        command: &Command,
        disk: &[u8],
        request: nvme::Request,
        job: &mut Job<'_>,
    ) -> Result<()> {
        let place = || line_place(line);
        let nvme::Request { op, flags, block, blocks } = request;
        let Some(stream) = job.queue_stream(disk, command.key.queue, None, place)? else {
            return Ok(());
        };
        let bytes = |blocks: u64| blocks.saturating_mul(self.unit);
        let (offset, len) = (bytes(block), bytes(blocks));
        if !job.accepts(op, offset, len, place) {
            return Ok(());
        }
        let tag = job.counts().requests();
        let (payload, cpu) = (PayloadRef::Absent, command.cpu);
        job.issue(job::Request { time, tag, stream, op, flags, offset, len, payload, cpu })?;
        if self.in_flight.len() >= OUTSTANDING_MAX {
            let reason = "completion not looked for: too many requests in flight";
            job.summary.lose(reason, place);
        } else if self.in_flight.insert(command.key, (tag, stream)).is_some() {
            self.unanswered += 1;
        }
        Ok(())
    }

    fn finish(&self, inputs: &[TextRecords<Events>], job: &mut Job<'_>) {
        if job.counts().completes == 0 {
            job.not_recorded |= NotRecorded::COMPLETIONS | NotRecorded::STATUS;
        } else {
            let open = self.unanswered + self.in_flight.len() as u64;
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
