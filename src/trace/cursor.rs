//! Streaming over the events of a trace, in memory that does not grow.

use std::ops::Deref;
use std::sync::Arc;

use super::event::Event;
use super::filter::Span;
use super::format::{RECORD_BYTES, RecordBounds};
use super::map::RELEASE_BYTES;
use super::reader::Trace;
use crate::base::Result;

/// A trace that is borrowed, or kept alive by the cursor itself.
#[derive(Debug)]
enum Handle<'a> {
    Borrowed(&'a Trace),
    Shared(Arc<Trace>),
}

impl Deref for Handle<'_> {
    type Target = Trace;

    #[inline]
    fn deref(&self) -> &Trace {
        match self {
            Self::Borrowed(trace) => trace,
            Self::Shared(trace) => trace,
        }
    }
}

/// Reads events in order. Pages behind it are given back as it goes.
#[derive(Debug)]
pub struct Cursor<'a> {
    trace: Handle<'a>,
    /// The frame to enter when this one is used up.
    next_frame: usize,
    /// File offset of the next record.
    at: usize,
    /// File offset past the last record of this frame.
    end: usize,
    /// Number of the next event.
    number: u64,
    bounds: RecordBounds,
    /// Everything before this file offset was given back.
    released: usize,
    /// Frames that end before the first, or begin at the second or later, are passed over.
    times: Span,
}

impl<'a> Cursor<'a> {
    pub(super) fn borrowed(trace: &'a Trace, from: u64) -> Self {
        Self::new(Handle::Borrowed(trace), from)
    }

    pub(super) fn shared(trace: Arc<Trace>, from: u64) -> Cursor<'static> {
        Cursor::new(Handle::Shared(trace), from)
    }

    fn new(trace: Handle<'a>, from: u64) -> Self {
        let next_frame = trace.frame_of(from).unwrap_or(trace.frames());
        let bounds = RecordBounds { streams: 0, next_payload: 0 };
        Self {
            trace,
            next_frame,
            at: 0,
            end: 0,
            number: from,
            bounds,
            released: usize::MAX,
            times: Span::default(),
        }
    }

    /// Passes over frames that hold no event of `times` (nanoseconds): what comes is of frames
    /// that hold some, and not all of it need lie in `times` itself.
    #[must_use]
    pub fn near(mut self, times: Span) -> Self {
        self.times = times;
        self
    }

    /// Number of the event that [`Cursor::next`] returns, if there is one.
    pub fn position(&self) -> u64 {
        self.number
    }

    /// The next event with its number; `None` after the last.
    ///
    /// # Errors
    /// `Input` when its frame or record is damaged. The cursor then stays where it is.
    #[inline]
    #[expect(clippy::should_implement_trait, reason = "fallible: `while let Some(..) = c.next()?`")]
    pub fn next(&mut self) -> Result<Option<(u64, Event)>> {
        if self.at == self.end && !self.enter()? {
            return Ok(None);
        }
        let number = self.number;
        let event = self.trace.decode(self.at, number, self.bounds)?;
        self.at += RECORD_BYTES;
        self.number += 1;
        Ok(Some((number, event)))
    }

    /// Enters the next frame; `false` when there is none.
    #[cold]
    fn enter(&mut self) -> Result<bool> {
        while self.trace.frame_outside(self.next_frame, self.times) {
            self.next_frame += 1;
        }
        if self.next_frame >= self.trace.frames() {
            self.release(self.end);
            return Ok(false);
        }
        let records = self.trace.records(self.next_frame)?;
        let skipped = self.number.saturating_sub(records.first) as usize * RECORD_BYTES;
        self.number = self.number.max(records.first);
        self.at = records.start + skipped;
        self.end = records.end;
        self.bounds = records.bounds;
        self.next_frame += 1;
        self.released = self.released.min(records.start);
        if records.start - self.released >= RELEASE_BYTES as usize {
            self.release(records.start);
        }
        Ok(true)
    }

    fn release(&mut self, to: usize) {
        if self.released < to {
            self.trace.map().release(self.released as u64, to as u64);
            self.released = to;
        }
    }
}

impl Drop for Cursor<'_> {
    fn drop(&mut self) {
        self.release(self.at);
    }
}
