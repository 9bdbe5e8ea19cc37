//! Sorted, immutable runs of extents, 12 bytes an extent.
//!
//! A run is a list of blocks; a block is up to [`BLOCK_ENTRIES`] entries that share a first sector.
//! An entry is 96 bits, little endian:
//!
//! | bits | what |
//! |---|---|
//! | 0..46  | the version ([`Version::to_raw`]) |
//! | 46..64 | length: mantissa (12 bits) shifted left by exponent (6 bits), in sectors |
//! | 64..96 | start, in sectors from the block's first |
//!
//! A length that the mantissa cannot hold exactly is split into a few entries, so an extent of any
//! length takes few, and one of up to 4095 sectors takes one.

use std::path::Path;

use super::spill::{BlockCache, SpillFile};
use super::version::Version;
use crate::base::Result;

/// Bytes of one entry.
pub const ENTRY_BYTES: usize = 12;

/// Entries in a block: 12 KiB, so that what is kept beside a block is below half a percent of it.
pub const BLOCK_ENTRIES: usize = 1024;

const MANTISSA_BITS: u32 = 12;
const LEN_SHIFT: u32 = Version::BITS;
const START_SHIFT: u32 = 64;

/// Consecutive sectors that one write defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First sector.
    pub start: u64,
    /// First sector past it.
    pub end: u64,
    /// What defined it.
    pub version: Version,
}

/// Extents in sector order, disjoint.
pub trait ExtentSource {
    /// The next one, or `None` at the end.
    fn next(&mut self) -> Result<Option<Extent>>;
}

/// The largest length not above `len` that an entry can hold, and its code.
fn encode_len(len: u64) -> (u64, u64) {
    let exponent = (u64::BITS - len.leading_zeros()).saturating_sub(MANTISSA_BITS);
    let mantissa = len >> exponent;
    (mantissa << exponent, u64::from(exponent) << MANTISSA_BITS | mantissa)
}

fn decode_len(code: u64) -> u64 {
    (code & ((1 << MANTISSA_BITS) - 1)) << (code >> MANTISSA_BITS)
}

fn encode(delta: u32, len_code: u64, version: Version) -> [u8; ENTRY_BYTES] {
    let low = version.to_raw() | len_code << LEN_SHIFT;
    let mut entry = [0; ENTRY_BYTES];
    entry[..8].copy_from_slice(&low.to_le_bytes());
    entry[8..].copy_from_slice(&delta.to_le_bytes());
    entry
}

/// The entry with this index of a block whose first sector is `first`, if there is one.
fn decode(block: &[u8], first: u64, index: usize) -> Option<Extent> {
    let entry = block.get(index * ENTRY_BYTES..)?.first_chunk::<ENTRY_BYTES>()?;
    let mut wide = [0u8; 16];
    wide[..ENTRY_BYTES].copy_from_slice(entry);
    let wide = u128::from_le_bytes(wide);
    let low = wide as u64;
    let start = first.saturating_add((wide >> START_SHIFT) as u64);
    let end = start.saturating_add(decode_len(low >> LEN_SHIFT));
    Some(Extent { start, end, version: Version::from_raw(low) })
}

/// Index of the first entry that ends past `sector`.
fn first_ending_past(block: &[u8], first: u64, sector: u64) -> usize {
    let (mut low, mut high) = (0, block.len() / ENTRY_BYTES);
    while low < high {
        let middle = (low + high) / 2;
        if decode(block, first, middle).is_some_and(|extent| extent.end <= sector) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// A block in memory.
#[derive(Debug)]
struct Block {
    first: u64,
    entries: Box<[u8]>,
}

#[derive(Debug)]
enum Store {
    Memory(Vec<Block>),
    File(SpillFile),
}

/// One sorted run.
#[derive(Debug)]
pub struct Run {
    id: u64,
    entries: u64,
    store: Store,
}

impl Run {
    /// Entries it holds.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Bytes of memory: everything, or the block index when it lies in a file.
    pub fn memory_bytes(&self) -> u64 {
        match &self.store {
            Store::Memory(blocks) => {
                self.entries * ENTRY_BYTES as u64 + (blocks.len() * size_of::<Block>()) as u64
            }
            Store::File(file) => file.index_bytes(),
        }
    }

    /// Whether it lies in a file.
    pub fn is_spilled(&self) -> bool {
        matches!(self.store, Store::File(_))
    }

    fn blocks(&self) -> usize {
        match &self.store {
            Store::Memory(blocks) => blocks.len(),
            Store::File(file) => file.blocks().len(),
        }
    }

    /// The last block that begins at or before `sector`, or the first one.
    fn block_for(&self, sector: u64) -> usize {
        match &self.store {
            Store::Memory(blocks) => blocks.partition_point(|block| block.first <= sector),
            Store::File(file) => file.blocks().partition_point(|block| block.first <= sector),
        }
        .saturating_sub(1)
    }

    fn block<'a>(&'a self, number: usize, cache: &'a mut BlockCache) -> Result<(u64, &'a [u8])> {
        match &self.store {
            Store::Memory(blocks) => Ok(blocks
                .get(number)
                .map_or((0, &[][..]), |block| (block.first, block.entries.as_ref()))),
            Store::File(file) => file.block(self.id, number, cache),
        }
    }

    /// Calls `visit` for every extent that overlaps `start..end`, in order, until it says `false`.
    pub fn visit(
        &self,
        start: u64,
        end: u64,
        cache: &mut BlockCache,
        mut visit: impl FnMut(Extent) -> bool,
    ) -> Result<()> {
        for number in self.block_for(start)..self.blocks() {
            let (first, block) = self.block(number, cache)?;
            if first >= end {
                return Ok(());
            }
            let mut index = first_ending_past(block, first, start);
            while let Some(extent) = decode(block, first, index) {
                if extent.start >= end || !visit(extent) {
                    return Ok(());
                }
                index += 1;
            }
        }
        Ok(())
    }

    /// The run as a source that gives each block's memory back once it is passed.
    pub fn into_source(self) -> RunSource {
        RunSource { run: self, number: 0, index: 0, first: 0, current: Box::default() }
    }
}

/// Reads a run from its start to its end, and frees it on the way.
pub struct RunSource {
    run: Run,
    number: usize,
    index: usize,
    first: u64,
    current: Box<[u8]>,
}

impl RunSource {
    fn load(&mut self) -> Result<bool> {
        let number = self.number;
        self.number += 1;
        self.index = 0;
        match &mut self.run.store {
            Store::Memory(blocks) => {
                let Some(block) = blocks.get_mut(number) else { return Ok(false) };
                (self.first, self.current) = (block.first, std::mem::take(&mut block.entries));
            }
            Store::File(file) => {
                let Some(&place) = file.blocks().get(number) else { return Ok(false) };
                let mut buf = std::mem::take(&mut self.current).into_vec();
                file.read_block(place, &mut buf)?;
                (self.first, self.current) = (place.first, buf.into_boxed_slice());
            }
        }
        Ok(true)
    }
}

impl ExtentSource for RunSource {
    fn next(&mut self) -> Result<Option<Extent>> {
        loop {
            if let Some(extent) = decode(&self.current, self.first, self.index) {
                self.index += 1;
                return Ok(Some(extent));
            }
            if !self.load()? {
                return Ok(None);
            }
        }
    }
}

/// Two sources as one: where they overlap, the newer one holds.
pub struct Overlay {
    newer: Box<dyn ExtentSource>,
    older: Box<dyn ExtentSource>,
    new: Option<Extent>,
    old: Option<Extent>,
}

impl Overlay {
    /// `newer` over `older`.
    pub fn new(mut newer: Box<dyn ExtentSource>, mut older: Box<dyn ExtentSource>) -> Result<Self> {
        let (new, old) = (newer.next()?, older.next()?);
        Ok(Self { newer, older, new, old })
    }

    fn take_new(&mut self) -> Result<Option<Extent>> {
        let next = self.newer.next()?;
        Ok(std::mem::replace(&mut self.new, next))
    }

    fn take_old(&mut self) -> Result<Option<Extent>> {
        let next = self.older.next()?;
        Ok(std::mem::replace(&mut self.old, next))
    }
}

impl ExtentSource for Overlay {
    fn next(&mut self) -> Result<Option<Extent>> {
        loop {
            let (Some(new), Some(old)) = (self.new, self.old) else {
                return if self.new.is_some() { self.take_new() } else { self.take_old() };
            };
            if old.end <= new.start {
                return self.take_old();
            }
            if new.end <= old.start {
                return self.take_new();
            }
            if old.start < new.start {
                self.old = Some(Extent { start: new.start, ..old });
                return Ok(Some(Extent { end: new.start, ..old }));
            }
            if old.end <= new.end {
                self.take_old()?;
            } else {
                self.old = Some(Extent { start: new.end, ..old });
            }
        }
    }
}

/// Builds a run from extents given in order; adjacent ones of one version become one.
pub struct RunBuilder {
    run: Run,
    first: u64,
    current: Vec<u8>,
    pending: Option<Extent>,
}

impl RunBuilder {
    /// A run in memory.
    pub fn in_memory(id: u64) -> Self {
        Self::over(id, Store::Memory(Vec::new()))
    }

    /// A run in an unlinked temporary file of `folder`.
    pub fn in_file(id: u64, folder: &Path) -> Result<Self> {
        Ok(Self::over(id, Store::File(SpillFile::create(folder)?)))
    }

    fn over(id: u64, store: Store) -> Self {
        let run = Run { id, entries: 0, store };
        Self { run, first: 0, current: Vec::new(), pending: None }
    }

    /// Adds an extent past all earlier ones.
    pub fn push(&mut self, extent: Extent) -> Result<()> {
        if let Some(pending) = &mut self.pending
            && pending.end == extent.start
            && pending.version == extent.version
        {
            pending.end = extent.end;
            return Ok(());
        }
        match self.pending.replace(extent) {
            Some(done) => self.store(done),
            None => Ok(()),
        }
    }

    /// The run.
    pub fn finish(mut self) -> Result<Run> {
        if let Some(done) = self.pending.take() {
            self.store(done)?;
        }
        self.close_block()?;
        if let Store::Memory(blocks) = &mut self.run.store {
            blocks.shrink_to_fit();
        }
        Ok(self.run)
    }

    fn store(&mut self, mut extent: Extent) -> Result<()> {
        while extent.start < extent.end {
            if self.current.len() >= BLOCK_ENTRIES * ENTRY_BYTES {
                self.close_block()?;
            }
            let (len, code) = encode_len(extent.end - extent.start);
            let delta = match u32::try_from(extent.start - self.first) {
                Ok(delta) if !self.current.is_empty() => delta,
                _ => {
                    self.close_block()?;
                    self.first = extent.start;
                    0
                }
            };
            self.current.extend_from_slice(&encode(delta, code, extent.version));
            self.run.entries += 1;
            extent.start += len;
        }
        Ok(())
    }

    fn close_block(&mut self) -> Result<()> {
        if self.current.is_empty() {
            return Ok(());
        }
        match &mut self.run.store {
            Store::Memory(blocks) => {
                let entries = self.current.as_slice().into();
                blocks.push(Block { first: self.first, entries });
            }
            Store::File(file) => file.append(self.first, &self.current)?,
        }
        self.current.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::version::ContentKind;

    fn version(write: u64) -> Version {
        Version::new(write, ContentKind::Stamp).unwrap()
    }

    fn drain(run: Run) -> Vec<Extent> {
        let mut source = run.into_source();
        std::iter::from_fn(|| source.next().unwrap()).collect()
    }

    #[test]
    fn lengths_split_into_few_entries_and_lose_nothing() {
        for len in [1, 4095, 4096, 4097, 123_456_789, (1 << 51) - 1] {
            let mut builder = RunBuilder::in_memory(1);
            builder.push(Extent { start: 7, end: 7 + len, version: version(3) }).unwrap();
            let run = builder.finish().unwrap();
            assert!(run.entries() <= 5, "{len}: {}", run.entries());
            assert_eq!(run.entries() == 1, len <= 4096, "{len}");
            let parts = drain(run);
            assert_eq!(parts[0].start, 7);
            assert_eq!(parts.last().unwrap().end, 7 + len);
            assert!(parts.windows(2).all(|w| w[0].end == w[1].start));
        }
    }

    #[test]
    fn a_gap_of_more_than_32_bits_opens_a_block() {
        for spill in [false, true] {
            let mut builder = match spill {
                true => RunBuilder::in_file(1, &std::env::temp_dir()).unwrap(),
                false => RunBuilder::in_memory(1),
            };
            let far = 5u64 << 33;
            for start in [0, 10, far] {
                builder.push(Extent { start, end: start + 1, version: version(start) }).unwrap();
            }
            let run = builder.finish().unwrap();
            let mut seen = Vec::new();
            let mut cache = BlockCache::default();
            run.visit(1, far + 1, &mut cache, |extent| {
                seen.push(extent.start);
                true
            })
            .unwrap();
            assert_eq!(seen, [10, far]);
            assert_eq!(drain(run).len(), 3);
        }
    }

    #[test]
    fn the_newer_run_covers_the_older() {
        let build = |list: &[(u64, u64, u64)]| {
            let mut builder = RunBuilder::in_memory(1);
            for &(start, end, write) in list {
                builder.push(Extent { start, end, version: version(write) }).unwrap();
            }
            Box::new(builder.finish().unwrap().into_source())
        };
        let newer = build(&[(10, 20, 9), (30, 31, 9)]);
        let older = build(&[(0, 12, 1), (15, 16, 2), (18, 40, 3)]);
        let mut overlay = Overlay::new(newer, older).unwrap();
        let mut got = Vec::new();
        while let Some(e) = overlay.next().unwrap() {
            got.push((e.start, e.end, e.version.write()));
        }
        assert_eq!(got, [(0, 10, 1), (10, 20, 9), (20, 30, 3), (30, 31, 9), (31, 40, 3)]);
    }
}
