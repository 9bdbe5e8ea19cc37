//! What the oracle needs of a trace: random access to events and payloads, and where an event's
//! range lies on the target.

use crate::base::{Result, SECTOR_SIZE};
use crate::trace::{Complete, Event, Issue, NotRecorded, PayloadRef, Trace};

/// A trace as the oracle reads it; [`crate::trace`]'s reader, or a list in a test.
pub trait TraceView: Send + Sync {
    /// Number of events: the stride of write numbers from one loop to the next.
    fn events(&self) -> u64;
    /// One event.
    fn event(&self, number: u64) -> Result<Event>;
    /// Whether completions may carry the data that reads returned. Where none does, nothing is
    /// looked for: the search below would go through thousands of events for each read.
    fn records_read_data(&self) -> bool {
        true
    }
    /// Fills `buf` with a payload's bytes from `from` on; `total` is its whole length.
    fn read_payload(
        &self,
        payload: PayloadRef,
        total: u64,
        from: u64,
        buf: &mut [u8],
    ) -> Result<()>;
}

impl TraceView for Trace {
    fn events(&self) -> u64 {
        self.events()
    }

    fn event(&self, number: u64) -> Result<Event> {
        self.event(number)
    }

    fn records_read_data(&self) -> bool {
        !self.summary().not_recorded.contains(NotRecorded::READ_DATA)
    }

    fn read_payload(
        &self,
        payload: PayloadRef,
        total: u64,
        from: u64,
        buf: &mut [u8],
    ) -> Result<()> {
        self.read_payload(payload, total, from, buf)
    }
}

/// Events read ahead for a completion; far more than any device holds in flight.
const COMPLETION_SCAN_EVENTS_MAX: u64 = 1 << 16;

/// The completion of the request issued at `event`, where the trace has one.
pub fn completion_of(trace: &dyn TraceView, event: u64) -> Result<Option<Complete>> {
    let Event::Issue(issue) = trace.event(event)? else { return Ok(None) };
    let end = trace.events().min(event.saturating_add(COMPLETION_SCAN_EVENTS_MAX));
    for number in event + 1..end {
        match trace.event(number)? {
            Event::Complete(c) if c.tag == issue.tag && c.stream == issue.stream => {
                return Ok(Some(c));
            }
            // The tag was used again: the completion was lost.
            Event::Issue(i) if i.tag == issue.tag && i.stream == issue.stream => break,
            _ => {}
        }
    }
    Ok(None)
}

/// The range of the target that an event's request covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// First sector on the target.
    pub sector: u64,
    /// Sectors.
    pub sectors: u64,
    /// Byte of the event's payload that stands at `sector`.
    pub payload_from: u64,
}

impl Placed {
    /// First sector past it.
    pub fn end(&self) -> u64 {
        self.sector.saturating_add(self.sectors)
    }

    /// Whether it holds `sector`.
    pub fn contains(&self, sector: u64) -> bool {
        (self.sector..self.end()).contains(&sector)
    }

    /// Byte of the payload that stands at `sector`, which it must hold.
    pub fn payload_at(&self, sector: u64) -> u64 {
        self.payload_from + sector.saturating_sub(self.sector) * SECTOR_SIZE
    }
}

/// Where requests of the trace lie on the target. Whoever moves them (`offset=wrap`) gives the
/// oracle the same rule, so that it need not be stored for each sector.
pub trait Placement: Send + Sync {
    /// The range on the target; `None` when the request is not replayed.
    fn place(&self, issue: &Issue) -> Option<Placed>;
}

/// Everything lies where the trace says; partial sectors grow to whole ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity;

impl Placement for Identity {
    fn place(&self, issue: &Issue) -> Option<Placed> {
        let sector = issue.offset / SECTOR_SIZE;
        let end = issue.offset.saturating_add(issue.len).div_ceil(SECTOR_SIZE);
        (end > sector).then(|| Placed { sector, sectors: end - sector, payload_from: 0 })
    }
}
