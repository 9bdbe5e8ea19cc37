//! The streams of rows, by the names of their devices.

use super::batch::Batch;
use super::places;
use super::text::{Device, Parsed};
use super::{Context, ONLY_DEVICE, Row};
use crate::base::Result;
use crate::import::job::{Job, line_place};
use crate::import::source::Source;
use crate::trace::StreamId;

/// Finds the streams of the rows of one input.
#[derive(Default)]
pub(in crate::import) struct Streams {
    /// The name of the only device, when several inputs make it one of several.
    input_name: Option<Vec<u8>>,
    only: Option<StreamId>,
    /// A name put together from two.
    name: Vec<u8>,
    /// What became of the names of an input's batches, by number.
    of_names: Vec<Named>,
}

/// What became of a device's name.
enum Named {
    /// Its stream.
    Stream(StreamId),
    /// It has none: the name again, unless nobody will come back to it.
    Refused(Vec<u8>),
}

impl Streams {
    pub(in crate::import) fn new(source: &Source, several: bool) -> Self {
        let name = source.path().file_name().unwrap_or_default();
        let input_name = several.then(|| name.to_string_lossy().into_owned().into_bytes());
        Self { input_name, ..Self::default() }
    }

    /// The row of what was parsed, unless it cannot stand in a trace.
    #[inline]
    pub(in crate::import) fn row(
        &mut self,
        parsed: &Parsed<'_>,
        context: &mut Context,
        job: &mut Job<'_>,
        place: impl Fn() -> String,
    ) -> Result<Option<Row>> {
        let Some(stream) = self.stream(parsed.device, context, job, &place)? else {
            return Ok(None);
        };
        let mut row = Row { stream, ..Row::of(parsed) };
        Ok(take(&mut row, context, job, place).then_some(row))
    }

    /// Finishes the rows of a batch of lines, and counts what is lost; rows that cannot stand in a
    /// trace go.
    pub(super) fn batch(
        &mut self,
        batch: &mut Batch,
        context: &mut Context,
        job: &mut Job<'_>,
    ) -> Result<()> {
        let mut rows = std::mem::take(&mut batch.rows);
        let input = self.input_name.clone();
        let place_of = |line| match &input {
            Some(name) => format!("{} {}", String::from_utf8_lossy(name), line_place(line)),
            None => line_place(line),
        };
        if batch.first_name == 0 {
            self.of_names.clear();
        }
        let (mut skips, mut line) = (batch.skips.iter(), batch.first_line);
        let mut skip = skips.next();
        let mut pass_skips = |rows_read: usize, line: &mut u64, job: &mut Job<'_>| {
            while let Some(skipped) = skip.filter(|skipped| skipped.rows_before <= rows_read) {
                skipped.why.count(job, || place_of(*line));
                *line += 1;
                skip = skips.next();
            }
        };
        let (mut read, mut result) = (0, Ok(()));
        rows.retain_mut(|row| {
            pass_skips(read, &mut line, job);
            let here = line;
            let place = || place_of(here);
            (read, line) = (read + 1, line + 1);
            match self.numbered(row.stream, batch, context, job, &place) {
                Ok(Some(stream)) => row.stream = stream,
                Ok(None) => return false,
                Err(error) => {
                    if result.is_ok() {
                        result = Err(error);
                    }
                    return false;
                }
            }
            take(row, context, job, place)
        });
        pass_skips(usize::MAX, &mut line, job);
        batch.rows = rows;
        result
    }

    /// The stream of a name of a batch.
    #[inline]
    fn numbered(
        &mut self,
        number: StreamId,
        batch: &Batch,
        context: &mut Context,
        job: &mut Job<'_>,
        place: &impl Fn() -> String,
    ) -> Result<Option<StreamId>> {
        match self.of_names.get(number.0 as usize) {
            Some(Named::Stream(stream)) => Ok(Some(*stream)),
            _ if number == ONLY_DEVICE => self.only(job, place),
            Some(Named::Refused(name)) => job.stream(name, None, place),
            None => self.name(batch.name(number.0), context, job, place),
        }
    }

    /// The stream of a new name, which is the next one.
    #[cold]
    fn name(
        &mut self,
        name: &[u8],
        context: &mut Context,
        job: &mut Job<'_>,
        place: &impl Fn() -> String,
    ) -> Result<Option<StreamId>> {
        let stream = self.stream(Device::Name(name), context, job, place)?;
        let again = if name.len() <= places::NAME_BYTES_MAX { name } else { &[] };
        self.of_names.push(stream.map_or_else(|| Named::Refused(again.to_vec()), Named::Stream));
        Ok(stream)
    }

    #[inline]
    fn stream(
        &mut self,
        device: Device<'_>,
        context: &mut Context,
        job: &mut Job<'_>,
        place: &impl Fn() -> String,
    ) -> Result<Option<StreamId>> {
        if matches!(device, Device::Only) {
            return self.only(job, place);
        }
        if let Some(id) = context.known.find(&device) {
            return Ok(Some(id));
        }
        self.name.clear();
        places::add_name(&device, &mut self.name);
        let found = job.stream(&self.name, None, place)?;
        if let Some(id) = found {
            context.known.keep(&device, id);
        }
        Ok(found)
    }

    fn only(&mut self, job: &mut Job<'_>, place: &impl Fn() -> String) -> Result<Option<StreamId>> {
        match (&self.input_name, self.only) {
            (_, Some(id)) => return Ok(Some(id)),
            (None, None) => self.only = Some(job.only_stream(None)?),
            (Some(name), None) => self.only = job.stream(name, None, place)?,
        }
        Ok(self.only)
    }
}

/// Whether a row can stand in a trace; then it gets its tag.
#[inline]
fn take(
    row: &mut Row,
    context: &mut Context,
    job: &mut Job<'_>,
    place: impl Fn() -> String,
) -> bool {
    if let Some(op) = row.op
        && !job.accepts(op, row.offset, row.len, place)
    {
        return false;
    }
    if context.tags == 0 {
        context.clock.describe(job);
    }
    if !row.own_tag {
        row.tag = context.tags;
    }
    context.tags += 1;
    true
}
