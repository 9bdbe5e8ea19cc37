//! Tests of the container as a whole; those of one part stand beside it.

mod bus_damage;
mod compat;
mod damage;
mod round_trip;

use std::path::{Path, PathBuf};

use super::*;
use crate::base::{BlockOp, BusAccess, BusSpace, Nanos, OpFlags, Prng, Result};

/// A folder that goes away, and a name in it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

fn header() -> TraceHeader {
    TraceHeader {
        tool: "qtrace 0.1.0".into(),
        source_format: "made up".into(),
        interpretation: vec!["unit: sectors".into()],
        origin_unix_ns: Some(1_700_000_000_000_000_000),
        not_recorded: NotRecorded::CPUS,
    }
}

fn summary() -> TraceSummary {
    TraceSummary {
        not_recorded: NotRecorded::CPUS | NotRecorded::READ_DATA,
        losses: vec![Loss { reason: "bad line".into(), count: 2, first: "line 7".into() }],
        notes: vec!["times were microseconds".into()],
        streams: Vec::new(),
    }
}

fn stream(device: &str) -> StreamInfo {
    StreamInfo {
        device: device.into(),
        queue: Some(3),
        device_bytes: Some(1 << 30),
        block_bytes: None,
    }
}

fn issue(number: u64, payload: PayloadRef) -> Event {
    Event::Issue(Issue {
        time: Nanos(number * 1_000),
        tag: number,
        stream: StreamId(0),
        op: if number.is_multiple_of(3) { BlockOp::Read } else { BlockOp::Write },
        flags: if number.is_multiple_of(7) { OpFlags::FUA } else { OpFlags::empty() },
        offset: number % 1000 * 4096,
        len: 4096,
        payload,
        cpu: None,
    })
}

/// A trace of `count` events of one stream, every fifth with one of eleven payloads.
fn write(path: &Path, count: u64) -> Result<Vec<Event>> {
    let mut writer = TraceWriter::create(path, header())?;
    writer.stream(stream("vda"))?;
    let mut events = Vec::new();
    for number in 0..count {
        let payload = match number % 5 {
            1 => writer.payload(&content(number % 11, 4096))?,
            _ => PayloadRef::Absent,
        };
        let event = issue(number, payload);
        writer.event(&event)?;
        events.push(event);
    }
    assert_eq!(writer.events(), count);
    writer.finish(summary())?;
    Ok(events)
}

fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Prng::new(seed).fill(&mut bytes);
    bytes
}

/// Every event from `from` on.
fn collect(trace: &Trace, from: u64) -> Result<Vec<Event>> {
    let mut cursor = trace.cursor(from);
    let mut events = Vec::new();
    while let Some((number, event)) = cursor.next()? {
        assert_eq!(number, from + events.len() as u64);
        events.push(event);
    }
    Ok(events)
}
