//! What wrong bytes look like.
//!
//! Given all sectors that one write W defined last and that are wrong, and all that W defined last
//! and that can be seen, each wrong sector is looked at:
//!
//! 1. a whole stamp of this run: of this sector and older than W → *older*; of another sector →
//!    *misdirected*; else *foreign*;
//! 2. equal to what an earlier write of the sector left, the latest first, or zeros → *older*;
//! 3. the start of W's content and the end of an older one, or the reverse → *torn*;
//! 4. at most [`FLIPPED_BYTES_MAX`] bytes differ → *flipped*; else *foreign*.
//!
//! Then, over all of them:
//!
//! | wrong sectors | and | fault |
//! |---|---|---|
//! | all older | they are all that W left visible | dropped write |
//! | all older, of one write A | they are exactly where A and W overlap; W's others are right | swapped writes |
//! | all older | they are W's first or last visible sectors | torn write |
//! | all older | otherwise | stale data |
//! | older and torn | | torn write |
//! | all flipped | | flipped bytes |
//! | some misdirected | | misdirected write |
//! | otherwise | | foreign data |
//!
//! Where A covers all of W, a swap and a drop leave the same bytes: the simpler one, the drop, is
//! reported and the other named as an alternative. So are a swap and a tear that leave the same.

use super::data::{Contents, SectorBytes, is_zero};
use super::finding::{Fault, LISTED_MAX, SHOWN_BYTES};
use super::ranges::{self, Range};
use super::source::Placed;
use super::version::{ContentKind, Version};
use crate::base::{BlockOp, Result, SECTOR_SIZE, stamp};
use crate::trace::PayloadRef;

/// Most differing bytes in a sector that still are "a few".
pub const FLIPPED_BYTES_MAX: usize = 32;

/// Fewer differing bytes than this are flips even where an older content could explain them.
const TORN_BYTES_MIN: usize = 8;

/// Sectors looked at; of more, evenly spaced ones.
const LOOKED_AT_MAX: u64 = 4096;

/// Earlier writes of the same place that are compared with.
const OLDER_WRITES_MAX: usize = 32;

/// Events searched backwards for them.
const SEARCH_EVENTS_MAX: u64 = 1 << 20;

const SECTOR: usize = SECTOR_SIZE as usize;

/// Wrong sectors with one last writer.
pub struct Case<'a> {
    /// What should be there; `None` where nothing was written: zeros.
    pub version: Option<Version>,
    /// Nothing was written there, and what should be there is what the recording's read returned.
    pub recorded: bool,
    /// The wrong sectors, sorted and joined.
    pub wrong: &'a [Range],
    /// All visible sectors of the version, the wrong ones among them, sorted and joined.
    pub visible: &'a [Range],
    /// Gives what was found in a sector.
    pub got: &'a mut dyn FnMut(u64, &mut SectorBytes) -> Result<()>,
}

/// What they look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// The fault.
    pub fault: Fault,
    /// What else would have left the same.
    pub alternatives: Vec<Fault>,
    /// The write whose content was found.
    pub found: Option<u64>,
    /// Byte offsets of flipped bytes, the first few.
    pub flipped: Vec<u64>,
    /// The first difference.
    pub first: Difference,
}

/// The bytes around a difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Byte offset on the target of the first wrong byte.
    pub offset: u64,
    /// Byte offset on the target of the first byte shown.
    pub shown_from: u64,
    /// What should have been there.
    pub expected: Vec<u8>,
    /// What was.
    pub got: Vec<u8>,
}

impl Difference {
    /// The first difference between two sectors.
    pub fn of(sector: u64, expected: &[u8], got: &[u8]) -> Self {
        let at = expected.iter().zip(got).position(|(a, b)| a != b).unwrap_or(0);
        let end = SECTOR.min(got.len()).min(expected.len());
        let from = (at & !15).saturating_sub(16).min(end.saturating_sub(SHOWN_BYTES));
        let to = end.min(from + SHOWN_BYTES);
        let base = sector.saturating_mul(SECTOR_SIZE);
        Self {
            offset: base + at as u64,
            shown_from: base + from as u64,
            expected: expected.get(from..to).unwrap_or_default().to_vec(),
            got: got.get(from..to).unwrap_or_default().to_vec(),
        }
    }
}

/// What one wrong sector looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// Older content: of this write, or from before all of them.
    Older(Option<u64>),
    Torn(Option<u64>),
    Flipped,
    Misdirected(u64),
    Foreign,
}

/// An earlier write of the same place.
struct Older {
    write: u64,
    placed: Placed,
    versions: [Option<Version>; 2],
}

/// Looks at a case.
pub fn diagnose(contents: &mut Contents, case: &mut Case<'_>) -> Result<Diagnosis> {
    let older = older_writes(contents, case.version, ranges::span(case.wrong))?;
    let (mut expected, mut got): (SectorBytes, SectorBytes) = ([0; SECTOR], [0; SECTOR]);
    let mut looks = Vec::new();
    let mut flipped = Vec::new();
    let mut first = None;
    for sector in ranges::sample(case.wrong, LOOKED_AT_MAX) {
        expect(contents, case.version, sector, &mut expected)?;
        (case.got)(sector, &mut got)?;
        let look = look(contents, case.version, &older, sector, &expected, &got)?;
        first.get_or_insert_with(|| {
            let mut first = Difference::of(sector, &expected, &got);
            // A whole sector of other content is wrong from its start, whatever they share.
            if matches!(look, Look::Older(_) | Look::Misdirected(_)) {
                first.offset = sector * SECTOR_SIZE;
            }
            first
        });
        looks.push(look);
        let room = LISTED_MAX.saturating_sub(flipped.len());
        let offsets = (sector * SECTOR_SIZE..).zip(expected.iter().zip(&got));
        flipped.extend(offsets.filter(|(_, (a, b))| a != b).map(|(at, _)| at).take(room));
    }
    let (fault, alternatives, found) = judge(contents, case, &looks)?;
    if fault != Fault::FlippedBytes {
        flipped.clear();
    }
    Ok(Diagnosis { fault, alternatives, found, flipped, first: first.unwrap_or_default() })
}

/// The content of a sector by the model.
pub fn expect(
    contents: &mut Contents,
    version: Option<Version>,
    sector: u64,
    out: &mut SectorBytes,
) -> Result<()> {
    out.fill(0);
    match version {
        Some(version) => contents.fill(version, sector, out).map(|_| ()),
        None => Ok(()),
    }
}

/// Earlier writes, latest first, that touch `span`.
fn older_writes(
    contents: &mut Contents,
    version: Option<Version>,
    span: Range,
) -> Result<Vec<Older>> {
    let mut found = Vec::new();
    let newest = version.map_or(0, Version::write);
    for write in (newest.saturating_sub(SEARCH_EVENTS_MAX)..newest).rev() {
        let Some((issue, placed)) = contents.issue(write)? else { continue };
        if placed.sector >= span.1 || placed.end() <= span.0 {
            continue;
        }
        let (first, second) = match issue.op {
            // What a discard leaves is unspecified, and zeros as a rule.
            BlockOp::WriteZeroes | BlockOp::Discard => (ContentKind::Zeros, None),
            BlockOp::Write if issue.payload == PayloadRef::Absent => (ContentKind::Stamp, None),
            // A write that was moved to whole blocks is stamped in spite of its payload.
            BlockOp::Write => (ContentKind::Payload, Some(ContentKind::Stamp)),
            BlockOp::Read | BlockOp::Flush | BlockOp::GetId => continue,
        };
        let second = second.map(|kind| Version::new(write, kind)).transpose()?;
        found.push(Older { write, placed, versions: [Some(Version::new(write, first)?), second] });
        if found.len() >= OLDER_WRITES_MAX {
            break;
        }
    }
    Ok(found)
}

/// The stamp of a sector, if the whole sector is one.
fn whole_stamp(got: &[u8]) -> Option<stamp::Stamp> {
    let stamp = stamp::read_sector(got)?;
    let mut again: SectorBytes = [0; SECTOR];
    stamp::write_sector(&mut again, stamp);
    (got == again).then_some(stamp)
}

fn look(
    contents: &mut Contents,
    version: Option<Version>,
    older: &[Older],
    sector: u64,
    expected: &SectorBytes,
    got: &SectorBytes,
) -> Result<Look> {
    if let Some(stamp) = whole_stamp(got) {
        let ours = stamp.seed == contents.seed();
        let newest = version.map_or(0, Version::write);
        return Ok(match stamp {
            s if ours && s.sector == sector && s.write < newest => Look::Older(Some(s.write)),
            s if ours && s.sector != sector => Look::Misdirected(s.write),
            _ => Look::Foreign,
        });
    }
    let differing = expected.iter().zip(got).filter(|(a, b)| a != b).count();
    let mut torn = is_torn(expected, &[0; SECTOR], got).then_some(Look::Torn(None));
    let mut old: SectorBytes = [0; SECTOR];
    for candidate in older.iter().filter(|c| c.placed.contains(sector)) {
        for version in candidate.versions.into_iter().flatten() {
            contents.fill(version, sector, &mut old)?;
            if old == *got {
                return Ok(Look::Older(Some(candidate.write)));
            }
            if !matches!(torn, Some(Look::Torn(Some(_)))) && is_torn(expected, &old, got) {
                torn = Some(Look::Torn(Some(candidate.write)));
            }
        }
    }
    Ok(match torn {
        _ if is_zero(got) => Look::Older(None),
        Some(torn) if differing >= TORN_BYTES_MIN && version.is_some() => torn,
        _ if differing <= FLIPPED_BYTES_MAX => Look::Flipped,
        _ => Look::Foreign,
    })
}

/// Whether `got` is the start of one and the end of the other.
fn is_torn(new: &SectorBytes, old: &SectorBytes, got: &SectorBytes) -> bool {
    let prefix = |a: &SectorBytes| a.iter().zip(got).take_while(|(a, b)| a == b).count();
    let suffix =
        |a: &SectorBytes| a.iter().rev().zip(got.iter().rev()).take_while(|(a, b)| a == b).count();
    prefix(new) + suffix(old) >= SECTOR || prefix(old) + suffix(new) >= SECTOR
}

type Judgement = (Fault, Vec<Fault>, Option<u64>);

fn judge(contents: &mut Contents, case: &Case<'_>, looks: &[Look]) -> Result<Judgement> {
    let mut source = None;
    let mut one_source = true;
    let (mut older, mut torn, mut flipped) = (0, 0, 0);
    for look in looks {
        match look {
            Look::Misdirected(write) => return Ok((Fault::MisdirectedWrite, vec![], Some(*write))),
            Look::Older(write) | Look::Torn(write) => {
                one_source &= source.is_none_or(|s| s == *write);
                source = Some(*write);
                older += usize::from(matches!(look, Look::Older(_)));
                torn += usize::from(matches!(look, Look::Torn(_)));
            }
            Look::Flipped => flipped += 1,
            Look::Foreign => {}
        }
    }
    let found = source.flatten();
    Ok(if flipped == looks.len() {
        (Fault::FlippedBytes, vec![], None)
    } else if older == looks.len() {
        older_fault(contents, case, found, one_source)?
    } else if older + torn == looks.len() {
        (Fault::TornWrite, vec![], found)
    } else {
        (Fault::ForeignData, vec![], None)
    })
}

/// All wrong sectors hold older content.
fn older_fault(
    contents: &mut Contents,
    case: &Case<'_>,
    found: Option<u64>,
    one_source: bool,
) -> Result<Judgement> {
    let overlap = match found.filter(|_| one_source) {
        Some(write) => contents.issue(write)?.map(|(_, placed)| (placed.sector, placed.end())),
        None => None,
    };
    let swapped = overlap.is_some_and(|a| ranges::clip(case.visible, a) == case.wrong);
    if case.visible == case.wrong {
        let alternatives = if swapped { vec![Fault::SwappedWrites] } else { vec![] };
        return Ok((Fault::DroppedWrite, alternatives, found));
    }
    let (start, end) = ranges::span(case.wrong);
    let at_an_end = ranges::clip(case.visible, (0, end)) == case.wrong
        || ranges::clip(case.visible, (start, u64::MAX)) == case.wrong;
    Ok(match (swapped, at_an_end) {
        (true, true) => (Fault::SwappedWrites, vec![Fault::TornWrite], found),
        (true, false) => (Fault::SwappedWrites, vec![], found),
        (false, true) => (Fault::TornWrite, vec![], found),
        (false, false) => (Fault::StaleData, vec![], found),
    })
}
