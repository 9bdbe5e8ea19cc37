//! Traces: the event vocabulary and the `.qtrace` container.
//!
//! - [`event`]: what a trace can say, in memory;
//! - `format`: the byte-level specification of the container, nothing else;
//! - `writer`, `reader`: the two ends of it; `index`: seek and recovery; `payload`: written bytes.

pub mod event;

pub use event::{
    Complete, Event, Issue, Mark, NotRecorded, PayloadRef, StreamId, StreamInfo, TraceHeader,
    TraceSummary,
};
