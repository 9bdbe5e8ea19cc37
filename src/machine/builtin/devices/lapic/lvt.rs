//! The local vector table: what the APIC's own sources and its two pins turn into (SDM §11.5.1).

use super::bits::*;
use super::message::Signal;

/// The six entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lvt([u32; LVTS]);

impl Default for Lvt {
    fn default() -> Self {
        Self([LVT_MASK; LVTS])
    }
}

impl Lvt {
    /// An entry as its register reads; delivery status is idle always.
    pub fn read(&self, index: usize) -> u32 {
        self.0.get(index).copied().unwrap_or(LVT_MASK)
    }

    /// Writes an entry. While the APIC is software disabled its mask stays (SDM §11.4.7.2).
    pub fn write(&mut self, index: usize, value: u32, software_enabled: bool) {
        let writable = LVT_WRITABLE.get(index).copied().unwrap_or(0);
        if let Some(entry) = self.0.get_mut(index) {
            let forced = if software_enabled { 0 } else { LVT_MASK };
            let kept = if value & LVT_LEVEL != 0 { *entry & LVT_REMOTE_IRR } else { 0 };
            *entry = value & writable | forced | kept;
        }
    }

    /// Masks every entry: the APIC was software disabled.
    pub fn mask_all(&mut self) {
        self.0.iter_mut().for_each(|entry| *entry |= LVT_MASK);
    }

    /// What an event of an unmasked entry asks for.
    pub fn signal(&self, index: usize) -> Option<Signal> {
        let entry = self.read(index);
        let mode = match index {
            LVT_TIMER | LVT_ERROR => MODE_FIXED,
            _ => mode(entry),
        };
        let level = entry & LVT_LEVEL != 0 && mode == MODE_FIXED;
        (entry & LVT_MASK == 0).then_some(Signal { mode, vector: entry as u8, level })
    }

    /// Whether a pin at this electrical level is active.
    pub fn is_active(&self, index: usize, high: bool) -> bool {
        high != (self.read(index) & LVT_POLARITY != 0)
    }

    /// A level-triggered pin that is active: what it asks for, unless it waits for its EOI.
    pub fn take_level(&mut self, index: usize, high: bool) -> Option<Signal> {
        let signal = self.signal(index).filter(|signal| signal.level)?;
        let active = self.is_active(index, high);
        let entry = self.0.get_mut(index).filter(|entry| **entry & LVT_REMOTE_IRR == 0)?;
        if !active {
            return None;
        }
        *entry |= LVT_REMOTE_IRR;
        Some(signal)
    }

    /// The EOI of a level-triggered `vector`.
    pub fn end(&mut self, vector: u8) {
        for entry in &mut self.0 {
            if *entry & LVT_VECTOR == u32::from(vector) {
                *entry &= !LVT_REMOTE_IRR;
            }
        }
    }
}

fn mode(entry: u32) -> u8 {
    (entry >> LVT_MODE_SHIFT & 7) as u8
}
