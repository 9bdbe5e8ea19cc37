//! The files of QEMU's `simple` trace backend (`trace-PID`, or `-trace file=NAME`), version 4.
//!
//! ```text
//! header    u64 0xffffffffffffffff, u64 0xf2b177cb0aa429b4, u64 version
//! mapping   u64 0, u64 id, u32 length, name                   which event an id is
//! event     u64 1, u64 id, u64 time, u32 length, u32 pid, arguments
//! ```
//!
//! - In the byte order of the machine that ran QEMU. Times are nanoseconds of its monotonic clock,
//!   so they are no dates; the length counts from the id on. An argument is a `u64`, or a `u32`
//!   length and a string: which, only the event's name tells (`signature`).
//! - The id 0xfffffffffffffffe says how many events were dropped because the buffer was full.
//! - Versions 0, 2 and 3 (QEMU before 2.9) have ids and no names: they cannot be read without the
//!   `trace-events` of the QEMU that wrote them, and are refused.
//!
//! Source: QEMU's `trace/simple.c` and `scripts/simpletrace.py`.

mod signature;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use self::signature::{Order, arguments};
use super::access;
use super::block::{Block, Layer};
use super::bus::Bus;
use super::{Event, Reader, yields};
use crate::base::error::Place;
use crate::base::{Error, Result};
use crate::import::job::Job;
use crate::import::log_clock::LogClock;
use crate::import::registry::{self, Confidence, Importer, Probe};
use crate::import::source::Source;
use crate::import::{ImportOptions, note_condition};

const HEADER_ID: u64 = u64::MAX;
const HEADER_MAGIC: u64 = 0xf2b1_77cb_0aa4_29b4;
const HEADER_BYTES: usize = 24;
const VERSION: u64 = 4;
/// Versions without names of events.
const NAMELESS: [u64; 3] = [0, 2, 3];

const MAPPING: u64 = 0;
const EVENT: u64 = 1;
const DROPPED_ID: u64 = u64::MAX - 1;

/// Id, time, length and process of an event; id and length of a mapping.
const EVENT_BYTES: usize = 24;
const MAPPING_BYTES: usize = 12;
/// QEMU's buffer: no record is larger (`TRACE_BUF_LEN`).
const RECORD_BYTES_MAX: usize = 4096 * 64;
/// Longest name of an event, and ids kept: QEMU has some thousands.
const NAME_BYTES_MAX: usize = 256;
const IDS_MAX: usize = 1 << 17;

/// The importer.
pub struct QemuSimple;

impl Importer for QemuSimple {
    fn name(&self) -> &'static str {
        "qemu-simple"
    }

    fn description(&self) -> &'static str {
        "QEMU's simple trace backend (binary): what qemu-log takes"
    }

    fn yields(&self) -> &'static str {
        yields(true, Some(Layer::Devices))
    }

    fn options(&self) -> &'static [&'static str] {
        &[registry::UNIT]
    }

    fn probe(&self, probe: &Probe<'_>) -> Option<Confidence> {
        header(probe.head).map(|_| Confidence::Certain)
    }

    fn import(
        &self,
        sources: Vec<Source>,
        options: &ImportOptions,
        job: &mut Job<'_>,
    ) -> Result<()> {
        let block = Block::new(Layer::Devices, options.unit_bytes);
        let mut reader = Reader::new(Some(Bus::default()), Some(block), LogClock::since_boot());
        reader.describe(job);
        job.interpret("times: nanoseconds of the host's monotonic clock");
        for source in sources {
            let path = source.path().to_path_buf();
            let read = File::open(source).and_then(|file| file.read(&mut reader, job));
            read.and_then(|()| reader.finish(job)).map_err(|error| error.path(path))?;
        }
        Ok(())
    }
}

/// Byte order and version.
fn header(head: &[u8]) -> Option<(Order, u64)> {
    [Order::Little, Order::Big].into_iter().find_map(|order| {
        let (id, rest) = order.u64(head)?;
        let (magic, rest) = order.u64(rest)?;
        let (version, _) = order.u64(rest)?;
        ((id, magic) == (HEADER_ID, HEADER_MAGIC)).then_some((order, version))
    })
}

/// A file of version 4.
struct File {
    source: Source,
    order: Order,
    names: HashMap<u64, Vec<u8>>,
    buffer: Vec<u8>,
}

/// What a record was.
enum Next {
    Record,
    End,
    /// The input ends inside it, or it cannot be one: why.
    Broken(&'static str),
}

impl File {
    /// # Errors
    /// Input: no header, or a version that has no names.
    fn open(mut source: Source) -> Result<Self> {
        let mut head = [0; HEADER_BYTES];
        let read = source.read_full(&mut head)?;
        let head = head.get(..read).unwrap_or_default();
        let (order, version) =
            header(head).ok_or_else(|| Error::input("no header of QEMU's simple trace backend"))?;
        if NAMELESS.contains(&version) {
            let what = format!("version {version} of QEMU's simple trace has no names of events");
            return Err(Error::input(what).hint(
                "print it with the scripts/simpletrace.py and trace-events of that QEMU, or trace \
                 with the log backend, or with QEMU 2.9 or later",
            ));
        }
        if version != VERSION {
            let what = format!("version {version} of QEMU's simple trace is not known");
            return Err(Error::input(what).hint("version 4 is read"));
        }
        Ok(Self { source, order, names: HashMap::new(), buffer: Vec::new() })
    }

    fn read(mut self, reader: &mut Reader, job: &mut Job<'_>) -> Result<()> {
        loop {
            job.tick()?;
            let start = Place::Offset(self.source.offset());
            match self.record(start, reader, job)? {
                Next::Record => {}
                Next::End => break,
                Next::Broken(why) => {
                    job.summary.cut(why, start.to_string());
                    break;
                }
            }
        }
        note_condition(&self.source, job);
        Ok(())
    }

    fn record(&mut self, start: Place, reader: &mut Reader, job: &mut Job<'_>) -> Result<Next> {
        let mut kind = [0; 8];
        match self.source.read_full(&mut kind)? {
            0 => return Ok(Next::End),
            8 => {}
            _ => return Ok(Next::Broken(CUT)),
        }
        match self.order.u64(&kind) {
            Some((MAPPING, _)) => self.mapping(start, job),
            Some((EVENT, _)) => self.event(start, reader, job),
            _ => Ok(Next::Broken("record of an unknown type: the rest cannot be read")),
        }
    }

    /// Reads `len` bytes into the buffer; whether they were there.
    fn fill(&mut self, len: usize) -> Result<bool> {
        self.buffer.resize(len, 0);
        Ok(self.source.read_full(&mut self.buffer)? == len)
    }

    fn mapping(&mut self, start: Place, job: &mut Job<'_>) -> Result<Next> {
        if !self.fill(MAPPING_BYTES)? {
            return Ok(Next::Broken(CUT));
        }
        let head = || {
            let (id, rest) = self.order.u64(&self.buffer)?;
            Some((id, usize::try_from(self.order.u32(rest)?.0).ok()?))
        };
        let (id, len) = match head() {
            Some((id, len)) if len <= NAME_BYTES_MAX => (id, len),
            _ => return Ok(Next::Broken("name of impossible length: the rest cannot be read")),
        };
        if !self.fill(len)? {
            return Ok(Next::Broken(CUT));
        }
        if self.names.len() < IDS_MAX {
            self.names.insert(id, self.buffer.clone());
        } else {
            job.summary.lose("more names of events than are kept", || start.to_string());
        }
        Ok(Next::Record)
    }

    fn event(&mut self, start: Place, reader: &mut Reader, job: &mut Job<'_>) -> Result<Next> {
        if !self.fill(EVENT_BYTES)? {
            return Ok(Next::Broken(CUT));
        }
        let head = || {
            let (id, rest) = self.order.u64(&self.buffer)?;
            let (time, rest) = self.order.u64(rest)?;
            let len = usize::try_from(self.order.u32(rest)?.0).ok()?;
            Some((id, time, len.checked_sub(EVENT_BYTES)?))
        };
        let (id, time, len) = match head() {
            Some((id, time, len)) if len <= RECORD_BYTES_MAX => (id, time, len),
            _ => return Ok(Next::Broken("record of impossible length: the rest cannot be read")),
        };
        if !self.fill(len)? {
            return Ok(Next::Broken(CUT));
        }
        if id == DROPPED_ID {
            let count = self.order.u64(&self.buffer).map_or(0, |(count, _)| count);
            let reason = "event dropped by QEMU: its trace buffer was full";
            job.summary.lose_many(reason, count, || start.to_string());
            return Ok(Next::Record);
        }
        let Some(name) = self.names.get(&id) else {
            job.summary.malformed("event whose id has no name", || start.to_string());
            return Ok(Next::Record);
        };
        let fields = arguments(name, &self.buffer, self.order);
        if fields.is_none() && !signature::of(name).is_empty() {
            let reason = "event with other arguments than any known version's";
            job.summary.malformed(reason, || start.to_string());
            return Ok(Next::Record);
        }
        let fields = fields.unwrap_or_default();
        let access = access::of_record(name, &fields);
        let event = Event { place: start, time: Some(time), name, access };
        reader.event(&event, || fields, job)?;
        Ok(Next::Record)
    }
}

const CUT: &str = "input ends inside a record";
