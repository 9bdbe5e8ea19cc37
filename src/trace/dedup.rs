//! Payloads on their way into a trace: each distinct one is stored once, in bounded memory.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};
use zerocopy::little_endian::U32;
use zerocopy::{FromZeros, IntoBytes};

use super::format::{
    FRAME_HEADER_BYTES, FRAME_PAYLOADS_MAX, FrameHeader, KIND_PAYLOAD, PAYLOAD_ENTRY_BYTES,
    PayloadEntry,
};
use super::index::Index;
use crate::base::limits::{DEDUP_ENTRIES_MAX, PAYLOAD_FRAME_BYTES};

/// zstd's fastest ordinary level: an import should be bound by its input, not by this.
pub(crate) const ZSTD_LEVEL: i32 = 1;

/// What is compressed at while data has turned out to be random: little more than a copy.
const ZSTD_LEVEL_HOPELESS: i32 = -100;

/// Frames that are taken for random after one that was, before that is tried again.
const HOPELESS_FRAMES: u32 = 7;

/// Entries of one generation: two of them stay below [`DEDUP_ENTRIES_MAX`], and 7/8 of a power of
/// two is where a hash table is fullest.
const GENERATION_ENTRIES: usize = DEDUP_ENTRIES_MAX / 16 * 7;

/// Payloads waiting for their frame, and the memory of those that were stored.
pub(super) struct Collector {
    /// Bytes of the waiting payloads, joined.
    raw: Vec<u8>,
    entries: Vec<PayloadEntry>,
    /// Number of the first waiting payload.
    first: u32,
    /// First 8 bytes of a SHA-256 → number. A hit is checked against the whole hash, in the
    /// waiting table or in the file, so a crafted prefix costs a second copy and nothing else.
    recent: HashMap<u64, u32>,
    /// The generation before; dropped when `recent` is full.
    older: HashMap<u64, u32>,
    compressor: zstd::bulk::Compressor<'static>,
    /// What was asked for.
    level: i32,
    /// Frames that are still taken for random.
    hopeless: u32,
}

impl Collector {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            raw: Vec::new(),
            entries: Vec::new(),
            first: 1,
            recent: HashMap::new(),
            older: HashMap::new(),
            compressor: zstd::bulk::Compressor::new(ZSTD_LEVEL)?,
            level: ZSTD_LEVEL,
            hopeless: 0,
        })
    }

    /// Compresses at another level from the next frame on.
    pub(super) fn set_level(&mut self, level: i32) -> io::Result<()> {
        if self.level != level {
            self.compressor.set_compression_level(level)?;
            self.level = level;
        }
        Ok(())
    }

    /// Number that the next new payload gets.
    pub(super) fn next(&self) -> u64 {
        u64::from(self.first) + self.entries.len() as u64
    }

    /// Whether anything waits.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether `len` more bytes ask for the waiting frame to be written first.
    pub(super) fn is_full_for(&self, len: usize) -> bool {
        !self.is_empty()
            && (self.raw.len() + len > PAYLOAD_FRAME_BYTES
                || self.entries.len() >= FRAME_PAYLOADS_MAX)
    }

    /// The entry that describes `data`.
    pub(super) fn describe(kind: u32, data: &[u8]) -> PayloadEntry {
        PayloadEntry {
            sha256: Sha256::digest(data).into(),
            len: U32::new(data.len() as u32),
            kind: U32::new(kind),
        }
    }

    /// The number under which this very payload is stored already, if that is still known.
    pub(super) fn find(
        &mut self,
        entry: &PayloadEntry,
        file: &File,
        index: &Index,
    ) -> io::Result<Option<u32>> {
        let key = key(entry);
        let Some(number) = self.recent.get(&key).or_else(|| self.older.get(&key)).copied() else {
            return Ok(None);
        };
        let same = match number.checked_sub(self.first) {
            Some(at) => self.entries.get(at as usize).is_some_and(|known| same(known, entry)),
            None => same(&stored_entry(file, index, number)?, entry),
        };
        if same {
            self.remember(key, number);
        }
        Ok(same.then_some(number))
    }

    /// Adds a payload that [`Collector::find`] does not know; `None` when numbers run out.
    pub(super) fn add(&mut self, entry: PayloadEntry, data: &[u8]) -> Option<u32> {
        let number = u32::try_from(self.next()).ok().filter(|number| *number < u32::MAX)?;
        self.remember(key(&entry), number);
        self.raw.extend_from_slice(data);
        self.entries.push(entry);
        Some(number)
    }

    fn remember(&mut self, key: u64, number: u32) {
        if self.recent.len() >= GENERATION_ENTRIES {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(key, number);
    }

    /// The waiting payloads, compressed; without much ado where those before were random.
    fn compress(&mut self) -> io::Result<Vec<u8>> {
        if self.hopeless > 0 {
            self.hopeless -= 1;
            self.compressor.set_compression_level(self.level.min(ZSTD_LEVEL_HOPELESS))?;
            let compressed = self.compressor.compress(&self.raw);
            self.compressor.set_compression_level(self.level)?;
            return compressed;
        }
        let compressed = self.compressor.compress(&self.raw)?;
        // A small frame says nothing of those to come.
        if compressed.len() >= self.raw.len() && self.raw.len() >= PAYLOAD_FRAME_BYTES / 2 {
            self.hopeless = HOPELESS_FRAMES;
        }
        Ok(compressed)
    }

    /// The waiting frame, which then waits no more.
    pub(super) fn take_frame(&mut self) -> io::Result<(FrameHeader, Vec<u8>)> {
        let mut header = FrameHeader::new(KIND_PAYLOAD, self.entries.len() as u32);
        header.raw_len = U32::new(self.raw.len() as u32);
        header.payload = u64::from(self.first).into();
        let mut body = self.entries.as_bytes().to_vec();
        body.extend_from_slice(&self.compress()?);
        self.first += self.entries.len() as u32;
        self.entries.clear();
        self.raw.clear();
        Ok((header, body))
    }
}

fn key(entry: &PayloadEntry) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = entry.sha256;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

fn same(a: &PayloadEntry, b: &PayloadEntry) -> bool {
    a.as_bytes() == b.as_bytes()
}

/// Reads the entry of a payload that is in the file already.
fn stored_entry(file: &File, index: &Index, number: u32) -> io::Result<PayloadEntry> {
    let mut entry = PayloadEntry::new_zeroed();
    if let Some((_, frame)) = index.payload_frame(number) {
        let row = u64::from(number - frame.first) * PAYLOAD_ENTRY_BYTES as u64;
        file.read_exact_at(entry.as_mut_bytes(), frame.offset + FRAME_HEADER_BYTES as u64 + row)?;
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::format::PAYLOAD_DATA;

    #[test]
    fn a_shared_prefix_is_not_taken_for_the_same_payload() {
        let mut collector = Collector::new().unwrap();
        let file = tempfile::tempfile().unwrap();
        let index = Index::default();
        let first = Collector::describe(PAYLOAD_DATA, b"one");
        let mut forged = first;
        forged.sha256[31] ^= 1;
        assert_eq!(collector.add(first, b"one"), Some(1));
        assert_eq!(collector.find(&first, &file, &index).unwrap(), Some(1));
        assert_eq!(collector.find(&forged, &file, &index).unwrap(), None);
    }

    #[test]
    fn random_data_is_not_compressed_again_and_again_and_what_follows_is() {
        let mut collector = Collector::new().unwrap();
        let mut prng = crate::base::Prng::new(1);
        let mut frame = |random: bool| {
            let mut data = vec![7; PAYLOAD_FRAME_BYTES];
            if random {
                prng.fill(&mut data);
            }
            collector.add(Collector::describe(PAYLOAD_DATA, &data), &data).unwrap();
            let (_, body) = collector.take_frame().unwrap();
            let stored = zstd::bulk::decompress(&body[PAYLOAD_ENTRY_BYTES..], data.len()).unwrap();
            assert_eq!(stored, data);
            (body.len(), collector.hopeless)
        };
        assert_eq!(frame(true).1, HOPELESS_FRAMES);
        for left in (0..HOPELESS_FRAMES).rev() {
            let (len, hopeless) = frame(false);
            assert!(len < PAYLOAD_FRAME_BYTES / 8, "{len}");
            assert_eq!(hopeless, left);
        }
        assert_eq!(frame(false).1, 0);
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays_known() {
        let mut collector = Collector::new().unwrap();
        for number in 1..=(2 * GENERATION_ENTRIES as u32 + 10) {
            collector.remember(u64::from(number), number);
            collector.remember(7, 7);
        }
        assert!(collector.recent.len() + collector.older.len() <= DEDUP_ENTRIES_MAX);
        assert_eq!(collector.recent.get(&7), Some(&7));
        assert!(!collector.recent.contains_key(&1) && !collector.older.contains_key(&1));
    }
}
