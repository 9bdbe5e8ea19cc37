//! An import from files into a trace file.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::job::Sink;
use super::source::{Meter, Source};
use super::{ImportOptions, ImportReport, inputs, run};
use crate::base::{Error, Result};
use crate::trace::{Event, PayloadRef, StreamId, StreamInfo, TraceHeader, TraceWriter};

/// Imports `inputs` into a new trace at `output`, which appears whole or not at all (a file of
/// that name is replaced: the caller asks first).
///
/// # Errors
/// Usage, Input and Nothing as said above; Incomplete when the trace cannot be written;
/// Interrupted when `options.stop` became true.
pub fn import(
    inputs: &[PathBuf],
    output: &Path,
    options: &ImportOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<ImportReport> {
    let meter = Meter::new(options.stop.clone());
    let mut sink = FileSink { output, writer: None };
    let result = open_and_run(inputs, options, &meter, &mut sink, progress);
    // A stop shows up as whatever read or write it broke.
    meter.check_stop()?;
    let report = result?;
    if let Some(writer) = sink.writer {
        writer.finish(report.summary.clone())?;
    }
    Ok(report)
}

fn open_and_run(
    inputs: &[PathBuf],
    options: &ImportOptions,
    meter: &Meter,
    sink: &mut dyn Sink,
    progress: &mut dyn FnMut(u64),
) -> Result<ImportReport> {
    let paths = inputs::expand(inputs)?;
    let sources: Result<Vec<_>> = paths.iter().map(|path| Source::open(path, meter)).collect();
    run(sources?, options, meter.clone(), sink, progress)
}

/// A trace file as a [`Sink`]; nothing exists before the first event.
struct FileSink<'p> {
    output: &'p Path,
    writer: Option<TraceWriter>,
}

impl FileSink<'_> {
    fn writer(&mut self) -> Result<&mut TraceWriter> {
        let output = self.output;
        let missing = || Error::incomplete("the trace was not begun").path(output);
        self.writer.as_mut().ok_or_else(missing)
    }
}

impl Sink for FileSink<'_> {
    fn begin(&mut self, header: TraceHeader) -> Result<()> {
        self.writer = Some(TraceWriter::create(self.output, header)?);
        Ok(())
    }

    fn stream(&mut self, info: StreamInfo) -> Result<StreamId> {
        self.writer()?.stream(info)
    }

    fn payload(&mut self, data: &[u8]) -> Result<PayloadRef> {
        self.writer()?.payload(data)
    }

    fn payload_from(&mut self, len: u64, source: &mut dyn Read) -> Result<PayloadRef> {
        self.writer()?.payload_from(len, source)
    }

    fn event(&mut self, event: &Event) -> Result<()> {
        self.writer()?.event(event)
    }
}
