//! Rows of a format of fixed-size records.

use super::clock::Clock;
use super::streams::Streams;
use super::text::{Parsed, Skip};
use super::{Context, Row, RowByRow};
use crate::base::Result;
use crate::import::job::{Job, offset_place};
use crate::import::source::Source;

/// Bytes read at a time, about.
const BUFFER_BYTES: usize = 64 << 10;

/// A format of records that are all of one size.
pub(in crate::import) trait RecordFormat {
    /// Bytes of a record.
    fn record_bytes(&self) -> usize;

    /// The row that a record of that many bytes is.
    ///
    /// # Errors
    /// Says why it is none.
    fn parse(&mut self, record: &[u8], clock: &mut Clock) -> Result<Parsed<'static>, Skip>;
}

/// Reads the records of one input.
pub(in crate::import) struct RecordRows<F> {
    source: Source,
    format: F,
    streams: Streams,
    buffer: Vec<u8>,
    /// The next record in the buffer, and where what was read ends.
    at: usize,
    filled: usize,
    /// Offset of the next record in the input.
    offset: u64,
}

impl<F: RecordFormat> RecordRows<F> {
    /// Records of `source`; `several` inputs are a device each.
    pub(in crate::import) fn new(source: Source, format: F, several: bool) -> Self {
        let streams = Streams::new(&source, several);
        let whole = (BUFFER_BYTES / format.record_bytes()).max(1) * format.record_bytes();
        let buffer = vec![0; whole];
        Self { source, format, streams, buffer, at: 0, filled: 0, offset: 0 }
    }

    /// The next record's place in the buffer; a part of one at the end is a cut.
    fn next_record(&mut self, job: &mut Job<'_>) -> Result<Option<std::ops::Range<usize>>> {
        let len = self.format.record_bytes();
        if self.at == self.filled {
            self.filled = self.source.read_full(&mut self.buffer)?;
            self.at = 0;
            if self.filled == 0 {
                return Ok(None);
            }
        }
        // The buffer holds whole records: a part of one is the end of the input.
        if self.at + len > self.filled {
            let place = offset_place(self.source.path(), self.offset);
            job.summary.cut("input ends inside a record", place);
            self.at = self.filled;
            return Ok(None);
        }
        let record = self.at..self.at + len;
        self.at += len;
        self.offset += len as u64;
        Ok(Some(record))
    }
}

impl<F: RecordFormat> RowByRow for RecordRows<F> {
    fn next_row(&mut self, context: &mut Context, job: &mut Job<'_>) -> Result<Option<Row>> {
        let len = self.format.record_bytes() as u64;
        while let Some(range) = self.next_record(job)? {
            job.tick()?;
            let record = self.buffer.get(range).unwrap_or_default();
            let (path, offset) = (self.source.path(), self.offset - len);
            let place = || offset_place(path, offset);
            match self.format.parse(record, &mut context.clock) {
                Ok(parsed) => {
                    let row = self.streams.row(&parsed, context, job, place)?;
                    if row.is_some() {
                        return Ok(row);
                    }
                }
                Err(skip) => skip.count(job, place),
            }
        }
        Ok(None)
    }

    fn source(&self) -> Option<&Source> {
        Some(&self.source)
    }
}
