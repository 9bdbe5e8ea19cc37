//! Where the importer's events go: into a recording, with their own times.

use std::io::Read;
use std::sync::Arc;

use crate::base::{Error, Result};
use crate::import::job::Sink;
use crate::record::recording::{Bytes, Tap};
use crate::trace::{Event, PayloadRef, StreamId, StreamInfo, TraceHeader};

/// All events are of one device, and go to its tap.
pub struct RecordingSink {
    tap: Tap,
    /// The payload of the event that comes next.
    payload: Option<Bytes>,
    streams: u32,
}

impl RecordingSink {
    /// A sink that says everything to `tap`.
    pub fn new(tap: Tap) -> Self {
        Self { tap, payload: None, streams: 0 }
    }
}

impl Sink for RecordingSink {
    fn begin(&mut self, _header: TraceHeader) -> Result<()> {
        // The recording has its own.
        Ok(())
    }

    fn stream(&mut self, _info: StreamInfo) -> Result<StreamId> {
        self.streams += 1;
        Ok(StreamId(self.streams - 1))
    }

    fn payload(&mut self, data: &[u8]) -> Result<PayloadRef> {
        self.payload = Some(Arc::new(data.to_vec()));
        Ok(PayloadRef::Absent)
    }

    fn payload_from(&mut self, len: u64, _source: &mut dyn Read) -> Result<PayloadRef> {
        Err(Error::input(format!("the tracer has no data, and {len} bytes of it came")))
    }

    fn event(&mut self, event: &Event) -> Result<()> {
        let said = self.tap.event(*event, self.payload.take(), true);
        said.map_err(|stopped| Error::incomplete(stopped.to_string()))
    }
}
