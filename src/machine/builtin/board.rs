//! The boards: which host bridge, where configuration space is, how interrupts are routed, and
//! which slots the disks sit in.

use super::pci::PciFunction;
use super::pci::config::{ConfigSpace, Identity};

/// End of the RAM that a board can have: the q35's ECAM, and with it the PCI hole, begins there.
pub const RAM_END_MAX: u64 = 0xb000_0000;

/// Slot of the first disk unless another is asked for.
pub const FIRST_DISK_SLOT: u8 = 4;

const INTEL: u16 = 0x8086;
/// Class 06, subclass 00: host bridge.
const CLASS_HOST_BRIDGE: u32 = 0x06_00_00;
/// ECAM of the q35, as firmware usually places it: 256 buses of 1 MiB.
const Q35_ECAM: (u64, u64) = (0xb000_0000, 256 << 20);
/// PCI Express register range base address of the MCH (Intel 3 Series datasheet §5.1.16).
const MCH_PCIEXBAR: u8 = 0x60;
/// PCIEXBAR enable; bits 2:1 zero mean 256 buses.
const MCH_PCIEXBAREN: u64 = 1;

/// A PC chipset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Board {
    /// i440fx: configuration mechanism #1.
    #[default]
    Pc,
    /// q35: the same, and ECAM.
    Q35,
}

impl Board {
    /// The name in options and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pc => "pc",
            Self::Q35 => "q35",
        }
    }

    /// Base and length of the memory-mapped configuration space.
    pub fn ecam(self) -> Option<(u64, u64)> {
        match self {
            Self::Pc => None,
            Self::Q35 => Some(Q35_ECAM),
        }
    }

    /// The global interrupt of a slot's pin A. Pins rotate over four PIRQs by slot, as on the
    /// PIIX3, and PIRQ A, B share interrupt 10 and C, D interrupt 11, as PC firmware routes them.
    pub fn interrupt_of(self, slot: u8) -> u8 {
        match slot & 3 {
            0 | 1 => 10,
            _ => 11,
        }
    }

    /// The function at 00:00.0.
    pub fn host_bridge(self) -> Box<dyn PciFunction> {
        let device = match self {
            Self::Pc => 0x1237,
            Self::Q35 => 0x29c0,
        };
        let mut config = ConfigSpace::new(&Identity {
            vendor: INTEL,
            device,
            revision: 2,
            class: CLASS_HOST_BRIDGE,
            subsystem_vendor: 0,
            subsystem: 0,
        });
        if let Some((base, _)) = self.ecam() {
            config.preset(MCH_PCIEXBAR, &(base | MCH_PCIEXBAREN).to_le_bytes());
        }
        Box::new(HostBridge(config))
    }
}

/// A host bridge: it decodes nothing of its own here, enumeration finds it first.
struct HostBridge(ConfigSpace);

impl PciFunction for HostBridge {
    fn config(&self) -> &ConfigSpace {
        &self.0
    }

    fn config_write(&mut self, reg: u8, size: u8, value: u32) {
        self.0.write(reg, size, value);
    }

    fn bar_read(&mut self, _bar: u8, _offset: u64, _size: u8) -> u64 {
        u64::MAX
    }

    fn bar_write(&mut self, _bar: u8, _offset: u64, _size: u8, _value: u64) {}
}
