//! The places that most requests go to.
//!
//! The disk is cut into extents; when there are more than fit, extents become twice as large, so
//! that every count stays exact. A request counts where its first byte is.

use serde::Serialize;

use crate::base::hash::MixMap;
use crate::trace::Issue;

/// The size of extents at first; bytes.
const EXTENT_BYTES: u64 = 64 << 10;

/// Extents held at most: some 4 MiB.
const EXTENTS_MAX: usize = 1 << 16;

/// Extents told.
const TOLD: usize = 10;

/// The places that most requests go to.
#[derive(Debug, Serialize)]
pub struct HotFacts {
    /// The size of an extent; bytes.
    pub extent_bytes: u64,
    /// Extents with any request.
    pub extents: u64,
    /// Share of all requests that the hottest tenth of them gets.
    pub top_tenth_share: f64,
    /// The hottest, hottest first.
    pub hottest: Vec<HotExtent>,
}

/// An extent.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct HotExtent {
    /// The device.
    pub device: String,
    /// Where it begins; bytes.
    pub offset: u64,
    /// Requests that begin in it.
    pub requests: u64,
    /// Their bytes.
    pub bytes: u64,
}

#[derive(Clone, Copy, Default)]
struct Count {
    requests: u64,
    bytes: u64,
}

/// Gathers extents.
pub(super) struct Hot {
    /// Extents are 2^shift bytes.
    shift: u32,
    extents: MixMap<(u32, u64), Count>,
}

impl Default for Hot {
    fn default() -> Self {
        Self { shift: EXTENT_BYTES.ilog2(), extents: MixMap::default() }
    }
}

impl Hot {
    #[inline]
    pub(super) fn request(&mut self, device: u32, issue: &Issue) {
        let count = self.extents.entry((device, issue.offset >> self.shift)).or_default();
        count.requests += 1;
        count.bytes = count.bytes.saturating_add(issue.len);
        while self.extents.len() > EXTENTS_MAX && self.shift < 63 {
            self.coarsen();
        }
    }

    fn coarsen(&mut self) {
        self.shift += 1;
        for ((device, extent), count) in std::mem::take(&mut self.extents) {
            let sum = self.extents.entry((device, extent >> 1)).or_default();
            sum.requests += count.requests;
            sum.bytes = sum.bytes.saturating_add(count.bytes);
        }
    }

    pub(super) fn facts(&self, names: &[String]) -> Option<HotFacts> {
        if self.extents.is_empty() {
            return None;
        }
        let mut all: Vec<_> = self.extents.iter().collect();
        // Of equals the one that stands first: the answer must not depend on the table.
        all.sort_unstable_by_key(|(place, count)| (std::cmp::Reverse(count.requests), **place));
        let total: u64 = all.iter().map(|(_, count)| count.requests).sum();
        let tenth = all.iter().take(all.len().div_ceil(10)).map(|(_, count)| count.requests);
        let hottest = all.iter().take(TOLD).map(|((device, extent), count)| HotExtent {
            device: names.get(*device as usize).cloned().unwrap_or_default(),
            offset: extent << self.shift,
            requests: count.requests,
            bytes: count.bytes,
        });
        Some(HotFacts {
            extent_bytes: 1 << self.shift,
            extents: all.len() as u64,
            top_tenth_share: tenth.sum::<u64>() as f64 / total.max(1) as f64,
            hottest: hottest.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::BlockOp;
    use crate::export::testing::issue;

    #[test]
    fn counts_stay_exact_when_extents_grow() {
        let mut hot = Hot::default();
        let names = ["a".to_owned(), "b".to_owned()];
        for extent in 0..EXTENTS_MAX as u64 * 3 {
            hot.request(0, &issue(0, 0, BlockOp::Read, extent * EXTENT_BYTES, 512));
        }
        (0..100).for_each(|_| hot.request(1, &issue(0, 0, BlockOp::Write, 5 << 20, 4096)));
        let facts = hot.facts(&names).unwrap();
        assert_eq!(facts.extent_bytes, 4 * EXTENT_BYTES);
        assert_eq!(facts.extents, EXTENTS_MAX as u64 * 3 / 4 + 1);
        let hottest =
            HotExtent { device: "b".into(), offset: 5 << 20, requests: 100, bytes: 409_600 };
        assert_eq!(facts.hottest[0], hottest);
        assert_eq!((facts.hottest[1].offset, facts.hottest[1].requests), (0, 4));
    }
}
