//! What is kept of one trace.
//!
//! A request belongs to the part in which it was issued, and its completion goes with it: one that
//! comes after the end of the part is kept, one whose request stands before the part is left out.
//! Both are counted.

use crate::base::{Nanos, Result};
use crate::import::summary::{Summary, counted};
use crate::trace::{Cursor, Event, Filter, InFlight, Kinds, Span, StreamId, Trace};

/// An event that is kept.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// Its number in its trace.
    pub number: u64,
    /// The event, as it was.
    pub event: Event,
    /// Offset and length of the request that it is or answers.
    pub range: (u64, u64),
}

/// What was done with a request that waits for its completion.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Kept {
        offset: u64,
        len: u64,
    },
    /// Left out for what it is.
    Dropped,
    /// It stands before the part that is kept.
    Before,
}

/// One trace, as far as it is kept.
pub struct Input<'t> {
    trace: &'t Trace,
    cursor: Cursor<'t>,
    filter: Filter,
    drop: Kinds,
    /// For each stream its number in the result; `None` is left out.
    streams: Vec<Option<StreamId>>,
    requests: InFlight<Fate>,
    /// Requests kept whose completions have not come.
    open: u64,
    answered: bool,
    /// Events left out, by kind.
    dropped: Vec<(Kinds, u64)>,
    before: u64,
    after: u64,
    after_end: Nanos,
}

impl<'t> Input<'t> {
    /// What `filter` means of `trace`, but for the kinds in `drop`. `next_stream` numbers streams.
    pub fn new(trace: &'t Trace, filter: &Filter, drop: Kinds, next_stream: &mut u32) -> Self {
        let mut number = |stream: u32| {
            let kept = filter.streams.as_ref().is_none_or(|streams| streams.contains(&stream));
            kept.then(|| {
                let id = StreamId(*next_stream);
                *next_stream += 1;
                id
            })
        };
        let streams = (0..).zip(trace.streams()).map(|(stream, _)| number(stream)).collect();
        // Frames past the end may hold completions that are kept.
        let times = Span { from: filter.times.from, to: u64::MAX };
        Self {
            trace,
            cursor: trace.cursor(filter.events.from).near(times),
            filter: filter.clone(),
            drop,
            streams,
            requests: InFlight::default(),
            open: 0,
            answered: trace.totals().iter().any(|totals| totals.completes > 0),
            dropped: Vec::new(),
            before: 0,
            after: 0,
            after_end: Nanos(0),
        }
    }

    /// The number of a stream in the result.
    pub fn stream(&self, stream: StreamId) -> StreamId {
        self.streams.get(stream.0 as usize).copied().flatten().unwrap_or_default()
    }

    /// For each stream its number in the result.
    pub fn streams(&self) -> &[Option<StreamId>] {
        &self.streams
    }

    /// Events read so far.
    pub fn position(&self) -> u64 {
        self.cursor.position()
    }

    /// The next event that is kept.
    ///
    /// # Errors
    /// `Input`: the trace is damaged.
    pub fn next_kept(&mut self) -> Result<Option<Kept>> {
        while self.open > 0 || self.cursor.position() < self.filter.events.to {
            let Some((number, event)) = self.cursor.next()? else { break };
            if let Some(range) = self.take(number, &event) {
                return Ok(Some(Kept { number, event, range }));
            }
        }
        Ok(None)
    }

    /// The range of an event that is kept.
    fn take(&mut self, number: u64, event: &Event) -> Option<(u64, u64)> {
        if let Event::Complete(complete) = event {
            let fate = self.requests.complete(complete.stream, complete.tag);
            return self.answer(number, event, fate);
        }
        let fate = self.fate(number, event);
        if let (Event::Issue(issue), true) = (event, self.answered) {
            self.requests.issue(issue.stream, issue.tag, fate);
            self.open += u64::from(matches!(fate, Fate::Kept { .. }));
        }
        match fate {
            Fate::Kept { offset, len } => Some((offset, len)),
            Fate::Before => None,
            Fate::Dropped => {
                self.count_dropped(Kinds::of(event));
                None
            }
        }
    }

    fn fate(&self, number: u64, event: &Event) -> Fate {
        if !self.filter.holds(number, event) {
            return Fate::Before;
        }
        if self.drop.contains(Kinds::of(event)) || !self.filter.describes(event) {
            return Fate::Dropped;
        }
        match event {
            Event::Issue(issue) => Fate::Kept { offset: issue.offset, len: issue.len },
            _ => Fate::Kept { offset: 0, len: 0 },
        }
    }

    fn answer(&mut self, number: u64, event: &Event, fate: Option<Fate>) -> Option<(u64, u64)> {
        let inside = self.filter.holds(number, event);
        match fate {
            Some(Fate::Kept { offset, len }) => {
                self.open -= 1;
                if self.drop.contains(Kinds::COMPLETE) {
                    self.count_dropped(Kinds::COMPLETE);
                    return None;
                }
                if !inside {
                    self.after += 1;
                    self.after_end = self.after_end.max(event.time());
                }
                Some((offset, len))
            }
            Some(Fate::Dropped) => None,
            Some(Fate::Before) | None => {
                self.before += u64::from(inside);
                None
            }
        }
    }

    fn count_dropped(&mut self, kind: Kinds) {
        match self.dropped.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += 1,
            None => self.dropped.push((kind, 1)),
        }
    }

    /// Says what was left out.
    pub fn tell(&self, summary: &mut Summary) {
        let name = self.trace.path().file_name().unwrap_or_default().to_string_lossy();
        let name = name.escape_debug();
        for (kind, count) in &self.dropped {
            let word = Kinds::words().into_iter().find(|word| Kinds::parse(word) == Some(*kind));
            let word = word.unwrap_or_default();
            summary.note(format!("{name}: {count} x {word} left out"));
        }
        if self.before > 0 {
            let count = counted(self.before, "completion", "completions");
            summary.note(format!(
                "{name}: {count} left out, the request of which stands before the part that is kept"
            ));
        }
        if self.after > 0 {
            let count = counted(self.after, "request was", "requests were");
            let until = self.after_end;
            summary.note(format!(
                "{name}: {count} under way where the part ends: completions kept, up to {until}"
            ));
        }
        if self.requests.forgotten() > 0 {
            let count = self.requests.forgotten();
            summary.note(format!(
                "{name}: the completions of {count} requests were not looked for: too many in flight"
            ));
        }
    }
}
