//! Payloads on their way into a trace: each distinct one is stored once, in bounded memory.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};
use zerocopy::little_endian::U32;
use zerocopy::{FromZeros, IntoBytes};

use super::format::{
    BLAKE3_BYTES_MIN, FRAME_HEADER_BYTES, FRAME_PAYLOADS_MAX, FrameHeader, KIND_PAYLOAD,
    PAYLOAD_BLAKE3, PAYLOAD_DATA, PAYLOAD_ENTRY_BYTES, PayloadEntry,
};
use super::index::Index;
use super::packing::Packer;
use crate::base::limits::{DEDUP_ENTRIES_MAX, PAYLOAD_FRAME_BYTES};

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
    /// First 8 bytes of a digest → number. A hit is checked against the whole hash, in the
    /// waiting table or in the file, so a crafted prefix costs a second copy and nothing else.
    recent: HashMap<u64, u32>,
    /// The generation before; dropped when `recent` is full.
    older: HashMap<u64, u32>,
    packer: Packer,
}

/// The digest of a payload of this kind.
pub(super) fn digest(kind: u32, data: &[u8]) -> [u8; 32] {
    if kind & PAYLOAD_BLAKE3 == 0 {
        return Sha256::digest(data).into();
    }
    blake3::hash(data).into()
}

impl Collector {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            raw: Vec::new(),
            entries: Vec::new(),
            first: 1,
            recent: HashMap::new(),
            older: HashMap::new(),
            packer: Packer::new()?,
        })
    }

    /// Compresses at another level from the next frame on.
    pub(super) fn set_level(&mut self, level: i32) -> io::Result<()> {
        self.packer.set_level(level)
    }

    /// Number that the next new payload gets.
    pub(super) fn next(&self) -> u64 {
        u64::from(self.first) + self.entries.len() as u64
    }

    /// Number of the first payload that is not in the file.
    pub(super) fn first(&self) -> u64 {
        u64::from(self.first)
    }

    /// What waits will never be written. No payload may be looked for or added after this.
    pub(super) fn forget(&mut self) {
        self.entries.clear();
        self.raw.clear();
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

    /// The entry that describes `data`; `kind`: [`PAYLOAD_DATA`] or a list.
    pub(super) fn describe(kind: u32, data: &[u8]) -> PayloadEntry {
        let long = kind == PAYLOAD_DATA && data.len() >= BLAKE3_BYTES_MIN;
        let kind = if long { kind | PAYLOAD_BLAKE3 } else { kind };
        PayloadEntry {
            digest: digest(kind, data),
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
        let number = self.add_alone(entry)?;
        self.raw.extend_from_slice(data);
        Some(number)
    }

    /// Adds one whose data is given when its frame is written, which must be next.
    pub(super) fn add_alone(&mut self, entry: PayloadEntry) -> Option<u32> {
        let number = u32::try_from(self.next()).ok().filter(|number| *number < u32::MAX)?;
        self.remember(key(&entry), number);
        self.entries.push(entry);
        Some(number)
    }

    fn remember(&mut self, key: u64, number: u32) {
        if self.recent.len() >= GENERATION_ENTRIES {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(key, number);
    }

    /// Header and body of the frame of what waits: of `alone`, where that is what was added.
    pub(super) fn frame<'a>(
        &'a mut self,
        alone: Option<&'a [u8]>,
    ) -> io::Result<(FrameHeader, Vec<&'a [u8]>)> {
        let raw = alone.unwrap_or(&self.raw);
        let mut header = FrameHeader::new(KIND_PAYLOAD, self.entries.len() as u32);
        header.raw_len = U32::new(raw.len() as u32);
        header.payload = u64::from(self.first).into();
        let mut parts = vec![self.entries.as_bytes()];
        self.packer.pack(raw, &mut parts)?;
        Ok((header, parts))
    }

    /// What waited is in the file.
    pub(super) fn written(&mut self) {
        self.first += self.entries.len() as u32;
        self.entries.clear();
        self.raw.clear();
    }
}

fn key(entry: &PayloadEntry) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = entry.digest;
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
    use crate::trace::format::PAYLOAD_LIST;

    #[test]
    fn a_shared_prefix_is_not_taken_for_the_same_payload() {
        let mut collector = Collector::new().unwrap();
        let file = tempfile::tempfile().unwrap();
        let index = Index::default();
        let first = Collector::describe(PAYLOAD_DATA, b"one");
        let mut forged = first;
        forged.digest[31] ^= 1;
        assert_eq!(collector.add(first, b"one"), Some(1));
        assert_eq!(collector.find(&first, &file, &index).unwrap(), Some(1));
        assert_eq!(collector.find(&forged, &file, &index).unwrap(), None);
    }

    #[test]
    fn long_data_is_digested_with_blake3_and_lists_never_are() {
        let long = vec![1; BLAKE3_BYTES_MIN];
        let kind = |kind, data: &[u8]| Collector::describe(kind, data).kind.get();
        assert_eq!(kind(PAYLOAD_DATA, &long), PAYLOAD_DATA | PAYLOAD_BLAKE3);
        assert_eq!(kind(PAYLOAD_DATA, &long[1..]), PAYLOAD_DATA);
        assert_eq!(kind(PAYLOAD_LIST, &long), PAYLOAD_LIST);
        // Of the BLAKE3 paper's test vectors and of FIPS 180-2's.
        let begins = |kind, data: &[u8]| digest(kind, data)[..4].to_vec();
        assert_eq!(begins(PAYLOAD_BLAKE3, b""), [0xaf, 0x13, 0x49, 0xb9]);
        assert_eq!(begins(PAYLOAD_DATA, b"abc"), [0xba, 0x78, 0x16, 0xbf]);
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
