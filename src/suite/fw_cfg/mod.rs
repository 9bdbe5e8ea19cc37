//! `fw_cfg`: the firmware configuration of virtual machines, by port and by DMA.

mod access;
mod dma;
mod items;
#[cfg(test)]
mod tests;

use super::{Case, Module, TestThread};
use crate::machine::Capabilities;
use crate::machine::builtin::Chips;

/// The module.
#[derive(Debug)]
pub struct FwCfg;

/// Ports, and RAM for DMA.
const WITH_RAM: Capabilities = Capabilities::PIO.union(Capabilities::MEMORY);

const CASES: &[Case] = &[
    Case::new("signature", "item 0 reads QEMU", items::signature),
    Case::new("id", "item 1 says which interfaces there are", items::id),
    Case::new("ram-size", "item 3 is no more than the machine's RAM", items::ram_size)
        .needs(WITH_RAM),
    Case::new("cpus", "items 5 and Fh: CPUs at boot, and at most", items::cpus),
    Case::new(
        "selector",
        "selecting begins an item; its end and unknown items read 0",
        items::selector,
    ),
    Case::new(
        "directory",
        "file names are sorted, end in NUL, and select in order",
        items::directory,
    ),
    Case::new("dma-signature", "the DMA address register reads QEMU CFG", dma::signature),
    Case::new("dma-files", "every file reads the same by port and by DMA", dma::files)
        .needs(WITH_RAM),
    Case::new(
        "dma-read",
        "DMA goes on where it stopped, and fills with 0 behind the end",
        dma::read,
    )
    .needs(WITH_RAM),
    Case::new("dma-skip", "skipping passes over bytes and touches no memory", dma::skip)
        .needs(WITH_RAM),
    Case::new("dma-select", "control selects, with or without an operation", dma::select)
        .needs(WITH_RAM),
    Case::new("dma-error", "what cannot be written, or lies outside RAM, is an error", dma::error)
        .needs(WITH_RAM),
];

impl Module for FwCfg {
    fn name(&self) -> &'static str {
        "fw_cfg"
    }

    fn purpose(&self) -> &'static str {
        "firmware configuration at 510h to 51Bh: items, files, DMA"
    }

    fn cases(&self) -> &'static [Case] {
        CASES
    }

    fn chips(&self) -> Chips {
        Chips::FW_CFG
    }
}

/// Selects item 0, where every case begins.
fn begin(thread: &mut TestThread<'_>) -> super::Outcome {
    thread.outw(access::SELECTOR, access::SIGNATURE)
}
