//! One blktrace file as a stream of records: byte order, versions, notifications, lost places.

use super::record::{Order, Record, V7_BYTES, V8_BYTES, Version, cat, notify};
use super::sorted::{Items, Log, NextItem};
use crate::base::{Error, Result};
use crate::import::job::offset_place;
use crate::import::source::Source;

/// Longest record: the fixed part and as much data as its length can say.
const RECORD_BYTES_MAX: usize = V8_BYTES + u16::MAX as usize;

/// Bytes read at a time, at least: as many as the source's own buffer has, which they pass by then.
const READ_BYTES: usize = 256 << 10;

/// Room for what is read beside a record of which more is to come, and the beginning of the next.
const BUFFER_BYTES: usize = RECORD_BYTES_MAX + V7_BYTES + READ_BYTES;

/// Records decoded before the first of them is given out: a processor waits long for what it loads
/// right after it was stored in small parts.
const DECODED_TOGETHER: usize = 32;

/// Text kept of a message: the kernel's `BLK_TN_MAX_MSG` is 128, and was 1024 for a time.
pub const MESSAGE_BYTES_MAX: usize = 1024;

/// What the notifications said about the clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct WallClock {
    /// Trace time and Unix time in nanoseconds of the first TIMESTAMP.
    pub stamp: Option<(u64, u64)>,
    /// Trace time of the earliest PROCESS: it stands right before its process's first record.
    pub first_process: Option<u64>,
}

/// What a file gives.
#[derive(Debug)]
pub enum Item {
    /// A record about a request.
    Record(Record),
    /// A message, at the time at which it belongs.
    Message(Record, Box<[u8]>),
}

impl Item {
    /// The record it came as.
    pub fn record(&self) -> &Record {
        match self {
            Self::Record(record) | Self::Message(record, _) => record,
        }
    }

    /// The message; nothing of a record.
    pub fn text(&self) -> &[u8] {
        match self {
            Self::Record(_) => &[],
            Self::Message(_, text) => text,
        }
    }
}

/// A file being read.
pub struct Input {
    source: Source,
    buf: Vec<u8>,
    /// What of `buf` is read and not yet used.
    at: usize,
    end: usize,
    /// The source has no more.
    ended: bool,
    /// Records about requests that were at hand together.
    decoded: Vec<Record>,
    /// How many of them were given out.
    given: usize,
    order: Order,
    /// Version of the first record.
    pub version: Version,
    /// Time of the last record about a request.
    last_time: u64,
    /// blkparse -d subtracts the first record's time from records and not from notifications.
    rebased: bool,
    latest_note: u64,
}

impl Input {
    /// Starts on a file.
    ///
    /// # Errors
    /// Input: it does not begin with a record of a version that is known.
    pub fn open(source: Source) -> Result<Self> {
        let mut input = Self {
            source,
            buf: vec![0; BUFFER_BYTES],
            at: 0,
            end: 0,
            ended: false,
            decoded: Vec::new(),
            given: 0,
            order: Order::Little,
            version: Version::V7,
            last_time: 0,
            rebased: false,
            latest_note: 0,
        };
        input.need(V7_BYTES)?;
        let head = input.rest();
        if head.is_empty() {
            // A CPU that did nothing leaves an empty file.
            return Ok(input);
        }
        let order = Order::detect(head);
        let version = order.and_then(|order| order.version(head));
        let (Some(order), Some(version)) = (order, version) else {
            return Err(Error::input(match order {
                Some(_) => "a blktrace version that is not known (7 and 8 are)",
                None => "not a binary blktrace: wrong magic",
            })
            .path(input.source.path()));
        };
        (input.order, input.version) = (order, version);
        Ok(input)
    }

    /// The byte order found.
    pub fn order(&self) -> Order {
        self.order
    }

    fn rest(&self) -> &[u8] {
        self.buf.get(self.at..self.end).unwrap_or_default()
    }

    /// The offset in the file of the next byte.
    fn offset(&self) -> u64 {
        self.source.offset() - self.rest().len() as u64
    }

    /// Tries to have `bytes` bytes at hand; fewer are there at the end of the file only.
    fn need(&mut self, bytes: usize) -> Result<bool> {
        if self.rest().len() < bytes && !self.ended {
            self.buf.copy_within(self.at..self.end, 0);
            self.end -= self.at;
            self.at = 0;
            let room = self.buf.get_mut(self.end..).unwrap_or_default();
            let read = self.source.read_full(room)?;
            self.ended = read < room.len();
            self.end += read;
        }
        Ok(self.rest().len() >= bytes)
    }

    /// The next record and its length with data, if all of it is at hand.
    #[inline]
    fn whole(&self) -> Option<(Record, usize)> {
        let rest = self.rest();
        let version = self.order.version(rest)?;
        let record = Record::parse(rest, version, self.order)?;
        let len = version.bytes() + usize::from(record.pdu_len);
        (len <= rest.len()).then_some((record, len))
    }

    /// Decodes the records about requests that come next and are at hand.
    fn decode(&mut self) {
        self.decoded.clear();
        self.given = 0;
        while self.decoded.len() < DECODED_TOGETHER
            && let Some((record, len)) = self.whole()
            && !record.is(cat::NOTIFY)
        {
            // A notification is made before the record that follows it in the file.
            self.rebased |= self.latest_note > record.time;
            self.last_time = record.time;
            self.decoded.push(record);
            self.at += len;
        }
    }

    /// Finds the next whole record; returns it and its length with data.
    fn frame(&mut self, log: &mut impl Log) -> Result<Option<(Record, usize)>> {
        loop {
            if !self.need(V7_BYTES)? {
                self.cut(log);
                return Ok(None);
            }
            let Some(version) = self.order.version(self.rest()) else {
                if !self.resync(log)? {
                    return Ok(None);
                }
                continue;
            };
            // The fixed part says how much data there is.
            if self.need(version.bytes())?
                && let Some(record) = Record::parse(self.rest(), version, self.order)
                && self.need(version.bytes() + usize::from(record.pdu_len))?
            {
                return Ok(self.whole());
            }
            self.cut(log);
            return Ok(None);
        }
    }

    /// The file ends; says so when it does inside a record.
    fn cut(&mut self, log: &mut impl Log) {
        if !self.rest().is_empty() {
            let place = offset_place(self.source.path(), self.offset());
            log.summary().cut("input ends inside a record", place);
            self.at = self.end;
        }
    }

    /// Goes on to the next bytes that look like a record; false when there are none.
    fn resync(&mut self, log: &mut impl Log) -> Result<bool> {
        let place = offset_place(self.source.path(), self.offset());
        let mut lost = 0u64;
        let found = loop {
            log.tick()?;
            self.at += 1;
            lost += 1;
            if !self.need(V7_BYTES)? {
                // What is left is too short for a record.
                lost += self.rest().len() as u64;
                self.at = self.end;
                break false;
            }
            if self.order.version(self.rest()).is_some() && self.is_followed()? {
                break true;
            }
        };
        log.summary().malformed("bytes that are no record", || place.clone());
        log.summary().lose_many("bytes that are no record", lost - 1, || place);
        Ok(found)
    }

    /// Whether the record at hand ends where another begins, or the file does.
    fn is_followed(&mut self) -> Result<bool> {
        let Some(version) = self.order.version(self.rest()) else { return Ok(false) };
        self.need(version.bytes())?;
        let Some(record) = Record::parse(self.rest(), version, self.order) else {
            return Ok(false);
        };
        let len = version.bytes() + usize::from(record.pdu_len);
        self.need(len + V7_BYTES)?;
        let after = self.rest().get(len..);
        Ok(after.is_some_and(|next| next.is_empty() || self.order.version(next).is_some()))
    }

    #[inline(never)]
    fn notification(
        &mut self,
        mut record: Record,
        len: usize,
        clock: &mut WallClock,
    ) -> Option<Item> {
        let version = self.order.version(self.rest())?;
        let pdu = self.rest().get(version.bytes() + record.cgroup_bytes()..len)?;
        match record.act() {
            notify::PROCESS => {
                let first = clock.first_process.unwrap_or(u64::MAX);
                clock.first_process = Some(first.min(record.time));
            }
            notify::TIMESTAMP => {
                let (seconds, nanos) = (self.order.u32(pdu, 0)?, self.order.u32(pdu, 4)?);
                let unix = u64::from(seconds) * 1_000_000_000 + u64::from(nanos);
                clock.stamp.get_or_insert((record.time, unix));
            }
            notify::MESSAGE => {
                let end = pdu.iter().position(|byte| *byte == 0).unwrap_or(pdu.len());
                let text = pdu[..end.min(MESSAGE_BYTES_MAX)].trim_ascii_end();
                if self.rebased {
                    record.time = self.last_time;
                }
                return Some(Item::Message(record, text.into()));
            }
            _ => {}
        }
        self.latest_note = self.latest_note.max(record.time);
        None
    }
}

impl Items for Input {
    fn source(&self) -> &Source {
        &self.source
    }
}

impl<L: Log> NextItem<L> for Input {
    #[inline]
    fn next(&mut self, clock: &mut WallClock, log: &mut L) -> Result<Option<Item>> {
        loop {
            log.tick()?;
            if self.given == self.decoded.len() {
                self.decode();
            }
            if let Some(record) = self.decoded.get(self.given) {
                self.given += 1;
                return Ok(Some(Item::Record(*record)));
            }
            let Some((record, len)) = self.frame(log)? else { return Ok(None) };
            if record.is(cat::NOTIFY) {
                let item = self.notification(record, len, clock);
                self.at += len;
                if item.is_some() {
                    return Ok(item);
                }
            }
        }
    }
}
