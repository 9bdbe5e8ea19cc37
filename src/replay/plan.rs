//! What an issued request of the trace becomes on this device: its place, its pieces, its flushes.

use serde::Serialize;

use super::placement::Layout;
use crate::base::error::Place;
use crate::base::{BlockOp, Nanos, OpFlags, Result, SECTOR_SIZE};
use crate::driver::BlockLimits;
use crate::oracle::PlannedRequest;
use crate::trace::{Issue, PayloadRef, StreamId};

/// One request of the trace, ready to be carried out: flush first, the body in pieces, flush last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// The whole range, and the data for it.
    pub request: PlannedRequest,
    /// What the device is asked: differs from the request's operation where the device lacks it.
    pub device_op: BlockOp,
    /// Most sectors that one device request takes.
    pub piece_sectors: u64,
    /// The source asked for a flush before it (PREFLUSH).
    pub pre_flush: bool,
    /// The source asked for it to be durable when it completes (FUA).
    pub post_flush: bool,
    /// Device queue.
    pub queue: u16,
    /// When the recording issued it.
    pub time: Nanos,
    /// Stream and tag in the recording.
    pub stream: StreamId,
    /// See `stream`.
    pub tag: u64,
}

impl Job {
    /// Whether the body is a device request at all (an emptied body leaves only flushes).
    pub fn has_body(&self) -> bool {
        !self.request.op.has_range() || self.request.sectors > 0
    }
}

/// What the plan did to the trace's requests, beyond passing them on. All are counts of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PlanCounts {
    /// Left out: they belong to a device that was not selected.
    pub other_device: u64,
    /// Left out: reads, writes or ranges of no length and without PREFLUSH.
    pub empty: u64,
    /// Left out: discards, which the device does not offer.
    pub discards_not_offered: u64,
    /// Left out: flushes, which the device does not offer.
    pub flushes_not_offered: u64,
    /// Written as zero data: the device does not offer write-zeroes.
    pub write_zeroes_as_data: u64,
    /// Cut into pieces, being larger than the device or the driver takes.
    pub split: u64,
    /// Moved back into the disk (`offset=wrap`).
    pub wrapped: u64,
    /// Shortened to the disk's end (`offset=clip`, or longer than the whole disk).
    pub clipped: u64,
    /// Left out: wholly past the disk's end (`offset=clip`).
    pub clipped_out: u64,
    /// Rounded to whole blocks (`unaligned=round`).
    pub rounded: u64,
    /// Of those: writes whose recorded data no longer fits and is replaced by stamps.
    pub rounded_restamped: u64,
    /// Preceded by a flush, for their PREFLUSH.
    pub flush_before: u64,
    /// Followed by a flush, for their FUA.
    pub flush_after: u64,
}

/// Turns issues into jobs.
pub struct Planner {
    layout: Layout,
    limits: BlockLimits,
    /// Device queue by stream.
    queues: Vec<u16>,
    /// What was done so far.
    pub counts: PlanCounts,
}

/// The device's queue of each stream of a trace, by the queue that the source names for it.
pub fn queues_of(device_queues: u16, queues: impl Iterator<Item = Option<u32>>) -> Vec<u16> {
    let device_queues = u32::from(device_queues.max(1));
    let queue_of = |(nth, queue): (u32, Option<u32>)| {
        u16::try_from(queue.unwrap_or(nth) % device_queues).unwrap_or(0)
    };
    (0..).zip(queues).map(queue_of).collect()
}

impl Planner {
    /// A planner for a device with `limits`. `queues` has, for each stream of the trace, the queue
    /// that the source names for it; a stream without one gets the device's queues in turn.
    pub fn new(
        layout: Layout,
        limits: BlockLimits,
        queues: impl Iterator<Item = Option<u32>>,
    ) -> Self {
        let queues = queues_of(limits.queues, queues);
        Self { layout, limits, queues, counts: PlanCounts::default() }
    }

    /// Whether requests and completions of `stream` take part in the replay.
    pub fn selects(&self, stream: StreamId) -> bool {
        self.layout.selects(stream)
    }

    /// The job for `issue`, which stands at `event` and has write number `write`; `None` when it
    /// is left out (and counted).
    ///
    /// # Errors
    /// A request that does not fit the disk or its blocks, where the policy is `error`.
    pub fn plan(&mut self, event: u64, write: u64, issue: &Issue) -> Result<Option<Job>> {
        if !self.selects(issue.stream) {
            self.counts.other_device += 1;
            return Ok(None);
        }
        let queue = self.queues.get(issue.stream.0 as usize).copied().unwrap_or(0);
        let mut job = Job {
            request: PlannedRequest {
                write,
                event,
                op: issue.op,
                sector: 0,
                sectors: 0,
                payload: PayloadRef::Absent,
                payload_total: issue.len,
                payload_from: 0,
                // Virtio 1.2 §5.2.6.1: a discard must not carry the unmap flag.
                unmap: issue.op == BlockOp::WriteZeroes && issue.flags.contains(OpFlags::UNMAP),
            },
            device_op: issue.op,
            piece_sectors: 0,
            pre_flush: issue.flags.contains(OpFlags::PREFLUSH),
            post_flush: issue.flags.contains(OpFlags::FUA),
            queue,
            time: issue.time,
            stream: issue.stream,
            tag: issue.tag,
        };
        if issue.op.has_range() {
            self.place(&mut job, issue).map_err(|e| e.at(Place::Event(event)))?;
        }
        self.offer(&mut job);
        Ok(self.flushes(&mut job).then_some(job))
    }

    /// Range and data: whole blocks, inside the disk.
    fn place(&mut self, job: &mut Job, issue: &Issue) -> Result<()> {
        let spot = self.layout.spot(issue)?;
        job.request.sector = spot.start;
        job.request.sectors = spot.end - spot.start;
        let counts = &mut self.counts;
        counts.rounded += u64::from(spot.rounded);
        counts.wrapped += u64::from(spot.wrapped);
        let empty = job.request.sectors == 0;
        counts.clipped += u64::from(spot.clipped && !empty);
        counts.clipped_out += u64::from(spot.clipped && empty);
        if issue.op == BlockOp::Write && issue.payload != PayloadRef::Absent {
            if spot.rounded {
                counts.rounded_restamped += u64::from(!empty);
            } else {
                job.request.payload = issue.payload;
            }
        }
        Ok(())
    }

    /// Fits the operation to what the device offers.
    fn offer(&mut self, job: &mut Job) {
        let transfer = (self.limits.transfer_bytes_max as u64 / SECTOR_SIZE).max(1);
        let max = match job.request.op {
            BlockOp::Read | BlockOp::Write => transfer,
            BlockOp::Flush | BlockOp::GetId => return,
            BlockOp::Discard if self.limits.discard_sectors_max == 0 => {
                self.drop_body(job, |counts| &mut counts.discards_not_offered);
                return;
            }
            BlockOp::Discard => u64::from(self.limits.discard_sectors_max),
            BlockOp::WriteZeroes if self.limits.write_zeroes_sectors_max == 0 => {
                job.device_op = BlockOp::Write;
                self.counts.write_zeroes_as_data += u64::from(job.request.sectors > 0);
                transfer
            }
            BlockOp::WriteZeroes => u64::from(self.limits.write_zeroes_sectors_max),
        };
        // A piece is whole blocks where a block fits in it, and fits the 32-bit length field.
        let max = max.min(u64::from(u32::MAX));
        let block = self.layout.block_sectors();
        job.piece_sectors = (max / block * block).max(1);
        self.counts.split += u64::from(job.request.sectors > job.piece_sectors);
    }

    fn drop_body(&mut self, job: &mut Job, counter: impl Fn(&mut PlanCounts) -> &mut u64) {
        if job.request.sectors > 0 {
            *counter(&mut self.counts) += 1;
        }
        job.request.sectors = 0;
    }

    /// Settles the flushes; `false` when nothing is left to do.
    fn flushes(&mut self, job: &mut Job) -> bool {
        // Linux sends an empty write with PREFLUSH for a plain flush (REQ_OP_WRITE | REQ_PREFLUSH).
        if job.request.op == BlockOp::Write && !job.has_body() && job.pre_flush {
            job.request = PlannedRequest { op: BlockOp::Flush, sector: 0, ..job.request };
            job.device_op = BlockOp::Flush;
        }
        if job.request.op == BlockOp::Flush {
            (job.pre_flush, job.post_flush) = (false, false);
            self.counts.flushes_not_offered += u64::from(!self.limits.flush);
            return self.limits.flush;
        }
        job.post_flush &= job.request.op.changes_content() && job.has_body();
        if !self.limits.flush {
            let wanted = u64::from(job.pre_flush) + u64::from(job.post_flush);
            self.counts.flushes_not_offered += wanted;
            (job.pre_flush, job.post_flush) = (false, false);
        }
        self.counts.flush_before += u64::from(job.pre_flush);
        self.counts.flush_after += u64::from(job.post_flush);
        if !job.has_body() && !job.pre_flush {
            self.counts.empty += u64::from(job.request.payload_total == 0);
            return false;
        }
        true
    }
}
