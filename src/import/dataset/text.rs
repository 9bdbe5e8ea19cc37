//! Rows of a text format: a line a row.

use super::batch::{BATCH_LINES, Batch, Reader};
use super::clock::Clock;
use super::fields::{Fields, Separator};
use super::quick::Quick;
use super::streams::Streams;
use super::{Context, Row, Rows};
use crate::base::{BlockOp, OpFlags, Result};
use crate::import::batches::Batches;
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
    /// By a thread of their own.
    Ahead(Batches<Batch, Reader<F>>),
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
        let parsing = Parsing::Here(Box::new(Reader::new(source, format, several)));
        let here = (!several).then_some(LINES_HERE);
        Self { parsing, batch: Batch::default(), here, streams }
    }

    /// Rows of each of `sources`.
    pub(in crate::import) fn all(sources: Vec<Source>, format: impl Fn() -> F) -> Vec<Self> {
        let several = sources.len() > 1;
        sources.into_iter().map(|source| Self::new(source, format(), several)).collect()
    }

    /// Reads the next batch of lines.
    fn next_batch(&mut self, most: usize, clock: &mut Clock, job: &mut Job<'_>) -> Result<()> {
        if self.here == Some(0) && clock.is_settled() {
            self.go_ahead(clock)?;
        }
        match &mut self.parsing {
            Parsing::Here(reader) => {
                reader.fill(&mut self.batch, most, clock);
                self.here = self.here.map(|left| left.saturating_sub(self.batch.lines()));
                Ok(())
            }
            Parsing::Ahead(batches) => {
                self.batch = batches.next(std::mem::take(&mut self.batch), || job.tick())?;
                Ok(())
            }
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
                let mut clock = clock.clone();
                let batches = Batches::start(*reader, move |reader, batch: &mut Batch, _| {
                    reader.fill(batch, BATCH_LINES, &mut clock);
                    batch.end.is_none()
                })?;
                self.parsing = Parsing::Ahead(batches);
            }
            other => self.parsing = other,
        }
        Ok(())
    }

    /// The reader comes back from its thread.
    #[cold]
    fn end(&mut self) -> Result<()> {
        self.here = None;
        self.parsing = match std::mem::replace(&mut self.parsing, Parsing::Lost) {
            Parsing::Ahead(batches) => Parsing::Here(Box::new(batches.finish()?)),
            other => other,
        };
        Ok(())
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
        self.next_batch(most, &mut context.clock, job)?;
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
                self.end()?;
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

#[cfg(test)]
mod tests {
    use crate::import::ImportOptions;
    use crate::import::testing::{import_bytes, import_with, losses};
    use crate::trace::Issue;

    /// More rows than are parsed where they are wanted, in several batches.
    const ROWS: u64 = 40_000;
    /// Of 2007.
    const TICKS: u64 = 128_166_372_003_061_629;

    fn row(n: u64) -> String {
        format!("{},R,{},512,{}\n", n % 5, n * 512, 1_577_808_000_000_000 + n)
    }

    #[test]
    fn rows_of_the_thread_are_those_of_the_input_and_losses_keep_their_lines() {
        let mut text: String = (0..ROWS).map(row).collect();
        text.insert_str(text.len() - row(ROWS - 1).len(), "\n# nothing\n7,X,0,512,1\n");
        let (report, out) = import_bytes(text.as_bytes()).unwrap();
        let want: Vec<_> = (0..ROWS).map(|n| (n * 1000, n * 512, (n % 5).to_string())).collect();
        let got = out.issues().into_iter().map(|issue| {
            let device = out.streams[issue.stream.0 as usize].device.clone();
            (issue.time.0, issue.offset, device)
        });
        assert!(got.eq(want));
        assert_eq!(losses(&report), [("opcode is neither R nor W", 1, "line 40002")]);
    }

    #[test]
    fn each_of_more_devices_than_are_numbered_is_its_own() {
        // Rows long behind their first, names that are too long to be kept, and an empty one.
        let name = |n: u64| match n % 70_000 {
            7 => "x".repeat(100),
            8 => String::new(),
            n => n.to_string(),
        };
        let text: String = (0..150_000)
            .map(|n| format!("{},{},1,Read,{},512,9\n", TICKS + n, name(n), n * 512))
            .collect();
        let options = ImportOptions { from: Some("msr-csv".into()), ..ImportOptions::default() };
        let (_, out) = import_with(text.as_bytes(), &options).unwrap();
        let issues = out.issues();
        assert_eq!((issues.len(), out.streams.len()), (150_000, 70_000));
        let device = |issue: &Issue| &out.streams[issue.stream.0 as usize].device;
        assert!((0..).zip(&issues).all(|(n, issue)| *device(issue) == format!("{}_1", name(n))));
        for wanted in [7, 9] {
            let device = Some(format!("{}_1", name(wanted)));
            let options = ImportOptions { device, ..options.clone() };
            let (report, out) = import_with(text.as_bytes(), &options).unwrap();
            assert_eq!(out.issues().len(), 3, "{wanted}");
            let reason = "another device than the one asked for";
            assert_eq!(losses(&report), [(reason, 149_997, "line 1")]);
        }
    }

    #[test]
    fn names_that_are_refused_take_nothing_from_others() {
        // Too long by a little, kept and not kept to be known again; enough to fill any budget.
        for (len, rows) in [(63, 3), (64, 3), (4095, 4200)] {
            let host = "h".repeat(len);
            let mut text: String =
                (0..rows).map(|n| format!("{},{host},1,Read,0,512,4\n", TICKS + n)).collect();
            text += &format!("{},good,1,Read,0,512,4\n", TICKS + rows);
            let options = ImportOptions {
                from: Some("msr-csv".into()),
                device: (len < 4095).then(String::new),
                ..ImportOptions::default()
            };
            let imported = import_with(text.as_bytes(), &options);
            if len < 4095 {
                let error = imported.unwrap_err().to_string();
                assert!(error.contains("no request of a device ''"), "{len}: {error}");
                continue;
            }
            let (report, out) = imported.unwrap();
            let reason = "more devices, or longer names, than a trace can hold";
            assert_eq!(losses(&report), [(reason, rows, "line 1")]);
            assert_eq!((out.issues().len(), out.streams[0].device.as_str()), (1, "good_1"));
        }
    }

    #[test]
    fn an_error_of_the_input_comes_from_the_thread_too() {
        use std::io::Write;
        let text: String = (0..ROWS).map(row).collect();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(text.as_bytes()).unwrap();
        let mut damaged = gz.finish().unwrap();
        let checksum = damaged.len() - 8;
        damaged[checksum] ^= 1;
        let error = import_bytes(&damaged).unwrap_err();
        assert!(error.to_string().contains("bytes into what gzip holds"), "{error}");
    }
}
