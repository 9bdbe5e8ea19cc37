//! i440FX: PMC host bridge (82441FX) and PIIX3 (82371SB) with the power management function of the
//! PIIX4 (82371AB), as QEMU's `pc` puts them together. Reset values are those of QEMU 7.2, where it
//! differs from the data sheets.

use std::sync::Arc;

use super::ChipsetParts;
use super::function::{ChipsetFunction, Inert, Registers, header};
use crate::machine::builtin::bus::windows::Placement;
use crate::machine::builtin::irq::router::Router;
use crate::machine::builtin::pci::bits::*;
use crate::machine::builtin::pci::config::{BarKind, ConfigSpace};
use crate::machine::builtin::pci::{PciBus, devfn};

/// Slot of the PIIX.
pub(super) const PIIX_SLOT: u8 = 1;

/// PMC: DRAM row boundary 7, the end of memory in units of 8 MiB (82441FX, DRB).
const PMC_DRB7: u8 = 0x57;
const PMC_DRB_UNIT: u64 = 8 << 20;
/// PMC: SMRAM control (82441FX, SMRAM).
const PMC_SMRAM: u8 = 0x72;

/// PIIX3: PIRQA# to PIRQD# route control (82371SB, function 0).
const PIRQRC: u8 = 0x60;
/// PIRQRC: the input drives no interrupt.
const PIRQRC_DISABLE: u8 = 1 << 7;
/// PIRQRC: the interrupt.
const PIRQRC_IRQ: u8 = 0x0f;
/// Interrupts to which a PIRQ cannot be routed: 0, 1, 2, 8 and 13.
const PIRQRC_RESERVED: u16 = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 8 | 1 << 13;
/// PIRQ inputs.
pub(super) const PIRQS: usize = 4;

/// PIIX4 power management: base of the I/O block (82371AB §7.1, PMBA).
const PMBA: u8 = 0x40;
/// PMBA bits 15:6.
const PMBA_ADDRESS: u32 = 0xffc0;
/// Miscellaneous power management (82371AB §7.1, PMREGMISC).
const PMREGMISC: u8 = 0x80;
/// PMREGMISC: the I/O block is decoded.
const PMREGMISC_PMIOSE: u32 = 1 << 0;
/// SMBus base address (82371AB §7.1, SMBBA) and host configuration (SMBHSTCFG).
const SMBBA: u8 = 0x90;
const SMBHSTCFG: u8 = 0xd2;
/// Bytes of the power management block.
const PM_BYTES: u64 = 64;
/// Where QEMU's `pc` has GPE0, which the PIIX4 does not decode by itself.
const GPE0_BASE: u16 = 0xafe0;
/// Bytes of GPE0.
const GPE0_BYTES: u64 = 4;

/// 00:00.0.
pub(super) fn host_bridge(ram_bytes: u64) -> ChipsetFunction<Inert> {
    let mut config = header(0x1237, 2, 0x06_00_00);
    let rows = u8::try_from(ram_bytes / PMC_DRB_UNIT).unwrap_or(u8::MAX);
    config.preset(PMC_DRB7, &[rows]);
    config.preset(PMC_SMRAM, &[0x02]);
    ChipsetFunction::new(config, Inert)
}

/// Plugs in the PIIX.
pub(super) fn plug(pci: &mut PciBus, parts: &ChipsetParts, router: &Arc<Router>) {
    let routing = PirqRouting(Arc::clone(router));
    let isa = ChipsetFunction::new(isa_bridge(), routing);
    pci.plug(devfn(PIIX_SLOT, 0), Box::new(isa));
    pci.plug(devfn(PIIX_SLOT, 1), Box::new(ChipsetFunction::new(ide(), Inert)));
    let pm = ChipsetFunction::new(power_management(parts.has_serial), Power { pm: parts.pm });
    pci.plug(devfn(PIIX_SLOT, 3), Box::new(pm));
}

/// The PIRQ that INTA# of a slot pulls.
pub(super) fn pirq_of(slot: u8) -> u8 {
    slot.wrapping_sub(1) & 3
}

fn isa_bridge() -> ConfigSpace {
    let mut config = header(0x7000, 0, 0x06_01_00);
    config.preset(PCI_HEADER_TYPE, &[PCI_HEADER_TYPE_MULTIFUNCTION]);
    config.preset(PCI_STATUS, &PCI_STATUS_DEVSEL_MEDIUM.to_le_bytes());
    // IORT, XBCS: ISA recovery times, chip selects.
    config.preset(0x4c, &[0x4d, 0, 0x03]);
    config.preset(PIRQRC, &[PIRQRC_DISABLE; PIRQS]);
    // TOM, MBIRQ0, MBDMA.
    config.preset(0x69, &[0x02]);
    config.preset(0x70, &[0x80]);
    config.preset(0x76, &[0x0c, 0x0c, 0x02]);
    // SMICNTL, FTMR.
    config.preset(0xa0, &[0x08]);
    config.preset(0xa8, &[0x0f]);
    config
}

struct PirqRouting(Arc<Router>);

impl Registers for PirqRouting {
    fn changed(&mut self, config: &ConfigSpace, _reg: u8) {
        for pirq in 0..PIRQS as u8 {
            self.0.route(pirq.into(), [isa_route(config.read(PIRQRC + pirq, 1) as u8), None]);
        }
    }
}

/// The interrupt that a route control register (the PIIX3's PIRQRC, the ICH's `PIRQ[n]_ROUT`) chooses.
pub(super) fn isa_route(register: u8) -> Option<u8> {
    let irq = register & PIRQRC_IRQ;
    let usable = register & PIRQRC_DISABLE == 0 && PIRQRC_RESERVED >> irq & 1 == 0;
    usable.then_some(irq)
}

fn ide() -> ConfigSpace {
    let mut config = header(0x7010, 0, 0x01_01_80);
    let status = PCI_STATUS_DEVSEL_MEDIUM | PCI_STATUS_FAST_BACK;
    config.preset(PCI_STATUS, &status.to_le_bytes());
    config.add_bar(4, BarKind::Io, 16);
    config
}

fn power_management(has_serial: bool) -> ConfigSpace {
    let mut config = header(0x7113, 3, 0x06_80_00);
    let status = PCI_STATUS_DEVSEL_MEDIUM | PCI_STATUS_FAST_BACK;
    config.preset(PCI_STATUS, &status.to_le_bytes());
    config.preset(PCI_INTERRUPT_PIN, &[1]);
    config.preset(PMBA, &[0x01]);
    // DEVRESB, DEVRESC, DEVRESD: which ISA devices are present.
    config.preset(0x5f, &[0x10]);
    config.preset(0x63, &[0x60]);
    config.preset(0x67, &[if has_serial { 0x08 } else { 0 }]);
    config.preset(SMBBA, &0xb101u16.to_le_bytes());
    config.preset(SMBHSTCFG, &[0x09]);
    config
}

/// The device whose windows the function places.
struct Power {
    pm: Option<usize>,
}

impl Registers for Power {
    fn remaps(&self, reg: u8) -> bool {
        (PMBA..PMBA + 4).contains(&reg) || reg == PMREGMISC
    }

    fn placements(&self, config: &ConfigSpace) -> Vec<Placement> {
        let Some(pm) = self.pm else { return Vec::new() };
        let base = (config.read(PMBA, 4) & PMBA_ADDRESS) as u16;
        match config.read(PMREGMISC, 1) & PMREGMISC_PMIOSE {
            0 => vec![gpe0_ports(pm)],
            _ => pm_ports(pm, base),
        }
    }
}

/// The ports of the power management device, with its block at `base`; none at 0.
pub(super) fn pm_ports(pm: usize, base: u16) -> Vec<Placement> {
    let block = (base != 0).then(|| Placement::ports(pm, 0, base, PM_BYTES));
    std::iter::once(gpe0_ports(pm)).chain(block).collect()
}

fn gpe0_ports(pm: usize) -> Placement {
    Placement::ports(pm, 1, GPE0_BASE, GPE0_BYTES)
}
