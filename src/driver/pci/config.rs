//! Configuration space access: mechanism #1 of PCI 3.0 §3.2.2.3.2 (ports CF8/CFC) and the
//! enhanced, memory-mapped mechanism of PCI Express (ECAM, §7.2.2).

use std::fmt;

use crate::base::GuestAddr;
use crate::machine::Bus;

/// `CONFIG_ADDRESS`.
const CONFIG_ADDRESS: u16 = 0xcf8;
/// `CONFIG_DATA`.
const CONFIG_DATA: u16 = 0xcfc;
/// The enable bit of `CONFIG_ADDRESS`.
const CONFIG_ENABLE: u32 = 1 << 31;

/// Bus, device and function number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PciAddress {
    /// Bus number.
    pub bus: u8,
    /// Device, 0..32.
    pub device: u8,
    /// Function, 0..8.
    pub function: u8,
}

impl PciAddress {
    /// The 16-bit routing id.
    pub fn routing_id(self) -> u16 {
        let devfn = (self.device & 31) << 3 | (self.function & 7);
        u16::from(self.bus) << 8 | u16::from(devfn)
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
}

/// How configuration space is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigAccess {
    /// Ports CF8 and CFC; offsets below 256.
    Ports,
    /// The memory-mapped window that begins here; offsets below 4096.
    Ecam(GuestAddr),
}

impl ConfigAccess {
    /// Reads 1, 2 or 4 bytes at an offset aligned for the size.
    pub fn read(self, bus: &mut dyn Bus, at: PciAddress, offset: u16, size: u8) -> u32 {
        match self {
            Self::Ports => {
                bus.pio_write(CONFIG_ADDRESS, 4, port_address(at, offset));
                bus.pio_read(CONFIG_DATA + (offset & 3), size)
            }
            Self::Ecam(base) => bus.mmio_read(ecam_address(base, at, offset), size) as u32,
        }
    }

    /// Writes 1, 2 or 4 bytes at an offset aligned for the size.
    pub fn write(self, bus: &mut dyn Bus, at: PciAddress, offset: u16, size: u8, value: u32) {
        match self {
            Self::Ports => {
                bus.pio_write(CONFIG_ADDRESS, 4, port_address(at, offset));
                bus.pio_write(CONFIG_DATA + (offset & 3), size, value);
            }
            Self::Ecam(base) => {
                bus.mmio_write(ecam_address(base, at, offset), size, u64::from(value));
            }
        }
    }
}

fn port_address(at: PciAddress, offset: u16) -> u32 {
    CONFIG_ENABLE | u32::from(at.routing_id()) << 8 | u32::from(offset & 0xfc)
}

fn ecam_address(base: GuestAddr, at: PciAddress, offset: u16) -> GuestAddr {
    base + (u64::from(at.routing_id()) << 12 | u64::from(offset & 0xfff))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_composed_as_the_specifications_draw_them() {
        let at = PciAddress { bus: 1, device: 4, function: 2 };
        assert_eq!(at.to_string(), "01:04.2");
        assert_eq!(port_address(at, 0x3d), 0x8001_223c);
        assert_eq!(ecam_address(GuestAddr(0xb000_0000), at, 0x3d), GuestAddr(0xb012_203d));
    }
}
