//! What the devices' events become: issues and completions of a trace.

use crate::base::error::Place;
use crate::base::{BlockOp, Nanos, OpFlags, Result};
use crate::import::job::{Job, Request};
use crate::import::log_clock::LogClock;
use crate::trace::{PayloadRef, StreamId};

/// When and where in the input an event stands.
#[derive(Clone, Copy, Debug)]
pub struct At {
    /// What the clock says, where the log has times.
    pub ns: Option<u64>,
    /// The line or offset.
    pub place: Place,
}

/// A request as a device's event tells of it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'d> {
    /// The device's name.
    pub device: &'d str,
    /// What is asked.
    pub op: BlockOp,
    /// Modifiers.
    pub flags: OpFlags,
    /// Bytes.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// A request whose issue stands in the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    stream: StreamId,
    tag: u64,
}

impl Open {
    /// Its number: requests count in the order of their issues.
    pub fn tag(self) -> u64 {
        self.tag
    }
}

/// An event's moment, and where what it tells goes.
pub struct Cx<'c, 'd> {
    /// When and where.
    pub at: At,
    /// Makes times of the trace.
    pub clock: &'c mut LogClock,
    /// Completions of which the log tells how they ended.
    pub judged: &'c mut u64,
    /// The import.
    pub job: &'c mut Job<'d>,
}

impl Cx<'_, '_> {
    /// Writes the issue of a request; `None` when it is not wanted or cannot stand in a trace (then
    /// it is counted).
    ///
    /// # Errors
    /// Those of the job's sink.
    pub fn issue(&mut self, asked: &Asked<'_>) -> Result<Option<Open>> {
        let at = self.at;
        let place = || at.place.to_string();
        let &Asked { device, op, flags, offset, len } = asked;
        let Some(stream) = self.job.stream(device.as_bytes(), None, place)? else {
            return Ok(None);
        };
        if !self.job.accepts(op, offset, len, place) {
            return Ok(None);
        }
        let tag = self.job.counts().requests();
        let time = self.clock.time(at.ns, self.job);
        self.job.issue(Request {
            time,
            tag,
            stream,
            op,
            flags,
            offset,
            len,
            payload: PayloadRef::Absent,
            cpu: None,
        })?;
        Ok(Some(Open { stream, tag }))
    }

    /// Writes a completion; `status` is a Linux errno where the log tells of it.
    ///
    /// # Errors
    /// Those of the job's sink.
    pub fn complete(&mut self, open: Open, status: Option<u16>) -> Result<()> {
        let time = self.clock.time(self.at.ns, self.job);
        self.completed(open, status, time)
    }

    /// Writes a completion that an event above told of.
    ///
    /// # Errors
    /// Those of the job's sink.
    pub fn complete_late(
        &mut self,
        open: Open,
        status: Option<u16>,
        ns: Option<u64>,
    ) -> Result<()> {
        let time = self.clock.past(ns);
        self.completed(open, status, time)
    }

    fn completed(&mut self, open: Open, status: Option<u16>, time: Nanos) -> Result<()> {
        *self.judged += u64::from(status.is_some());
        self.job.complete(time, open.stream, open.tag, status.unwrap_or(0))
    }
}

/// The status that a function's result (0, or minus an errno) stands for.
pub fn errno_of(result: i64) -> u16 {
    if result >= 0 { 0 } else { u16::try_from(result.unsigned_abs()).unwrap_or(EIO) }
}

/// Linux's errno of an error of the disk.
pub const EIO: u16 = 5;
/// Of an operation that the device lacks.
pub const EOPNOTSUPP: u16 = 95;
