//! From jobs to device requests: room, order, data.

use super::{Accounts, Active, Blocked, Engine, Slot};
use crate::base::error::Place;
use crate::base::{BlockOp, Error, Result, SECTOR_SIZE, stamp};
use crate::driver::{BlockRequest, Buffer, Submitted};
use crate::oracle::PlannedRequest;
use crate::replay::inflight::Range;
use crate::replay::plan::Job;
use crate::replay::policy::OverlapPolicy;
use crate::replay::run_log::Part;
use crate::replay::source::Source;
use crate::trace::PayloadRef;

/// The virtio-blk device identifier (virtio 1.2 §5.2.6, `VIRTIO_BLK_T_GET_ID`).
const ID_BYTES: u64 = 20;

impl<S: Source, A: Accounts> Engine<'_, S, A> {
    /// Starts a job, or says what it waits for.
    pub(super) fn start(&mut self, job: Job) -> Result<Option<Blocked>> {
        if let Some(schedule) = &mut self.pacer.schedule {
            self.now = self.clock.now();
            let due = *self.due.get_or_insert_with(|| schedule.due(job.time, self.now));
            if due > self.now {
                return Ok(Some(Blocked::Until(due)));
            }
        }
        if self.slots_free.is_empty() {
            return Ok(Some(Blocked::Answer));
        }
        let range = Range {
            start: job.request.sector,
            end: job.request.sector.saturating_add(job.request.sectors),
            writer: job.request.op.changes_content(),
        };
        if self.config.overlap == OverlapPolicy::Hold && self.ranges.conflicts(range) {
            self.held_since.get_or_insert(self.now);
            return Ok(Some(Blocked::Answer));
        }
        let Some(index) = self.jobs_free.pop() else {
            return Ok(Some(Blocked::Answer));
        };
        if let Some(since) = self.held_since.take() {
            self.outcome.held += 1;
            self.outcome.held_ns = self.outcome.held_ns.saturating_add(self.now - since);
        }
        self.ranges.insert(index as usize, range);
        if let Some(closed) = &mut self.pacer.closed {
            closed.issued(job.stream, job.tag, index);
        }
        let step = if job.pre_flush { Part::FlushBefore } else { Part::Body };
        let active = Active {
            job,
            issued: 0,
            body_started: false,
            step,
            outstanding: 0,
            ok: true,
            issue: None,
            due: self.due.take(),
        };
        if let Some(entry) = self.jobs.get_mut(index as usize) {
            *entry = Some(active);
        }
        if !self.advance(index)? {
            self.ready.push_back(index);
        }
        Ok(None)
    }

    /// Issues as much of a job's present step as there is room for; whether that was all of it.
    pub(super) fn advance(&mut self, index: u32) -> Result<bool> {
        loop {
            let Some(active) = self.active(index) else {
                return Ok(true);
            };
            let Some((device, request)) = next_part(active) else {
                return Ok(true);
            };
            let (part, queue) = (active.step, active.job.queue);
            if !self.issue(index, part, queue, device, request)? {
                return Ok(false);
            }
            let now = self.now;
            if let Some(active) = self.jobs.get_mut(index as usize).and_then(Option::as_mut) {
                active.issued += if part == Part::Body { request.sectors } else { 0 };
                active.body_started = true;
                active.outstanding += 1;
                active.issue.get_or_insert(now);
            }
        }
    }

    fn active(&self, index: u32) -> Option<&Active> {
        self.jobs.get(index as usize).and_then(Option::as_ref)
    }

    /// Puts one device request on its ring; `false` when there is no room now.
    fn issue(
        &mut self,
        job: u32,
        part: Part,
        queue: u16,
        device: BlockOp,
        request: PlannedRequest,
    ) -> Result<bool> {
        let Some(&slot) = self.slots_free.last() else {
            return Ok(false);
        };
        let bytes = match device {
            BlockOp::Read | BlockOp::Write => request.sectors.saturating_mul(SECTOR_SIZE),
            BlockOp::GetId => ID_BYTES,
            _ => 0,
        };
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let buffer = match self.prepare(device, &request, bytes) {
            Ok(Some(buffer)) => buffer,
            Ok(None) => return self.no_room("guest RAM holds no buffer", bytes),
            Err(error) => return Err(error.at(Place::Event(request.event))),
        };
        let wire = BlockRequest {
            op: device,
            sector: request.sector,
            sectors: u32::try_from(request.sectors).unwrap_or(u32::MAX),
            unmap: request.unmap,
        };
        match self.driver.submit(queue, u64::from(slot), &wire, buffer)? {
            Submitted::Full(buffer) => {
                if let Some(buffer) = buffer {
                    self.driver.release(buffer);
                }
                return self.no_room("the ring is full", bytes);
            }
            Submitted::Queued => {}
        }
        self.accounts.issued(u64::from(slot), &request)?;
        if self.in_flight() == 0 {
            self.alive_at = self.now;
        }
        self.slots_free.pop();
        if let Some(entry) = self.slots.get_mut(slot as usize) {
            *entry = Some(Slot { job, request, part, bytes, issue: self.now });
        }
        self.kick = true;
        self.outcome.device_requests += 1;
        self.outcome.in_flight_max = self.outcome.in_flight_max.max(self.in_flight());
        Ok(true)
    }

    /// No room is fine while answers are to come, which make room.
    fn no_room(&self, what: &str, bytes: usize) -> Result<bool> {
        if self.in_flight() > 0 {
            return Ok(false);
        }
        let what = format!("{what} for a request of {bytes} bytes, with nothing in flight");
        Err(Error::machine(what)
            .hint("ram= gives the guest more memory, transfer_max= cuts requests"))
    }

    /// The buffer of a request, filled. `Ok(None)`: no memory now; `Ok(Some(None))`: none needed.
    fn prepare(
        &mut self,
        device: BlockOp,
        request: &PlannedRequest,
        bytes: usize,
    ) -> Result<Option<Option<Buffer>>> {
        if bytes == 0 {
            return Ok(Some(None));
        }
        let Some(mut buffer) = self.driver.buffer(bytes) else {
            return Ok(None);
        };
        let memory = self.driver.bytes_mut(&mut buffer);
        let Some(memory) = memory.get_mut(..bytes) else {
            return Err(Error::machine(format!("a buffer of fewer than {bytes} bytes")));
        };
        match (device, request.op, request.payload) {
            (BlockOp::Write, BlockOp::WriteZeroes, _) => memory.fill(0),
            (BlockOp::Write, _, PayloadRef::Absent) => {
                stamp::fill(memory, self.config.seed, request.sector, request.write);
            }
            (BlockOp::Write, _, payload) => {
                let (total, from) = (request.payload_total, request.payload_from);
                self.source.payload(payload, total, from, memory)?;
            }
            _ if self.accounts.wants_data() => poison(memory),
            _ => {}
        }
        Ok(Some(Some(buffer)))
    }
}

/// The next device request of a job's present step, if it has one that was not issued yet: the
/// operation for the device, and what it means.
pub(super) fn next_part(active: &Active) -> Option<(BlockOp, PlannedRequest)> {
    let job = &active.job;
    let whole = job.request;
    if active.step != Part::Body {
        let flush = PlannedRequest {
            op: BlockOp::Flush,
            sector: 0,
            sectors: 0,
            payload: PayloadRef::Absent,
            unmap: false,
            ..whole
        };
        return (!active.body_started).then_some((BlockOp::Flush, flush));
    }
    if !whole.op.has_range() {
        return (!active.body_started).then_some((job.device_op, whole));
    }
    let left = whole.sectors.saturating_sub(active.issued);
    let piece = PlannedRequest {
        sector: whole.sector + active.issued,
        sectors: left.min(job.piece_sectors),
        payload_from: whole.payload_from + active.issued * SECTOR_SIZE,
        ..whole
    };
    (piece.sectors > 0).then_some((job.device_op, piece))
}

/// Marks each sector of a read's buffer, so that what an earlier request left in it is never taken
/// for an answer that the device did not give.
fn poison(memory: &mut [u8]) {
    const POISON: [u8; 8] = [0xa5, 0x5a, 0xde, 0xad, 0xa5, 0x5a, 0xde, 0xad];
    for sector in memory.chunks_mut(SECTOR_SIZE as usize) {
        if let Some(first) = sector.first_chunk_mut() {
            *first = POISON;
        }
        if let Some(last) = sector.last_chunk_mut() {
            *last = POISON;
        }
    }
}
