//! Giving BARs their addresses, as firmware does, and opening the bridges on the way.

use super::config::ConfigAccess;
use super::function::{Bar, BarKind, COMMAND_IO, COMMAND_MASTER, COMMAND_MEMORY, Function, reg};
use super::scan::scan;
use crate::base::Result;
use crate::machine::Bus;

/// I/O ports for BARs.
const IO_WINDOW: (u64, u64) = (0xc000, 0x1_0000);
/// Memory below 4 GiB for BARs: above guest RAM and q35's configuration space, below the APICs.
const MEMORY32_WINDOW: (u64, u64) = (0xe000_0000, 0xfec0_0000);
/// Memory above 4 GiB for BARs, within 40 address bits.
const MEMORY64_WINDOW: (u64, u64) = (0x80_0000_0000, 0x100_0000_0000);

/// Granule of a bridge's I/O window (PCI-to-PCI bridge 1.2 §3.2.5.6).
const BRIDGE_IO_GRANULE: u64 = 4096;
/// Granule of a bridge's memory windows (§3.2.5.8).
const BRIDGE_MEMORY_GRANULE: u64 = 1 << 20;

/// Finds every function of the machine. Unless firmware (or an earlier call) has done it, every
/// BAR gets an address and every bridge the windows for what is behind it; decoding stays off
/// until [`Function::enable`]. A function that lies is listed with its `fault`.
///
/// # Errors
/// A machine error when the bus cannot be walked to an end.
pub fn enumerate(bus: &mut dyn Bus, access: ConfigAccess) -> Result<Vec<Function>> {
    let mut functions = scan(bus, access)?;
    let configured = functions.iter().any(|function| is_configured(bus, function));
    if !configured {
        let mut cursors = Cursors {
            io: Cursor::new(IO_WINDOW),
            memory32: Cursor::new(MEMORY32_WINDOW),
            memory64: Cursor::new(MEMORY64_WINDOW),
        };
        assign_bus(bus, &mut functions, 0, &mut cursors);
    }
    Ok(functions)
}

/// Whether the function decodes a BAR, which only somebody who assigned addresses turns on.
fn is_configured(bus: &mut dyn Bus, function: &Function) -> bool {
    let addressed = function.bars.iter().flatten().any(|bar| bar.addr != 0);
    addressed && function.read16(bus, reg::COMMAND) & (COMMAND_IO | COMMAND_MEMORY) != 0
}

/// The next free address of a window.
struct Cursor {
    next: u64,
    end: u64,
}

impl Cursor {
    fn new((next, end): (u64, u64)) -> Self {
        Self { next, end }
    }

    /// `size` bytes, aligned to their size, or `None` when the window is full.
    fn take(&mut self, size: u64) -> Option<u64> {
        let addr = self.next.checked_next_multiple_of(size)?;
        let end = addr.checked_add(size).filter(|end| *end <= self.end)?;
        self.next = end;
        Some(addr)
    }

    fn align(&mut self, granule: u64) -> u64 {
        self.next = self.next.next_multiple_of(granule).min(self.end);
        self.next
    }
}

struct Cursors {
    io: Cursor,
    memory32: Cursor,
    memory64: Cursor,
}

/// Assigns what is on bus `number`, then what is behind its bridges.
fn assign_bus(bus: &mut dyn Bus, functions: &mut [Function], number: u8, cursors: &mut Cursors) {
    let behind_bridge = number != 0;
    for function in functions.iter_mut().filter(|f| f.address.bus == number) {
        assign_function(bus, function, cursors, behind_bridge);
    }
    for index in 0..functions.len() {
        let secondary =
            functions[index].secondary.filter(|_| functions[index].address.bus == number);
        // Numbers grow along the walk, so that this ends.
        let Some(secondary) = secondary.filter(|secondary| *secondary > number) else {
            continue;
        };
        let io = cursors.io.align(BRIDGE_IO_GRANULE);
        let memory32 = cursors.memory32.align(BRIDGE_MEMORY_GRANULE);
        let memory64 = cursors.memory64.align(BRIDGE_MEMORY_GRANULE);
        assign_bus(bus, functions, secondary, cursors);
        let bridge = &functions[index];
        open_io(bus, bridge, io, cursors.io.align(BRIDGE_IO_GRANULE));
        open_memory(bus, bridge, memory32, cursors.memory32.align(BRIDGE_MEMORY_GRANULE));
        open_prefetch(bus, bridge, memory64, cursors.memory64.align(BRIDGE_MEMORY_GRANULE));
        bridge.command(bus, COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER, 0);
    }
}

fn assign_function(
    bus: &mut dyn Bus,
    function: &mut Function,
    cursors: &mut Cursors,
    behind: bool,
) {
    for index in 0..function.bars.len() {
        let Some(bar) = function.bars[index] else {
            continue;
        };
        let cursor = match bar.kind {
            BarKind::Io => &mut cursors.io,
            // A bridge's only 64-bit window is the prefetchable one.
            BarKind::Memory64 if bar.prefetchable || !behind => &mut cursors.memory64,
            BarKind::Memory32 | BarKind::Memory64 => &mut cursors.memory32,
        };
        match cursor.take(bar.size) {
            Some(addr) => {
                write_bar(bus, function, index, bar.kind, addr);
                function.bars[index] = Some(Bar { addr, ..bar });
            }
            None => {
                let text = format!("BAR {index} of {} bytes does not fit its window", bar.size);
                function.fault.get_or_insert(text);
                function.bars[index] = Some(Bar { addr: 0, ..bar });
            }
        }
    }
}

fn write_bar(bus: &mut dyn Bus, function: &Function, index: usize, kind: BarKind, addr: u64) {
    let offset = reg::BAR0 + 4 * index as u16;
    function.write(bus, offset, 4, addr as u32);
    if kind == BarKind::Memory64 {
        function.write(bus, offset + 4, 4, (addr >> 32) as u32);
    }
}

/// Opens a bridge's I/O window for `start..end`; base above limit closes it.
fn open_io(bus: &mut dyn Bus, bridge: &Function, start: u64, end: u64) {
    let (base, limit) = if start < end { (start, end - 1) } else { (0xf000, 0) };
    let low = (base >> 8 & 0xf0) | (limit & 0xf000);
    bridge.write(bus, reg::IO_BASE, 2, low as u32);
    bridge.write(bus, reg::IO_BASE_UPPER, 4, 0);
}

/// Opens a bridge's memory window for `start..end`.
fn open_memory(bus: &mut dyn Bus, bridge: &Function, start: u64, end: u64) {
    bridge.write(bus, reg::MEMORY_BASE, 4, memory_window(start, end));
}

/// Opens a bridge's prefetchable window, which has 64 bits, for `start..end`.
fn open_prefetch(bus: &mut dyn Bus, bridge: &Function, start: u64, end: u64) {
    bridge.write(bus, reg::PREFETCH_BASE, 4, memory_window(start, end));
    bridge.write(bus, reg::PREFETCH_BASE_UPPER, 4, (start >> 32) as u32);
    bridge.write(bus, reg::PREFETCH_LIMIT_UPPER, 4, (end.saturating_sub(1) >> 32) as u32);
}

/// Base (low half) and limit (high half) registers: address bits 31..20 each.
fn memory_window(start: u64, end: u64) -> u32 {
    if start >= end {
        return 0x0000_fff0;
    }
    let limit = (end - 1) as u32 & 0xfff0_0000;
    limit | (start as u32 & 0xfff0_0000) >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_aligns_to_the_size_and_knows_its_end() {
        let mut cursor = Cursor::new((0xc010, 0x1_0000));
        assert_eq!(cursor.take(64), Some(0xc040));
        assert_eq!(cursor.take(0x4000), None);
        assert_eq!(cursor.take(1 << 63), None);
        assert_eq!(cursor.take(4), Some(0xc080));
    }

    #[test]
    fn bridge_windows_are_encoded_inclusively() {
        assert_eq!(memory_window(0xe010_0000, 0xe030_0000), 0xe020_e010);
        let closed = memory_window(0xe000_0000, 0xe000_0000);
        assert!((closed & 0xfff0) > (closed >> 16), "base above limit");
    }
}
