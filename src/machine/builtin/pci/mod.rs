//! PCI: functions, their configuration space, and the bus they sit on.

pub mod bits;
pub mod config;
pub mod interrupts;

use std::os::fd::RawFd;

use crate::base::Result;
use config::{ConfigSpace, Decoded};

/// Device numbers on a bus.
pub const SLOTS: u8 = 32;

/// A function on the bus. Register accesses never cross an aligned 32-bit word.
pub trait PciFunction {
    /// Its header, for what it decodes.
    fn config(&self) -> &ConfigSpace;
    /// Reads configuration space.
    fn config_read(&mut self, reg: u8, size: u8) -> u32 {
        self.config().read(reg, size)
    }
    /// Writes configuration space.
    fn config_write(&mut self, reg: u8, size: u8, value: u32);
    /// Reads 1, 2, 4 or 8 bytes that lie within a BAR.
    fn bar_read(&mut self, bar: u8, offset: u64, size: u8) -> u64;
    /// Writes 1, 2, 4 or 8 bytes that lie within a BAR.
    fn bar_write(&mut self, bar: u8, offset: u64, size: u8, value: u64);
    /// Makes progress with work that needs the test thread; whether there was any.
    ///
    /// # Errors
    /// The device died.
    fn poll(&mut self) -> Result<bool> {
        Ok(false)
    }
    /// Adds the descriptors whose readiness means that `poll` has work.
    fn wait_fds(&mut self, fds: &mut Vec<RawFd>) {
        let _ = fds;
    }
    /// Whether nothing is in flight and nothing waits to be taken.
    fn is_idle(&mut self) -> bool {
        true
    }
    /// Why the device stopped until it is reset, when it did.
    fn fault(&mut self) -> Option<String> {
        None
    }
}

/// Bus 0: at most one single-function device in each slot.
#[derive(Default)]
pub struct PciBus {
    slots: Vec<(u8, Box<dyn PciFunction>)>,
}

impl PciBus {
    /// Plugs a device in; one already in that slot stays in front of it.
    pub fn plug(&mut self, slot: u8, function: Box<dyn PciFunction>) {
        self.slots.push((slot, function));
        self.slots.sort_by_key(|(slot, _)| *slot);
    }

    /// The functions, in slot order.
    pub fn functions(&mut self) -> impl Iterator<Item = &mut Box<dyn PciFunction>> {
        self.slots.iter_mut().map(|(_, function)| function)
    }

    /// The `index`-th function in slot order.
    pub fn function(&mut self, index: usize) -> Option<&mut Box<dyn PciFunction>> {
        self.slots.get_mut(index).map(|(_, function)| function)
    }

    fn find(&mut self, bdf: u16) -> Option<&mut Box<dyn PciFunction>> {
        let slot = self.slots.iter_mut().find(|(slot, _)| u16::from(*slot) << 3 == bdf);
        slot.map(|(_, function)| function)
    }

    /// Reads the configuration space of bus/device/function `bdf`: all ones where there is none,
    /// 0 in the extended space, which these conventional functions lack.
    pub fn config_read(&mut self, bdf: u16, reg: u16, size: u8) -> u32 {
        let ones = (u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 4)))) as u32;
        match (self.find(bdf), u8::try_from(reg)) {
            (Some(function), Ok(reg)) => function.config_read(reg, size),
            (Some(_), Err(_)) => 0,
            (None, _) => ones,
        }
    }

    /// Writes configuration space; whether what the bus decodes may have changed.
    pub fn config_write(&mut self, bdf: u16, reg: u16, size: u8, value: u32) -> bool {
        let (Some(function), Ok(reg)) = (self.find(bdf), u8::try_from(reg)) else { return false };
        function.config_write(reg, size, value);
        reg < bits::PCI_HEADER_END
    }

    /// Everything decoded now, as (function index, range), in slot and BAR order.
    pub fn decoded(&self) -> impl Iterator<Item = (usize, Decoded)> + '_ {
        let slots = self.slots.iter().enumerate();
        slots.flat_map(|(i, (_, function))| function.config().decoded().map(move |d| (i, d)))
    }
}
