//! The debug console of virtual machines: what is written to port 402h is a log, and a read tells
//! firmware that somebody listens. It has no state besides what was said, so there is no chip.

mod glue;

pub use glue::DebugCon;

/// What a read answers: "a console is here" (the port E9h convention that the device grew from).
pub const READBACK: u8 = 0xe9;
