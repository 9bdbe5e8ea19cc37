//! `pci`: configuration space as firmware meets it, by ports and, on a q35, mapped into memory.

mod bars;
mod board;
mod mechanism;
mod registers;
mod space;
#[cfg(test)]
mod tests;

use super::{Case, Module, Outcome, TestDisk, TestThread};
use crate::base::Result;
use crate::base::options::Options;
use crate::driver::pci::{ConfigAccess, enumerate};
use crate::machine::Capabilities;
use crate::machine::builtin::Chips;

/// The module.
#[derive(Debug)]
pub struct Pci;

/// Ports and memory: functions that answer, and not only their configuration space.
const BOTH: Capabilities = Capabilities::PIO.union(Capabilities::MMIO);

const CASES: &[Case] = &[
    Case::new(
        "enumerate",
        "the chipset's functions are those of its golden list",
        board::enumerate,
    ),
    Case::new(
        "unassigned",
        "ports and functions that are not there read all ones",
        board::unassigned,
    ),
    Case::new(
        "unassigned-memory",
        "memory that is not there reads all ones",
        board::unassigned_memory,
    )
    .needs(Capabilities::MMIO),
    Case::new("functions", "functions above 0 exist only where the header says so", board::headers),
    Case::new(
        "config-address",
        "CF8 is a 32-bit port; its enable bit opens CFC",
        mechanism::config_address,
    ),
    Case::new(
        "config-data",
        "CFC to CFF read and write bytes and words of a register",
        mechanism::config_data,
    ),
    Case::new(
        "ecam",
        "memory-mapped configuration space shows what the ports show",
        mechanism::ecam,
    )
    .needs(BOTH),
    Case::new(
        "read-only",
        "ids, class and header type ignore writes of any width",
        registers::read_only,
    ),
    Case::new("command", "command bits hold or read 0; status ignores zeros", registers::command),
    Case::new(
        "capabilities",
        "every capability list is in its place and ends",
        registers::capabilities,
    ),
    Case::new(
        "bar-sizing",
        "BARs show their size, keep their type, and take addresses by bytes",
        bars::sizing,
    ),
    Case::new(
        "bar-decode",
        "a BAR answers at its address, and only while its space is enabled",
        bars::decode,
    )
    .needs(BOTH),
    Case::new("msix", "MSI-X: reset state, table entries, control", bars::msix).needs(BOTH),
];

impl Module for Pci {
    fn name(&self) -> &'static str {
        "pci"
    }

    fn purpose(&self) -> &'static str {
        "PCI configuration space: chipset, headers, BARs, capabilities, access mechanisms"
    }

    fn cases(&self) -> &'static [Case] {
        CASES
    }

    fn chips(&self) -> Chips {
        Chips::SOUTH_BRIDGE
    }

    /// A function with BARs of each kind, capabilities and MSI-X.
    fn disks(&self, _case: &Case, _options: &Options) -> Result<Vec<TestDisk>> {
        Ok(vec![TestDisk::new("pci", 1 << 20)])
    }

    /// Addresses for every BAR, as firmware gives them.
    fn init(&self, thread: &mut TestThread<'_>) -> Outcome {
        enumerate(thread.machine().bus()?, ConfigAccess::Ports)?;
        Ok(())
    }
}
