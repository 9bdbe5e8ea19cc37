//! Rows of a text format: a line a row.

use super::clock::Clock;
use super::fields::{Fields, Separator, Splitter};
use super::streams::Streams;
use super::{Context, Row, Rows};
use crate::base::{BlockOp, OpFlags, Result};
use crate::import::job::{Job, line_place};
use crate::import::lines::Lines;
use crate::import::source::Source;

/// Why a line is no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::import) enum Skip {
    /// It is none by the format: a header, a preamble.
    Quiet,
    /// A row of the format that cannot stand in a trace, for this reason.
    Lost(&'static str),
    /// Not what the format says.
    Malformed(&'static str),
}

impl Skip {
    /// Counts it as lost, unless it is quiet.
    pub(in crate::import) fn count(self, job: &mut Job<'_>, place: impl FnOnce() -> String) {
        match self {
            Self::Quiet => {}
            Self::Lost(reason) => job.summary.lose(reason, place),
            Self::Malformed(reason) => job.summary.malformed(reason, place),
        }
    }
}

/// The reason that most malformed lines have.
pub(in crate::import) const NOT_A_NUMBER: Skip = Skip::Malformed("field is not a number");

/// How a row names its device.
#[derive(Clone, Copy, Debug)]
pub(in crate::import) enum Device<'l> {
    /// The format has one device a file.
    Only,
    /// A name.
    Name(&'l [u8]),
    /// Two names joined by a byte.
    Pair(&'l [u8], u8, &'l [u8]),
}

/// A row as its line says it.
#[derive(Clone, Copy, Debug)]
pub(in crate::import) struct Parsed<'l> {
    /// The device.
    pub device: Device<'l>,
    /// As [`Clock`] has it.
    pub time: u64,
    /// What is asked; `None` for the completion of the request with the same tag.
    pub op: Option<BlockOp>,
    /// Modifiers.
    pub flags: OpFlags,
    /// Bytes.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// Nanoseconds from issue to completion.
    pub latency: Option<u64>,
    /// Joins a request to its completion, where rows do that themselves.
    pub tag: Option<u64>,
}

impl Parsed<'_> {
    /// A request of the only device, without response time.
    pub(in crate::import) fn request(time: u64, op: BlockOp, offset: u64, len: u64) -> Self {
        let flags = OpFlags::empty();
        let (op, latency, tag) = (Some(op), None, None);
        Self { device: Device::Only, time, op, flags, offset, len, latency, tag }
    }
}

/// A text format.
pub(in crate::import) trait LineFormat {
    /// What sets its columns apart.
    const SEPARATOR: Separator;

    /// The row that a line is.
    ///
    /// # Errors
    /// Says why it is none.
    fn parse<'l>(&mut self, fields: Fields<'l>, clock: &mut Clock) -> Result<Parsed<'l>, Skip>;

    /// Whether a line that is no row is a header; it may stand wherever files were put together.
    fn is_header(&self, _fields: Fields<'_>) -> bool {
        false
    }
}

/// Reads the lines of one input.
pub(in crate::import) struct TextRows<F> {
    lines: Lines,
    splitter: Splitter,
    format: F,
    streams: Streams,
}

impl<F: LineFormat> TextRows<F> {
    /// Rows of `source`; `several` inputs of a format without devices are a device each.
    pub(in crate::import) fn new(source: Source, format: F, several: bool) -> Self {
        let streams = Streams::new(&source, several);
        let splitter = Splitter::new(F::SEPARATOR);
        Self { lines: Lines::new(source), splitter, format, streams }
    }

    /// Rows of each of `sources`.
    pub(in crate::import) fn all(sources: Vec<Source>, format: impl Fn() -> F) -> Vec<Self> {
        let several = sources.len() > 1;
        sources.into_iter().map(|source| Self::new(source, format(), several)).collect()
    }
}

impl<F: LineFormat> Rows for TextRows<F> {
    fn next_row(&mut self, context: &mut Context, job: &mut Job<'_>) -> Result<Option<Row>> {
        while let Some((line, text)) = self.lines.read_line()? {
            job.tick()?;
            let fields = self.splitter.split(text);
            match self.format.parse(fields, &mut context.clock) {
                Ok(parsed) => {
                    let row = self.streams.row(&parsed, context, job, || line_place(line))?;
                    if row.is_some() {
                        return Ok(row);
                    }
                }
                Err(Skip::Malformed(_)) if is_no_row(&self.format, text, fields) => {}
                Err(skip) => skip.count(job, || line_place(line)),
            }
        }
        Ok(None)
    }

    fn source(&self) -> &Source {
        self.lines.source()
    }
}

/// Whether a line that cannot be parsed was never meant as a row.
#[cold]
pub(super) fn is_no_row(format: &impl LineFormat, line: &[u8], fields: Fields<'_>) -> bool {
    let line = line.trim_ascii();
    line.is_empty() || line.starts_with(b"#") || format.is_header(fields)
}
