//! The handle through which one stream is recorded.

use std::sync::Arc;

use super::queue::{Item, Queue, Said};
use crate::base::{BlockOp, Nanos, OpFlags};
use crate::trace::{Complete, Event, Issue, Mark, PayloadRef, StreamId};

/// Data of an event. It is shared, not copied, and must not change any more: it is hashed and
/// compressed later.
pub type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A request, as it is handed to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockIssue {
    /// What is asked.
    pub op: BlockOp,
    /// Modifiers.
    pub flags: OpFlags,
    /// Byte offset on the disk; 0 for operations without a range.
    pub offset: u64,
    /// Bytes; 0 for operations without a range.
    pub len: u64,
    /// The CPU that issued it, where that is known.
    pub cpu: Option<u16>,
}

/// Joins the completion to its request. Unique in the recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Tag(Option<u64>);

impl Tag {
    /// Whether the request is in the trace: it may have been left out, or came too late.
    pub fn is_recorded(self) -> bool {
        self.0.is_some()
    }
}

/// The recording has failed, and requests are to fail with it ([`super::OnError::Fail`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the recording has failed")
    }
}

impl std::error::Error for Stopped {}

/// Records one stream; clones share it. Every call may wait for room in the queue.
#[derive(Clone, Debug)]
pub struct Tap {
    queue: Arc<Queue>,
    stream: StreamId,
}

impl Tap {
    pub(super) fn new(queue: Arc<Queue>, stream: StreamId) -> Self {
        Self { queue, stream }
    }

    /// Nanoseconds of CLOCK_MONOTONIC since the recording's origin.
    pub fn now(&self) -> Nanos {
        self.queue.now()
    }

    /// A request is handed to the device now; `data` is what it writes. Every tag is completed
    /// once, or the trace says that the request never was.
    ///
    /// # Errors
    /// The request is to be refused: the recording has failed.
    pub fn issue(&self, issue: BlockIssue, data: Option<Bytes>) -> Result<Tag, Stopped> {
        let tag = self.queue.next_tag();
        let BlockIssue { op, flags, offset, len, cpu } = issue;
        let event = Event::Issue(Issue {
            time: Nanos(0),
            tag,
            stream: self.stream,
            op,
            flags,
            offset,
            len,
            payload: PayloadRef::Absent,
            cpu,
        });
        let said = self.queue.push(Item::Event { event, data, timed: false })?;
        Ok(Tag((said == Said::Recorded).then_some(tag)))
    }

    /// The device has answered; the client is told right after this. `status` is 0 or a Linux
    /// errno, `data` what a read returned.
    pub fn complete(&self, tag: Tag, status: u16, data: Option<Bytes>) {
        let Some(tag) = tag.0 else { return };
        let (time, stream, payload) = (Nanos(0), self.stream, PayloadRef::Absent);
        let event = Event::Complete(Complete { time, tag, stream, status, payload });
        self.queue.push_answer(Item::Event { event, data, timed: false });
    }

    /// A point with a name, now. At most 64 KiB of the text are kept.
    pub fn mark(&self, text: &str) {
        const TEXT_BYTES_MAX: usize = 64 << 10;
        let text = text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)).unwrap_or(text);
        let (time, stream) = (Nanos(0), self.stream);
        let (payload, text_len) = (PayloadRef::Absent, text.len() as u64);
        let event = Event::Mark(Mark { time, stream, text: payload, text_len });
        let data: Bytes = Arc::new(text.to_owned().into_bytes());
        // A mark is of no request that could fail.
        let _ = self.queue.push(Item::Event { event, data: Some(data), timed: false });
    }

    /// Any event: of a bus, of memory. Its stream is replaced with this one's; `data` becomes its
    /// payload. With `timed` it keeps its own time (since the recording's origin, see
    /// [`Tap::now`]); else it happens now.
    ///
    /// # Errors
    /// The recording has failed, and what it records is to fail too.
    pub fn event(&self, event: Event, data: Option<Bytes>, timed: bool) -> Result<(), Stopped> {
        let event = with_stream(event, self.stream);
        self.queue.push(Item::Event { event, data, timed }).map(drop)
    }

    /// Whether requests are to fail, because the recording has.
    pub fn is_stopped(&self) -> bool {
        self.queue.is_stopped()
    }
}

fn with_stream(mut event: Event, to: StreamId) -> Event {
    *match &mut event {
        Event::Issue(e) => &mut e.stream,
        Event::Complete(e) => &mut e.stream,
        Event::Mark(e) => &mut e.stream,
        Event::Bus(e) => &mut e.stream,
        Event::Memory(e) => &mut e.stream,
        Event::Irq(e) => &mut e.stream,
        Event::Ack(e) => &mut e.stream,
        Event::Clock(e) => &mut e.stream,
    } = to;
    event
}

/// Sets the time of an event.
pub(super) fn set_time(event: &mut Event, to: Nanos) {
    *match event {
        Event::Issue(e) => &mut e.time,
        Event::Complete(e) => &mut e.time,
        Event::Mark(e) => &mut e.time,
        Event::Bus(e) => &mut e.time,
        Event::Memory(e) => &mut e.time,
        Event::Irq(e) => &mut e.time,
        Event::Ack(e) => &mut e.time,
        Event::Clock(e) => &mut e.time,
    } = to;
}

/// Sets the payload of an event that has one.
pub(super) fn set_payload(event: &mut Event, to: PayloadRef) {
    match event {
        Event::Issue(e) => e.payload = to,
        Event::Complete(e) => e.payload = to,
        Event::Mark(e) => e.text = to,
        Event::Memory(e) => e.payload = to,
        Event::Bus(_) | Event::Irq(_) | Event::Ack(_) | Event::Clock(_) => {}
    }
}
