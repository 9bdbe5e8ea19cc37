//! Requests with their answers: each completion beside the issue that it belongs to, in the order
//! of the issues.
//!
//! A source that names ranges and no tags cannot say which of several equal requests in flight was
//! answered: [`Joined::oldest_of_equals`] has every trace say that it was the oldest.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::cursor::Cursor;
use super::event::{Complete, Event, Issue, StreamId};
use super::reader::Trace;
use crate::base::limits::JOINED_MAX;
use crate::base::{BlockOp, Result};

/// An event other than the completion of a request that was seen, with the completion that belongs
/// to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Number of the event.
    pub number: u64,
    /// The event; a completion only when its request is not in the trace.
    pub event: Event,
    /// The answer to an issue.
    pub answer: Option<Complete>,
}

/// Streams [`Item`]s in memory that does not grow: an issue waits for its answer until
/// [`JOINED_MAX`] further items wait behind it, then it comes without.
pub struct Joined<'a> {
    cursor: Cursor<'a>,
    /// What waits, oldest first, and whether an answer may yet come.
    waiting: VecDeque<(Item, bool)>,
    /// Serial of the first in `waiting`.
    first: u64,
    /// Serial of each issue that waits for its answer.
    open: HashMap<Tag, u64>,
    /// The trace has completions at all.
    answered: bool,
    late: u64,
    equals: Option<Equals>,
}

/// A tag on a stream.
type Tag = (StreamId, u64);

/// Requests that wait for their answers, by what a source without tags can tell apart.
struct Equals {
    across_streams: bool,
    /// Serials, and the tag whose answer each will have.
    waiting: HashMap<(StreamId, BlockOp, u64, u64), BTreeMap<u64, Tag>>,
}

impl Equals {
    fn key(&self, issue: &Issue) -> (StreamId, BlockOp, u64, u64) {
        let stream = if self.across_streams { StreamId(0) } else { issue.stream };
        (stream, issue.op, issue.offset, issue.len)
    }

    fn add(&mut self, issue: &Issue, serial: u64, tag: Tag) {
        self.waiting.entry(self.key(issue)).or_default().insert(serial, tag);
    }

    fn remove(&mut self, issue: &Issue, serial: u64) -> Option<Tag> {
        let key = self.key(issue);
        let serials = self.waiting.get_mut(&key)?;
        let tag = serials.remove(&serial);
        if serials.is_empty() {
            self.waiting.remove(&key);
        }
        tag
    }

    fn oldest(&self, issue: &Issue) -> Option<(u64, Tag)> {
        let (serial, tag) = self.waiting.get(&self.key(issue))?.first_key_value()?;
        Some((*serial, *tag))
    }
}

impl<'a> Joined<'a> {
    /// The items of `trace`, from event `from` on.
    pub fn new(trace: &'a Trace, from: u64) -> Self {
        Self::over(trace.cursor(from), trace.totals().iter().any(|totals| totals.completes > 0))
    }

    /// The items of a cursor; `answered`: there are completions.
    pub fn over(cursor: Cursor<'a>, answered: bool) -> Self {
        let (waiting, open) = (VecDeque::new(), HashMap::new());
        Self { cursor, waiting, first: 0, open, answered, late: 0, equals: None }
    }

    /// Of equal requests in flight (operation, place, length, and stream unless `across_streams`)
    /// the oldest is the one that is answered, whatever the tags say.
    pub fn oldest_of_equals(mut self, across_streams: bool) -> Self {
        self.equals = Some(Equals { across_streams, waiting: HashMap::new() });
        self
    }

    /// Answers that came too late to be joined: their items are completions of their own.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// The next item; `None` after the last.
    ///
    /// # Errors
    /// `Input` when an event is damaged.
    #[expect(clippy::should_implement_trait, reason = "fallible: `while let Some(..) = j.next()?`")]
    pub fn next(&mut self) -> Result<Option<Item>> {
        loop {
            let ready = match self.waiting.front() {
                Some((_, open)) => !open || self.waiting.len() > JOINED_MAX,
                None => false,
            };
            if ready {
                return Ok(self.give_up_first());
            }
            match self.cursor.next()? {
                Some((number, event)) => self.take(number, event),
                None => return Ok(self.give_up_first()),
            }
        }
    }

    fn give_up_first(&mut self) -> Option<Item> {
        let (item, open) = self.waiting.pop_front()?;
        if let (Event::Issue(issue), true) = (&item.event, open) {
            let exchanged = self.equals.as_mut().and_then(|e| e.remove(issue, self.first));
            let tag = exchanged.unwrap_or((issue.stream, issue.tag));
            if self.open.get(&tag) == Some(&self.first) {
                self.open.remove(&tag);
            }
        }
        self.first += 1;
        Some(item)
    }

    fn take(&mut self, number: u64, event: Event) {
        let item = Item { number, event, answer: None };
        match event {
            Event::Issue(issue) if self.answered => {
                let serial = self.first + self.waiting.len() as u64;
                // A tag that is used again before its answer came: the first gets none.
                if let Some(before) = self.open.insert((issue.stream, issue.tag), serial) {
                    self.close(before);
                }
                if let Some(equals) = &mut self.equals {
                    equals.add(&issue, serial, (issue.stream, issue.tag));
                }
                self.waiting.push_back((item, true));
            }
            Event::Complete(complete) => {
                let serial = self.open.remove(&(complete.stream, complete.tag));
                let serial = serial.map(|serial| self.exchanged(serial));
                match serial.and_then(|serial| self.close(serial)) {
                    Some(item) => item.answer = Some(complete),
                    None => {
                        self.late += 1;
                        self.waiting.push_back((item, false));
                    }
                }
            }
            _ => self.waiting.push_back((item, false)),
        }
    }

    /// The request that is to have the answer of `serial`: itself, or the oldest of its equals,
    /// whose own answer will then be for `serial`.
    fn exchanged(&mut self, serial: u64) -> u64 {
        let Some(Event::Issue(issue)) = self.slot(serial).map(|(item, _)| item.event) else {
            return serial;
        };
        let Some(equals) = &mut self.equals else { return serial };
        match equals.oldest(&issue) {
            Some((oldest, tag)) if oldest != serial => {
                equals.add(&issue, serial, tag);
                self.open.insert(tag, serial);
                oldest
            }
            _ => serial,
        }
    }

    /// Nothing more is expected for an issue.
    fn close(&mut self, serial: u64) -> Option<&mut Item> {
        let at = usize::try_from(serial.checked_sub(self.first)?).ok()?;
        let (item, open) = self.waiting.get_mut(at)?;
        *open = false;
        if let (Event::Issue(issue), Some(equals)) = (&item.event, &mut self.equals) {
            equals.remove(issue, serial);
        }
        Some(item)
    }

    fn slot(&mut self, serial: u64) -> Option<&mut (Item, bool)> {
        let at = usize::try_from(serial.checked_sub(self.first)?).ok()?;
        self.waiting.get_mut(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BlockOp, Nanos, OpFlags};
    use crate::trace::{Issue, PayloadRef, StreamInfo, TraceHeader, TraceSummary, TraceWriter};

    fn trace(events: &[(bool, u64)]) -> (tempfile::TempDir, Trace) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.qtrace");
        let mut writer = TraceWriter::create(&path, TraceHeader::default()).unwrap();
        let stream = writer.stream(StreamInfo::default()).unwrap();
        for (number, (issue, tag)) in (0..).zip(events) {
            let (time, tag, payload) = (Nanos(number), *tag, PayloadRef::Absent);
            let (op, flags, offset, len) = (BlockOp::Read, OpFlags::empty(), 0, 512);
            let event = match issue {
                true => Event::Issue(Issue {
                    time,
                    tag,
                    stream,
                    op,
                    flags,
                    offset,
                    len,
                    payload,
                    cpu: None,
                }),
                false => Event::Complete(Complete { time, tag, stream, status: 0, payload }),
            };
            writer.event(&event).unwrap();
        }
        writer.finish(TraceSummary::default()).unwrap();
        let trace = Trace::open(&path).unwrap();
        (dir, trace)
    }

    fn items(events: &[(bool, u64)]) -> Vec<(u64, Option<u64>)> {
        let (_dir, trace) = trace(events);
        let mut joined = Joined::new(&trace, 0);
        let mut items = Vec::new();
        while let Some(item) = joined.next().unwrap() {
            items.push((item.number, item.answer.map(|answer| answer.time.0)));
        }
        items
    }

    #[test]
    fn answers_stand_beside_their_requests_in_order_of_issue() {
        let events = [(true, 1), (true, 2), (false, 2), (true, 3), (false, 1)];
        assert_eq!(items(&events), [(0, Some(4)), (1, Some(2)), (3, None)]);
    }

    #[test]
    fn the_oldest_of_equal_requests_is_answered_when_that_is_asked_for() {
        let events = [(true, 1), (true, 2), (true, 3), (false, 2), (false, 3), (false, 1)];
        assert_eq!(items(&events), [(0, Some(5)), (1, Some(3)), (2, Some(4))]);
        let of_equals = |events: &[(bool, u64)]| {
            let (_dir, trace) = trace(events);
            let mut joined = Joined::new(&trace, 0).oldest_of_equals(true);
            let mut items = Vec::new();
            while let Some(item) = joined.next().unwrap() {
                items.push((item.number, item.answer.map(|answer| answer.time.0)));
            }
            assert!(joined.open.is_empty());
            items
        };
        assert_eq!(of_equals(&events), [(0, Some(3)), (1, Some(4)), (2, Some(5))]);
        // A tag that is used again, and requests that have no answer.
        let events = [(true, 1), (true, 1), (true, 2), (false, 2), (true, 3)];
        assert_eq!(of_equals(&events), [(0, None), (1, Some(3)), (2, None), (4, None)]);
    }

    #[test]
    fn a_tag_used_again_and_an_answer_without_request_are_kept() {
        let events = [(false, 9), (true, 1), (true, 1), (false, 1), (false, 1)];
        assert_eq!(items(&events), [(0, None), (1, None), (2, Some(3)), (4, None)]);
    }

    #[test]
    fn a_request_that_is_never_answered_does_not_hold_up_the_rest_for_ever() {
        let mut events = vec![(true, u64::MAX)];
        for tag in 0..2 * JOINED_MAX as u64 {
            events.extend([(true, tag), (false, tag)]);
        }
        let (_dir, trace) = trace(&events);
        let mut joined = Joined::new(&trace, 0);
        assert_eq!(joined.next().unwrap().map(|item| item.answer.is_none()), Some(true));
        assert!(joined.waiting.len() <= JOINED_MAX + 1);
        let mut answered = 0;
        while let Some(item) = joined.next().unwrap() {
            answered += u64::from(item.answer.is_some());
            assert!(joined.waiting.len() <= JOINED_MAX);
        }
        assert_eq!((answered, joined.late()), (2 * JOINED_MAX as u64, 0));
    }
}
