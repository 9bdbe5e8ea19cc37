//! What the exporters' tests share: a trace made by hand, and its export in memory.

use super::registry::Exporter;
use super::{ExportOptions, ExportReport, export};
use crate::base::{BlockOp, Nanos, OpFlags, Result};
use crate::trace::{
    Complete, Event, Filter, Issue, Mark, NotRecorded, PayloadRef, StreamId, StreamInfo, Trace,
    TraceHeader, TraceSummary, TraceWriter,
};

/// A trace to be.
pub struct Made {
    pub header: TraceHeader,
    pub not_recorded: NotRecorded,
    pub filter: Filter,
    devices: Vec<String>,
    payloads: Vec<Vec<u8>>,
    events: Vec<Event>,
}

impl Made {
    /// A trace of streams with these devices.
    pub fn new(devices: &[&str]) -> Self {
        Self {
            header: TraceHeader::default(),
            not_recorded: NotRecorded::empty(),
            filter: Filter::default(),
            devices: devices.iter().map(|device| (*device).to_owned()).collect(),
            payloads: Vec::new(),
            events: Vec::new(),
        }
    }

    pub fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Data that events may name.
    pub fn payload(&mut self, data: &[u8]) -> PayloadRef {
        self.payloads.push(data.to_vec());
        PayloadRef::Stored(self.payloads.len() as u32)
    }

    pub fn mark(&mut self, text: &str) {
        let payload = self.payload(text.as_bytes());
        let (time, stream, text_len) = (Nanos(0), StreamId(0), text.len() as u64);
        self.event(Event::Mark(Mark { time, stream, text: payload, text_len }));
    }

    /// The trace, in a folder of its own.
    pub fn write(&self) -> (tempfile::TempDir, Trace) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.qtrace");
        let mut writer = TraceWriter::create(&path, self.header.clone()).unwrap();
        for device in &self.devices {
            let device = device.clone();
            writer.stream(StreamInfo { device, ..StreamInfo::default() }).unwrap();
        }
        for (number, data) in (1..).zip(&self.payloads) {
            assert_eq!(writer.payload(data).unwrap(), PayloadRef::Stored(number));
        }
        self.events.iter().for_each(|event| writer.event(event).unwrap());
        let not_recorded = self.not_recorded;
        writer.finish(TraceSummary { not_recorded, ..TraceSummary::default() }).unwrap();
        let trace = Trace::open(&path).unwrap();
        (dir, trace)
    }

    /// What is exported, when it is text, and the report.
    pub fn export(
        &self,
        exporter: &dyn Exporter,
        options: &ExportOptions,
    ) -> (Option<String>, Result<ExportReport>) {
        let (bytes, report) = self.export_bytes(exporter, options);
        (bytes.map(|bytes| String::from_utf8(bytes).unwrap()), report)
    }

    /// What is exported, and the report.
    pub fn export_bytes(
        &self,
        exporter: &dyn Exporter,
        options: &ExportOptions,
    ) -> (Option<Vec<u8>>, Result<ExportReport>) {
        let (_dir, trace) = self.write();
        let mut out = Vec::new();
        let filter = self.filter.clone();
        let report = export(&trace, filter, exporter, options, (&mut out, "memory"), &mut |_| ());
        (report.is_ok().then_some(out), report)
    }
}

/// A request without flags, data and CPU, of tag 0.
pub fn issue(time: u64, stream: u32, op: BlockOp, offset: u64, len: u64) -> Issue {
    let (time, stream, flags) = (Nanos(time), StreamId(stream), OpFlags::empty());
    Issue { time, tag: 0, stream, op, flags, offset, len, payload: PayloadRef::Absent, cpu: None }
}

/// A completion without data.
pub fn complete(time: u64, stream: u32, tag: u64) -> Complete {
    let (time, stream, payload) = (Nanos(time), StreamId(stream), PayloadRef::Absent);
    Complete { time, tag, stream, status: 0, payload }
}
