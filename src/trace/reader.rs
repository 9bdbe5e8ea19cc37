//! Reading a trace: opened through its footer, records read in place from a map of the file.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use zerocopy::FromBytes;

use super::cursor::Cursor;
use super::event::{Event, PayloadRef, StreamInfo, StreamTotals, TraceHeader, TraceSummary};
use super::filter::Span;
use super::format::{
    FRAME_HEADER_BYTES, KIND_EVENTS, KIND_HEADER, MAGIC, MAJOR, MINOR, PREAMBLE_BYTES, Preamble,
    RECORD_BYTES, Record, RecordBounds, UNKNOWN_KIND, meta,
};
use super::index::{self, Frame, Index, PayloadTotals, SummaryBody};
use super::map::Map;
use super::payload::PayloadStore;
use super::scan;
use crate::base::error::{IoContext, Place};
use crate::base::{Error, Nanos, Result};

/// Random accesses after which the pages that they touched are given back: some 64 KiB each.
const ACCESSES_PER_RELEASE: u32 = 128;

/// Where and why a trace ends before its file says it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncation {
    /// End of the last whole frame.
    pub offset: u64,
    /// Bytes after it that could not be used.
    pub bytes_lost: u64,
    /// What was wrong, in words.
    pub why: String,
}

/// An open trace. Threads share it in an [`Arc`].
#[derive(Debug)]
pub struct Trace {
    path: PathBuf,
    file: File,
    map: Map,
    /// Of the format that the file is in.
    minor: u16,
    header: TraceHeader,
    body: SummaryBody,
    index: Index,
    truncation: Option<Truncation>,
    /// Per events frame: its CRC was right when it was first touched.
    checked: Box<[AtomicBool]>,
    payloads: PayloadStore,
    accesses: AtomicU32,
}

/// The records of an events frame that has been checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Records {
    /// File offset of the first one.
    pub(super) start: usize,
    /// File offset past the last one.
    pub(super) end: usize,
    /// Event number of the first one.
    pub(super) first: u64,
    pub(super) bounds: RecordBounds,
}

impl Trace {
    /// Opens a trace. One that was cut short or has a damaged end is read up to its last whole
    /// frame: see [`Trace::truncation`].
    ///
    /// The file is mapped: it must not be truncated by another program while it is open.
    ///
    /// # Errors
    /// `Input` for anything that is not a trace, has a damaged start, or a newer format.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with(path, &mut |_| ())
    }

    /// As [`Trace::open`]; `progress` gets the offset reached when a lost index is rebuilt, which
    /// takes a pass over the whole file.
    ///
    /// # Errors
    /// Those of [`Trace::open`].
    pub fn open_with(path: &Path, progress: &mut dyn FnMut(u64)) -> Result<Self> {
        // Without O_NONBLOCK, opening a FIFO waits for a writer; regular files ignore it.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = file.reading(path, "cannot open the trace")?;
        check_file(&file, path)?;
        let map = Map::new(&file, path)?;
        let minor = check_preamble(map.bytes()).map_err(|e| e.path(path))?;
        let (header, start) = read_header(map.bytes()).map_err(|why| {
            Error::input(format!("the start of the trace is damaged: {why}"))
                .path(path)
                .at(Place::Offset(PREAMBLE_BYTES as u64))
        })?;
        let (body, index, truncation) = match index::load(map.bytes()) {
            Ok((body, index)) => (body, index, None),
            Err(footer) => recover(&map, start, &header, &footer, progress)
                .map_err(|kind| newer_frame(kind).path(path))?,
        };
        let checked = index.event_frames.iter().map(|_| AtomicBool::new(false)).collect();
        let payloads = PayloadStore::new();
        let (path, accesses) = (path.to_path_buf(), AtomicU32::new(0));
        Ok(Self {
            path,
            file,
            map,
            minor,
            header,
            body,
            index,
            truncation,
            checked,
            payloads,
            accesses,
        })
    }

    /// Whether a file that starts with `first_bytes` is a trace.
    pub fn probe(first_bytes: &[u8]) -> bool {
        first_bytes.starts_with(&MAGIC)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length of the file in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.map.len()
    }

    /// What was known when the trace was begun.
    pub fn header(&self) -> &TraceHeader {
        &self.header
    }

    /// What was known when it was finished. Where the end of the file is lost: what the header
    /// says is not recorded, and totals that were counted again.
    pub fn summary(&self) -> &TraceSummary {
        &self.body.summary
    }

    /// The streams, by [`StreamId`](super::StreamId).
    pub fn streams(&self) -> &[StreamInfo] {
        &self.body.streams
    }

    /// Totals of each stream.
    pub fn totals(&self) -> &[StreamTotals] {
        &self.body.summary.streams
    }

    /// Number of events.
    pub fn events(&self) -> u64 {
        self.index.events
    }

    /// What the payload store holds.
    pub fn payload_totals(&self) -> PayloadTotals {
        self.index.payloads
    }

    /// The least and the greatest time of any event; `None` when there is none.
    pub fn time_span(&self) -> Option<(Nanos, Nanos)> {
        let min = self.index.event_frames.iter().map(|frame| frame.time_min).min()?;
        let max = self.index.event_frames.iter().map(|frame| frame.time_max).max()?;
        Some((Nanos(min), Nanos(max)))
    }

    /// Where and why it ends early, if it does.
    pub fn truncation(&self) -> Option<&Truncation> {
        self.truncation.as_ref()
    }

    /// Streams events in order, beginning with number `from_event`.
    pub fn cursor(&self, from_event: u64) -> Cursor<'_> {
        Cursor::borrowed(self, from_event)
    }

    /// As [`Trace::cursor`], for a cursor that is kept beside the trace.
    pub fn shared_cursor(trace: &Arc<Self>, from_event: u64) -> Cursor<'static> {
        Cursor::shared(Arc::clone(trace), from_event)
    }

    /// One event.
    ///
    /// # Errors
    /// `Input` when it is damaged or there is none of that number.
    pub fn event(&self, number: u64) -> Result<Event> {
        let (at, _) = self.index.event_frame(number).ok_or_else(|| {
            Error::input(format!("the trace has only {} events", self.events()))
                .path(&self.path)
                .at(Place::Event(number))
        })?;
        let records = self.records(at)?;
        let offset = records.start + (number - records.first) as usize * RECORD_BYTES;
        let event = self.decode(offset, number, records.bounds);
        let accesses = self.accesses.fetch_add(1, Ordering::Relaxed);
        if accesses % ACCESSES_PER_RELEASE == ACCESSES_PER_RELEASE - 1 {
            self.map.release(0, self.map.len());
        }
        event
    }

    /// Number of the first event at or after `time`; [`Trace::events`] when there is none.
    ///
    /// # Errors
    /// `Input` when the frame that holds it is damaged.
    pub fn seek_time(&self, time: Nanos) -> Result<u64> {
        let Some(at) = self.index.event_frames.iter().position(|f| f.time_max >= time.0) else {
            return Ok(self.events());
        };
        let records = self.records(at)?;
        for (number, offset) in
            (records.first..).zip((records.start..records.end).step_by(RECORD_BYTES))
        {
            if self.record(offset).is_some_and(|record| record.time.get() >= time.0) {
                return Ok(number);
            }
        }
        Ok(records.first + ((records.end - records.start) / RECORD_BYTES) as u64)
    }

    /// Copies bytes `from..from + buf.len()` of `payload` to `buf`. `total_len` is its whole
    /// length: the `len` of the issue, or of the issue that a completion answers.
    ///
    /// # Errors
    /// `Input` when it is absent, damaged, or not of that length.
    pub fn read_payload(
        &self,
        payload: PayloadRef,
        total_len: u64,
        from: u64,
        buf: &mut [u8],
    ) -> Result<()> {
        let PayloadRef::Stored(number) = payload else {
            return Err(Error::input("this payload was not recorded").path(&self.path));
        };
        self.payloads
            .read(&self.file, &self.index, number, total_len, from, buf)
            .map_err(|why| Error::input(format!("cannot read a payload: {why}")).path(&self.path))
    }

    /// The frame of index `at`, its CRC checked once.
    pub(super) fn records(&self, at: usize) -> Result<Records> {
        let (Some(entry), Some(checked)) = (self.index.event_frames.get(at), self.checked.get(at))
        else {
            return Err(Error::input("an events frame beyond the last").path(&self.path));
        };
        let fail = |why: String| {
            Error::input(format!("a frame of events is damaged: {why}"))
                .path(&self.path)
                .at(Place::Event(entry.first))
                .at(Place::Offset(entry.offset))
                .hint("events before it can still be replayed: give a window that ends there")
        };
        let frame = Frame::of_kind(self.map.bytes(), entry.offset, KIND_EVENTS).map_err(fail)?;
        let body = if checked.load(Ordering::Relaxed) {
            frame.unchecked_body()
        } else {
            frame.body().map_err(fail)?
        };
        let header = frame.header;
        if header.event.get() != entry.first
            || header.count.get() != entry.count
            || body.len() as u64 != u64::from(entry.count) * RECORD_BYTES as u64
        {
            return Err(fail("it is not the frame that the index says".into()));
        }
        checked.store(true, Ordering::Relaxed);
        let start = entry.offset as usize + FRAME_HEADER_BYTES;
        let next_payload = header.payload.get().min(self.index.payloads.count + 1);
        let bounds = RecordBounds { streams: self.streams().len() as u32, next_payload };
        Ok(Records { start, end: start + body.len(), first: entry.first, bounds })
    }

    /// The index of the frame that holds event `number`.
    pub(super) fn frame_of(&self, number: u64) -> Option<usize> {
        self.index.event_frame(number).map(|(at, _)| at)
    }

    /// Number of events frames.
    pub(super) fn frames(&self) -> usize {
        self.index.event_frames.len()
    }

    /// Whether there is a frame of index `at` and all of it lies outside `times`.
    pub(super) fn frame_outside(&self, at: usize, times: Span) -> bool {
        let frame = self.index.event_frames.get(at);
        frame.is_some_and(|f| f.time_max < times.from || !times.holds(f.time_min.max(times.from)))
    }

    pub(super) fn map(&self) -> &Map {
        &self.map
    }

    #[inline]
    fn record(&self, offset: usize) -> Option<&Record> {
        Record::ref_from_prefix(self.map.bytes().get(offset..)?).ok().map(|(record, _)| record)
    }

    /// The event in the record at `offset`.
    #[inline]
    pub(super) fn decode(&self, offset: usize, number: u64, bounds: RecordBounds) -> Result<Event> {
        match self.record(offset) {
            Some(record) => match record.decode(bounds) {
                Ok(event) => Ok(event),
                Err(why) => Err(self.bad_record(offset, number, why)),
            },
            None => Err(self.bad_record(offset, number, "its record outside the file")),
        }
    }

    #[cold]
    fn bad_record(&self, offset: usize, number: u64, why: &str) -> Error {
        let error = if why == UNKNOWN_KIND && self.minor > MINOR {
            let ours = env!("CARGO_PKG_VERSION");
            Error::input(format!(
                "{why}: the trace is in format {MAJOR}.{}; this is qtrace {ours}, which reads format {MAJOR}.{MINOR}",
                self.minor
            ))
            .hint("read it with the qtrace that wrote it, or a later one")
        } else {
            Error::input(format!("the record has {why}"))
        };
        error.path(&self.path).at(Place::Event(number)).at(Place::Offset(offset as u64))
    }
}

fn check_file(file: &File, path: &Path) -> Result<()> {
    let metadata = file.metadata().reading(path, "cannot examine the trace")?;
    if metadata.is_dir() {
        return Err(Error::input("is a folder, not a trace").path(path));
    }
    if !metadata.is_file() {
        return Err(Error::input("is not a regular file")
            .path(path)
            .hint("a .qtrace is read in place; copy it to a file first"));
    }
    if metadata.len() == 0 {
        return Err(Error::input("the file is empty").path(path));
    }
    Ok(())
}

/// The minor version.
fn check_preamble(bytes: &[u8]) -> Result<u16> {
    if !Trace::probe(bytes) && !MAGIC.starts_with(bytes) {
        return Err(Error::input("not a .qtrace file")
            .hint("import it first: qtrace import FILE -o OUT.qtrace"));
    }
    let Ok((preamble, _)) = Preamble::ref_from_prefix(bytes) else {
        return Err(Error::input("the trace was cut before its header"));
    };
    if preamble.crc.get() != preamble.computed_crc() {
        return Err(Error::input("the start of the trace is damaged").at(Place::Offset(0)));
    }
    let (major, minor) = (preamble.major.get(), preamble.minor.get());
    if major == MAJOR {
        return Ok(minor);
    }
    let [a, b, c] = preamble.reader_version.map(|part| part.get());
    let ours = env!("CARGO_PKG_VERSION");
    Err(Error::input(format!(
        "trace format {major}.{minor}; this is qtrace {ours}, which reads format {MAJOR}"
    ))
    .hint(format!("qtrace {a}.{b}.{c} or later reads it")))
}

fn read_header(bytes: &[u8]) -> Result<(TraceHeader, u64), String> {
    let at = PREAMBLE_BYTES as u64;
    let frame = Frame::of_kind(bytes, at, KIND_HEADER)?;
    Ok((meta::decode(frame.body()?)?, frame.end(at)))
}

type Recovered = (SummaryBody, Index, Option<Truncation>);

fn recover(
    map: &Map,
    start: u64,
    header: &TraceHeader,
    footer: &str,
    progress: &mut dyn FnMut(u64),
) -> Result<Recovered, u16> {
    let found = scan::rebuild(map, start, header, progress)?;
    let truncation = Truncation {
        offset: found.end,
        bytes_lost: map.len() - found.end,
        why: found.stopped.unwrap_or_else(|| footer.to_owned()),
    };
    Ok((found.body, found.index, Some(truncation)))
}

fn newer_frame(kind: u16) -> Error {
    let ours = env!("CARGO_PKG_VERSION");
    Error::input(format!("the trace has a frame of kind {kind}, which qtrace {ours} cannot read"))
        .hint("read it with the qtrace that wrote it, or a later one")
}
