//! Lines of a text that are records of a request's life, of which the first are looked at before
//! the others are read: what a capture holds decides how it is read.

use std::collections::VecDeque;

use super::job::Job;
use super::lines::Lines;
use super::source::Source;
use crate::base::Result;

/// Records looked at in advance. A capture that has a moment of requests at all has it early.
const AHEAD_MAX: usize = 1 << 14;

/// A text format of such records.
pub(super) trait TextFormat {
    /// What a line becomes.
    type Item;

    /// Takes a line; `None` when it is no record, which is counted where it should be one.
    fn line(&mut self, number: u64, text: &[u8], job: &mut Job<'_>) -> Option<Self::Item>;
}

/// The records of one input.
pub(super) struct TextRecords<F: TextFormat> {
    lines: Lines,
    /// The format.
    pub format: F,
    ahead: VecDeque<F::Item>,
}

impl<F: TextFormat> TextRecords<F> {
    /// Begins an input: reads its first records.
    ///
    /// # Errors
    /// Those of the input.
    pub fn open(source: Source, format: F, job: &mut Job<'_>) -> Result<Self> {
        let mut records = Self { lines: Lines::new(source), format, ahead: VecDeque::new() };
        while records.ahead.len() < AHEAD_MAX
            && let Some(item) = records.read(job)?
        {
            records.ahead.push_back(item);
        }
        Ok(records)
    }

    /// Begins each of `sources`.
    ///
    /// # Errors
    /// As [`TextRecords::open`].
    pub fn all(
        sources: Vec<Source>,
        format: impl Fn() -> F,
        job: &mut Job<'_>,
    ) -> Result<Vec<Self>> {
        sources.into_iter().map(|source| Self::open(source, format(), job)).collect()
    }

    /// The next record.
    ///
    /// # Errors
    /// Those of the input, and a stop.
    pub fn next_item(&mut self, job: &mut Job<'_>) -> Result<Option<F::Item>> {
        match self.ahead.pop_front() {
            Some(item) => Ok(Some(item)),
            None => self.read(job),
        }
    }

    fn read(&mut self, job: &mut Job<'_>) -> Result<Option<F::Item>> {
        while let Some((number, text)) = self.lines.read_line()? {
            job.tick()?;
            if let Some(item) = self.format.line(number, text, job) {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    /// The input, to ask what its end was like.
    pub fn source(&self) -> &Source {
        self.lines.source()
    }
}

/// A line's number as a record's sequence.
pub(super) fn sequence(line: u64) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX)
}
