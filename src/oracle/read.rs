//! Reads against the model, and how data findings are put together.

use super::classify::{Case, Diagnosis, diagnose};
use super::data::{Contents, SectorBytes, is_zero};
use super::extents::Piece;
use super::finding::{ByteRange, EventRef, Fault, Finding, FindingKind, Hex, LISTED_MAX};
use super::overlap::InFlight;
use super::ranges::{self, Range};
use super::source::completion_of;
use super::verdict::Unverifiable;
use super::version::Version;
use super::{Known, Oracle, PlannedRequest};
use crate::base::{Error, Result, SECTOR_SIZE};
use crate::driver::BlockStatus;
use crate::trace::PayloadRef;

const SECTOR: usize = SECTOR_SIZE as usize;

/// Wrong sectors that are taken for one finding though nothing wrote them: those within 1 MiB.
const UNWRITTEN_WINDOW_SECTORS: u64 = 2048;

/// The finding for a request that failed.
pub(super) fn status_finding(
    contents: &mut Contents,
    request: &PlannedRequest,
    status: BlockStatus,
) -> Result<Finding> {
    let (kind, what) = match status {
        BlockStatus::BadLength(len) => {
            (FindingKind::BadUsedLength, format!("reported a used length of {len} bytes"))
        }
        BlockStatus::Bad(0xff) => (FindingKind::StatusError, "has no status byte".to_owned()),
        BlockStatus::Bad(byte) => {
            (FindingKind::StatusError, format!("has status byte {byte:#04x}"))
        }
        BlockStatus::Unsupported => {
            (FindingKind::StatusError, "failed with VIRTIO_BLK_S_UNSUPP".to_owned())
        }
        BlockStatus::IoErr | BlockStatus::Ok => {
            (FindingKind::StatusError, "failed with VIRTIO_BLK_S_IOERR".to_owned())
        }
    };
    let PlannedRequest { op, sector, .. } = *request;
    let (event, pass) = contents.event_of(request.write);
    let place = if op.has_range() {
        format!(" of {} bytes at offset {}", request.bytes(), sector * SECTOR_SIZE)
    } else {
        String::new()
    };
    let mut finding = Finding::new(kind, format!("the {op}{place} of event {event} {what}"));
    (finding.event, finding.pass) = (Some(event), pass);
    if op.has_range() {
        finding.sector = Some(sector);
        finding.offset = Some(sector * SECTOR_SIZE);
        finding.bytes = request.bytes();
    }
    Ok(finding)
}

/// Names the request that a write number stands for.
pub(super) fn event_ref(contents: &mut Contents, write: u64) -> Result<Option<EventRef>> {
    let (event, pass) = contents.event_of(write);
    Ok(contents.issue(write)?.map(|(issue, _)| EventRef {
        event,
        pass,
        op: issue.op,
        offset: issue.offset,
        len: issue.len,
        time_ns: issue.time.0,
    }))
}

/// Puts a diagnosis into a finding of `kind`; `seen_in` says what was looked at.
pub(super) fn data_finding(
    contents: &mut Contents,
    kind: FindingKind,
    seen_in: &str,
    case: &Case<'_>,
    diagnosis: Diagnosis,
) -> Result<Finding> {
    let last_writer = match case.version {
        Some(version) => event_ref(contents, version.write())?,
        None => None,
    };
    let found_writer = match diagnosis.found {
        Some(write) => event_ref(contents, write)?,
        None => None,
    };
    let first = diagnosis.first;
    let sector = first.offset / SECTOR_SIZE;
    let expected = match &last_writer {
        Some(writer) => format!("what {writer} wrote"),
        None if case.recorded => {
            "what this read returned when it was recorded: the trace wrote nothing there".to_owned()
        }
        None => "zeros: nothing was written there".to_owned(),
    };
    let found = found_writer
        .as_ref()
        .map_or("what was there before".to_owned(), |w| format!("what {w} wrote"));
    let sectors = ranges::sectors(case.wrong);
    let what = match diagnosis.fault {
        Fault::FlippedBytes => "a few bytes differ".to_owned(),
        Fault::DroppedWrite => format!("all of it is missing: there is {found}"),
        Fault::SwappedWrites => format!("the two landed in the wrong order: there is {found}"),
        Fault::TornWrite => format!("only part of it landed: the rest is {found}"),
        Fault::StaleData => format!("part of it is stale: there is {found}"),
        Fault::MisdirectedWrite => format!("there is {found}, meant for another place"),
        Fault::ForeignData if case.recorded => {
            "the disk held something else before the replay".to_owned()
        }
        Fault::ForeignData => "there is content that nothing in the trace explains".to_owned(),
    };
    let message = format!(
        "{seen_in}: {sectors} sector{} wrong from sector {sector} (offset {}): expected {expected}; {what}",
        if sectors == 1 { "" } else { "s" },
        first.offset,
    );
    let mut finding = Finding::new(kind, message);
    finding.fault = Some(diagnosis.fault);
    finding.alternatives = diagnosis.alternatives;
    (finding.offset, finding.sector) = (Some(first.offset), Some(sector));
    finding.bytes = sectors.saturating_mul(SECTOR_SIZE);
    finding.ranges = case.wrong.iter().take(LISTED_MAX).map(byte_range).collect();
    finding.flipped = diagnosis.flipped;
    finding.shown_from = first.shown_from;
    (finding.expected, finding.got) = (Hex(first.expected), Hex(first.got));
    (finding.last_writer, finding.found_writer) = (last_writer, found_writer);
    Ok(finding)
}

fn byte_range(range: &Range) -> ByteRange {
    ByteRange { offset: range.0 * SECTOR_SIZE, len: (range.1 - range.0) * SECTOR_SIZE }
}

/// The bytes of `start..end` in the buffer of a read that begins at `first`.
fn bytes_of(data: &[u8], first: u64, start: u64, end: u64) -> &[u8] {
    let at = |sector: u64| usize::try_from((sector - first) * SECTOR_SIZE).unwrap_or(usize::MAX);
    data.get(at(start)..at(end)).unwrap_or_default()
}

impl Oracle {
    /// A read was answered.
    pub(super) fn check_read(
        &mut self,
        read: &InFlight,
        ok: bool,
        data: Option<&[u8]>,
    ) -> Result<()> {
        let request = &read.request;
        let Some(data) = data.filter(|_| ok) else {
            self.skip_read(Unverifiable::FailedRead, request.bytes());
            return Ok(());
        };
        if data.len() as u64 != request.bytes() {
            let (got, want) = (data.len(), request.bytes());
            return Err(Error::incomplete(format!("a read of {want} bytes came with {got}")));
        }
        self.verdict.reads_checked += 1;
        let mut pieces = std::mem::take(&mut self.pieces);
        let done = self.check_pieces(read, data, &mut pieces);
        self.pieces = pieces;
        done
    }

    fn check_pieces(
        &mut self,
        read: &InFlight,
        data: &[u8],
        pieces: &mut Vec<Piece>,
    ) -> Result<()> {
        let (first, end) = (read.request.sector, read.request.end());
        self.model.lookup(first, end, pieces)?;
        for index in 0..pieces.len() {
            let Some(&piece) = pieces.get(index) else { break };
            let got = bytes_of(data, first, piece.start, piece.end);
            if self.piece_is_right(read, &piece, got)? {
                continue;
            }
            // All that the same write left in this read is looked at together, once.
            let same = |p: &&Piece| p.version == piece.version && p.version.is_some();
            if pieces.iter().take(index).any(|p| same(&p) && p.start < piece.start)
                && self.known.contains_key(&known(piece.version, &[(piece.start, piece.end)]))
            {
                continue;
            }
            let mut wrong = self.wrong_sectors(read, &piece, got)?;
            for other in pieces.iter().skip(index + 1).filter(same) {
                let got = bytes_of(data, first, other.start, other.end);
                let more = self.wrong_sectors(read, other, got)?;
                more.into_iter().for_each(|range| ranges::push(&mut wrong, range));
            }
            if !wrong.is_empty() {
                let visible = match piece.version {
                    Some(_) => same_version(pieces, piece.version),
                    None => vec![(piece.start, piece.end)],
                };
                self.wrong_read(read, &piece, &wrong, &visible, data)?;
            }
        }
        Ok(())
    }

    fn skip_read(&mut self, reason: Unverifiable, bytes: u64) {
        *self.verdict.unverifiable_read_bytes.entry(reason).or_default() += bytes;
    }

    /// Whether a piece is as the model has it, or cannot be told.
    fn piece_is_right(&mut self, read: &InFlight, piece: &Piece, got: &[u8]) -> Result<bool> {
        let bytes = got.len() as u64;
        match piece.version {
            Some(version) => match self.contents.equals(version, piece.start, got)? {
                None => {
                    let reason = self.reason(version)?;
                    self.skip_read(reason, bytes);
                    return Ok(true);
                }
                Some(true) => {}
                Some(false) => return Ok(false),
            },
            None if self.config.initially_zero => {
                if !is_zero(got) {
                    return Ok(false);
                }
                self.look_for_content_before(read, piece)?;
            }
            None => match self.recorded_data(read, piece)? {
                None => {
                    self.skip_read(Unverifiable::NotWritten, bytes);
                    return Ok(true);
                }
                Some(recorded) if recorded == got => {}
                Some(_) => return Ok(false),
            },
        }
        self.verdict.read_bytes_checked += bytes;
        Ok(true)
    }

    /// Whether the recorded read returned what nothing in the trace wrote, where a new target has
    /// zeros: the first such read is remembered, and no further one is looked for.
    fn look_for_content_before(&mut self, read: &InFlight, piece: &Piece) -> Result<()> {
        if self.content_before.is_none()
            && self.recorded_data(read, piece)?.is_some_and(|recorded| !is_zero(&recorded))
        {
            self.content_before = Some(read.request.event);
        }
        Ok(())
    }

    /// What the recording says a read returned for a piece, where it says so.
    fn recorded_data(&mut self, read: &InFlight, piece: &Piece) -> Result<Option<Vec<u8>>> {
        let trace = self.contents.trace().clone();
        if !trace.records_read_data() {
            return Ok(None);
        }
        let Some(complete) = completion_of(trace.as_ref(), read.request.event)? else {
            return Ok(None);
        };
        if complete.payload == PayloadRef::Absent || complete.status != 0 {
            return Ok(None);
        }
        let total = read.request.payload_total;
        let from = read.request.payload_from + (piece.start - read.request.sector) * SECTOR_SIZE;
        let len = piece.sectors() * SECTOR_SIZE;
        if from.checked_add(len).is_none_or(|end| end > total) {
            return Ok(None);
        }
        let mut data = vec![0; usize::try_from(len).unwrap_or(0)];
        trace.read_payload(complete.payload, total, from, &mut data)?;
        Ok(Some(data))
    }

    /// The sectors of a piece that no admissible version explains.
    fn wrong_sectors(&mut self, read: &InFlight, piece: &Piece, got: &[u8]) -> Result<Vec<Range>> {
        let mut others: Vec<Piece> = self.contested.within(piece.start, piece.end).collect();
        others.extend(&read.also);
        let recorded = match piece.version {
            None if !self.config.initially_zero => self.recorded_data(read, piece)?,
            _ => None,
        };
        let mut wrong = Vec::new();
        for (index, got) in got.chunks(SECTOR).enumerate() {
            let sector = piece.start + index as u64;
            let right = match (&recorded, piece.version) {
                (Some(recorded), _) => recorded.chunks(SECTOR).nth(index) == Some(got),
                (None, None) => is_zero(got),
                (None, Some(version)) => {
                    self.contents.equals(version, sector, got)?.unwrap_or(true)
                }
            };
            if right || self.is_admitted(&others, sector, got)? {
                self.verdict.read_bytes_checked += SECTOR_SIZE;
            } else {
                ranges::push(&mut wrong, (sector, sector + 1));
            }
        }
        Ok(wrong)
    }

    pub(super) fn is_admitted(
        &mut self,
        others: &[Piece],
        sector: u64,
        got: &[u8],
    ) -> Result<bool> {
        for piece in others.iter().filter(|p| (p.start..p.end).contains(&sector)) {
            let same = match piece.version {
                Some(version) => self.contents.equals(version, sector, got)?.unwrap_or(true),
                None => !self.config.initially_zero || is_zero(got),
            };
            if same {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn wrong_read(
        &mut self,
        read: &InFlight,
        piece: &Piece,
        wrong: &[Range],
        visible: &[Range],
        data: &[u8],
    ) -> Result<()> {
        let known = known(piece.version, wrong);
        if let Some(index) = self.known.get(&known) {
            if let Some(finding) = index.and_then(|at| self.verdict.findings.get_mut(at)) {
                finding.occurrences += 1;
            }
            return Ok(());
        }
        if self.verdict.findings.len() >= crate::base::limits::FINDINGS_MAX {
            self.verdict.findings_total += 1;
            return Ok(());
        }
        let first = read.request.sector;
        let mut got = |sector: u64, out: &mut SectorBytes| {
            out.copy_from_slice(bytes_of(data, first, sector, sector + 1));
            Ok(())
        };
        let recorded = match piece.version {
            None if !self.config.initially_zero => self.recorded_data(read, piece)?,
            _ => None,
        };
        let (version, recorded_too) = (piece.version, recorded.is_some());
        let mut case = Case { version, recorded: recorded_too, wrong, visible, got: &mut got };
        let mut diagnosis = diagnose(&mut self.contents, &mut case)?;
        self.prefer_swap(&mut diagnosis);
        if let Some(recorded) = recorded {
            let sector = ranges::span(wrong).0;
            diagnosis = against_recording(sector, piece, &recorded, data, first);
        }
        let (event, pass) = self.contents.event_of(read.request.write);
        let seen_in = format!("read of event {event}");
        let kind = FindingKind::DataMismatch;
        let mut finding = data_finding(&mut self.contents, kind, &seen_in, &case, diagnosis)?;
        (finding.event, finding.pass) = (Some(event), pass);
        let index = self.verdict.add(finding);
        self.known.insert(known, index);
        Ok(())
    }
}

/// A sector that the trace never wrote and whose content the recording has.
fn against_recording(
    sector: u64,
    piece: &Piece,
    recorded: &[u8],
    data: &[u8],
    first: u64,
) -> Diagnosis {
    let expected = bytes_of(recorded, piece.start, sector, sector + 1);
    let got = bytes_of(data, first, sector, sector + 1);
    Diagnosis {
        fault: Fault::ForeignData,
        alternatives: Vec::new(),
        found: None,
        flipped: Vec::new(),
        first: super::classify::Difference::of(sector, expected, got),
    }
}

/// Under which name a finding about wrong sectors is known.
pub(super) fn known(version: Option<Version>, wrong: &[Range]) -> Known {
    match version {
        Some(version) => Known::Write(version.write()),
        None => Known::Unwritten(ranges::span(wrong).0 / UNWRITTEN_WINDOW_SECTORS),
    }
}

/// All pieces of one version, joined.
fn same_version(pieces: &[Piece], version: Option<Version>) -> Vec<Range> {
    let mut list = Vec::new();
    let same = pieces.iter().filter(|piece| piece.version == version);
    same.for_each(|piece| ranges::push(&mut list, (piece.start, piece.end)));
    list
}
