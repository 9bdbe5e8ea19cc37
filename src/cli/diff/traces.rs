//! Two traces: everything but who wrote them and how they were read.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;

use serde::Serialize;

use super::Outcome;
use crate::base::{BlockOp, BusAccess, Result};
use crate::report::text::table;
use crate::trace::{BusTotals, Complete, Event, Issue, PayloadRef, StreamId, Trace};

/// Payload bytes compared at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Pairs of equal payloads remembered.
const PAIRS_MAX: usize = 1 << 16;

/// Requests in flight whose length is remembered for their completions.
const IN_FLIGHT_MAX: usize = 1 << 20;

#[derive(Serialize)]
struct Json {
    schema: &'static str,
    kind: &'static str,
    a: Side,
    b: Side,
    identical: bool,
    /// What differs besides events.
    about: Vec<String>,
    first_difference: Option<Difference>,
}

#[derive(Serialize)]
struct Side {
    path: String,
    events: u64,
    ops: BTreeMap<&'static str, u64>,
    completes: u64,
    marks: u64,
    /// Port and memory-mapped accesses.
    bus_reads: u64,
    bus_writes: u64,
    memory: u64,
    irqs: u64,
    steps: u64,
}

/// The first event that differs.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Difference {
    event: u64,
    /// The fields that differ.
    fields: Vec<&'static str>,
    a: Option<String>,
    b: Option<String>,
}

/// Compares them.
pub fn compare(a: &Trace, b: &Trace, progress: &mut dyn FnMut(u64)) -> Result<Outcome> {
    let about = about(a, b);
    let first = Walk::new(a, b).first_difference(progress)?;
    let identical = about.is_empty() && first.is_none();
    let (side_a, side_b) = (side(a), side(b));
    let mut text = counts(&side_a, &side_b);
    for line in &about {
        let _ = writeln!(text, "{line}");
    }
    if let Some(first) = &first {
        let _ =
            writeln!(text, "first differing event: {} ({})", first.event, first.fields.join(", "));
        for (name, event) in [("A", &first.a), ("B", &first.b)] {
            let _ = writeln!(text, "  {name}  {}", event.as_deref().unwrap_or("(no such event)"));
        }
    }
    let _ = writeln!(
        text,
        "{}",
        if identical { "the traces are identical" } else { "the traces differ" }
    );
    let json = Json {
        schema: super::SCHEMA,
        kind: "traces",
        a: side_a,
        b: side_b,
        identical,
        about,
        first_difference: first,
    };
    Outcome::new(text, &json, u8::from(!identical))
}

fn side(trace: &Trace) -> Side {
    let sum = |index: usize| trace.totals().iter().map(|t| t.issues[index]).sum();
    let mut bus = BusTotals::default();
    trace.totals().iter().for_each(|totals| bus.merge(&totals.bus));
    Side {
        path: trace.path().display().to_string(),
        events: trace.events(),
        ops: BlockOp::ALL.into_iter().map(|op| (op.name(), sum(op.index()))).collect(),
        completes: trace.totals().iter().map(|t| t.completes).sum(),
        marks: trace.totals().iter().map(|t| t.marks).sum(),
        bus_reads: bus.reads(),
        bus_writes: bus.writes(),
        memory: sum_of(&bus.memory),
        irqs: sum_of(&bus.irqs).saturating_add(bus.acks),
        steps: bus.steps,
    }
}

fn sum_of(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
}

fn counts(a: &Side, b: &Side) -> String {
    let mut out = format!("A  {}\nB  {}\n\n", a.path, b.path);
    let row = |name: &str, a: u64, b: u64| {
        vec![
            name.to_owned(),
            a.to_string(),
            b.to_string(),
            if a == b { "" } else { "differs" }.to_owned(),
        ]
    };
    let mut rows = vec![vec![String::new(), "A".to_owned(), "B".to_owned(), String::new()]];
    rows.push(row("events", a.events, b.events));
    for (name, count) in &a.ops {
        rows.push(row(name, *count, b.ops.get(name).copied().unwrap_or(0)));
    }
    rows.push(row("completions", a.completes, b.completes));
    rows.push(row("marks", a.marks, b.marks));
    rows.push(row("bus reads", a.bus_reads, b.bus_reads));
    rows.push(row("bus writes", a.bus_writes, b.bus_writes));
    rows.push(row("memory events", a.memory, b.memory));
    rows.push(row("interrupts", a.irqs, b.irqs));
    rows.push(row("clock steps", a.steps, b.steps));
    rows.retain(|row| row.get(1..3) != Some(&["0".to_owned(), "0".to_owned()]));
    out.push_str(&table(&rows));
    out.push('\n');
    out
}

/// What differs in the words about the whole.
fn about(a: &Trace, b: &Trace) -> Vec<String> {
    let mut lines = Vec::new();
    let mut check = |what: &str, a: String, b: String| {
        if a != b {
            lines.push(format!("{what} differs: {a} | {b}"));
        }
    };
    check("source format", a.header().source_format.clone(), b.header().source_format.clone());
    let origin = |trace: &Trace| {
        trace.header().origin_unix_ns.map_or("unknown".to_owned(), |ns| format!("{ns} ns"))
    };
    check("time origin", origin(a), origin(b));
    let lacks = |trace: &Trace| trace.summary().not_recorded.names().join(" ");
    check("what is not recorded", lacks(a), lacks(b));
    let losses = |trace: &Trace| {
        let rows = trace.summary().losses.iter().map(|l| format!("{} {}", l.count, l.reason));
        rows.collect::<Vec<_>>().join(", ")
    };
    check("what was lost", losses(a), losses(b));
    check("number of streams", a.streams().len().to_string(), b.streams().len().to_string());
    for (number, (a, b)) in a.streams().iter().zip(b.streams()).enumerate() {
        check(&format!("stream {number}"), format!("{a:?}"), format!("{b:?}"));
    }
    lines
}

/// Both traces, event by event.
struct Walk<'a> {
    a: &'a Trace,
    b: &'a Trace,
    /// Lengths of requests in flight: a completion does not say how long its payload is.
    lengths: HashMap<(StreamId, u64), u64>,
    equal: HashSet<(PayloadRef, PayloadRef, u64)>,
    bufs: (Vec<u8>, Vec<u8>),
}

impl<'a> Walk<'a> {
    fn new(a: &'a Trace, b: &'a Trace) -> Self {
        let bufs = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
        Self { a, b, lengths: HashMap::new(), equal: HashSet::new(), bufs }
    }

    fn first_difference(mut self, progress: &mut dyn FnMut(u64)) -> Result<Option<Difference>> {
        let (mut a, mut b) = (self.a.cursor(0), self.b.cursor(0));
        for event in 0.. {
            let (next_a, next_b) = (a.next()?.map(|(_, e)| e), b.next()?.map(|(_, e)| e));
            let fields = match (&next_a, &next_b) {
                (None, None) => return Ok(None),
                (Some(a), Some(b)) => self.fields(a, b)?,
                _ => vec!["end of the trace"],
            };
            if !fields.is_empty() {
                let (a, b) = (next_a.as_ref().map(describe), next_b.as_ref().map(describe));
                return Ok(Some(Difference { event, fields, a, b }));
            }
            if event % 4096 == 0 {
                progress(event);
            }
        }
        Ok(None)
    }

    fn fields(&mut self, a: &Event, b: &Event) -> Result<Vec<&'static str>> {
        let mut fields = Vec::new();
        let mut check = |name, same: bool| {
            if !same {
                fields.push(name);
            }
        };
        check("time", a.time() == b.time());
        match (a, b) {
            (Event::Issue(a), Event::Issue(b)) => {
                self.remember(a);
                check("op", a.op == b.op);
                check("offset", a.offset == b.offset);
                check("length", a.len == b.len);
                check("flags", a.flags == b.flags);
                check("tag", a.tag == b.tag);
                check("stream", a.stream == b.stream);
                check("cpu", a.cpu == b.cpu);
                check("payload", a.len == b.len && self.same_payload(a.payload, b.payload, a.len)?);
            }
            (Event::Complete(a), Event::Complete(b)) => {
                check("tag", a.tag == b.tag);
                check("stream", a.stream == b.stream);
                check("status", a.status == b.status);
                let same = match self.lengths.remove(&(a.stream, a.tag)) {
                    Some(len) => self.same_payload(a.payload, b.payload, len)?,
                    // The request is not in the trace: nothing says how long its data is.
                    None => a.payload == b.payload,
                };
                check("payload", same);
            }
            (Event::Mark(a), Event::Mark(b)) => {
                check("stream", a.stream == b.stream);
                let same = a.text_len == b.text_len;
                check("text", same && self.same_payload(a.text, b.text, a.text_len)?);
            }
            _ => fields.extend(self.bus_fields(a, b)?),
        }
        Ok(fields)
    }

    fn bus_fields(&mut self, a: &Event, b: &Event) -> Result<Vec<&'static str>> {
        let mut fields = Vec::new();
        let mut check = |name, same: bool| {
            if !same {
                fields.push(name);
            }
        };
        match (a, b) {
            (Event::Bus(a), Event::Bus(b)) => {
                let kind = |access: &BusAccess| (access.space, access.write);
                check("access", kind(&a.access) == kind(&b.access));
                check("address", a.access.addr == b.access.addr);
                check("size", a.access.size == b.access.size);
                check("value", a.access.value == b.access.value);
                check("cpu", a.cpu == b.cpu);
            }
            (Event::Memory(a), Event::Memory(b)) => {
                check("op", a.op == b.op);
                check("address", a.addr == b.addr);
                check("length", a.len == b.len);
                check("fill", a.fill == b.fill);
                check("payload", a.len == b.len && self.same_payload(a.payload, b.payload, a.len)?);
            }
            (Event::Irq(a), Event::Irq(b)) => {
                check("line", a.line == b.line);
                check("level", a.high == b.high);
            }
            (Event::Ack(a), Event::Ack(b)) => {
                check("cpu", a.cpu == b.cpu);
                check("vector", a.vector == b.vector);
            }
            (Event::Clock(a), Event::Clock(b)) => check("clock", a.to == b.to),
            _ => return Ok(vec!["kind"]),
        }
        check("stream", a.stream() == b.stream());
        Ok(fields)
    }

    fn remember(&mut self, issue: &Issue) {
        if self.lengths.len() >= IN_FLIGHT_MAX {
            self.lengths.clear();
        }
        self.lengths.insert((issue.stream, issue.tag), issue.len);
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

/// An event on a line.
fn describe(event: &Event) -> String {
    let payload = |payload: PayloadRef| match payload {
        PayloadRef::Absent => "",
        PayloadRef::Stored(_) => ", with data",
    };
    match event {
        Event::Issue(issue) => {
            let Issue { time, tag, stream, op, flags, offset, len, .. } = issue;
            let flags = match flags.names() {
                names if names.is_empty() => names,
                names => format!(" {names}"),
            };
            format!(
                "{time}: {op}{flags} of {len} bytes at offset {offset}, tag {tag}, stream {}{}",
                stream.0,
                payload(issue.payload)
            )
        }
        Event::Complete(Complete { time, tag, stream, status, payload: data }) => {
            format!(
                "{time}: completion of tag {tag}, stream {}, status {status}{}",
                stream.0,
                payload(*data)
            )
        }
        Event::Mark(mark) => {
            format!("{}: mark of {} bytes, stream {}", mark.time, mark.text_len, mark.stream.0)
        }
        event => describe_bus(event, &payload),
    }
}

/// An event of a bus on a line.
fn describe_bus(event: &Event, payload: &dyn Fn(PayloadRef) -> &'static str) -> String {
    let what = match event {
        Event::Bus(bus) => {
            let BusAccess { space, write, addr, size, value } = bus.access;
            let (verb, to) = if write { ("write of", "to") } else { ("read of", "from") };
            format!("{verb} {value:#x}/{size} {to} {} {addr:#x}", space.name())
        }
        Event::Memory(memory) => {
            let data = payload(memory.payload);
            let fill =
                if memory.fill == 0 { String::new() } else { format!(" with {}", memory.fill) };
            format!(
                "memory {}{fill} of {} bytes at {:#x}{data}",
                memory.op.name(),
                memory.len,
                memory.addr
            )
        }
        Event::Irq(irq) => {
            format!("interrupt {} {}", irq.line, if irq.high { "fired" } else { "went low" })
        }
        Event::Ack(ack) => match ack.vector {
            Some(vector) => format!("CPU {} took vector {vector:#x}", ack.cpu),
            None => format!("CPU {} found no interrupt", ack.cpu),
        },
        Event::Clock(step) => format!("clock stepped to {}", step.to),
        Event::Issue(_) | Event::Complete(_) | Event::Mark(_) => String::new(),
    };
    format!("{}: {what}, stream {}", event.time(), event.stream().0)
}
