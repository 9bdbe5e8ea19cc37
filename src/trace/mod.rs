//! Traces: the event vocabulary and the `.qtrace` container.
//!
//! - [`event`] and [`bus_event`]: what a trace can say, in memory;
//! - [`format`](mod@format): the byte-level specification of the container, nothing else; `record`:
//!   events as its records;
//! - [`writer`] (with `sink`, the file, `behind`, a thread that writes it, and `dedup` and
//!   `packing`, payloads on their way in) and [`reader`] (with `map`, [`cursor`], `payload`): the two ends of it;
//! - [`index`]: seek; `scan`: recovery of a trace whose end is lost;
//! - [`filter`]: which events are meant; [`in_flight`]: requests until they are answered;
//!   [`joined`]: requests with their answers.

mod behind;
pub mod bus_event;
pub mod cursor;
mod dedup;
pub mod event;
pub mod filter;
pub mod format;
pub mod in_flight;
pub mod index;
pub mod joined;
mod map;
mod packing;
mod payload;
pub mod reader;
mod record;
mod scan;
mod sink;
#[cfg(test)]
mod tests;
pub mod writer;

pub use bus_event::{AckEvent, BusEvent, BusTotals, ClockStep, IrqChange, MemoryEvent, MemoryOp};
pub use cursor::Cursor;
pub use event::{
    Complete, Event, Issue, Loss, Mark, NotRecorded, PayloadRef, StreamId, StreamInfo,
    StreamTotals, TraceHeader, TraceSummary,
};
pub use filter::{Chooser, Filter, Kinds, Span};
pub use format::PAYLOAD_BYTES_MAX;
pub use in_flight::InFlight;
pub use index::PayloadTotals;
pub use joined::{Item, Joined};
pub use reader::{Trace, Truncation};
pub use sink::is_being_written;
pub use writer::{LiveOptions, TraceWriter};
