//! Stored payloads, read back: frames are decoded whole, checked, and kept for a while.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use zerocopy::FromBytes;

use super::dedup::digest;
use super::format::{
    FRAME_HEADER_BYTES, FrameHeader, KIND_PAYLOAD, PAYLOAD_BLAKE3, PAYLOAD_DATA,
    PAYLOAD_ENTRY_BYTES, PAYLOAD_LIST, PayloadEntry, padded,
};
use super::index::{Frame, Index, PayloadFrame};
use crate::base::limits::{FRAME_BYTES_MAX, PAYLOAD_CACHE_BYTES, PAYLOAD_PIECE_BYTES};

/// A piece's size as the arithmetic of offsets wants it.
const PIECE: u64 = PAYLOAD_PIECE_BYTES as u64;

/// What the bookkeeping of a cached frame takes, roughly: bounds the number of tiny ones.
const CACHED_FRAME_OVERHEAD: usize = 256;

/// A payload inside its decoded frame.
#[derive(Clone, Copy, Debug)]
struct Slot {
    start: u32,
    len: u32,
    list: bool,
}

/// A payload frame after decompression.
#[derive(Debug)]
struct Decoded {
    slots: Vec<Slot>,
    bytes: Vec<u8>,
}

impl Decoded {
    fn cost(&self) -> usize {
        self.bytes.len() + self.slots.len() * size_of::<Slot>() + CACHED_FRAME_OVERHEAD
    }
}

/// One payload, held in memory by its frame.
struct Stored {
    frame: Arc<Decoded>,
    slot: Slot,
}

impl Stored {
    fn bytes(&self) -> &[u8] {
        let start = self.slot.start as usize;
        &self.frame.bytes[start..start + self.slot.len as usize]
    }
}

/// The payloads of an open trace. Shared by threads; a frame is decoded outside the lock.
#[derive(Debug)]
pub(super) struct PayloadStore {
    cache: Mutex<Cache>,
}

impl PayloadStore {
    pub(super) fn new() -> Self {
        Self { cache: Mutex::new(Cache::default()) }
    }

    /// Copies bytes `from..` of payload `number`, which is `total` bytes long, to `buf`.
    pub(super) fn read(
        &self,
        file: &File,
        index: &Index,
        number: u32,
        total: u64,
        from: u64,
        buf: &mut [u8],
    ) -> Result<(), String> {
        let end = from.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > total) {
            return Err(format!("bytes {from}+{} of a payload of {total}", buf.len()));
        }
        let stored = self.get(file, index, number)?;
        if !stored.slot.list {
            return copy(&stored, number, total, from, buf);
        }
        if total.div_ceil(PIECE).checked_mul(4) != Some(u64::from(stored.slot.len)) {
            return Err(wrong_length(number, total));
        }
        let (mut from, mut buf) = (from, buf);
        while !buf.is_empty() {
            let piece = from / PIECE;
            let within = from % PIECE;
            let piece_len = (total - piece * PIECE).min(PIECE);
            let (now, later) =
                buf.split_at_mut((piece_len - within).min(buf.len() as u64) as usize);
            let number = list_item(stored.bytes(), piece).ok_or("a payload list is short")?;
            copy(&self.get(file, index, number)?, number, piece_len, within, now)?;
            from += now.len() as u64;
            buf = later;
        }
        Ok(())
    }

    fn get(&self, file: &File, index: &Index, number: u32) -> Result<Stored, String> {
        let (at, frame) =
            index.payload_frame(number).ok_or_else(|| format!("there is no payload {number}"))?;
        // A statement of its own: the lock must not be held while a frame is decoded.
        let kept = self.lock().get(at);
        let decoded = match kept {
            Some(decoded) => decoded,
            None => {
                let decoded = decode(file, frame)
                    .map_err(|why| format!("payload frame at offset {}: {why}", frame.offset))?;
                self.lock().put(at, Arc::new(decoded))
            }
        };
        let slot = decoded.slots.get((number - frame.first) as usize).copied();
        let slot = slot.ok_or_else(|| format!("there is no payload {number}"))?;
        Ok(Stored { frame: decoded, slot })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Cache> {
        // The cache is whole between any two of its statements: a panic elsewhere harms nothing.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn copy(stored: &Stored, number: u32, total: u64, from: u64, buf: &mut [u8]) -> Result<(), String> {
    if stored.slot.list || u64::from(stored.slot.len) != total {
        return Err(wrong_length(number, total));
    }
    let from = from as usize;
    buf.copy_from_slice(&stored.bytes()[from..from + buf.len()]);
    Ok(())
}

fn wrong_length(number: u32, total: u64) -> String {
    format!("payload {number} is not the {total} bytes that its event says")
}

fn list_item(list: &[u8], at: u64) -> Option<u32> {
    let at = usize::try_from(at).ok()?.checked_mul(4)?;
    let bytes = list.get(at..at + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// Reads a frame with `pread`, so that the map does not grow by pages nobody gives back.
fn decode(file: &File, frame: PayloadFrame) -> Result<Decoded, String> {
    let mut bytes = vec![0; FRAME_HEADER_BYTES];
    file.read_exact_at(&mut bytes, frame.offset).map_err(|e| e.to_string())?;
    let header = FrameHeader::read_from_bytes(&bytes[..]).map_err(|e| e.to_string())?;
    let body_len = header.body_len.get();
    if body_len > FRAME_BYTES_MAX as u64 || header.header_crc.get() != header.computed_crc() {
        return Err("the CRC of a frame header is wrong".into());
    }
    bytes.resize(FRAME_HEADER_BYTES + padded(body_len) as usize, 0);
    let body_at = frame.offset + FRAME_HEADER_BYTES as u64;
    file.read_exact_at(&mut bytes[FRAME_HEADER_BYTES..], body_at).map_err(|e| e.to_string())?;
    let read = Frame::of_kind(&bytes, 0, KIND_PAYLOAD)?;
    let header = read.header;
    if header.count.get() != frame.count || header.payload.get() != u64::from(frame.first) {
        return Err("it is not the frame that the index says".into());
    }
    decode_body(read.body()?, frame.count as usize, header.raw_len.get() as usize)
}

fn decode_body(body: &[u8], count: usize, raw_len: usize) -> Result<Decoded, String> {
    let (entries, compressed) = <[PayloadEntry]>::ref_from_prefix_with_elems(body, count)
        .map_err(|_| "its table is cut short".to_owned())?;
    let slots = slots(entries, raw_len)?;
    let mut bytes = vec![0; raw_len];
    let got = zstd::bulk::decompress_to_buffer(compressed, &mut bytes[..])
        .map_err(|e| format!("cannot decompress: {e}"))?;
    if got != raw_len {
        return Err("it decompresses to another length".into());
    }
    let mut rest = &bytes[..];
    for entry in entries {
        let (payload, after) = rest.split_at(entry.len.get() as usize);
        if digest(entry.kind.get(), payload) != entry.digest {
            return Err("the digest of a payload is wrong".into());
        }
        rest = after;
    }
    Ok(Decoded { slots, bytes })
}

/// Checks the table, so that nothing is allocated by an unchecked length.
fn slots(entries: &[PayloadEntry], raw_len: usize) -> Result<Vec<Slot>, String> {
    let mut start = 0u64;
    let mut slots = Vec::with_capacity(entries.len());
    for entry in entries {
        let len = entry.len.get();
        let list = match entry.kind.get() & !PAYLOAD_BLAKE3 {
            PAYLOAD_DATA => false,
            PAYLOAD_LIST => true,
            _ => return Err(format!("a payload of unknown kind {}", entry.kind)),
        };
        slots.push(Slot { start: start as u32, len, list });
        start += u64::from(len);
        if start > PIECE {
            return Err("its payloads are longer than a frame's may be".into());
        }
    }
    if start != raw_len as u64 {
        return Err("its payloads are not as long as it says".into());
    }
    Ok(slots)
}

/// Decoded frames up to [`PAYLOAD_CACHE_BYTES`]; the clock algorithm chooses what goes.
#[derive(Debug, Default)]
struct Cache {
    frames: HashMap<usize, (Arc<Decoded>, bool)>,
    order: VecDeque<usize>,
    bytes: usize,
}

impl Cache {
    fn get(&mut self, at: usize) -> Option<Arc<Decoded>> {
        let (decoded, used) = self.frames.get_mut(&at)?;
        *used = true;
        Some(Arc::clone(decoded))
    }

    /// Keeps `decoded`, unless another thread was faster: then returns what that one kept.
    fn put(&mut self, at: usize, decoded: Arc<Decoded>) -> Arc<Decoded> {
        if let Some(kept) = self.get(at) {
            return kept;
        }
        self.make_room(decoded.cost());
        self.bytes += decoded.cost();
        self.frames.insert(at, (Arc::clone(&decoded), false));
        self.order.push_back(at);
        decoded
    }

    fn make_room(&mut self, cost: usize) {
        while self.bytes + cost > PAYLOAD_CACHE_BYTES {
            let Some(at) = self.order.pop_front() else { return };
            match self.frames.get_mut(&at) {
                Some((_, used)) if *used => {
                    *used = false;
                    self.order.push_back(at);
                }
                _ => {
                    let gone = self.frames.remove(&at);
                    self.bytes -= gone.map_or(0, |(decoded, _)| decoded.cost());
                }
            }
        }
    }
}

const _: () = assert!(PAYLOAD_ENTRY_BYTES == size_of::<PayloadEntry>());
