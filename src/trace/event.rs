//! The vocabulary of a trace: events, streams, and what is said of the whole.
//!
//! *Issue* and *complete* are separate events joined by a tag, so that order and overlap survive.
//! Fields that a source lacks are absent, never invented: see [`NotRecorded`].

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

use super::bus_event::{
    AckEvent, BusEvent, BusTotals, ClockStep, IrqChange, MemoryEvent, MemoryOp,
};
use crate::base::{BlockOp, Nanos, OpFlags};

/// A stream of a trace: one queue of one device. Dense from 0 in order of first appearance.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct StreamId(pub u32);

/// Where an event's data is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PayloadRef {
    /// The source did not record it, or the operation has none.
    #[default]
    Absent,
    /// The payload with this number in the trace's payload store (numbers start at 1).
    Stored(u32),
}

impl PayloadRef {
    /// The form in a record: 0 is absent.
    pub fn to_raw(self) -> u32 {
        match self {
            Self::Absent => 0,
            Self::Stored(number) => number,
        }
    }

    /// The inverse of [`PayloadRef::to_raw`].
    pub fn from_raw(raw: u32) -> Self {
        if raw == 0 { Self::Absent } else { Self::Stored(raw) }
    }
}

/// A request is handed to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Nanoseconds since the trace's time origin; 0 where the source has no times.
    pub time: Nanos,
    /// Joins it to its completion; unique among requests in flight, may be reused later.
    pub tag: u64,
    /// Device and queue.
    pub stream: StreamId,
    /// What is asked.
    pub op: BlockOp,
    /// Modifiers as the source had them.
    pub flags: OpFlags,
    /// Byte offset on the disk; 0 for operations without a range.
    pub offset: u64,
    /// Bytes; 0 for operations without a range.
    pub len: u64,
    /// The data written (reads carry theirs in [`Complete`]).
    pub payload: PayloadRef,
    /// The CPU that issued it, where the source says.
    pub cpu: Option<u16>,
}

/// The device answered a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complete {
    /// Nanoseconds since the trace's time origin.
    pub time: Nanos,
    /// The tag of the issue it answers.
    pub tag: u64,
    /// The stream of the issue it answers.
    pub stream: StreamId,
    /// 0 for success, else a Linux errno.
    pub status: u16,
    /// The data a read returned, where recorded.
    pub payload: PayloadRef,
}

/// A named point in the trace (dm-log-writes marks, a user's annotation).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Nanoseconds since the trace's time origin; 0 where the source has no times.
    pub time: Nanos,
    /// Stream it stands in.
    pub stream: StreamId,
    /// Its UTF-8 text, as a stored payload.
    pub text: PayloadRef,
    /// Length of the text in bytes.
    pub text_len: u64,
}

/// One event of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A request is handed to the device.
    Issue(Issue),
    /// The device answered a request.
    Complete(Complete),
    /// A named point.
    Mark(Mark),
    /// A vCPU accessed the bus.
    Bus(BusEvent),
    /// Guest memory was written, filled or looked at.
    Memory(MemoryEvent),
    /// An interrupt source changed.
    Irq(IrqChange),
    /// A CPU acknowledged an interrupt.
    Ack(AckEvent),
    /// The clock was moved, or devices were given a turn.
    Clock(ClockStep),
}

impl Event {
    /// When it happened, since the trace's time origin.
    pub fn time(&self) -> Nanos {
        match self {
            Self::Issue(issue) => issue.time,
            Self::Complete(complete) => complete.time,
            Self::Mark(mark) => mark.time,
            Self::Bus(bus) => bus.time,
            Self::Memory(memory) => memory.time,
            Self::Irq(irq) => irq.time,
            Self::Ack(ack) => ack.time,
            Self::Clock(step) => step.time,
        }
    }

    /// Moves it in time.
    pub fn set_time(&mut self, to: Nanos) {
        let time = match self {
            Self::Issue(issue) => &mut issue.time,
            Self::Complete(complete) => &mut complete.time,
            Self::Mark(mark) => &mut mark.time,
            Self::Bus(bus) => &mut bus.time,
            Self::Memory(memory) => &mut memory.time,
            Self::Irq(irq) => &mut irq.time,
            Self::Ack(ack) => &mut ack.time,
            Self::Clock(step) => &mut step.time,
        };
        *time = to;
    }

    /// The stream it belongs to.
    pub fn stream(&self) -> StreamId {
        match self {
            Self::Issue(issue) => issue.stream,
            Self::Complete(complete) => complete.stream,
            Self::Mark(mark) => mark.stream,
            Self::Bus(bus) => bus.stream,
            Self::Memory(memory) => memory.stream,
            Self::Irq(irq) => irq.stream,
            Self::Ack(ack) => ack.stream,
            Self::Clock(step) => step.stream,
        }
    }
}

/// Device and queue of a stream, as the source named them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamInfo {
    /// The device as the source names it: `253,0`, `web-1`, `vda`; empty when it does not.
    pub device: String,
    /// Queue of that device, where the source says.
    pub queue: Option<u32>,
    /// Size of the device in bytes, where the source says.
    pub device_bytes: Option<u64>,
    /// Logical block size in bytes, where the source says.
    pub block_bytes: Option<u32>,
}

bitflags! {
    /// What the source could not say. A set bit is a promise that the trace holds none of it, so
    /// a reader knows absence from zero.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(transparent)]
    pub struct NotRecorded: u32 {
        /// The data of writes.
        const WRITE_DATA = 1 << 0;
        /// The data that reads returned.
        const READ_DATA = 1 << 1;
        /// Completions, hence latency and queue depth.
        const COMPLETIONS = 1 << 2;
        /// The status of completions.
        const STATUS = 1 << 3;
        /// Reads.
        const READS = 1 << 4;
        /// Flushes.
        const FLUSHES = 1 << 5;
        /// Discards.
        const DISCARDS = 1 << 6;
        /// Write-zeroes as such (they may stand as plain writes, with or without zero data).
        const WRITE_ZEROES = 1 << 7;
        /// The FUA bit of writes.
        const FUA = 1 << 8;
        /// The PREFLUSH bit of writes.
        const PREFLUSH = 1 << 9;
        /// Times: events are in order and nothing more is known.
        const TIMES = 1 << 10;
        /// The order in which requests were issued (the source logged them at completion).
        const ISSUE_ORDER = 1 << 11;
        /// Queues of a device.
        const QUEUES = 1 << 12;
        /// CPUs.
        const CPUS = 1 << 13;
        /// The size of the device.
        const DEVICE_SIZE = 1 << 14;
        /// Whether a write-zeroes may unmap.
        const UNMAP = 1 << 15;
        /// SYNC, META and RAHEAD hints.
        const HINTS = 1 << 16;
        /// The values that reads of the bus returned.
        const READ_VALUES = 1 << 17;
        /// Guest memory that the driver wrote.
        const MEMORY = 1 << 18;
        /// Interrupts.
        const IRQS = 1 << 19;
        /// Accesses that the source's observer never sees: doorbells taken by the kernel.
        const DOORBELLS = 1 << 20;
        /// Which region of the bus an access belongs to.
        const REGIONS = 1 << 21;
    }
}

impl NotRecorded {
    /// The set as words for people and JSON, in bit order.
    pub fn names(self) -> Vec<String> {
        self.iter_names().map(|(name, _)| name.to_lowercase().replace('_', "-")).collect()
    }
}

/// What is known when a trace is begun; stands first in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceHeader {
    /// What wrote it: `qtrace 0.1.0`.
    pub tool: String,
    /// The format it came from: `dm-log-writes`, `blktrace`, …; `nbd` and the like for recordings.
    pub source_format: String,
    /// How the source was read: stage chosen, units assumed; one `key: value` a line.
    pub interpretation: Vec<String>,
    /// Unix time in nanoseconds of the trace's time origin, where the source says.
    pub origin_unix_ns: Option<u64>,
    /// What the source cannot say (as far as known at the start).
    pub not_recorded: NotRecorded,
}

/// What is known when a trace is finished; stands last in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceSummary {
    /// Final word on what the trace lacks; replaces the header's.
    pub not_recorded: NotRecorded,
    /// Everything skipped or lost on the way in, by reason.
    pub losses: Vec<Loss>,
    /// Things a reader should know that lost nothing (a unit guessed, records reordered).
    pub notes: Vec<String>,
    /// Per stream, what a replay must know before it begins.
    pub streams: Vec<StreamTotals>,
}

/// Records of the source that did not become events, for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Why, in a few words; stable, so that scripts can match it.
    pub reason: String,
    /// How many records.
    pub count: u64,
    /// Where the first one stood: `line 17`, `file x.blktrace.0 offset 480`.
    pub first: String,
}

/// Totals of one stream, kept by the writer as events pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamTotals {
    /// Issues by operation, indexed by [`BlockOp::index`].
    pub issues: [u64; 6],
    /// Bytes by operation, indexed by [`BlockOp::index`].
    pub bytes: [u64; 6],
    /// Completions.
    pub completes: u64,
    /// Marks.
    pub marks: u64,
    /// First byte past the last one any request names: the smallest disk that holds them all.
    pub end_bytes: u64,
    /// Events of the bus. They stand behind the rest of the summary, since format 1.0 has none.
    #[serde(skip)]
    pub bus: BusTotals,
}

impl StreamTotals {
    /// Counts `event`, which belongs to this stream.
    pub fn add(&mut self, event: &Event) {
        match event {
            Event::Issue(issue) => self.add_issue(issue),
            Event::Complete(_) => self.completes += 1,
            Event::Mark(_) => self.marks += 1,
            Event::Bus(bus) => self.bus.access(&bus.access),
            Event::Memory(memory) => match memory.op {
                MemoryOp::Write => self.bus.memory[0] += 1,
                MemoryOp::Fill => self.bus.memory[1] += 1,
                MemoryOp::Read => self.bus.memory[2] += 1,
            },
            Event::Irq(irq) => self.bus.irqs[usize::from(!irq.high)] += 1,
            Event::Ack(_) => self.bus.acks += 1,
            Event::Clock(_) => self.bus.steps += 1,
        }
    }

    /// Counts an issue.
    #[inline]
    pub(super) fn add_issue(&mut self, issue: &Issue) {
        let op = issue.op.index();
        self.issues[op] += 1;
        self.bytes[op] = self.bytes[op].saturating_add(issue.len);
        if issue.op.has_range() {
            self.end_bytes = self.end_bytes.max(issue.offset.saturating_add(issue.len));
        }
    }
}
