//! The index of a trace: where its frames are. Loaded from the footer, checked against the file.

use serde::{Deserialize, Serialize};

use super::bus_event::BusTotals;
use super::event::{StreamInfo, TraceSummary};
use super::format::{
    FRAME_HEADER_BYTES, FRAME_MAGIC, FRAME_PAYLOADS_MAX, FrameHeader, KIND_INDEX, KIND_SUMMARY,
    KIND_TRAILER, PAYLOAD_ENTRY_BYTES, PREAMBLE_BYTES, RECORD_BYTES, TRAILER_BYTES, Trailer,
    body_limit, meta,
};
use crate::base::limits::{FRAME_BYTES_MAX, METADATA_BYTES_MAX, STREAMS_MAX};
use zerocopy::FromBytes;

/// Frames that an index may list, so that it stays within [`METADATA_BYTES_MAX`].
pub(super) const INDEX_ENTRIES_MAX: usize = METADATA_BYTES_MAX / size_of::<EventFrame>() - 1024;

/// An events frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EventFrame {
    pub(super) offset: u64,
    pub(super) first: u64,
    pub(super) count: u32,
    pub(super) time_min: u64,
    pub(super) time_max: u64,
}

/// A payload frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PayloadFrame {
    pub(super) offset: u64,
    pub(super) first: u32,
    pub(super) count: u32,
}

/// What the payload store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadTotals {
    /// Distinct payloads, lists of pieces included.
    pub count: u64,
    /// Their bytes before compression.
    pub raw_bytes: u64,
    /// Bytes that they take in the file.
    pub stored_bytes: u64,
}

/// The body of the index frame; also built by the writer and by a scan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Index {
    pub(super) summary_offset: u64,
    pub(super) events: u64,
    pub(super) payloads: PayloadTotals,
    pub(super) event_frames: Vec<EventFrame>,
    pub(super) payload_frames: Vec<PayloadFrame>,
}

/// The body of the summary frame.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SummaryBody {
    pub(super) summary: TraceSummary,
    pub(super) streams: Vec<StreamInfo>,
}

impl SummaryBody {
    /// The body of the frame. Without bus events it is what format 1.0 has.
    pub(super) fn encode(&self) -> Result<Vec<u8>, String> {
        let mut bytes = meta::encode(self)?;
        let bus: Vec<BusTotals> = self.summary.streams.iter().map(|totals| totals.bus).collect();
        if bus.iter().any(|totals| totals.events() > 0) {
            bytes.extend_from_slice(&meta::encode(&bus)?);
        }
        Ok(bytes)
    }

    /// Decodes a whole body, of any minor version.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let (mut body, rest): (Self, &[u8]) = meta::decode_prefix(bytes)?;
        if !rest.is_empty() {
            let bus: Vec<BusTotals> = meta::decode(rest)?;
            if bus.len() != body.summary.streams.len() {
                return Err("its totals of buses do not match its streams".into());
            }
            for (totals, bus) in body.summary.streams.iter_mut().zip(bus) {
                totals.bus = bus;
            }
        }
        check_summary(&body)?;
        Ok(body)
    }
}

impl Index {
    /// Adds a frame of `count` events.
    pub(super) fn add_events(&mut self, offset: u64, header: &FrameHeader) -> Result<(), String> {
        self.room()?;
        let frame = EventFrame {
            offset,
            first: header.event.get(),
            count: header.count.get(),
            time_min: header.time_min.get(),
            time_max: header.time_max.get(),
        };
        self.events = frame.first + u64::from(frame.count);
        self.event_frames.push(frame);
        Ok(())
    }

    /// Adds a frame of payloads.
    pub(super) fn add_payloads(&mut self, offset: u64, header: &FrameHeader) -> Result<(), String> {
        self.room()?;
        let count = header.count.get();
        let first = u32::try_from(header.payload.get()).map_err(|_| "too many payloads")?;
        self.payload_frames.push(PayloadFrame { offset, first, count });
        self.payloads.count += u64::from(count);
        self.payloads.raw_bytes += u64::from(header.raw_len.get());
        self.payloads.stored_bytes += header.frame_bytes();
        Ok(())
    }

    fn room(&self) -> Result<(), String> {
        if self.event_frames.len() + self.payload_frames.len() >= INDEX_ENTRIES_MAX {
            return Err(format!("a trace has at most {INDEX_ENTRIES_MAX} frames"));
        }
        Ok(())
    }

    /// The frame that holds event `number`.
    pub(super) fn event_frame(&self, number: u64) -> Option<(usize, EventFrame)> {
        let after = self.event_frames.partition_point(|frame| frame.first <= number);
        let at = after.checked_sub(1)?;
        let frame = *self.event_frames.get(at)?;
        (number - frame.first < u64::from(frame.count)).then_some((at, frame))
    }

    /// The frame that holds payload `number`.
    pub(super) fn payload_frame(&self, number: u32) -> Option<(usize, PayloadFrame)> {
        let after = self.payload_frames.partition_point(|frame| frame.first <= number);
        let at = after.checked_sub(1)?;
        let frame = *self.payload_frames.get(at)?;
        (number - frame.first < frame.count).then_some((at, frame))
    }

    /// Checks every entry against a file whose frames end at `end`: in order, dense, inside.
    fn check(&self, end: u64) -> Result<(), String> {
        let mut events = 0u64;
        let mut free = PREAMBLE_BYTES as u64;
        for frame in &self.event_frames {
            let bytes = FRAME_HEADER_BYTES as u64 + u64::from(frame.count) * RECORD_BYTES as u64;
            free = place(frame.offset, bytes, free, end)?;
            if frame.first != events || frame.count == 0 || frame.time_min > frame.time_max {
                return Err("its events are out of order".into());
            }
            events += u64::from(frame.count);
        }
        let (mut payloads, mut free) = (1u64, PREAMBLE_BYTES as u64);
        for frame in &self.payload_frames {
            let table = u64::from(frame.count) * PAYLOAD_ENTRY_BYTES as u64;
            free = place(frame.offset, FRAME_HEADER_BYTES as u64 + table, free, end)?;
            let count_fits = (1..=FRAME_PAYLOADS_MAX).contains(&(frame.count as usize));
            if u64::from(frame.first) != payloads || !count_fits {
                return Err("its payloads are out of order".into());
            }
            payloads += u64::from(frame.count);
        }
        if events != self.events || payloads != self.payloads.count + 1 {
            return Err("its totals are wrong".into());
        }
        Ok(())
    }
}

fn place(offset: u64, bytes: u64, free: u64, end: u64) -> Result<u64, String> {
    let next = offset.checked_add(bytes).filter(|next| *next <= end);
    match next {
        Some(next) if offset >= free && offset.is_multiple_of(8) => Ok(next),
        _ => Err(format!("it puts a frame at offset {offset}, where none can be")),
    }
}

/// A frame in the file: its header is whole and right, its body is inside the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) header: &'a FrameHeader,
    /// The body with its padding; unchecked until [`Frame::body`].
    padded: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame at `offset`.
    pub(super) fn at(bytes: &'a [u8], offset: u64) -> Result<Self, String> {
        let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
        let (header, rest) = FrameHeader::ref_from_prefix(rest)
            .map_err(|_| "the file ends inside a frame header".to_owned())?;
        if header.magic != FRAME_MAGIC {
            return Err("no frame stands there".into());
        }
        if header.header_crc.get() != header.computed_crc() {
            return Err("the CRC of a frame header is wrong".into());
        }
        let len = header.body_len.get();
        if len > body_limit(header.kind.get()) {
            return Err(format!("a frame says that it is {len} bytes long"));
        }
        let padded = rest
            .get(..super::format::padded(len) as usize)
            .ok_or_else(|| "the file ends inside a frame".to_owned())?;
        Ok(Self { header, padded })
    }

    /// The body, its CRC checked.
    pub(super) fn body(&self) -> Result<&'a [u8], String> {
        if crc32c::crc32c(self.padded) != self.header.body_crc.get() {
            return Err("the CRC of a frame body is wrong".into());
        }
        Ok(self.unchecked_body())
    }

    /// The body of a frame whose CRC has been checked before.
    pub(super) fn unchecked_body(&self) -> &'a [u8] {
        &self.padded[..self.header.body_len.get() as usize]
    }

    /// Where the next frame starts, when this one starts at `offset`.
    pub(super) fn end(&self, offset: u64) -> u64 {
        offset + (FRAME_HEADER_BYTES + self.padded.len()) as u64
    }

    /// The frame at `offset`, which must be of `kind`.
    pub(super) fn of_kind(bytes: &'a [u8], offset: u64, kind: u16) -> Result<Self, String> {
        let frame = Self::at(bytes, offset)?;
        if frame.header.kind.get() != kind {
            return Err(format!("a frame of kind {} instead of {kind}", frame.header.kind.get()));
        }
        Ok(frame)
    }
}

/// Checks that a stream table and its totals belong together.
fn check_summary(body: &SummaryBody) -> Result<(), String> {
    if body.summary.streams.len() != body.streams.len() || body.streams.len() > STREAMS_MAX {
        return Err("the summary's streams and totals do not match".into());
    }
    Ok(())
}

/// Loads summary and index through the trailer, without looking at anything between.
pub(super) fn load(bytes: &[u8]) -> Result<(SummaryBody, Index), String> {
    let at = (bytes.len() as u64).saturating_sub(TRAILER_BYTES as u64);
    let trailer = Frame::of_kind(bytes, at, KIND_TRAILER)
        .map_err(|_| "the file ends without its trailer".to_owned())?;
    let trailer = Trailer::read_from_bytes(trailer.body()?)
        .map_err(|_| "the trailer has the wrong size".to_owned())?;
    let index_offset = trailer.index_offset.get();
    if trailer.file_len.get() != bytes.len() as u64 {
        return Err("the trailer is of a file of another length".into());
    }
    let frame = Frame::of_kind(bytes, index_offset, KIND_INDEX)?;
    if frame.end(index_offset) != at {
        return Err("the index does not end where the trailer starts".into());
    }
    let index: Index = meta::decode(frame.body()?).map_err(|why| format!("bad index: {why}"))?;
    let summary = Frame::of_kind(bytes, index.summary_offset, KIND_SUMMARY)?;
    index.check(index.summary_offset).map_err(|why| format!("bad index: {why}"))?;
    let summary =
        SummaryBody::decode(summary.body()?).map_err(|why| format!("bad summary: {why}"))?;
    Ok((summary, index))
}

// The largest table of a payload frame, and the largest body of records, fit a frame.
const _: () = assert!(FRAME_PAYLOADS_MAX * PAYLOAD_ENTRY_BYTES < FRAME_BYTES_MAX / 2);
const _: () = assert!(crate::base::limits::FRAME_EVENTS_MAX * RECORD_BYTES < FRAME_BYTES_MAX);
