//! A trace file as the engine's source of events.

use std::sync::Arc;

use super::source::Source;
use crate::base::Result;
use crate::oracle::source::completion_of;
use crate::trace::{Cursor, Event, PayloadRef, Trace};

/// Streams a trace, as often as it is sought back.
pub struct TraceSource {
    trace: Arc<Trace>,
    cursor: Cursor<'static>,
}

impl TraceSource {
    /// A source that begins with the trace's first event.
    pub fn new(trace: Arc<Trace>) -> Self {
        let cursor = Trace::shared_cursor(&trace, 0);
        Self { trace, cursor }
    }
}

impl Source for TraceSource {
    fn events(&self) -> u64 {
        self.trace.events()
    }

    fn next(&mut self) -> Result<Option<(u64, Event)>> {
        self.cursor.next()
    }

    fn seek(&mut self, event: u64) {
        self.cursor = Trace::shared_cursor(&self.trace, event);
    }

    fn payload(&self, payload: PayloadRef, total: u64, from: u64, buf: &mut [u8]) -> Result<()> {
        self.trace.read_payload(payload, total, from, buf)
    }

    fn recorded_status(&self, event: u64) -> Result<Option<u16>> {
        Ok(completion_of(&*self.trace, event)?.map(|complete| complete.status))
    }
}
