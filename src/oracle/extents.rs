//! The expected-content model: which write last defined each sector.
//!
//! A log-structured merge of extents. New extents go to a small ordered table (fixed overhead);
//! when it is full it becomes a sorted run ([`super::runs`], 12 bytes an extent). Runs are merged,
//! newest over oldest, as soon as those above a run hold more than a quarter of its entries, so all
//! of them together hold at most 5/4 of the oldest's, and an extent covers at least one sector:
//! 12 × 5/4 = 15 bytes a distinct sector, with the block index still below 16. Past the memory
//! budget runs move to unlinked temporary files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::runs::{Extent, ExtentSource, Overlay, Run, RunBuilder};
use super::spill::BlockCache;
use super::version::Version;
use crate::base::{Error, Result};

/// Extents in the ordered table: about 3 MiB.
pub const TABLE_EXTENTS_MAX: usize = 64 << 10;

/// A run is merged with those above it when they hold more than this part of its entries.
const MERGE_RATIO: u64 = 4;

/// Part of a looked-up range with one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// First sector.
    pub start: u64,
    /// First sector past it.
    pub end: u64,
    /// What defined it; `None` where nothing did.
    pub version: Option<Version>,
}

impl Piece {
    /// Sectors in it.
    pub fn sectors(&self) -> u64 {
        self.end - self.start
    }
}

/// See the module.
pub struct ExtentMap {
    table: BTreeMap<u64, (u64, Version)>,
    table_max: usize,
    /// Oldest first.
    runs: Vec<Run>,
    runs_made: u64,
    memory_bytes: u64,
    /// Where temporary files go.
    folder: PathBuf,
    cache: BlockCache,
    gaps: Vec<(u64, u64)>,
    gaps_next: Vec<(u64, u64)>,
    broken: bool,
}

impl ExtentMap {
    /// An empty map whose runs take at most `memory_bytes` of memory.
    pub fn new(memory_bytes: u64) -> Self {
        Self::with_table(memory_bytes, TABLE_EXTENTS_MAX)
    }

    /// As [`ExtentMap::new`], with a table of another size (for tests).
    pub fn with_table(memory_bytes: u64, table_max: usize) -> Self {
        Self {
            table: BTreeMap::new(),
            table_max: table_max.max(1),
            runs: Vec::new(),
            runs_made: 0,
            memory_bytes,
            folder: std::env::temp_dir(),
            cache: BlockCache::default(),
            gaps: Vec::new(),
            gaps_next: Vec::new(),
            broken: false,
        }
    }

    /// Bytes of memory that the runs take.
    pub fn run_memory_bytes(&self) -> u64 {
        self.runs.iter().map(Run::memory_bytes).sum()
    }

    /// Whether anything lies in a temporary file.
    pub fn is_spilled(&self) -> bool {
        self.runs.iter().any(Run::is_spilled)
    }

    /// `start..end` was last defined by `version`.
    ///
    /// # Errors
    /// The temporary file cannot be written; the map answers nothing from then on.
    pub fn insert(&mut self, start: u64, end: u64, version: Version) -> Result<()> {
        if start >= end {
            return Ok(());
        }
        match self.table.get_mut(&start) {
            Some((old_end, old)) if *old_end == end => *old = version,
            _ => self.insert_slow(start, end, version),
        }
        if self.table.len() >= self.table_max { self.flush() } else { Ok(()) }
    }

    fn insert_slow(&mut self, mut start: u64, end: u64, version: Version) {
        if let Some((&before, entry)) = self.table.range_mut(..start).next_back() {
            let (old_end, old) = *entry;
            if old_end > end {
                entry.0 = start;
                self.table.insert(end, (old_end, old));
            } else if old_end >= start {
                if old == version {
                    start = before;
                } else {
                    entry.0 = start;
                }
            }
        }
        while let Some((&at, &(old_end, old))) = self.table.range(start..end).next() {
            self.table.remove(&at);
            if old_end > end {
                self.table.insert(end, (old_end, old));
            }
        }
        self.table.insert(start, (end, version));
    }

    /// What defined each part of `start..end`: `out` covers it in order, without gaps.
    pub fn lookup(&mut self, start: u64, end: u64, out: &mut Vec<Piece>) -> Result<()> {
        out.clear();
        self.check()?;
        if start >= end {
            return Ok(());
        }
        self.gaps.clear();
        self.lookup_table(start, end, out);
        for run in self.runs.iter().rev() {
            if self.gaps.is_empty() {
                break;
            }
            self.gaps_next.clear();
            for &(from, to) in &self.gaps {
                let mut at = from;
                run.visit(from, to, &mut self.cache, |extent| {
                    let piece_start = extent.start.max(from);
                    if piece_start > at {
                        self.gaps_next.push((at, piece_start));
                    }
                    at = extent.end.min(to);
                    out.push(Piece { start: piece_start, end: at, version: Some(extent.version) });
                    true
                })?;
                if at < to {
                    self.gaps_next.push((at, to));
                }
            }
            std::mem::swap(&mut self.gaps, &mut self.gaps_next);
        }
        let gaps = self.gaps.iter();
        out.extend(gaps.map(|&(start, end)| Piece { start, end, version: None }));
        if out.len() > 1 {
            out.sort_unstable_by_key(|piece| piece.start);
            join(out);
        }
        Ok(())
    }

    fn lookup_table(&mut self, start: u64, end: u64, out: &mut Vec<Piece>) {
        let mut at = start;
        let before = self.table.range(..start).next_back().filter(|(_, (e, _))| *e > start);
        for (&from, &(to, version)) in before.into_iter().chain(self.table.range(start..end)) {
            let from = from.max(start);
            if from > at {
                self.gaps.push((at, from));
            }
            at = to.min(end);
            out.push(Piece { start: from, end: at, version: Some(version) });
        }
        if at < end {
            self.gaps.push((at, end));
        }
    }

    /// The first sector at or past `from` that anything defined.
    pub fn next_defined(&mut self, from: u64) -> Result<Option<u64>> {
        self.check()?;
        let before = self.table.range(..from).next_back().filter(|(_, (end, _))| *end > from);
        let table = match before {
            Some(_) => return Ok(Some(from)),
            None => self.table.range(from..).next().map(|(&start, _)| start),
        };
        let mut best = table;
        for run in &self.runs {
            run.visit(from, best.unwrap_or(u64::MAX), &mut self.cache, |extent| {
                best = Some(extent.start.max(from));
                false
            })?;
        }
        Ok(best)
    }

    fn check(&self) -> Result<()> {
        if self.broken {
            return Err(Error::incomplete("the oracle lost its temporary file: nothing is known"));
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.check()?;
        let done = self.try_flush();
        self.broken |= done.is_err();
        done
    }

    fn try_flush(&mut self) -> Result<()> {
        let mut builder = RunBuilder::in_memory(self.next_id());
        for (start, (end, version)) in std::mem::take(&mut self.table) {
            builder.push(Extent { start, end, version })?;
        }
        self.runs.push(builder.finish()?);
        self.merge()?;
        self.spill()
    }

    fn next_id(&mut self) -> u64 {
        self.runs_made += 1;
        self.runs_made
    }

    fn builder(&mut self, spill: bool) -> Result<RunBuilder> {
        let id = self.next_id();
        if spill { RunBuilder::in_file(id, &self.folder) } else { Ok(RunBuilder::in_memory(id)) }
    }

    /// Merges the lowest run that those above it outgrow with all of them.
    fn merge(&mut self) -> Result<()> {
        let mut above: u64 = self.runs.iter().map(Run::entries).sum();
        let first = self.runs.iter().position(|run| {
            above -= run.entries();
            above * MERGE_RATIO > run.entries()
        });
        let Some(first) = first else { return Ok(()) };
        let merged = self.runs.split_off(first);
        let spill = merged.iter().any(Run::is_spilled)
            || self.run_memory_bytes() + merged.iter().map(Run::memory_bytes).sum::<u64>()
                > self.memory_bytes;
        let mut builder = self.builder(spill)?;
        let mut source: Option<Box<dyn ExtentSource>> = None;
        for run in merged {
            let newer = Box::new(run.into_source());
            source = Some(match source {
                Some(older) => Box::new(Overlay::new(newer, older)?),
                None => newer,
            });
        }
        if let Some(mut source) = source {
            while let Some(extent) = source.next()? {
                builder.push(extent)?;
            }
        }
        self.runs.push(builder.finish()?);
        Ok(())
    }

    /// Moves runs to files, oldest first, until the rest fits.
    fn spill(&mut self) -> Result<()> {
        for index in 0..self.runs.len() {
            if self.run_memory_bytes() <= self.memory_bytes {
                break;
            }
            if self.runs[index].is_spilled() {
                continue;
            }
            let mut builder = self.builder(true)?;
            let empty = RunBuilder::in_memory(0).finish()?;
            let mut source = std::mem::replace(&mut self.runs[index], empty).into_source();
            while let Some(extent) = source.next()? {
                builder.push(extent)?;
            }
            self.runs[index] = builder.finish()?;
        }
        Ok(())
    }
}

/// Joins neighbours with the same answer.
fn join(pieces: &mut Vec<Piece>) {
    pieces.dedup_by(|next, kept| {
        let same = kept.end == next.start && kept.version == next.version;
        if same {
            kept.end = next.end;
        }
        same
    });
}

#[cfg(test)]
#[path = "extents_tests.rs"]
mod tests;
