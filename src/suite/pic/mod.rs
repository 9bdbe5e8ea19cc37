//! The pair of 8259As: what its data sheet promises, driven through its ports, with requests of
//! real devices and vectors taken as the CPU takes them.
//!
//! INTR is the CPU's own; with a local APIC it comes through that in virtual wire mode.

mod modes;
mod order;
mod requests;
#[cfg(test)]
mod tests;

use super::sources::{self, SOURCE_CHIPS, Source, bus};
use super::{Case, Module, Outcome, TestThread};
use crate::driver::apic::LocalApic;
use crate::driver::pic::{self, Setup};
use crate::machine::Capabilities;
use crate::machine::builtin::Chips;

/// The module.
pub struct Pic;

/// Vectors of interrupts 0 and 8 in most cases.
const BASE: u8 = 0x20;
const SLAVE_BASE: u8 = 0x28;

/// A case whose interrupts the CPU takes.
const CPU: Capabilities = Capabilities::PIO.union(Capabilities::CPU_IRQ);

impl Module for Pic {
    fn name(&self) -> &'static str {
        "pic"
    }

    fn purpose(&self) -> &'static str {
        "the pair of 8259A interrupt controllers"
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
        start(t, Setup::new(BASE, SLAVE_BASE))
    }

    fn cleanup(&self, t: &mut TestThread<'_>) -> Outcome {
        sources::initialize(t, Setup::new(BASE, SLAVE_BASE))
    }
}

const CASES: &[Case] = &[
    Case::new("registers", "IMR and ELCR read as written, fixed bits are 0", requests::registers),
    Case::new("initialize", "ICW1 forgets masks, edges and modes", requests::initialize),
    Case::new("requests", "IRR shows masked and unmasked requests", requests::irr),
    Case::new("poll", "the poll command takes interrupts of both chips", modes::poll),
    Case::new("vectors", "ICW2 gives the vectors of both chips", requests::vectors).needs(CPU),
    Case::new("priority", "0 before 1 before 4; higher ones nest", order::priority).needs(CPU),
    Case::new("cascade", "the slave's come by input 2, and end in both", order::cascade).needs(CPU),
    Case::new("eoi", "non-specific ends the highest, specific what it names", order::eoi)
        .needs(CPU),
    Case::new("rotate", "priorities are set, and rotate with an EOI", order::rotate).needs(CPU),
    Case::new("aeoi", "automatic EOI leaves nothing in service", modes::aeoi).needs(CPU),
    Case::new("rotate-aeoi", "priorities rotate with an automatic EOI", modes::rotate_aeoi)
        .needs(CPU),
    Case::new("special-mask", "what is masked in service lets others in", modes::special_mask)
        .needs(CPU),
    Case::new("special-mask-pending", "the mode lets in what waits", modes::special_mask_pending)
        .needs(CPU),
    Case::new("special-nested", "the slave interrupts itself", modes::special_nested).needs(CPU),
    Case::new("level", "a level asks again after its EOI, an edge does not", requests::level)
        .needs(CPU),
    Case::new("withdrawn", "a level that falls takes its request along", requests::withdrawn)
        .needs(CPU),
    Case::new("spurious-7", "an acknowledge with no request gives level 7", requests::spurious_7)
        .needs(CPU.union(Capabilities::MMIO)),
    Case::new("spurious-15", "a slave with no request gives level 15", requests::spurious_15)
        .needs(CPU),
];

/// Everything quiet, the pair initialized and masked, its output on the way to the CPU.
fn start(t: &mut TestThread<'_>, setup: Setup) -> Outcome {
    sources::initialize(t, setup)?;
    let (lapic, bus) = (LocalApic::default(), bus(t)?);
    if lapic.is_there(bus) {
        lapic.virtual_wire(bus);
    }
    Ok(())
}

/// Lets these interrupts through, and the slave's way to the CPU.
fn unmask(t: &mut TestThread<'_>, sources: &[Source]) -> Outcome {
    let open = sources.iter().fold(1 << pic::CASCADE, |set, source| set | 1u16 << source.irq());
    pic::set_mask(bus(t)?, !open);
    Ok(())
}

fn raise(t: &mut TestThread<'_>, sources: &[Source]) -> Outcome {
    sources.iter().try_for_each(|source| source.raise(t))
}

/// A specific EOI, in both chips for one of the slave.
fn end(t: &mut TestThread<'_>, source: Source) -> Outcome {
    pic::end_of_interrupt(bus(t)?, source.irq());
    Ok(())
}

/// The in-service registers hold exactly these.
fn expect_in_service(t: &mut TestThread<'_>, what: &str, irqs: &[u8]) -> Outcome {
    let expected = irqs.iter().fold(0, |set, irq| set | 1u16 << irq);
    let got = pic::in_service(bus(t)?);
    t.expect(what, got, expected)
}
