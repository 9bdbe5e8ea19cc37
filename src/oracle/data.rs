//! The bytes that a version of a sector stands for.

use std::sync::Arc;

use super::source::{Placed, Placement, TraceView};
use super::version::{ContentKind, Version};
use crate::base::error::Place;
use crate::base::{Error, Result, SECTOR_SIZE, stamp};
use crate::trace::{Event, Issue};

/// A sector as bytes.
pub type SectorBytes = [u8; SECTOR_SIZE as usize];

/// Payload bytes fetched at once.
const PAYLOAD_CHUNK_BYTES: usize = 64 << 10;

/// Issues remembered, direct-mapped by event.
const ISSUES_CACHED: usize = 256;

/// Gives expected bytes. Allocates nothing per request.
pub struct Contents {
    trace: Arc<dyn TraceView>,
    placement: Arc<dyn Placement>,
    seed: u64,
    events: u64,
    issues: Vec<Option<(u64, Issue, Placed)>>,
    buf: Vec<u8>,
}

impl Contents {
    /// For a run of `trace` with this seed.
    pub fn new(trace: Arc<dyn TraceView>, placement: Arc<dyn Placement>, seed: u64) -> Self {
        let events = trace.events().max(1);
        Self { trace, placement, seed, events, issues: vec![None; ISSUES_CACHED], buf: Vec::new() }
    }

    /// Replaces the placement.
    pub fn set_placement(&mut self, placement: Arc<dyn Placement>) {
        self.placement = placement;
        self.issues.fill(None);
    }

    /// The trace.
    pub fn trace(&self) -> &Arc<dyn TraceView> {
        &self.trace
    }

    /// Seed of the run's stamps.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Event and pass of a write number.
    pub fn event_of(&self, write: u64) -> (u64, u64) {
        (write % self.events, write / self.events)
    }

    /// The issue that a write number stands for, and where it lies on the target; `None` when that
    /// event is not an issue with a range on the target.
    pub fn issue(&mut self, write: u64) -> Result<Option<(Issue, Placed)>> {
        let (event, _) = self.event_of(write);
        let slot = event as usize % ISSUES_CACHED;
        if let Some(Some((number, issue, placed))) = self.issues.get(slot)
            && *number == event
        {
            return Ok(Some((*issue, *placed)));
        }
        let Event::Issue(issue) = self.trace.event(event)? else { return Ok(None) };
        let Some(placed) = self.placement.place(&issue) else { return Ok(None) };
        if let Some(entry) = self.issues.get_mut(slot) {
            *entry = Some((event, issue, placed));
        }
        Ok(Some((issue, placed)))
    }

    /// Fills `out`, whole sectors, with what `version` defined from `sector` on. `false` when that
    /// is unspecified.
    pub fn fill(&mut self, version: Version, sector: u64, out: &mut [u8]) -> Result<bool> {
        match version.kind() {
            ContentKind::Unspecified => return Ok(false),
            ContentKind::Zeros => out.fill(0),
            ContentKind::Stamp => stamp::fill(out, self.seed, sector, version.write()),
            ContentKind::Payload => self.fill_payload(version.write(), sector, out)?,
        }
        Ok(true)
    }

    fn fill_payload(&mut self, write: u64, sector: u64, out: &mut [u8]) -> Result<()> {
        let (event, _) = self.event_of(write);
        let found = self.issue(write)?.filter(|(_, placed)| placed.contains(sector));
        let Some((issue, placed)) = found else {
            return Err(Error::incomplete("a write that the plan places elsewhere")
                .at(Place::Event(event))
                .at(Place::Offset(sector.saturating_mul(SECTOR_SIZE))));
        };
        let from = placed.payload_at(sector);
        // Past a payload that ends within a sector stands nothing.
        let stored = out.len().min(usize::try_from(issue.len.saturating_sub(from)).unwrap_or(0));
        let (data, rest) = out.split_at_mut(stored);
        rest.fill(0);
        self.trace
            .read_payload(issue.payload, issue.len, from, data)
            .map_err(|e| e.at(Place::Event(event)))
    }

    /// Whether `got`, whole sectors, is what `version` defined from `sector` on; `None` when that
    /// is unspecified.
    pub fn equals(&mut self, version: Version, sector: u64, got: &[u8]) -> Result<Option<bool>> {
        match version.kind() {
            ContentKind::Unspecified => Ok(None),
            ContentKind::Zeros => Ok(Some(is_zero(got))),
            ContentKind::Stamp => Ok(Some(self.equals_stamp(version.write(), sector, got))),
            ContentKind::Payload => {
                let mut buf = std::mem::take(&mut self.buf);
                let same = self.equals_payload(version.write(), sector, got, &mut buf);
                self.buf = buf;
                same.map(Some)
            }
        }
    }

    fn equals_stamp(&self, write: u64, sector: u64, got: &[u8]) -> bool {
        let mut expected: SectorBytes = [0; SECTOR_SIZE as usize];
        (sector..).zip(got.chunks(SECTOR_SIZE as usize)).all(|(sector, got)| {
            let stamp = stamp::Stamp { seed: self.seed, sector, write };
            stamp::write_sector(&mut expected, stamp);
            got == expected
        })
    }

    fn equals_payload(
        &mut self,
        write: u64,
        mut sector: u64,
        got: &[u8],
        buf: &mut Vec<u8>,
    ) -> Result<bool> {
        buf.resize(PAYLOAD_CHUNK_BYTES, 0);
        for got in got.chunks(PAYLOAD_CHUNK_BYTES) {
            let expected = buf.get_mut(..got.len()).unwrap_or_default();
            self.fill_payload(write, sector, expected)?;
            if got != expected {
                return Ok(false);
            }
            sector += got.len() as u64 / SECTOR_SIZE;
        }
        Ok(true)
    }
}

/// Whether all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    static ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|chunk| chunk == &ZEROS[..chunk.len()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::TestTrace;

    #[test]
    fn each_kind_has_its_bytes() {
        let mut trace = TestTrace::new();
        let event = trace.write(1024, &[7; 2048]);
        let mut contents = trace.contents(9);
        let payload = Version::new(event, ContentKind::Payload).unwrap();
        let mut sector: SectorBytes = [1; 512];
        assert!(contents.fill(payload, 3, &mut sector).unwrap());
        assert_eq!(sector, [7; 512]);
        assert_eq!(contents.equals(payload, 2, &[7; 2048]).unwrap(), Some(true));
        assert_eq!(contents.equals(payload, 2, &[8; 512]).unwrap(), Some(false));
        let stamp = Version::new(event, ContentKind::Stamp).unwrap();
        let mut two = [0; 1024];
        assert!(contents.fill(stamp, 2, &mut two).unwrap());
        assert_eq!(contents.equals(stamp, 2, &two).unwrap(), Some(true));
        assert_eq!(contents.equals(stamp, 3, &two).unwrap(), Some(false));
        let zeros = Version::new(event, ContentKind::Zeros).unwrap();
        assert_eq!(contents.equals(zeros, 2, &[0; 5120]).unwrap(), Some(true));
        assert_eq!(contents.equals(zeros.unspecified(), 2, &[0; 512]).unwrap(), None);
    }

    #[test]
    fn a_sector_outside_the_write_is_an_error_not_a_guess() {
        let mut trace = TestTrace::new();
        let event = trace.write(0, &[7; 512]);
        let mut contents = trace.contents(9);
        let payload = Version::new(event, ContentKind::Payload).unwrap();
        assert!(contents.fill(payload, 1, &mut [0; 512]).is_err());
    }

    #[test]
    fn a_later_pass_has_the_same_payload_and_another_stamp() {
        let mut trace = TestTrace::new();
        let event = trace.write(0, &[7; 512]);
        let mut contents = trace.contents(9);
        let events = contents.trace().events();
        let again = Version::new(event + events, ContentKind::Payload).unwrap();
        assert_eq!(contents.equals(again, 0, &[7; 512]).unwrap(), Some(true));
        assert_eq!(contents.event_of(event + events), (event, 1));
    }
}
