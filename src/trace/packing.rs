//! The zstd frame of a payload frame's bytes: compressed, or, where that would be in vain, as they
//! are.
//!
//! Data that cannot be compressed is found by a sample, and costs no copy: a zstd frame may consist
//! of raw blocks (RFC 8878 §3.1.1.2.2), which are written from where the data lies.

use std::io;

use zstd::bulk::Compressor;

/// zstd's fastest ordinary level: an import should be bound by its input, not by this.
const LEVEL: i32 = 1;

/// Data shorter than this is compressed without a look at a sample, which is no cheaper.
const SAMPLED_BYTES_MIN: usize = 128 << 10;

/// Pieces of a sample, and the bytes of one: a block of most file systems.
const PIECES: usize = 4;
/// See [`PIECES`].
const PIECE_BYTES: usize = 4096;

/// Compressing is in vain where a sample loses less than one part in so many.
const WORTH: usize = 32;

/// First bytes of a zstd frame (RFC 8878 §3.1.1).
const ZSTD_MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();

/// Frame header descriptor (§3.1.1.1.1): one segment, whose size follows in 4 bytes; no checksum,
/// no dictionary.
const DESCRIPTOR: u8 = 0b1010_0000;

/// Longest block (§3.1.1.2.4).
const BLOCK_BYTES_MAX: usize = 128 << 10;

/// Bytes of a block's header: bit 0 marks the last one, bits 1 and 2 are 0 for raw, then its size.
const BLOCK_HEADER_BYTES: usize = 3;

/// See the module.
pub(super) struct Packer {
    compressor: Compressor<'static>,
    /// What was asked for.
    level: i32,
    /// Always at [`LEVEL`]: whether data can be compressed is no matter of haste.
    prober: Compressor<'static>,
    sample: Vec<u8>,
    /// The compressed bytes, or the headers of raw blocks.
    packed: Vec<u8>,
}

impl Packer {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            compressor: Compressor::new(LEVEL)?,
            level: LEVEL,
            prober: Compressor::new(LEVEL)?,
            sample: Vec::new(),
            packed: Vec::new(),
        })
    }

    /// Compresses at another level from now on.
    pub(super) fn set_level(&mut self, level: i32) -> io::Result<()> {
        if self.level != level {
            self.compressor.set_compression_level(level)?;
            self.level = level;
        }
        Ok(())
    }

    /// Adds the parts of a zstd frame of `raw` to `parts`.
    pub(super) fn pack<'a>(
        &'a mut self,
        raw: &'a [u8],
        parts: &mut Vec<&'a [u8]>,
    ) -> io::Result<()> {
        self.packed.clear();
        if raw.len() >= SAMPLED_BYTES_MIN && self.is_in_vain(raw)? {
            stored(raw, &mut self.packed, parts);
            return Ok(());
        }
        self.packed.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        self.compressor.compress_to_buffer(raw, &mut self.packed)?;
        parts.push(&self.packed);
        Ok(())
    }

    /// Whether a sample of `raw` cannot be compressed.
    fn is_in_vain(&mut self, raw: &[u8]) -> io::Result<bool> {
        self.sample.clear();
        for piece in raw.chunks((raw.len() / PIECES).max(1)).take(PIECES) {
            self.sample.extend_from_slice(piece.get(..PIECE_BYTES).unwrap_or(piece));
        }
        self.packed.reserve(zstd::zstd_safe::compress_bound(self.sample.len()));
        let len = self.prober.compress_to_buffer(&self.sample, &mut self.packed)?;
        self.packed.clear();
        Ok(len > self.sample.len() - self.sample.len() / WORTH)
    }
}

/// The parts of a zstd frame of raw blocks; `heads` is given what stands between them.
fn stored<'a>(raw: &'a [u8], heads: &'a mut Vec<u8>, parts: &mut Vec<&'a [u8]>) {
    heads.extend_from_slice(&ZSTD_MAGIC);
    heads.push(DESCRIPTOR);
    heads.extend_from_slice(&(raw.len() as u32).to_le_bytes());
    let first = heads.len() + BLOCK_HEADER_BYTES;
    let mut blocks = raw.chunks(BLOCK_BYTES_MAX).peekable();
    while let Some(block) = blocks.next() {
        let header = (block.len() as u32) << 3 | u32::from(blocks.peek().is_none());
        let [a, b, c, _] = header.to_le_bytes();
        heads.extend_from_slice(&[a, b, c]);
    }
    let (mut head, mut heads) = heads.split_at(first.min(heads.len()));
    for block in raw.chunks(BLOCK_BYTES_MAX) {
        parts.extend([head, block]);
        (head, heads) = heads.split_at(BLOCK_HEADER_BYTES.min(heads.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;

    fn packed(packer: &mut Packer, raw: &[u8]) -> Vec<u8> {
        let mut parts = Vec::new();
        packer.pack(raw, &mut parts).unwrap();
        parts.concat()
    }

    fn random(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        Prng::new(1).fill(&mut bytes);
        bytes
    }

    #[test]
    fn whatever_is_packed_comes_back() {
        let mut packer = Packer::new().unwrap();
        let edge = BLOCK_BYTES_MAX;
        for len in [1, 4096, edge - 1, edge, edge + 1, 2 * edge, 1 << 20, (1 << 20) + 5] {
            for level in [1, -5, -100] {
                packer.set_level(level).unwrap();
                for raw in [random(len), vec![7; len]] {
                    let packed = packed(&mut packer, &raw);
                    let back = zstd::bulk::decompress(&packed, raw.len()).unwrap();
                    assert!(back == raw, "{len} at {level}");
                }
            }
        }
    }

    #[test]
    fn random_data_is_stored_as_it_is_and_what_follows_is_compressed() {
        let mut packer = Packer::new().unwrap();
        let raw = random(1 << 20);
        let mut parts = Vec::new();
        packer.pack(&raw, &mut parts).unwrap();
        assert!(std::ptr::eq(parts[1], &raw[..BLOCK_BYTES_MAX]), "it was copied");
        assert_eq!(parts.concat().len(), (1 << 20) + 9 + 8 * BLOCK_HEADER_BYTES);
        // Letters are worth the while, and so is a disk of which a part is random.
        let letters: Vec<u8> = raw.iter().map(|byte| b'a' + byte % 16).collect();
        assert!(packed(&mut packer, &letters).len() < raw.len() * 3 / 4);
        let half = [random(1 << 19), vec![0; 1 << 19]].concat();
        assert!(packed(&mut packer, &half).len() < raw.len() * 3 / 4);
    }
}
