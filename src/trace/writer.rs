//! Writing a trace: bounded memory, whole frames, nothing under the final name before it is done,
//! unless it is recorded live.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use tempfile::TempPath;
use zerocopy::IntoBytes;

use super::dedup::Collector;
use super::event::{
    Complete, Event, Issue, PayloadRef, StreamId, StreamInfo, StreamTotals, TraceHeader,
    TraceSummary,
};
use super::format::{
    FrameHeader, KIND_EVENTS, KIND_HEADER, KIND_INDEX, KIND_STREAM, KIND_SUMMARY, KIND_TRAILER,
    PAYLOAD_BYTES_MAX, PAYLOAD_DATA, PAYLOAD_LIST, Record, RecordBounds, TRAILER_BYTES, Trailer,
    body_limit, meta,
};
use super::index::{Index, SummaryBody};
use super::sink::{CREATE_MODE, Sink};
use crate::base::error::IoContext;
use crate::base::limits::{
    FRAME_EVENTS_MAX, PAYLOAD_FRAME_BYTES, PAYLOAD_PIECE_BYTES, STREAMS_MAX,
};
use crate::base::{Error, Result};

/// Longest name of a device, and what all of them may take: they are held in memory.
const DEVICE_NAME_BYTES_MAX: usize = 4096;
/// See [`DEVICE_NAME_BYTES_MAX`].
const DEVICE_NAMES_BYTES_MAX: usize = 64 << 20;

/// How a trace that stands under its name at once is made.
#[derive(Clone, Copy, Debug)]
pub struct LiveOptions {
    /// A trace that is there is replaced, and so is an empty file; else that is an error.
    pub replace: bool,
    /// Who may read and write it, before the umask.
    pub mode: u32,
}

impl Default for LiveOptions {
    fn default() -> Self {
        Self { replace: false, mode: CREATE_MODE }
    }
}

/// Writes one trace. Nothing stands under its name until [`TraceWriter::finish`]; a writer that
/// is dropped before leaves nothing behind. One made by [`TraceWriter::create_live`] is the
/// exception.
pub struct TraceWriter {
    sink: Sink,
    collector: Collector,
    index: Index,
    streams: Vec<StreamInfo>,
    names_bytes: usize,
    totals: Vec<StreamTotals>,
    /// Records waiting for their frame.
    records: Vec<Record>,
    events: u64,
    time_min: u64,
    time_max: u64,
}

impl TraceWriter {
    /// Begins a trace at `path`; a file that is there stays until [`TraceWriter::finish`].
    ///
    /// # Errors
    /// `Usage` when `path` cannot be a trace's name, `Incomplete` when its folder cannot be
    /// written to.
    pub fn create(path: &Path, header: TraceHeader) -> Result<Self> {
        Self::create_with(path, header, CREATE_MODE)
    }

    fn create_with(path: &Path, header: TraceHeader, mode: u32) -> Result<Self> {
        let sink = Sink::create(path, mode)?;
        let collector = Collector::new().writing(path, "cannot prepare the compressor")?;
        let mut writer = Self {
            sink,
            collector,
            index: Index::default(),
            streams: Vec::new(),
            names_bytes: 0,
            totals: Vec::new(),
            records: Vec::with_capacity(FRAME_EVENTS_MAX),
            events: 0,
            time_min: u64::MAX,
            time_max: 0,
        };
        writer.metadata(KIND_HEADER, &header)?;
        Ok(writer)
    }

    /// Begins a trace that stands under its name at once and can be opened from then on: whatever
    /// ends the program, the frames written so far are there, and a reader says that the trace is
    /// incomplete. A file that is there is an error, or is [replaced](TraceWriter::replaced).
    ///
    /// # Errors
    /// Those of [`TraceWriter::create`]; `Usage` when the file exists and is not to be replaced, or
    /// is no trace.
    pub fn create_live(path: &Path, header: TraceHeader, options: LiveOptions) -> Result<Self> {
        let writer = Self::create_with(path, header, options.mode)?;
        Ok(Self { sink: writer.sink.publish(options.replace)?, ..writer })
    }

    /// The trace that this one replaced, under a temporary name beside it: it goes when this is
    /// dropped, and may be put back before. `None` from the second call on.
    pub fn replaced(&mut self) -> Option<TempPath> {
        self.sink.replaced.take()
    }

    /// Frames are checked, summed up and written by a thread of their own from now on, until the
    /// first payload comes: those stored are read back to compare others with them. A write that
    /// fails may be told by a later call; [`TraceWriter::finish`] tells in any case. For what is not
    /// [live](TraceWriter::create_live).
    ///
    /// # Errors
    /// `Incomplete` when the system has no thread to give.
    pub fn write_behind(&mut self) -> Result<()> {
        self.sink.write_behind()
    }

    /// Another handle of the file, by which what was written can be made durable elsewhere than
    /// where it is written.
    ///
    /// # Errors
    /// `Incomplete` when there are no more descriptors.
    pub fn file(&self) -> Result<File> {
        self.sink.file().try_clone().writing(self.sink.path(), "cannot share the trace's file")
    }

    /// Bytes written to the file so far.
    pub fn file_bytes(&self) -> u64 {
        self.sink.at()
    }

    /// Payloads are compressed at this level of zstd from now on; negative ones are faster.
    ///
    /// # Errors
    /// `Incomplete` when zstd refuses.
    pub fn set_compression(&mut self, level: i32) -> Result<()> {
        let set = self.collector.set_level(level);
        set.writing(self.sink.path(), "cannot prepare the compressor")
    }

    /// Adds a stream; ids count up from 0.
    ///
    /// # Errors
    /// `Input` when there are more streams, or longer names, than a trace can hold.
    pub fn stream(&mut self, info: StreamInfo) -> Result<StreamId> {
        self.names_bytes += info.device.len();
        if info.device.len() > DEVICE_NAME_BYTES_MAX || self.names_bytes > DEVICE_NAMES_BYTES_MAX {
            return Err(self.refuse("device names are too long"));
        }
        if self.streams.len() >= STREAMS_MAX {
            return Err(self.refuse(&format!("a trace has at most {STREAMS_MAX} streams")));
        }
        self.metadata(KIND_STREAM, &info)?;
        let id = StreamId(self.streams.len() as u32);
        self.streams.push(info);
        self.totals.push(StreamTotals::default());
        Ok(id)
    }

    /// Stores `data`, once however often it comes, and returns what an event refers to it by.
    /// Nothing is [`PayloadRef::Absent`].
    ///
    /// # Errors
    /// `Incomplete` when the file cannot be written, `Input` past [`PAYLOAD_BYTES_MAX`].
    pub fn payload(&mut self, data: &[u8]) -> Result<PayloadRef> {
        if data.len() <= PAYLOAD_PIECE_BYTES {
            return self.store(PAYLOAD_DATA, data);
        }
        self.payload_from(data.len() as u64, &mut &data[..])
    }

    /// As [`TraceWriter::payload`], for data that need not fit in memory.
    ///
    /// # Errors
    /// Those of [`TraceWriter::payload`]; `Input` when `source` fails or ends before `len` bytes.
    pub fn payload_from(&mut self, len: u64, source: &mut dyn Read) -> Result<PayloadRef> {
        if len > PAYLOAD_BYTES_MAX {
            return Err(self.refuse(&format!("a payload of {len} bytes is too long")));
        }
        let mut list = Vec::new();
        let mut buf = vec![0; len.min(PAYLOAD_PIECE_BYTES as u64) as usize];
        let mut left = len;
        while left > 0 {
            let piece = &mut buf[..left.min(PAYLOAD_PIECE_BYTES as u64) as usize];
            source.read_exact(piece).map_err(|e| {
                Error::input(format!("the source ends {left} bytes before its payload does"))
                    .source(e)
            })?;
            left -= piece.len() as u64;
            let stored = self.store(PAYLOAD_DATA, piece)?;
            if len <= PAYLOAD_PIECE_BYTES as u64 {
                return Ok(stored);
            }
            list.extend_from_slice(&stored.to_raw().to_le_bytes());
        }
        self.store(PAYLOAD_LIST, &list)
    }

    /// Appends an event.
    ///
    /// # Errors
    /// `Input` for an event that refers to a stream or payload that the trace does not have or
    /// names an impossible range; `Incomplete` when the file cannot be written.
    pub fn event(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Issue(issue) => self.issue(issue),
            Event::Complete(complete) => self.complete(complete),
            other => {
                let record = Record::encode(other, self.bounds());
                let record = record.map_err(|why| self.refuse_event(why))?;
                if let Some(totals) = self.totals.get_mut(record.stream.get() as usize) {
                    totals.add(other);
                }
                self.record(record)
            }
        }
    }

    /// Appends an issue.
    ///
    /// # Errors
    /// Those of [`TraceWriter::event`].
    #[inline]
    pub fn issue(&mut self, issue: &Issue) -> Result<()> {
        self.bounds().check_issue(issue).map_err(|why| self.refuse_event(why))?;
        if let Some(totals) = self.totals.get_mut(issue.stream.0 as usize) {
            totals.add_issue(issue);
        }
        self.record(Record::issue(issue))
    }

    /// Appends a completion.
    ///
    /// # Errors
    /// Those of [`TraceWriter::event`].
    #[inline]
    pub fn complete(&mut self, complete: &Complete) -> Result<()> {
        self.bounds().check_complete(complete).map_err(|why| self.refuse_event(why))?;
        if let Some(totals) = self.totals.get_mut(complete.stream.0 as usize) {
            totals.completes += 1;
        }
        self.record(Record::complete(complete))
    }

    #[inline]
    fn record(&mut self, record: Record) -> Result<()> {
        let time = record.time.get();
        self.records.push(record);
        self.time_min = self.time_min.min(time);
        self.time_max = self.time_max.max(time);
        self.events += 1;
        if self.records.len() >= FRAME_EVENTS_MAX { self.flush_events() } else { Ok(()) }
    }

    #[inline]
    fn bounds(&self) -> RecordBounds {
        let streams = self.streams.len() as u32;
        RecordBounds { streams, next_payload: self.collector.next() }
    }

    #[cold]
    fn refuse_event(&self, why: &str) -> Error {
        self.refuse(&format!("event {} has {why}", self.events))
    }

    /// Events appended so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Writes what waits in memory as whole frames, so that a reader of what is in the file by now
    /// finds every event. For recorders; a file of many small frames takes more space.
    ///
    /// # Errors
    /// `Incomplete` when the file cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        self.flush_events()?;
        self.flush_payloads()
    }

    /// For a live trace that cannot be written on (a full disk): writes as many of the events that
    /// wait, and of `more`, as there is room for and whose data is in the file, which stays one
    /// that is cut short.
    pub fn salvage(&mut self, more: &mut dyn Iterator<Item = Event>) {
        let next_payload = self.collector.first();
        let bounds = RecordBounds { streams: self.streams.len() as u32, next_payload };
        for event in more {
            let Ok(record) = Record::encode(&event, bounds) else { break };
            self.records.push(record);
        }
        let whole = self.records.iter().take_while(|record| record.decode(bounds).is_ok());
        let records: Vec<Record> = whole.take(FRAME_EVENTS_MAX).copied().collect();
        self.collector.forget();
        let mut room = records.len();
        // What did not fit as a frame of data is larger than most frames of events.
        while room > 0 && self.sink.try_again() {
            self.records = records.get(..room).unwrap_or_default().to_vec();
            let times = records.iter().take(room).map(|record| record.time.get());
            self.time_min = times.clone().min().unwrap_or_default();
            self.time_max = times.max().unwrap_or_default();
            if self.flush_events().is_ok() {
                break;
            }
            room /= 2;
        }
        self.sink.break_off();
    }

    /// Writes what is left, makes the file durable and gives it its name. The totals in `summary`
    /// are replaced with the writer's own.
    ///
    /// # Errors
    /// `Incomplete` when that fails; nothing is left behind then.
    pub fn finish(mut self, summary: TraceSummary) -> Result<()> {
        self.close(summary)?;
        self.sink.commit()
    }

    /// As [`TraceWriter::finish`], but the trace keeps its temporary name and goes when that is
    /// dropped: for one that is to be written again in another order.
    ///
    /// # Errors
    /// As [`TraceWriter::finish`].
    pub fn finish_unnamed(mut self, summary: TraceSummary) -> Result<TempPath> {
        self.close(summary)?;
        self.sink.into_temporary()
    }

    fn close(&mut self, mut summary: TraceSummary) -> Result<()> {
        self.flush()?;
        summary.streams = std::mem::take(&mut self.totals);
        let streams = std::mem::take(&mut self.streams);
        let body = SummaryBody { summary, streams }.encode();
        self.index.summary_offset = self.metadata_frame(KIND_SUMMARY, body)?;
        let index = std::mem::take(&mut self.index);
        let index_offset = self.metadata(KIND_INDEX, &index)?;
        let trailer = Trailer {
            index_offset: index_offset.into(),
            file_len: (self.sink.at() + TRAILER_BYTES as u64).into(),
        };
        self.sink.frame(&mut FrameHeader::new(KIND_TRAILER, 1), &[trailer.as_bytes()])?;
        Ok(())
    }

    fn store(&mut self, kind: u32, data: &[u8]) -> Result<PayloadRef> {
        if data.is_empty() {
            return Ok(PayloadRef::Absent);
        }
        self.sink.catch_up()?;
        let entry = Collector::describe(kind, data);
        let known = self
            .collector
            .find(&entry, self.sink.file(), &self.index)
            .writing(self.sink.path(), "cannot read back what was written")?;
        if let Some(number) = known {
            return Ok(PayloadRef::Stored(number));
        }
        if self.collector.is_full_for(data.len()) {
            self.flush_payloads()?;
        }
        // One that fills a frame is written from where it is.
        let alone = data.len() >= PAYLOAD_FRAME_BYTES;
        let number = match alone {
            true => self.collector.add_alone(entry),
            false => self.collector.add(entry, data),
        };
        let number =
            number.ok_or_else(|| self.refuse("a trace has at most 2^32 distinct payloads"))?;
        if alone {
            self.write_payloads(Some(data))?;
        }
        Ok(PayloadRef::Stored(number))
    }

    fn flush_payloads(&mut self) -> Result<()> {
        if self.collector.is_empty() { Ok(()) } else { self.write_payloads(None) }
    }

    /// Writes the frame of the payloads that wait, or of the one that is `alone`.
    fn write_payloads(&mut self, alone: Option<&[u8]>) -> Result<()> {
        let framed = self.collector.frame(alone);
        let (mut header, parts) = framed.writing(self.sink.path(), "cannot compress a payload")?;
        header.event = self.index.events.into();
        let offset = self.sink.frame(&mut header, &parts)?;
        drop(parts);
        self.collector.written();
        let added = self.index.add_payloads(offset, &header);
        added.map_err(|why| self.too_large(&why))
    }

    fn flush_events(&mut self) -> Result<()> {
        if self.records.is_empty() {
            return Ok(());
        }
        self.flush_payloads()?;
        let mut header = FrameHeader::new(KIND_EVENTS, self.records.len() as u32);
        header.event = self.index.events.into();
        header.payload = self.collector.next().into();
        header.time_min = self.time_min.into();
        header.time_max = self.time_max.into();
        let offset = self.sink.records(&mut header, &mut self.records)?;
        (self.time_min, self.time_max) = (u64::MAX, 0);
        let added = self.index.add_events(offset, &header);
        added.map_err(|why| self.too_large(&why))
    }

    /// Writes a bincode frame.
    fn metadata<T: serde::Serialize>(&mut self, kind: u16, value: &T) -> Result<u64> {
        self.metadata_frame(kind, meta::encode(value))
    }

    fn metadata_frame(&mut self, kind: u16, body: Result<Vec<u8>, String>) -> Result<u64> {
        let body = body.map_err(|why| self.too_large(&why))?;
        if body.len() as u64 > body_limit(kind) {
            return Err(self.too_large("its description is too long"));
        }
        let mut header = FrameHeader::new(kind, 1);
        header.event = self.index.events.into();
        header.payload = self.collector.next().into();
        self.sink.frame(&mut header, &[&body])
    }

    #[cold]
    fn refuse(&self, what: &str) -> Error {
        Error::input(format!("cannot be stored in a trace: {what}")).path(self.sink.path())
    }

    #[cold]
    fn too_large(&mut self, why: &str) -> Error {
        self.sink.break_off();
        Error::incomplete(format!("the trace is too large: {why}")).path(self.sink.path())
    }
}
