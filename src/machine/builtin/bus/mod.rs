//! The address spaces of the machine: who answers a port or memory access.
//!
//! An access that one range holds whole goes to it whole; any other is split into bytes, each of
//! which finds its own range, as a host bridge does with one that straddles two targets. Where
//! ranges overlap the first of this order answers: RAM, the board's own registers, fixed windows of
//! devices, windows that PCI functions place, then BARs by function and number.
//!
//! Before an access, devices whose deadline has come act, so that it sees the state of its moment.

pub mod reset;
pub mod windows;

use std::sync::Arc;

use self::reset::{RST_CNT, ResetControl, ResetLine};
use self::windows::{Placement, Range, Target, Windows};
use super::pci::PciBus;
use super::pci::bits::{CONFIG_ADDRESS, CONFIG_ADDRESS_ENABLE, CONFIG_DATA};
use super::timeline::Timeline;
use crate::base::{BusSpace, Clock, GuestAddr, Nanos};
use crate::machine::{Bus, GuestRam};

/// What a bus connects.
pub struct BusParts {
    /// Guest RAM.
    pub ram: Arc<GuestRam>,
    /// The machine's time.
    pub clock: Arc<dyn Clock>,
    /// PCI functions.
    pub pci: PciBus,
    /// Devices.
    pub devices: Timeline,
    /// Where windows of devices always are.
    pub fixed: Vec<Placement>,
    /// Who resets the board by wire.
    pub reset: Arc<ResetLine>,
    /// Port CF9h.
    pub reset_control: Option<ResetControl>,
}

/// The machine's buses with what is plugged into them.
pub struct SystemBus {
    parts: BusParts,
    config_address: u32,
    ports: Windows,
    memory: Windows,
    /// The memory-mapped configuration space, while one is open.
    ecam: Option<(u64, u64)>,
}

fn ones(size: u8) -> u64 {
    u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)))
}

fn valid(size: u8) -> bool {
    matches!(size, 1 | 2 | 4 | 8)
}

impl SystemBus {
    /// A bus of these.
    pub fn new(parts: BusParts) -> Self {
        let mut bus = Self {
            parts,
            config_address: 0,
            ports: Windows::default(),
            memory: Windows::default(),
            ecam: None,
        };
        bus.remap();
        bus
    }

    /// The PCI functions.
    pub fn pci(&mut self) -> &mut PciBus {
        &mut self.parts.pci
    }

    /// The devices' next deadline.
    #[inline]
    pub fn deadline(&self) -> Option<Nanos> {
        self.parts.devices.next()
    }

    /// Whether a device has to act now.
    #[inline]
    pub fn is_due(&self) -> bool {
        let clock = &self.parts.clock;
        self.parts.devices.is_due(|| clock.now())
    }

    /// Whether a device has to act now, or a function has work for `poll`.
    pub fn has_work(&self) -> bool {
        self.is_due() || self.parts.pci.iter().any(|function| function.has_work())
    }

    /// Has devices act whose deadline has come; whether any did.
    #[inline]
    pub fn catch_up(&mut self) -> bool {
        self.is_due() && self.parts.devices.run(self.parts.clock.now())
    }

    /// As [`SystemBus::catch_up`], also for deadlines that something else than the bus moved: bytes
    /// that a test put on a line.
    pub fn poll_devices(&mut self) -> bool {
        self.parts.devices.refresh();
        self.catch_up()
    }

    /// Rebuilds the ranges from what is decoded now.
    fn remap(&mut self) {
        let (mut ports, mut memory) = (Vec::new(), Vec::new());
        let parts = &self.parts;
        let placed = parts.pci.iter().flat_map(|function| function.placements());
        for place in parts.fixed.iter().copied().chain(placed) {
            match place.space {
                BusSpace::Pio => ports.push(place.range),
                BusSpace::Mmio => memory.push(place.range),
            }
        }
        for (function, d) in parts.pci.decoded() {
            let target = Target::Bar { function, bar: d.bar };
            let range = Range { start: d.base, size: d.size, target, offset: 0 };
            if d.io { &mut ports } else { &mut memory }.push(range);
        }
        self.ecam = parts.pci.iter().find_map(|function| function.ecam());
        self.memory.set(memory);
        self.ports.set(ports);
    }

    /// The board's reset line: every device, function and register begins anew. RAM stays.
    pub fn reset(&mut self) {
        let now = self.parts.clock.now();
        self.parts.pci.functions().for_each(|function| function.reset());
        self.parts.devices.reset(now);
        self.parts.reset_control.iter_mut().for_each(ResetControl::reset);
        self.parts.reset.take();
        self.config_address = 0;
        self.remap();
    }

    fn read(&mut self, (target, offset): (Target, u64), size: u8) -> Option<u64> {
        match target {
            Target::Bar { function, bar } => {
                self.parts.pci.function(function).map(|f| f.bar_read(bar, offset, size))
            }
            Target::Window { device, window } => {
                let now = self.parts.clock.now();
                let value = self.parts.devices.read((device, window), offset, size, now);
                self.reset_if_asked();
                value
            }
        }
    }

    fn write(&mut self, (target, offset): (Target, u64), size: u8, value: u64) {
        match target {
            Target::Bar { function, bar } => {
                if let Some(function) = self.parts.pci.function(function) {
                    function.bar_write(bar, offset, size, value);
                }
            }
            Target::Window { device, window } => {
                let now = self.parts.clock.now();
                self.parts.devices.write((device, window), offset, size, value, now);
                self.reset_if_asked();
            }
        }
    }

    fn reset_if_asked(&mut self) {
        if self.parts.reset.take() {
            self.reset();
        }
    }

    fn config_write(&mut self, bdf: u16, reg: u16, size: u8, value: u32) {
        if self.parts.pci.config_write(bdf, reg, size, value) {
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
            let value = enabled.then(|| self.parts.pci.config_read(bdf, reg, size));
            return Some(value.unwrap_or(ones(size) as u32));
        }
        if port == RST_CNT
            && size == 1
            && let Some(control) = self.parts.reset_control
        {
            return Some(control.read().into());
        }
        let found = self.ports.find(port.into(), size)?;
        self.read(found, size).map(|value| value as u32)
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
        if port == RST_CNT
            && size == 1
            && let Some(control) = &mut self.parts.reset_control
        {
            if control.write(value as u8) {
                self.reset();
            }
            return true;
        }
        let Some(found) = self.ports.find(port.into(), size) else { return false };
        self.write(found, size, value.into());
        true
    }

    /// The ECAM offset of an access that lies whole in the window.
    fn ecam(&self, addr: u64, size: u8) -> Option<u64> {
        let (base, len) = self.ecam?;
        let offset = addr.checked_sub(base)?;
        (offset < len && len - offset >= u64::from(size)).then_some(offset)
    }

    fn ram_read(&self, addr: u64, size: u8) -> Option<u64> {
        let mut bytes = [0; 8];
        let buf = bytes.get_mut(..usize::from(size))?;
        self.parts.ram.read(GuestAddr(addr), buf).then(|| u64::from_le_bytes(bytes))
    }

    fn ram_write(&self, addr: u64, size: u8, value: u64) -> bool {
        let bytes = value.to_le_bytes();
        bytes.get(..usize::from(size)).is_some_and(|b| self.parts.ram.write(GuestAddr(addr), b))
    }

    fn memory_read_whole(&mut self, addr: u64, size: u8) -> Option<u64> {
        if addr < self.parts.ram.size() {
            return self.ram_read(addr, size);
        }
        if let Some(offset) = self.ecam(addr, size) {
            return self.ecam_read(offset, size);
        }
        let found = self.memory.find(addr, size)?;
        self.read(found, size)
    }

    fn memory_write_whole(&mut self, addr: u64, size: u8, value: u64) -> bool {
        if addr < self.parts.ram.size() {
            return self.ram_write(addr, size, value);
        }
        if let Some(offset) = self.ecam(addr, size) {
            return self.ecam_write(offset, size, value);
        }
        let Some(found) = self.memory.find(addr, size) else { return false };
        self.write(found, size, value);
        true
    }

    fn ecam_read(&mut self, offset: u64, size: u8) -> Option<u64> {
        aligned_words(offset, size)?;
        let mut value = 0;
        for piece in (0..size).step_by(4) {
            let (bdf, reg) = ecam_target(offset + u64::from(piece));
            let word = self.parts.pci.config_read(bdf, reg, size.min(4));
            value |= u64::from(word) << (8 * piece);
        }
        Some(value)
    }

    fn ecam_write(&mut self, offset: u64, size: u8, value: u64) -> bool {
        if aligned_words(offset, size).is_none() {
            return false;
        }
        for piece in (0..size).step_by(4) {
            let (bdf, reg) = ecam_target(offset + u64::from(piece));
            self.config_write(bdf, reg, size.min(4), (value >> (8 * piece)) as u32);
        }
        true
    }

    /// A store that several threads may make at once, while none has the bus to itself: a doorbell.
    /// Whether it was one; if not, nothing has happened.
    pub fn doorbell(&self, addr: GuestAddr, size: u8) -> bool {
        if addr.0 < self.parts.ram.size()
            || !valid(size)
            || self.ecam(addr.0, size).is_some()
            || self.is_due()
        {
            return false;
        }
        let Some((Target::Bar { function, bar }, offset)) = self.memory.peek(addr.0, size) else {
            return false;
        };
        self.parts.pci.peek(function).is_some_and(|function| function.doorbell(bar, offset))
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
        self.catch_up();
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
        if !valid(size) || size > 4 {
            return;
        }
        self.catch_up();
        if self.port_write_whole(port, size, value) || size == 1 {
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
        self.catch_up();
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
        if !valid(size) {
            return;
        }
        self.catch_up();
        if self.memory_write_whole(addr.0, size, value) || size == 1 {
            return;
        }
        for i in 0..size {
            let at = GuestAddr(addr.0.wrapping_add(u64::from(i)));
            self.mmio_write(at, 1, value >> (8 * u32::from(i)) & 0xff);
        }
    }
}
