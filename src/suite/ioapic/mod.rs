//! The I/O APIC: what its data sheet promises, with requests of real devices delivered to the
//! local APIC of CPU 0, or seen as messages where there is none.

mod delivery;
mod receiver;
mod registers;
#[cfg(test)]
mod tests;

use super::sources::{self, SOURCE_CHIPS, Source, bus};
use super::{Case, Module, Outcome, TestThread};
use crate::driver::apic::local::register;
use crate::driver::apic::{IoApic, LocalApic, Redirection};
use crate::driver::pic;
use crate::machine::Capabilities;
use crate::machine::builtin::Chips;

/// The module.
pub struct IoApicTests;

const MMIO: Capabilities = Capabilities::PIO.union(Capabilities::MMIO);

/// A case whose interrupts are taken by the CPU, or seen on their way to it.
const CPU: Capabilities = MMIO.union(Capabilities::CPU_IRQ);

/// A case that looks at messages, whoever takes them.
const MESSAGES: Capabilities = CPU.union(Capabilities::APIC_MESSAGES);

/// Logical ID of CPU 0, in the flat model.
const LOGICAL_ID: u8 = 1;

/// Vectors of the 8259As, for the cases that let one through.
const PIC_BASE: u8 = 0x20;

impl Module for IoApicTests {
    fn name(&self) -> &'static str {
        "ioapic"
    }

    fn purpose(&self) -> &'static str {
        "the 82093AA I/O APIC"
    }

    fn cases(&self) -> &'static [Case] {
        CASES
    }

    fn chips(&self) -> Chips {
        SOURCE_CHIPS | Chips::PIC | Chips::IOAPIC
    }

    fn minimal_chips(&self) -> Chips {
        self.chips() | Chips::LAPIC
    }

    fn init(&self, t: &mut TestThread<'_>) -> Outcome {
        sources::initialize(t, pic::Setup::new(PIC_BASE, PIC_BASE + 8))?;
        let (lapic, bus) = (LocalApic::default(), bus(t)?);
        if lapic.is_there(bus) {
            lapic.write(bus, register::DFR, u32::MAX);
            lapic.write(bus, register::LDR, u32::from(LOGICAL_ID) << 24);
        }
        Ok(())
    }

    fn cleanup(&self, t: &mut TestThread<'_>) -> Outcome {
        self.init(t)
    }
}

const CASES: &[Case] = &[
    Case::new("registers", "version, identification and arbitration", registers::registers)
        .needs(MMIO),
    Case::new("entries", "which bits of every entry can be written", registers::entries)
        .needs(MMIO),
    Case::new("inputs", "every source arrives at its input", delivery::inputs).needs(CPU),
    Case::new("edge", "an edge is one interrupt", delivery::edge).needs(CPU),
    Case::new("masked-edge", "an edge at a masked input is lost", delivery::masked_edge).needs(CPU),
    Case::new("level", "a level is delivered again after each EOI", delivery::level).needs(CPU),
    Case::new("masked-level", "a level waits for its input's unmasking", delivery::masked_level)
        .needs(CPU),
    Case::new("eoi-register", "version 20h ends a level by its EOI register", delivery::directed)
        .needs(CPU),
    Case::new("polarity", "a low-active input asserts when low", delivery::polarity).needs(CPU),
    Case::new("destinations", "physical, flat and cluster destinations", delivery::destinations)
        .needs(CPU),
    Case::new("lowest-priority", "the one CPU there is gets it", delivery::lowest_priority)
        .needs(CPU),
    Case::new("nmi", "delivery mode NMI reaches the CPU's pin", delivery::nmi).needs(CPU),
    Case::new("extint", "delivery mode ExtINT takes the 8259A's vector", delivery::extint)
        .needs(CPU),
    Case::new("assert", "the message of a level says assert", delivery::assert).needs(MESSAGES),
];

fn redirect(t: &mut TestThread<'_>, source: Source, entry: Redirection) -> Outcome {
    IoApic::default().redirect(bus(t)?, source.input(), entry);
    Ok(())
}

fn redirection(t: &mut TestThread<'_>, source: Source) -> Outcome<Redirection> {
    Ok(IoApic::default().redirection(bus(t)?, source.input()))
}
