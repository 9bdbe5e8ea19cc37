//! The chipset of a PC as firmware sets it up: PCI interrupts routed, the ACPI registers placed, and
//! on a q35 the memory-mapped configuration space opened. What firmware did already stays.

use super::pci::scan::scan;
use super::pci::{ConfigAccess, Function, PciAddress, function::reg};
use crate::base::{Error, GuestAddr, Result};
use crate::machine::Bus;

/// Interrupts of the PIRQs A to D (and E to H), shared as PC firmware shares them.
const PIRQ_INTERRUPTS: [u8; 4] = [10, 10, 11, 11];
/// Where firmware puts the ACPI registers.
const PM_BASE: u16 = 0x600;
/// ACPI's interrupt.
const SCI: u8 = 9;

/// Edge/level control of interrupts 0 to 7 and 8 to 15 (82371SB, ELCR1 and ELCR2).
const ELCR: [u16; 2] = [0x4d0, 0x4d1];

/// Route control: the PIRQ drives no interrupt.
const PIRQ_DISABLED: u8 = 1 << 7;
/// Route control: the interrupt.
const PIRQ_INTERRUPT: u8 = 0x0f;

/// PIIX3 (82371SB) PIRQRC, four bytes.
const PIIX_PIRQRC: u16 = 0x60;
/// PIIX4 power management (82371AB §7.1): I/O base, and the register with its enable bit.
const PIIX_PMBA: u16 = 0x40;
const PIIX_PMREGMISC: u16 = 0x80;
const PIIX_PMIOSE: u32 = 1;
/// Where QEMU's `pc` has GPE0, with 16 status and 16 enable bits.
const PC_GPE0: (u16, u16) = (0xafe0, 4);

/// MCH (Intel 3 Series §5.1): PCIEXBAR with its enable bit; where firmware puts it.
const MCH_PCIEXBAR: u16 = 0x60;
const MCH_PCIEXBAREN: u32 = 1;
const ECAM: u32 = 0xb000_0000;
/// ICH9 LPC bridge (§13.1): PIRQ routing, ACPI base, ACPI control with its enable bit.
const ICH_PIRQ_ROUT: [u16; 2] = [0x60, 0x68];
const ICH_PMBASE: u16 = 0x40;
const ICH_ACPI_CNTL: u16 = 0x44;
const ICH_ACPI_EN: u32 = 1 << 7;
/// GPE0 in the ACPI block (§13.8.3): offset and bytes.
const ICH_GPE0: (u16, u16) = (0x20, 16);

/// Which chipset a PC has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// i440FX with PIIX3 and the power management of the PIIX4.
    I440fx,
    /// Q35 with ICH9.
    Q35,
}

/// A chipset that was set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chipset {
    /// Which.
    pub model: Model,
    /// How to reach configuration space: ECAM where there is one.
    pub access: ConfigAccess,
    /// First port of the ACPI registers; `None` on a board without a south bridge.
    pub pm_base: Option<u16>,
    /// First port of GPE0, and its ports.
    pub gpe0: Option<(u16, u16)>,
}

impl Chipset {
    /// Sets the chipset of `bus` up.
    ///
    /// # Errors
    /// A machine error for a host bridge that is none of these, or a bus that cannot be walked.
    pub fn set_up(bus: &mut dyn Bus) -> Result<Self> {
        let ports = ConfigAccess::Ports;
        let id = ports.read(bus, at(0, 0), reg::VENDOR_ID, 4);
        let mut chipset = match id {
            0x1237_8086 => Self::new(Model::I440fx, ports),
            0x29c0_8086 => Self::new(Model::Q35, open_ecam(bus)),
            _ => {
                let (device, vendor) = (id >> 16, id & 0xffff);
                return Err(Error::machine(format!(
                    "host bridge {vendor:04x}:{device:04x} is of no chipset that is known here"
                )));
            }
        };
        if let Some(isa) = chipset.isa_bridge(bus) {
            let routes = route_pirqs(bus, &chipset.pirq_registers(isa));
            chipset.place_acpi(bus, isa);
            for function in scan(bus, ports)? {
                chipset.set_interrupt_line(bus, &function, &routes);
            }
        }
        Ok(chipset)
    }

    fn new(model: Model, access: ConfigAccess) -> Self {
        Self { model, access, pm_base: None, gpe0: None }
    }

    fn isa_bridge(&self, bus: &mut dyn Bus) -> Option<PciAddress> {
        let (at, id) = match self.model {
            Model::I440fx => (at(1, 0), 0x7000_8086),
            Model::Q35 => (at(31, 0), 0x2918_8086),
        };
        (ConfigAccess::Ports.read(bus, at, reg::VENDOR_ID, 4) == id).then_some(at)
    }

    /// Route control registers, from PIRQA on.
    fn pirq_registers(&self, isa: PciAddress) -> Vec<(PciAddress, u16)> {
        let firsts = match self.model {
            Model::I440fx => &[PIIX_PIRQRC][..],
            Model::Q35 => &ICH_PIRQ_ROUT,
        };
        firsts.iter().flat_map(|first| (0..4).map(move |n| (isa, first + n))).collect()
    }

    /// The PIRQ that a function's pin (1 for INTA#) pulls.
    fn pirq_of(&self, slot: u8, pin: u8) -> usize {
        let pin = usize::from(pin.saturating_sub(1) & 3);
        let slot = usize::from(slot);
        match self.model {
            Model::I440fx => (slot + pin + 3) & 3,
            // The ICH's own slots have route registers of their own, one to one after a reset.
            Model::Q35 if matches!(slot, 25..=29 | 31) => pin,
            Model::Q35 => 4 + ((slot + pin) & 3),
        }
    }

    fn set_interrupt_line(&self, bus: &mut dyn Bus, function: &Function, routes: &[u8]) {
        let pin = function.read(bus, reg::INTERRUPT_PIN, 1) as u8;
        if pin == 0 || function.read(bus, reg::INTERRUPT_LINE, 1) != 0 {
            return;
        }
        let slot = function.address.device;
        let is_power = self.model == Model::I440fx && (function.device, slot) == (0x7113, 1);
        let routed = routes.get(self.pirq_of(slot, pin)).copied();
        let line = if is_power { Some(SCI) } else { routed };
        if let Some(line) = line {
            function.write(bus, reg::INTERRUPT_LINE, 1, line.into());
        }
    }

    fn place_acpi(&mut self, bus: &mut dyn Bus, isa: PciAddress) {
        let ports = ConfigAccess::Ports;
        let (block, base, enable, bit) = match self.model {
            Model::I440fx => (at(1, 3), PIIX_PMBA, PIIX_PMREGMISC, PIIX_PMIOSE),
            Model::Q35 => (isa, ICH_PMBASE, ICH_ACPI_CNTL, ICH_ACPI_EN),
        };
        let enabled = ports.read(bus, block, enable, 1);
        if enabled & bit == 0 {
            ports.write(bus, block, base, 4, u32::from(PM_BASE) | 1);
            ports.write(bus, block, enable, 1, enabled | bit);
        }
        // Both blocks are aligned to 64 bytes at least.
        let pm_base = ports.read(bus, block, base, 2) as u16 & 0xffc0;
        self.pm_base = Some(pm_base);
        self.gpe0 = Some(match self.model {
            Model::I440fx => PC_GPE0,
            Model::Q35 => (pm_base.wrapping_add(ICH_GPE0.0), ICH_GPE0.1),
        });
    }
}

fn at(device: u8, function: u8) -> PciAddress {
    PciAddress { bus: 0, device, function }
}

/// Opens the memory-mapped configuration space unless it is open.
fn open_ecam(bus: &mut dyn Bus) -> ConfigAccess {
    let ports = ConfigAccess::Ports;
    if ports.read(bus, at(0, 0), MCH_PCIEXBAR, 4) & MCH_PCIEXBAREN == 0 {
        ports.write(bus, at(0, 0), MCH_PCIEXBAR + 4, 4, 0);
        ports.write(bus, at(0, 0), MCH_PCIEXBAR, 4, ECAM | MCH_PCIEXBAREN);
    }
    let low = ports.read(bus, at(0, 0), MCH_PCIEXBAR, 4);
    let high = ports.read(bus, at(0, 0), MCH_PCIEXBAR + 4, 4);
    // Bits 35:28; a shorter window's base is aligned to 256 MiB by every firmware.
    ConfigAccess::Ecam(GuestAddr(u64::from(high & 0xf) << 32 | u64::from(low & 0xf000_0000)))
}

/// Routes every PIRQ that is not, makes their interrupts level-triggered, and says where each goes.
fn route_pirqs(bus: &mut dyn Bus, registers: &[(PciAddress, u16)]) -> Vec<u8> {
    let ports = ConfigAccess::Ports;
    let mut level = 0u16;
    let mut routes = Vec::new();
    for ((at, register), interrupt) in registers.iter().zip(PIRQ_INTERRUPTS.iter().cycle()) {
        let mut route = ports.read(bus, *at, *register, 1) as u8;
        if route & PIRQ_DISABLED != 0 {
            route = *interrupt;
            ports.write(bus, *at, *register, 1, route.into());
        }
        level |= 1 << (route & PIRQ_INTERRUPT);
        routes.push(route & PIRQ_INTERRUPT);
    }
    for (port, bits) in ELCR.into_iter().zip(level.to_le_bytes()) {
        let before = bus.pio_read(port, 1);
        bus.pio_write(port, 1, before | u32::from(bits));
    }
    routes
}
