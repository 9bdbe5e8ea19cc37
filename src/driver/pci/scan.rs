//! Finding the functions of a machine, and sizing their BARs.

use super::config::{ConfigAccess, PciAddress};
use super::function::{
    Bar, BarKind, COMMAND_IO, COMMAND_MEMORY, Function, HEADER_BRIDGE, HEADER_ENDPOINT,
    HEADER_MULTIFUNCTION, reg,
};
use crate::base::{Error, Result};
use crate::machine::Bus;

/// Functions of one machine at most; a bus on which everything answers is a lie.
const FUNCTIONS_MAX: usize = 1024;

/// Bridges behind bridges at most.
const DEPTH_MAX: usize = 8;

/// Base class and sub-class of a PCI-to-PCI bridge.
pub const CLASS_PCI_BRIDGE: u16 = 0x0604;
/// Base class of bridges, whose BARs are not for us.
const CLASS_BRIDGE: u16 = 0x06;

/// Finds every function, in the order of a depth-first walk; gives bridges their bus numbers
/// where firmware has not.
///
/// # Errors
/// A machine error when there are more functions, buses or levels than a machine can have.
pub fn scan(bus: &mut dyn Bus, access: ConfigAccess) -> Result<Vec<Function>> {
    let mut scan = Scan { bus, access, last_bus: 0, found: Vec::new() };
    scan.bus_number(0, 0)?;
    Ok(scan.found)
}

struct Scan<'a> {
    bus: &'a mut dyn Bus,
    access: ConfigAccess,
    last_bus: u8,
    found: Vec<Function>,
}

impl Scan<'_> {
    fn bus_number(&mut self, number: u8, depth: usize) -> Result<()> {
        for device in 0..32 {
            for function in 0..8 {
                let at = PciAddress { bus: number, device, function };
                let header = self.function(at, depth)?;
                let single = header.is_none_or(|header| header & HEADER_MULTIFUNCTION == 0);
                if function == 0 && single {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Looks at one function; its header type if there is one.
    fn function(&mut self, at: PciAddress, depth: usize) -> Result<Option<u8>> {
        let vendor = self.access.read(self.bus, at, reg::VENDOR_ID, 2) as u16;
        if vendor == u16::MAX || vendor == 0 {
            return Ok(None);
        }
        let mut function = Function {
            access: self.access,
            address: at,
            vendor,
            device: self.access.read(self.bus, at, reg::DEVICE_ID, 2) as u16,
            class: self.access.read(self.bus, at, reg::CLASS, 2) as u16,
            interface: self.access.read(self.bus, at, reg::INTERFACE, 1) as u8,
            revision: self.access.read(self.bus, at, reg::REVISION, 1) as u8,
            header: self.access.read(self.bus, at, reg::HEADER_TYPE, 1) as u8,
            pin: self.access.read(self.bus, at, reg::INTERRUPT_PIN, 1) as u8,
            bars: [None; 6],
            secondary: None,
            fault: None,
        };
        if self.found.len() == FUNCTIONS_MAX {
            return Err(function.error(format_args!("more than {FUNCTIONS_MAX} functions answer")));
        }
        let header = function.header;
        let layout = header & !HEADER_MULTIFUNCTION;
        if function.class == CLASS_PCI_BRIDGE && layout == HEADER_BRIDGE {
            self.bridge(function, depth)?;
        } else {
            if layout == HEADER_ENDPOINT && function.class >> 8 != CLASS_BRIDGE {
                size_bars(self.bus, &mut function);
            }
            self.found.push(function);
        }
        Ok(Some(header))
    }

    /// Numbers the bus behind a bridge and walks it. Until the walk is over the bridge forwards
    /// all higher numbers, so that bridges behind it can be reached.
    fn bridge(&mut self, mut bridge: Function, depth: usize) -> Result<()> {
        if depth == DEPTH_MAX {
            return Err(bridge.error(format_args!("more than {DEPTH_MAX} bridges behind bridges")));
        }
        let Some(mut secondary) = self.last_bus.checked_add(1) else {
            return Err(bridge.error("no bus number is left for the bus behind it"));
        };
        let firmware = bridge.read(self.bus, reg::SECONDARY_BUS, 1) as u8;
        // What firmware numbered stays, as long as the numbers still grow along the walk.
        if firmware > self.last_bus {
            secondary = firmware;
        }
        size_bars(self.bus, &mut bridge);
        bridge.write(self.bus, reg::PRIMARY_BUS, 1, u32::from(bridge.address.bus));
        bridge.write(self.bus, reg::SECONDARY_BUS, 1, u32::from(secondary));
        bridge.write(self.bus, reg::SUBORDINATE_BUS, 1, 0xff);
        bridge.secondary = Some(secondary);
        self.last_bus = secondary;
        self.found.push(bridge.clone());
        self.bus_number(secondary, depth + 1)?;
        bridge.write(self.bus, reg::SUBORDINATE_BUS, 1, u32::from(self.last_bus));
        Ok(())
    }
}

/// Sizes the BARs (PCI 3.0 §6.2.5.1), with decoding off, and leaves them as they were.
fn size_bars(bus: &mut dyn Bus, function: &mut Function) {
    let command = function.read16(bus, reg::COMMAND);
    function.command(bus, 0, COMMAND_IO | COMMAND_MEMORY);
    let registers = function.bar_registers();
    let mut index = 0;
    while index < registers {
        match size_bar(bus, function, index, registers) {
            Ok(bar) => {
                function.bars[index] = bar;
                let wide = bar.is_some_and(|bar| bar.kind == BarKind::Memory64);
                index += if wide { 2 } else { 1 };
            }
            Err(fault) => {
                function.fault.get_or_insert(fault);
                index += 1;
            }
        }
    }
    function.write(bus, reg::COMMAND, 2, u32::from(command));
}

/// Sizes BAR `index` of `registers`: `None` when the register is not there, a text when it cannot be.
fn size_bar(
    bus: &mut dyn Bus,
    function: &Function,
    index: usize,
    registers: usize,
) -> Result<Option<Bar>, String> {
    let (mask, value) = probe_bar(bus, function, index);
    if mask == 0 {
        return Ok(None);
    }
    if mask & 1 != 0 {
        // The upper half may be hard-wired to 0: x86 has 16 bits of I/O space.
        let size = size_of_mask(u64::from(mask & 0xfffc), 16, index)?;
        let addr = u64::from(value & 0xfffc);
        return Ok(Some(Bar { kind: BarKind::Io, prefetchable: false, size, addr }));
    }
    let prefetchable = mask & 8 != 0;
    match (mask >> 1) & 3 {
        0 => {
            let size = size_of_mask(u64::from(mask & !0xf), 32, index)?;
            let addr = u64::from(value & !0xf);
            Ok(Some(Bar { kind: BarKind::Memory32, prefetchable, size, addr }))
        }
        2 if index + 1 < registers => {
            let (high_mask, high) = probe_bar(bus, function, index + 1);
            let wide = u64::from(high_mask) << 32 | u64::from(mask & !0xf);
            let size = size_of_mask(wide, 64, index)?;
            let addr = u64::from(high) << 32 | u64::from(value & !0xf);
            Ok(Some(Bar { kind: BarKind::Memory64, prefetchable, size, addr }))
        }
        kind => Err(format!("BAR {index} is of type {kind}, which does not exist there")),
    }
}

/// Writes all ones to a BAR, reads what sticks, restores it: (mask, former value).
fn probe_bar(bus: &mut dyn Bus, function: &Function, index: usize) -> (u32, u32) {
    let offset = reg::BAR0 + 4 * index as u16;
    let value = function.read(bus, offset, 4);
    function.write(bus, offset, 4, u32::MAX);
    let mask = function.read(bus, offset, 4);
    function.write(bus, offset, 4, value);
    (mask, value)
}

/// The size that a mask of `bits` address bits stands for: its lowest bit, provided that every
/// bit above is set as well.
fn size_of_mask(mask: u64, bits: u32, index: usize) -> Result<u64, String> {
    let all = u64::MAX >> (64 - bits);
    let size = mask & mask.wrapping_neg();
    if size == 0 || mask != all & !(size - 1) {
        return Err(format!("BAR {index} has the impossible size mask {mask:#x}"));
    }
    Ok(size)
}

/// The error for a machine that has no such function.
pub fn missing(what: &str, index: usize, found: &[Function]) -> Error {
    let names: Vec<_> = found.iter().map(Function::name).collect();
    let list = if names.is_empty() { "none at all".to_owned() } else { names.join(", ") };
    Error::machine(format!("the machine has no {what} number {index}; PCI functions found: {list}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_give_sizes_or_are_refused() {
        assert_eq!(size_of_mask(0xffff_f000, 32, 0), Ok(4096));
        assert_eq!(size_of_mask(0xffc0, 16, 0), Ok(64));
        assert_eq!(size_of_mask(1 << 63, 64, 0), Ok(1 << 63));
        assert!(size_of_mask(0, 32, 0).is_err());
        assert!(size_of_mask(0xf0ff_f000, 32, 1).unwrap_err().contains("BAR 1"));
    }
}
