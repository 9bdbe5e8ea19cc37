//! Which ranges of the disk are under way, so that a request that overlaps one can be held back.
//!
//! Two requests conflict when their ranges overlap and at least one changes content. A held
//! request holds everything behind it, so conflicting requests reach the device in trace order and
//! the final image is the one the trace defines, at any depth.
//!
//! The usual answer, "no conflict", must cost next to nothing: the disk is divided into regions
//! that hash onto a small table of counters, and only a hit there leads to the exact scan.

/// log2 of sectors in a region: 64 KiB, larger than most requests, so that most touch one or two.
const REGION_SHIFT: u32 = 7;

/// A request that touches more regions than this is not entered in the table; while one is under
/// way every question is answered by the exact scan.
const REGIONS_PER_REQUEST_MAX: u64 = 32;

/// Counters per request that can be in flight: few false hits, and 8 KiB of table at depth 32.
const COUNTERS_PER_REQUEST: usize = 64;

#[derive(Clone, Copy, Default)]
struct Counters {
    readers: u16,
    writers: u16,
}

/// An inclusive-exclusive run of sectors, and whether its content changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First sector.
    pub start: u64,
    /// One past the last sector.
    pub end: u64,
    /// Whether the request changes what the range reads as.
    pub writer: bool,
}

impl Range {
    const NONE: Self = Self { start: u64::MAX, end: 0, writer: false };

    fn is_empty(self) -> bool {
        self.start >= self.end
    }

    fn conflicts(self, other: Self) -> bool {
        (self.start < other.end) & (other.start < self.end) & (self.writer | other.writer)
    }

    /// First and last region, or `None` when it touches too many to enter one by one.
    fn regions(self) -> Option<(u64, u64)> {
        let (first, last) = (self.start >> REGION_SHIFT, (self.end - 1) >> REGION_SHIFT);
        (last - first < REGIONS_PER_REQUEST_MAX).then_some((first, last))
    }
}

/// The ranges under way, by slot number.
pub struct Ranges {
    slots: Vec<Range>,
    counters: Vec<Counters>,
    shift: u32,
    wide: usize,
}

impl Ranges {
    /// A table for slots `0..depth`.
    pub fn new(depth: usize) -> Self {
        let counters = (depth.max(1) * COUNTERS_PER_REQUEST).next_power_of_two();
        Self {
            slots: vec![Range::NONE; depth],
            counters: vec![Counters::default(); counters],
            shift: 64 - counters.trailing_zeros(),
            wide: 0,
        }
    }

    fn counter(&self, region: u64) -> usize {
        // Fibonacci hashing: neighbouring regions spread over the whole table.
        (region.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    fn count(&mut self, range: Range, step: impl Fn(&mut u16)) {
        let Some((first, last)) = range.regions() else {
            return;
        };
        for region in first..=last {
            let at = self.counter(region);
            if let Some(counters) = self.counters.get_mut(at) {
                step(if range.writer { &mut counters.writers } else { &mut counters.readers });
            }
        }
    }

    /// Whether `range` conflicts with anything under way.
    pub fn conflicts(&self, range: Range) -> bool {
        if range.is_empty() {
            return false;
        }
        if self.wide == 0
            && let Some((first, last)) = range.regions()
        {
            let hit = (first..=last).any(|region| {
                let counters = self.counters.get(self.counter(region)).copied().unwrap_or_default();
                counters.writers != 0 || (range.writer && counters.readers != 0)
            });
            if !hit {
                return false;
            }
        }
        self.slots.iter().any(|slot| slot.conflicts(range))
    }

    /// Enters `range` under `slot`, which must be free. Empty ranges (flush) conflict with nothing.
    pub fn insert(&mut self, slot: usize, range: Range) {
        let Some(entry) = self.slots.get_mut(slot) else {
            return;
        };
        if range.is_empty() {
            return;
        }
        *entry = range;
        if range.regions().is_some() {
            self.count(range, |counter| *counter += 1);
        } else {
            self.wide += 1;
        }
    }

    /// Takes the range of `slot` out again.
    pub fn remove(&mut self, slot: usize) {
        let Some(entry) = self.slots.get_mut(slot) else {
            return;
        };
        let range = std::mem::replace(entry, Range::NONE);
        if range.is_empty() {
            return;
        }
        if range.regions().is_some() {
            self.count(range, |counter| *counter -= 1);
        } else {
            self.wide -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;

    fn range(start: u64, len: u64, writer: bool) -> Range {
        Range { start, end: start + len, writer }
    }

    #[test]
    fn readers_share_and_writers_do_not() {
        let mut ranges = Ranges::new(4);
        ranges.insert(0, range(8, 8, false));
        assert!(!ranges.conflicts(range(8, 8, false)));
        assert!(ranges.conflicts(range(15, 1, true)));
        assert!(!ranges.conflicts(range(16, 1, true)));
        assert!(!ranges.conflicts(range(7, 1, true)));
        ranges.remove(0);
        assert!(!ranges.conflicts(range(8, 8, true)));
    }

    #[test]
    fn empty_ranges_conflict_with_nothing() {
        let mut ranges = Ranges::new(2);
        ranges.insert(0, range(0, 1 << 40, true));
        ranges.insert(1, range(5, 0, false));
        assert!(!ranges.conflicts(range(5, 0, true)));
        ranges.remove(1);
        assert!(ranges.conflicts(range(5, 1, false)));
    }

    #[test]
    fn the_table_agrees_with_the_exact_scan() {
        for depth in [1usize, 32, 300, 4096] {
            let (mut ranges, mut prng) = (Ranges::new(depth), Prng::new(depth as u64));
            let mut live = vec![None; depth];
            for _ in 0..20_000 {
                let len =
                    if prng.below(50) == 0 { prng.below(1 << 20) } else { 1 + prng.below(300) };
                let probe = range(prng.below(1 << 22), len, prng.below(2) == 0);
                let exact = !probe.is_empty() && live.iter().flatten().any(|l| probe.conflicts(*l));
                assert_eq!(ranges.conflicts(probe), exact);
                let slot = prng.below(depth as u64) as usize;
                if live[slot].take().is_some() {
                    ranges.remove(slot);
                } else if !probe.is_empty() {
                    ranges.insert(slot, probe);
                    live[slot] = Some(probe);
                }
            }
            for slot in 0..depth {
                ranges.remove(slot);
            }
            assert!(ranges.counters.iter().all(|c| c.readers == 0 && c.writers == 0));
            assert_eq!(ranges.wide, 0);
        }
    }
}
