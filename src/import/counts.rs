//! What an import has written so far, in numbers.

use crate::base::BlockOp;
use crate::trace::BusTotals;

/// Issues by operation: how many and how many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Issues, indexed by [`BlockOp::index`].
    pub issues: [u64; 6],
    /// Their bytes, likewise.
    pub bytes: [u64; 6],
    /// Completions.
    pub completes: u64,
    /// Marks.
    pub marks: u64,
    /// Accesses, guest memory, interrupts, clock steps.
    pub bus: BusTotals,
}

impl Counts {
    /// Issues of `op`.
    pub fn issues_of(&self, op: BlockOp) -> u64 {
        self.issues[op.index()]
    }

    /// Bytes of `op`.
    pub fn bytes_of(&self, op: BlockOp) -> u64 {
        self.bytes[op.index()]
    }

    /// Issues of every operation.
    pub fn requests(&self) -> u64 {
        self.issues.iter().sum()
    }

    /// All events.
    pub fn events(&self) -> u64 {
        self.requests() + self.completes + self.marks + self.bus.events()
    }
}
