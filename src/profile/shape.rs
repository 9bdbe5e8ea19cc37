//! What single requests are like: sizes, alignment, whether they follow one another.

use std::collections::BTreeMap;

use serde::Serialize;

use super::buckets::{Powers, Row};
use crate::base::BlockOp;
use crate::trace::Issue;

/// Alignment is told up to this power of two: 1 MiB.
const ALIGN_POWER_MAX: usize = 20;

/// Requests of one alignment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AlignRow {
    /// The largest power of two that divides offset and length, up to 1 MiB; bytes.
    pub bytes: u64,
    /// How many.
    pub count: u64,
}

/// The shape of the requests of one operation.
#[derive(Debug, Serialize)]
pub struct ShapeFacts {
    /// Requests.
    pub requests: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their length on average; bytes.
    pub size_mean: f64,
    /// The longest.
    pub size_max: u64,
    /// Lengths in bytes, by powers of two.
    pub sizes: Vec<Row>,
    /// By alignment.
    pub alignment: Vec<AlignRow>,
    /// Requests that begin where the one before of that operation on that stream ended.
    pub sequential: u64,
    /// Share of them, of requests.
    pub sequential_share: f64,
}

#[derive(Default)]
struct PerOp {
    requests: u64,
    bytes: u64,
    sizes: Powers,
    size_max: u64,
    ranged: bool,
    align: [u64; ALIGN_POWER_MAX + 1],
    sequential: u64,
}

/// Gathers shapes.
pub(super) struct Shape {
    ops: [PerOp; 6],
    /// For each stream, where its last request of each operation ended.
    ends: Vec<[u64; 6]>,
}

impl Shape {
    pub(super) fn new(streams: usize) -> Self {
        Self { ops: Default::default(), ends: vec![[u64::MAX; 6]; streams] }
    }

    #[inline]
    pub(super) fn issue(&mut self, issue: &Issue) {
        let index = issue.op.index();
        let Some(op) = self.ops.get_mut(index) else { return };
        op.requests += 1;
        if !issue.op.has_range() {
            return;
        }
        op.bytes = op.bytes.saturating_add(issue.len);
        op.sizes.add(issue.len);
        op.size_max = op.size_max.max(issue.len);
        op.ranged = true;
        let power = (issue.offset | issue.len).trailing_zeros() as usize;
        op.align[power.min(ALIGN_POWER_MAX)] += 1;
        if let Some(end) = self.ends.get_mut(issue.stream.0 as usize).and_then(|e| e.get_mut(index))
        {
            op.sequential += u64::from(*end == issue.offset);
            *end = issue.offset.saturating_add(issue.len);
        }
    }

    /// Share of reads among reads and writes: of requests, of bytes.
    pub(super) fn read_shares(&self) -> (Option<f64>, Option<f64>) {
        let [read, write] = [BlockOp::Read, BlockOp::Write].map(|op| &self.ops[op.index()]);
        let share = |a: u64, b: u64| {
            let sum = a.saturating_add(b);
            (sum > 0).then(|| a as f64 / sum as f64)
        };
        (share(read.requests, write.requests), share(read.bytes, write.bytes))
    }

    pub(super) fn facts(&self) -> BTreeMap<&'static str, ShapeFacts> {
        let named = BlockOp::ALL.into_iter().map(|op| (op.name(), &self.ops[op.index()]));
        let asked = named.filter(|(_, op)| op.ranged);
        asked.map(|(name, op)| (name, op.facts())).collect()
    }
}

impl PerOp {
    fn facts(&self) -> ShapeFacts {
        let row = |(power, count): (usize, &u64)| {
            (*count > 0).then_some(AlignRow { bytes: 1 << power, count: *count })
        };
        ShapeFacts {
            requests: self.requests,
            bytes: self.bytes,
            size_mean: self.bytes as f64 / self.requests.max(1) as f64,
            size_max: self.size_max,
            sizes: self.sizes.rows(),
            alignment: self.align.iter().enumerate().filter_map(row).collect(),
            sequential: self.sequential,
            sequential_share: self.sequential as f64 / self.requests.max(1) as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::issue;

    #[test]
    fn sizes_alignment_and_sequence_of_each_stream() {
        let mut shape = Shape::new(2);
        let requests =
            [(0, 0, 4096), (1, 4096, 512), (0, 4096, 8192), (0, 0, 4096), (1, 4608, 1024)];
        for (stream, offset, len) in requests {
            shape.issue(&issue(0, stream, BlockOp::Read, offset, len));
        }
        shape.issue(&issue(0, 0, BlockOp::Write, 12288, 4096));
        shape.issue(&issue(0, 0, BlockOp::Flush, 0, 0));
        let facts = shape.facts();
        let read = &facts["read"];
        assert_eq!((read.requests, read.bytes, read.sequential), (5, 17_920, 2));
        let sizes: Vec<_> = read.sizes.iter().map(|row| (row.from, row.count)).collect();
        assert_eq!(sizes, [(512, 1), (1024, 1), (4096, 2), (8192, 1)]);
        let aligned: Vec<_> = read.alignment.iter().map(|row| (row.bytes, row.count)).collect();
        assert_eq!(aligned, [(512, 2), (4096, 3)]);
        assert_eq!((read.size_mean, read.size_max), (3584.0, 8192));
        assert_eq!(shape.read_shares().0, Some(5.0 / 6.0));
        assert!(!facts.contains_key("flush"));
    }
}
