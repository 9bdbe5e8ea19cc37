//! Lines of a text, and the rows that they are, a batch at a time.

use super::clock::Clock;
use super::fields::Splitter;
use super::places::{self, Places};
use super::quick::Quick;
use super::text::{Device, LineFormat, Parsed, Skip, is_no_row};
use super::{ONLY_DEVICE, Row};
use crate::base::Result;
use crate::import::lines::Lines;
use crate::import::source::Source;
use crate::trace::StreamId;

/// Lines of a batch: as many as stay in the cache of a processor.
pub(super) const BATCH_LINES: usize = 1 << 13;

/// Numbers of names after which they are given from 0 on again: what is kept of each takes memory.
const NAMES_MAX: u32 = 1 << 16;

/// Bytes of new names after which a batch is full: a name may be as long as a line.
const NAMES_BYTES_MAX: usize = 1 << 20;

/// Lines in their order, each a row or none.
#[derive(Default)]
pub(super) struct Batch {
    /// The rows. The stream of one is the number of its device's name, or [`ONLY_DEVICE`]; numbers
    /// count up from 0 by the row that is the first to have them. Tags are for the reader of all
    /// inputs to give, but those that rows have by themselves.
    pub rows: Vec<Row>,
    /// Lines that are no rows.
    pub skips: Vec<Skipped>,
    /// Number of the first line.
    pub first_line: u64,
    /// The number that the first new name of a device has; from 0 on all are new.
    pub first_name: u32,
    /// The new names, one behind the other, and where each ends.
    names: Vec<u8>,
    ends: Vec<u32>,
    /// How the input ended behind them, if it did.
    pub end: Option<Result<()>>,
}

/// A line that is no row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Skipped {
    /// How many rows of the batch stand before it.
    pub rows_before: usize,
    /// Why it is none.
    pub why: Skip,
}

impl Batch {
    /// Makes it empty, and keeps its memory.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.skips.clear();
        self.names.clear();
        self.ends.clear();
        self.end = None;
    }

    /// How many lines it holds.
    pub fn lines(&self) -> usize {
        self.rows.len() + self.skips.len()
    }

    /// The new name of that number.
    pub fn name(&self, number: u32) -> &[u8] {
        let end_of = |at: usize| self.ends.get(at).map_or(0, |end| *end as usize);
        let Some(at) = number.checked_sub(self.first_name).map(|at| at as usize) else {
            return &[];
        };
        let start = at.checked_sub(1).map_or(0, end_of);
        self.names.get(start..end_of(at)).unwrap_or_default()
    }

    /// The number after the last one.
    fn next_name(&self) -> u32 {
        self.first_name + self.ends.len() as u32
    }

    /// The number of a device, which `known` may tell.
    #[inline]
    fn device(&mut self, device: Device<'_>, known: &mut Places<u32>) -> StreamId {
        if matches!(device, Device::Only) {
            return ONLY_DEVICE;
        }
        StreamId(known.find(&device).unwrap_or_else(|| self.new_name(device, known)))
    }

    #[cold]
    fn new_name(&mut self, device: Device<'_>, known: &mut Places<u32>) -> u32 {
        let number = self.next_name();
        known.keep(&device, number);
        places::add_name(&device, &mut self.names);
        self.ends.push(self.names.len() as u32);
        number
    }

    /// Adds a row, whose stream is the number of its device.
    #[inline]
    fn add(&mut self, parsed: &Parsed<'_>, known: &mut Places<u32>) {
        let stream = self.device(parsed.device, known);
        self.rows.push(Row { stream, ..Row::of(parsed) });
    }
}

/// Reads the lines of one input.
pub(super) struct Reader<F> {
    lines: Lines,
    splitter: Splitter,
    format: F,
    /// Numbers of devices, by their names, and the next one.
    known: Places<u32>,
    next_name: u32,
}

impl<F: LineFormat> Reader<F> {
    /// Reads the lines of `source`, which may be one of `several`.
    pub fn new(source: Source, format: F, several: bool) -> Self {
        let splitter = Splitter::new(F::SEPARATOR);
        let lines = if several { Lines::of_many(source) } else { Lines::new(source) };
        Self { lines, splitter, format, known: Places::new(several), next_name: 0 }
    }

    /// The input.
    pub fn source(&self) -> &Source {
        self.lines.source()
    }

    /// Reads up to `most` lines, and how the input ends behind them, if it does.
    pub fn fill(&mut self, batch: &mut Batch, most: usize, clock: &mut Clock) {
        batch.clear();
        batch.first_line = self.lines.number() + 1;
        if self.next_name >= NAMES_MAX {
            self.known.clear();
            self.next_name = 0;
        }
        batch.first_name = self.next_name;
        self.read(batch, most, clock);
        self.next_name = batch.next_name();
    }

    fn read(&mut self, batch: &mut Batch, most: usize, clock: &mut Clock) {
        while batch.lines() < most.min(BATCH_LINES) && batch.names.len() < NAMES_BYTES_MAX {
            if self.quick(batch, clock) {
                continue;
            }
            match self.long(batch, clock) {
                Ok(true) => {}
                ended => {
                    batch.end = Some(ended.map(|_| ()));
                    return;
                }
            }
        }
    }

    /// Reads a plain line; false when it may be another.
    #[inline]
    fn quick(&mut self, batch: &mut Batch, clock: &mut Clock) -> bool {
        let mut line = Quick::new(self.lines.buffered(), F::SEPARATOR);
        let Some(parsed) = self.format.quick(&mut line, clock) else { return false };
        let Some(bytes) = line.line_bytes() else { return false };
        batch.add(&parsed, &mut self.known);
        self.lines.pass_line(bytes);
        true
    }

    /// Reads a line of any kind; false at the end of the input.
    fn long(&mut self, batch: &mut Batch, clock: &mut Clock) -> Result<bool> {
        let Some((_, line)) = self.lines.read_line()? else { return Ok(false) };
        let fields = self.splitter.split(line);
        let why = match self.format.parse(fields, clock) {
            Ok(parsed) => {
                batch.add(&parsed, &mut self.known);
                return Ok(true);
            }
            Err(Skip::Malformed(_)) if is_no_row(&self.format, line, fields) => Skip::Quiet,
            Err(why) => why,
        };
        batch.skips.push(Skipped { rows_before: batch.rows.len(), why });
        Ok(true)
    }
}
