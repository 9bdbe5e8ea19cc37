//! The log of the device-mapper target `log-writes` (Linux `drivers/md/dm-log-writes.c`,
//! `Documentation/admin-guide/device-mapper/log-writes.rst`) and of QEMU's `blklogwrites` driver,
//! which writes the same format. Little endian.
//!
//! ```text
//! sector 0:  u64 magic, u64 version, u64 nr_entries, u32 sectorsize
//! an entry:  one sector { u64 sector, u64 nr_sectors, u64 flags, u64 data_len, mark text … }
//!            then nr_sectors sectors of data, unless flags has DISCARD
//! ```
//!
//! All sectors are `sectorsize` bytes. Entries stand in the order in which writes *completed*;
//! the kernel logs them at the flush that made them durable.
//!
//! # Where the log ends
//! The superblock's count is written at each FUA, flush or mark only, so the log of a killed run
//! has entries that it does not count. What follows the counted entries may as well be left from
//! an earlier log on the same device, and such an entry replayed would corrupt the image. So: a
//! count above 0 is the end, plausible entries after it are counted as lost (`--uncounted` reads
//! them); with a count of 0 plausible entries are read, with a note.

use std::io::Read;

use super::job::{Job, Request, offset_place};
use super::registry::{Confidence, Importer, Probe};
use super::source::Source;
use super::summary::counted;
use super::{ImportOptions, note_condition};
use crate::base::limits::{PAYLOAD_PIECE_BYTES, REQUEST_BYTES_MAX};
use crate::base::{BlockOp, Error, Nanos, OpFlags, Result};
use crate::trace::{NotRecorded, PAYLOAD_BYTES_MAX, PayloadRef, StreamId};

/// `WRITE_LOG_MAGIC`.
const WRITE_LOG_MAGIC: u64 = 0x006a_7366_7773_6872;
/// `WRITE_LOG_VERSION`.
const WRITE_LOG_VERSION: u64 = 1;
const SUPER_BYTES: usize = 28;
const SECTOR_BYTES_MIN: u32 = 512;
const SECTOR_BYTES_MAX: u32 = 64 << 10;
/// The fixed part of an entry; a mark's text follows.
const ENTRY_BYTES: usize = 32;

const LOG_FLUSH_FLAG: u64 = 1 << 0;
const LOG_FUA_FLAG: u64 = 1 << 1;
const LOG_DISCARD_FLAG: u64 = 1 << 2;
const LOG_MARK_FLAG: u64 = 1 << 3;
const LOG_METADATA_FLAG: u64 = 1 << 4;
const LOG_FLAGS_KNOWN: u64 = (1 << 5) - 1;

/// The importer.
pub struct DmLogWrites;

impl Importer for DmLogWrites {
    fn name(&self) -> &'static str {
        "dm-log-writes"
    }

    fn description(&self) -> &'static str {
        "dm-log-writes and QEMU blklogwrites logs, with the data written"
    }

    fn options(&self) -> &'static [&'static str] {
        &["--uncounted"]
    }

    fn probe(&self, probe: &Probe<'_>) -> Option<Confidence> {
        (u64_at(probe.head, 0)? == WRITE_LOG_MAGIC).then_some(Confidence::Certain)
    }

    fn import(
        &self,
        sources: Vec<Source>,
        options: &ImportOptions,
        job: &mut Job<'_>,
    ) -> Result<()> {
        job.lacks(lacks());
        for source in sources {
            Reader::open(source, job)?.read(options, job)?;
        }
        Ok(())
    }
}

fn lacks() -> NotRecorded {
    use NotRecorded as N;
    N::READ_DATA
        | N::COMPLETIONS
        | N::STATUS
        | N::READS
        | N::WRITE_ZEROES
        | N::TIMES
        | N::ISSUE_ORDER
        | N::QUEUES
        | N::CPUS
        | N::DEVICE_SIZE
        | N::UNMAP
        | N::HINTS
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// An entry's fixed part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    sector: u64,
    nr_sectors: u64,
    flags: u64,
    data_len: u64,
}

impl Entry {
    fn parse(sector: &[u8]) -> Option<Self> {
        Some(Self {
            sector: u64_at(sector, 0)?,
            nr_sectors: u64_at(sector, 8)?,
            flags: u64_at(sector, 16)?,
            data_len: u64_at(sector, 24)?,
        })
    }

    fn has(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }

    /// Bytes of data that follow; `None` when no trace can hold them: then the entry is damaged,
    /// and where the next one stands is not known.
    fn data_bytes(&self, sector_bytes: u64) -> Option<u64> {
        if self.has(LOG_DISCARD_FLAG) {
            return Some(0);
        }
        self.range_bytes(sector_bytes).filter(|bytes| *bytes <= PAYLOAD_BYTES_MAX)
    }

    fn range_bytes(&self, sector_bytes: u64) -> Option<u64> {
        self.nr_sectors.checked_mul(sector_bytes).filter(|bytes| *bytes <= REQUEST_BYTES_MAX)
    }

    /// Whether something that nothing vouches for looks like an entry: known flags, text only in
    /// a mark, a meaning, a possible range, and zeros to the end of the sector.
    fn is_plausible(&self, sector: &[u8]) -> bool {
        let text = if self.has(LOG_MARK_FLAG) { self.data_len } else { 0 };
        let used = usize::try_from(text).ok().and_then(|text| text.checked_add(ENTRY_BYTES));
        let rest = used.and_then(|used| sector.get(used..));
        let size = sector.len() as u64;
        let end = self.sector.checked_add(self.nr_sectors).and_then(|end| end.checked_mul(size));
        self.flags & !LOG_FLAGS_KNOWN == 0
            && self.data_len == text
            && (self.flags != 0 || self.nr_sectors != 0)
            && end.is_some_and(|end| end <= REQUEST_BYTES_MAX)
            && rest.is_some_and(|rest| rest.iter().all(|byte| *byte == 0))
    }
}

struct Reader {
    source: Source,
    sector_bytes: u64,
    counted: u64,
    stream: StreamId,
    /// The sector at hand, and room for a payload that is stored whole.
    sector: Vec<u8>,
    data: Vec<u8>,
}

impl Reader {
    fn open(mut source: Source, job: &mut Job<'_>) -> Result<Self> {
        let path = source.path().to_path_buf();
        let fail = |what: &str| Error::input(what).path(&path);
        let mut head = [0; SUPER_BYTES];
        if source.read_full(&mut head)? < SUPER_BYTES {
            return Err(fail("the log ends inside its superblock"));
        }
        if u64_at(&head, 0) != Some(WRITE_LOG_MAGIC) {
            return Err(fail("not a dm-log-writes log: wrong magic"));
        }
        let version = u64_at(&head, 8).unwrap_or_default();
        if version != WRITE_LOG_VERSION {
            return Err(fail(&format!("dm-log-writes version {version} is not known")));
        }
        let sector_bytes = head.last_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let sizes = SECTOR_BYTES_MIN..=SECTOR_BYTES_MAX;
        if !sector_bytes.is_power_of_two() || !sizes.contains(&sector_bytes) {
            return Err(fail(&format!("impossible sector size {sector_bytes} in the superblock")));
        }
        source.skip(u64::from(sector_bytes) - SUPER_BYTES as u64)?;
        job.interpret(format!("sector and length unit: {sector_bytes} bytes"));
        job.interpret("order: as the writes completed");
        let stream = job.only_stream(Some(sector_bytes))?;
        Ok(Self {
            source,
            sector_bytes: sector_bytes.into(),
            counted: u64_at(&head, 16).unwrap_or_default(),
            stream,
            sector: vec![0; sector_bytes as usize],
            data: Vec::new(),
        })
    }

    fn read(mut self, options: &ImportOptions, job: &mut Job<'_>) -> Result<()> {
        let mut whole = true;
        for number in 0..self.counted {
            job.tick()?;
            let place = offset_place(self.source.path(), self.source.offset());
            if !self.counted_entry(&place, job)? {
                let left = self.counted - number;
                job.summary.cut("the log cannot be read to its last entry", place.as_str());
                job.summary.lose_many(
                    "entries that the superblock counts are missing",
                    left,
                    || place,
                );
                whole = false;
                break;
            }
        }
        if whole {
            self.uncounted_entries(self.counted == 0 || options.uncounted, job)?;
        }
        note_condition(&self.source, job);
        Ok(())
    }

    /// One entry that the superblock vouches for; false when the log ends in it.
    fn counted_entry(&mut self, place: &str, job: &mut Job<'_>) -> Result<bool> {
        match self.next_entry()? {
            Some(entry) => self.entry(entry, place, job),
            None => Ok(false),
        }
    }

    fn next_entry(&mut self) -> Result<Option<Entry>> {
        let read = self.source.read_full(&mut self.sector)?;
        Ok(if read == self.sector.len() { Entry::parse(&self.sector) } else { None })
    }

    /// Entries after the count: read, or counted as lost. Stops at what is no entry.
    fn uncounted_entries(&mut self, keep: bool, job: &mut Job<'_>) -> Result<()> {
        let mut found = 0;
        loop {
            job.tick()?;
            let place = offset_place(self.source.path(), self.source.offset());
            let Some(entry) = self.next_entry()? else { break };
            if !entry.is_plausible(&self.sector) {
                break;
            }
            let whole = if keep {
                self.entry(entry, &place, job)?
            } else {
                let bytes = entry.data_bytes(self.sector_bytes).unwrap_or(u64::MAX);
                self.source.skip(bytes)? == bytes
            };
            if !whole {
                // Nothing vouches for it: an end in it is no cut of the log.
                break;
            }
            if !keep {
                let reason = "entries after the superblock's count (--uncounted reads them)";
                job.summary.lose(reason, || place);
            }
            found += 1;
        }
        if keep && found > 0 {
            let counted = counted(self.counted, "entry", "entries");
            let were = if found == 1 { "was" } else { "were" };
            job.summary.note(format!("the superblock counts {counted}; {found} more {were} read"));
        }
        Ok(())
    }

    /// Writes one entry's event; false when the log ends in its data.
    fn entry(&mut self, entry: Entry, place: &str, job: &mut Job<'_>) -> Result<bool> {
        let lost = || place.to_owned();
        if entry.flags & !LOG_FLAGS_KNOWN != 0 {
            job.summary.lose("unknown entry flag (the rest of the entry was read)", lost);
        }
        let Some(data_bytes) = entry.data_bytes(self.sector_bytes) else {
            job.summary.malformed("entry with an impossible length", lost);
            return Ok(false);
        };
        if entry.has(LOG_MARK_FLAG) {
            self.mark(entry, place, job)?;
            return self.skip_data(data_bytes, place, job);
        }
        let Some((op, len)) = self.operation(entry) else {
            job.summary.lose("entry with neither data nor a meaning", lost);
            return Ok(true);
        };
        let offset = entry.sector.saturating_mul(self.sector_bytes);
        let offset = if op.has_range() { offset } else { 0 };
        if !job.accepts(op, offset, len, lost) {
            return Ok(self.source.skip(data_bytes)? == data_bytes);
        }
        let Some(payload) = self.payload(data_bytes, job)? else { return Ok(false) };
        if entry.has(LOG_METADATA_FLAG) {
            job.not_recorded.remove(NotRecorded::HINTS);
        }
        job.issue(Request {
            time: Nanos(0),
            tag: job.counts().requests(),
            stream: self.stream,
            op,
            flags: flags(entry, op),
            offset,
            len,
            payload,
            cpu: None,
        })?;
        Ok(true)
    }

    /// What an entry that is no mark does, and over how many bytes.
    fn operation(&self, entry: Entry) -> Option<(BlockOp, u64)> {
        let len = entry.range_bytes(self.sector_bytes).unwrap_or(u64::MAX);
        if entry.has(LOG_DISCARD_FLAG) {
            Some((BlockOp::Discard, len))
        } else if len > 0 {
            Some((BlockOp::Write, len))
        } else if entry.has(LOG_FLUSH_FLAG) {
            Some((BlockOp::Flush, 0))
        } else {
            None
        }
    }

    fn mark(&self, entry: Entry, place: &str, job: &mut Job<'_>) -> Result<()> {
        let room = self.sector.get(ENTRY_BYTES..).unwrap_or_default();
        let len = usize::try_from(entry.data_len).unwrap_or(usize::MAX);
        let text = room.get(..len).unwrap_or_else(|| {
            job.summary.lose("mark text longer than its sector", || place.to_owned());
            room
        });
        job.mark(Nanos(0), self.stream, text)
    }

    fn skip_data(&mut self, bytes: u64, place: &str, job: &mut Job<'_>) -> Result<bool> {
        if bytes > 0 {
            job.summary.lose("data of a mark", || place.to_owned());
        }
        Ok(self.source.skip(bytes)? == bytes)
    }

    /// Stores the data that follows; `None` when the log ends in it.
    fn payload(&mut self, bytes: u64, job: &mut Job<'_>) -> Result<Option<PayloadRef>> {
        if bytes == 0 {
            return Ok(Some(PayloadRef::Absent));
        }
        if bytes <= PAYLOAD_PIECE_BYTES as u64 {
            self.data.resize(bytes as usize, 0);
            let whole = self.source.read_full(&mut self.data)? == self.data.len();
            return if whole { job.payload(&self.data).map(Some) } else { Ok(None) };
        }
        let before = self.source.offset();
        match job.payload_from(bytes, &mut self.source) {
            Ok(payload) => Ok(Some(payload)),
            Err(_) if self.ended_within(before, bytes)? => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the input is at its end, short of `bytes` after `before`.
    fn ended_within(&mut self, before: u64, bytes: u64) -> Result<bool> {
        let short = self.source.offset() - before < bytes;
        let mut byte = [0];
        Ok(short && self.source.by_ref().take(1).read(&mut byte).is_ok_and(|n| n == 0))
    }
}

fn flags(entry: Entry, op: BlockOp) -> OpFlags {
    let mut flags = OpFlags::empty();
    // A flush is its own flag; on a write the bit asks for a flush before it. The flush that
    // device-mapper splits from a PREFLUSH|FUA write keeps all bits, and has no data for FUA.
    let has_range = op.has_range();
    flags.set(OpFlags::PREFLUSH, entry.has(LOG_FLUSH_FLAG) && has_range);
    flags.set(OpFlags::FUA, entry.has(LOG_FUA_FLAG) && has_range);
    flags.set(OpFlags::META, entry.has(LOG_METADATA_FLAG));
    flags
}

#[cfg(test)]
mod tests;
