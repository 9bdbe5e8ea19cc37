//! Two traces: everything but who wrote them and how they were read.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::Outcome;
use super::ignored::{Field, Ignored};
use super::walk::{Difference, Walk};
use crate::base::{BlockOp, Result};
use crate::report::lines::table;
use crate::trace::{BusTotals, Kinds, StreamInfo, Trace};

#[derive(Serialize)]
struct Json {
    schema: &'static str,
    kind: &'static str,
    a: Side,
    b: Side,
    /// What was not compared.
    ignored: Vec<String>,
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

/// Compares them, but for what is ignored.
pub fn compare(
    a: &Trace,
    b: &Trace,
    ignored: &Ignored,
    progress: &mut dyn FnMut(u64),
) -> Result<Outcome> {
    let about = about(a, b, ignored);
    let first = Walk::new(a, b, ignored).first_difference(progress)?;
    let identical = about.is_empty() && first.is_none();
    let (side_a, side_b) = (side(a), side(b));
    let mut text = counts(&side_a, &side_b, ignored);
    for line in &about {
        let _ = writeln!(text, "{line}");
    }
    if let Some(first) = &first {
        let b = match first.event_b {
            Some(b) if b != first.event => format!(", in B {b}"),
            _ => String::new(),
        };
        let fields = first.fields.join(", ");
        let _ = writeln!(text, "first differing event: {}{b} ({fields})", first.event);
        for (name, event) in [("A", &first.a), ("B", &first.b)] {
            let _ = writeln!(text, "  {name}  {}", event.as_deref().unwrap_or("(no such event)"));
        }
    }
    let verdict = if identical { "the traces are identical" } else { "the traces differ" };
    let words = ignored.words();
    let _ = match words.as_slice() {
        [] => writeln!(text, "{verdict}"),
        words => writeln!(text, "{verdict} (not compared: {})", words.join(", ")),
    };
    let json = Json {
        schema: super::SCHEMA,
        kind: "traces",
        a: side_a,
        b: side_b,
        ignored: words,
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

fn counts(a: &Side, b: &Side, ignored: &Ignored) -> String {
    let mut out = format!("A  {}\nB  {}\n\n", a.path, b.path);
    let row = |name: &str, kinds: Kinds, a: u64, b: u64| {
        let note = match a == b {
            true => "",
            false if ignored.kinds.contains(kinds) => "not compared",
            false => "differs",
        };
        vec![name.to_owned(), a.to_string(), b.to_string(), note.to_owned()]
    };
    let mut rows = vec![vec![String::new(), "A".to_owned(), "B".to_owned(), String::new()]];
    // What all of them are does not tell where some are not compared.
    let all = if ignored.kinds.is_empty() { Kinds::all() } else { Kinds::empty() };
    rows.push(row("events", all, a.events, b.events));
    let count = |side: &Side, op: BlockOp| side.ops.get(op.name()).copied().unwrap_or(0);
    // Those of both kinds together, where a write may stand for a write-zeroes.
    let written =
        |side| count(side, BlockOp::Write).saturating_add(count(side, BlockOp::WriteZeroes));
    let stand_in = ignored.has(Field::Zeroes) && written(a) == written(b);
    for op in BlockOp::ALL {
        let (count_a, count_b) = (count(a, op), count(b, op));
        let mut row = row(op.name(), Kinds::of_op(op), count_a, count_b);
        let is_writing = matches!(op, BlockOp::Write | BlockOp::WriteZeroes);
        if stand_in && is_writing && count_a != count_b {
            row.pop();
            row.push("compared as writes".to_owned());
        }
        rows.push(row);
    }
    // Those of requests that are not compared are not, either.
    let some = ignored.kinds.intersects(Kinds::REQUEST);
    let completes = if some { Kinds::empty() } else { Kinds::COMPLETE };
    rows.push(row("completions", completes, a.completes, b.completes));
    rows.push(row("marks", Kinds::MARK, a.marks, b.marks));
    rows.push(row("bus reads", Kinds::IN | Kinds::MMIO_READ, a.bus_reads, b.bus_reads));
    rows.push(row("bus writes", Kinds::OUT | Kinds::MMIO_WRITE, a.bus_writes, b.bus_writes));
    rows.push(row("memory events", Kinds::MEMORY, a.memory, b.memory));
    rows.push(row("interrupts", Kinds::IRQ | Kinds::ACK, a.irqs, b.irqs));
    rows.push(row("clock steps", Kinds::CLOCK, a.steps, b.steps));
    rows.retain(|row| row.get(1..3) != Some(&["0".to_owned(), "0".to_owned()]));
    out.push_str(&table(&rows));
    out.push('\n');
    out
}

/// What differs in the words about the whole.
fn about(a: &Trace, b: &Trace, ignored: &Ignored) -> Vec<String> {
    let mut lines = Vec::new();
    if !ignored.has(Field::Header) {
        about_headers(a, b, &mut lines);
    }
    if !ignored.has(Field::Stream) {
        about_streams(a, b, &mut lines);
    }
    lines
}

fn check(lines: &mut Vec<String>, what: &str, a: String, b: String) {
    if a != b {
        lines.push(format!("{what} differs: {a} | {b}"));
    }
}

fn about_headers(a: &Trace, b: &Trace, lines: &mut Vec<String>) {
    let mut check = |what, a, b| check(lines, what, a, b);
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
}

fn about_streams(a: &Trace, b: &Trace, lines: &mut Vec<String>) {
    let mut check = |what: &str, a, b| check(lines, what, a, b);
    check("number of streams", a.streams().len().to_string(), b.streams().len().to_string());
    for (number, (a, b)) in a.streams().iter().zip(b.streams()).enumerate() {
        check(&format!("stream {number}"), stream(a), stream(b));
    }
}

/// A stream in words.
fn stream(info: &StreamInfo) -> String {
    let StreamInfo { device, queue, device_bytes, block_bytes } = info;
    let mut parts = vec![format!("'{device}'")];
    parts.extend(queue.map(|queue| format!("queue {queue}")));
    parts.extend(device_bytes.map(|bytes| format!("{bytes} bytes")));
    parts.extend(block_bytes.map(|bytes| format!("blocks of {bytes}")));
    parts.join(", ")
}
