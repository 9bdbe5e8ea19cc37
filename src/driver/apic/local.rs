//! The local APIC of the CPU that a test stands for.

use super::{DeliveryMode, Destination};
use crate::base::GuestAddr;
use crate::machine::Bus;

/// Where the local APIC is after a reset.
pub const DEFAULT_BASE: GuestAddr = GuestAddr(0xfee0_0000);

/// Registers by their offsets (SDM table 11-1).
pub mod register {
    /// Local APIC ID.
    pub const ID: u64 = 0x020;
    /// Version.
    pub const VERSION: u64 = 0x030;
    /// Task priority.
    pub const TPR: u64 = 0x080;
    /// Processor priority.
    pub const PPR: u64 = 0x0a0;
    /// End of interrupt.
    pub const EOI: u64 = 0x0b0;
    /// Logical destination.
    pub const LDR: u64 = 0x0d0;
    /// Destination format.
    pub const DFR: u64 = 0x0e0;
    /// Spurious interrupt vector.
    pub const SVR: u64 = 0x0f0;
    /// In-service, the first of eight words 16 bytes apart.
    pub const ISR: u64 = 0x100;
    /// Trigger mode.
    pub const TMR: u64 = 0x180;
    /// Interrupt request.
    pub const IRR: u64 = 0x200;
    /// Error status.
    pub const ESR: u64 = 0x280;
    /// Interrupt command, low half.
    pub const ICR_LOW: u64 = 0x300;
    /// Interrupt command, high half.
    pub const ICR_HIGH: u64 = 0x310;
    /// Local vector table: timer.
    pub const LVT_TIMER: u64 = 0x320;
    /// Thermal monitor.
    pub const LVT_THERMAL: u64 = 0x330;
    /// Performance counters.
    pub const LVT_PERF: u64 = 0x340;
    /// Pin LINT0.
    pub const LVT_LINT0: u64 = 0x350;
    /// Pin LINT1.
    pub const LVT_LINT1: u64 = 0x360;
    /// Errors.
    pub const LVT_ERROR: u64 = 0x370;
    /// Initial count of the timer.
    pub const TMICT: u64 = 0x380;
    /// Current count of the timer.
    pub const TMCCT: u64 = 0x390;
    /// Divide configuration of the timer.
    pub const TDCR: u64 = 0x3e0;
}

/// Mask of an entry of the local vector table.
pub const LVT_MASKED: u32 = 1 << 16;
/// Timer mode: periodic.
const LVT_PERIODIC: u32 = 1 << 17;
/// Software enable.
const SVR_ENABLE: u32 = 1 << 8;
const ICR_LOGICAL: u32 = 1 << 11;
/// Level: asserted, as every command of today must say.
const ICR_ASSERT: u32 = 1 << 14;
const MODE_SHIFT: u32 = 8;
const SHORTHAND_SHIFT: u32 = 18;

/// What the timer does at 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerMode {
    /// It stays there.
    OneShot,
    /// It begins again.
    Periodic,
}

/// Whom an interrupt command reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipi {
    /// A destination.
    To(Destination),
    /// The sender, by shorthand.
    Own,
    /// Every CPU, by shorthand.
    All,
    /// Every CPU but the sender, by shorthand.
    Others,
}

/// A local APIC by its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalApic(pub GuestAddr);

impl Default for LocalApic {
    fn default() -> Self {
        Self(DEFAULT_BASE)
    }
}

impl LocalApic {
    /// Reads a register of [`register`].
    pub fn read(self, bus: &mut dyn Bus, register: u64) -> u32 {
        bus.mmio_read(self.0 + register, 4) as u32
    }

    /// Writes a register of [`register`].
    pub fn write(self, bus: &mut dyn Bus, register: u64, value: u32) {
        bus.mmio_write(self.0 + register, 4, value.into());
    }

    /// Whether one answers: an integrated APIC has version 1xh (SDM §11.4.8).
    pub fn is_there(self, bus: &mut dyn Bus) -> bool {
        self.read(bus, register::VERSION) as u8 >> 4 == 1
    }

    /// Its ID.
    pub fn id(self, bus: &mut dyn Bus) -> u8 {
        (self.read(bus, register::ID) >> 24) as u8
    }

    /// Enables it by software, with this spurious vector and every priority let through.
    pub fn enable(self, bus: &mut dyn Bus, spurious: u8) {
        self.write(bus, register::TPR, 0);
        self.write(bus, register::SVR, SVR_ENABLE | u32::from(spurious));
    }

    /// Disables it by software: every entry of its vector table becomes masked.
    pub fn disable(self, bus: &mut dyn Bus, spurious: u8) {
        self.write(bus, register::SVR, spurious.into());
    }

    /// Ends the interrupt with the highest priority of those in service.
    pub fn end_of_interrupt(self, bus: &mut dyn Bus) {
        self.write(bus, register::EOI, 0);
    }

    /// Sets an entry of the local vector table, unmasked.
    pub fn set_lvt(self, bus: &mut dyn Bus, entry: u64, mode: DeliveryMode, vector: u8) {
        self.write(bus, entry, u32::from(mode.code()) << MODE_SHIFT | u32::from(vector));
    }

    /// Masks an entry of the local vector table.
    pub fn mask_lvt(self, bus: &mut dyn Bus, entry: u64) {
        self.write(bus, entry, LVT_MASKED);
    }

    /// Virtual wire mode (MultiProcessor Specification 1.4 §3.6.2.2): the i8259A's INTR passes
    /// through LINT0, NMI through LINT1.
    pub fn virtual_wire(self, bus: &mut dyn Bus) {
        self.set_lvt(bus, register::LVT_LINT0, DeliveryMode::ExtInt, 0);
        self.set_lvt(bus, register::LVT_LINT1, DeliveryMode::Nmi, 0);
    }

    /// Starts the timer: `count` ticks of the bus clock divided by `divisor`, a power of two from
    /// 1 to 128 (any other is taken as the next lower one).
    pub fn start_timer(
        self,
        bus: &mut dyn Bus,
        mode: TimerMode,
        vector: u8,
        divisor: u32,
        count: u32,
    ) {
        let periodic = if mode == TimerMode::Periodic { LVT_PERIODIC } else { 0 };
        self.write(bus, register::LVT_TIMER, periodic | u32::from(vector));
        self.write(bus, register::TDCR, divide_configuration(divisor));
        self.write(bus, register::TMICT, count);
    }

    /// Stops the timer and masks it.
    pub fn stop_timer(self, bus: &mut dyn Bus) {
        self.mask_lvt(bus, register::LVT_TIMER);
        self.write(bus, register::TMICT, 0);
    }

    /// Sends an interrupt command.
    pub fn send(self, bus: &mut dyn Bus, to: Ipi, mode: DeliveryMode, vector: u8) {
        let (shorthand, destination) = match to {
            Ipi::To(destination) => (0, destination),
            Ipi::Own => (1, Destination::default()),
            Ipi::All => (2, Destination::default()),
            Ipi::Others => (3, Destination::default()),
        };
        let logical = if destination.is_logical() { ICR_LOGICAL } else { 0 };
        let low = shorthand << SHORTHAND_SHIFT
            | ICR_ASSERT
            | logical
            | u32::from(mode.code()) << MODE_SHIFT
            | u32::from(vector);
        // The write of the low half sends.
        self.write(bus, register::ICR_HIGH, u32::from(destination.field()) << 24);
        self.write(bus, register::ICR_LOW, low);
    }

    /// Takes the errors since the last call. The register shows them once it was written.
    pub fn take_errors(self, bus: &mut dyn Bus) -> u32 {
        self.write(bus, register::ESR, 0);
        self.read(bus, register::ESR)
    }

    /// Whether `vector` is set in [`register::ISR`], [`register::TMR`] or [`register::IRR`].
    pub fn has(self, bus: &mut dyn Bus, first: u64, vector: u8) -> bool {
        let word = self.read(bus, first + u64::from(vector / 32) * 16);
        word >> (vector % 32) & 1 != 0
    }
}

/// SDM figure 11-10: bits 3, 1 and 0 hold the logarithm less 1, and 7 divides by 1.
fn divide_configuration(divisor: u32) -> u32 {
    let code = divisor.clamp(1, 128).ilog2().wrapping_sub(1) & 7;
    (code & 4) << 1 | code & 3
}
