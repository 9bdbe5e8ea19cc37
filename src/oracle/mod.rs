//! Whether the answers were right: a pure function of trace, run log and images.
//!
//! - [`extents`] (with [`runs`] and [`spill`]): which write last defined each sector;
//! - [`data`]: the bytes that such a version stands for; [`source`]: the trace as seen from here;
//! - [`overlap`]: requests in flight, and what their overlapping admits;
//! - [`read`]: reads against the model; [`image`]: the target against the model and an image;
//! - [`writers`]: the last writer of any place, without a run;
//! - [`classify`]: what wrong bytes look like; [`finding`], [`verdict`]: the outcome.

pub mod classify;
pub mod data;
pub mod extents;
pub mod finding;
pub mod image;
pub mod overlap;
pub mod ranges;
pub mod read;
pub mod runs;
pub mod source;
pub mod spill;
#[cfg(test)]
pub mod testing;
pub mod verdict;
pub mod version;
pub mod writers;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::{BlockOp, Result};
use crate::driver::BlockStatus;
use crate::trace::PayloadRef;
use data::Contents;
use extents::{ExtentMap, Piece};
pub use finding::{Fault, Finding, FindingKind};
use overlap::{Contested, Flight, InFlight};
pub use source::{Identity, Placed, Placement, TraceView};
pub use verdict::{Unverifiable, Verdict, Verify};
use version::{ContentKind, Version};

/// What the oracle is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OracleConfig {
    /// How much is checked.
    pub verify: Verify,
    /// Seed of the run's stamps.
    pub seed: u64,
    /// Memory of the model; what is beyond goes to a temporary file.
    pub memory_bytes: u64,
    /// The target was made for this run: what is never written reads as zeros.
    pub initially_zero: bool,
    /// Size of the target.
    pub target_bytes: u64,
    /// Requests may overlap others in flight.
    pub overlap: bool,
}

impl Default for OracleConfig {
    fn default() -> Self {
        Self {
            verify: Verify::Full,
            seed: 0,
            memory_bytes: 1 << 30,
            initially_zero: true,
            target_bytes: 0,
            overlap: false,
        }
    }
}

/// A request as it goes to the device: what it means, where, with which data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedRequest {
    /// Event number plus pass times the trace's events.
    pub write: u64,
    /// Event that issued it.
    pub event: u64,
    /// What it means.
    pub op: BlockOp,
    /// First sector on the target.
    pub sector: u64,
    /// Sectors.
    pub sectors: u64,
    /// Recorded data, if that is what is written; else a write is stamped.
    pub payload: PayloadRef,
    /// The event's length in bytes.
    pub payload_total: u64,
    /// Byte of the payload that stands at `sector`.
    pub payload_from: u64,
    /// Write-zeroes: may deallocate.
    pub unmap: bool,
}

impl PlannedRequest {
    /// First sector past its range.
    pub fn end(&self) -> u64 {
        self.sector.saturating_add(self.sectors)
    }

    /// Bytes of its range.
    pub fn bytes(&self) -> u64 {
        self.sectors.saturating_mul(crate::base::SECTOR_SIZE)
    }
}

/// Checks a run as it goes: tell it of each request at issue and at completion.
pub struct Oracle {
    config: OracleConfig,
    contents: Contents,
    model: ExtentMap,
    flight: Flight,
    contested: Contested,
    /// Why the content of a write is unspecified, where its operation does not say.
    reasons: HashMap<u64, Unverifiable>,
    verdict: Verdict,
    /// Findings about wrong data by what defined the sectors: the same damage is one finding.
    known: HashMap<Known, Option<usize>>,
    pieces: Vec<Piece>,
    /// The first read whose recording shows that the disk was not empty when it began.
    content_before: Option<u64>,
    stop: Option<Arc<AtomicBool>>,
}

/// What a data finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Known {
    /// Sectors that this write defined last.
    Write(u64),
    /// Sectors that nothing wrote, around this one.
    Unwritten(u64),
}

impl Oracle {
    /// An oracle for a run of `trace`.
    ///
    /// # Errors
    /// None today; setting up may fail in later versions.
    pub fn new(trace: Arc<dyn TraceView>, config: OracleConfig) -> Result<Self> {
        Ok(Self {
            contents: Contents::new(trace, Arc::new(Identity), config.seed),
            model: ExtentMap::new(config.memory_bytes),
            flight: Flight::default(),
            contested: Contested::default(),
            reasons: HashMap::new(),
            verdict: Verdict::new(config.verify),
            known: HashMap::new(),
            pieces: Vec::new(),
            content_before: None,
            stop: None,
            config,
        })
    }

    /// Tells it where requests lie on the target, when that is not where the trace says.
    #[must_use]
    pub fn with_placement(mut self, placement: Arc<dyn Placement>) -> Self {
        self.contents.set_placement(placement);
        self
    }

    /// Checks of whole images end early, without an error, once `stop` is set; the verdict then
    /// says how far they came.
    pub fn stop_when(&mut self, stop: Arc<AtomicBool>) {
        self.stop = Some(stop);
    }

    fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    /// Whether the data of reads is wanted.
    pub fn wants_data(&self) -> bool {
        self.config.verify != Verify::None
    }

    /// A request is about to be handed to the device. Tokens in flight are distinct.
    ///
    /// # Errors
    /// A write number that cannot be kept.
    pub fn issued(&mut self, token: u64, request: &PlannedRequest) -> Result<()> {
        let kind = match request.op {
            BlockOp::Write if request.payload == PayloadRef::Absent => Some(ContentKind::Stamp),
            BlockOp::Write => Some(ContentKind::Payload),
            BlockOp::WriteZeroes => Some(ContentKind::Zeros),
            BlockOp::Discard => Some(ContentKind::Unspecified),
            BlockOp::Read | BlockOp::Flush | BlockOp::GetId => None,
        };
        let version = match kind {
            Some(kind) if Flight::wanted(self.config.verify) => {
                Some(Version::new(request.write, kind)?)
            }
            _ => None,
        };
        self.flight.issued(token, *request, version, self.config.overlap && self.wants_data());
        Ok(())
    }

    /// A request was answered; `data` is what a read returned. What is wrong becomes a finding.
    ///
    /// # Errors
    /// Only when the oracle itself fails: its temporary file cannot be written, or a payload of the
    /// trace cannot be read.
    pub fn completed(
        &mut self,
        token: u64,
        status: BlockStatus,
        data: Option<&[u8]>,
    ) -> Result<()> {
        let Some(request) = self.flight.answered(token) else {
            self.verdict.add(Finding::new(
                FindingKind::ProtocolError,
                format!("an answer to a request that is not in flight (token {token})"),
            ));
            return Ok(());
        };
        if status != BlockStatus::Ok {
            let finding = read::status_finding(&mut self.contents, &request.request, status)?;
            self.verdict.add(finding);
        }
        self.settle(request, status == BlockStatus::Ok, data)
    }

    /// A request failed with an error status, as it had in the recording: no divergence.
    ///
    /// # Errors
    /// As [`Oracle::completed`].
    pub fn failed_as_recorded(&mut self, token: u64) -> Result<()> {
        self.verdict.failed_as_recorded += 1;
        match self.flight.answered(token) {
            Some(request) => self.settle(request, false, None),
            None => Ok(()),
        }
    }

    /// Adds a finding that the engine made: a device that hangs or breaks the ring.
    pub fn report(&mut self, finding: Finding) {
        self.verdict.add(finding);
    }

    /// Findings so far, further ones than are kept included.
    pub fn findings(&self) -> u64 {
        self.verdict.findings_total
    }

    /// The event of the first read that returned, when it was recorded, content that nothing in the
    /// trace wrote, and that was compared with the zeros of a new target instead.
    pub fn content_before(&self) -> Option<u64> {
        self.content_before
    }

    /// The verdict.
    pub fn finish(self) -> Verdict {
        self.verdict
    }

    fn settle(&mut self, request: InFlight, ok: bool, data: Option<&[u8]>) -> Result<()> {
        if !Flight::wanted(self.config.verify) {
            return Ok(());
        }
        match request.version {
            Some(version) => self.wrote(&request, if ok { version } else { version.unspecified() }),
            None if request.request.op == BlockOp::Read => self.check_read(&request, ok, data),
            None => Ok(()),
        }
    }

    /// A write takes effect.
    fn wrote(&mut self, request: &InFlight, version: Version) -> Result<()> {
        let (start, end) = (request.request.sector, request.request.end());
        if !self.config.overlap {
            return self.model.insert(start, end, version);
        }
        let mut old = std::mem::take(&mut self.pieces);
        self.model.lookup(start, end, &mut old)?;
        self.flight.keep_for_reads(&old);
        let others: Vec<Piece> = self.contested.within(start, end).collect();
        self.flight.keep_for_reads(&others);
        let raced = |piece: &&Piece| piece.version.is_some_and(|v| was_raced(&request.raced, v));
        let still: Vec<Piece> = old.iter().chain(&others).filter(raced).copied().collect();
        self.pieces = old;
        self.contested.clear(start, end);
        if !still.is_empty() && self.contested.is_full() {
            self.reasons.insert(version.write(), Unverifiable::Contested);
            return self.model.insert(start, end, version.unspecified());
        }
        self.contested.set(&still);
        self.model.insert(start, end, version)
    }

    /// After the run: writes without an answer may have landed or not.
    fn settle_unanswered(&mut self) -> Result<()> {
        for request in self.flight.drain() {
            if let Some(version) = request.version {
                self.reasons.insert(version.write(), Unverifiable::Unanswered);
                let (start, end) = (request.request.sector, request.request.end());
                self.contested.clear(start, end);
                self.model.insert(start, end, version.unspecified())?;
            }
        }
        Ok(())
    }

    /// Why the content that `version` left cannot be known.
    fn reason(&mut self, version: Version) -> Result<Unverifiable> {
        if let Some(reason) = self.reasons.get(&version.write()) {
            return Ok(*reason);
        }
        let issue = self.contents.issue(version.write())?;
        Ok(match issue {
            Some((issue, _)) if issue.op == BlockOp::Discard => Unverifiable::Discarded,
            _ => Unverifiable::FailedWrite,
        })
    }
}

/// Whether `version` is one of `raced`, even if it failed in the meantime.
fn was_raced(raced: &[Version], version: Version) -> bool {
    raced.iter().any(|v| v.write() == version.write())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
