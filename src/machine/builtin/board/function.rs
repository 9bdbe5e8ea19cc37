//! A chipset function: configuration registers, and what writing them does to the board.

use crate::machine::builtin::bus::windows::Placement;
use crate::machine::builtin::pci::PciFunction;
use crate::machine::builtin::pci::bits::*;
use crate::machine::builtin::pci::config::{ConfigSpace, Identity};

/// Who made every function of these chipsets.
const INTEL: u16 = 0x8086;
/// The subsystem IDs that QEMU gives to functions which have none of their own.
const SUBSYSTEM: (u16, u16) = (0x1af4, 0x1100);
/// Command bits that these functions keep.
const COMMAND_MASK: u16 = PCI_COMMAND_IO
    | PCI_COMMAND_MEMORY
    | PCI_COMMAND_MASTER
    | PCI_COMMAND_SERR
    | PCI_COMMAND_INTX_DISABLE;

/// What a function's own registers do.
pub trait Registers: Send + Sync {
    /// Registers from `reg` on were written, or all of them reset (`reg` 0).
    fn changed(&mut self, config: &ConfigSpace, reg: u8) {
        let _ = (config, reg);
    }
    /// Whether a write to `reg`, behind the header, moves what the function places.
    fn remaps(&self, reg: u8) -> bool {
        let _ = reg;
        false
    }
    /// Windows that the function has answer now.
    fn placements(&self, config: &ConfigSpace) -> Vec<Placement> {
        let _ = config;
        Vec::new()
    }
    /// The memory-mapped configuration space, while the function opens one.
    fn ecam(&self, config: &ConfigSpace) -> Option<(u64, u64)> {
        let _ = config;
        None
    }
}

/// Registers that only keep what is written to them.
pub struct Inert;

impl Registers for Inert {}

/// A function of the chipset.
pub struct ChipsetFunction<R> {
    config: ConfigSpace,
    registers: R,
}

impl<R: Registers> ChipsetFunction<R> {
    /// The function in its reset state.
    pub fn new(config: ConfigSpace, registers: R) -> Self {
        let mut function = Self { config, registers };
        function.registers.changed(&function.config, 0);
        function
    }
}

/// The header of an Intel function. Registers behind the header keep everything written to them,
/// unless their owner says otherwise.
pub fn header(device: u16, revision: u8, class: u32) -> ConfigSpace {
    let (subsystem_vendor, subsystem) = SUBSYSTEM;
    let id = Identity { vendor: INTEL, device, revision, class, subsystem_vendor, subsystem };
    let mut config = ConfigSpace::new(&id);
    config.allow(PCI_COMMAND, &COMMAND_MASK.to_le_bytes());
    config.allow(PCI_LATENCY_TIMER, &[0]);
    config.allow(PCI_INTERRUPT_LINE, &[0xff]);
    config.allow(PCI_HEADER_END, &[0xff; 256 - PCI_HEADER_END as usize]);
    config
}

impl<R: Registers> PciFunction for ChipsetFunction<R> {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_write(&mut self, reg: u8, size: u8, value: u32) {
        self.config.write(reg, size, value);
        self.registers.changed(&self.config, reg);
    }

    fn remaps(&self, reg: u8) -> bool {
        reg < PCI_HEADER_END || self.registers.remaps(reg)
    }

    fn placements(&self) -> Vec<Placement> {
        self.registers.placements(&self.config)
    }

    fn ecam(&self) -> Option<(u64, u64)> {
        self.registers.ecam(&self.config)
    }

    /// Registers in BARs (bus-master IDE, AHCI, SMBus) are those of a controller to which nothing
    /// is connected.
    fn bar_read(&mut self, _bar: u8, _offset: u64, _size: u8) -> u64 {
        0
    }

    fn bar_write(&mut self, _bar: u8, _offset: u64, _size: u8, _value: u64) {}

    fn reset(&mut self) {
        self.config.reset();
        self.registers.changed(&self.config, 0);
    }
}
