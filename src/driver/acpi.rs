//! ACPI power management as software finds it on PC chipsets: where the chipset has it, its fixed
//! registers (ACPI §4.7.3) and its general-purpose events (§4.7.4).

use super::pci::{ConfigAccess, PciAddress};
use crate::base::Frequency;
use crate::machine::Bus;

/// What the power management timer counts.
pub const TIMER: Frequency = Frequency::new(3_579_545);
/// Bits of the timer.
pub const TIMER_BITS: u32 = 24;
/// The interrupt that SCI is on a PC.
pub const SCI: u32 = 9;

/// PM1 status and enable: the timer's most significant bit changed.
pub const TMR: u16 = 1 << 0;
/// PM1 status and enable: global lock.
pub const GBL: u16 = 1 << 5;
/// PM1 status and enable: power button.
pub const PWRBTN: u16 = 1 << 8;
/// PM1 status and enable: alarm of the real-time clock.
pub const RTC: u16 = 1 << 10;
/// PM1 control: events make SCIs.
pub const SCI_EN: u16 = 1 << 0;
/// PM1 control: sleep type.
pub const SLP_TYP: u16 = 7 << 10;
/// PM1 control: sleep now.
pub const SLP_EN: u16 = 1 << 13;

/// Where the block goes when nothing has placed it: where firmware for virtual machines has it.
const BASE_USUAL: u16 = 0x600;
/// SMI command port (82371AB §4.1.9, APMC).
const APM_COMMAND: u16 = 0xb2;

const PORTS: ConfigAccess = ConfigAccess::Ports;
const HOST_BRIDGE: PciAddress = PciAddress { bus: 0, device: 0, function: 0 };
/// Intel 82P965/Q35 memory controller hub.
const Q35_HOST_BRIDGE: u32 = 0x29c0_8086;
const PIIX4_PM: PciAddress = PciAddress { bus: 0, device: 1, function: 3 };
const PIIX4_PM_ID: u32 = 0x7113_8086;
const ICH9_LPC: PciAddress = PciAddress { bus: 0, device: 31, function: 0 };
const ICH9_LPC_ID: u32 = 0x2918_8086;
/// PMBA of the PIIX4 (82371AB §7.1), PMBASE of the ICH9 (§13.1).
const BASE_REGISTER: u16 = 0x40;
/// PIIX4: PMREGMISC, bit 0 decodes the block. GPE0 is the board's there.
const PIIX4_DECODE: (u16, u32) = (0x80, 1 << 0);
const PIIX4_BASE_BITS: u32 = 0xffc0;
const PIIX4_GPE0: u16 = 0xafe0;
/// ICH9: ACPI_CNTL, bit 7 decodes the block, bits 2:0 zero make SCI interrupt 9.
const ICH9_DECODE: (u16, u32) = (0x44, 1 << 7);
const ICH9_BASE_BITS: u32 = 0xff80;
const ICH9_GPE0: u16 = 0x20;

/// Who decodes the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chipset {
    /// The power management function of a PIIX4.
    Piix4,
    /// The LPC bridge of an ICH9.
    Ich9,
}

impl Chipset {
    /// The commands at the SMI port that switch ACPI mode on and off. Firmware's fixed table says
    /// them; these are the ones of virtual machines' firmware.
    pub fn acpi_commands(self) -> (u8, u8) {
        match self {
            Self::Piix4 => (0xf1, 0xf0),
            Self::Ich9 => (0x02, 0x03),
        }
    }
}

/// A power management block that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerManagement {
    /// Who decodes it.
    pub chipset: Chipset,
    base: u16,
    gpe0: u16,
}

impl PowerManagement {
    /// Finds the block. A chipset that does not decode it yet is told to; without such a function
    /// it is where firmware usually leaves it.
    pub fn open(bus: &mut dyn Bus) -> Self {
        let chipset = match PORTS.read(bus, HOST_BRIDGE, 0, 4) {
            Q35_HOST_BRIDGE => Chipset::Ich9,
            _ => Chipset::Piix4,
        };
        match chipset {
            Chipset::Piix4 => {
                let bridge = (PIIX4_PM, PIIX4_PM_ID);
                let base = place(bus, bridge, PIIX4_BASE_BITS, PIIX4_DECODE);
                Self { chipset, base, gpe0: PIIX4_GPE0 }
            }
            Chipset::Ich9 => {
                let bridge = (ICH9_LPC, ICH9_LPC_ID);
                let base = place(bus, bridge, ICH9_BASE_BITS, ICH9_DECODE);
                Self { chipset, base, gpe0: base.saturating_add(ICH9_GPE0) }
            }
        }
    }

    /// PM1 status.
    pub fn status(self, bus: &mut dyn Bus) -> u16 {
        bus.pio_read(self.base, 2) as u16
    }

    /// Clears these bits of PM1 status.
    pub fn clear(self, bus: &mut dyn Bus, bits: u16) {
        bus.pio_write(self.base, 2, bits.into());
    }

    /// PM1 enable.
    pub fn enables(self, bus: &mut dyn Bus) -> u16 {
        bus.pio_read(self.base + 2, 2) as u16
    }

    /// Writes PM1 enable.
    pub fn set_enables(self, bus: &mut dyn Bus, bits: u16) {
        bus.pio_write(self.base + 2, 2, bits.into());
    }

    /// PM1 control.
    pub fn control(self, bus: &mut dyn Bus) -> u16 {
        bus.pio_read(self.base + 4, 2) as u16
    }

    /// Writes PM1 control.
    pub fn set_control(self, bus: &mut dyn Bus, bits: u16) {
        bus.pio_write(self.base + 4, 2, bits.into());
    }

    /// The timer, with whatever its unused upper bits read.
    pub fn timer(self, bus: &mut dyn Bus) -> u32 {
        bus.pio_read(self.base + 8, 4)
    }

    /// Writes the timer, which is read only.
    pub fn write_timer(self, bus: &mut dyn Bus, value: u32) {
        bus.pio_write(self.base + 8, 4, value);
    }

    /// Bytes of status in GPE0; as many enables follow.
    pub fn gpe0_half(self) -> u16 {
        match self.chipset {
            Chipset::Piix4 => 2,
            Chipset::Ich9 => 8,
        }
    }

    /// A byte of GPE0: status, then enables.
    pub fn gpe0(self, bus: &mut dyn Bus, byte: u16) -> u8 {
        bus.pio_read(self.gpe0.saturating_add(byte), 1) as u8
    }

    /// Writes a byte of GPE0.
    pub fn set_gpe0(self, bus: &mut dyn Bus, byte: u16, value: u8) {
        bus.pio_write(self.gpe0.saturating_add(byte), 1, value.into());
    }
}

/// Writes the SMI command port: firmware's fixed table says which commands switch ACPI mode.
pub fn apm_command(bus: &mut dyn Bus, command: u8) {
    bus.pio_write(APM_COMMAND, 1, command.into());
}

/// The base of the block, which `bridge` decodes from now on.
fn place(
    bus: &mut dyn Bus,
    (at, id): (PciAddress, u32),
    base_bits: u32,
    (register, enable): (u16, u32),
) -> u16 {
    if PORTS.read(bus, at, 0, 4) != id {
        return BASE_USUAL;
    }
    let mut base = (PORTS.read(bus, at, BASE_REGISTER, 4) & base_bits) as u16;
    if base == 0 {
        base = BASE_USUAL;
        PORTS.write(bus, at, BASE_REGISTER, 4, u32::from(base) | 1);
    }
    let decode = PORTS.read(bus, at, register, 1);
    PORTS.write(bus, at, register, 1, decode | enable);
    base
}
