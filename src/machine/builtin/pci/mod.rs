//! PCI: functions, their configuration space, and the bus they sit on.

pub mod bits;
pub mod config;
pub mod interrupts;

use std::os::fd::RawFd;

use super::bus::windows::Placement;
use crate::base::{Error, Result};
use config::{ConfigSpace, Decoded};

/// Device numbers on a bus.
pub const SLOTS: u8 = 32;

/// Device and function number in one byte.
pub const fn devfn(slot: u8, function: u8) -> u8 {
    slot << 3 | function & 7
}

/// A function on the bus. Register accesses never cross an aligned 32-bit word.
pub trait PciFunction: Send + Sync {
    /// Its header, for what it decodes.
    fn config(&self) -> &ConfigSpace;
    /// Reads configuration space.
    fn config_read(&mut self, reg: u8, size: u8) -> u32 {
        self.config().read(reg, size)
    }
    /// Writes configuration space.
    fn config_write(&mut self, reg: u8, size: u8, value: u32);
    /// Whether a write to register `reg` may change what the function decodes.
    fn remaps(&self, reg: u8) -> bool {
        reg < bits::PCI_HEADER_END
    }
    /// Windows of devices that the function has answer at places its registers choose.
    fn placements(&self) -> Vec<Placement> {
        Vec::new()
    }
    /// Base and length of the memory-mapped configuration space, when the function opens one.
    fn ecam(&self) -> Option<(u64, u64)> {
        None
    }
    /// Reads 1, 2, 4 or 8 bytes that lie within a BAR.
    fn bar_read(&mut self, bar: u8, offset: u64, size: u8) -> u64;
    /// Writes 1, 2, 4 or 8 bytes that lie within a BAR.
    fn bar_write(&mut self, bar: u8, offset: u64, size: u8, value: u64);
    /// A write that several threads may make at once, while nothing else reaches the function.
    /// Whether it was one; if not, nothing has happened and `bar_write` has to do it.
    fn doorbell(&self, bar: u8, offset: u64) -> bool {
        let _ = (bar, offset);
        false
    }
    /// The board's reset line.
    fn reset(&mut self);
    /// Whether `poll` would find work. May say so when there is none.
    fn has_work(&self) -> bool {
        false
    }
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
    /// A disk has `bytes` from now on.
    ///
    /// # Errors
    /// It is no disk, or cannot have that size.
    fn resize(&mut self, bytes: u64) -> Result<()> {
        Err(Error::usage(format!("no disk to make {bytes} bytes long")))
    }
}

/// Bus 0.
#[derive(Default)]
pub struct PciBus {
    functions: Vec<(u8, Box<dyn PciFunction>)>,
}

impl PciBus {
    /// Plugs a function in at `devfn`; one that is already there stays in front of it.
    pub fn plug(&mut self, devfn: u8, function: Box<dyn PciFunction>) {
        self.functions.push((devfn, function));
        self.functions.sort_by_key(|(devfn, _)| *devfn);
    }

    /// The functions, in the order of their numbers.
    pub fn functions(&mut self) -> impl Iterator<Item = &mut Box<dyn PciFunction>> {
        self.functions.iter_mut().map(|(_, function)| function)
    }

    /// The functions, only to be looked at.
    pub fn iter(&self) -> impl Iterator<Item = &dyn PciFunction> {
        self.functions.iter().map(|(_, function)| &**function)
    }

    /// The `index`-th function.
    pub fn function(&mut self, index: usize) -> Option<&mut Box<dyn PciFunction>> {
        self.functions.get_mut(index).map(|(_, function)| function)
    }

    /// The function at `devfn`.
    pub fn at(&mut self, devfn: u8) -> Option<&mut Box<dyn PciFunction>> {
        self.find(devfn.into())
    }

    /// The `index`-th function, only to be looked at.
    pub fn peek(&self, index: usize) -> Option<&dyn PciFunction> {
        self.functions.get(index).map(|(_, function)| &**function)
    }

    fn find(&mut self, bdf: u16) -> Option<&mut Box<dyn PciFunction>> {
        let found = self.functions.iter_mut().find(|(devfn, _)| u16::from(*devfn) == bdf);
        found.map(|(_, function)| function)
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
        function.remaps(reg)
    }

    /// Everything decoded now, as (function index, range), in the order of functions and BARs.
    pub fn decoded(&self) -> impl Iterator<Item = (usize, Decoded)> + '_ {
        let functions = self.iter().enumerate();
        functions.flat_map(|(i, function)| function.config().decoded().map(move |d| (i, d)))
    }
}
