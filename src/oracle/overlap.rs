//! Requests in flight, and what their overlapping makes admissible.
//!
//! With `overlap=hold` no two overlap and all of this stays empty. With `overlap=allow`:
//!
//! - a read may return, for each sector, the version from before it was issued and that of any
//!   write to the sector that was in flight at any time while the read was;
//! - when a write is answered, it is a candidate for the final content, and so stays each candidate
//!   that raced with it (the two were in flight together); any other is overwritten for good.

use std::collections::BTreeMap;

use super::extents::Piece;
use super::version::Version;
use super::{PlannedRequest, Verify};
use crate::base::hash::OwnMap;

/// Contested ranges kept apart; the content of further ones counts as unknown.
pub const CONTESTED_MAX: usize = 64 << 10;

/// A request without an answer.
#[derive(Debug)]
pub struct InFlight {
    /// What was asked.
    pub request: PlannedRequest,
    /// What it makes of its range, if it changes content.
    pub version: Option<Version>,
    /// For a read: what else it may return, where.
    pub also: Vec<Piece>,
    /// For a write: writes that were in flight together with it.
    pub raced: Vec<Version>,
}

impl InFlight {
    fn range(&self) -> (u64, u64) {
        (self.request.sector, self.request.end())
    }
}

/// The part that two ranges share.
pub fn shared(a: (u64, u64), b: (u64, u64)) -> Option<(u64, u64)> {
    let (start, end) = (a.0.max(b.0), a.1.min(b.1));
    (start < end).then_some((start, end))
}

/// All requests in flight.
#[derive(Default)]
pub struct Flight {
    requests: OwnMap<u64, InFlight>,
}

impl Flight {
    /// Enters a request. `overlap` says whether it may overlap others.
    pub fn issued(
        &mut self,
        token: u64,
        request: PlannedRequest,
        version: Option<Version>,
        overlap: bool,
    ) {
        let mut new = InFlight { request, version, also: Vec::new(), raced: Vec::new() };
        if overlap && request.op.has_range() {
            self.requests.values_mut().for_each(|other| meet(&mut new, other));
        }
        self.requests.insert(token, new);
    }

    /// Takes an answered request out.
    pub fn answered(&mut self, token: u64) -> Option<InFlight> {
        self.requests.remove(&token)
    }

    /// Before a write of `start..end` takes effect: what it replaces stays admissible for the reads
    /// that are under way.
    pub fn keep_for_reads(&mut self, old: &[Piece]) {
        for read in
            self.requests.values_mut().filter(|r| r.request.op == crate::base::BlockOp::Read)
        {
            for piece in old {
                if let Some((start, end)) = shared(read.range(), (piece.start, piece.end)) {
                    read.also.push(Piece { start, end, ..*piece });
                }
            }
        }
    }

    /// Takes everything out, in order of token.
    pub fn drain(&mut self) -> Vec<InFlight> {
        let mut all: Vec<_> = self.requests.drain().collect();
        all.sort_unstable_by_key(|(token, _)| *token);
        all.into_iter().map(|(_, request)| request).collect()
    }

    /// Whether a request needs to be remembered at all.
    pub fn wanted(verify: Verify) -> bool {
        verify != Verify::None
    }
}

fn meet(new: &mut InFlight, other: &mut InFlight) {
    let Some((start, end)) = shared(new.range(), other.range()) else { return };
    match (new.version, other.version) {
        (Some(a), Some(b)) => {
            new.raced.push(b);
            other.raced.push(a);
        }
        (Some(version), None) => other.also.push(Piece { start, end, version: Some(version) }),
        (None, Some(version)) => new.also.push(Piece { start, end, version: Some(version) }),
        (None, None) => {}
    }
}

/// Ranges where more than the model's version is admissible.
#[derive(Default)]
pub struct Contested {
    ranges: BTreeMap<u64, (u64, Vec<Version>)>,
}

impl Contested {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether no more can be kept.
    pub fn is_full(&self) -> bool {
        self.ranges.len() >= CONTESTED_MAX
    }

    /// The other versions admissible within `start..end`.
    pub fn within(&self, start: u64, end: u64) -> impl Iterator<Item = Piece> + '_ {
        let before = self.ranges.range(..start).next_back();
        before.into_iter().chain(self.ranges.range(start..end)).flat_map(
            move |(&from, (to, versions))| {
                let part = shared((from, *to), (start, end));
                part.into_iter().flat_map(move |(start, end)| {
                    versions.iter().map(move |&v| Piece { start, end, version: Some(v) })
                })
            },
        )
    }

    /// Forgets everything within `start..end`.
    pub fn clear(&mut self, start: u64, end: u64) {
        let from = match self.ranges.range(..start).next_back() {
            Some((&from, (to, _))) if *to > start => from,
            _ => start,
        };
        while let Some((&at, _)) = self.ranges.range(from..end).next() {
            let Some((to, versions)) = self.ranges.remove(&at) else { return };
            if to > end {
                self.ranges.insert(end, (to, versions.clone()));
            }
            if at < start {
                self.ranges.insert(at, (start, versions));
                // What follows begins at or past `start`.
                return self.clear_from(start, end);
            }
        }
    }

    fn clear_from(&mut self, start: u64, end: u64) {
        while let Some((&at, _)) = self.ranges.range(start..end).next() {
            if let Some((to, versions)) = self.ranges.remove(&at)
                && to > end
            {
                self.ranges.insert(end, (to, versions));
            }
        }
    }

    /// Admits the versions of `pieces`, which may overlap one another, in place of what was
    /// admitted there before.
    pub fn set(&mut self, pieces: &[Piece]) {
        let mut cuts: Vec<u64> = pieces.iter().flat_map(|p| [p.start, p.end]).collect();
        cuts.sort_unstable();
        cuts.dedup();
        for part in cuts.windows(2) {
            let &[start, end] = part else { continue };
            let covering = pieces.iter().filter(|p| p.start <= start && end <= p.end);
            let mut versions: Vec<Version> = covering.filter_map(|p| p.version).collect();
            versions.sort_unstable_by_key(|v| v.to_raw());
            versions.dedup();
            self.clear(start, end);
            if !versions.is_empty() {
                self.ranges.insert(start, (end, versions));
            }
        }
    }
}
