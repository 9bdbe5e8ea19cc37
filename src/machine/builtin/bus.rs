//! The address spaces of the machine: who answers a port or memory access.
//!
//! An access that one range holds whole goes to it whole; any other is split into bytes, each of
//! which finds its own range, as a host bridge does with one that straddles two targets. Where
//! ranges overlap the first of this order answers: RAM, the board's own registers, then functions
//! by slot and BAR.

use std::sync::Arc;

use super::board::Board;
use super::pci::PciBus;
use super::pci::bits::{CONFIG_ADDRESS, CONFIG_ADDRESS_ENABLE, CONFIG_DATA};
use crate::base::GuestAddr;
use crate::machine::{Bus, GuestRam};

#[derive(Clone, Copy)]
struct Window {
    start: u64,
    size: u64,
    function: usize,
    bar: u8,
}

/// The ranges of one address space.
#[derive(Default)]
struct Windows {
    list: Vec<Window>,
    /// The last hit: a doorbell is rung far more often than anything else is touched.
    last: usize,
    /// Overlapping ranges: the first in order must win, so the last hit proves nothing.
    overlap: bool,
}

impl Windows {
    fn set(&mut self, list: Vec<Window>) {
        self.overlap = list.iter().enumerate().any(|(i, a)| {
            let later = list.iter().skip(i + 1);
            later.into_iter().any(|b| a.start < b.start + b.size && b.start < a.start + a.size)
        });
        (self.list, self.last) = (list, 0);
    }

    /// The function, BAR and offset that `size` bytes from `addr` fall into.
    #[inline]
    fn find(&mut self, addr: u64, size: u8) -> Option<(usize, u8, u64)> {
        let hit = |w: &Window| {
            let offset = addr.wrapping_sub(w.start);
            // A size is at most 8 and a window at least 4: no overflow, and no wrap for a hit.
            (offset < w.size && w.size - offset >= u64::from(size))
                .then_some((w.function, w.bar, offset))
        };
        if !self.overlap
            && let Some(found) = self.list.get(self.last).and_then(hit)
        {
            return Some(found);
        }
        let (index, found) = self.list.iter().enumerate().find_map(|(i, w)| Some((i, hit(w)?)))?;
        self.last = index;
        Some(found)
    }
}

/// The machine's buses with what is plugged into them.
pub struct SystemBus {
    ram: Arc<GuestRam>,
    /// The functions.
    pub pci: PciBus,
    board: Board,
    config_address: u32,
    ports: Windows,
    memory: Windows,
}

fn ones(size: u8) -> u64 {
    u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)))
}

fn valid(size: u8) -> bool {
    matches!(size, 1 | 2 | 4 | 8)
}

impl SystemBus {
    /// A bus with RAM and the functions of `pci`.
    pub fn new(ram: Arc<GuestRam>, board: Board, pci: PciBus) -> Self {
        let mut bus = Self {
            ram,
            pci,
            board,
            config_address: 0,
            ports: Windows::default(),
            memory: Windows::default(),
        };
        bus.remap();
        bus
    }

    /// Rebuilds the ranges from what the functions decode now.
    fn remap(&mut self) {
        let mut lists: [Vec<Window>; 2] = Default::default();
        for (function, d) in self.pci.decoded() {
            let window = Window { start: d.base, size: d.size, function, bar: d.bar };
            lists[usize::from(d.io)].push(window);
        }
        let [memory, ports] = lists;
        self.memory.set(memory);
        self.ports.set(ports);
    }

    fn config_write(&mut self, bdf: u16, reg: u16, size: u8, value: u32) {
        if self.pci.config_write(bdf, reg, size, value) {
            self.remap();
        }
    }

    /// What the data port reaches: bus/device/function and register.
    fn config_target(&self, port: u16) -> (u16, u16) {
        let address = self.config_address;
        ((address >> 8) as u16, (address as u16 & 0xfc) + (port - CONFIG_DATA))
    }

    fn config_port(&self, port: u16, size: u8) -> bool {
        let end = u32::from(port) + u32::from(size);
        port >= CONFIG_DATA && end <= u32::from(CONFIG_DATA) + 4
    }

    fn port_read_whole(&mut self, port: u16, size: u8) -> Option<u32> {
        if port == CONFIG_ADDRESS && size == 4 {
            return Some(self.config_address);
        }
        if self.config_port(port, size) {
            let (bdf, reg) = self.config_target(port);
            let enabled = self.config_address & CONFIG_ADDRESS_ENABLE != 0;
            let value = enabled.then(|| self.pci.config_read(bdf, reg, size));
            return Some(value.unwrap_or(ones(size) as u32));
        }
        let (function, bar, offset) = self.ports.find(u64::from(port), size)?;
        self.pci.function(function).map(|f| f.bar_read(bar, offset, size) as u32)
    }

    fn port_write_whole(&mut self, port: u16, size: u8, value: u32) -> bool {
        if port == CONFIG_ADDRESS && size == 4 {
            // Bits 30:24 and 1:0 are reserved and read as 0 (PCI 3.0 §3.2.2.3.2).
            self.config_address = value & 0x80ff_fffc;
            return true;
        }
        if self.config_port(port, size) {
            if self.config_address & CONFIG_ADDRESS_ENABLE != 0 {
                let (bdf, reg) = self.config_target(port);
                self.config_write(bdf, reg, size, value);
            }
            return true;
        }
        let Some((function, bar, offset)) = self.ports.find(u64::from(port), size) else {
            return false;
        };
        if let Some(function) = self.pci.function(function) {
            function.bar_write(bar, offset, size, u64::from(value));
        }
        true
    }

    /// The ECAM offset of an access that lies whole in the window.
    fn ecam(&self, addr: u64, size: u8) -> Option<u64> {
        let (base, len) = self.board.ecam()?;
        let offset = addr.checked_sub(base)?;
        (offset < len && len - offset >= u64::from(size)).then_some(offset)
    }

    fn memory_read_whole(&mut self, addr: u64, size: u8) -> Option<u64> {
        if addr < self.ram.size() {
            let mut bytes = [0; 8];
            let buf = bytes.get_mut(..usize::from(size))?;
            return self.ram.read(GuestAddr(addr), buf).then(|| u64::from_le_bytes(bytes));
        }
        if let Some((function, bar, offset)) = self.memory_target(addr, size) {
            return self.pci.function(function).map(|f| f.bar_read(bar, offset, size));
        }
        let offset = self.ecam(addr, size)?;
        aligned_words(offset, size)?;
        let mut value = 0;
        for piece in (0..size).step_by(4) {
            let (bdf, reg) = ecam_target(offset + u64::from(piece));
            let word = self.pci.config_read(bdf, reg, size.min(4));
            value |= u64::from(word) << (8 * piece);
        }
        Some(value)
    }

    fn memory_write_whole(&mut self, addr: u64, size: u8, value: u64) -> bool {
        if addr < self.ram.size() {
            let bytes = value.to_le_bytes();
            return bytes
                .get(..usize::from(size))
                .is_some_and(|b| self.ram.write(GuestAddr(addr), b));
        }
        if let Some((function, bar, offset)) = self.memory_target(addr, size) {
            if let Some(function) = self.pci.function(function) {
                function.bar_write(bar, offset, size, value);
            }
            return true;
        }
        let Some(offset) = self.ecam(addr, size).filter(|o| aligned_words(*o, size).is_some())
        else {
            return false;
        };
        for piece in (0..size).step_by(4) {
            let (bdf, reg) = ecam_target(offset + u64::from(piece));
            self.config_write(bdf, reg, size.min(4), (value >> (8 * piece)) as u32);
        }
        true
    }

    #[inline]
    fn memory_target(&mut self, addr: u64, size: u8) -> Option<(usize, u8, u64)> {
        let found = self.memory.find(addr, size)?;
        self.ecam(addr, size).is_none().then_some(found)
    }
}

/// Whether an access stays within one 32-bit word, or is two whole ones.
fn aligned_words(offset: u64, size: u8) -> Option<()> {
    let inside = offset % 4 + u64::from(size) <= 4;
    (inside || size == 8 && offset.is_multiple_of(4)).then_some(())
}

/// ECAM (PCI Express 3.0 §7.2.2): 20 bits of bus, device, function above 12 of register.
fn ecam_target(offset: u64) -> (u16, u16) {
    ((offset >> 12) as u16, (offset & 0xfff) as u16)
}

impl Bus for SystemBus {
    fn pio_read(&mut self, port: u16, size: u8) -> u32 {
        if !valid(size) || size > 4 {
            return u32::MAX;
        }
        if let Some(value) = self.port_read_whole(port, size) {
            return value & ones(size) as u32;
        }
        if size == 1 {
            return 0xff;
        }
        let byte = |i| u32::from(i) * 8;
        (0..size).fold(0, |v, i| v | self.pio_read(port.wrapping_add(u16::from(i)), 1) << byte(i))
    }

    fn pio_write(&mut self, port: u16, size: u8, value: u32) {
        if !valid(size) || size > 4 || self.port_write_whole(port, size, value) || size == 1 {
            return;
        }
        for i in 0..size {
            self.pio_write(port.wrapping_add(u16::from(i)), 1, value >> (8 * i) & 0xff);
        }
    }

    fn mmio_read(&mut self, addr: GuestAddr, size: u8) -> u64 {
        if !valid(size) {
            return u64::MAX;
        }
        if let Some(value) = self.memory_read_whole(addr.0, size) {
            return value & ones(size);
        }
        if size == 1 {
            return 0xff;
        }
        (0..size).fold(0, |v, i| {
            let at = GuestAddr(addr.0.wrapping_add(u64::from(i)));
            v | self.mmio_read(at, 1) << (8 * u32::from(i))
        })
    }

    fn mmio_write(&mut self, addr: GuestAddr, size: u8, value: u64) {
        if !valid(size) || self.memory_write_whole(addr.0, size, value) || size == 1 {
            return;
        }
        for i in 0..size {
            let at = GuestAddr(addr.0.wrapping_add(u64::from(i)));
            self.mmio_write(at, 1, value >> (8 * u32::from(i)) & 0xff);
        }
    }
}
