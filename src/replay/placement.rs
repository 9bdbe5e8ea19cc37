//! Where a request of the trace lies on the target: whole blocks, inside the disk.
//!
//! The oracle asks the same rule the other way round, to find which event wrote a sector.

use std::sync::Arc;

use super::policy::{OffsetPolicy, UnalignedPolicy};
use crate::base::{BlockOp, Error, Result, SECTOR_SIZE};
use crate::oracle::{Placed, Placement};
use crate::trace::{Issue, StreamId};

/// How a plan treats what does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanPolicy {
    /// Requests past the end of the disk.
    pub offset: OffsetPolicy,
    /// Requests that are not whole blocks.
    pub unaligned: UnalignedPolicy,
}

/// A range on the target, and what was done to it on the way there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spot {
    /// First sector.
    pub start: u64,
    /// One past the last sector; equal to `start` when nothing is left.
    pub end: u64,
    /// It was rounded to whole blocks.
    pub rounded: bool,
    /// It was moved back into the disk.
    pub wrapped: bool,
    /// It was shortened.
    pub clipped: bool,
}

/// The rule: policy, disk, and which streams take part.
#[derive(Clone, Debug)]
pub struct Layout {
    policy: PlanPolicy,
    capacity_sectors: u64,
    block_sectors: u64,
    selected: Arc<[bool]>,
}

impl Layout {
    /// The rule for a disk of `capacity_sectors` in blocks of `block_bytes`; `selected` tells for
    /// each stream whether it is replayed.
    pub fn new(
        policy: PlanPolicy,
        capacity_sectors: u64,
        block_bytes: u32,
        selected: Arc<[bool]>,
    ) -> Self {
        let block_sectors = (u64::from(block_bytes) / SECTOR_SIZE).max(1);
        let capacity_sectors = capacity_sectors / block_sectors * block_sectors;
        Self { policy, capacity_sectors, block_sectors, selected }
    }

    /// Sectors in a block.
    pub fn block_sectors(&self) -> u64 {
        self.block_sectors
    }

    /// Whether requests of `stream` are replayed.
    pub fn selects(&self, stream: StreamId) -> bool {
        self.selected.get(stream.0 as usize).copied().unwrap_or(false)
    }

    /// The range of `issue`.
    ///
    /// # Errors
    /// One that does not fit, where the policy is `error`, and any past the end of the numbers.
    pub fn spot(&self, issue: &Issue) -> Result<Spot> {
        let spot = self.round(issue)?;
        if spot.end <= self.capacity_sectors || spot.start == spot.end {
            return Ok(spot);
        }
        self.fit(spot, issue)
    }

    /// Whole blocks. A discard shrinks, as it must not take what it was not given; everything else
    /// grows.
    fn round(&self, issue: &Issue) -> Result<Spot> {
        let bytes = self.block_sectors * SECTOR_SIZE;
        let (offset, len) = (issue.offset, issue.len);
        let end = offset.checked_add(len).ok_or_else(|| self.outside(issue))?;
        if offset.is_multiple_of(bytes) && len.is_multiple_of(bytes) {
            return Ok(Spot {
                start: offset / SECTOR_SIZE,
                end: end / SECTOR_SIZE,
                ..Spot::default()
            });
        }
        if len == 0 {
            return Ok(Spot::default());
        }
        if self.policy.unaligned == UnalignedPolicy::Error {
            let op = issue.op;
            let what =
                format!("{op} of {len} bytes at offset {offset} is not whole {bytes}-byte blocks");
            return Err(Error::usage(what).hint("unaligned=round rounds such requests"));
        }
        let (down, up) = (offset / bytes, offset.div_ceil(bytes));
        let (first, last) = match issue.op {
            BlockOp::Discard => (up, (end / bytes).max(up)),
            _ => (down, end.div_ceil(bytes)),
        };
        let (start, end) = (first * self.block_sectors, last * self.block_sectors);
        Ok(Spot { start, end, rounded: true, ..Spot::default() })
    }

    /// Moves or cuts what passes the end of the disk.
    fn fit(&self, spot: Spot, issue: &Issue) -> Result<Spot> {
        let capacity = self.capacity_sectors;
        match self.policy.offset {
            OffsetPolicy::Clip => {
                Ok(Spot { start: spot.start.min(capacity), end: capacity, clipped: true, ..spot })
            }
            OffsetPolicy::Wrap if capacity > 0 => {
                let sectors = (spot.end - spot.start).min(capacity);
                // Kept in one piece: what would stick out is moved back to end at the disk's end.
                let start = (spot.start % capacity).min(capacity - sectors);
                let clipped = sectors < spot.end - spot.start;
                Ok(Spot { start, end: start + sectors, wrapped: true, clipped, ..spot })
            }
            OffsetPolicy::Wrap | OffsetPolicy::Error => Err(self.outside(issue)),
        }
    }

    fn outside(&self, issue: &Issue) -> Error {
        let (op, len, offset) = (issue.op, issue.len, issue.offset);
        let size = self.capacity_sectors.saturating_mul(SECTOR_SIZE);
        Error::usage(format!(
            "{op} of {len} bytes at offset {offset} passes the disk's {size} bytes"
        ))
        .hint("offset=wrap or offset=clip makes it fit; target_size= makes a new disk larger")
    }
}

impl Placement for Layout {
    fn place(&self, issue: &Issue) -> Option<Placed> {
        if !self.selects(issue.stream) || !issue.op.has_range() {
            return None;
        }
        let Spot { start, end, .. } = self.spot(issue).ok()?;
        (end > start).then_some(Placed { sector: start, sectors: end - start, payload_from: 0 })
    }
}
