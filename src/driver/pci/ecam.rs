//! Where a chipset maps configuration space: what PC firmware sets up on a q35.

use super::config::{ConfigAccess, PciAddress};
use super::function::reg;
use crate::base::GuestAddr;
use crate::machine::Bus;

/// The memory controller hub of a q35, the 82G33's (Intel 3 Series datasheet).
const MCH_Q35: (u16, u16) = (0x8086, 0x29c0);
/// PCI Express register range base address (§5.1.16), 64 bits.
const PCIEXBAR: u16 = 0x60;
/// PCIEXBAR bit 0: decoding is on.
const PCIEXBAREN: u32 = 1;
/// PCIEXBAR bits 2:1: 256, 128 or 64 buses, and so the address bits that count.
const PCIEXBAR_LENGTH: u32 = 3 << 1;
/// PCIEXBAR bits 35:28 for 256 buses.
const BASE_MASK: u64 = 0xf_f000_0000;
/// Where PC firmware puts it: 256 MiB below the BARs.
const BASE_USUAL: u64 = 0xb000_0000;

/// The memory-mapped mechanism of a q35, opened for 256 buses as firmware does unless it has been;
/// `None` on boards that have none.
pub fn open(bus: &mut dyn Bus) -> Option<ConfigAccess> {
    let (ports, host) = (ConfigAccess::Ports, PciAddress { bus: 0, device: 0, function: 0 });
    let vendor = ports.read(bus, host, reg::VENDOR_ID, 2) as u16;
    let device = ports.read(bus, host, reg::DEVICE_ID, 2) as u16;
    if (vendor, device) != MCH_Q35 {
        return None;
    }
    let low = ports.read(bus, host, PCIEXBAR, 4);
    let high = u64::from(ports.read(bus, host, PCIEXBAR + 4, 4));
    let base = (high << 32 | u64::from(low)) & BASE_MASK;
    if low & (PCIEXBAREN | PCIEXBAR_LENGTH) == PCIEXBAREN && base != 0 {
        return Some(ConfigAccess::Ecam(GuestAddr(base)));
    }
    // The upper half first: the lower one switches decoding on.
    ports.write(bus, host, PCIEXBAR + 4, 4, (BASE_USUAL >> 32) as u32);
    ports.write(bus, host, PCIEXBAR, 4, BASE_USUAL as u32 | PCIEXBAREN);
    Some(ConfigAccess::Ecam(GuestAddr(BASE_USUAL)))
}
