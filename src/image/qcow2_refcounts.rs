//! The refcounts of a qcow2 image in two bits a cluster: all that the check of its tables needs.

/// Bytes of the map, at four clusters each: 16 TiB of an image with the usual 64 KiB clusters.
/// For a larger file refcounts are not compared; where things lie still is.
const MAP_BYTES_MAX: u64 = 64 << 20;

/// How often a cluster is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Refcount 0.
    Free = 0,
    /// Refcount 1.
    One = 1,
    /// A larger refcount.
    Shared = 2,
    /// Refcount 1, and its one use has been seen.
    Used = 3,
}

/// The map. It is empty, and knows nothing, for a file beyond its limit.
pub struct Refcounts {
    map: Vec<u8>,
    clusters: u64,
    order: u32,
}

impl Refcounts {
    /// For a file of `clusters` clusters whose refcounts have 2^`order` bits; all are 0 at first.
    pub fn new(clusters: u64, order: u32) -> Self {
        let bytes = clusters.div_ceil(4);
        let mut map = Vec::new();
        if bytes <= MAP_BYTES_MAX && map.try_reserve_exact(bytes as usize).is_ok() {
            map.resize(bytes as usize, 0);
        } else {
            tracing::debug!("{clusters} clusters: their refcounts are not compared");
        }
        Self { map, clusters, order }
    }

    /// Takes over the refcount block that has `index` in the refcount table.
    pub fn load(&mut self, index: u64, block: &[u8]) {
        let per_block = (block.len() as u64 * 8) >> self.order;
        let first = index.saturating_mul(per_block);
        let count = per_block.min(self.clusters.saturating_sub(first));
        for at in 0..count {
            let count = match refcount(block, at as usize, self.order) {
                0 => Count::Free,
                1 => Count::One,
                _ => Count::Shared,
            };
            self.set(first + at, count);
        }
    }

    /// How often `cluster` is counted; `None` when that is not known.
    pub fn get(&self, cluster: u64) -> Option<Count> {
        let byte = self.map.get(usize::try_from(cluster / 4).ok()?)?;
        Some(match byte >> (cluster % 4 * 2) & 3 {
            0 => Count::Free,
            1 => Count::One,
            2 => Count::Shared,
            _ => Count::Used,
        })
    }

    /// Notes a use of `cluster`; `false` when it is counted once and this is the second.
    pub fn use_once(&mut self, cluster: u64) -> bool {
        match self.get(cluster) {
            Some(Count::Used) => return false,
            Some(Count::One) => self.set(cluster, Count::Used),
            _ => {}
        }
        true
    }

    fn set(&mut self, cluster: u64, count: Count) {
        let shift = cluster % 4 * 2;
        if let Some(byte) = usize::try_from(cluster / 4).ok().and_then(|at| self.map.get_mut(at)) {
            *byte = *byte & !(3 << shift) | (count as u8) << shift;
        }
    }
}

/// Entry `at` of a block: big endian, and from the lowest bits on where a byte holds several.
fn refcount(block: &[u8], at: usize, order: u32) -> u64 {
    if order < 3 {
        let per_byte = 8 >> order;
        let byte = block.get(at / per_byte).copied().unwrap_or(0);
        let mask = (1u32 << (1 << order)) - 1;
        return u64::from(u32::from(byte) >> ((at % per_byte) << order) & mask);
    }
    let width = 1 << (order - 3);
    let bytes = block.get(at * width..(at + 1) * width).unwrap_or_default();
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_is_read() {
        let bits = [0b1001_0110, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 1, 0];
        let first = |order| (0..4).map(|at| refcount(&bits, at, order)).collect::<Vec<_>>();
        assert_eq!(first(0), [0, 1, 1, 0]);
        assert_eq!(first(1), [2, 1, 1, 2]);
        assert_eq!(first(2)[..2], [6, 9]);
        assert_eq!(first(3)[..2], [0x96, 0]);
        assert_eq!(first(4)[..4], [0x9600, 0, 0, 7]);
        assert_eq!(first(5)[..2], [0x9600_0000, 7]);
        assert_eq!(first(6)[1], 256);
    }

    #[test]
    fn a_second_use_is_told_and_a_huge_map_is_not_made() {
        let mut counts = Refcounts::new(6, 3);
        counts.load(0, &[1, 0, 2, 1]);
        counts.load(1, &[0, 1, 9, 9]);
        let all: Vec<_> = (0..6).filter_map(|at| counts.get(at)).collect();
        use Count::{Free, One, Shared};
        assert_eq!(all, [One, Free, Shared, One, Free, One]);
        assert!(counts.use_once(0) && !counts.use_once(0));
        assert!(counts.use_once(2) && counts.use_once(2));
        let mut huge = Refcounts::new(u64::MAX, 4);
        huge.load(0, &[0; 512]);
        assert_eq!(huge.get(0), None);
    }
}
