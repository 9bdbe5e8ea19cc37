//! What becomes of the data.
//!
//! A pseudonym replaces each 512-byte sector by bytes that depend on its content and a key alone:
//! equal sectors stay equal and different ones different, so reads still fit the writes before
//! them, and sectors of zeros stay zeros. Nobody without the key can tell what stood there, or try
//! out what may have. Which sectors are equal, how many there are, and when, can still be seen.

use std::collections::HashMap;
use std::io::{self, Read};

use sha2::{Digest, Sha256};

use super::{Edit, Source};
use crate::base::{Error, Result, SECTOR_SIZE};
use crate::import::summary::{Summary, counted};
use crate::trace::{Kinds, PayloadRef, Trace, TraceWriter};

/// Payloads whose copies are remembered.
const COPIES_MAX: usize = 1 << 20;

const SECTOR_BYTES: usize = SECTOR_SIZE as usize;

/// What becomes of the data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DataMode {
    /// It is copied.
    #[default]
    Keep,
    /// It is left out: a replay then stamps what it writes, and checks that.
    Drop,
    /// Zeros of the same length.
    Zero,
    /// A pseudonym of each sector, under this key.
    Pseudonym(Key),
}

/// The key of pseudonyms. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// The key that a passphrase gives: the same one each time.
    pub fn from_words(words: &str) -> Self {
        let hash = Sha256::new().chain_update(b"qtrace pseudonym key\0").chain_update(words);
        Self(hash.finalize().into())
    }

    /// A key that nobody has, from the kernel.
    ///
    /// # Errors
    /// Incomplete: the kernel gives none.
    pub fn random() -> Result<Self> {
        let mut key = [0; 32];
        let mut urandom = std::fs::File::open("/dev/urandom");
        let read = urandom.as_mut().map_err(|error| io::Error::from(error.kind()));
        let read = read.and_then(|file| file.read_exact(&mut key));
        read.map_err(|error| Error::incomplete("no random key to be had").source(error))?;
        Ok(Self(key))
    }

    /// The pseudonym of a sector, in its place.
    fn replace(&self, sector: &mut [u8]) {
        if sector.iter().all(|byte| *byte == 0) {
            return;
        }
        let seed = Sha256::new().chain_update(self.0).chain_update(&*sector).finalize();
        for (number, out) in (0u8..).zip(sector.chunks_mut(32)) {
            let block = Sha256::new().chain_update(seed).chain_update([number]).finalize();
            out.copy_from_slice(&block[..out.len()]);
        }
    }
}

/// Refuses pseudonyms where replaced data would make the trace mean something else.
pub(super) fn check(sources: &[Source<'_>], edit: &Edit) -> Result<()> {
    if !matches!(edit.data, DataMode::Pseudonym(_)) || edit.drop.contains(Kinds::MEMORY) {
        return Ok(());
    }
    for source in sources {
        let with_content = |totals: &crate::trace::StreamTotals| {
            totals.bus.memory[0] > 0 || totals.bus.memory[2] > 0
        };
        if source.trace.totals().iter().any(with_content) {
            return Err(Error::usage(
                "guest memory holds rings and addresses: no pseudonym fits it",
            )
            .path(source.trace.path())
            .hint("leave it out with --drop memory, or all data with --payload drop"));
        }
    }
    Ok(())
}

/// Copies data from trace to trace.
pub(super) struct Data {
    mode: DataMode,
    /// Input and number to the number in the result.
    copies: HashMap<(usize, u32, u64), PayloadRef>,
    /// Data that could not be replaced sector by sector.
    unaligned: u64,
    replaced: u64,
}

impl Data {
    pub(super) fn new(mode: DataMode) -> Self {
        Self { mode, copies: HashMap::new(), unaligned: 0, replaced: 0 }
    }

    /// Stores what becomes of `payload` of trace number `at`, the data of `len` bytes at `offset`
    /// of the disk.
    pub(super) fn copy(
        &mut self,
        (at, trace): (usize, &Trace),
        payload: PayloadRef,
        (offset, len): (u64, u64),
        writer: &mut TraceWriter,
    ) -> Result<PayloadRef> {
        let PayloadRef::Stored(number) = payload else { return Ok(PayloadRef::Absent) };
        let whole = (offset | len).is_multiple_of(SECTOR_SIZE);
        if matches!(self.mode, DataMode::Pseudonym(_)) && !whole {
            self.unaligned += 1;
            return Ok(PayloadRef::Absent);
        }
        self.replaced += u64::from(self.mode != DataMode::Keep);
        if let Some(copy) = self.copies.get(&(at, number, len)) {
            return Ok(*copy);
        }
        let copy = match &self.mode {
            DataMode::Drop => PayloadRef::Absent,
            DataMode::Zero => writer.payload_from(len, &mut io::repeat(0).take(len))?,
            DataMode::Keep => {
                writer.payload_from(len, &mut Stored { trace, payload, len, at: 0, key: None })?
            }
            DataMode::Pseudonym(key) => {
                let key = Some(key);
                writer.payload_from(len, &mut Stored { trace, payload, len, at: 0, key })?
            }
        };
        if self.copies.len() >= COPIES_MAX {
            self.copies.clear();
        }
        self.copies.insert((at, number, len), copy);
        Ok(copy)
    }

    pub(super) fn tell(&self, summary: &mut Summary) {
        if self.replaced > 0 {
            let count = counted(self.replaced, "event has", "events have");
            summary.note(format!("{count} other data than before"));
        }
        if self.unaligned > 0 {
            let count = counted(self.unaligned, "event", "events");
            summary.note(format!(
                "the data of {count} is left out: not in whole sectors, so that it has no pseudonym"
            ));
        }
    }
}

/// A payload as a stream, sectors replaced where there is a key.
struct Stored<'a> {
    trace: &'a Trace,
    payload: PayloadRef,
    len: u64,
    at: u64,
    key: Option<&'a Key>,
}

impl Read for Stored<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len - self.at).unwrap_or(usize::MAX);
        let mut n = buf.len().min(left);
        if self.key.is_some() && n < left {
            // Whole sectors; the writer asks for a megabyte, or for all that is left.
            n = n / SECTOR_BYTES * SECTOR_BYTES;
        }
        let buf = &mut buf[..n];
        self.trace.read_payload(self.payload, self.len, self.at, buf).map_err(io::Error::other)?;
        if let Some(key) = self.key {
            buf.chunks_mut(SECTOR_BYTES).for_each(|sector| key.replace(sector));
        }
        self.at += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pseudonyms_depend_on_content_and_key_alone() {
        let (a, b) = (Key::from_words("a"), Key::from_words("b"));
        let with = |key: &Key, byte: u8| {
            let mut sector = [byte; SECTOR_BYTES];
            key.replace(&mut sector);
            sector
        };
        assert_eq!(with(&a, 1), with(&a, 1));
        assert_ne!(with(&a, 1), with(&a, 2));
        assert_ne!(with(&a, 1), with(&b, 1));
        assert_eq!(with(&a, 0), [0; SECTOR_BYTES]);
        // Nothing of the sector shows, and no half repeats another.
        let sector = with(&a, 1);
        assert!(sector.iter().filter(|byte| **byte == 1).count() < 16);
        assert_ne!(sector[..256], sector[256..]);
        assert_ne!(Key::random().unwrap(), Key::random().unwrap());
        assert!(!format!("{a:?}").contains(['0', '1', '2']));
    }
}
