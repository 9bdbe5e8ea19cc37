//! The streams of rows, by the names of their devices.
//!
//! A row's device is most often one of few: each name seen stands at one place of a small table,
//! which its first and last bytes choose, so that it is found by one comparison.

use super::swar;
use super::text::{Device, Parsed};
use super::{Context, Row};
use crate::base::Result;
use crate::import::job::Job;
use crate::import::source::Source;
use crate::trace::StreamId;

/// Places of the table, as a power of two.
const PLACES_LOG2: u32 = 12;
/// Longest name that is kept.
const NAME_BYTES_MAX: usize = 64;

/// Names seen of late, with their streams.
pub(in crate::import) struct KnownStreams {
    places: Vec<(Vec<u8>, StreamId)>,
}

impl Default for KnownStreams {
    fn default() -> Self {
        Self { places: vec![(Vec::new(), StreamId(0)); 1 << PLACES_LOG2] }
    }
}

impl KnownStreams {
    /// The stream of that name, if it is known.
    #[inline]
    fn find(&self, name: &[u8]) -> Option<StreamId> {
        let (known, id) = self.places.get(place(name))?;
        (known == name && !name.is_empty()).then_some(*id)
    }

    /// Takes the place of another name.
    fn keep(&mut self, name: &[u8], id: StreamId) {
        if let Some(place) = self.places.get_mut(place(name))
            && name.len() <= NAME_BYTES_MAX
        {
            place.0.clear();
            place.0.extend_from_slice(name);
            place.1 = id;
        }
    }
}

/// Where a name stands; whoever makes many names stand at one place gains nothing.
#[inline]
fn place(name: &[u8]) -> usize {
    let word = match (name.first_chunk(), name.last_chunk()) {
        (Some(first), Some(last)) => {
            u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(29)
        }
        _ => swar::short(name),
    };
    // 2^64 divided by the golden ratio spreads what differs in low bits over the high ones.
    (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - PLACES_LOG2)) as usize
}

/// Finds the streams of the rows of one input.
#[derive(Default)]
pub(in crate::import) struct Streams {
    /// The name of the only device, when several inputs make it one of several.
    input_name: Option<Vec<u8>>,
    only: Option<StreamId>,
    /// A name put together from two.
    name: Vec<u8>,
}

impl Streams {
    pub(in crate::import) fn new(source: &Source, several: bool) -> Self {
        let name = source.path().file_name().unwrap_or_default();
        let input_name = several.then(|| name.to_string_lossy().into_owned().into_bytes());
        Self { input_name, only: None, name: Vec::new() }
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
        if let Some(op) = parsed.op
            && !job.accepts(op, parsed.offset, parsed.len, &place)
        {
            return Ok(None);
        }
        if context.tags == 0 {
            context.clock.describe(job);
        }
        let tag = parsed.tag.unwrap_or(context.tags);
        context.tags += 1;
        let &Parsed { time, op, flags, offset, len, latency, .. } = parsed;
        let latency = latency.unwrap_or(Row::NO_LATENCY);
        Ok(Some(Row { time, offset, len, latency, tag, stream, flags, op }))
    }

    #[inline]
    fn stream(
        &mut self,
        device: Device<'_>,
        context: &mut Context,
        job: &mut Job<'_>,
        place: &impl Fn() -> String,
    ) -> Result<Option<StreamId>> {
        let name = match device {
            Device::Only => return self.only(job, place),
            Device::Name(name) => name,
            Device::Pair(first, between, second) => {
                self.name.clear();
                self.name.extend_from_slice(first);
                self.name.push(between);
                self.name.extend_from_slice(second);
                &self.name
            }
        };
        if let Some(id) = context.known.find(name) {
            return Ok(Some(id));
        }
        let found = job.stream(name, None, place)?;
        if let Some(id) = found {
            context.known.keep(name, id);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart_wherever_they_stand() {
        let mut known = KnownStreams::default();
        let names: Vec<Vec<u8>> = (0..10_000u32)
            .map(|n| format!("{}{n}", "x".repeat(n as usize % 70)).into_bytes())
            .collect();
        for (name, id) in names.iter().zip(0..) {
            assert_eq!(known.find(name), None);
            known.keep(name, StreamId(id));
            assert_eq!(known.find(name), (name.len() <= NAME_BYTES_MAX).then_some(StreamId(id)));
        }
        for (name, id) in names.iter().zip(0..) {
            assert!(known.find(name).is_none_or(|found| found == StreamId(id)));
        }
        assert_eq!(known.find(b""), None);
    }
}
