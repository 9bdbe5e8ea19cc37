//! What a trace says of a bus: accesses, guest memory, interrupts, the clock.
//!
//! The stream of such an event names where it belongs, in the source's own words: the region of an
//! access (`rtc-index`, `hpet`), or the space where the source has no regions; for interrupts the
//! kind of source (see [`IrqChange`]).

use super::event::{PayloadRef, StreamId};
use crate::base::{BusAccess, BusSpace, Nanos};

/// A vCPU's access to a port or to memory-mapped registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusEvent {
    /// Nanoseconds since the trace's time origin; 0 where the source has no times.
    pub time: Nanos,
    /// The region.
    pub stream: StreamId,
    /// What was accessed, and the value written or read.
    pub access: BusAccess,
    /// The CPU that made it, where the source says.
    pub cpu: Option<u16>,
}

/// What happened to a range of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemoryOp {
    /// The test thread stored the payload.
    Write,
    /// The test thread stored one byte all over.
    Fill,
    /// It held the payload: the test thread read it, or a device had written it.
    Read,
}

impl MemoryOp {
    /// Every operation; the number in a record is the position, from 1.
    pub const ALL: [Self; 3] = [Self::Write, Self::Fill, Self::Read];

    /// The word in listings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Fill => "fill",
            Self::Read => "read",
        }
    }
}

/// Guest memory, as the test thread wrote, filled or found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryEvent {
    /// Nanoseconds since the trace's time origin; 0 where the source has no times.
    pub time: Nanos,
    /// Stream it stands in.
    pub stream: StreamId,
    /// What happened.
    pub op: MemoryOp,
    /// First byte.
    pub addr: u64,
    /// Bytes.
    pub len: u64,
    /// Fill: the byte; else 0.
    pub fill: u8,
    /// Write, read: the `len` bytes, where recorded. Fill: absent.
    pub payload: PayloadRef,
}

/// An interrupt source changed, as far as its observer could see.
///
/// The name of the stream says what `line` counts: `intx` the global interrupts of the board,
/// `intr` and `nmi` the pins of a CPU by its number, `msi:ADDRESS` (hexadecimal) the data of
/// messages to that address. `apic-look` is a look at the messages for local APICs that were sent
/// since the last look, `line` of them; each follows in `apic:ADDRESS`, `line` its data. Any other
/// name (`ioapic`) is of a source that knows only lines, and is taken as `intx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IrqChange {
    /// Nanoseconds since the trace's time origin; 0 where the source has no times.
    pub time: Nanos,
    /// The kind of source.
    pub stream: StreamId,
    /// Which one of its kind.
    pub line: u32,
    /// It fired, or went low.
    pub high: bool,
}

/// The interrupt acknowledge cycle of a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckEvent {
    /// Nanoseconds since the trace's time origin; 0 where the source has no times.
    pub time: Nanos,
    /// Stream it stands in.
    pub stream: StreamId,
    /// The CPU.
    pub cpu: u16,
    /// The vector it took; `None` when no interrupt was requested.
    pub vector: Option<u8>,
}

/// The test thread let time pass. A step to the time that it is already is a turn given to the
/// devices (a poll), which takes no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockStep {
    /// Nanoseconds since the trace's time origin at which the step began.
    pub time: Nanos,
    /// Stream it stands in.
    pub stream: StreamId,
    /// What the clock read afterwards.
    pub to: Nanos,
}

/// Totals of one stream's bus events, kept by the writer as events pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BusTotals {
    /// Port accesses: reads, writes.
    pub ports: [u64; 2],
    /// Memory-mapped accesses: reads, writes.
    pub mmio: [u64; 2],
    /// Events of guest memory, by position in [`MemoryOp::ALL`].
    pub memory: [u64; 3],
    /// Interrupt changes: lines that fired, lines that went low.
    pub irqs: [u64; 2],
    /// Acknowledge cycles.
    pub acks: u64,
    /// Clock steps.
    pub steps: u64,
    /// Lowest address accessed; meaningful where there is an access.
    pub addr_min: u64,
    /// Highest byte accessed, likewise.
    pub addr_max: u64,
}

impl BusTotals {
    /// Accesses of either space.
    pub fn accesses(&self) -> u64 {
        self.reads().saturating_add(self.writes())
    }

    /// Reads of either space.
    pub fn reads(&self) -> u64 {
        self.ports[0].saturating_add(self.mmio[0])
    }

    /// Writes of either space.
    pub fn writes(&self) -> u64 {
        self.ports[1].saturating_add(self.mmio[1])
    }

    /// Events of every kind.
    pub fn events(&self) -> u64 {
        let others = self.memory.iter().chain(&self.irqs).chain([&self.acks, &self.steps]);
        others.fold(self.accesses(), |sum, count| sum.saturating_add(*count))
    }

    /// Counts an access.
    pub fn access(&mut self, access: &BusAccess) {
        let end = access.addr.saturating_add(u64::from(access.size).saturating_sub(1));
        if self.accesses() == 0 {
            (self.addr_min, self.addr_max) = (access.addr, end);
        }
        self.addr_min = self.addr_min.min(access.addr);
        self.addr_max = self.addr_max.max(end);
        let counts = match access.space {
            BusSpace::Pio => &mut self.ports,
            BusSpace::Mmio => &mut self.mmio,
        };
        counts[usize::from(access.write)] += 1;
    }

    /// Adds the totals of another stream.
    pub fn merge(&mut self, other: &Self) {
        if other.accesses() > 0 {
            let none = self.accesses() == 0;
            self.addr_min = if none { other.addr_min } else { self.addr_min.min(other.addr_min) };
            self.addr_max = self.addr_max.max(other.addr_max);
        }
        let pairs = [(&mut self.ports, &other.ports), (&mut self.mmio, &other.mmio)];
        for (sum, more) in pairs.into_iter().chain([(&mut self.irqs, &other.irqs)]) {
            sum.iter_mut().zip(more).for_each(|(sum, more)| *sum = sum.saturating_add(*more));
        }
        let memory = self.memory.iter_mut().zip(&other.memory);
        memory.for_each(|(sum, more)| *sum = sum.saturating_add(*more));
        self.acks = self.acks.saturating_add(other.acks);
        self.steps = self.steps.saturating_add(other.steps);
    }
}
