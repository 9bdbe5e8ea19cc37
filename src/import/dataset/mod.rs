//! What the importers of research data sets share: rows of requests with a time and perhaps a
//! response time, in files that are nearly in order of time.
//!
//! - `data_set`: what a format has of its own, and the importer that the rest makes of it;
//! - [`clock`]: what a time column counts, told, documented or guessed with a warning;
//! - [`columns`]: what a format says of its columns, read from [`fields`], into which a line was
//!   split, or [`quick`], from where a plain line stands;
//! - [`numbers`]: the numbers in them, [eight bytes at a time](swar);
//! - [`text`] and [`binary`]: rows of lines, rows of fixed-size records;
//! - [`batch`]: lines and their rows, a batch at a time, in a large input by a thread of its own;
//! - [`streams`]: the streams of rows, by the names of their devices, which stand in [`places`];
//! - [`reorder`]: a window that puts the rows of one input in order of time;
//! - [`emit`]: rows as issues and completions, in the order of a replay; completions are
//!   [`waiting`] for their time;
//! - [`order`]: the order of a batch by time;
//! - [`probe`]: whether the first lines look like a format.
//!
//! Several inputs are merged by time. A response time becomes a completion event; a row without
//! one has none.

mod batch;
pub(super) mod binary;
pub(super) mod clock;
pub(super) mod columns;
mod data_set;
mod emit;
pub(super) mod fields;
mod numbers;
mod order;
mod places;
pub(super) mod probe;
pub(super) mod quick;
mod reorder;
pub(super) mod streams;
mod swar;
pub(super) mod text;
mod waiting;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use self::clock::Clock;
pub(super) use self::data_set::{About, DataSet};
use self::emit::Emitter;
use self::places::Places;
use self::reorder::Reorder;
use self::text::Parsed;
use super::job::Job;
use super::note_condition;
use super::source::Source;
use crate::base::limits::{SORT_WINDOW_INPUT_ROWS_MIN, SORT_WINDOW_ROWS};
use crate::base::{BlockOp, OpFlags, Result};
use crate::trace::{NotRecorded, StreamId};

/// A request, or the end of one, as a data set records it; as small as it can be, since a window
/// of them is held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// Nanoseconds since the clock's own zero.
    pub time: u64,
    /// Bytes.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// Nanoseconds from issue to completion; [`Row::NO_LATENCY`] where it is not known.
    pub latency: u64,
    /// Joins issue and completion.
    pub tag: u64,
    /// The device.
    pub stream: StreamId,
    /// Modifiers.
    pub flags: OpFlags,
    /// The tag is the row's own, and not given here.
    pub own_tag: bool,
    /// What is asked; `None` for a row that is the completion of the request with its tag.
    pub op: Option<BlockOp>,
}

impl Row {
    /// Says that a row has no response time.
    pub const NO_LATENCY: u64 = u64::MAX;

    /// When a request ends, where that is known; no later than time can be.
    #[inline]
    fn ends(&self) -> Option<u64> {
        let known = self.op.is_some() && self.latency != Self::NO_LATENCY;
        known.then(|| self.time.saturating_add(self.latency))
    }

    /// The row that was parsed, of no stream yet.
    #[inline]
    fn of(parsed: &Parsed<'_>) -> Self {
        let &Parsed { time, op, flags, offset, len, .. } = parsed;
        Self {
            time,
            offset,
            len,
            latency: parsed.latency.map_or(Self::NO_LATENCY, |ns| ns.min(Self::NO_LATENCY - 1)),
            tag: parsed.tag.unwrap_or_default(),
            stream: ONLY_DEVICE,
            flags,
            own_tag: parsed.tag.is_some(),
            op,
        }
    }
}

/// In place of a stream: the input's only device.
const ONLY_DEVICE: StreamId = StreamId(u32::MAX);

/// What the readers of all inputs share.
pub(super) struct Context {
    /// What times count.
    pub clock: Clock,
    /// Rows read: the next tag.
    pub tags: u64,
    /// Streams by the names of their devices.
    known: Places<StreamId>,
}

/// The rows of one input.
pub(super) trait Rows {
    /// Adds the next rows, about `most`, in the input's own order; false at its end. What cannot
    /// be read is counted in `job`.
    fn fill(
        &mut self,
        rows: &mut Vec<Row>,
        most: usize,
        context: &mut Context,
        job: &mut Job<'_>,
    ) -> Result<bool>;

    /// The input, to ask what its end was like, once it has ended.
    fn source(&self) -> Option<&Source>;
}

/// The rows of one input, of which each is read when it is asked for.
pub(super) trait RowByRow {
    /// The next row; `None` at the end.
    fn next_row(&mut self, context: &mut Context, job: &mut Job<'_>) -> Result<Option<Row>>;

    /// As [`Rows::source`].
    fn source(&self) -> Option<&Source>;
}

impl<R: RowByRow> Rows for R {
    fn fill(
        &mut self,
        rows: &mut Vec<Row>,
        most: usize,
        context: &mut Context,
        job: &mut Job<'_>,
    ) -> Result<bool> {
        for _ in 0..most {
            match self.next_row(context, job)? {
                Some(row) => rows.push(row),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    fn source(&self) -> Option<&Source> {
        RowByRow::source(self)
    }
}

/// What a format's rows never tell: nothing of the set that follows is in any of them.
pub(super) fn lacks() -> NotRecorded {
    use NotRecorded as N;
    N::WRITE_DATA
        | N::READ_DATA
        | N::STATUS
        | N::FLUSHES
        | N::DISCARDS
        | N::WRITE_ZEROES
        | N::FUA
        | N::PREFLUSH
        | N::QUEUES
        | N::CPUS
        | N::DEVICE_SIZE
        | N::UNMAP
        | N::HINTS
}

/// One input with its window.
struct Input<R> {
    rows: R,
    window: Reorder,
}

/// Reads all `inputs`, merges them by time and writes their requests.
///
/// # Errors
/// Those of the inputs and of the job's sink.
pub(super) fn import_rows<R: Rows>(inputs: Vec<R>, clock: Clock, job: &mut Job<'_>) -> Result<()> {
    let window = SORT_WINDOW_ROWS / inputs.len().max(1);
    let window = window.max(SORT_WINDOW_INPUT_ROWS_MIN);
    let several = inputs.len() > 1;
    job.put_in_order();
    let mut context = Context { clock, tags: 0, known: Places::new(false) };
    let mut inputs: Vec<_> =
        inputs.into_iter().map(|rows| Input { rows, window: Reorder::new(window) }).collect();
    if several {
        let count = inputs.len();
        job.interpret(format!("inputs: {count}, merged by time (of one clock)"));
    }
    let mut emitter = Emitter::default();
    if let [input] = inputs.as_mut_slice() {
        while let Some(rows) = input.window.next_batch(&mut input.rows, &mut context, job)? {
            emitter.rows(rows, &context.clock, job)?;
        }
    } else {
        merge(&mut inputs, &mut context, &mut emitter, job)?;
    }
    emitter.finish(&context.clock, job)?;
    for source in inputs.iter().filter_map(|input| input.rows.source()) {
        note_condition(source, job);
    }
    let disordered = inputs.iter().map(|input| input.window.disordered()).sum();
    if job.counts().completes == 0 {
        job.not_recorded |= NotRecorded::COMPLETIONS;
    }
    emitter.notes(disordered, &context.clock, job);
    Ok(())
}

/// Rows of several inputs that are written at a time.
const MERGED_ROWS: usize = 1 << 12;

fn merge<R: Rows>(
    inputs: &mut [Input<R>],
    context: &mut Context,
    emitter: &mut Emitter,
    job: &mut Job<'_>,
) -> Result<()> {
    let mut heads = BinaryHeap::with_capacity(inputs.len());
    let mut firsts: Vec<Option<Row>> = Vec::with_capacity(inputs.len());
    for (number, input) in inputs.iter_mut().enumerate() {
        let row = input.window.next(&mut input.rows, context, job)?;
        heads.extend(row.map(|row| Reverse((row.time, number))));
        firsts.push(row);
    }
    let mut batch = Vec::with_capacity(MERGED_ROWS);
    while let Some(Reverse((_, number))) = heads.pop() {
        let (Some(input), Some(first)) = (inputs.get_mut(number), firsts.get_mut(number)) else {
            continue;
        };
        batch.extend(first.take());
        if batch.len() == MERGED_ROWS {
            emitter.rows(&batch, &context.clock, job)?;
            batch.clear();
        }
        *first = input.window.next(&mut input.rows, context, job)?;
        heads.extend(first.map(|row| Reverse((row.time, number))));
    }
    emitter.rows(&batch, &context.clock, job)
}
