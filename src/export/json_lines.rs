//! Events as JSON, one object a line: every field that the trace has, and no other.
//!
//! ```text
//! {"event":0,"time_ns":0,"stream":0,"kind":"issue","op":"write","flags":["fua"],"offset":4096,
//!  "len":512,"tag":7,"cpu":1,"payload":true}
//! {"event":1,"time_ns":9,"stream":0,"kind":"complete","tag":7,"status":0}
//! ```
//!
//! | kind | members |
//! |---|---|
//! | `issue` | `op`, `flags` (when there are any), `offset` and `len` (bytes; when the operation has a range), `tag`, `cpu` (when known), `payload` (when there is data) |
//! | `complete` | `tag`, `status` (0 or a Linux errno), `payload` |
//! | `mark` | `text`, and `text_bytes_left` when it is longer than shown |
//! | `bus` | `space` (`port`, `mmio`), `write`, `addr`, `size`, `value`, `cpu` (when known) |
//! | `memory` | `op` (`write`, `fill`, `read`), `addr`, `len`, `fill` (of a fill), `payload` |
//! | `irq` | `line`, `high` |
//! | `ack` | `cpu`, `vector` (when one was taken) |
//! | `clock` | `to_ns` |
//!
//! The first line of an export is about the trace: `{"schema":"qtrace.events/1","source":…,
//! "origin_unix_ns":…,"not_recorded":[…],"streams":[…]}`.
//!
//! Data, when it is asked for, is `data` in hexadecimal; `data_bytes_left` says what was left off.

use std::io::Write as _;

use serde::Serialize;

use super::job::Job;
use super::registry::Exporter;
use crate::base::{BlockOp, Error, Result};
use crate::trace::{Event, InFlight, Issue, MemoryOp, PayloadRef, StreamInfo};

/// Data of one event that is exported; the rest of a longer one is left off, and counted.
const DATA_BYTES_MAX: u64 = 16 << 20;

/// Bytes of a mark's text that are exported.
pub(super) const TEXT_BYTES_MAX: u64 = 64 << 10;

/// The exporter.
pub struct JsonLines;

/// The first line.
#[derive(Serialize)]
struct Head<'t> {
    schema: &'static str,
    source: &'t str,
    origin_unix_ns: Option<u64>,
    not_recorded: Vec<String>,
    streams: &'t [StreamInfo],
}

impl Exporter for JsonLines {
    fn name(&self) -> &'static str {
        "json-lines"
    }

    fn description(&self) -> &'static str {
        "every event as a JSON object on a line; --data: with its data"
    }

    fn endings(&self) -> &'static [&'static str] {
        &["jsonl", "ndjson"]
    }

    fn options(&self) -> &'static [&'static str] {
        &["--data"]
    }

    fn lacks(&self) -> Option<&'static str> {
        None
    }

    fn export(&self, job: &mut Job<'_>) -> Result<()> {
        let trace = job.trace;
        let head = Head {
            schema: "qtrace.events/1",
            source: &trace.header().source_format,
            origin_unix_ns: trace.header().origin_unix_ns,
            not_recorded: trace.summary().not_recorded.names(),
            streams: trace.streams(),
        };
        let head = serde_json::to_string(&head)
            .map_err(|error| Error::incomplete("cannot write it as JSON").source(error))?;
        job.write(head.as_bytes())?;
        job.write(b"\n")?;
        let mut lengths = InFlight::default();
        let (mut line, mut bytes) = (Vec::new(), Vec::new());
        let mut events = job.events();
        while let Some((number, event)) = events.next(job)? {
            let (payload, total, most) = payload_of(&event, &mut lengths, job.options.data);
            bytes.clear();
            let has_data = payload != PayloadRef::Absent;
            if has_data && most > 0 {
                bytes.resize(usize::try_from(total.min(most)).unwrap_or(0), 0);
                trace.read_payload(payload, total, 0, &mut bytes)?;
            }
            if has_data && (bytes.len() as u64) < total {
                job.lose(
                    if most == 0 { "data (--data writes it)" } else { "rest of long data" },
                    number,
                );
            }
            let data = (has_data && most > 0).then_some(Data { bytes: &bytes, total });
            line.clear();
            append(&mut line, number, &event, data);
            job.record(&line)?;
        }
        Ok(())
    }
}

/// The data of an event, its length, and how much of it is written.
fn payload_of(event: &Event, lengths: &mut InFlight<u64>, data: bool) -> (PayloadRef, u64, u64) {
    let most = if data { DATA_BYTES_MAX } else { 0 };
    match event {
        Event::Issue(issue) => {
            lengths.issue(issue.stream, issue.tag, issue.len);
            (issue.payload, issue.len, most)
        }
        Event::Complete(complete) => match lengths.complete(complete.stream, complete.tag) {
            Some(len) => (complete.payload, len, most),
            // Nothing says how long its data is.
            None => (PayloadRef::Absent, 0, 0),
        },
        Event::Mark(mark) => (mark.text, mark.text_len, TEXT_BYTES_MAX),
        Event::Memory(memory) => (memory.payload, memory.len, most),
        _ => (PayloadRef::Absent, 0, 0),
    }
}

/// Bytes of a payload, or the beginning of it.
#[derive(Clone, Copy, Debug)]
pub struct Data<'a> {
    /// The first bytes.
    pub bytes: &'a [u8],
    /// How many there are in all.
    pub total: u64,
}

/// Appends the line of `event`, which has `number`. `data` is its payload; for a mark its text.
pub fn append(out: &mut Vec<u8>, number: u64, event: &Event, data: Option<Data<'_>>) {
    let (time, stream) = (event.time().0, event.stream().0);
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{{\"event\":{number},\"time_ns\":{time},\"stream\":{stream},\"kind\":\"");
    match event {
        Event::Issue(issue) => append_issue(out, issue),
        Event::Complete(complete) => {
            let (tag, status) = (complete.tag, complete.status);
            let _ = write!(out, "complete\",\"tag\":{tag},\"status\":{status}");
            append_payload(out, complete.payload);
        }
        Event::Mark(_) => {
            out.extend_from_slice(b"mark\",\"text\":");
            let text = String::from_utf8_lossy(data.map_or(b"", |data| data.bytes));
            let _ = serde_json::to_writer(&mut *out, &text);
            let left = data.map_or(0, |data| data.total.saturating_sub(data.bytes.len() as u64));
            if left > 0 {
                let _ = write!(out, ",\"text_bytes_left\":{left}");
            }
        }
        event => append_bus(out, event),
    }
    if let (Some(data), false) = (data, matches!(event, Event::Mark(_))) {
        append_data(out, data);
    }
    out.extend_from_slice(b"}\n");
}

fn append_issue(out: &mut Vec<u8>, issue: &Issue) {
    let _ = write!(out, "issue\",\"op\":\"{}\"", issue.op.name());
    if !issue.flags.is_empty() {
        out.extend_from_slice(b",\"flags\":[");
        for (n, (name, _)) in issue.flags.iter_names().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            let _ = write!(out, "{comma}\"{}\"", name.to_lowercase());
        }
        out.push(b']');
    }
    if has_place(issue) {
        let _ = write!(out, ",\"offset\":{},\"len\":{}", issue.offset, issue.len);
    }
    let _ = write!(out, ",\"tag\":{}", issue.tag);
    append_cpu(out, issue.cpu);
    append_payload(out, issue.payload);
}

/// Whether offset and length of a request mean anything.
pub(super) fn has_place(issue: &Issue) -> bool {
    issue.op.has_range() || issue.op == BlockOp::GetId && issue.len > 0
}

fn append_bus(out: &mut Vec<u8>, event: &Event) {
    let _ = match event {
        Event::Bus(bus) => {
            let access = bus.access;
            let (space, write) = (access.space.name(), access.write);
            let (addr, size, value) = (access.addr, access.size, access.value);
            let _ = write!(
                out,
                "bus\",\"space\":\"{space}\",\"write\":{write},\"addr\":{addr},\"size\":{size},\"value\":{value}"
            );
            append_cpu(out, bus.cpu);
            Ok(())
        }
        Event::Memory(memory) => {
            let (op, addr, len) = (memory.op.name(), memory.addr, memory.len);
            let _ = write!(out, "memory\",\"op\":\"{op}\",\"addr\":{addr},\"len\":{len}");
            if memory.op == MemoryOp::Fill {
                let _ = write!(out, ",\"fill\":{}", memory.fill);
            }
            append_payload(out, memory.payload);
            Ok(())
        }
        Event::Irq(irq) => write!(out, "irq\",\"line\":{},\"high\":{}", irq.line, irq.high),
        Event::Ack(ack) => {
            let _ = write!(out, "ack\",\"cpu\":{}", ack.cpu);
            ack.vector.map_or(Ok(()), |vector| write!(out, ",\"vector\":{vector}"))
        }
        Event::Clock(step) => write!(out, "clock\",\"to_ns\":{}", step.to.0),
        Event::Issue(_) | Event::Complete(_) | Event::Mark(_) => Ok(()),
    };
}

fn append_cpu(out: &mut Vec<u8>, cpu: Option<u16>) {
    if let Some(cpu) = cpu {
        let _ = write!(out, ",\"cpu\":{cpu}");
    }
}

fn append_payload(out: &mut Vec<u8>, payload: PayloadRef) {
    if payload != PayloadRef::Absent {
        out.extend_from_slice(b",\"payload\":true");
    }
}

fn append_data(out: &mut Vec<u8>, data: Data<'_>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b",\"data\":\"");
    for byte in data.bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
    out.push(b'"');
    let left = data.total.saturating_sub(data.bytes.len() as u64);
    if left > 0 {
        let _ = write!(out, ",\"data_bytes_left\":{left}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BusAccess, BusSpace, Nanos, OpFlags};
    use crate::trace::{
        AckEvent, BusEvent, ClockStep, Complete, IrqChange, Mark, MemoryEvent, StreamId,
    };

    fn line(event: &Event, data: Option<&[u8]>) -> serde_json::Value {
        let mut out = Vec::new();
        let data = data.map(|bytes| Data { bytes, total: bytes.len() as u64 + 1 });
        append(&mut out, 3, event, data);
        assert_eq!(out.pop(), Some(b'\n'));
        serde_json::from_slice(&out).expect("JSON")
    }

    #[test]
    fn each_kind_is_an_object_with_what_it_has() {
        let (time, stream) = (Nanos(9), StreamId(1));
        let base = |mut rest: serde_json::Value| {
            rest["event"] = 3.into();
            rest["time_ns"] = 9.into();
            rest["stream"] = 1.into();
            rest
        };
        let issue = Issue {
            time,
            tag: u64::MAX,
            stream,
            op: BlockOp::WriteZeroes,
            flags: OpFlags::FUA | OpFlags::UNMAP,
            offset: 4096,
            len: 512,
            payload: PayloadRef::Stored(1),
            cpu: Some(2),
        };
        let access = BusAccess { space: BusSpace::Pio, write: true, addr: 0x70, size: 1, value: 5 };
        let payload = PayloadRef::Absent;
        let memory =
            MemoryEvent { time, stream, op: MemoryOp::Fill, addr: 1, len: 2, fill: 3, payload };
        for (event, want) in [
            (
                Event::Issue(issue),
                serde_json::json!({"kind": "issue", "op": "write-zeroes", "flags": ["fua", "unmap"],
                    "offset": 4096, "len": 512, "tag": u64::MAX, "cpu": 2, "payload": true}),
            ),
            (
                Event::Issue(Issue {
                    op: BlockOp::Flush,
                    flags: OpFlags::empty(),
                    offset: 0,
                    len: 0,
                    payload,
                    cpu: None,
                    tag: 4,
                    ..issue
                }),
                serde_json::json!({"kind": "issue", "op": "flush", "tag": 4}),
            ),
            (
                Event::Complete(Complete { time, tag: 4, stream, status: 5, payload }),
                serde_json::json!({"kind": "complete", "tag": 4, "status": 5}),
            ),
            (
                Event::Bus(BusEvent { time, stream, access, cpu: None }),
                serde_json::json!({"kind": "bus", "space": "port", "write": true, "addr": 0x70,
                    "size": 1, "value": 5}),
            ),
            (
                Event::Memory(memory),
                serde_json::json!({"kind": "memory", "op": "fill", "addr": 1, "len": 2, "fill": 3}),
            ),
            (
                Event::Irq(IrqChange { time, stream, line: 4, high: true }),
                serde_json::json!({"kind": "irq", "line": 4, "high": true}),
            ),
            (
                Event::Ack(AckEvent { time, stream, cpu: 0, vector: Some(48) }),
                serde_json::json!({"kind": "ack", "cpu": 0, "vector": 48}),
            ),
            (
                Event::Clock(ClockStep { time, stream, to: Nanos(10) }),
                serde_json::json!({"kind": "clock", "to_ns": 10}),
            ),
        ] {
            assert_eq!(line(&event, None), base(want));
        }
    }

    #[test]
    fn texts_are_escaped_and_data_is_hexadecimal() {
        let mark =
            Mark { time: Nanos(0), stream: StreamId(0), text: PayloadRef::Stored(1), text_len: 3 };
        assert_eq!(line(&Event::Mark(mark), Some(b"a\"\n"))["text"], "a\"\n");
        let complete = Complete {
            time: Nanos(0),
            tag: 0,
            stream: StreamId(0),
            status: 0,
            payload: PayloadRef::Stored(1),
        };
        let complete = line(&Event::Complete(complete), Some(&[0, 0x9f, 0xff]));
        assert_eq!(
            (&complete["data"], &complete["data_bytes_left"]),
            (&"009fff".into(), &1.into())
        );
    }
}
