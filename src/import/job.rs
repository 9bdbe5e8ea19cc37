//! The seam between importers and where their events go.
//!
//! An importer talks to a [`Job`]; a job counts, checks and hands on to a [`Sink`]: a trace file,
//! or memory in tests.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use super::counts::Counts;
pub use super::sink::Sink;
use super::source::Meter;
use super::summary::{Summary, counted};
use crate::base::limits::{DISK_BYTES_MAX, STREAMS_MAX};
use crate::base::{BlockOp, Error, ErrorKind, Nanos, OpFlags, Result, SECTOR_SIZE};
use crate::trace::{
    BusEvent, Complete, Event, Issue, Mark, NotRecorded, PayloadRef, StreamId, StreamInfo,
    StreamTotals, TraceHeader,
};

/// A request as a source names it; see [`Job::issue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Nanoseconds since the time origin.
    pub time: Nanos,
    /// Joins it to its completion; unique among requests in flight.
    pub tag: u64,
    /// Device and queue.
    pub stream: StreamId,
    /// What is asked.
    pub op: BlockOp,
    /// Modifiers.
    pub flags: OpFlags,
    /// Byte offset.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// Data written.
    pub payload: PayloadRef,
    /// The CPU that issued it, where known.
    pub cpu: Option<u16>,
}

/// One import under way.
pub struct Job<'a> {
    sink: &'a mut dyn Sink,
    /// The header: importers fill it in until the first event.
    pub header: TraceHeader,
    /// What the trace lacks, for the final word; starts as a copy of the header's when it begins.
    pub not_recorded: NotRecorded,
    /// Losses and notes.
    pub summary: Summary,
    counts: Counts,
    begun: bool,
    /// Events may come out of order of time.
    any_order: bool,
    /// Streams named before the first event: the header is written with that.
    waiting: Vec<StreamInfo>,
    devices: HashMap<Vec<u8>, StreamId>,
    names_bytes: usize,
    device_wanted: Option<String>,
    /// What the format's traces are made of, for messages.
    yields: &'static str,
    /// The first names of devices that were not asked for, for the message when none was.
    devices_unwanted: Vec<String>,
    /// The last of them.
    unwanted_last: Vec<u8>,
    device_bytes: Option<u64>,
    /// Where the request that reaches furthest ends.
    end_bytes: u64,
    unaligned: u64,
    meter: Meter,
    progress: &'a mut dyn FnMut(u64),
    ticks: usize,
}

/// Events and records between two looks at the progress and the stop flag.
const TICKS_PER_LOOK: usize = 1024;

/// Devices, and characters of a name, in the message that the one asked for is not there.
const DEVICES_SHOWN: usize = 8;
const DEVICE_NAME_CHARS_SHOWN: usize = 64;

/// Longest device name: a path of `PATH_MAX` bytes.
const DEVICE_NAME_BYTES_MAX: usize = 4096;

/// All device names of a trace together; replacement characters may treble them, and the
/// container takes 64 MiB.
const DEVICE_NAMES_BYTES_MAX: usize = 16 << 20;

impl<'a> Job<'a> {
    /// A job that writes to `sink`; `device` keeps one device and counts the others as lost.
    pub fn new(
        sink: &'a mut dyn Sink,
        format: &str,
        device: Option<String>,
        meter: Meter,
        progress: &'a mut dyn FnMut(u64),
    ) -> Self {
        let header = TraceHeader {
            tool: concat!("qtrace ", env!("CARGO_PKG_VERSION")).to_owned(),
            source_format: format.to_owned(),
            ..TraceHeader::default()
        };
        Self {
            sink,
            header,
            not_recorded: NotRecorded::empty(),
            summary: Summary::default(),
            counts: Counts::default(),
            begun: false,
            any_order: false,
            waiting: Vec::new(),
            devices: HashMap::new(),
            names_bytes: 0,
            device_wanted: device,
            yields: "block request",
            devices_unwanted: Vec::new(),
            unwanted_last: Vec::new(),
            device_bytes: None,
            end_bytes: 0,
            unaligned: 0,
            meter,
            progress,
            ticks: 0,
        }
    }

    /// Says what the format's traces are made of: block requests, unless told otherwise.
    pub fn yields(mut self, what: &'static str) -> Self {
        self.yields = what;
        self
    }

    /// Says that events may come out of order of time, and are to be put in order.
    pub fn put_in_order(&mut self) {
        self.any_order = true;
    }

    /// Adds an interpretation line, `key: value`.
    pub fn interpret(&mut self, line: impl Into<String>) {
        self.header.interpretation.push(line.into());
    }

    /// The device's size, which the user knows and most sources do not say. Call it first.
    pub fn device_size(&mut self, bytes: u64) {
        self.device_bytes = Some(bytes);
        self.interpret(format!("device size: {bytes} bytes, as told"));
    }

    /// Sets what the source cannot say, in the header and for the final word.
    pub fn lacks(&mut self, mut not_recorded: NotRecorded) {
        if self.device_bytes.is_some() {
            not_recorded.remove(NotRecorded::DEVICE_SIZE);
        }
        self.header.not_recorded = not_recorded;
        self.not_recorded = not_recorded;
    }

    /// Call it for every record read: it reports progress and notices a stop.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`] when the user stopped the import.
    #[inline]
    pub fn tick(&mut self) -> Result<()> {
        self.ticks(1)
    }

    /// The same for several records.
    ///
    /// # Errors
    /// Those of [`Job::tick`].
    #[inline]
    pub fn ticks(&mut self, records: usize) -> Result<()> {
        self.ticks += records;
        if self.ticks >= TICKS_PER_LOOK {
            self.ticks = 0;
            (self.progress)(self.meter.bytes());
            self.meter.check_stop()?;
        }
        Ok(())
    }

    #[inline]
    fn begin(&mut self) -> Result<()> {
        if self.begun { Ok(()) } else { self.begin_now() }
    }

    #[cold]
    fn begin_now(&mut self) -> Result<()> {
        self.begun = true;
        self.sink.begin(self.header.clone())?;
        for info in std::mem::take(&mut self.waiting) {
            self.sink.stream(info)?;
        }
        Ok(())
    }

    /// The stream of a device named `device`, made on first sight; `None` when it is not the
    /// device asked for, or when there are too many (the caller's record is then counted lost).
    ///
    /// # Errors
    /// Those of the sink.
    pub fn stream(
        &mut self,
        device: &[u8],
        block_bytes: Option<u32>,
        place: impl FnOnce() -> String,
    ) -> Result<Option<StreamId>> {
        let info = StreamInfo { block_bytes, ..StreamInfo::default() };
        self.stream_as(device, device, info, place)
    }

    /// The stream of one queue of a device (an NBD connection is one), of which the source may
    /// know the size; else as [`Job::stream`].
    ///
    /// # Errors
    /// Those of the sink.
    pub fn queue_stream(
        &mut self,
        device: &[u8],
        queue: u32,
        device_bytes: Option<u64>,
        place: impl FnOnce() -> String,
    ) -> Result<Option<StreamId>> {
        let key = [b"\0queue", &queue.to_le_bytes()[..], device].concat();
        let info = StreamInfo { queue: Some(queue), device_bytes, ..StreamInfo::default() };
        self.stream_as(&key, device, info, place)
    }

    fn stream_as(
        &mut self,
        key: &[u8],
        device: &[u8],
        info: StreamInfo,
        place: impl FnOnce() -> String,
    ) -> Result<Option<StreamId>> {
        if let Some(id) = self.devices.get(key) {
            return Ok(Some(*id));
        }
        let name = String::from_utf8_lossy(device);
        if self.device_wanted.as_ref().is_some_and(|wanted| *wanted != name) {
            self.summary.lose("another device than the one asked for", place);
            if self.unwanted_last != device {
                self.note_unwanted(&name);
                self.unwanted_last.clear();
                self.unwanted_last.extend_from_slice(device);
            }
            return Ok(None);
        }
        let name = name.into_owned();
        if device.len() > DEVICE_NAME_BYTES_MAX
            || self.names_bytes + device.len() > DEVICE_NAMES_BYTES_MAX
            || self.devices.len() >= STREAMS_MAX
        {
            self.summary.lose("more devices, or longer names, than a trace can hold", place);
            return Ok(None);
        }
        self.names_bytes += device.len();
        let device_bytes = self.device_bytes.or(info.device_bytes);
        let info = StreamInfo { device: name, device_bytes, ..info };
        let id = StreamId(self.devices.len() as u32);
        if self.begun {
            self.sink.stream(info)?;
        } else {
            self.waiting.push(info);
        }
        self.devices.insert(key.to_vec(), id);
        Ok(Some(id))
    }

    /// Remembers a device's name; one more than are shown tells that there are more.
    fn note_unwanted(&mut self, name: &str) {
        if self.devices_unwanted.len() > DEVICES_SHOWN {
            return;
        }
        let name: String =
            name.chars().take(DEVICE_NAME_CHARS_SHOWN).flat_map(char::escape_debug).collect();
        if !self.devices_unwanted.contains(&name) {
            self.devices_unwanted.push(name);
        }
    }

    /// Says that the device asked for is none of the source's, when that is so.
    ///
    /// # Errors
    /// [`ErrorKind::Nothing`], with the devices that there are.
    pub fn check_device(&self) -> Result<()> {
        let Some(wanted) = &self.device_wanted else { return Ok(()) };
        if !self.devices.is_empty() || self.devices_unwanted.is_empty() {
            return Ok(());
        }
        let shown = self.devices_unwanted.iter().take(DEVICES_SHOWN);
        let mut devices = shown.map(String::as_str).collect::<Vec<_>>().join(", ");
        if self.devices_unwanted.len() > DEVICES_SHOWN {
            devices.push_str(", …");
        }
        let wanted = wanted.escape_debug();
        let what = self.yields.rsplit(' ').next().unwrap_or_default();
        let what = format!("no {what} of a device '{wanted}' in it; devices: {devices}");
        Err(Error::new(ErrorKind::Nothing, what).hint("nothing was written"))
    }

    /// # Errors
    /// Usage: a request reaches past the end that the user told.
    fn check_device_size(&self) -> Result<()> {
        match self.device_bytes {
            Some(bytes) if bytes < self.end_bytes => {
                let needed = self.end_bytes.next_multiple_of(SECTOR_SIZE);
                let what = format!("--device-size {bytes}: requests reach past it, to {needed}");
                Err(Error::usage(what)
                    .hint(format!("--device-size {needed} or more; nothing was written")))
            }
            _ => Ok(()),
        }
    }

    /// The one stream of a source that names no devices.
    ///
    /// # Errors
    /// Usage when a device was asked for.
    pub fn only_stream(&mut self, block_bytes: Option<u32>) -> Result<StreamId> {
        if self.device_wanted.is_some() {
            let format = &self.header.source_format;
            return Err(Error::usage(format!("--device: {format} names no devices")));
        }
        Ok(self.stream(b"", block_bytes, String::new)?.unwrap_or_default())
    }

    /// Whether a request can stand in a trace; counts it as lost otherwise.
    #[inline]
    pub fn accepts(
        &mut self,
        op: BlockOp,
        offset: u64,
        len: u64,
        place: impl FnOnce() -> String,
    ) -> bool {
        match check_range(op, offset, len) {
            Ok(()) => true,
            Err(reason) => {
                self.summary.lose(reason, place);
                false
            }
        }
    }

    /// Writes the issue of a request that [`Job::accepts`] has taken.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn issue(&mut self, request: Request) -> Result<()> {
        let Request { time, tag, stream, op, flags, offset, len, payload, cpu } = request;
        let cpu = in_container(cpu);
        let index = op.index();
        self.counts.issues[index] += 1;
        self.counts.bytes[index] = self.counts.bytes[index].saturating_add(len);
        self.end_bytes = self.end_bytes.max(offset.saturating_add(len));
        self.unaligned += u64::from((offset | len) % SECTOR_SIZE != 0);
        let issue = Issue { time, tag, stream, op, flags, offset, len, payload, cpu };
        self.begin()?;
        match self.any_order {
            true => self.sink.issue_anywhere(&issue),
            false => self.sink.event(&Event::Issue(issue)),
        }
    }

    /// Writes a completion.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn complete(&mut self, time: Nanos, stream: StreamId, tag: u64, status: u16) -> Result<()> {
        self.counts.completes += 1;
        let payload = PayloadRef::Absent;
        let complete = Complete { time, tag, stream, status, payload };
        self.begin()?;
        match self.any_order {
            true => self.sink.complete_anywhere(&complete),
            false => self.sink.event(&Event::Complete(complete)),
        }
    }

    /// Writes a mark with `text` (made UTF-8 with replacement characters where it is not).
    ///
    /// # Errors
    /// Those of the sink.
    pub fn mark(&mut self, time: Nanos, stream: StreamId, text: &[u8]) -> Result<()> {
        let text = String::from_utf8_lossy(text);
        self.counts.marks += 1;
        let (payload, text_len) = if text.is_empty() {
            (PayloadRef::Absent, 0)
        } else {
            (self.payload(text.as_bytes())?, text.len() as u64)
        };
        self.event(Event::Mark(Mark { time, stream, text: payload, text_len }))
    }

    /// Writes an access to the bus.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn bus(&mut self, access: BusEvent) -> Result<()> {
        self.bus_event(Event::Bus(BusEvent { cpu: in_container(access.cpu), ..access }))
    }

    /// Writes an event of the bus: an access, guest memory, an interrupt, the clock.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn bus_event(&mut self, event: Event) -> Result<()> {
        let mut totals = StreamTotals { bus: self.counts.bus, ..StreamTotals::default() };
        totals.add(&event);
        self.counts.bus = totals.bus;
        self.event(event)
    }

    #[inline]
    fn event(&mut self, event: Event) -> Result<()> {
        self.begin()?;
        if self.any_order { self.sink.event_anywhere(&event) } else { self.sink.event(&event) }
    }

    /// An event came up that is `by` nanoseconds before all others: times count from it.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn earlier_origin(&mut self, by: Nanos) -> Result<()> {
        if let Some(origin) = &mut self.header.origin_unix_ns {
            *origin = origin.saturating_sub(by.0);
        }
        self.sink.earlier_origin(by)
    }

    /// Stores data; see [`Sink::payload`].
    ///
    /// # Errors
    /// Those of the sink.
    pub fn payload(&mut self, data: &[u8]) -> Result<PayloadRef> {
        self.begin()?;
        self.sink.payload(data)
    }

    /// Stores data, streaming; see [`Sink::payload_from`].
    ///
    /// # Errors
    /// Those of the sink and of the source.
    pub fn payload_from(&mut self, len: u64, source: &mut dyn Read) -> Result<PayloadRef> {
        self.begin()?;
        self.sink.payload_from(len, source)
    }

    /// What was written so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Ends the job: last notes, and an error when there was nothing to import.
    ///
    /// # Errors
    /// [`ErrorKind::Nothing`] when no request was found; Usage when the device size told is too
    /// small for them; or
    /// [`ErrorKind::Input`] when there were records and not one could be read.
    pub fn close(&mut self, input: &Path) -> Result<()> {
        (self.progress)(self.meter.bytes());
        if self.unaligned > 0 {
            let count = counted(self.unaligned, "request is", "requests are");
            self.summary.note(format!("{count} not in multiples of 512 bytes"));
        }
        self.check_device().map_err(|error| error.path(input))?;
        self.check_device_size().map_err(|error| error.path(input))?;
        if self.counts.requests() > 0 || self.counts.bus.events() > 0 {
            return Ok(());
        }
        Err(self.nothing(input))
    }

    fn nothing(&self, input: &Path) -> Error {
        let format = &self.header.source_format;
        match self.summary.losses().first() {
            Some(loss) if self.summary.is_damaged() => Error::input(format!(
                "not one {} could be read as {format}; {} lost, first: {} at {}",
                self.yields,
                counted(self.summary.lost(), "record", "records"),
                loss.reason,
                loss.first
            ))
            .hint("force the right format with --from, see qtrace import --help"),
            _ => Error::new(
                ErrorKind::Nothing,
                format!("this {format} trace holds no {}", self.yields),
            )
            .hint("nothing was written"),
        }
        .path(input)
    }
}

/// A CPU's number, unless it is the one by which the container says that there is none.
fn in_container(cpu: Option<u16>) -> Option<u16> {
    cpu.filter(|cpu| *cpu != u16::MAX)
}

/// The reason why a range cannot stand in a trace.
#[inline]
fn check_range(op: BlockOp, offset: u64, len: u64) -> Result<(), &'static str> {
    if !op.has_range() {
        return Ok(());
    }
    if len == 0 {
        return Err("request of length 0");
    }
    match offset.checked_add(len) {
        Some(end) if end <= DISK_BYTES_MAX => Ok(()),
        _ => Err("range past the largest disk there can be (1 EiB)"),
    }
}

/// A place in a text file.
pub fn line_place(line: u64) -> String {
    format!("line {line}")
}

/// A place in a binary file.
pub fn offset_place(path: &Path, offset: u64) -> String {
    let name = path.file_name().map_or_else(|| path.to_path_buf(), PathBuf::from);
    format!("{} offset {offset}", name.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_cannot_be_are_refused() {
        assert_eq!(check_range(BlockOp::Flush, u64::MAX, 0), Ok(()));
        assert!(check_range(BlockOp::Read, 0, 0).is_err());
        assert!(check_range(BlockOp::Read, u64::MAX, 1).is_err());
        assert!(check_range(BlockOp::Discard, DISK_BYTES_MAX, 512).is_err());
        assert_eq!(check_range(BlockOp::Write, DISK_BYTES_MAX - 512, 512), Ok(()));
    }
}
