//! Requests issued and not yet completed, and which of them a completion record answers.
//!
//! A completion names a range, not a request. Requests queued one by one may have been merged
//! (one completion answers several), or split (several answer one): so a completion is spread
//! over the outstanding requests of its kind that it overlaps, in order of their place, and a
//! request is complete when all its bytes are.

use std::collections::{BTreeMap, VecDeque};

use super::record::{Record, cat};
use crate::base::{BlockOp, OpFlags, SECTOR_SIZE};
use crate::trace::StreamId;

/// Requests held at most; the oldest are given up, as a capture that lost completions would
/// otherwise grow the table for ever. The block layer has some hundred requests in flight a
/// device, each merged from some hundred at most.
pub const OUTSTANDING_MAX: usize = 1 << 16;

/// Size classes: lengths in sectors, by power of two. `u32` bytes are fewer than 2^23 sectors.
const SIZE_CLASSES: usize = 24;

/// What a completion can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    Read,
    Write,
    WriteZeroes,
    Discard,
}

impl Kind {
    fn of(record: &Record) -> Self {
        // DISCARD and WRITE_ZEROES set WRITE too.
        if record.is(cat::DISCARD) {
            Self::Discard
        } else if record.is(cat::WRITE_ZEROES) {
            Self::WriteZeroes
        } else if record.is(cat::WRITE) {
            Self::Write
        } else {
            Self::Read
        }
    }
}

/// A request whose issue has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its tag.
    pub tag: u64,
    /// Its stream.
    pub stream: StreamId,
    /// Its operation.
    pub op: BlockOp,
    /// Its flags.
    pub flags: OpFlags,
    /// First sector.
    pub sector: u64,
    /// Length.
    pub bytes: u32,
    /// The first error of its parts; 0 for success.
    pub status: u16,
    remaining: u64,
}

impl Request {
    /// A request of which nothing is complete.
    pub fn new(tag: u64, stream: StreamId, op: BlockOp, flags: OpFlags, record: &Record) -> Self {
        let Record { sector, bytes, .. } = *record;
        Self { tag, stream, op, flags, sector, bytes, status: 0, remaining: bytes.into() }
    }

    fn range(&self) -> (u64, u64) {
        range(self.sector, self.bytes)
    }

    fn size_class(&self) -> u8 {
        let sectors = u64::from(self.bytes).div_ceil(SECTOR_SIZE).max(1);
        sectors.ilog2() as u8
    }
}

/// A range in bytes; 128-bit sectors of a hostile record saturate.
fn range(sector: u64, bytes: u32) -> (u64, u64) {
    let start = sector.saturating_mul(SECTOR_SIZE);
    (start, start.saturating_add(bytes.into()))
}

type Key = (u8, u64, u64);

/// Requests of one kind on one device.
#[derive(Default)]
struct Table {
    /// By size class, first sector and serial: a range search looks no further back than a
    /// request of the class can reach.
    requests: BTreeMap<Key, Request>,
    of_class: [u32; SIZE_CLASSES],
}

impl Table {
    fn insert(&mut self, serial: u64, request: Request) {
        let class = request.size_class();
        if let Some(count) = self.of_class.get_mut(usize::from(class)) {
            *count += 1;
        }
        self.requests.insert((class, request.sector, serial), request);
    }

    fn remove(&mut self, key: &Key) -> Option<Request> {
        let request = self.requests.remove(key)?;
        if let Some(count) = self.of_class.get_mut(usize::from(key.0)) {
            *count -= 1;
        }
        Some(request)
    }

    /// The oldest request with exactly this range.
    fn exact(&self, sector: u64, bytes: u32) -> Option<Key> {
        let class = u64::from(bytes).div_ceil(SECTOR_SIZE).max(1).ilog2() as u8;
        let mut same = self.requests.range((class, sector, 0)..=(class, sector, u64::MAX));
        same.find(|(_, request)| request.bytes == bytes).map(|(key, _)| *key)
    }

    /// Spreads a completion over what it overlaps; returns what it has completed.
    fn complete(&mut self, record: &Record, done: &mut Vec<Request>) -> bool {
        if let Some(key) = self.exact(record.sector, record.bytes)
            && let Some(request) = self.requests.get(&key)
            && request.remaining == u64::from(request.bytes)
        {
            done.extend(self.remove(&key).map(|r| Request { status: record.errno(), ..r }));
            return true;
        }
        let mut open = vec![range(record.sector, record.bytes)];
        let mut finished = Vec::new();
        let mut found = false;
        let end = record.sector.saturating_add(u64::from(record.bytes).div_ceil(SECTOR_SIZE));
        for class in 0..SIZE_CLASSES as u8 {
            if self.of_class[usize::from(class)] == 0 {
                continue;
            }
            let first = record.sector.saturating_sub(2 << class);
            for (key, request) in self.requests.range_mut((class, first, 0)..(class, end, 0)) {
                let taken = take(&mut open, request.range());
                if taken == 0 {
                    continue;
                }
                found = true;
                request.remaining = request.remaining.saturating_sub(taken);
                if request.status == 0 {
                    request.status = record.errno();
                }
                if request.remaining == 0 {
                    finished.push(*key);
                }
                if open.is_empty() {
                    break;
                }
            }
        }
        let mut whole: Vec<_> = finished.iter().filter_map(|key| self.remove(key)).collect();
        whole.sort_unstable_by_key(|request| request.tag);
        done.append(&mut whole);
        found
    }
}

/// Takes what `wanted` covers out of the `open` ranges; returns how many bytes that were.
fn take(open: &mut Vec<(u64, u64)>, wanted: (u64, u64)) -> u64 {
    let mut taken = 0;
    let mut at = 0;
    while let Some(&(start, end)) = open.get(at) {
        let (from, to) = (start.max(wanted.0), end.min(wanted.1));
        if from >= to {
            at += 1;
            continue;
        }
        taken += to - from;
        let left = [(start, from), (to, end)].into_iter().filter(|(a, b)| a < b);
        let left: Vec<_> = left.collect();
        let added = left.len();
        open.splice(at..=at, left);
        at += added;
    }
    taken
}

/// All outstanding requests of a trace.
#[derive(Default)]
pub struct Outstanding {
    tables: BTreeMap<(StreamId, Kind), Table>,
    /// Flushes have no range: they are answered in order.
    flushes: BTreeMap<StreamId, VecDeque<Request>>,
    /// Writes with FUA whose data is written and whose final flush is not done.
    flushing: VecDeque<Request>,
    /// Every request in order of issue, for giving up the oldest; entries whose request is
    /// gone are skipped.
    order: VecDeque<(StreamId, Kind, Key)>,
    serial: u64,
    held: usize,
}

impl Outstanding {
    /// Adds a request; returns one that had to be given up for it.
    pub fn insert(&mut self, request: Request, record: &Record) -> Option<Request> {
        let stream = request.stream;
        self.held += 1;
        if request.op == BlockOp::Flush {
            self.flushes.entry(stream).or_default().push_back(request);
        } else {
            let kind = Kind::of(record);
            let key = (request.size_class(), request.sector, self.serial);
            self.tables.entry((stream, kind)).or_default().insert(self.serial, request);
            self.order.push_back((stream, kind, key));
            self.serial += 1;
        }
        self.forget_gone();
        if self.held > OUTSTANDING_MAX { self.give_up_oldest() } else { None }
    }

    /// Keeps the order list as short as the tables.
    fn forget_gone(&mut self) {
        if self.order.len() > 2 * OUTSTANDING_MAX {
            let tables = &self.tables;
            self.order.retain(|(stream, kind, key)| {
                tables.get(&(*stream, *kind)).is_some_and(|t| t.requests.contains_key(key))
            });
        }
    }

    fn give_up_oldest(&mut self) -> Option<Request> {
        self.held -= 1;
        while let Some((stream, kind, key)) = self.order.pop_front() {
            let table = self.tables.get_mut(&(stream, kind));
            if let Some(request) = table.and_then(|table| table.remove(&key)) {
                return Some(request);
            }
        }
        // Only flushes are left, or writes that wait for theirs.
        let flush = self.flushes.values_mut().find_map(VecDeque::pop_front);
        flush.or_else(|| self.flushing.pop_front())
    }

    /// A completion of a range: adds to `done` what is complete with it. False when it answers
    /// nothing. A FUA write that the device does not do itself (the completion of its data lacks
    /// the bit) is complete only with [`Outstanding::complete_flushed`].
    pub fn complete(
        &mut self,
        stream: StreamId,
        record: &Record,
        holds_fua: bool,
        done: &mut Vec<Request>,
    ) -> bool {
        let Some(table) = self.tables.get_mut(&(stream, Kind::of(record))) else { return false };
        let found = table.complete(record, done);
        if holds_fua && !record.is(cat::FUA) {
            let flushing = &mut self.flushing;
            done.retain(|request| {
                let waits = request.flags.contains(OpFlags::FUA);
                if waits {
                    flushing.push_back(*request);
                }
                !waits
            });
        }
        self.held = self.held.saturating_sub(done.len());
        found
    }

    /// A completion without length that ends a write's flush sequence: it names the sector at
    /// which the write began, or (kernels that have advanced past the data) ended.
    pub fn complete_flushed(&mut self, stream: StreamId, record: &Record) -> Option<Request> {
        let place = record.sector.saturating_mul(SECTOR_SIZE);
        let at = self.flushing.iter().position(|request| {
            let (start, end) = request.range();
            request.stream == stream && (start == place || end == place)
        })?;
        self.held = self.held.saturating_sub(1);
        let mut request = self.flushing.remove(at)?;
        if request.status == 0 {
            request.status = record.errno();
        }
        Some(request)
    }

    /// A completion without length that answers a flush: the oldest of the stream, when its
    /// sector is the one named (0, unless a bio-based device says otherwise).
    pub fn complete_flush(&mut self, stream: StreamId, record: &Record) -> Option<Request> {
        let flushes = self.flushes.get_mut(&stream)?;
        let at = flushes.iter().position(|request| request.sector == record.sector)?;
        let mut request = flushes.remove(at)?;
        self.held = self.held.saturating_sub(1);
        request.status = record.errno();
        Some(request)
    }

    /// Takes out the request that `record` names exactly, flushes by order.
    pub fn take_exact(
        &mut self,
        stream: StreamId,
        op: BlockOp,
        record: &Record,
    ) -> Option<Request> {
        if op == BlockOp::Flush {
            let request = self.flushes.get_mut(&stream)?.pop_front();
            self.held -= usize::from(request.is_some());
            return request;
        }
        let table = self.tables.get_mut(&(stream, Kind::of(record)))?;
        let key = table.exact(record.sector, record.bytes)?;
        let request = table.remove(&key)?;
        self.held = self.held.saturating_sub(1);
        Some(request)
    }

    /// Requests whose completion has not been seen.
    pub fn count(&self) -> usize {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(sector: u64, bytes: u32, categories: u64) -> Record {
        Record {
            sequence: 1,
            time: 0,
            sector,
            bytes,
            action: categories << 16,
            device: 0,
            cpu: 0,
            error: 0,
            pdu_len: 0,
        }
    }

    fn issue(out: &mut Outstanding, tag: u64, sector: u64, bytes: u32, categories: u64) {
        let record = record(sector, bytes, categories);
        let op = if bytes == 0 { BlockOp::Flush } else { BlockOp::Write };
        let request = Request::new(tag, StreamId(0), op, OpFlags::empty(), &record);
        assert_eq!(out.insert(request, &record), None);
    }

    fn complete(out: &mut Outstanding, sector: u64, bytes: u32, categories: u64) -> Vec<u64> {
        let mut done = Vec::new();
        out.complete(StreamId(0), &record(sector, bytes, categories), true, &mut done);
        done.iter().map(|request| request.tag).collect()
    }

    #[test]
    fn one_completion_answers_merged_requests() {
        let mut out = Outstanding::default();
        issue(&mut out, 0, 8, 4096, cat::WRITE);
        issue(&mut out, 1, 16, 4096, cat::WRITE);
        issue(&mut out, 2, 0, 4096, cat::WRITE);
        issue(&mut out, 3, 24, 4096, cat::WRITE);
        assert_eq!(complete(&mut out, 0, 3 * 4096, cat::WRITE), [0, 1, 2]);
        assert_eq!(out.count(), 1);
    }

    #[test]
    fn several_completions_answer_a_split_request() {
        let mut out = Outstanding::default();
        issue(&mut out, 0, 0, 2 << 20, cat::WRITE);
        issue(&mut out, 1, 4096, 1 << 20, cat::WRITE);
        assert!(complete(&mut out, 2560, 786_432, cat::WRITE).is_empty());
        // The rest of the first and the whole of the second, merged.
        assert!(complete(&mut out, 4096, 512, cat::WRITE).is_empty());
        assert_eq!(complete(&mut out, 0, 1_310_720, cat::WRITE), [0]);
        assert_eq!(complete(&mut out, 4097, (1 << 20) - 512, cat::WRITE), [1]);
    }

    #[test]
    fn kinds_do_not_answer_each_other() {
        let mut out = Outstanding::default();
        issue(&mut out, 0, 0, 512, cat::READ);
        issue(&mut out, 1, 0, 512, cat::WRITE);
        issue(&mut out, 2, 0, 512, cat::WRITE | cat::DISCARD);
        assert_eq!(complete(&mut out, 0, 512, cat::WRITE | cat::DISCARD), [2]);
        assert_eq!(complete(&mut out, 0, 512, cat::READ), [0]);
        assert_eq!(complete(&mut out, 0, 512, cat::WRITE), [1]);
        assert!(complete(&mut out, 0, 512, cat::WRITE).is_empty());
    }

    #[test]
    fn equal_requests_are_answered_in_order_one_by_one() {
        let mut out = Outstanding::default();
        for tag in 0..3 {
            issue(&mut out, tag, 8, 4096, cat::WRITE);
        }
        for tag in 0..3 {
            assert_eq!(complete(&mut out, 8, 4096, cat::WRITE), [tag]);
        }
    }

    #[test]
    fn the_table_is_bounded_and_gives_up_the_oldest() {
        let mut out = Outstanding::default();
        for tag in 0..OUTSTANDING_MAX as u64 {
            issue(&mut out, tag, tag * 8, 4096, cat::WRITE);
        }
        let record = record(1, 512, cat::READ);
        let more = Request::new(1 << 40, StreamId(0), BlockOp::Read, OpFlags::empty(), &record);
        assert_eq!(out.insert(more, &record).map(|request| request.tag), Some(0));
        assert_eq!(out.count(), OUTSTANDING_MAX);
    }

    #[test]
    fn hostile_sectors_do_not_overflow() {
        let mut out = Outstanding::default();
        issue(&mut out, 0, u64::MAX, u32::MAX, cat::WRITE);
        issue(&mut out, 1, u64::MAX - 1, 1, cat::WRITE);
        complete(&mut out, u64::MAX, 512, cat::WRITE);
        complete(&mut out, u64::MAX - 4096, u32::MAX, cat::WRITE);
    }

    #[test]
    fn ranges_are_cut_out() {
        let mut open = vec![(0, 100)];
        assert_eq!(take(&mut open, (40, 60)), 20);
        assert_eq!(open, [(0, 40), (60, 100)]);
        assert_eq!(take(&mut open, (30, 70)), 20);
        assert_eq!(take(&mut open, (200, 300)), 0);
        assert_eq!(take(&mut open, (0, 100)), 60);
        assert!(open.is_empty());
    }
}
