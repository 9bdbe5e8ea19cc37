//! Stamps: content for traces that carry none, so that every block stays checkable.
//!
//! Each 512-byte sector of a stamped write names itself, so any later read of it, in any image,
//! tells which event wrote it. Layout, little endian:
//!
//! | bytes | what |
//! |---|---|
//! | 0..8   | magic `QTSTAMP1` |
//! | 8..16  | seed of the run |
//! | 16..24 | sector number on the target |
//! | 24..32 | write number: the event's number in the trace, plus the trace's length for each earlier loop |
//! | 32..40 | checksum of bytes 40..512 |
//! | 40..512 | 59 words `key + i * STEP`, `key` mixed from seed, sector and write number |
//!
//! The checksum is Σ (2i + 1)·word(i) mod 2^64, which has a closed form for what we write. Odd
//! weights have an inverse mod 2^64, so any change within one word changes the sum; distinct ones
//! see swapped words and torn halves.

use super::prng::mix;
use super::units::SECTOR_SIZE;

/// The first eight bytes of a stamped sector.
pub const STAMP_MAGIC: u64 = u64::from_le_bytes(*b"QTSTAMP1");

const WORDS: usize = 59;
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
const HEAD: usize = 40;

/// What a stamp says of its sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Seed of the run that wrote it.
    pub seed: u64,
    /// Target sector that it was written to.
    pub sector: u64,
    /// Number of the write (see the table above).
    pub write: u64,
}

fn key(stamp: Stamp) -> u64 {
    mix(stamp.seed ^ mix(stamp.sector ^ mix(stamp.write)))
}

/// Closed form of Σ (2i + 1)(key + i·STEP) for i in 0..WORDS.
fn checksum_of(key: u64) -> u64 {
    const N: u64 = WORDS as u64;
    const WEIGHTS: u64 = N * N;
    const WEIGHTED_STEPS: u64 = (N - 1) * N * (2 * N - 1) / 3 + N * (N - 1) / 2;
    key.wrapping_mul(WEIGHTS).wrapping_add(STEP.wrapping_mul(WEIGHTED_STEPS))
}

/// Fills one sector. `out` shorter than 512 bytes is left as it is beyond whole words.
pub fn write_sector(out: &mut [u8], stamp: Stamp) {
    let key = key(stamp);
    let head = [STAMP_MAGIC, stamp.seed, stamp.sector, stamp.write, checksum_of(key)];
    let (first, rest) = out.split_at_mut(HEAD.min(out.len()));
    for (slot, word) in first.chunks_exact_mut(8).zip(head) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    let mut word = key;
    for slot in rest.chunks_exact_mut(8) {
        slot.copy_from_slice(&word.to_le_bytes());
        word = word.wrapping_add(STEP);
    }
}

/// Fills `out` (whole sectors) as write `write` of run `seed` at target sector `first_sector`.
pub fn fill(out: &mut [u8], seed: u64, first_sector: u64, write: u64) {
    for (index, sector) in out.chunks_exact_mut(SECTOR_SIZE as usize).enumerate() {
        let stamp = Stamp { seed, sector: first_sector.wrapping_add(index as u64), write };
        write_sector(sector, stamp);
    }
}

/// Reads a sector's stamp: `None` when it carries none or its checksum is wrong.
pub fn read_sector(sector: &[u8]) -> Option<Stamp> {
    let mut words = sector.chunks_exact(8).map(|c| {
        let mut bytes = [0u8; 8];
        bytes.copy_from_slice(c);
        u64::from_le_bytes(bytes)
    });
    if sector.len() != SECTOR_SIZE as usize || words.next()? != STAMP_MAGIC {
        return None;
    }
    let stamp = Stamp { seed: words.next()?, sector: words.next()?, write: words.next()? };
    let stored = words.next()?;
    let sum = words
        .zip((1u64..).step_by(2))
        .fold(0u64, |sum, (word, weight)| sum.wrapping_add(word.wrapping_mul(weight)));
    (sum == stored).then_some(stamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_reads_back_and_its_closed_form_holds() {
        let mut sectors = [0u8; 1024];
        fill(&mut sectors, 7, 100, 3);
        assert_eq!(read_sector(&sectors[..512]), Some(Stamp { seed: 7, sector: 100, write: 3 }));
        assert_eq!(read_sector(&sectors[512..]), Some(Stamp { seed: 7, sector: 101, write: 3 }));
    }

    #[test]
    fn any_flipped_bit_past_the_head_is_seen() {
        let mut sector = [0u8; 512];
        fill(&mut sector, 1, 2, 3);
        for byte in 32..512 {
            sector[byte] ^= 0x40;
            assert_eq!(read_sector(&sector), None, "byte {byte}");
            sector[byte] ^= 0x40;
        }
    }

    #[test]
    fn a_torn_sector_is_seen() {
        let (mut old, mut new) = ([0u8; 512], [0u8; 512]);
        fill(&mut old, 1, 2, 3);
        fill(&mut new, 1, 2, 4);
        new[256..].copy_from_slice(&old[256..]);
        assert_eq!(read_sector(&new), None);
    }
}
