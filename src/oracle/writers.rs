//! Which event of a trace wrote a place last, without a run: the trace taken in order.

use super::extents::{ExtentMap, Piece};
use super::finding::EventRef;
use super::source::{Identity, Placement};
use super::version::{ContentKind, Version};
use crate::base::{Result, SECTOR_SIZE};
use crate::trace::{Event, Trace};

/// Memory of the model before it spills to a temporary file.
const MEMORY_BYTES: u64 = 256 << 20;

/// Events between two calls of the progress function.
const PROGRESS_EVENTS: u64 = 1 << 14;

/// The last writers of a trace.
pub struct LastWriters<'a> {
    trace: &'a Trace,
    map: ExtentMap,
    pieces: Vec<Piece>,
}

impl<'a> LastWriters<'a> {
    /// Takes in a whole trace. `progress` gets the events done.
    ///
    /// # Errors
    /// The trace cannot be read, or the temporary file not be written.
    pub fn of(trace: &'a Trace, progress: &mut dyn FnMut(u64)) -> Result<Self> {
        let mut map = ExtentMap::new(MEMORY_BYTES);
        let mut cursor = trace.cursor(0);
        while let Some((number, event)) = cursor.next()? {
            if number % PROGRESS_EVENTS == 0 {
                progress(number);
            }
            let Event::Issue(issue) = event else { continue };
            if !issue.op.changes_content() {
                continue;
            }
            if let Some(placed) = Identity.place(&issue) {
                // The kind is not asked for.
                let version = Version::new(number, ContentKind::Stamp)?;
                map.insert(placed.sector, placed.end(), version)?;
            }
        }
        Ok(Self { trace, map, pieces: Vec::new() })
    }

    /// The event that wrote the first written byte of a range last, and how many other last
    /// writers the range has.
    ///
    /// # Errors
    /// The trace or the temporary file cannot be read.
    pub fn within(&mut self, offset: u64, len: u64) -> Result<(Option<EventRef>, u64)> {
        let end = offset.saturating_add(len).div_ceil(SECTOR_SIZE);
        self.map.lookup(offset / SECTOR_SIZE, end, &mut self.pieces)?;
        let mut events: Vec<u64> =
            self.pieces.iter().filter_map(|p| p.version).map(Version::write).collect();
        let Some(&first) = events.first() else { return Ok((None, 0)) };
        events.sort_unstable();
        events.dedup();
        let Event::Issue(issue) = self.trace.event(first)? else { return Ok((None, 0)) };
        let writer = EventRef {
            event: first,
            pass: 0,
            op: issue.op,
            offset: issue.offset,
            len: issue.len,
            time_ns: issue.time.0,
        };
        Ok((Some(writer), events.len() as u64 - 1))
    }
}
