//! What a vCPU does to a bus, as traces, machines and tests say it.

/// An address space of the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BusSpace {
    /// Port I/O: 16-bit addresses, accesses of 1, 2 or 4 bytes.
    Pio,
    /// Memory-mapped I/O: accesses of 1, 2, 4 or 8 bytes.
    Mmio,
}

impl BusSpace {
    /// The word in listings: `port` or `mmio`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pio => "port",
            Self::Mmio => "mmio",
        }
    }

    /// Whether an access of `size` bytes at `addr` exists in this space.
    pub fn holds(self, addr: u64, size: u8) -> bool {
        match self {
            Self::Pio => addr <= u64::from(u16::MAX) && matches!(size, 1 | 2 | 4),
            Self::Mmio => matches!(size, 1 | 2 | 4 | 8),
        }
    }
}

/// One access of a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BusAccess {
    /// Ports or memory.
    pub space: BusSpace,
    /// A store or `out`; else a load or `in`.
    pub write: bool,
    /// First byte.
    pub addr: u64,
    /// Bytes: 1, 2, 4, and 8 for memory.
    pub size: u8,
    /// The value written or read, little endian in the low `size` bytes; the others are zero.
    pub value: u64,
}

impl BusAccess {
    /// All ones of `size` bytes: what a read that nothing answers returns.
    pub fn ones(size: u8) -> u64 {
        u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)))
    }
}
