//! Interrupt delivery: INTx lines and MSI messages, counted on eventfds that a test can poll.
//!
//! Shared by every device and thread of the machine, hence `Arc` and atomics.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use super::device::{LineSink, MessageSink};
use crate::base::{Error, GuestAddr, Result};
use crate::machine::{GuestRam, Interrupts, IrqEvent, IrqSource};

/// Global interrupts of one I/O APIC (Intel 82093AA, §3.2: 24 redirection entries).
pub const LINES: usize = 24;

/// Distinct MSI messages that may be watched: more than the vectors of a full board.
const MSI_WATCHES_MAX: usize = 1 << 16;

#[derive(Default)]
struct Line {
    /// One bit for each device that pulls the (shared, level-triggered) line.
    asserted: AtomicU64,
    event: OnceLock<Arc<IrqEvent>>,
}

/// Where devices send their interrupts.
pub struct IrqHub {
    ram: Arc<GuestRam>,
    lines: [Line; LINES],
    messages: RwLock<HashMap<(u64, u32), Arc<IrqEvent>>>,
}

impl IrqHub {
    /// A hub with all lines low and nothing watched.
    pub fn new(ram: Arc<GuestRam>) -> Self {
        Self { ram, lines: Default::default(), messages: RwLock::default() }
    }

    /// Drives a line for the device that owns bit `source`; only the first of several devices to
    /// pull a shared line makes an edge.
    pub fn set_line(&self, irq: u32, source: u32, high: bool) {
        let Some(line) = self.lines.get(irq as usize) else { return };
        let bit = 1u64 << (source % 64);
        if !high {
            line.asserted.fetch_and(!bit, Ordering::AcqRel);
        } else if line.asserted.fetch_or(bit, Ordering::AcqRel) == 0
            && let Some(event) = line.event.get()
        {
            event.signal();
        }
    }

    /// Whether any device pulls the line.
    pub fn level(&self, irq: u32) -> bool {
        self.lines.get(irq as usize).is_some_and(|l| l.asserted.load(Ordering::Acquire) != 0)
    }

    /// Sends a message. It is a memory write on the bus (PCI 3.0 §6.8.1): one whose address lies
    /// in RAM is stored there, besides being counted for whoever watches it.
    pub fn send_message(&self, addr: u64, data: u32) {
        if let Some(cell) = self.ram.atomic_u32(GuestAddr(addr)) {
            cell.store(data.to_le(), Ordering::Release);
        }
        let messages = self.messages.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(event) = messages.get(&(addr, data)) {
            event.signal();
        }
    }

    fn watch_line(&self, irq: u32) -> Result<Arc<IrqEvent>> {
        let line = self.lines.get(irq as usize).ok_or_else(|| {
            Error::machine(format!("interrupt {irq}: the board has lines 0 to {}", LINES - 1))
        })?;
        if line.event.get().is_none() {
            let event = Arc::new(new_event()?);
            // A racing watcher may have been first; both then get the one that was set.
            let _ = line.event.set(event);
        }
        line.event.get().cloned().ok_or_else(|| Error::machine("interrupt event was not kept"))
    }

    fn watch_message(&self, addr: u64, data: u32) -> Result<Arc<IrqEvent>> {
        let mut messages = self.messages.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(event) = messages.get(&(addr, data)) {
            return Ok(Arc::clone(event));
        }
        if messages.len() >= MSI_WATCHES_MAX {
            return Err(Error::machine("too many MSI messages are watched"));
        }
        let event = Arc::new(new_event()?);
        messages.insert((addr, data), Arc::clone(&event));
        Ok(event)
    }
}

impl LineSink for IrqHub {
    fn set_line(&self, line: u32, source: u32, high: bool) {
        IrqHub::set_line(self, line, source, high);
    }
}

impl MessageSink for IrqHub {
    fn message(&self, addr: u64, data: u32) {
        self.send_message(addr, data);
    }
}

fn no_cpu(cpu: u8) -> Error {
    Error::machine(format!("the board has no CPU {cpu} whose pins can be watched"))
}

fn new_event() -> Result<IrqEvent> {
    IrqEvent::new().map_err(|e| Error::machine("no eventfd for an interrupt").source(e))
}

/// The test thread's view of the hub.
pub struct IrqController(pub Arc<IrqHub>);

impl Interrupts for IrqController {
    fn watch(&mut self, source: IrqSource) -> Result<Arc<IrqEvent>> {
        match source {
            IrqSource::Intx(irq) => self.0.watch_line(irq),
            IrqSource::Intr { cpu } | IrqSource::Nmi { cpu } => Err(no_cpu(cpu)),
            IrqSource::Msi { addr, data } => self.0.watch_message(addr, data),
        }
    }

    fn intx_level(&self, irq: u32) -> bool {
        self.0.level(irq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controller() -> IrqController {
        IrqController(Arc::new(IrqHub::new(Arc::new(GuestRam::new(4096).unwrap()))))
    }

    #[test]
    fn a_shared_line_has_one_edge_and_falls_with_its_last_device() {
        let mut irqs = controller();
        let event = irqs.watch(IrqSource::Intx(10)).unwrap();
        irqs.0.set_line(10, 0, true);
        irqs.0.set_line(10, 1, true);
        irqs.0.set_line(10, 0, true);
        assert_eq!(event.take(), 1);
        irqs.0.set_line(10, 0, false);
        assert!(irqs.intx_level(10));
        irqs.0.set_line(10, 1, false);
        assert!(!irqs.intx_level(10));
        irqs.0.set_line(10, 1, true);
        assert_eq!(event.take(), 1);
        assert!(!irqs.intx_level(11));
    }

    #[test]
    fn a_source_has_one_descriptor_and_the_board_ends_at_its_last_line() {
        let mut irqs = controller();
        let msi = IrqSource::Msi { addr: 0xfee0_0000, data: 33 };
        let (a, b) = (irqs.watch(msi).unwrap(), irqs.watch(msi).unwrap());
        assert!(Arc::ptr_eq(&a, &b));
        irqs.0.send_message(0xfee0_0000, 33);
        irqs.0.send_message(0xfee0_0000, 34);
        assert_eq!(b.take(), 1);
        assert!(irqs.watch(IrqSource::Intx(24)).is_err());
    }

    #[test]
    fn a_message_into_ram_is_stored_there() {
        let irqs = controller();
        irqs.0.send_message(0x100, 0xabcd);
        let mut word = [0; 4];
        assert!(irqs.0.ram.read(GuestAddr(0x100), &mut word));
        assert_eq!(u32::from_le_bytes(word), 0xabcd);
    }
}
