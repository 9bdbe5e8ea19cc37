//! Guest memory as a test thread reaches it: RAM in place, anything else as accesses of the bus.

use std::sync::Arc;

use crate::base::{GuestAddr, Result};
use crate::machine::{GuestRam, Machine};
use crate::trace::{MemoryEvent, MemoryOp, PayloadRef, Trace};

/// Bytes moved at once.
const CHUNK_BYTES: u64 = 64 << 10;

/// Bytes of one event that may lie outside RAM: they take an access for every four.
const OUTSIDE_BYTES_MAX: u64 = 1 << 20;

/// Bytes of a difference that are shown.
const SHOWN: usize = 16;

/// What came of an event of guest memory.
#[derive(Debug, PartialEq, Eq)]
pub enum Done {
    /// Written, or as recorded.
    Right,
    /// Too much of it lies outside RAM, or its data was not recorded.
    LeftOut,
    /// It holds something else: what was expected, and what there is.
    Different(String, String),
}

/// Moves bytes for events.
#[derive(Debug, Default)]
pub struct Memory {
    recorded: Vec<u8>,
    found: Vec<u8>,
}

impl Memory {
    /// Carries out an event.
    ///
    /// # Errors
    /// A payload that cannot be read; a machine without memory.
    pub fn carry_out(
        &mut self,
        event: &MemoryEvent,
        trace: &Trace,
        machine: &mut dyn Machine,
    ) -> Result<Done> {
        let ram = machine.ram()?;
        let end = event.addr.saturating_add(event.len);
        let outside = end.saturating_sub(event.addr.max(ram.size()));
        let absent = event.op != MemoryOp::Fill && event.payload == PayloadRef::Absent;
        if outside > OUTSIDE_BYTES_MAX || absent {
            return Ok(Done::LeftOut);
        }
        let mut at = 0;
        while at < event.len {
            let len = (event.len - at).min(CHUNK_BYTES);
            let addr = event.addr.saturating_add(at);
            self.recorded.clear();
            self.recorded.resize(len as usize, event.fill);
            if event.op != MemoryOp::Fill {
                trace.read_payload(event.payload, event.len, at, &mut self.recorded)?;
            }
            match event.op {
                MemoryOp::Write | MemoryOp::Fill => store(&ram, machine, addr, &self.recorded)?,
                MemoryOp::Read => {
                    self.found.clear();
                    self.found.resize(len as usize, 0);
                    load(&ram, machine, addr, &mut self.found)?;
                    if let Some(different) = self.difference(addr) {
                        return Ok(different);
                    }
                }
            }
            at += len;
        }
        Ok(Done::Right)
    }

    /// Compares the range of an event in two machines; what they hold is shown, the first's first.
    ///
    /// # Errors
    /// A machine without memory.
    pub fn compare(
        &mut self,
        event: &MemoryEvent,
        first: &mut dyn Machine,
        second: &mut dyn Machine,
    ) -> Result<Done> {
        let rams = [first.ram()?, second.ram()?];
        let end = event.addr.saturating_add(event.len);
        let least = rams.iter().map(|ram| ram.size()).min().unwrap_or(0);
        if end.saturating_sub(event.addr.max(least)) > OUTSIDE_BYTES_MAX {
            return Ok(Done::LeftOut);
        }
        let [ours, theirs] = rams;
        let mut at = 0;
        while at < event.len {
            let len = (event.len - at).min(CHUNK_BYTES);
            let addr = event.addr.saturating_add(at);
            for buf in [&mut self.recorded, &mut self.found] {
                buf.clear();
                buf.resize(len as usize, 0);
            }
            load(&ours, first, addr, &mut self.recorded)?;
            load(&theirs, second, addr, &mut self.found)?;
            if let Some(different) = self.difference(addr) {
                return Ok(different);
            }
            at += len;
        }
        Ok(Done::Right)
    }

    fn difference(&self, addr: u64) -> Option<Done> {
        let mut pairs = self.recorded.iter().zip(&self.found);
        let at = pairs.position(|(recorded, found)| recorded != found)?;
        let show = |bytes: &[u8]| {
            let shown = bytes.get(at..).unwrap_or_default().iter().take(SHOWN);
            let bytes: Vec<String> = shown.map(|byte| format!("{byte:02x}")).collect();
            format!("{} at {:#x}", bytes.join(" "), addr.saturating_add(at as u64))
        };
        Some(Done::Different(show(&self.recorded), show(&self.found)))
    }
}

/// Accesses of the bus that make up a range: of 4 bytes where they fit.
fn pieces(addr: u64, len: usize) -> impl Iterator<Item = (usize, u8)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let left = len.checked_sub(at).filter(|left| *left > 0)?;
        let here = addr.wrapping_add(at as u64);
        let size = match (here % 4, left) {
            (0, 4..) => 4,
            (0 | 2, 2..) => 2,
            _ => 1,
        };
        let piece = (at, size as u8);
        at += size;
        Some(piece)
    })
}

/// How many bytes from `addr` on are RAM.
fn inside(ram: &Arc<GuestRam>, addr: u64, len: usize) -> usize {
    ram.size().saturating_sub(addr).min(len as u64) as usize
}

fn store(ram: &Arc<GuestRam>, machine: &mut dyn Machine, addr: u64, bytes: &[u8]) -> Result<()> {
    let (here, there) = bytes.split_at(inside(ram, addr, bytes.len()));
    ram.write(GuestAddr(addr), here);
    let addr = addr.saturating_add(here.len() as u64);
    for (at, size) in pieces(addr, there.len()) {
        let mut value = [0; 8];
        let piece = there.get(at..at + usize::from(size)).unwrap_or_default();
        value.iter_mut().zip(piece).for_each(|(to, from)| *to = *from);
        let addr = GuestAddr(addr.saturating_add(at as u64));
        machine.bus()?.mmio_write(addr, size, u64::from_le_bytes(value));
    }
    Ok(())
}

fn load(ram: &Arc<GuestRam>, machine: &mut dyn Machine, addr: u64, buf: &mut [u8]) -> Result<()> {
    let (here, there) = buf.split_at_mut(inside(ram, addr, buf.len()));
    ram.read(GuestAddr(addr), here);
    let addr = addr.saturating_add(here.len() as u64);
    for (at, size) in pieces(addr, there.len()) {
        let here = GuestAddr(addr.saturating_add(at as u64));
        let value = machine.bus()?.mmio_read(here, size).to_le_bytes();
        let piece = there.get_mut(at..at + usize::from(size)).unwrap_or_default();
        piece.iter_mut().zip(value).for_each(|(to, from)| *to = from);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_outside_ram_is_made_of_aligned_accesses() {
        let sizes = |addr, len| pieces(addr, len).map(|(_, size)| size).collect::<Vec<_>>();
        assert_eq!(sizes(0x1000, 9), [4, 4, 1]);
        assert_eq!(sizes(0x1001, 8), [1, 2, 4, 1]);
        assert_eq!(sizes(0x1002, 3), [2, 1]);
        assert!(sizes(0x1003, 0).is_empty());
        assert_eq!(sizes(u64::MAX, 2), [1, 1]);
    }
}
