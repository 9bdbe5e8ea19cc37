//! Rows of a text format: a line a row.

use super::ahead::Ahead;
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
pub(in crate::import) trait LineFormat: Send + 'static {
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

/// Lines and what they are.
pub(super) struct Reader<F> {
    lines: Lines,
    splitter: Splitter,
    format: F,
}

impl<F: LineFormat> Reader<F> {
    /// The next line's number, and its row or why it is none; what was never meant as one is quiet.
    ///
    /// # Errors
    /// Those of the input.
    #[inline]
    pub(super) fn next(
        &mut self,
        clock: &mut Clock,
    ) -> Result<Option<(u64, Result<Parsed<'_>, Skip>)>> {
        let Some((number, line)) = self.lines.read_line()? else { return Ok(None) };
        let fields = self.splitter.split(line);
        let parsed = match self.format.parse(fields, clock) {
            Err(Skip::Malformed(_)) if is_no_row(&self.format, line, fields) => Err(Skip::Quiet),
            parsed => parsed,
        };
        Ok(Some((number, parsed)))
    }
}

/// Lines read here before a thread is worth its while.
const LINES_HERE: u32 = 1 << 14;

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
    /// Lines after which a thread goes on alone; an input among others stays here, since they
    /// share what the first time tells.
    here: Option<u32>,
    streams: Streams,
}

impl<F: LineFormat> TextRows<F> {
    /// Rows of `source`; `several` inputs of a format without devices are a device each.
    pub(in crate::import) fn new(source: Source, format: F, several: bool) -> Self {
        let streams = Streams::new(&source, several);
        let splitter = Splitter::new(F::SEPARATOR);
        let reader = Reader { lines: Lines::new(source), splitter, format };
        let parsing = Parsing::Here(Box::new(reader));
        Self { parsing, here: (!several).then_some(LINES_HERE), streams }
    }

    /// Rows of each of `sources`.
    pub(in crate::import) fn all(sources: Vec<Source>, format: impl Fn() -> F) -> Vec<Self> {
        let several = sources.len() > 1;
        sources.into_iter().map(|source| Self::new(source, format(), several)).collect()
    }

    /// Counts a line that was read here, and hands the rest over in time.
    #[inline]
    fn count_line(&mut self, clock: &Clock) -> Result<()> {
        match &mut self.here {
            None => Ok(()),
            Some(0) if clock.is_settled() => self.go_ahead(clock),
            Some(left) => {
                *left = left.saturating_sub(1);
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
    fn next_row(&mut self, context: &mut Context, job: &mut Job<'_>) -> Result<Option<Row>> {
        loop {
            self.count_line(&context.clock)?;
            let next = match &mut self.parsing {
                Parsing::Here(reader) => reader.next(&mut context.clock)?,
                Parsing::Ahead(ahead) => ahead.next()?,
                Parsing::Lost => None,
            };
            let Some((line, parsed)) = next else {
                self.end();
                return Ok(None);
            };
            job.tick()?;
            match parsed {
                Ok(parsed) => {
                    let row = self.streams.row(&parsed, context, job, || line_place(line))?;
                    if row.is_some() {
                        return Ok(row);
                    }
                }
                Err(skip) => skip.count(job, || line_place(line)),
            }
        }
    }

    fn source(&self) -> Option<&Source> {
        match &self.parsing {
            Parsing::Here(reader) => Some(reader.lines.source()),
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
