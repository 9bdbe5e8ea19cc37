//! What `qtrace info` says, gathered in one pass; serialised as it is for `--format json`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::base::{BlockOp, OpFlags, Result};
use crate::profile::{Profile, Profiler};
use crate::trace::{
    BusTotals, Event, Issue, Loss, PayloadRef, PayloadTotals, StreamInfo, StreamTotals, Trace,
    is_being_written,
};

/// Events between two moves of the progress bar.
const PROGRESS_EVENTS: u64 = 1 << 18;

/// A number for each operation, by its name.
type PerOp = BTreeMap<&'static str, u64>;

/// Everything that `qtrace info` prints.
#[derive(Debug, Serialize)]
pub(super) struct Facts {
    /// Version of this document's layout.
    pub(super) schema: &'static str,
    pub(super) file: String,
    pub(super) file_bytes: u64,
    pub(super) tool: String,
    pub(super) source_format: String,
    pub(super) interpretation: Vec<String>,
    pub(super) origin_unix_ns: Option<u64>,
    /// Events of every kind.
    pub(super) events: u64,
    /// Issues by operation.
    pub(super) ops: PerOp,
    /// Bytes by operation.
    pub(super) bytes: PerOp,
    /// Issues by operation and flags, of those that have flags: `write+preflush+fua`.
    pub(super) flags: BTreeMap<String, u64>,
    /// Issues that carry the data they write.
    pub(super) issues_with_payload: u64,
    pub(super) completions: u64,
    /// Completions with an error.
    pub(super) failures: u64,
    /// Completions that carry the data read.
    pub(super) completions_with_payload: u64,
    pub(super) marks: u64,
    /// Events of a bus.
    pub(super) bus: Bus,
    /// From the first event to the last, in time.
    pub(super) duration_ns: u64,
    pub(super) first_time_ns: Option<u64>,
    /// The smallest disk that holds every request.
    pub(super) end_bytes: u64,
    pub(super) payloads: PayloadTotals,
    pub(super) not_recorded: Vec<String>,
    pub(super) losses: Vec<Loss>,
    pub(super) notes: Vec<String>,
    pub(super) streams: Vec<Stream>,
    /// What the requests are like.
    pub(super) profile: Profile,
    /// Whether the file ends as it should.
    pub(super) complete: bool,
    /// It is incomplete because its recorder has not ended.
    pub(super) being_recorded: bool,
    pub(super) truncation: Option<Cut>,
}

/// One stream.
#[derive(Debug, Serialize)]
pub(super) struct Stream {
    pub(super) id: usize,
    #[serde(flatten)]
    pub(super) info: StreamInfo,
    pub(super) ops: PerOp,
    pub(super) bytes: PerOp,
    pub(super) completions: u64,
    pub(super) marks: u64,
    pub(super) end_bytes: u64,
    #[serde(skip_serializing_if = "Bus::is_empty")]
    pub(super) bus: Bus,
}

/// Events of a bus, of a stream or of all.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Bus {
    pub(super) port_reads: u64,
    pub(super) port_writes: u64,
    pub(super) mmio_reads: u64,
    pub(super) mmio_writes: u64,
    pub(super) memory_writes: u64,
    pub(super) memory_fills: u64,
    pub(super) memory_reads: u64,
    pub(super) irqs_fired: u64,
    pub(super) irqs_low: u64,
    pub(super) acknowledges: u64,
    pub(super) clock_steps: u64,
    /// First and last byte accessed.
    pub(super) addresses: Option<(u64, u64)>,
}

impl Bus {
    fn of(totals: &BusTotals) -> Self {
        let [port_reads, port_writes] = totals.ports;
        let [mmio_reads, mmio_writes] = totals.mmio;
        let [memory_writes, memory_fills, memory_reads] = totals.memory;
        let [irqs_fired, irqs_low] = totals.irqs;
        let addresses = (totals.accesses() > 0).then_some((totals.addr_min, totals.addr_max));
        Self {
            port_reads,
            port_writes,
            mmio_reads,
            mmio_writes,
            memory_writes,
            memory_fills,
            memory_reads,
            irqs_fired,
            irqs_low,
            acknowledges: totals.acks,
            clock_steps: totals.steps,
            addresses,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Where and why the file ends early.
#[derive(Debug, Serialize)]
pub(super) struct Cut {
    pub(super) offset: u64,
    pub(super) bytes_lost: u64,
    pub(super) why: String,
}

/// What only a pass over the events tells.
#[derive(Default)]
struct Counts {
    flags: BTreeMap<(BlockOp, u16), u64>,
    issues_with_payload: u64,
    completions_with_payload: u64,
    failures: u64,
}

impl Counts {
    fn of(trace: &Trace, progress: &mut dyn FnMut(u64)) -> Result<(Self, Profile)> {
        let mut counts = Self::default();
        let mut profiler = Profiler::new(trace);
        let mut cursor = trace.cursor(0);
        while let Some((number, event)) = cursor.next()? {
            if number.is_multiple_of(PROGRESS_EVENTS) {
                progress(number);
            }
            profiler.event(&event);
            match event {
                Event::Issue(issue) => counts.issue(&issue),
                Event::Complete(complete) => {
                    counts.failures += u64::from(complete.status != 0);
                    counts.completions_with_payload += has(complete.payload);
                }
                Event::Mark(_)
                | Event::Bus(_)
                | Event::Memory(_)
                | Event::Irq(_)
                | Event::Ack(_)
                | Event::Clock(_) => {}
            }
        }
        Ok((counts, profiler.finish()))
    }

    fn issue(&mut self, issue: &Issue) {
        self.issues_with_payload += has(issue.payload);
        if !issue.flags.is_empty() {
            *self.flags.entry((issue.op, issue.flags.bits())).or_default() += 1;
        }
    }
}

fn has(payload: PayloadRef) -> u64 {
    u64::from(payload != PayloadRef::Absent)
}

impl Facts {
    /// Reads every event once. `progress` gets the number reached.
    pub(super) fn gather(trace: &Trace, progress: &mut dyn FnMut(u64)) -> Result<Self> {
        let (counts, profile) = Counts::of(trace, progress)?;
        let total = sum(trace.totals());
        let span = trace.time_span();
        let (header, summary) = (trace.header(), trace.summary());
        let named = |(op, bits): (BlockOp, u16)| {
            format!("{}+{}", op.name(), OpFlags::from_bits_truncate(bits).names())
        };
        Ok(Self {
            schema: "qtrace.info/1",
            file: trace.path().display().to_string(),
            file_bytes: trace.file_bytes(),
            tool: header.tool.clone(),
            source_format: header.source_format.clone(),
            interpretation: header.interpretation.clone(),
            origin_unix_ns: header.origin_unix_ns,
            events: trace.events(),
            ops: per_op(total.issues),
            bytes: per_op(total.bytes),
            flags: counts.flags.into_iter().map(|(key, count)| (named(key), count)).collect(),
            issues_with_payload: counts.issues_with_payload,
            completions: total.completes,
            failures: counts.failures,
            completions_with_payload: counts.completions_with_payload,
            marks: total.marks,
            bus: Bus::of(&total.bus),
            duration_ns: span.map_or(0, |(first, last)| last - first),
            first_time_ns: span.map(|(first, _)| first.0),
            end_bytes: total.end_bytes,
            payloads: trace.payload_totals(),
            not_recorded: summary.not_recorded.names(),
            losses: summary.losses.clone(),
            notes: summary.notes.clone(),
            streams: streams(trace),
            profile,
            complete: trace.truncation().is_none(),
            being_recorded: trace.truncation().is_some() && is_being_written(trace.path()),
            truncation: trace.truncation().map(|cut| Cut {
                offset: cut.offset,
                bytes_lost: cut.bytes_lost,
                why: cut.why.clone(),
            }),
        })
    }
}

fn streams(trace: &Trace) -> Vec<Stream> {
    let both = trace.streams().iter().zip(trace.totals());
    both.enumerate()
        .map(|(id, (info, totals))| Stream {
            id,
            info: info.clone(),
            ops: per_op(totals.issues),
            bytes: per_op(totals.bytes),
            completions: totals.completes,
            marks: totals.marks,
            end_bytes: totals.end_bytes,
            bus: Bus::of(&totals.bus),
        })
        .collect()
}

fn sum(streams: &[StreamTotals]) -> StreamTotals {
    let mut sum = StreamTotals::default();
    for stream in streams {
        for op in BlockOp::ALL {
            let at = op.index();
            sum.issues[at] = sum.issues[at].saturating_add(stream.issues[at]);
            sum.bytes[at] = sum.bytes[at].saturating_add(stream.bytes[at]);
        }
        sum.completes = sum.completes.saturating_add(stream.completes);
        sum.marks = sum.marks.saturating_add(stream.marks);
        sum.end_bytes = sum.end_bytes.max(stream.end_bytes);
        sum.bus.merge(&stream.bus);
    }
    sum
}

fn per_op(numbers: [u64; 6]) -> PerOp {
    BlockOp::ALL.into_iter().map(|op| (op.name(), numbers[op.index()])).collect()
}
