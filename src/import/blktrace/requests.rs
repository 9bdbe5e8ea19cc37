//! From records in order of time to issues and completions.

use super::outstanding::{Outstanding, Request};
use super::record::{Record, act, cat};
use crate::base::{BlockOp, Nanos, OpFlags, Result};
use crate::import::Stage;
use crate::import::job::{self, Job, line_place};
use crate::trace::{NotRecorded, PayloadRef, StreamId};

/// What a record's place is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Places {
    /// By CPU and sequence number: the same in per-CPU files and in a merged one.
    Sequence,
    /// By line: the records of a text, which hold the number of their line as the sequence.
    Line,
}

impl Places {
    /// The place of `record`.
    pub fn of(self, record: &Record) -> String {
        match self {
            Self::Sequence => record.place(),
            Self::Line => line_place(record.sequence.into()),
        }
    }

    /// The order of records: of files as [`Record::key`] has it; a text has put them in order.
    pub fn key(self, record: &Record) -> (u64, u32, u32) {
        match self {
            Self::Sequence => record.key(),
            Self::Line => (record.time, 0, record.sequence),
        }
    }
}

/// Follows requests from issue to completion.
pub struct Requests {
    stage: Stage,
    places: Places,
    outstanding: Outstanding,
    /// Requests that the device handed back (R): the dispatch that follows is the same request.
    requeued: Vec<Request>,
    requeues: u64,
    completions: u64,
    preflush: bool,
    done: Vec<Request>,
    /// The stream looked up last: nearly always the next one too.
    stream: Option<(u32, StreamId)>,
}

/// Requests handed back and not dispatched again, at most.
const REQUEUED_MAX: usize = 1024;

impl Requests {
    /// Takes the issues of `stage`.
    pub fn new(stage: Stage) -> Self {
        Self::with_places(stage, Places::Sequence)
    }

    /// The same, of records whose places are called so.
    pub fn with_places(stage: Stage, places: Places) -> Self {
        Self {
            stage,
            places,
            outstanding: Outstanding::default(),
            requeued: Vec::new(),
            requeues: 0,
            completions: 0,
            preflush: false,
            done: Vec::new(),
            stream: None,
        }
    }

    /// Handles one record; false when it is of a moment that the stage has no use for.
    ///
    /// # Errors
    /// Those of the job.
    pub fn record(&mut self, record: &Record, time: Nanos, job: &mut Job<'_>) -> Result<bool> {
        let issue = match self.stage {
            Stage::Queue => act::QUEUE,
            Stage::Dispatch => act::ISSUE,
        };
        let place = || self.places.of(record);
        match record.act() {
            act::DRV_DATA => {
                job.summary.lose("data of a driver's own", place);
                Ok(true)
            }
            // Packet commands are not queued by a file system: only their dispatch is seen.
            act::ISSUE if record.is(cat::PC) => {
                job.summary.lose("packet command of a driver or user", place);
                Ok(true)
            }
            _ if record.is(cat::PC) => Ok(false),
            act if act == issue => self.issue(record, time, job).map(|()| true),
            act::COMPLETE => self.complete(record, time, job).map(|()| true),
            act::REQUEUE if self.stage == Stage::Dispatch => {
                self.requeue(record, job)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn stream(&mut self, record: &Record, job: &mut Job<'_>) -> Result<Option<StreamId>> {
        if let Some((device, stream)) = self.stream
            && device == record.device
        {
            return Ok(Some(stream));
        }
        let name = record.device_name();
        let stream = job.stream(name.as_bytes(), None, || self.places.of(record))?;
        self.stream = stream.map(|stream| (record.device, stream));
        Ok(stream)
    }

    fn issue(&mut self, record: &Record, time: Nanos, job: &mut Job<'_>) -> Result<()> {
        let places = self.places;
        let place = || places.of(record);
        let op = match operation(record) {
            Ok(op) => op,
            Err(reason) => {
                job.summary.lose(reason, place);
                return Ok(());
            }
        };
        let Some(stream) = self.stream(record, job)? else { return Ok(()) };
        if self.dispatched_again(stream, op, record) {
            return Ok(());
        }
        let (sector, len) =
            if op.has_range() { (record.sector, record.bytes.into()) } else { (0, 0) };
        let offset = sector.saturating_mul(crate::base::SECTOR_SIZE);
        if !job.accepts(op, offset, len, place) {
            return Ok(());
        }
        let flags = flags(record, op);
        self.preflush |= flags.contains(OpFlags::PREFLUSH);
        let tag = job.counts().requests();
        job.issue(job::Request {
            time,
            tag,
            stream,
            op,
            flags,
            offset,
            len,
            payload: PayloadRef::Absent,
            cpu: u16::try_from(record.cpu).ok(),
        })?;
        let request = Request::new(tag, stream, op, flags, record);
        if self.outstanding.insert(request, record).is_some() {
            job.summary.lose("completion not looked for: too many requests in flight", place);
        }
        Ok(())
    }

    fn complete(&mut self, record: &Record, time: Nanos, job: &mut Job<'_>) -> Result<()> {
        if record.is(cat::ZONES) {
            return Ok(());
        }
        let Some(stream) = self.stream(record, job)? else { return Ok(()) };
        let mut done = std::mem::take(&mut self.done);
        let found = if record.bytes > 0 {
            let queued = self.stage == Stage::Queue;
            self.outstanding.complete(stream, record, queued, &mut done)
        } else {
            done.extend(self.without_length(stream, record));
            // The steps of a flush sequence complete too, and answer nothing that was queued.
            true
        };
        if !found {
            job.summary.lose("completion of a request whose issue is not in the capture", || {
                self.places.of(record)
            });
        }
        for request in done.drain(..) {
            self.completions += 1;
            job.complete(time, request.stream, request.tag, request.status)?;
        }
        self.done = done;
        Ok(())
    }

    fn without_length(&mut self, stream: StreamId, record: &Record) -> Option<Request> {
        match self.stage {
            // The request that was queued keeps WRITE; the flushes made for it have READ.
            Stage::Queue if record.is(cat::WRITE) => self
                .outstanding
                .complete_flushed(stream, record)
                .or_else(|| self.outstanding.complete_flush(stream, record)),
            Stage::Queue => None,
            Stage::Dispatch if record.is(cat::FLUSH) => {
                self.outstanding.complete_flush(stream, record)
            }
            Stage::Dispatch => None,
        }
    }

    /// The driver could not take the request now: its issue stands, the next dispatch does not.
    fn requeue(&mut self, record: &Record, job: &mut Job<'_>) -> Result<()> {
        let Some(stream) = self.stream(record, job)? else { return Ok(()) };
        let Ok(op) = operation(record) else { return Ok(()) };
        if let Some(request) = self.outstanding.take_exact(stream, op, record) {
            self.requeues += 1;
            if self.requeued.len() >= REQUEUED_MAX {
                self.requeued.remove(0);
            }
            self.requeued.push(request);
        }
        Ok(())
    }

    fn dispatched_again(&mut self, stream: StreamId, op: BlockOp, record: &Record) -> bool {
        let same = |request: &Request| {
            request.stream == stream
                && request.op == op
                && (op == BlockOp::Flush
                    || (request.sector == record.sector && request.bytes == record.bytes))
        };
        let Some(at) = self.requeued.iter().position(same) else { return false };
        let request = self.requeued.remove(at);
        self.outstanding.insert(request, record);
        true
    }

    /// What is known at the end.
    pub fn finish(&mut self, job: &mut Job<'_>) {
        if self.completions == 0 {
            job.not_recorded |= NotRecorded::COMPLETIONS | NotRecorded::STATUS;
        } else {
            let open = self.outstanding.count() + self.requeued.len();
            if open > 0 {
                job.summary.note(format!("{open} requests have no completion in the capture"));
            }
        }
        if self.stage == Stage::Dispatch && !self.preflush {
            job.not_recorded |= NotRecorded::PREFLUSH;
        }
        if self.requeues > 0 {
            let count = self.requeues;
            job.summary.note(format!(
                "{count} dispatches were handed back by the driver; each counts once, at its first"
            ));
        }
    }
}

/// What a record asks for.
///
/// # Errors
/// Why it can be none of a trace.
pub fn operation(record: &Record) -> Result<BlockOp, &'static str> {
    const ZONES: [(u64, &str); 6] = [
        (cat::ZONE_APPEND, "zone append (the device chose the place)"),
        (cat::ZONE_RESET, "zone reset"),
        (cat::ZONE_RESET_ALL, "zone reset of all zones"),
        (cat::ZONE_FINISH, "zone finish"),
        (cat::ZONE_OPEN, "zone open"),
        (cat::ZONE_CLOSE, "zone close"),
    ];
    if let Some((_, reason)) = ZONES.into_iter().find(|(bit, _)| record.is(*bit)) {
        return Err(reason);
    }
    if record.is(cat::DISCARD) {
        // It sets WRITE too, and is no write.
        Ok(BlockOp::Discard)
    } else if record.is(cat::WRITE_ZEROES) {
        Ok(BlockOp::WriteZeroes)
    } else if record.bytes == 0 && record.is(cat::FLUSH) {
        Ok(BlockOp::Flush)
    } else if record.is(cat::WRITE) {
        Ok(BlockOp::Write)
    } else if record.is(cat::READ) {
        Ok(BlockOp::Read)
    } else {
        Err("record that is neither read nor write")
    }
}

/// The modifiers of a record that asks for `op`.
pub fn flags(record: &Record, op: BlockOp) -> OpFlags {
    let mut flags = OpFlags::empty();
    flags.set(OpFlags::PREFLUSH, record.is(cat::FLUSH) && op != BlockOp::Flush);
    // A flush has no data that FUA could be about.
    flags.set(OpFlags::FUA, record.is(cat::FUA) && op != BlockOp::Flush);
    flags.set(OpFlags::SYNC, record.is(cat::SYNC));
    flags.set(OpFlags::META, record.is(cat::META));
    flags.set(OpFlags::RAHEAD, record.is(cat::AHEAD));
    flags
}
