//! What the importers' tests share: an in-memory sink and the sample files.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use super::job::Sink;
use super::source::{Meter, Source};
use super::{ImportOptions, ImportReport, run};
use crate::base::{BlockOp, BusAccess, Error, Nanos, OpFlags, Result};
use crate::trace::{Event, Issue, PayloadRef, StreamId, StreamInfo, TraceHeader};

/// Keeps everything.
#[derive(Debug, Default)]
pub struct Memory {
    pub header: Option<TraceHeader>,
    pub streams: Vec<StreamInfo>,
    pub events: Vec<Event>,
    pub payloads: Vec<Vec<u8>>,
}

impl Memory {
    pub fn issues(&self) -> Vec<Issue> {
        let issue = |event: &Event| match event {
            Event::Issue(issue) => Some(*issue),
            _ => None,
        };
        self.events.iter().filter_map(issue).collect()
    }

    /// Time, operation, offset and length of each issue.
    pub fn issues_brief(&self) -> Vec<(u64, BlockOp, u64, u64)> {
        self.issues().iter().map(|i| (i.time.0, i.op, i.offset, i.len)).collect()
    }

    /// Issues of `op` with exactly `flags` among `mask`.
    pub fn count(&self, op: BlockOp, mask: OpFlags, flags: OpFlags) -> usize {
        self.issues().iter().filter(|i| i.op == op && i.flags & mask == flags).count()
    }

    /// Each access to the bus, with the name of its stream and its time.
    pub fn accesses(&self) -> Vec<(&str, u64, BusAccess)> {
        let access = |event: &Event| match event {
            Event::Bus(bus) => Some((self.stream_name(event), bus.time.0, bus.access)),
            _ => None,
        };
        self.events.iter().filter_map(access).collect()
    }

    /// The name of an event's stream.
    pub fn stream_name(&self, event: &Event) -> &str {
        &self.streams[event.stream().0 as usize].device
    }

    /// Tag, time and status of each completion.
    pub fn completes(&self) -> Vec<(u64, u64, u16)> {
        let complete = |event: &Event| match event {
            Event::Complete(c) => Some((c.tag, c.time.0, c.status)),
            _ => None,
        };
        self.events.iter().filter_map(complete).collect()
    }

    /// Texts of the marks.
    pub fn marks(&self) -> Vec<(u64, String)> {
        let mark = |event: &Event| match event {
            Event::Mark(m) => {
                Some((m.time.0, String::from_utf8(self.data(m.text).to_vec()).unwrap()))
            }
            _ => None,
        };
        self.events.iter().filter_map(mark).collect()
    }

    /// A payload.
    pub fn data(&self, payload: PayloadRef) -> &[u8] {
        match payload {
            PayloadRef::Absent => &[],
            PayloadRef::Stored(number) => &self.payloads[number as usize - 1],
        }
    }
}

impl Sink for Memory {
    fn begin(&mut self, header: TraceHeader) -> Result<()> {
        assert!(self.header.replace(header).is_none(), "begun twice");
        Ok(())
    }

    fn stream(&mut self, info: StreamInfo) -> Result<StreamId> {
        assert!(self.header.is_some());
        self.streams.push(info);
        Ok(StreamId(self.streams.len() as u32 - 1))
    }

    fn payload(&mut self, data: &[u8]) -> Result<PayloadRef> {
        assert!(self.header.is_some());
        self.payloads.push(data.to_vec());
        Ok(PayloadRef::Stored(self.payloads.len() as u32))
    }

    fn payload_from(&mut self, len: u64, source: &mut dyn Read) -> Result<PayloadRef> {
        let mut data = Vec::new();
        let read = source.take(len).read_to_end(&mut data);
        let read = read.map_err(|error| Error::input("source failed").source(error))?;
        if read as u64 != len {
            return Err(Error::input("the source is short"));
        }
        self.payload(&data)
    }

    fn event(&mut self, event: &Event) -> Result<()> {
        assert!(self.header.is_some());
        self.events.push(*event);
        Ok(())
    }

    fn earlier_origin(&mut self, by: Nanos) -> Result<()> {
        let header = self.header.as_mut().unwrap();
        header.origin_unix_ns = header.origin_unix_ns.map(|origin| origin - by.0);
        for event in &mut self.events {
            event.set_time(Nanos(event.time().0 + by.0));
        }
        Ok(())
    }
}

/// Imports several inputs, given as name and content.
pub fn import_many(
    inputs: &[(&str, &[u8])],
    options: &ImportOptions,
) -> Result<(ImportReport, Memory)> {
    let sources: Result<Vec<_>> = inputs
        .iter()
        .map(|(name, data)| Source::from_read(name.into(), Box::new(Cursor::new(data.to_vec()))))
        .collect();
    let mut memory = Memory::default();
    let report = run(sources?, options, Meter::default(), &mut memory, &mut |_| {})?;
    assert_eq!(report.events, memory.events.len() as u64);
    Ok((report, memory))
}

/// Imports one input.
pub fn import_with(data: &[u8], options: &ImportOptions) -> Result<(ImportReport, Memory)> {
    import_many(&[("test-input", data)], options)
}

/// Imports one input with the default options.
pub fn import_bytes(data: &[u8]) -> Result<(ImportReport, Memory)> {
    import_with(data, &ImportOptions::default())
}

/// The folder of real samples, when this machine has it.
pub fn sample_folder() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.ancestors().skip(1).take(3).map(|up| up.join("shared/data")).find(|p| p.is_dir())
}

/// A real sample's bytes; `None`, with the reason printed, where there is none.
pub fn sample(name: &str) -> Option<Vec<u8>> {
    let path = sample_folder().map(|folder| folder.join(name));
    match path.and_then(|path| std::fs::read(path).ok()) {
        Some(data) => Some(data),
        None => {
            eprintln!("skipped: no sample {name} beside this checkout");
            None
        }
    }
}

/// A real sample's bytes, decompressed.
pub fn plain_sample(name: &str) -> Option<Vec<u8>> {
    let data = sample(name)?;
    let mut source = Source::from_read(name.into(), Box::new(Cursor::new(data))).unwrap();
    let mut plain = Vec::new();
    source.read_to_end(&mut plain).unwrap();
    Some(plain)
}

/// Reason, count and first place of each loss.
pub fn losses(report: &ImportReport) -> Vec<(&str, u64, &str)> {
    let losses = report.summary.losses.iter();
    losses.map(|loss| (loss.reason.as_str(), loss.count, loss.first.as_str())).collect()
}
