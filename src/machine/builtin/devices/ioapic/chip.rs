//! The registers and inputs of the I/O APIC, and the messages they make.

use super::bits::*;

/// Inputs as an array's length.
const ENTRIES: usize = INPUTS as usize;

/// An interrupt message: address and data of a memory write.
pub type Message = (u64, u32);

/// Messages of one operation: at most one for each entry.
pub type Messages = Vec<Message>;

/// The chip. Operations that can start deliveries append them to a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chip {
    select: u8,
    id: u32,
    arbitration: u32,
    /// Electrical levels of the inputs.
    pins: u32,
    entries: [u64; ENTRIES],
}

impl Default for Chip {
    fn default() -> Self {
        Self { select: 0, id: 0, arbitration: 0, pins: 0, entries: [MASK; ENTRIES] }
    }
}

impl Chip {
    /// The board's reset: everything but the levels at the inputs.
    pub fn reset(&mut self) {
        *self = Self { pins: self.pins, ..Self::default() };
    }

    /// The level at input `line`. An edge is an interrupt now or never: on a masked input it is
    /// ignored (§3.2.4, interrupt mask).
    pub fn set_pin(&mut self, line: u32, high: bool, out: &mut Messages) {
        let Some(entry) = self.entries.get(line as usize).copied() else { return };
        let bit = 1 << line;
        if (self.pins & bit != 0) == high {
            return;
        }
        self.pins ^= bit;
        if is_level(entry) {
            self.serve_level(line, out);
        } else if high != (entry & INTPOL != 0) && entry & MASK == 0 {
            out.push(message(entry));
        }
    }

    /// A local APIC ended an interrupt of this vector: a level that is still there is delivered
    /// again.
    pub fn end_of_interrupt(&mut self, vector: u8, out: &mut Messages) {
        for (line, entry) in (0..).zip(self.entries) {
            if entry & REMOTE_IRR != 0 && entry & VECTOR == u64::from(vector) {
                self.update(line, |entry| entry & !REMOTE_IRR);
                self.serve_level(line, out);
            }
        }
    }

    /// IOREGSEL.
    pub fn selected(&self) -> u8 {
        self.select
    }

    /// Writes IOREGSEL.
    pub fn select(&mut self, register: u8) {
        self.select = register;
    }

    /// Reads the selected register; reserved ones are 0.
    pub fn read(&self) -> u32 {
        match self.select {
            IOAPICID => self.id,
            IOAPICVER => VERSION,
            IOAPICARB => self.arbitration,
            other => match redirection(other) {
                Some((line, high)) => {
                    let entry = self.entries.get(line as usize).copied().unwrap_or(0);
                    (entry >> if high { 32 } else { 0 }) as u32
                }
                None => 0,
            },
        }
    }

    /// Writes the selected register; read-only and reserved ones stay.
    pub fn write(&mut self, value: u32, out: &mut Messages) {
        if self.select == IOAPICID {
            self.id = value & ID_MASK;
            // §3.2.3: loaded whenever the identification register is.
            self.arbitration = self.id;
        } else if let Some((line, high)) = redirection(self.select) {
            self.write_entry(line, high, value, out);
        }
    }

    fn write_entry(&mut self, line: u32, high: bool, value: u32, out: &mut Messages) {
        let (shift, half) = if high { (32, u64::MAX << 32) } else { (0, u64::MAX >> 32) };
        let writable = ENTRY_WRITABLE & half;
        self.update(line, |entry| {
            let entry = entry & !writable | u64::from(value) << shift & writable;
            // No EOI would ever clear it.
            if is_level(entry) { entry } else { entry & !REMOTE_IRR }
        });
        self.serve_level(line, out);
    }

    /// Delivers a level that is active, unmasked, and not at a local APIC already.
    fn serve_level(&mut self, line: u32, out: &mut Messages) {
        let Some(entry) = self.entries.get(line as usize).copied() else { return };
        let active = (self.pins >> line & 1 != 0) != (entry & INTPOL != 0);
        if active && is_level(entry) && entry & (MASK | REMOTE_IRR) == 0 {
            out.push(message(entry));
            self.update(line, |entry| entry | REMOTE_IRR);
        }
    }

    fn update(&mut self, line: u32, change: impl FnOnce(u64) -> u64) {
        if let Some(entry) = self.entries.get_mut(line as usize) {
            *entry = change(*entry);
        }
    }
}

/// The input and half (high?) that register `select` belongs to.
fn redirection(select: u8) -> Option<(u32, bool)> {
    let index = u32::from(select.checked_sub(IOREDTBL)?);
    (index / 2 < INPUTS).then_some((index / 2, index % 2 != 0))
}

/// Whether the entry is level triggered: SMI, NMI, INIT and ExtINT are always edges (§3.2.4).
fn is_level(entry: u64) -> bool {
    let mode = (entry >> DELMOD_SHIFT) as u8 & 7;
    entry & TRIGGER_LEVEL != 0 && matches!(mode, DELMOD_FIXED | DELMOD_LOWEST)
}

fn message(entry: u64) -> Message {
    let logical = if entry & DESTMOD != 0 { MESSAGE_LOGICAL } else { 0 };
    let addr = MESSAGE_BASE | (entry >> DEST_SHIFT) << MESSAGE_DEST_SHIFT | logical;
    let mode = (entry >> DELMOD_SHIFT) as u32 & 7;
    let trigger = if is_level(entry) { MESSAGE_LEVEL | MESSAGE_ASSERT } else { 0 };
    (addr, trigger | mode << DELMOD_SHIFT | (entry & VECTOR) as u32)
}
