//! A set of byte ranges, merged as they touch.

use std::collections::BTreeMap;

/// Disjoint ranges that do not touch, by their starts.
#[derive(Debug, Default)]
pub struct RangeSet(BTreeMap<u64, u64>);

impl RangeSet {
    /// Adds `start..end`.
    pub fn insert(&mut self, mut start: u64, mut end: u64) {
        if start >= end {
            return;
        }
        if let Some((&s, &e)) = self.0.range(..=start).next_back()
            && e >= start
        {
            if e >= end {
                return;
            }
            start = s;
        }
        // Everything that begins within the new range, or right behind it, becomes part of it.
        while let Some((&s, &e)) = self.0.range(start..=end).next() {
            self.0.remove(&s);
            end = end.max(e);
        }
        self.0.insert(start, end);
    }

    /// Whether `at` is in the set, and the place up to which that holds (`u64::MAX` for ever).
    pub fn at(&self, at: u64) -> (bool, u64) {
        if let Some((_, &end)) = self.0.range(..=at).next_back()
            && end > at
        {
            return (true, end);
        }
        let next = self.0.range(at..).next();
        (false, next.map_or(u64::MAX, |(&start, _)| start))
    }

    /// Whether all of `start..end` is in the set.
    pub fn covers(&self, start: u64, end: u64) -> bool {
        let (inside, until) = self.at(start);
        start >= end || (inside && until >= end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;

    #[test]
    fn it_equals_a_bitmap() {
        let (mut set, mut bits) = (RangeSet::default(), [false; 400]);
        let mut prng = Prng::new(8);
        for _ in 0..300 {
            let start = prng.below(390);
            let end = start + prng.below(12);
            set.insert(start, end);
            bits[start as usize..end as usize].fill(true);
            for at in 0..400u64 {
                let (inside, until) = set.at(at);
                let same = bits[at as usize..].iter().take_while(|b| **b == inside).count() as u64;
                assert_eq!(inside, bits[at as usize]);
                assert_eq!(until.min(400), at + same);
            }
            // Touching ranges are one.
            let runs = bits.windows(2).filter(|w| !w[0] && w[1]).count() + usize::from(bits[0]);
            assert_eq!(set.0.len(), runs);
        }
        assert!(!set.covers(0, 400) && set.covers(7, 7));
    }
}
