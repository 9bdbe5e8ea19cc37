//! What goes into the engine and what comes out of it.

use crate::base::{BlockOp, Nanos, Result};
use crate::driver::BlockStatus;
use crate::oracle::PlannedRequest;
use crate::replay::plan::Job;
use crate::replay::policy::{OverlapPolicy, Window};
use crate::replay::run_log::Part;

/// An answered device request, as the accounts see it.
pub struct Answer<'a> {
    /// The token it was announced with.
    pub token: u64,
    /// What was asked.
    pub request: &'a PlannedRequest,
    /// Which part of the trace's request.
    pub part: Part,
    /// The device's answer.
    pub status: BlockStatus,
    /// The recording failed this request too.
    pub failed_in_recording: bool,
    /// When it was issued.
    pub issue: Nanos,
    /// When its answer was seen.
    pub complete: Nanos,
    /// What a read returned, where the accounts want data.
    pub data: Option<&'a [u8]>,
}

/// A request of the trace that was carried out, with all its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// The trace's operation.
    pub op: BlockOp,
    /// Bytes of its range.
    pub bytes: u64,
    /// Whether every part was answered with success.
    pub ok: bool,
    /// When its first part was issued.
    pub issue: Nanos,
    /// When its last answer was seen.
    pub complete: Nanos,
    /// When it was due, if pacing is timed.
    pub due: Option<Nanos>,
}

/// Who keeps the accounts of a run: oracle, statistics, run log.
pub trait Accounts {
    /// Whether [`Answer::data`] is wanted for reads.
    fn wants_data(&self) -> bool;
    /// A device request is about to be issued.
    fn issued(&mut self, token: u64, request: &PlannedRequest) -> Result<()>;
    /// It was answered.
    fn answered(&mut self, answer: &Answer<'_>) -> Result<()>;
    /// A request of the trace is done.
    fn done(&mut self, done: &Done);
    /// The recording's own latency of a request.
    fn recorded(&mut self, op: BlockOp, latency_ns: u64);
    /// A completion in the recording carries an error status.
    fn recorded_error(&mut self, status: u16);
    /// Now and then: this many events of all loops have been taken.
    fn progress(&mut self, events: u64);
}

/// What the engine is told to do.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// Device requests in flight at most.
    pub iodepth: usize,
    /// What happens to requests that overlap one in flight.
    pub overlap: OverlapPolicy,
    /// Which events take part.
    pub window: Window,
    /// First event of the window, where it is known to begin later than 0.
    pub first_event: u64,
    /// Passes over the window.
    pub loops: u64,
    /// Seed of stamps.
    pub seed: u64,
    /// No completion for so long while requests are in flight means that the device hangs.
    pub hang_ns: u64,
    /// Whether the recording's latencies are wanted.
    pub recorded_latencies: bool,
    /// Whether a failed request is looked up in the recording.
    pub recorded_status: bool,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Every request was answered.
    Complete,
    /// The user stopped it.
    Interrupted,
    /// The device stopped answering.
    Hung {
        /// Requests without an answer.
        in_flight: usize,
        /// The event that issued the oldest of them.
        oldest_event: u64,
        /// For how long nothing had completed.
        waited: Nanos,
    },
    /// It could not be gone on with.
    Failed {
        /// Requests without an answer.
        in_flight: usize,
        /// The event that issued the oldest of them.
        oldest_event: Option<u64>,
    },
}

/// What a run did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// Requests of the trace carried out.
    pub requests: u64,
    /// Device requests that took.
    pub device_requests: u64,
    /// Events taken, over all loops.
    pub events: u64,
    /// First issue.
    pub started: Nanos,
    /// Last answer.
    pub finished: Nanos,
    /// Requests that were held back because they overlapped one in flight.
    pub held: u64,
    /// The time that cost, summed.
    pub held_ns: u64,
    /// Most device requests in flight at once.
    pub in_flight_max: usize,
    /// Completions the recording lost (see `Latencies::lost`).
    pub recorded_lost: u64,
}

impl Outcome {
    /// Nothing was done, at this time.
    pub fn nothing(end: End, now: Nanos) -> Self {
        Self {
            end,
            requests: 0,
            device_requests: 0,
            events: 0,
            started: now,
            finished: now,
            held: 0,
            held_ns: 0,
            in_flight_max: 0,
            recorded_lost: 0,
        }
    }
}

/// A job under way.
#[derive(Clone, Copy)]
pub(super) struct Active {
    pub(super) job: Job,
    /// Sectors of the body issued so far.
    pub(super) issued: u64,
    /// Whether the body (of no range) was issued.
    pub(super) body_started: bool,
    pub(super) step: Part,
    pub(super) outstanding: u32,
    pub(super) ok: bool,
    pub(super) issue: Option<Nanos>,
    pub(super) due: Option<Nanos>,
}

/// A device request under way.
pub(super) struct Slot {
    pub(super) job: u32,
    pub(super) request: PlannedRequest,
    pub(super) part: Part,
    pub(super) bytes: usize,
    pub(super) issue: Nanos,
}

/// Why nothing more can be issued just now.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Blocked {
    /// An answer must come first.
    Answer,
    /// The time for the next request has not come.
    Until(Nanos),
    /// The trace is used up.
    Exhausted,
    /// Nothing: other work wants a turn.
    Air,
}
