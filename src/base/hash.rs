//! A hash for tables of numbers: tags, tokens, places. A tenth of the cost of std's SipHash, which
//! shows where a table is looked into for every event of a trace.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use super::prng::mix;

/// Mixes numbers, every bit of them: tags are often addresses or counters.
#[derive(Clone, Debug, Default)]
pub struct MixHasher(u64);

impl Hasher for MixHasher {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    #[inline]
    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        self.0 = mix(self.0 ^ word);
    }
}

/// Makes [`MixHasher`]s that begin at a seed of their table's own, so that nobody who writes a
/// trace can choose numbers that collide in it.
#[derive(Clone, Debug)]
pub struct MixState(u64);

impl Default for MixState {
    fn default() -> Self {
        Self(RandomState::new().hash_one(0u8))
    }
}

impl BuildHasher for MixState {
    type Hasher = MixHasher;

    #[inline]
    fn build_hasher(&self) -> MixHasher {
        MixHasher(self.0)
    }
}

/// A table by numbers that come from outside. Its order differs from run to run.
pub type MixMap<K, V> = HashMap<K, V, MixState>;

/// A table by numbers of our own making, which nobody can choose; its order is that of every run.
pub type OwnMap<K, V> = HashMap<K, V, BuildHasherDefault<MixHasher>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_tell_pairs_apart_and_have_seeds_of_their_own() {
        let mut table: MixMap<(u32, u64), u32> = MixMap::default();
        for n in 0..1000 {
            table.insert((n % 10, u64::from(n / 10) << 12), n);
        }
        assert_eq!((table.len(), table.get(&(3, 5 << 12))), (1000, Some(&53)));
        let other = MixState::default();
        assert_ne!(other.hash_one(1u64), MixState::default().hash_one(1u64));
        assert_eq!(other.hash_one(1u64), other.hash_one(1u64));
    }
}
