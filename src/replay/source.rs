//! Where the engine takes its events from: a trace, or a list in a test.

use crate::base::Result;
use crate::trace::{Event, PayloadRef};

/// A replayable sequence of events with their data.
pub trait Source {
    /// Events in the whole trace: the stride of write numbers from one loop to the next.
    fn events(&self) -> u64;
    /// The next event and its number.
    fn next(&mut self) -> Result<Option<(u64, Event)>>;
    /// Makes `event` the next one.
    fn seek(&mut self, event: u64);
    /// Fills `buf` with the bytes from `from` on of an event's data, `total` bytes in all.
    fn payload(&self, payload: PayloadRef, total: u64, from: u64, buf: &mut [u8]) -> Result<()>;
    /// The status that the recording has for the request issued at `event`, if it has one.
    /// Asked only after the device failed that request: it may read ahead.
    fn recorded_status(&self, event: u64) -> Result<Option<u16>>;
}
