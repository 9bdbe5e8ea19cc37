//! MSI and MSI-X messages, as words of guest RAM.
//!
//! A message is a write to memory (PCI 3.0 §6.8.1). QEMU's interrupt controllers do not tell what
//! they get by message, so that each vector is pointed at a word of its own in guest RAM, and the
//! word is looked at.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::base::{Error, GuestAddr, Result};
use crate::machine::{GuestRam, IrqEvent};

/// Where the words are: below what drivers allocate from, where a PC has free conventional memory.
const WINDOW: GuestAddr = GuestAddr(0x1_0000);
/// Bytes of them.
const WINDOW_BYTES: u64 = 0x1_0000;
/// A word that no message was written to. No vector has these data.
const IDLE: u32 = 0xffff_ffff;
/// Data of the first vector of a function; the words tell the functions apart.
const FIRST_DATA: u32 = 0x30;

/// The words in use.
#[derive(Debug)]
pub struct Messages {
    ram: Arc<GuestRam>,
    /// By function and vector: which word.
    slots: BTreeMap<(u16, u16), u64>,
    watched: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    addr: GuestAddr,
    data: u32,
    event: Arc<IrqEvent>,
}

impl Messages {
    /// None in use.
    pub fn new(ram: Arc<GuestRam>) -> Self {
        Self { ram, slots: BTreeMap::new(), watched: Vec::new() }
    }

    /// Address and data for a function's vector; `None` when all words are taken.
    pub fn message(&mut self, function: u16, vector: u16) -> Option<(u64, u32)> {
        let next = self.slots.len() as u64 * 4;
        let slot = match self.slots.get(&(function, vector)) {
            Some(slot) => *slot,
            None if next < WINDOW_BYTES => {
                self.slots.insert((function, vector), next);
                next
            }
            None => return None,
        };
        let addr = WINDOW + slot;
        Some((addr.0, FIRST_DATA + u32::from(vector)))
    }

    /// The event of a message; the same each time.
    ///
    /// # Errors
    /// A machine error for an address that is no word of these, or when the system has no
    /// descriptor.
    pub fn watch(&mut self, addr: u64, data: u32) -> Result<Arc<IrqEvent>> {
        let addr = GuestAddr(addr);
        if let Some(known) = self.watched.iter().find(|w| (w.addr, w.data) == (addr, data)) {
            return Ok(Arc::clone(&known.event));
        }
        let offset = addr.0.wrapping_sub(WINDOW.0);
        let word = self.ram.atomic_u32(addr).filter(|_| offset < WINDOW_BYTES && data != IDLE);
        let Some(word) = word else {
            let what = format!("a message to {addr}: QEMU does not tell what arrives there");
            return Err(Error::machine(what)
                .hint("messages are seen at the addresses that the machine gives out"));
        };
        word.store(IDLE, Ordering::Release);
        let event = IrqEvent::new().map_err(|e| Error::machine("no eventfd").source(e))?;
        let event = Arc::new(event);
        self.watched.push(Watched { addr, data, event: Arc::clone(&event) });
        Ok(event)
    }

    /// Whether any is watched.
    pub fn is_empty(&self) -> bool {
        self.watched.is_empty()
    }

    /// Signals what has come; whether anything had. Messages of one vector that came since the
    /// last look are one, as they are in a local APIC.
    pub fn look(&self) -> bool {
        let mut any = false;
        for watched in &self.watched {
            let Some(word) = self.ram.atomic_u32(watched.addr) else { continue };
            let data = watched.data.to_le();
            if word.load(Ordering::Acquire) == data
                && word.compare_exchange(data, IDLE, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            {
                watched.event.signal();
                any = true;
            }
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_written_is_an_interrupt_once() {
        let ram = Arc::new(GuestRam::new(1 << 20).unwrap());
        let mut messages = Messages::new(Arc::clone(&ram));
        let (a, b) = (messages.message(0x18, 0).unwrap(), messages.message(0x20, 0).unwrap());
        assert_ne!(a.0, b.0);
        assert_eq!(messages.message(0x18, 0), Some(a), "the same again");
        let (first, second) =
            (messages.watch(a.0, a.1).unwrap(), messages.watch(b.0, b.1).unwrap());
        assert!(!messages.look());
        ram.write(GuestAddr(b.0), &b.1.to_le_bytes());
        assert!(messages.look());
        assert!(!messages.look());
        assert_eq!((first.take(), second.take()), (0, 1));
        assert!(messages.watch(0xfee0_0000, 0x30).is_err());
        assert!(messages.watch(a.0, IDLE).is_err());
    }

    #[test]
    fn words_come_to_an_end() {
        let mut messages = Messages::new(Arc::new(GuestRam::new(1 << 20).unwrap()));
        let given = (0..u16::MAX).take_while(|v| messages.message(8, *v).is_some()).count();
        assert_eq!(given as u64, WINDOW_BYTES / 4);
    }
}
