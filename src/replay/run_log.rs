//! The run log: one record for each answered device request, in the order the answers were seen.
//!
//! Under a virtual clock the same trace gives the same bytes, always; its SHA-256 stands in the
//! report whether or not a file is written. Little endian throughout:
//!
//! | header bytes | what |
//! |---|---|
//! | 0..8   | magic `QTRUNLOG` |
//! | 8..12  | version, 1 |
//! | 12..16 | bytes in a record, 56 |
//!
//! | record bytes | what |
//! |---|---|
//! | 0..8   | event of the trace |
//! | 8..16  | write number: event + loop × events of the trace |
//! | 16..24 | first sector on the target |
//! | 24..32 | issued, nanoseconds of the run's clock |
//! | 32..40 | answer seen, nanoseconds of the run's clock |
//! | 40..48 | XXH3-64 of the data a read returned; 0 when it was not looked at |
//! | 48..52 | sectors (saturating) |
//! | 52     | operation, as in a trace |
//! | 53     | part: 0 the request itself, 1 flush before it, 2 flush after it |
//! | 54     | virtio status byte |
//! | 55     | 0 |

use std::path::Path;

use sha2::{Digest, Sha256};

use super::output::{Output, OutputKind};
use crate::base::{Nanos, Result};
use crate::driver::BlockStatus;
use crate::oracle::PlannedRequest;

/// First bytes of a run log.
pub const RUN_LOG_MAGIC: [u8; 8] = *b"QTRUNLOG";
/// The version written.
pub const RUN_LOG_VERSION: u32 = 1;
/// Bytes in the header.
pub const RUN_LOG_HEADER_BYTES: usize = 16;
/// Bytes in a record.
pub const RUN_LOG_RECORD_BYTES: usize = 56;

/// Hashed and written this many bytes at a time: the hash runs at full speed, in the cache.
const BLOCK_BYTES: usize = 64 << 10;

/// Which part of a request of the trace a device request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Part {
    /// The request itself, or a piece of it.
    Body = 0,
    /// The flush before it that PREFLUSH stands for.
    FlushBefore = 1,
    /// The flush after it that FUA stands for.
    FlushAfter = 2,
}

/// An answered device request.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// What was asked.
    pub request: &'a PlannedRequest,
    /// Which part of the trace's request it was.
    pub part: Part,
    /// When it was issued.
    pub issue: Nanos,
    /// When its answer was seen.
    pub complete: Nanos,
    /// The answer.
    pub status: BlockStatus,
    /// XXH3-64 of the data read; 0 when not looked at.
    pub digest: u64,
}

/// Collects records, hashes them, and writes them to a file when one is wanted.
pub struct RunLog {
    buffer: Vec<u8>,
    hash: Sha256,
    file: Option<Output>,
    records: u64,
}

impl RunLog {
    /// A log that ends up at `path`, or nowhere.
    ///
    /// # Errors
    /// Those of [`Output::create`].
    pub fn create(path: Option<&Path>) -> Result<Self> {
        let file = path.map(|path| Output::create(OutputKind::RunLog, path)).transpose()?;
        let mut buffer = Vec::with_capacity(BLOCK_BYTES + RUN_LOG_RECORD_BYTES);
        buffer.extend_from_slice(&RUN_LOG_MAGIC);
        buffer.extend_from_slice(&RUN_LOG_VERSION.to_le_bytes());
        buffer.extend_from_slice(&(RUN_LOG_RECORD_BYTES as u32).to_le_bytes());
        Ok(Self { buffer, hash: Sha256::new(), file, records: 0 })
    }

    /// Adds a record.
    ///
    /// # Errors
    /// An incomplete error when the file cannot be written.
    pub fn push(&mut self, record: &Record<'_>) -> Result<()> {
        self.buffer.extend_from_slice(&encode(record));
        self.records += 1;
        if self.buffer.len() >= BLOCK_BYTES { self.drain() } else { Ok(()) }
    }

    fn drain(&mut self) -> Result<()> {
        self.hash.update(&self.buffer);
        if let Some(file) = &mut self.file {
            file.write(&self.buffer)?;
        }
        self.buffer.clear();
        Ok(())
    }

    /// Records so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The log's SHA-256; its file, if any, appears under its name.
    ///
    /// # Errors
    /// An incomplete error when the file cannot be written.
    pub fn finish(mut self) -> Result<[u8; 32]> {
        self.drain()?;
        if let Some(file) = self.file.take() {
            file.finish()?;
        }
        Ok(self.hash.finalize().into())
    }
}

/// The status byte as virtio has it; a used length that cannot be right is marked 0xfe.
fn status_byte(status: BlockStatus) -> u8 {
    match status {
        BlockStatus::Ok => 0,
        BlockStatus::IoErr => 1,
        BlockStatus::Unsupported => 2,
        BlockStatus::Bad(byte) => byte,
        BlockStatus::BadLength(_) => 0xfe,
    }
}

fn encode(record: &Record<'_>) -> [u8; RUN_LOG_RECORD_BYTES] {
    let request = record.request;
    let words = [
        request.event,
        request.write,
        request.sector,
        record.issue.0,
        record.complete.0,
        record.digest,
    ];
    let mut bytes = [0; RUN_LOG_RECORD_BYTES];
    let (head, tail) = bytes.split_at_mut(48);
    for (slot, word) in head.chunks_exact_mut(8).zip(words) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    let sectors = u32::try_from(request.sectors).unwrap_or(u32::MAX).to_le_bytes();
    let last = [request.op as u8, record.part as u8, status_byte(record.status), 0];
    let (count, rest) = tail.split_at_mut(4);
    count.copy_from_slice(&sectors);
    rest.copy_from_slice(&last);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::BlockOp;
    use crate::trace::PayloadRef;

    fn request(event: u64) -> PlannedRequest {
        PlannedRequest {
            write: event + 1000,
            event,
            op: BlockOp::Write,
            sector: 0x1122,
            sectors: 8,
            payload: PayloadRef::Absent,
            payload_total: 4096,
            payload_from: 0,
            unmap: false,
        }
    }

    fn record(request: &PlannedRequest) -> Record<'_> {
        let (issue, complete) = (Nanos(5), Nanos(9));
        Record {
            request,
            part: Part::FlushAfter,
            issue,
            complete,
            status: BlockStatus::Unsupported,
            digest: 77,
        }
    }

    #[test]
    fn a_record_is_laid_out_as_documented() {
        let request = request(3);
        let bytes = encode(&record(&request));
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!(
            [word(0), word(8), word(16), word(24), word(32), word(40)],
            [3, 1003, 0x1122, 5, 9, 77]
        );
        assert_eq!(bytes[48..], [8, 0, 0, 0, 2, 2, 2, 0]);
    }

    #[test]
    fn the_digest_is_of_the_file_and_needs_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.log");
        let (mut with, mut without) =
            (RunLog::create(Some(&path)).unwrap(), RunLog::create(None).unwrap());
        for event in 0..5000 {
            let request = request(event);
            with.push(&record(&request)).unwrap();
            without.push(&record(&request)).unwrap();
        }
        assert!(!path.exists());
        let digest = with.finish().unwrap();
        assert_eq!(digest, without.finish().unwrap());
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), RUN_LOG_HEADER_BYTES + 5000 * RUN_LOG_RECORD_BYTES);
        assert_eq!(bytes[..8], RUN_LOG_MAGIC);
        let expected: [u8; 32] = Sha256::digest(&bytes).into();
        assert_eq!(digest, expected);
    }
}
