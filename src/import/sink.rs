//! Where the events of an import go.

use std::io::Read;

use crate::base::{Nanos, Result};
use crate::trace::{Complete, Event, Issue, PayloadRef, StreamId, StreamInfo, TraceHeader};

/// Where events go. Nothing may come to exist before [`Sink::begin`].
pub trait Sink {
    /// The header; called once, before anything else.
    fn begin(&mut self, header: TraceHeader) -> Result<()>;
    /// A stream; ids are dense from 0.
    fn stream(&mut self, info: StreamInfo) -> Result<StreamId>;
    /// Stores data that is in memory.
    fn payload(&mut self, data: &[u8]) -> Result<PayloadRef>;
    /// Stores `len` bytes of `source`, streaming; a short source is an Input error.
    fn payload_from(&mut self, len: u64, source: &mut dyn Read) -> Result<PayloadRef>;
    /// An event.
    fn event(&mut self, event: &Event) -> Result<()>;
    /// An event whose time may be before that of events already given: a sink that can puts it
    /// where it belongs.
    fn event_anywhere(&mut self, event: &Event) -> Result<()> {
        self.event(event)
    }
    /// The same of an issue.
    fn issue_anywhere(&mut self, issue: &Issue) -> Result<()> {
        self.event_anywhere(&Event::Issue(*issue))
    }
    /// The same of a completion.
    fn complete_anywhere(&mut self, complete: &Complete) -> Result<()> {
        self.event_anywhere(&Event::Complete(*complete))
    }
    /// Events to come count from `by` nanoseconds before those given so far, and may stand before
    /// them. A sink that keeps events moves those that it has; only what an importer has said it
    /// may give out of order ([`Job::put_in_order`](super::job::Job::put_in_order)) comes with this.
    fn earlier_origin(&mut self, _by: Nanos) -> Result<()> {
        Ok(())
    }
}
