//! Requests issued and not yet completed, and which of them a completion record answers.
//!
//! A completion names a range, not a request. Requests queued one by one may have been merged
//! (one completion answers several), or split (several answer one): so a completion is spread
//! over the outstanding requests of its kind that it overlaps, in order of their place, and a
//! request is complete when all its bytes are.

use std::collections::{BTreeMap, VecDeque};

use super::record::{Record, cat};
pub use super::under_way::Request;
use super::under_way::UnderWay;
use crate::base::{BlockOp, OpFlags, SECTOR_SIZE};
use crate::trace::StreamId;

/// Requests held at most; the oldest are given up, as a capture that lost completions would
/// otherwise grow the table for ever. The block layer has some hundred requests in flight a
/// device, each merged from some hundred at most.
pub const OUTSTANDING_MAX: usize = 1 << 16;

/// All outstanding requests of a trace.
#[derive(Default)]
pub struct Outstanding {
    under_way: UnderWay,
    /// Flushes have no range: they are answered in order.
    flushes: BTreeMap<StreamId, VecDeque<Request>>,
    /// Writes with FUA whose data is written and whose final flush is not done.
    flushing: VecDeque<Request>,
    /// All of these.
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
            self.under_way.insert(request, record);
        }
        if self.held > OUTSTANDING_MAX { self.give_up_oldest() } else { None }
    }

    fn give_up_oldest(&mut self) -> Option<Request> {
        self.held -= 1;
        // When none has a range only flushes are left, or writes that wait for theirs.
        let oldest = self.under_way.take_oldest();
        oldest
            .or_else(|| self.flushes.values_mut().find_map(VecDeque::pop_front))
            .or_else(|| self.flushing.pop_front())
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
        let found = self.under_way.complete(stream, record, done);
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
        let request = self.under_way.take_exact(stream, record)?;
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
}
