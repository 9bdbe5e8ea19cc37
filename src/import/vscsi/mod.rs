//! CloudPhysics vscsiStats traces, versions 1 and 2: fixed records, little endian, no header.
//!
//! ```text
//! v1, 32 bytes: u32 sn, u32 len, u32 nSG, u16 cmd, u16 ver, u64 lbn, u64 ts
//! v2, 40 bytes: u16 cmd, u16 ver, u32 sn, u32 len, u32 nSG, u64 lbn, u64 ts, u64 rt
//! ```
//!
//! The version is `ver >> 8`. `lbn` counts 512 bytes, `len` bytes, `ts` microseconds since the host
//! started. `cmd` is the SCSI operation code (SPC-4 and SBC-3). `rt` has no documentation: by its
//! name it is the response time, in the microseconds of `ts`; one of more than ten minutes is none.
//!
//! There is also a CSV rendering of version 1, `version,time,op,size,lbn` with a header, whose
//! time is in whole seconds (libCacheSim's file) or in microseconds (mimircache's) and whose op is
//! the code in hexadecimal; it is imported as `vscsi-csv`.
//!
//! Source: Waldspurger et al., Efficient MRC Construction with SHARDS, FAST 2015; the readers in
//! libCacheSim and mimircache.

mod csv;
#[cfg(test)]
mod tests;

pub use self::csv::VscsiCsv;

use super::ImportOptions;
use super::dataset::binary::{RecordFormat, RecordRows};
use super::dataset::clock::{Clock, Epoch, TimeUnit};
use super::dataset::text::{NOT_A_NUMBER, Parsed, Skip};
use super::dataset::{About, DataSet, lacks};
use super::job::Job;
use super::registry::Confidence;
use super::source::Source;
use crate::base::{BlockOp, Error, Result, SECTOR_SIZE};
use crate::trace::NotRecorded;

/// The version of a trace's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

/// One record.
#[derive(Clone, Copy, Debug)]
struct Record {
    version: u16,
    command: u8,
    len: u64,
    lbn: u64,
    ts: u64,
    response: Option<u64>,
}

impl Version {
    fn record_bytes(self) -> usize {
        match self {
            Self::V1 => 32,
            Self::V2 => 40,
        }
    }

    fn number(self) -> u16 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }

    /// The record in `bytes`, which must be [`Version::record_bytes`] long.
    fn record(self, bytes: &[u8]) -> Option<Record> {
        let u16_at = |at: usize| Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let u32_at = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let u64_at = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let (command, version, len, lbn, ts, response) = match self {
            Self::V1 => (u16_at(12)?, u16_at(14)?, u32_at(4)?, u64_at(16)?, u64_at(24)?, None),
            Self::V2 => {
                let response = Some(u64_at(32)?);
                (u16_at(0)?, u16_at(2)?, u32_at(8)?, u64_at(16)?, u64_at(24)?, response)
            }
        };
        let command = command as u8;
        Some(Record { version: version >> 8, command, len: len.into(), lbn, ts, response })
    }

    /// The version that every record at the start of `head` has.
    fn of(head: &[u8]) -> Option<Self> {
        [Self::V1, Self::V2].into_iter().find(|version| {
            let mut records = head.chunks_exact(version.record_bytes()).take(PROBE_RECORDS);
            let fits = |bytes: &[u8]| {
                version.record(bytes).is_some_and(|record| {
                    record.version == version.number() && record.lbn < LBN_MAX
                })
            };
            head.len() >= version.record_bytes() && records.all(fits)
        })
    }
}

/// Records that a probe looks at.
const PROBE_RECORDS: usize = 32;
/// No disk of a virtual machine has more blocks (2^48 × 512 bytes).
const LBN_MAX: u64 = 1 << 48;
/// What is more than this is no response time: ten minutes.
const RESPONSE_US_MAX: u64 = 600_000_000;

/// What a SCSI command asks for.
///
/// # Errors
/// Says why it can be no request.
fn operation(command: u8) -> Result<BlockOp, Skip> {
    match command {
        0x08 | 0x28 | 0xa8 | 0x88 => Ok(BlockOp::Read),
        // WRITE, and WRITE AND VERIFY.
        0x0a | 0x2a | 0xaa | 0x8a | 0x2e | 0xae | 0x8e => Ok(BlockOp::Write),
        0x35 | 0x91 => Ok(BlockOp::Flush),
        0x42 => Err(Skip::Lost("UNMAP: its ranges are in data that was not recorded")),
        0x41 | 0x93 => Err(Skip::Lost("WRITE SAME: its number of blocks was not recorded")),
        _ => Err(Skip::Lost("a SCSI command that neither reads nor writes blocks")),
    }
}

/// The importer of the binary format.
pub struct Vscsi;

impl DataSet for Vscsi {
    type Input = RecordRows<Version>;

    fn about(&self) -> About {
        About {
            lacks: lacks() - NotRecorded::FLUSHES,
            interpretation: &["lbn: units of 512 bytes; len: bytes"],
            ..About::of("vscsi", "CloudPhysics vscsi traces, binary, versions 1 and 2")
        }
    }

    fn clock(&self, told: Option<TimeUnit>) -> Clock {
        Clock::new(Epoch::Start, TimeUnit::Us, told)
    }

    fn looks_like(&self, head: &[u8]) -> Option<Confidence> {
        Version::of(head).map(|_| Confidence::Likely)
    }

    fn inputs(
        &self,
        sources: Vec<Source>,
        _options: &ImportOptions,
        job: &mut Job<'_>,
    ) -> Result<Vec<Self::Input>> {
        let several = sources.len() > 1;
        let mut inputs = Vec::with_capacity(sources.len());
        for mut source in sources {
            let head = source.head()?;
            let version = Version::of(&head).ok_or_else(|| {
                Error::input("no records of vscsi version 1 or 2 at its start").path(source.path())
            })?;
            job.interpret(format!("records: version {}", version.number()));
            if version == Version::V2 {
                job.interpret("rt: response time in us (by its name; it is not documented)");
            }
            inputs.push(RecordRows::new(source, version, several));
        }
        Ok(inputs)
    }
}

impl RecordFormat for Version {
    fn record_bytes(&self) -> usize {
        (*self).record_bytes()
    }

    fn parse(&mut self, bytes: &[u8], clock: &mut Clock) -> Result<Parsed<'static>, Skip> {
        let record = self.record(bytes).ok_or(Skip::Malformed("short record"))?;
        if record.version != self.number() {
            return Err(Skip::Malformed("record of another version"));
        }
        let op = operation(record.command)?;
        let time = clock.read_ticks(record.ts).ok_or(NOT_A_NUMBER)?;
        let range = |value: u64| if op.has_range() { value } else { 0 };
        let offset = record.lbn.checked_mul(SECTOR_SIZE).ok_or(NOT_A_NUMBER)?;
        let response = record.response.filter(|us| *us <= RESPONSE_US_MAX);
        let latency = response.map(|us| us * TimeUnit::Us.nanos());
        Ok(Parsed { latency, ..Parsed::request(time, op, range(offset), range(record.len)) })
    }
}
