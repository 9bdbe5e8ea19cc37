//! The verbs that traces, drivers, devices and the oracle share.

use std::fmt;
use std::str::FromStr;

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

/// A block operation, as a guest's block layer knows it. The numbers stand in trace files: they
/// are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum BlockOp {
    /// Device to memory.
    Read = 1,
    /// Memory to device.
    Write = 2,
    /// Everything completed before it becomes durable; carries no data and no range.
    Flush = 3,
    /// The range's content is no longer needed; what it reads as afterwards is unspecified.
    Discard = 4,
    /// The range reads as zeros afterwards; [`OpFlags::UNMAP`] allows it to be deallocated.
    WriteZeroes = 5,
    /// The device's 20-byte identifier (virtio 1.2 §5.2.6, `VIRTIO_BLK_T_GET_ID`).
    GetId = 6,
}

impl BlockOp {
    /// Every operation, in the order reports list them.
    pub const ALL: [Self; 6] =
        [Self::Read, Self::Write, Self::Flush, Self::Discard, Self::WriteZeroes, Self::GetId];

    /// The name in reports, options and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Discard => "discard",
            Self::WriteZeroes => "write-zeroes",
            Self::GetId => "get-id",
        }
    }

    /// The operation with this number in a trace file, if there is one.
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|op| *op as u8 == number)
    }

    /// Dense index into tables that have one row an operation: the position in [`Self::ALL`].
    pub fn index(self) -> usize {
        self as usize - 1
    }

    /// Whether it names a range of the disk.
    pub fn has_range(self) -> bool {
        !matches!(self, Self::Flush | Self::GetId)
    }

    /// Whether it changes what the disk reads as.
    pub fn changes_content(self) -> bool {
        matches!(self, Self::Write | Self::Discard | Self::WriteZeroes)
    }
}

impl fmt::Display for BlockOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for BlockOp {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|op| op.name() == text).ok_or(())
    }
}

bitflags! {
    /// Modifiers of a block operation, exactly as the source of the trace had them.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
    #[serde(transparent)]
    pub struct OpFlags: u16 {
        /// Flush the device's cache before this operation (Linux `REQ_PREFLUSH`).
        const PREFLUSH = 1 << 0;
        /// Durable when it completes (Linux `REQ_FUA`, NBD `NBD_CMD_FLAG_FUA`).
        const FUA = 1 << 1;
        /// Somebody waits for it (Linux `REQ_SYNC`).
        const SYNC = 1 << 2;
        /// File-system metadata (Linux `REQ_META`).
        const META = 1 << 3;
        /// Read-ahead: it may fail without harm (Linux `REQ_RAHEAD`).
        const RAHEAD = 1 << 4;
        /// Write-zeroes may deallocate (virtio `VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP`).
        const UNMAP = 1 << 5;
    }
}

impl OpFlags {
    /// The flags as one word, `+`-joined; empty for none.
    pub fn names(self) -> String {
        self.iter_names().map(|(name, _)| name.to_lowercase()).collect::<Vec<_>>().join("+")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_round_trip() {
        for (index, op) in BlockOp::ALL.into_iter().enumerate() {
            assert_eq!(BlockOp::from_u8(op as u8), Some(op));
            assert_eq!(op.name().parse(), Ok(op));
            assert_eq!(op.index(), index);
        }
        assert_eq!(BlockOp::from_u8(0), None);
        assert_eq!(BlockOp::from_u8(7), None);
    }

    #[test]
    fn flags_have_names() {
        assert_eq!((OpFlags::PREFLUSH | OpFlags::FUA).names(), "preflush+fua");
        assert_eq!(OpFlags::empty().names(), "");
    }
}
