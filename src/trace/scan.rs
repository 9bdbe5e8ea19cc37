//! Recovery: what a trace without a good footer still holds, found by reading all of it.

use zerocopy::FromBytes;

use super::event::{StreamTotals, TraceHeader, TraceSummary};
use super::format::{
    FLAG_IGNORABLE, FRAME_PAYLOADS_MAX, KIND_EVENTS, KIND_INDEX, KIND_PAYLOAD, KIND_STREAM,
    KIND_SUMMARY, KIND_TRAILER, Record, RecordBounds, meta,
};
use super::index::{Frame, Index, SummaryBody};
use super::map::{Map, RELEASE_BYTES};
use crate::base::limits::STREAMS_MAX;

/// What a scan found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) body: SummaryBody,
    pub(super) index: Index,
    /// End of the last whole frame.
    pub(super) end: u64,
    /// Why the scan went no further; `None` at the end of the file or of the trace.
    pub(super) stopped: Option<String>,
}

/// How a scan ends before the end of the file.
enum Stop {
    /// The rest is damaged or missing.
    Damage(String),
    /// The trailer: the trace is complete, whatever follows.
    Trailer,
    /// A frame that only a newer qtrace understands.
    Newer(u16),
}

struct Scan<'a> {
    bytes: &'a [u8],
    body: SummaryBody,
    /// The summary of the file, if the scan got that far.
    summary: Option<SummaryBody>,
    index: Index,
}

/// Reads every frame from `start` on, up to the last good one. `progress` gets the offset reached.
///
/// # Errors
/// The kind of a frame that may not be skipped and is not known.
pub(super) fn rebuild(
    map: &Map,
    start: u64,
    header: &TraceHeader,
    progress: &mut dyn FnMut(u64),
) -> Result<Found, u16> {
    let mut scan = Scan {
        bytes: map.bytes(),
        body: SummaryBody::default(),
        summary: None,
        index: Index::default(),
    };
    let (mut at, mut released, mut stopped) = (start, 0, None);
    while at < map.len() {
        match scan.frame(at) {
            Ok(end) => at = end,
            Err(Stop::Damage(why)) => {
                stopped = Some(why);
                break;
            }
            Err(Stop::Trailer) => {
                at += super::format::TRAILER_BYTES as u64;
                break;
            }
            Err(Stop::Newer(kind)) => return Err(kind),
        }
        if at - released >= RELEASE_BYTES {
            map.release(released, at);
            released = at;
            progress(at);
        }
    }
    map.release(released, at);
    let (body, index) = scan.finish(header);
    Ok(Found { body, index, end: at, stopped })
}

impl Scan<'_> {
    /// Takes in the frame at `at` and returns where the next one starts.
    fn frame(&mut self, at: u64) -> Result<u64, Stop> {
        let frame = Frame::at(self.bytes, at).map_err(Stop::Damage)?;
        let body = frame.body().map_err(Stop::Damage)?;
        let taken = match frame.header.kind.get() {
            KIND_STREAM => self.stream(body),
            KIND_PAYLOAD => self.payloads(at, &frame),
            KIND_EVENTS => self.events(at, &frame, body),
            KIND_SUMMARY => self.summary(body),
            KIND_INDEX => Ok(()),
            KIND_TRAILER => return Err(Stop::Trailer),
            _ if frame.header.flags.get() & FLAG_IGNORABLE != 0 => Ok(()),
            kind => return Err(Stop::Newer(kind)),
        };
        taken.map_err(Stop::Damage)?;
        Ok(frame.end(at))
    }

    fn stream(&mut self, body: &[u8]) -> Result<(), String> {
        if self.body.streams.len() >= STREAMS_MAX {
            return Err("too many streams".into());
        }
        self.body.streams.push(meta::decode(body)?);
        self.body.summary.streams.push(StreamTotals::default());
        Ok(())
    }

    fn payloads(&mut self, at: u64, frame: &Frame<'_>) -> Result<(), String> {
        let header = frame.header;
        let count = header.count.get() as usize;
        if header.payload.get() != self.index.payloads.count + 1
            || !(1..=FRAME_PAYLOADS_MAX).contains(&count)
        {
            return Err("payloads are out of order".into());
        }
        self.index.add_payloads(at, header)
    }

    fn events(&mut self, at: u64, frame: &Frame<'_>, body: &[u8]) -> Result<(), String> {
        let header = frame.header;
        let records = <[Record]>::ref_from_bytes(body).map_err(|_| "records are cut short")?;
        if header.event.get() != self.index.events
            || header.payload.get() != self.index.payloads.count + 1
            || records.len() != header.count.get() as usize
            || records.is_empty()
        {
            return Err("events are out of order".into());
        }
        let bounds = RecordBounds {
            streams: self.body.streams.len() as u32,
            next_payload: header.payload.get(),
        };
        // All are checked before any is counted: a frame is taken whole or not at all.
        for (number, record) in (self.index.events..).zip(records) {
            record.decode(bounds).map_err(|why| format!("event {number} has {why}"))?;
        }
        for record in records {
            let totals = self.body.summary.streams.get_mut(record.stream.get() as usize);
            if let (Some(totals), Ok(event)) = (totals, record.decode(bounds)) {
                totals.add(&event);
            }
        }
        self.index.add_events(at, header)
    }

    fn summary(&mut self, body: &[u8]) -> Result<(), String> {
        let summary = SummaryBody::decode(body)?;
        if summary.streams != self.body.streams {
            return Err("the summary is of other streams".into());
        }
        self.summary = Some(summary);
        Ok(())
    }

    /// The file's own summary, with totals counted here; else what its header promised.
    fn finish(self, header: &TraceHeader) -> (SummaryBody, Index) {
        let mut body = self.body;
        let counted = std::mem::take(&mut body.summary.streams);
        body.summary = match self.summary {
            Some(summary) => summary.summary,
            None => TraceSummary { not_recorded: header.not_recorded, ..TraceSummary::default() },
        };
        body.summary.streams = counted;
        (body, self.index)
    }
}
