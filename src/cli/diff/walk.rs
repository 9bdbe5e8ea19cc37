//! Two traces event by event, up to the first difference.

use std::collections::HashSet;

use serde::Serialize;

use super::event_text::describe;
use super::ignored::{Field, Ignored};
use crate::base::{BlockOp, BusAccess, Nanos, OpFlags, Result};
use crate::trace::{
    Chooser, Complete, Cursor, Event, Filter, InFlight, Item, Joined, Kinds, PayloadRef, Trace,
};

/// Payload bytes compared at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Pairs of equal payloads remembered.
const PAIRS_MAX: usize = 1 << 16;

/// Events between two moves of the progress bar.
const PROGRESS_EVENTS: u64 = 4096;

/// The first event that differs.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its number in A; in B where A has no more.
    pub event: u64,
    /// Its number in B, where B has one.
    pub event_b: Option<u64>,
    /// The fields that differ.
    pub fields: Vec<&'static str>,
    /// What A has.
    pub a: Option<String>,
    /// What B has.
    pub b: Option<String>,
}

/// Events as they stand, or requests with their answers.
enum Source<'a> {
    Events(Cursor<'a>),
    Joined(Joined<'a>),
}

/// One of the two: what of it is compared, in order.
struct Side<'a> {
    source: Source<'a>,
    /// Takes what is compared; completions go with their requests.
    chooser: Option<Chooser>,
    completions: bool,
    first_time: Option<u64>,
}

impl<'a> Side<'a> {
    fn new(trace: &'a Trace, ignored: &Ignored) -> Self {
        let source = match (ignored.has(Field::Tag), ignored.has(Field::Twin)) {
            (true, false) => Source::Joined(Joined::new(trace, 0)),
            (true, true) => {
                let across_streams = ignored.has(Field::Stream);
                Source::Joined(Joined::new(trace, 0).oldest_of_equals(across_streams))
            }
            (false, _) => Source::Events(trace.cursor(0)),
        };
        let kinds = Kinds::all() - ignored.kinds - Kinds::COMPLETE;
        let filter = Filter { kinds, ..Filter::default() };
        let chooser = (!ignored.kinds.is_empty()).then(|| Chooser::new(filter));
        let completions = !ignored.kinds.contains(Kinds::COMPLETE);
        Self { source, chooser, completions, first_time: None }
    }

    fn next(&mut self) -> Result<Option<Item>> {
        loop {
            let item = match &mut self.source {
                Source::Joined(joined) => joined.next()?,
                Source::Events(cursor) => {
                    cursor.next()?.map(|(number, event)| Item { number, event, answer: None })
                }
            };
            let Some(mut item) = item else { return Ok(None) };
            let completion = matches!(item.event, Event::Complete(_));
            let taken = self.chooser.as_mut().is_none_or(|c| c.takes(item.number, &item.event));
            if taken && (self.completions || !completion) {
                if !self.completions {
                    item.answer = None;
                }
                self.first_time.get_or_insert(item.event.time().0);
                return Ok(Some(item));
            }
        }
    }
}

/// Both traces, event by event.
pub struct Walk<'a> {
    a: &'a Trace,
    b: &'a Trace,
    ignored: &'a Ignored,
    /// Lengths of requests in flight: a completion does not say how long its payload is.
    lengths: InFlight<u64>,
    equal: HashSet<(PayloadRef, PayloadRef, u64)>,
    bufs: (Vec<u8>, Vec<u8>),
    first_times: (u64, u64),
}

impl<'a> Walk<'a> {
    /// Both from their beginnings.
    pub fn new(a: &'a Trace, b: &'a Trace, ignored: &'a Ignored) -> Self {
        let bufs = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
        let (lengths, equal) = (InFlight::default(), HashSet::new());
        Self { a, b, ignored, lengths, equal, bufs, first_times: (0, 0) }
    }

    /// The first event that differs, if one does.
    ///
    /// # Errors
    /// `Input` where a trace is damaged.
    pub fn first_difference(mut self, progress: &mut dyn FnMut(u64)) -> Result<Option<Difference>> {
        let (mut a, mut b) = (Side::new(self.a, self.ignored), Side::new(self.b, self.ignored));
        loop {
            let (next_a, next_b) = (a.next()?, b.next()?);
            if self.ignored.has(Field::Origin) {
                self.first_times = (a.first_time.unwrap_or(0), b.first_time.unwrap_or(0));
            }
            let fields = match (&next_a, &next_b) {
                (None, None) => return Ok(None),
                (Some(a), Some(b)) => self.fields(a, b)?,
                _ => vec!["end of the trace"],
            };
            let number = |item: &Option<Item>| item.map(|item| item.number);
            let event = number(&next_a).or(number(&next_b)).unwrap_or(0);
            if !fields.is_empty() {
                let event_b = number(&next_b);
                let (a, b) = (next_a.as_ref().map(text), next_b.as_ref().map(text));
                return Ok(Some(Difference { event, event_b, fields, a, b }));
            }
            if event.is_multiple_of(PROGRESS_EVENTS) {
                progress(event);
            }
        }
    }

    fn fields(&mut self, a: &Item, b: &Item) -> Result<Vec<&'static str>> {
        let mut fields = self.event_fields(&a.event, &b.event)?;
        let len = match &a.event {
            Event::Issue(issue) => Some(issue.len),
            _ => None,
        };
        match (&a.answer, &b.answer) {
            (Some(a), Some(b)) => {
                if !self.same_time(a.time, b.time) {
                    fields.push("time of the answer");
                }
                self.answer_fields(a, b, len, &mut fields)?;
            }
            (None, None) => {}
            _ => fields.push("an answer"),
        }
        Ok(fields)
    }

    /// Whether two times are the same, in the unit and from the origin that are asked for.
    fn same_time(&self, a: Nanos, b: Nanos) -> bool {
        let unit = self.ignored.time_unit;
        let whole = |time: Nanos, first: u64| (time.0 / unit).wrapping_sub(first / unit);
        self.ignored.has(Field::Time)
            || whole(a, self.first_times.0) == whole(b, self.first_times.1)
    }

    fn answer_fields(
        &mut self,
        a: &Complete,
        b: &Complete,
        len: Option<u64>,
        fields: &mut Vec<&'static str>,
    ) -> Result<()> {
        if a.status != b.status && !self.ignored.has(Field::Status) {
            fields.push("status");
        }
        if !self.ignored.has(Field::Data) {
            let same = match len {
                Some(len) => self.same_payload(a.payload, b.payload, len)?,
                // The request is not in the trace: nothing says how long its data is.
                None => a.payload == b.payload,
            };
            if !same {
                fields.push("payload");
            }
        }
        Ok(())
    }

    fn event_fields(&mut self, a: &Event, b: &Event) -> Result<Vec<&'static str>> {
        let mut fields = Vec::new();
        let ignored = self.ignored;
        let mut check = |name, field: Option<Field>, same: bool| {
            if !same && field.is_none_or(|field| !ignored.has(field)) {
                fields.push(name);
            }
        };
        check("time", None, self.same_time(a.time(), b.time()));
        match (a, b) {
            (Event::Issue(a), Event::Issue(b)) => {
                let stands_in = ignored.has(Field::Zeroes) && is_zeroes_as_write(a.op, b.op);
                check("op", None, a.op == b.op || stands_in);
                check("offset", None, a.offset == b.offset);
                check("length", None, a.len == b.len);
                let mut left_out = left_out(ignored);
                if stands_in {
                    // A write has no UNMAP, and its zeros may stand there as data.
                    left_out |= OpFlags::UNMAP;
                }
                check("flags", Some(Field::Flags), a.flags - left_out == b.flags - left_out);
                check("tag", Some(Field::Tag), a.tag == b.tag);
                check("stream", Some(Field::Stream), a.stream == b.stream);
                check("cpu", Some(Field::Cpu), a.cpu == b.cpu);
                if !ignored.has(Field::Data) && !stands_in {
                    let same = a.len == b.len && self.same_payload(a.payload, b.payload, a.len)?;
                    check("payload", None, same);
                }
                self.lengths.issue(a.stream, a.tag, a.len);
            }
            (Event::Complete(a), Event::Complete(b)) => {
                check("tag", Some(Field::Tag), a.tag == b.tag);
                check("stream", Some(Field::Stream), a.stream == b.stream);
                let len = self.lengths.complete(a.stream, a.tag);
                self.answer_fields(a, b, len, &mut fields)?;
            }
            (Event::Mark(a), Event::Mark(b)) => {
                check("stream", Some(Field::Stream), a.stream == b.stream);
                if !ignored.has(Field::Text) {
                    let same = a.text_len == b.text_len
                        && self.same_payload(a.text, b.text, a.text_len)?;
                    check("text", None, same);
                }
            }
            _ => fields.extend(self.bus_fields(a, b)?),
        }
        Ok(fields)
    }

    fn bus_fields(&mut self, a: &Event, b: &Event) -> Result<Vec<&'static str>> {
        let mut fields = Vec::new();
        let ignored = self.ignored;
        let mut check = |name, field: Option<Field>, same: bool| {
            if !same && field.is_none_or(|field| !ignored.has(field)) {
                fields.push(name);
            }
        };
        match (a, b) {
            (Event::Bus(a), Event::Bus(b)) => {
                let kind = |access: &BusAccess| (access.space, access.write);
                let value = (!a.access.write).then_some(Field::Value);
                check("access", None, kind(&a.access) == kind(&b.access));
                check("address", None, a.access.addr == b.access.addr);
                check("size", None, a.access.size == b.access.size);
                check("value", value, a.access.value == b.access.value);
                check("cpu", Some(Field::Cpu), a.cpu == b.cpu);
            }
            (Event::Memory(a), Event::Memory(b)) => {
                check("op", None, a.op == b.op);
                check("address", None, a.addr == b.addr);
                check("length", None, a.len == b.len);
                check("fill", None, a.fill == b.fill);
                if !ignored.has(Field::Data) {
                    let same = a.len == b.len && self.same_payload(a.payload, b.payload, a.len)?;
                    check("payload", None, same);
                }
            }
            (Event::Irq(a), Event::Irq(b)) => {
                check("line", None, a.line == b.line);
                check("level", None, a.high == b.high);
            }
            (Event::Ack(a), Event::Ack(b)) => {
                check("cpu", Some(Field::Cpu), a.cpu == b.cpu);
                check("vector", None, a.vector == b.vector);
            }
            (Event::Clock(a), Event::Clock(b)) => {
                check("clock", Some(Field::Time), self.same_time(a.to, b.to));
            }
            _ => return Ok(vec!["kind"]),
        }
        check("stream", Some(Field::Stream), a.stream() == b.stream());
        Ok(fields)
    }

    fn same_payload(&mut self, a: PayloadRef, b: PayloadRef, len: u64) -> Result<bool> {
        if a == PayloadRef::Absent || b == PayloadRef::Absent {
            return Ok(a == b);
        }
        if self.equal.contains(&(a, b, len)) {
            return Ok(true);
        }
        let mut at = 0;
        while at < len {
            let n = usize::try_from(len - at).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            let (buf_a, buf_b) = (&mut self.bufs.0[..n], &mut self.bufs.1[..n]);
            self.a.read_payload(a, len, at, buf_a)?;
            self.b.read_payload(b, len, at, buf_b)?;
            if buf_a != buf_b {
                return Ok(false);
            }
            at += n as u64;
        }
        if self.equal.len() >= PAIRS_MAX {
            self.equal.clear();
        }
        self.equal.insert((a, b, len));
        Ok(true)
    }
}

/// Whether one of the two is a write-zeroes and the other a write.
fn is_zeroes_as_write(a: BlockOp, b: BlockOp) -> bool {
    let is = |a, b| a == BlockOp::WriteZeroes && b == BlockOp::Write;
    is(a, b) || is(b, a)
}

/// The flags that are not compared, though others are.
fn left_out(ignored: &Ignored) -> OpFlags {
    let mut flags = OpFlags::empty();
    flags.set(OpFlags::SYNC | OpFlags::META | OpFlags::RAHEAD, ignored.has(Field::Hints));
    flags.set(OpFlags::UNMAP, ignored.has(Field::Unmap));
    flags
}

fn text(item: &Item) -> String {
    match &item.answer {
        Some(answer) => {
            format!(
                "{}; answered at {} with status {}",
                describe(&item.event),
                answer.time,
                answer.status
            )
        }
        None => describe(&item.event),
    }
}
