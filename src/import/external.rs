//! Events that come too late for the trace that is being written: sorted in runs in an unnamed
//! file beside it, then merged with it.
//!
//! The times of a trace count from its first event. When an earlier one comes up, all move: so
//! events are kept by a key, the time since the origin that was first taken, which may be before
//! it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use zerocopy::{FromBytes, IntoBytes};

use crate::base::error::IoContext;
use crate::base::limits::{LATE_EVENTS_HELD, LATE_MERGE_BYTES, STREAMS_MAX};
use crate::base::{Error, Nanos, Result};
use crate::trace::Event;
use crate::trace::format::{RECORD_BYTES, Record, RecordBounds};

/// Time since the first origin; negative before it.
pub(super) type Key = i128;

/// An event as it stands in a run: its key, then its record.
const ENTRY_BYTES: usize = size_of::<Key>() + RECORD_BYTES;

/// Any event that names no payload.
const BOUNDS: RecordBounds = RecordBounds { streams: STREAMS_MAX as u32, next_payload: 1 };

/// Late events.
pub(super) struct LateEvents {
    /// For messages, and whose folder the runs go to.
    output: PathBuf,
    held: Vec<(Key, Record)>,
    file: Option<File>,
    /// Entries of each run; they stand one behind the other.
    runs: Vec<u64>,
}

impl LateEvents {
    /// None yet, of the trace that will be `output`.
    pub(super) fn new(output: &Path) -> Self {
        Self { output: output.to_path_buf(), held: Vec::new(), file: None, runs: Vec::new() }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.runs.is_empty()
    }

    /// Takes one; equal keys keep the order in which they come.
    ///
    /// # Errors
    /// Input: it cannot stand in a trace; Incomplete: the file cannot be written.
    pub(super) fn add(&mut self, key: Key, event: &Event) -> Result<()> {
        let record = Record::encode(event, BOUNDS).map_err(|why| {
            Error::input(format!("cannot be stored in a trace: an event has {why}"))
                .path(&self.output)
        })?;
        self.held.push((key, record));
        if self.held.len() >= LATE_EVENTS_HELD { self.spill() } else { Ok(()) }
    }

    /// Writes what is held as a sorted run.
    fn spill(&mut self) -> Result<()> {
        self.held.sort_by_key(|(key, _)| *key);
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let folder = self.output.parent().filter(|folder| !folder.as_os_str().is_empty());
                let folder = folder.unwrap_or(Path::new("."));
                let file = tempfile::tempfile_in(folder);
                let what = "cannot create a temporary file beside it";
                self.file.insert(file.writing(&self.output, what)?)
            }
        };
        let mut bytes = Vec::with_capacity(self.held.len() * ENTRY_BYTES);
        for (key, record) in &self.held {
            bytes.extend_from_slice(&key.to_le_bytes());
            bytes.extend_from_slice(record.as_bytes());
        }
        let at = self.runs.iter().sum::<u64>() * ENTRY_BYTES as u64;
        file.write_all_at(&bytes, at)
            .writing(&self.output, "cannot write late events beside it")?;
        self.runs.push(self.held.len() as u64);
        self.held.clear();
        Ok(())
    }

    /// All of them in order.
    ///
    /// # Errors
    /// Incomplete: the file cannot be written or read back.
    pub(super) fn into_sorted(mut self) -> Result<Sorted> {
        self.held.sort_by_key(|(key, _)| *key);
        let room = LATE_MERGE_BYTES / ENTRY_BYTES / self.runs.len().max(1);
        let mut sorted = Sorted {
            output: self.output,
            file: self.file,
            held: self.held.into_iter(),
            runs: Vec::with_capacity(self.runs.len()),
            heads: BinaryHeap::with_capacity(self.runs.len() + 1),
        };
        let mut at = 0;
        for entries in self.runs {
            let room = room.max(1);
            sorted.runs.push(Run { at, left: entries, room, entries: Vec::new().into_iter() });
            at += entries * ENTRY_BYTES as u64;
        }
        // The run in memory is the last: of equal keys the earlier run is the earlier event.
        for run in 0..=sorted.runs.len() {
            sorted.advance(run)?;
        }
        Ok(sorted)
    }
}

/// A run that is read back.
struct Run {
    /// File offset of what is not read yet, and how many entries that is.
    at: u64,
    left: u64,
    /// Entries read at a time.
    room: usize,
    entries: std::vec::IntoIter<(Key, Record)>,
}

impl Run {
    fn next(&mut self, file: &File) -> std::io::Result<Option<(Key, Record)>> {
        if let Some(entry) = self.entries.next() {
            return Ok(Some(entry));
        }
        let count = self.left.min(self.room as u64) as usize;
        let mut bytes = vec![0; count * ENTRY_BYTES];
        file.read_exact_at(&mut bytes, self.at)?;
        self.at += bytes.len() as u64;
        self.left -= count as u64;
        let entry = |bytes: &[u8]| {
            let (key, record) = bytes.split_first_chunk()?;
            Some((Key::from_le_bytes(*key), Record::read_from_bytes(record).ok()?))
        };
        let entries: Vec<_> = bytes.chunks_exact(ENTRY_BYTES).filter_map(entry).collect();
        self.entries = entries.into_iter();
        Ok(self.entries.next())
    }
}

/// The head of a run, ordered by key and run.
struct Head {
    key: Key,
    run: usize,
    record: Record,
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        (self.key, self.run) == (other.key, other.run)
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.key, self.run).cmp(&(other.key, other.run))
    }
}

/// Late events in order.
pub(super) struct Sorted {
    output: PathBuf,
    file: Option<File>,
    held: std::vec::IntoIter<(Key, Record)>,
    runs: Vec<Run>,
    heads: BinaryHeap<Reverse<Head>>,
}

impl Sorted {
    /// The key of the next one.
    pub(super) fn peek(&self) -> Option<Key> {
        self.heads.peek().map(|Reverse(head)| head.key)
    }

    /// The next one, its time counted from `origin`.
    ///
    /// # Errors
    /// Incomplete: the file cannot be read back.
    pub(super) fn next(&mut self, origin: Key) -> Result<Option<Event>> {
        let Some(Reverse(head)) = self.heads.pop() else { return Ok(None) };
        self.advance(head.run)?;
        let mut event = head.record.decode(BOUNDS).map_err(|why| {
            Error::incomplete(format!("a late event came back with {why}")).path(&self.output)
        })?;
        event.set_time(since(head.key, origin));
        Ok(Some(event))
    }

    /// Puts the next entry of a run among the heads.
    fn advance(&mut self, run: usize) -> Result<()> {
        let entry = match (self.runs.get_mut(run), &self.file) {
            (Some(source), Some(file)) => {
                source.next(file).writing(&self.output, "cannot read back late events")?
            }
            _ => self.held.next(),
        };
        self.heads.extend(entry.map(|(key, record)| Reverse(Head { key, run, record })));
        Ok(())
    }
}

/// The time of `key` since `origin`.
pub(super) fn since(key: Key, origin: Key) -> Nanos {
    Nanos(u64::try_from((key - origin).max(0)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;
    use crate::trace::{Complete, PayloadRef, StreamId};

    fn event(tag: u64) -> Event {
        let (stream, payload) = (StreamId(0), PayloadRef::Absent);
        Event::Complete(Complete { time: Nanos(0), tag, stream, status: 0, payload })
    }

    #[test]
    fn runs_merge_to_one_order_that_keeps_equals_as_they_came() {
        let dir = tempfile::tempdir().unwrap();
        let mut late = LateEvents::new(&dir.path().join("t.qtrace"));
        assert!(late.is_empty());
        let mut prng = Prng::new(3);
        let count = LATE_EVENTS_HELD as u64 * 2 + 1000;
        let mut want = Vec::new();
        for tag in 0..count {
            let key = Key::from(prng.below(5000)) - 2500;
            want.push((key, tag));
            late.add(key, &event(tag)).unwrap();
        }
        want.sort_by_key(|(key, _)| *key);
        assert_eq!(late.runs.len(), 2);
        let mut sorted = late.into_sorted().unwrap();
        for (key, tag) in want {
            assert_eq!(sorted.peek(), Some(key));
            let got = sorted.next(-2500).unwrap().unwrap();
            let Event::Complete(got) = got else { panic!("{got:?}") };
            assert_eq!((got.tag, Key::from(got.time.0)), (tag, key + 2500));
        }
        assert!(sorted.next(0).unwrap().is_none());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the file has no name");
    }
}
