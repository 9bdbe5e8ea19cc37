//! The local APIC of CPU 0: registers, priorities, its timer to the nanosecond, commands and
//! messages (Intel SDM volume 3, chapter 11).

mod messages;
mod priority;
mod registers;
#[cfg(test)]
mod tests;
mod timer;

use super::sources::{self, bus};
use super::{Case, Module, Outcome, TestThread};
use crate::driver::apic::local::register;
use crate::driver::apic::{DeliveryMode, Ipi, LocalApic};
use crate::driver::pic;
use crate::machine::Capabilities;
use crate::machine::builtin::Chips;

/// The module.
pub struct Lapic;

const MMIO: Capabilities = Capabilities::PIO.union(Capabilities::MMIO);

/// A case whose interrupts the CPU takes.
const CPU: Capabilities = MMIO.union(Capabilities::CPU_IRQ);

/// A case with exact times.
const TIMED: Capabilities = CPU.union(Capabilities::VIRTUAL_CLOCK);

/// Logical ID of CPU 0, in the flat model.
const LOGICAL_ID: u8 = 1;

/// Vectors of the 8259As.
const PIC_BASE: u8 = 0x20;

impl Module for Lapic {
    fn name(&self) -> &'static str {
        "lapic"
    }

    fn purpose(&self) -> &'static str {
        "the local APIC and its timer"
    }

    fn cases(&self) -> &'static [Case] {
        CASES
    }

    fn chips(&self) -> Chips {
        sources::SOURCE_CHIPS | Chips::PIC | Chips::IOAPIC | Chips::LAPIC
    }

    fn init(&self, t: &mut TestThread<'_>) -> Outcome {
        sources::initialize(t, pic::Setup::new(PIC_BASE, PIC_BASE + 8))?;
        let (lapic, bus) = (LocalApic::default(), bus(t)?);
        lapic.write(bus, register::DFR, u32::MAX);
        lapic.write(bus, register::LDR, u32::from(LOGICAL_ID) << 24);
        lapic.take_errors(bus);
        lapic.take_errors(bus);
        Ok(())
    }

    fn cleanup(&self, t: &mut TestThread<'_>) -> Outcome {
        self.init(t)
    }
}

const CASES: &[Case] = &[
    Case::new("version", "an integrated APIC with six or seven local sources", registers::version)
        .needs(MMIO),
    Case::new("registers", "which bits of every register can be written", registers::registers)
        .needs(MMIO),
    Case::new("read-only", "read-only registers stay as they are", registers::read_only)
        .needs(MMIO),
    Case::new(
        "enable",
        "software disabled it masks its table and takes no vector",
        registers::enable,
    )
    .needs(CPU),
    Case::new("errors", "illegal vectors are logged, shown and signalled", registers::errors)
        .needs(CPU),
    Case::new("illegal-register", "a reserved register is an error", registers::illegal_register)
        .needs(MMIO),
    Case::new("self-ipi", "a vector goes through IRR and ISR to its EOI", priority::life)
        .needs(CPU),
    Case::new("priority", "higher classes nest, the same class waits", priority::nesting)
        .needs(CPU),
    Case::new("tpr", "the task priority holds its class and those below back", priority::tpr)
        .needs(CPU),
    Case::new("spurious", "a request overtaken by the task priority", priority::spurious)
        .needs(CPU),
    Case::new("timer-one-shot", "one interrupt, at the nanosecond", timer::one_shot).needs(TIMED),
    Case::new("timer-periodic", "an interrupt each period, without drift", timer::periodic)
        .needs(TIMED),
    Case::new("timer-divide", "the bus clock divided by 1 to 128", timer::divide).needs(TIMED),
    Case::new("timer-masked", "masked it counts and does not interrupt", timer::masked)
        .needs(TIMED),
    Case::new("timer-stop", "an initial count of 0 stops it", timer::stop).needs(TIMED),
    Case::new("shorthands", "commands to oneself and to all", messages::shorthands).needs(CPU),
    Case::new("logical", "commands to flat and cluster destinations", messages::logical).needs(CPU),
    Case::new("other-cpu", "commands to another CPU", messages::other_cpu).needs(CPU),
    Case::new("msi", "a write to the message range is an interrupt", messages::msi).needs(CPU),
    Case::new("virtual-wire", "LINT0 passes the 8259A's interrupts", messages::virtual_wire)
        .needs(CPU),
];

/// Sends a fixed interrupt to the sender itself.
fn self_ipi(t: &mut TestThread<'_>, vector: u8) -> Outcome {
    LocalApic::default().send(bus(t)?, Ipi::Own, DeliveryMode::Fixed, vector);
    Ok(())
}

fn end(t: &mut TestThread<'_>) -> Outcome {
    LocalApic::default().end_of_interrupt(bus(t)?);
    Ok(())
}

fn read(t: &mut TestThread<'_>, register: u64) -> Outcome<u32> {
    Ok(LocalApic::default().read(bus(t)?, register))
}

fn write(t: &mut TestThread<'_>, register: u64, value: u32) -> Outcome {
    LocalApic::default().write(bus(t)?, register, value);
    Ok(())
}
