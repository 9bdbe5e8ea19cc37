//! Requests in progress, and how each is recorded and answered.

use std::sync::Arc;

use super::backend::{Data, Outcome, Work};
use super::buffers::recorded;
use super::output::{Payload, Reply, Told};
use super::request::{Action, Refusal, Request, errno_of};
use crate::base::{BlockOp, OpFlags};
use crate::record::recording::{BlockIssue, Tag};

/// A request in progress.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) request: Request,
    pub(super) work: Work,
    /// `None` for what a trace has no word for.
    pub(super) tag: Option<Tag>,
    /// Bytes of the budget that it holds.
    pub(super) held: usize,
}

/// The image's work for a request; `None` for one that asks for nothing.
pub(super) fn work_of(action: Action, len: u32) -> Option<Work> {
    let work = match action {
        Action::Flush => return Some(Work::Flush),
        Action::Disconnect => return None,
        Action::Read { .. } => Work::Read,
        Action::Write { fua } => Work::Write { fua },
        Action::Trim { fua } => Work::Trim { fua },
        Action::Zeroes { fua, unmap, fast } => Work::Zeroes { fua, unmap, fast },
        Action::Cache => Work::Cache,
        Action::Status { one } => Work::Status { one },
    };
    (len > 0).then_some(work)
}

/// What the recording is told of a request; `None` where a trace has no word for it.
pub(super) fn issue_of(work: Work, offset: u64, len: u32) -> Option<BlockIssue> {
    let fua_if = |fua: bool| if fua { OpFlags::FUA } else { OpFlags::empty() };
    let (op, flags) = match work {
        Work::Read => (BlockOp::Read, OpFlags::empty()),
        Work::Write { fua } => (BlockOp::Write, fua_if(fua)),
        Work::Flush => (BlockOp::Flush, OpFlags::empty()),
        Work::Trim { fua } => (BlockOp::Discard, fua_if(fua)),
        Work::Zeroes { fua, unmap, .. } => {
            let unmap = if unmap { OpFlags::UNMAP } else { OpFlags::empty() };
            (BlockOp::WriteZeroes, fua_if(fua) | unmap)
        }
        Work::Cache | Work::Status { .. } => return None,
    };
    Some(BlockIssue { op, flags, offset, len: len.into(), cpu: None })
}

/// Whether the image's content may change.
pub(super) fn changes(work: Work) -> bool {
    matches!(work, Work::Write { .. } | Work::Trim { .. } | Work::Zeroes { .. })
}

/// What is said of an error of the image; its number says which.
const IMAGE_FAILED: &str = "the image could not do it";

/// The reply to a request that has an outcome.
pub(super) fn reply_to(
    flight: Flight,
    outcome: Outcome,
    structured: bool,
    read_data: bool,
) -> Reply {
    let Flight { request, tag, held, .. } = flight;
    let Outcome { result, data, extents } = outcome;
    let cookie = request.cookie;
    let (mut status, mut payload) = (0, None);
    let reply = match (result, data) {
        (Err(error), _) => {
            let errno = errno_of(&error);
            status = u16::try_from(errno).unwrap_or(libc::EIO as u16);
            Reply::error(cookie, Refusal { errno, why: IMAGE_FAILED }, structured)
        }
        (Ok(()), Data::Into(buffer)) => {
            let buffer = Arc::new(buffer);
            payload = read_data.then(|| Payload(recorded(&buffer)));
            Reply::data(cookie, request.offset, buffer, structured)
        }
        (Ok(()), _) if !extents.is_empty() => Reply::status(cookie, &extents),
        (Ok(()), _) => Reply::simple(cookie, 0),
    };
    let reply = reply.holding(held);
    match tag {
        Some(tag) => reply.telling(Told { tag, status, data: payload }),
        None => reply,
    }
}

/// The requests of one connection, by number.
#[derive(Debug, Default)]
pub(super) struct Flights {
    slots: Vec<Option<Flight>>,
    free: Vec<usize>,
}

impl Flights {
    pub(super) fn add(&mut self, flight: Flight) -> u64 {
        let at = self.free.pop().unwrap_or(self.slots.len());
        match self.slots.get_mut(at) {
            Some(slot) => *slot = Some(flight),
            None => self.slots.push(Some(flight)),
        }
        at as u64
    }

    pub(super) fn remove(&mut self, token: u64) -> Option<Flight> {
        let at = usize::try_from(token).ok()?;
        let flight = self.slots.get_mut(at)?.take()?;
        self.free.push(at);
        Some(flight)
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
