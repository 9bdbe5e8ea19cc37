//! Which events of a trace are meant: by kind, place, time, number and stream.
//!
//! A request and its answer are one: a completion is meant when its request is. Where the request
//! stands before the part that is looked at, nothing says what it was, and only a filter that asks
//! for no kind and no place takes its completion.

use std::collections::BTreeSet;

use bitflags::bitflags;

use super::event::{Event, StreamId};
use super::in_flight::InFlight;
use crate::base::{BlockOp, BusSpace};

bitflags! {
    /// Kinds of events.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Kinds: u32 {
        /// Requests that read.
        const READ = 1 << 0;
        /// Requests that write.
        const WRITE = 1 << 1;
        /// Flushes.
        const FLUSH = 1 << 2;
        /// Discards.
        const DISCARD = 1 << 3;
        /// Write-zeroes.
        const WRITE_ZEROES = 1 << 4;
        /// Requests for the identifier.
        const GET_ID = 1 << 5;
        /// Completions, of any request.
        const COMPLETE = 1 << 6;
        /// Marks.
        const MARK = 1 << 7;
        /// Reads of ports.
        const IN = 1 << 8;
        /// Writes to ports.
        const OUT = 1 << 9;
        /// Memory-mapped reads.
        const MMIO_READ = 1 << 10;
        /// Memory-mapped writes.
        const MMIO_WRITE = 1 << 11;
        /// Guest memory.
        const MEMORY = 1 << 12;
        /// Interrupt sources.
        const IRQ = 1 << 13;
        /// Interrupt acknowledge cycles.
        const ACK = 1 << 14;
        /// Steps of the clock.
        const CLOCK = 1 << 15;
        /// Every block request.
        const REQUEST = 0x3f;
        /// Every access to the bus.
        const BUS = Self::IN.bits() | Self::OUT.bits() | Self::MMIO_READ.bits()
            | Self::MMIO_WRITE.bits();
    }
}

impl Kinds {
    /// The kind of `event`.
    pub fn of(event: &Event) -> Self {
        match event {
            Event::Issue(issue) => Self::of_op(issue.op),
            Event::Complete(_) => Self::COMPLETE,
            Event::Mark(_) => Self::MARK,
            Event::Bus(bus) => match (bus.access.space, bus.access.write) {
                (BusSpace::Pio, false) => Self::IN,
                (BusSpace::Pio, true) => Self::OUT,
                (BusSpace::Mmio, false) => Self::MMIO_READ,
                (BusSpace::Mmio, true) => Self::MMIO_WRITE,
            },
            Event::Memory(_) => Self::MEMORY,
            Event::Irq(_) => Self::IRQ,
            Event::Ack(_) => Self::ACK,
            Event::Clock(_) => Self::CLOCK,
        }
    }

    /// The kind of requests that do `op`.
    pub fn of_op(op: BlockOp) -> Self {
        Self::from_bits_truncate(1 << op.index())
    }

    /// The word for options: `write-zeroes`, `mmio-read`, `bus`.
    pub fn parse(word: &str) -> Option<Self> {
        Self::all().iter_names_all().find(|(name, _)| name == word).map(|(_, kinds)| kinds)
    }

    /// Every word that [`Kinds::parse`] knows.
    pub fn words() -> Vec<String> {
        Self::all().iter_names_all().map(|(name, _)| name).collect()
    }

    fn iter_names_all(self) -> impl Iterator<Item = (String, Self)> {
        use bitflags::Flags;
        let word = |name: &str| name.to_lowercase().replace('_', "-");
        <Self as Flags>::FLAGS.iter().map(move |flag| (word(flag.name()), *flag.value() & self))
    }
}

/// From `from` up to, not including, `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub from: u64,
    /// One past the last; [`u64::MAX`] is the end of all there is.
    pub to: u64,
}

impl Default for Span {
    fn default() -> Self {
        Self { from: 0, to: u64::MAX }
    }
}

impl Span {
    /// Whether `at` lies in it.
    pub fn holds(self, at: u64) -> bool {
        at >= self.from && (at < self.to || self.to == u64::MAX)
    }

    /// Whether it leaves nothing out.
    pub fn is_all(self) -> bool {
        self == Self::default()
    }

    /// Whether `len` places from `at` touch it; none at `at` do not.
    pub fn touches(self, at: u64, len: u64) -> bool {
        len > 0 && at < self.to && at.saturating_add(len) > self.from
    }
}

/// What is asked for. All conditions hold together; the default leaves nothing out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Kinds; none is all of them.
    pub kinds: Kinds,
    /// Bytes of the disk, or addresses of bus and memory, one of which is touched; none is all.
    pub ranges: Vec<Span>,
    /// Streams.
    pub streams: Option<BTreeSet<u32>>,
    /// Numbers of events.
    pub events: Span,
    /// Nanoseconds since the trace's time origin.
    pub times: Span,
}

impl Filter {
    /// Whether kind or place decide: then a completion goes with its request.
    pub fn looks_at_requests(&self) -> bool {
        !self.kinds.is_empty() || !self.ranges.is_empty()
    }

    /// Whether number, time and stream of an event are meant.
    pub fn holds(&self, number: u64, event: &Event) -> bool {
        self.events.holds(number) && self.times.holds(event.time().0) && self.has(event.stream())
    }

    fn has(&self, stream: StreamId) -> bool {
        self.streams.as_ref().is_none_or(|streams| streams.contains(&stream.0))
    }

    /// Whether kind and place of an event that is no completion are meant.
    pub fn describes(&self, event: &Event) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(Kinds::of(event)))
            && (self.ranges.is_empty()
                || place(event)
                    .is_some_and(|(at, len)| self.ranges.iter().any(|r| r.touches(at, len))))
    }
}

/// Where an event is, when it is anywhere, and over how many bytes.
fn place(event: &Event) -> Option<(u64, u64)> {
    match event {
        Event::Issue(issue) if issue.op.has_range() => Some((issue.offset, issue.len)),
        Event::Bus(bus) => Some((bus.access.addr, bus.access.size.into())),
        Event::Memory(memory) => Some((memory.addr, memory.len)),
        _ => None,
    }
}

/// A filter at work: it remembers which requests it took.
#[derive(Debug)]
pub struct Chooser {
    filter: Filter,
    taken: InFlight<bool>,
}

impl Chooser {
    /// A chooser that has seen nothing.
    pub fn new(filter: Filter) -> Self {
        Self { filter, taken: InFlight::default() }
    }

    /// Whether `event`, the one of `number`, is meant. Ask for each event, in order.
    pub fn takes(&mut self, number: u64, event: &Event) -> bool {
        let holds = self.filter.holds(number, event);
        if !self.filter.looks_at_requests() {
            return holds;
        }
        match event {
            Event::Issue(issue) => {
                let described = self.filter.describes(event);
                self.taken.issue(issue.stream, issue.tag, described);
                holds && described
            }
            Event::Complete(complete) => {
                let taken = self.taken.complete(complete.stream, complete.tag).unwrap_or(false);
                let all = self.filter.ranges.is_empty();
                holds && (taken || (all && self.filter.kinds.contains(Kinds::COMPLETE)))
            }
            _ => holds && self.filter.describes(event),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BusAccess, Nanos, OpFlags};
    use crate::trace::{BusEvent, Complete, Issue, PayloadRef};

    fn issue(op: BlockOp, offset: u64, len: u64, tag: u64) -> Event {
        Event::Issue(Issue {
            time: Nanos(tag * 10),
            tag,
            stream: StreamId(tag as u32 % 2),
            op,
            flags: OpFlags::empty(),
            offset,
            len,
            payload: PayloadRef::Absent,
            cpu: None,
        })
    }

    fn complete(tag: u64) -> Event {
        let stream = StreamId(tag as u32 % 2);
        let payload = PayloadRef::Absent;
        Event::Complete(Complete { time: Nanos(100), tag, stream, status: 0, payload })
    }

    fn port(addr: u64, write: bool) -> Event {
        let access = BusAccess { space: BusSpace::Pio, write, addr, size: 2, value: 0 };
        Event::Bus(BusEvent { time: Nanos(50), stream: StreamId(0), access, cpu: None })
    }

    fn taken(filter: Filter) -> Vec<usize> {
        let events = [
            issue(BlockOp::Read, 0, 4096, 0),
            issue(BlockOp::Write, 4096, 4096, 1),
            issue(BlockOp::Flush, 0, 0, 2),
            complete(1),
            complete(0),
            complete(2),
            port(0x70, true),
            port(0x71, false),
        ];
        let mut chooser = Chooser::new(filter);
        (0..events.len()).filter(|n| chooser.takes(*n as u64, &events[*n])).collect()
    }

    #[test]
    fn a_completion_goes_with_its_request() {
        let kinds = |word: &str| Filter { kinds: Kinds::parse(word).unwrap(), ..Filter::default() };
        assert_eq!(taken(kinds("read")), [0, 4]);
        assert_eq!(taken(kinds("request")), [0, 1, 2, 3, 4, 5]);
        assert_eq!(taken(kinds("complete")), [3, 4, 5]);
        assert_eq!(taken(kinds("bus")), [6, 7]);
        assert_eq!(taken(kinds("in")), [7]);
        assert_eq!(taken(Filter::default()).len(), 8);
    }

    #[test]
    fn a_range_is_touched_at_either_end_and_a_flush_is_nowhere() {
        let range = |from, to| Filter { ranges: vec![Span { from, to }], ..Filter::default() };
        assert_eq!(taken(range(4095, 4096)), [0, 4]);
        assert_eq!(taken(range(8191, 9000)), [1, 3]);
        assert_eq!(taken(range(0x71, 0x72)), [0, 4, 6, 7]);
        assert_eq!(taken(range(8192, u64::MAX)), [0usize; 0]);
    }

    #[test]
    fn numbers_times_and_streams_hold_together() {
        let span = |from, to| Span { from, to };
        let some = Filter {
            events: span(1, 6),
            times: span(10, 101),
            streams: Some([0].into()),
            ..Filter::default()
        };
        assert_eq!(taken(some), [2, 4, 5]);
    }

    #[test]
    fn every_word_is_one_kind_or_a_union() {
        let words = Kinds::words();
        assert_eq!(words.len(), 18);
        assert!(words.iter().all(|word| !Kinds::parse(word).unwrap().is_empty()));
        assert_eq!(Kinds::parse("write-zeroes"), Some(Kinds::of_op(BlockOp::WriteZeroes)));
        assert_eq!(Kinds::parse("reads"), None);
        assert!(BlockOp::ALL.iter().all(|op| Kinds::REQUEST.contains(Kinds::of_op(*op))));
    }
}
