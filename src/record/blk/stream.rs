//! Records of blktrace out of a stream of bytes that comes in pieces, and in order of time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::import::blktrace::record::{Order, Record};

/// How much older than the newest a record is before it is passed on: CPUs hand theirs over a
/// little late.
const SETTLE_NS: u64 = 20_000_000;

/// Records that wait at most: of more in so short a time the oldest goes, wherever it belongs.
const WAITING_MAX: usize = 1 << 16;

/// The order of this machine's own records.
const ORDER: Order = if cfg!(target_endian = "little") { Order::Little } else { Order::Big };

/// By time, and among equals in the order in which they came.
type Key = (u64, u64);

/// A record with the data behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The record.
    pub record: Record,
    /// What follows it: the text of a message.
    pub data: Vec<u8>,
}

/// Bytes in, records out.
#[derive(Debug, Default)]
pub struct Stream {
    bytes: Vec<u8>,
    waiting: BinaryHeap<Reverse<(Key, usize)>>,
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
    count: u64,
    newest: u64,
    /// Bytes that were no record: the tracer's own remarks, for one.
    pub skipped: u64,
}

impl Stream {
    /// Takes the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
        let bytes = std::mem::take(&mut self.bytes);
        let mut rest = bytes.as_slice();
        loop {
            match next(rest) {
                Next::Record(entry, len) => {
                    self.add(entry);
                    rest = rest.get(len..).unwrap_or_default();
                }
                Next::Junk(len) => {
                    self.skipped += len as u64;
                    rest = rest.get(len..).unwrap_or_default();
                }
                Next::More => break,
            }
        }
        self.bytes = rest.to_vec();
    }

    fn add(&mut self, entry: Entry) {
        self.newest = self.newest.max(entry.record.time);
        let key = (entry.record.time, self.count);
        self.count += 1;
        let at = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() - 1
        });
        if let Some(slot) = self.entries.get_mut(at) {
            *slot = Some(entry);
        }
        self.waiting.push(Reverse((key, at)));
    }

    /// The next record in order of time, when no earlier one is to be expected; with `all`, also
    /// when one may be.
    pub fn pop(&mut self, all: bool) -> Option<Entry> {
        let Reverse(((time, _), _)) = self.waiting.peek()?;
        let settled = time.saturating_add(SETTLE_NS) <= self.newest;
        if !settled && !all && self.waiting.len() <= WAITING_MAX {
            return None;
        }
        let Reverse((_, at)) = self.waiting.pop()?;
        self.free.push(at);
        self.entries.get_mut(at)?.take()
    }
}

enum Next {
    Record(Entry, usize),
    Junk(usize),
    More,
}

/// What stands at the beginning of `bytes`.
fn next(bytes: &[u8]) -> Next {
    let Some(version) = ORDER.version(bytes) else {
        if bytes.len() < 4 {
            return Next::More;
        }
        // To where a record may begin again; the last bytes may be the first of its magic.
        let at = (1..bytes.len() - 3).find(|at| ORDER.version(&bytes[*at..]).is_some());
        return Next::Junk(at.unwrap_or(bytes.len() - 3));
    };
    let Some(record) = Record::parse(bytes, version, ORDER) else { return Next::More };
    let fixed = version.bytes();
    let len = fixed + usize::from(record.pdu_len);
    match bytes.get(fixed..len) {
        Some(data) => Next::Record(Entry { record, data: data.to_vec() }, len),
        None => Next::More,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::mix;
    use crate::import::blktrace::record::Version;

    fn record(time: u64) -> Record {
        Record {
            sequence: 0,
            time,
            sector: 8,
            bytes: 4096,
            action: 1,
            device: 7 << 20,
            cpu: 0,
            error: 0,
            pdu_len: 0,
        }
    }

    fn times(stream: &mut Stream, all: bool) -> Vec<u64> {
        std::iter::from_fn(|| stream.pop(all)).map(|entry| entry.record.time).collect()
    }

    #[test]
    fn records_come_out_whole_and_in_order_however_they_came_in() {
        let ms = 1_000_000;
        let mut bytes = Vec::new();
        for time in [1, 3, 2, 50, 49, 80] {
            bytes.extend(record(time * ms).encode(Version::V7, ORDER, b"text"));
        }
        for piece in [1, 7, 48, 1000] {
            let mut stream = Stream::default();
            let mut out = Vec::new();
            for bytes in bytes.chunks(piece) {
                stream.push(bytes);
                out.extend(times(&mut stream, false));
            }
            assert_eq!(out, [1, 2, 3, 49, 50].map(|time| time * ms), "{piece}");
            assert_eq!(times(&mut stream, true), [80 * ms]);
            assert_eq!(stream.skipped, 0);
        }
    }

    #[test]
    fn what_is_no_record_is_passed_over_and_counted() {
        let lost = b"CPU:3 [LOST 77 EVENTS]\n";
        let mut bytes = record(1).encode(Version::V7, ORDER, b"");
        bytes.extend(lost);
        bytes.extend(record(2).encode(Version::V7, ORDER, b""));
        let mut stream = Stream::default();
        for byte in bytes {
            stream.push(&[byte]);
        }
        assert_eq!(times(&mut stream, true), [1, 2]);
        assert_eq!(stream.skipped, lost.len() as u64);
    }

    #[test]
    fn any_bytes_end_and_hold_little() {
        let mut stream = Stream::default();
        let mut seed = 1;
        for _ in 0..200 {
            let noise: Vec<u8> = (0..1000)
                .map(|_| {
                    seed = mix(seed);
                    seed as u8
                })
                .collect();
            stream.push(&noise);
            while stream.pop(true).is_some() {}
            assert!(stream.bytes.len() < 70_000);
        }
    }
}
