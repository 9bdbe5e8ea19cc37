//! One PCI function: its registers, its BARs, its name in messages.

use super::config::{ConfigAccess, PciAddress};
use super::window::Window;
use crate::base::{Error, Result};
use crate::machine::Bus;

/// Registers of the configuration header (PCI 3.0 §6.1).
pub mod reg {
    /// Vendor id, 16 bits.
    pub const VENDOR_ID: u16 = 0x00;
    /// Device id, 16 bits.
    pub const DEVICE_ID: u16 = 0x02;
    /// Command, 16 bits.
    pub const COMMAND: u16 = 0x04;
    /// Status, 16 bits.
    pub const STATUS: u16 = 0x06;
    /// Revision, 8 bits.
    pub const REVISION: u16 = 0x08;
    /// Programming interface, 8 bits.
    pub const INTERFACE: u16 = 0x09;
    /// Sub-class and base class, 16 bits.
    pub const CLASS: u16 = 0x0a;
    /// Header type; bit 7: more functions.
    pub const HEADER_TYPE: u16 = 0x0e;
    /// First of six base address registers.
    pub const BAR0: u16 = 0x10;
    /// Bridges: primary, secondary, subordinate bus number, 8 bits each.
    pub const PRIMARY_BUS: u16 = 0x18;
    /// Bridges: secondary bus number.
    pub const SECONDARY_BUS: u16 = 0x19;
    /// Bridges: subordinate bus number.
    pub const SUBORDINATE_BUS: u16 = 0x1a;
    /// Bridges: I/O base and limit, 8 bits each.
    pub const IO_BASE: u16 = 0x1c;
    /// Bridges: memory base, limit, 16 bits each.
    pub const MEMORY_BASE: u16 = 0x20;
    /// Bridges: prefetchable memory base, limit, 16 bits each.
    pub const PREFETCH_BASE: u16 = 0x24;
    /// Bridges: upper 32 bits of the prefetchable base.
    pub const PREFETCH_BASE_UPPER: u16 = 0x28;
    /// Bridges: upper 32 bits of the prefetchable limit.
    pub const PREFETCH_LIMIT_UPPER: u16 = 0x2c;
    /// Bridges: upper 16 bits of I/O base and limit.
    pub const IO_BASE_UPPER: u16 = 0x30;
    /// First capability.
    pub const CAPABILITIES: u16 = 0x34;
    /// Interrupt line, as firmware routed it.
    pub const INTERRUPT_LINE: u16 = 0x3c;
    /// Interrupt pin; 0: none.
    pub const INTERRUPT_PIN: u16 = 0x3d;
}

/// Command register: answer I/O accesses.
pub const COMMAND_IO: u16 = 1;
/// Command register: answer memory accesses.
pub const COMMAND_MEMORY: u16 = 2;
/// Command register: may access memory itself.
pub const COMMAND_MASTER: u16 = 4;
/// Command register: no INTx.
pub const COMMAND_INTX_DISABLE: u16 = 1 << 10;
/// Status register: there is a capability list.
pub const STATUS_CAPABILITIES: u16 = 1 << 4;

/// Header type bit: the device has more functions.
pub const HEADER_MULTIFUNCTION: u8 = 0x80;
/// Header type of ordinary functions.
pub const HEADER_ENDPOINT: u8 = 0;
/// Header type of PCI-to-PCI bridges.
pub const HEADER_BRIDGE: u8 = 1;

/// What a BAR decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB.
    Memory32,
    /// Memory anywhere.
    Memory64,
}

/// A base address register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// What it decodes.
    pub kind: BarKind,
    /// Memory without side effects of reading.
    pub prefetchable: bool,
    /// Bytes: a power of two.
    pub size: u64,
    /// Bus address; 0 when none was assigned.
    pub addr: u64,
}

/// A function found by enumeration.
#[derive(Clone, Debug)]
pub struct Function {
    /// How its configuration space is reached.
    pub access: ConfigAccess,
    /// Where it is.
    pub address: PciAddress,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Base class and sub-class.
    pub class: u16,
    /// Programming interface of its class.
    pub interface: u8,
    /// Revision.
    pub revision: u8,
    /// Header type: 0 an ordinary function, 1 a bridge; bit 7: the device has more functions.
    pub header: u8,
    /// Interrupt pin: 1 is INTA#, 0 none.
    pub pin: u8,
    /// Its base address registers; the second half of a 64-bit one is `None`.
    pub bars: [Option<Bar>; 6],
    /// Bridges: the bus behind.
    pub secondary: Option<u8>,
    /// What is wrong with it: it is listed, and refuses to be used.
    pub fault: Option<String>,
}

impl Function {
    /// Its name in messages: `00:04.0 1af4:1001`.
    pub fn name(&self) -> String {
        format!("{} {:04x}:{:04x}", self.address, self.vendor, self.device)
    }

    /// Whether it is of this vendor and device id.
    pub fn is(&self, vendor: u16, device: u16) -> bool {
        (self.vendor, self.device) == (vendor, device)
    }

    /// Whether its device says that it has further functions.
    pub fn is_multifunction(&self) -> bool {
        self.header & HEADER_MULTIFUNCTION != 0
    }

    /// How many base address registers its header has: 6, a bridge's 2, others none.
    pub fn bar_registers(&self) -> usize {
        match self.header & !HEADER_MULTIFUNCTION {
            HEADER_ENDPOINT => 6,
            HEADER_BRIDGE => 2,
            _ => 0,
        }
    }

    /// A machine error about this function.
    pub fn error(&self, what: impl std::fmt::Display) -> Error {
        Error::machine(format!("PCI function {}: {what}", self.name()))
    }

    /// Reads a register of 1, 2 or 4 bytes.
    pub fn read(&self, bus: &mut dyn Bus, offset: u16, size: u8) -> u32 {
        self.access.read(bus, self.address, offset, size)
    }

    /// Reads a 16-bit register.
    pub fn read16(&self, bus: &mut dyn Bus, offset: u16) -> u16 {
        self.read(bus, offset, 2) as u16
    }

    /// Writes a register of 1, 2 or 4 bytes.
    pub fn write(&self, bus: &mut dyn Bus, offset: u16, size: u8, value: u32) {
        self.access.write(bus, self.address, offset, size, value);
    }

    /// Sets and clears bits of the command register.
    pub fn command(&self, bus: &mut dyn Bus, set: u16, clear: u16) {
        let command = self.read16(bus, reg::COMMAND);
        self.write(bus, reg::COMMAND, 2, u32::from((command & !clear) | set));
    }

    /// Lets the function decode its BARs and master the bus.
    ///
    /// # Errors
    /// A function with a fault found by enumeration, or one whose command register does not hold.
    pub fn enable(&self, bus: &mut dyn Bus) -> Result<()> {
        if let Some(fault) = &self.fault {
            return Err(self.error(fault));
        }
        let has_io = self.bars.iter().flatten().any(|bar| bar.kind == BarKind::Io);
        let has_memory = self.bars.iter().flatten().any(|bar| bar.kind != BarKind::Io);
        let mut want = COMMAND_MASTER;
        want |= if has_io { COMMAND_IO } else { 0 };
        want |= if has_memory { COMMAND_MEMORY } else { 0 };
        self.command(bus, want, 0);
        let got = self.read16(bus, reg::COMMAND);
        if got & want == want && got != u16::MAX {
            return Ok(());
        }
        Err(self.error(format_args!("command register reads {got:#06x} after {want:#06x} was set")))
    }

    /// `len` bytes at `offset` of BAR `index`, checked to lie within it.
    ///
    /// # Errors
    /// A machine error when there is no such BAR, it has no address, or the range leaves it.
    pub fn window(&self, index: u8, offset: u64, len: u64) -> Result<Window> {
        let bar = self.bars.get(usize::from(index)).copied().flatten();
        let bar = bar.ok_or_else(|| self.error(format_args!("has no BAR {index}")))?;
        if bar.addr == 0 {
            return Err(self.error(format_args!("BAR {index} has no address")));
        }
        if offset.checked_add(len).is_none_or(|end| end > bar.size) {
            return Err(self.error(format_args!(
                "a structure of {len} bytes at {offset:#x} lies outside BAR {index} of {} bytes",
                bar.size
            )));
        }
        Ok(Window::new(bar.kind == BarKind::Io, bar.addr + offset, len))
    }
}
