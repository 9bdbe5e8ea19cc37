//! Rows of a text format: a line a row.

use super::ahead::Ahead;
use super::batch::{Batch, Reader};
use super::clock::Clock;
use super::fields::{Fields, Separator};
use super::quick::Quick;
use super::streams::Streams;
use super::{Context, Row, Rows};
use crate::base::{BlockOp, OpFlags, Result};
use crate::import::job::Job;
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
pub(in crate::import) trait LineFormat: Send + 'static {
    /// What sets its columns apart.
    const SEPARATOR: Separator;

    /// The row that a line is.
    ///
    /// # Errors
    /// Says why it is none.
    fn parse<'l>(&mut self, fields: Fields<'l>, clock: &mut Clock) -> Result<Parsed<'l>, Skip>;

    /// The row that a line is, without a split, where it is as plain as most are; it must be the
    /// one that [`LineFormat::parse`] makes of it.
    #[inline]
    fn quick<'l>(&self, _line: &mut Quick<'l>, _clock: &mut Clock) -> Option<Parsed<'l>> {
        None
    }

    /// Whether a line that is no row is a header; it may stand wherever files were put together.
    fn is_header(&self, _fields: Fields<'_>) -> bool {
        false
    }
}

/// Lines read here before a thread is worth its while.
const LINES_HERE: usize = 1 << 14;

/// Where the lines of an input are parsed.
enum Parsing<F> {
    Here(Box<Reader<F>>),
    Ahead(Ahead<F>),
    /// Nowhere: a thread could not be started, or is lost.
    Lost,
}

/// The rows of one input.
pub(in crate::import) struct TextRows<F> {
    parsing: Parsing<F>,
    batch: Batch,
    /// Lines after which a thread goes on alone; an input among others stays here, since they
    /// share what the first time tells.
    here: Option<usize>,
    streams: Streams,
}

impl<F: LineFormat> TextRows<F> {
    /// Rows of `source`; `several` inputs of a format without devices are a device each.
    pub(in crate::import) fn new(source: Source, format: F, several: bool) -> Self {
        let streams = Streams::new(&source, several);
        let parsing = Parsing::Here(Box::new(Reader::new(source, format)));
        let here = (!several).then_some(LINES_HERE);
        Self { parsing, batch: Batch::default(), here, streams }
    }

    /// Rows of each of `sources`.
    pub(in crate::import) fn all(sources: Vec<Source>, format: impl Fn() -> F) -> Vec<Self> {
        let several = sources.len() > 1;
        sources.into_iter().map(|source| Self::new(source, format(), several)).collect()
    }

    /// Reads the next batch of lines.
    fn next_batch(&mut self, most: usize, clock: &mut Clock) -> Result<()> {
        if self.here == Some(0) && clock.is_settled() {
            self.go_ahead(clock)?;
        }
        match &mut self.parsing {
            Parsing::Here(reader) => {
                reader.fill(&mut self.batch, most, clock);
                self.here = self.here.map(|left| left.saturating_sub(self.batch.lines()));
                Ok(())
            }
            Parsing::Ahead(ahead) => ahead.next(&mut self.batch),
            Parsing::Lost => {
                self.batch.clear();
                self.batch.end = Some(Ok(()));
                Ok(())
            }
        }
    }

    #[cold]
    fn go_ahead(&mut self, clock: &Clock) -> Result<()> {
        self.here = None;
        match std::mem::replace(&mut self.parsing, Parsing::Lost) {
            Parsing::Here(reader) => {
                self.parsing = Parsing::Ahead(Ahead::start(*reader, clock.clone())?);
            }
            other => self.parsing = other,
        }
        Ok(())
    }

    /// The reader comes back from its thread.
    #[cold]
    fn end(&mut self) {
        self.here = None;
        self.parsing = match std::mem::replace(&mut self.parsing, Parsing::Lost) {
            Parsing::Ahead(ahead) => {
                ahead.finish().map_or(Parsing::Lost, |reader| Parsing::Here(Box::new(reader)))
            }
            other => other,
        };
    }
}

impl<F: LineFormat> Rows for TextRows<F> {
    fn fill(
        &mut self,
        rows: &mut Vec<Row>,
        most: usize,
        context: &mut Context,
        job: &mut Job<'_>,
    ) -> Result<bool> {
        self.next_batch(most, &mut context.clock)?;
        job.ticks(self.batch.lines())?;
        self.streams.batch(&mut self.batch, context, job)?;
        if rows.is_empty() {
            std::mem::swap(rows, &mut self.batch.rows);
        } else {
            rows.append(&mut self.batch.rows);
        }
        match self.batch.end.take() {
            None => Ok(true),
            Some(end) => {
                self.end();
                end.map(|()| false)
            }
        }
    }

    fn source(&self) -> Option<&Source> {
        match &self.parsing {
            Parsing::Here(reader) => Some(reader.source()),
            Parsing::Ahead(_) | Parsing::Lost => None,
        }
    }
}

/// Whether a line that cannot be parsed was never meant as a row.
#[cold]
pub(super) fn is_no_row(format: &impl LineFormat, line: &[u8], fields: Fields<'_>) -> bool {
    let line = line.trim_ascii();
    line.is_empty() || line.starts_with(b"#") || format.is_header(fields)
}
