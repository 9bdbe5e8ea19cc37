//! Q35: MCH host bridge (Intel 3 Series) and ICH9, as QEMU's `q35` puts them together. Reset values
//! are those of QEMU 7.2, where it differs from the data sheets.

use std::sync::Arc;

use super::ChipsetParts;
use super::function::{ChipsetFunction, Inert, Registers, header};
use super::i440fx::isa_route;
use crate::machine::builtin::bus::windows::Placement;
use crate::machine::builtin::devices::pm::bits::GPE0_BYTES_ICH9;
use crate::machine::builtin::irq::router::Router;
use crate::machine::builtin::pci::bits::*;
use crate::machine::builtin::pci::config::{BarKind, ConfigSpace};
use crate::machine::builtin::pci::{PciBus, devfn};

/// Slot of the ICH's LPC bridge, SATA and SMBus.
pub(super) const ICH_SLOT: u8 = 31;

/// MCH: PCI Express register range base address (Intel 3 Series §5.1.16).
const PCIEXBAR: u8 = 0x60;
/// PCIEXBAR: decoding is enabled.
const PCIEXBAREN: u64 = 1;
/// Where PCIEXBAR points after a reset, and where firmware leaves it.
const PCIEXBAR_BASE: u64 = 0xb000_0000;
/// MCH: SMRAM control, extended SMRAM control (Intel 3 Series §5.1).
const SMRAM: u8 = 0x9d;
const ESMRAMC: u8 = 0x9e;

/// LPC: ACPI base address (ICH9 §13.1, D31:F0), its bits 15:7.
const PMBASE: u8 = 0x40;
const PMBASE_ADDRESS: u32 = 0xff80;
/// LPC: ACPI control.
const ACPI_CNTL: u8 = 0x44;
/// ACPI_CNTL: the ACPI block is decoded.
const ACPI_EN: u32 = 1 << 7;
/// ACPI_CNTL: where SCI goes.
const SCI_IRQ_SEL: u32 = 7;
/// LPC: PIRQA to D, PIRQE to H routing control.
const PIRQA_ROUT: u8 = 0x60;
const PIRQE_ROUT: u8 = 0x68;
/// LPC: root complex base address.
const RCBA: u8 = 0xf0;
const RCBA_ADDRESS: u32 = 0xffff_c000;
const RCBA_EN: u32 = 1;
/// Bytes of the root complex's registers.
pub(super) const RCRB_BYTES: u64 = 16 << 10;

/// PIRQ inputs; the SCI comes behind them.
pub(super) const PIRQS: usize = 8;
/// Router input of the SCI.
pub(super) const SCI_INPUT: u32 = PIRQS as u32;
/// I/O APIC input of PIRQA: the others follow (ICH9 §5.9).
const PIRQ_APIC_INPUT: u8 = 16;

/// GPE0 in the ACPI block (§13.8.3).
const GPE0_OFFSET: u64 = 0x20;

/// 00:00.0. `mapped` has the memory-mapped configuration space open from the start, as firmware
/// leaves it.
pub(super) fn host_bridge(mapped: bool) -> ChipsetFunction<impl Registers> {
    let mut config = header(0x29c0, 0, 0x06_00_00);
    config.preset(0x50, &[0x10]);
    let enable = if mapped { PCIEXBAREN } else { 0 };
    config.preset(PCIEXBAR, &(PCIEXBAR_BASE | enable).to_le_bytes());
    config.preset(SMRAM, &[0x02, 0x38]);
    config.allow(SMRAM, &[0x20, 0]);
    debug_assert_eq!(ESMRAMC, SMRAM + 1);
    config.allow(0x9c, &[0]);
    ChipsetFunction::new(config, Mch)
}

struct Mch;

impl Registers for Mch {
    fn remaps(&self, reg: u8) -> bool {
        (PCIEXBAR..PCIEXBAR + 8).contains(&reg)
    }

    /// Bits 2:1 choose 256, 128 or 64 buses of 1 MiB; the base is aligned to the length.
    fn ecam(&self, config: &ConfigSpace) -> Option<(u64, u64)> {
        let low = u64::from(config.read(PCIEXBAR, 4));
        let value = u64::from(config.read(PCIEXBAR + 4, 4)) << 32 | low;
        let len = match value >> 1 & 3 {
            0 => 256 << 20,
            1 => 128 << 20,
            2 => 64 << 20,
            _ => return None,
        };
        // There are 36 address bits.
        let base = value & 0xf_ffff_ffff & !(len - 1);
        (value & PCIEXBAREN != 0).then_some((base, len))
    }
}

/// Plugs in the ICH.
pub(super) fn plug(pci: &mut PciBus, parts: &ChipsetParts, router: &Arc<Router>) {
    let registers = Lpc { router: Arc::clone(router), pm: parts.pm, rcrb: parts.rcrb };
    let lpc = ChipsetFunction::new(lpc_bridge(parts.has_serial), registers);
    pci.plug(devfn(ICH_SLOT, 0), Box::new(lpc));
    pci.plug(devfn(ICH_SLOT, 2), Box::new(ChipsetFunction::new(sata(), Inert)));
    pci.plug(devfn(ICH_SLOT, 3), Box::new(ChipsetFunction::new(smbus(), Inert)));
}

fn lpc_bridge(has_serial: bool) -> ConfigSpace {
    let mut config = header(0x2918, 2, 0x06_01_00);
    config.preset(PCI_HEADER_TYPE, &[PCI_HEADER_TYPE_MULTIFUNCTION]);
    config.preset(PMBASE, &[0x01]);
    config.allow(PMBASE, &[0x80, 0xff, 0, 0]);
    for rout in [PIRQA_ROUT, PIRQE_ROUT] {
        config.preset(rout, &[0x80; 4]);
    }
    // LPC_EN: COM A is decoded.
    config.preset(0x82, &[u8::from(has_serial)]);
    config
}

/// What the LPC bridge's registers move.
struct Lpc {
    router: Arc<Router>,
    pm: Option<usize>,
    rcrb: usize,
}

impl Registers for Lpc {
    fn changed(&mut self, config: &ConfigSpace, _reg: u8) {
        for pirq in 0..PIRQS as u8 {
            let rout = if pirq < 4 { PIRQA_ROUT + pirq } else { PIRQE_ROUT + pirq - 4 };
            let outputs = [isa_route(config.read(rout, 1) as u8), Some(PIRQ_APIC_INPUT + pirq)];
            self.router.route(pirq.into(), outputs);
        }
        self.router.route(SCI_INPUT, [sci_line(config), None]);
    }

    fn remaps(&self, reg: u8) -> bool {
        (PMBASE..PMBASE + 4).contains(&reg) || reg == ACPI_CNTL || reg >= RCBA
    }

    fn placements(&self, config: &ConfigSpace) -> Vec<Placement> {
        let mut places = Vec::new();
        let base = (config.read(PMBASE, 4) & PMBASE_ADDRESS) as u16;
        if let Some(pm) = self.pm
            && config.read(ACPI_CNTL, 1) & ACPI_EN != 0
        {
            places.extend(pm_ports(pm, base));
        }
        let rcba = config.read(RCBA, 4);
        if rcba & RCBA_EN != 0 {
            let base = u64::from(rcba & RCBA_ADDRESS);
            places.push(Placement::memory(self.rcrb, 0, base, RCRB_BYTES));
        }
        places
    }
}

/// The ports of the power management device, with its block at `base`; none at 0.
pub(super) fn pm_ports(pm: usize, base: u16) -> Vec<Placement> {
    let gpe0 = base.saturating_add(GPE0_OFFSET as u16);
    let block = [
        Placement::ports(pm, 0, base, GPE0_OFFSET),
        Placement::ports(pm, 1, gpe0, GPE0_BYTES_ICH9 as u64),
    ];
    if base == 0 { Vec::new() } else { block.into() }
}

fn sci_line(config: &ConfigSpace) -> Option<u8> {
    match config.read(ACPI_CNTL, 1) & SCI_IRQ_SEL {
        0 => Some(9),
        1 => Some(10),
        2 => Some(11),
        4 => Some(20),
        5 => Some(21),
        _ => None,
    }
}

fn sata() -> ConfigSpace {
    let mut config = header(0x2922, 2, 0x01_06_01);
    config.preset(PCI_HEADER_TYPE, &[PCI_HEADER_TYPE_MULTIFUNCTION]);
    config.preset(PCI_STATUS, &PCI_STATUS_CAP_LIST.to_le_bytes());
    config.preset(PCI_CAPABILITY_LIST, &[0x80]);
    config.preset(PCI_INTERRUPT_PIN, &[1]);
    config.add_bar(4, BarKind::Io, 32);
    config.add_bar(5, BarKind::Mem32, 4096);
    // MSI, 64 bits wide, one message (ICH9 §14.1).
    config.preset(0x80, &[0x05, 0xa8, 0x80, 0]);
    config.allow(0x80, &[0, 0, 0x01, 0, 0xfc]);
    // MAP: AHCI mode.
    config.preset(0x90, &[0x40]);
    // SATA capability: index and data registers in BAR 4.
    config.preset(0xa8, &[0x12, 0, 0x10, 0, 0x48, 0, 0, 0]);
    config.allow(0xa8, &[0; 8]);
    config
}

fn smbus() -> ConfigSpace {
    let mut config = header(0x2930, 2, 0x0c_05_00);
    config.preset(PCI_HEADER_TYPE, &[PCI_HEADER_TYPE_MULTIFUNCTION]);
    config.preset(PCI_INTERRUPT_PIN, &[1]);
    config.add_bar(4, BarKind::Io, 64);
    // HOSTC (ICH9 §18.1): reserved bit 3.
    config.allow(0x40, &[0xf7]);
    config
}
