//! Footprint and re-use distance of blocks: after how many *other* blocks does one come again?
//! What a cache of that many blocks would hit (LRU).
//!
//! Exact while there are few blocks. Beyond, blocks are sampled by a hash of their place, and the
//! share of them falls as more appear (Waldspurger et al., "Efficient MRC Construction with
//! SHARDS", FAST 2015, fixed-size variant): every reference to a sampled block counts, so that
//! distances among the sample, divided by its share, estimate those among all.
//!
//! A count of n sampled blocks at a share R estimates n/R with a standard deviation of
//! sqrt(n (1-R)) / R: 1.96 times that is the bound (95 %) that is told.

use std::collections::BinaryHeap;

use serde::Serialize;

use crate::base::BlockOp;
use crate::base::hash::MixMap;
use crate::base::prng::mix;
use crate::trace::Issue;

/// The size of a block; bytes.
const BLOCK_BYTES: u64 = 4096;

/// Blocks in the sample at most: exact up to 256 MiB of footprint.
const SAMPLE_MAX: usize = 1 << 16;

/// A longer request is no access that a cache would serve, and costs a step for each block.
const REQUEST_BYTES_TAKEN: u64 = 16 << 20;

/// Places of references before they are numbered anew.
const SLOTS: usize = 4 * SAMPLE_MAX;

/// Words of 64 slots under one sum.
const GROUP_WORDS: usize = 64;

/// 95 % of a normal distribution lie within so many standard deviations.
const DEVIATIONS_95: f64 = 1.96;

/// Footprint and re-use.
#[derive(Debug, Serialize)]
pub struct ReuseFacts {
    /// The size of a block; bytes.
    pub block_bytes: u64,
    /// Whether every block was followed.
    pub exact: bool,
    /// Share of the blocks that were followed.
    pub sampled_share: f64,
    /// Distinct blocks that are read or written.
    pub blocks: u64,
    /// Of those, read; and written.
    pub blocks_read: u64,
    /// See `blocks_read`.
    pub blocks_written: u64,
    /// The true number of blocks is within this share of `blocks`, with 95 % probability; 0 when
    /// exact.
    pub blocks_error: f64,
    /// References to blocks.
    pub references: u64,
    /// Share of the references that are the first to their block.
    pub first_share: f64,
    /// Distances, by powers of two of blocks: share of the references.
    pub distances: Vec<Distance>,
    /// Requests left out for their size.
    pub requests_too_long: u64,
}

/// References that come again within a distance.
#[derive(Debug, Serialize)]
pub struct Distance {
    /// After at most so many other blocks.
    pub within_blocks: u64,
    /// The distance itself is within so many blocks of that, with 95 % probability.
    pub within_error: u64,
    /// Share of the references in this row alone.
    pub share: f64,
    /// Share of them up to this row: the hits of an LRU cache of that size.
    pub cumulative: f64,
}

/// What is known of a block in the sample.
#[derive(Clone, Copy, Default)]
struct Block {
    slot: u32,
    read: bool,
    written: bool,
}

/// Gathers references.
pub(super) struct Reuse {
    sample: MixMap<u64, Block>,
    /// Hashes of the sample, the greatest first.
    greatest: BinaryHeap<u64>,
    /// A block whose hash is above is not sampled.
    threshold: u64,
    slots: Slots,
    /// References in the sample, by powers of two of their distance.
    distances: [f64; 65],
    first: f64,
    references: u64,
    too_long: u64,
}

impl Default for Reuse {
    fn default() -> Self {
        Self {
            sample: MixMap::default(),
            greatest: BinaryHeap::new(),
            threshold: u64::MAX,
            slots: Slots::new(),
            distances: [0.0; 65],
            first: 0.0,
            references: 0,
            too_long: 0,
        }
    }
}

impl Reuse {
    #[inline]
    pub(super) fn request(&mut self, device: u32, issue: &Issue) {
        let write = match issue.op {
            BlockOp::Read => false,
            BlockOp::Write => true,
            _ => return,
        };
        if issue.len > REQUEST_BYTES_TAKEN {
            self.too_long += 1;
            return;
        }
        if issue.len == 0 {
            return;
        }
        let last = issue.offset.saturating_add(issue.len - 1) / BLOCK_BYTES;
        for block in issue.offset / BLOCK_BYTES..=last {
            self.references += 1;
            let hash = hash(device, block);
            if hash <= self.threshold {
                self.reference(hash, write);
            }
        }
    }

    fn reference(&mut self, hash: u64, write: bool) {
        if self.slots.is_full() {
            self.renumber();
        }
        let slot = self.slots.next();
        if let Some(block) = self.sample.get_mut(&hash) {
            let distance = self.slots.after(block.slot);
            self.slots.clear(block.slot);
            block.slot = slot;
            block.read |= !write;
            block.written |= write;
            self.slots.set(slot);
            let scaled = distance as f64 / share(self.threshold);
            let row = 64 - (scaled as u64).leading_zeros() as usize;
            self.distances[row] += 1.0;
            return;
        }
        self.first += 1.0;
        self.slots.set(slot);
        self.sample.insert(hash, Block { slot, read: !write, written: write });
        self.greatest.push(hash);
        while self.sample.len() > SAMPLE_MAX {
            self.lower();
        }
    }

    /// Gives up the block of the greatest hash, and what was counted in its share.
    fn lower(&mut self) {
        let Some(greatest) = self.greatest.pop() else { return };
        if let Some(block) = self.sample.remove(&greatest) {
            self.slots.clear(block.slot);
        }
        let before = share(self.threshold);
        self.threshold = greatest.saturating_sub(1);
        let scale = share(self.threshold) / before;
        self.distances.iter_mut().for_each(|count| *count *= scale);
        self.first *= scale;
    }

    fn renumber(&mut self) {
        let mut order: Vec<(u32, u64)> =
            self.sample.iter().map(|(hash, block)| (block.slot, *hash)).collect();
        order.sort_unstable();
        self.slots = Slots::new();
        for (_, hash) in order {
            let slot = self.slots.next();
            self.slots.set(slot);
            if let Some(block) = self.sample.get_mut(&hash) {
                block.slot = slot;
            }
        }
    }

    pub(super) fn facts(&self) -> Option<ReuseFacts> {
        if self.references == 0 {
            return None;
        }
        let exact = self.threshold == u64::MAX;
        let rate = if exact { 1.0 } else { share(self.threshold) };
        let scaled = |count: usize| (count as f64 / rate).round() as u64;
        let read = self.sample.values().filter(|block| block.read).count();
        let written = self.sample.values().filter(|block| block.written).count();
        let total = (self.first + self.distances.iter().sum::<f64>()).max(f64::MIN_POSITIVE);
        let blocks = self.sample.len().max(1) as f64;
        Some(ReuseFacts {
            block_bytes: BLOCK_BYTES,
            exact,
            sampled_share: rate,
            blocks: scaled(self.sample.len()),
            blocks_read: scaled(read),
            blocks_written: scaled(written),
            blocks_error: DEVIATIONS_95 * ((1.0 - rate) / blocks).sqrt(),
            references: self.references,
            first_share: self.first / total,
            distances: self.rows(rate, total),
            requests_too_long: self.too_long,
        })
    }

    fn rows(&self, rate: f64, total: f64) -> Vec<Distance> {
        let mut cumulative = 0.0;
        let mut rows = Vec::new();
        for (row, count) in self.distances.iter().enumerate().filter(|(_, count)| **count > 0.0) {
            let within_blocks = super::buckets::bounds(row).1;
            // Of the blocks up to the next of the sample: with none of it between, there may be some.
            let deviation = ((within_blocks as f64 + 1.0) * (1.0 - rate) / rate).sqrt();
            let share = count / total;
            cumulative += share;
            let within_error = (DEVIATIONS_95 * deviation).ceil() as u64;
            rows.push(Distance { within_blocks, within_error, share, cumulative });
        }
        rows
    }
}

/// Share of all hashes that are not above `threshold`.
fn share(threshold: u64) -> f64 {
    (threshold as f64 + 1.0) / 2f64.powi(64)
}

/// Spreads places evenly; one to one for the blocks of a device.
fn hash(device: u32, block: u64) -> u64 {
    mix(block ^ u64::from(device).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// The order of the last references to the blocks of the sample: a bit for each, set while it is
/// the last, with sums over groups of words.
struct Slots {
    words: Vec<u64>,
    groups: Vec<u32>,
    next: u32,
}

impl Slots {
    fn new() -> Self {
        let words = SLOTS / 64;
        Self { words: vec![0; words], groups: vec![0; words / GROUP_WORDS], next: 0 }
    }

    fn is_full(&self) -> bool {
        self.next as usize >= SLOTS
    }

    fn next(&mut self) -> u32 {
        self.next += 1;
        self.next - 1
    }

    fn set(&mut self, slot: u32) {
        let word = slot as usize / 64;
        self.words[word] |= 1 << (slot % 64);
        self.groups[word / GROUP_WORDS] += 1;
    }

    fn clear(&mut self, slot: u32) {
        let word = slot as usize / 64;
        self.words[word] &= !(1 << (slot % 64));
        self.groups[word / GROUP_WORDS] -= 1;
    }

    /// Set slots after `slot`: the distinct blocks that came since.
    fn after(&self, slot: u32) -> u64 {
        let word = slot as usize / 64;
        let group = word / GROUP_WORDS;
        let above = u64::MAX.checked_shl(slot % 64 + 1).unwrap_or(0);
        let mut count = u64::from((self.words[word] & above).count_ones());
        let end = (group + 1) * GROUP_WORDS;
        count += self.words[word + 1..end].iter().map(|w| u64::from(w.count_ones())).sum::<u64>();
        let used = (self.next as usize / 64 / GROUP_WORDS + 1).min(self.groups.len());
        let groups = self.groups.get(group + 1..used).unwrap_or_default();
        count + groups.iter().map(|sum| u64::from(*sum)).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;
    use crate::export::testing::issue;

    fn touch(reuse: &mut Reuse, op: BlockOp, block: u64) {
        reuse.request(0, &issue(0, 0, op, block * BLOCK_BYTES, BLOCK_BYTES));
    }

    /// Distances as the definition has them: a list of blocks, the last used first.
    fn naive(blocks: &[u64]) -> (usize, Vec<usize>) {
        let (mut stack, mut first, mut distances) = (Vec::new(), 0, Vec::new());
        for block in blocks {
            match stack.iter().position(|held| held == block) {
                Some(at) => {
                    distances.push(at);
                    stack.remove(at);
                }
                None => first += 1,
            }
            stack.insert(0, *block);
        }
        (first, distances)
    }

    #[test]
    fn small_traces_are_exact() {
        let mut prng = Prng::new(11);
        let blocks: Vec<u64> = (0..6_000).map(|_| prng.below(20) * prng.below(20)).collect();
        let mut reuse = Reuse::default();
        blocks.iter().for_each(|block| touch(&mut reuse, BlockOp::Read, *block));
        let (first, distances) = naive(&blocks);
        let facts = reuse.facts().unwrap();
        assert!(facts.exact);
        assert_eq!((facts.blocks as usize, facts.blocks_written), (first, 0));
        assert_eq!(facts.blocks_error, 0.0);
        for row in &facts.distances {
            let within = distances.iter().filter(|d| **d as u64 <= row.within_blocks).count();
            let share = within as f64 / blocks.len() as f64;
            assert!((row.cumulative - share).abs() < 1e-9, "{row:?}: {share}");
            assert_eq!(row.within_error, 0);
        }
    }

    #[test]
    fn renumbering_changes_no_distance() {
        let mut reuse = Reuse::default();
        // A loop over 100 blocks: every reference but the first has 99 others before it.
        for n in 0..2 * SLOTS as u64 {
            touch(&mut reuse, BlockOp::Write, n % 100);
        }
        let facts = reuse.facts().unwrap();
        let rows: Vec<_> = facts.distances.iter().map(|row| row.within_blocks).collect();
        assert_eq!((rows, facts.blocks), (vec![127], 100));
    }

    #[test]
    fn a_sample_estimates_within_its_bound() {
        let mut reuse = Reuse::default();
        let blocks = 6 * SAMPLE_MAX as u64;
        // Two passes in order: half of the references are first, half have all others before them.
        for _ in 0..2 {
            (0..blocks).for_each(|block| touch(&mut reuse, BlockOp::Read, block));
        }
        let facts = reuse.facts().unwrap();
        assert!(!facts.exact && facts.sampled_share < 0.2 && facts.sampled_share > 0.15);
        let error = facts.blocks as f64 / blocks as f64 - 1.0;
        // Twice the bound of 95 %: the seed is fixed, so this is no matter of luck.
        assert!(error.abs() <= 2.0 * facts.blocks_error, "{error} {}", facts.blocks_error);
        assert!((facts.first_share - 0.5).abs() < 0.02, "{}", facts.first_share);
        let far: f64 =
            facts.distances.iter().filter(|d| d.within_blocks >= blocks / 2).map(|d| d.share).sum();
        assert!((far - 0.5).abs() < 0.02, "{far}");
    }

    #[test]
    fn requests_without_end_cost_nothing() {
        let mut reuse = Reuse::default();
        reuse.request(0, &issue(0, 0, BlockOp::Write, 0, 1 << 60));
        touch(&mut reuse, BlockOp::Read, 1);
        assert_eq!(reuse.facts().unwrap().requests_too_long, 1);
    }
}
