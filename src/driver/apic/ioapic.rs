//! The I/O APIC.

use super::{DeliveryMode, Destination};
use crate::base::GuestAddr;
use crate::machine::Bus;

/// Where a PC's first I/O APIC is.
pub const DEFAULT_BASE: GuestAddr = GuestAddr(0xfec0_0000);

/// Offsets of the selector, the window, and the EOI register of version 20h.
const IOREGSEL: u64 = 0x00;
const IOWIN: u64 = 0x10;
const IOEOI: u64 = 0x40;

/// Identification register.
pub const IOAPICID: u8 = 0;
/// Version register.
pub const IOAPICVER: u8 = 1;
/// Arbitration register.
pub const IOAPICARB: u8 = 2;
/// First redirection table register.
const IOREDTBL: u8 = 0x10;

const LOGICAL: u64 = 1 << 11;
const PENDING: u64 = 1 << 12;
const ACTIVE_LOW: u64 = 1 << 13;
const REMOTE_IRR: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
const MODE_SHIFT: u32 = 8;
const DEST_SHIFT: u32 = 56;

/// A redirection table entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redirection {
    /// The vector.
    pub vector: u8,
    /// What it is to the destination.
    pub mode: DeliveryMode,
    /// Whom it is for.
    pub destination: Destination,
    /// The input is active when low.
    pub active_low: bool,
    /// Level triggered; else on the edge.
    pub level: bool,
    /// Nothing is delivered.
    pub masked: bool,
    /// Read only: a local APIC has it and has not ended it.
    pub remote_irr: bool,
    /// Read only: it is on its way.
    pub pending: bool,
}

impl Redirection {
    /// An edge, fixed, to the CPU with ID 0.
    pub fn edge(vector: u8) -> Self {
        Self { vector, ..Self::default() }
    }

    /// A level, fixed, to the CPU with ID 0.
    pub fn level(vector: u8) -> Self {
        Self { level: true, ..Self::edge(vector) }
    }

    /// The 64 bits of the entry.
    pub fn bits(self) -> u64 {
        let flags = [
            (self.destination.is_logical(), LOGICAL),
            (self.pending, PENDING),
            (self.active_low, ACTIVE_LOW),
            (self.remote_irr, REMOTE_IRR),
            (self.level, LEVEL),
            (self.masked, MASKED),
        ];
        let flags = flags.into_iter().filter(|(set, _)| *set).fold(0, |bits, (_, bit)| bits | bit);
        flags
            | u64::from(self.vector)
            | u64::from(self.mode.code()) << MODE_SHIFT
            | u64::from(self.destination.field()) << DEST_SHIFT
    }

    /// The entry of 64 bits.
    pub fn of_bits(bits: u64) -> Self {
        let has = |bit| bits & bit != 0;
        Self {
            vector: bits as u8,
            mode: DeliveryMode::of_code((bits >> MODE_SHIFT) as u8),
            destination: Destination::of_fields((bits >> DEST_SHIFT) as u8, has(LOGICAL)),
            active_low: has(ACTIVE_LOW),
            level: has(LEVEL),
            masked: has(MASKED),
            remote_irr: has(REMOTE_IRR),
            pending: has(PENDING),
        }
    }
}

/// An I/O APIC by its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApic(pub GuestAddr);

impl Default for IoApic {
    fn default() -> Self {
        Self(DEFAULT_BASE)
    }
}

impl IoApic {
    /// Reads a register.
    pub fn read(self, bus: &mut dyn Bus, register: u8) -> u32 {
        bus.mmio_write(self.0 + IOREGSEL, 4, register.into());
        bus.mmio_read(self.0 + IOWIN, 4) as u32
    }

    /// Writes a register.
    pub fn write(self, bus: &mut dyn Bus, register: u8, value: u32) {
        bus.mmio_write(self.0 + IOREGSEL, 4, register.into());
        bus.mmio_write(self.0 + IOWIN, 4, value.into());
    }

    /// Its version.
    pub fn version(self, bus: &mut dyn Bus) -> u8 {
        self.read(bus, IOAPICVER) as u8
    }

    /// Its inputs.
    pub fn inputs(self, bus: &mut dyn Bus) -> u16 {
        u16::from((self.read(bus, IOAPICVER) >> 16) as u8) + 1
    }

    /// The entry of an input.
    pub fn redirection(self, bus: &mut dyn Bus, input: u8) -> Redirection {
        let low = u64::from(self.read(bus, register(input)));
        let high = u64::from(self.read(bus, register(input) | 1));
        Redirection::of_bits(high << 32 | low)
    }

    /// Writes the entry of an input, masked until both halves are there.
    pub fn redirect(self, bus: &mut dyn Bus, input: u8, entry: Redirection) {
        let bits = entry.bits();
        self.write(bus, register(input), MASKED as u32);
        self.write(bus, register(input) | 1, (bits >> 32) as u32);
        self.write(bus, register(input), bits as u32);
    }

    /// Masks or unmasks an input; the rest of its entry stays.
    pub fn set_masked(self, bus: &mut dyn Bus, input: u8, masked: bool) {
        let low = self.read(bus, register(input)) & !(MASKED as u32);
        self.write(bus, register(input), if masked { low | MASKED as u32 } else { low });
    }

    /// Masks every input, edge triggered.
    pub fn mask_all(self, bus: &mut dyn Bus) {
        let inputs = self.inputs(bus).min(u16::from((u8::MAX - IOREDTBL) / 2));
        for input in (0u8..).take(inputs.into()) {
            self.write(bus, register(input), MASKED as u32);
        }
    }

    /// Ends a level-triggered vector without a local APIC: version 20h and later.
    pub fn end_of_interrupt(self, bus: &mut dyn Bus, vector: u8) {
        bus.mmio_write(self.0 + IOEOI, 4, vector.into());
    }
}

/// The register of the low half of an input's entry; beyond the selector's range it wraps.
fn register(input: u8) -> u8 {
    IOREDTBL.wrapping_add(input.wrapping_mul(2))
}
