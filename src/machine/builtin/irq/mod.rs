//! Interrupt delivery: INTx lines and MSI messages, counted on eventfds that a test can poll.
//!
//! Shared by every device and thread of the machine, hence `Arc` and atomics.

pub mod gate;
pub mod pins;
pub mod router;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use self::pins::{CpuPins, Pin};
use super::device::{LineSink, MessageSink};
use crate::base::{Error, GuestAddr, Result};
use crate::machine::apic_messages::{ApicMessage, ApicMessages};
use crate::machine::{GuestRam, Interrupts, IrqEvent, IrqSource};

/// Global interrupts of one I/O APIC (Intel 82093AA, §3.2: 24 redirection entries).
pub const LINES: usize = 24;

/// Lines that also reach the i8259 pair.
const ISA_LINES: u32 = 16;

/// The interval timer's line is input 2 of the I/O APIC, whose input 0 belongs to the i8259
/// (MultiProcessor Specification 1.4 §D.3, ACPI 6.5 §5.2.15.4).
const TIMER_LINE: u32 = 0;
const TIMER_IOAPIC_INPUT: u32 = 2;

/// Where messages reach local APICs (Intel SDM volume 3, §11.11.1).
pub const APIC_MESSAGES: std::ops::Range<u64> = 0xfee0_0000..0xfef0_0000;

/// Distinct MSI messages that may be watched: more than the vectors of a full board.
const MSI_WATCHES_MAX: usize = 1 << 16;

#[derive(Default)]
struct Line {
    /// One bit for each device that pulls the (shared, level-triggered) line.
    asserted: AtomicU64,
    event: OnceLock<Arc<IrqEvent>>,
}

impl Line {
    /// Drives the line as `source`; its new level when that changed it. Only the first of several
    /// devices to pull a shared line makes an edge.
    fn set(&self, source: u32, high: bool) -> Option<bool> {
        if !pins::drive(&self.asserted, source, high) {
            return None;
        }
        if high && let Some(event) = self.event.get() {
            event.signal();
        }
        Some(high)
    }

    fn high(&self) -> bool {
        self.asserted.load(Ordering::Acquire) != 0
    }

    fn watch(&self) -> Result<Arc<IrqEvent>> {
        if self.event.get().is_none() {
            let event = Arc::new(new_event()?);
            // A racing watcher may have been first; both then get the one that was set.
            let _ = self.event.set(event);
        }
        self.event.get().cloned().ok_or_else(|| Error::machine("interrupt event was not kept"))
    }
}

/// What answers the interrupt acknowledge cycle of a CPU.
pub trait Acknowledge: Send + Sync {
    /// The vector that CPU `cpu` would enter; `None` when it has no request.
    fn acknowledge(&self, cpu: u8) -> Option<u8>;
}

/// The interrupt controllers of a board. What it does not have is `None`.
pub struct Controllers {
    /// The pins of the CPUs behind them.
    pub pins: Arc<CpuPins>,
    /// i8259 pair: lines 0 to 15.
    pub pic: Option<Arc<dyn LineSink>>,
    /// I/O APIC: inputs 0 to 23.
    pub ioapic: Option<Arc<dyn LineSink>>,
    /// Local APICs.
    pub lapics: Option<Arc<dyn MessageSink>>,
    /// Who hands out vectors.
    pub acknowledge: Option<Arc<dyn Acknowledge>>,
}

/// Where devices send their interrupts.
pub struct IrqHub {
    ram: Arc<GuestRam>,
    lines: [Line; LINES],
    messages: RwLock<HashMap<(u64, u32), Arc<IrqEvent>>>,
    controllers: OnceLock<Controllers>,
    /// Messages for local APICs, as the bus shows them to whoever asked.
    shown: Mutex<ApicMessages>,
    are_shown: AtomicBool,
    /// Controllers must see the changes of a line in their order, whichever threads make them.
    order: Mutex<()>,
}

impl IrqHub {
    /// A hub with all lines low, nothing watched, and no interrupt controller behind it.
    pub fn new(ram: Arc<GuestRam>) -> Self {
        Self {
            ram,
            lines: Default::default(),
            messages: RwLock::default(),
            controllers: OnceLock::new(),
            shown: Mutex::default(),
            are_shown: AtomicBool::new(false),
            order: Mutex::new(()),
        }
    }

    /// Connects the interrupt controllers, before anything drives a line. Later calls do nothing.
    pub fn connect(&self, controllers: Controllers) {
        let _ = self.controllers.set(controllers);
    }

    /// Drives a line for the device that owns bit `source`.
    pub fn set_line(&self, irq: u32, source: u32, high: bool) {
        let Some(line) = self.lines.get(irq as usize) else { return };
        let Some(controllers) = self.controllers.get().filter(|c| c.has_lines()) else {
            line.set(source, high);
            return;
        };
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(high) = line.set(source, high) {
            controllers.set_line(irq, high);
        }
    }

    /// Whether any device pulls the line.
    pub fn level(&self, irq: u32) -> bool {
        self.lines.get(irq as usize).is_some_and(Line::high)
    }

    /// Sends a message. It is a memory write on the bus (PCI 3.0 §6.8.1): one whose address lies
    /// in RAM is stored there, one for the local APICs is taken by them; besides, it is counted
    /// for whoever watches it.
    pub fn send_message(&self, addr: u64, data: u32) {
        if let Some(cell) = self.ram.atomic_u32(GuestAddr(addr)) {
            cell.store(data.to_le(), Ordering::Release);
        }
        if APIC_MESSAGES.contains(&addr) {
            if self.are_shown.load(Ordering::Relaxed) {
                self.shown().push(ApicMessage { addr, data });
            }
            if let Some(lapics) = self.controllers.get().and_then(|c| c.lapics.as_ref()) {
                lapics.message(addr, data);
            }
        }
        let messages = self.messages.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(event) = messages.get(&(addr, data)) {
            event.signal();
        }
    }

    fn shown(&self) -> MutexGuard<'_, ApicMessages> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch_line(&self, irq: u32) -> Result<Arc<IrqEvent>> {
        let line = self.lines.get(irq as usize).ok_or_else(|| {
            Error::machine(format!("interrupt {irq}: the board has lines 0 to {}", LINES - 1))
        })?;
        line.watch()
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

    fn watch_pin(&self, cpu: u8, pin: Pin) -> Result<Arc<IrqEvent>> {
        match self.controllers.get().filter(|c| c.acknowledge.is_some()) {
            Some(controllers) => controllers.pins.watch(cpu, pin),
            None => Err(Error::machine("the board has no interrupt controller")
                .hint("add the chip PIC or LAPIC")),
        }
    }
}

impl Controllers {
    fn has_lines(&self) -> bool {
        self.pic.is_some() || self.ioapic.is_some()
    }

    fn set_line(&self, irq: u32, high: bool) {
        if let Some(pic) = self.pic.as_ref().filter(|_| irq < ISA_LINES) {
            pic.set_line(irq, 0, high);
        }
        let Some(ioapic) = &self.ioapic else { return };
        match irq {
            TIMER_LINE => ioapic.set_line(TIMER_IOAPIC_INPUT, irq, high),
            _ => ioapic.set_line(irq, irq, high),
        }
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

fn new_event() -> Result<IrqEvent> {
    IrqEvent::new().map_err(|e| Error::machine("no eventfd for an interrupt").source(e))
}

/// The test thread's view of the hub.
#[derive(Clone)]
pub struct IrqController(pub Arc<IrqHub>);

impl IrqController {
    /// Whether a CPU's pins work.
    pub fn has_cpu(&self) -> bool {
        self.0.controllers.get().is_some_and(|c| c.acknowledge.is_some())
    }
}

impl Interrupts for IrqController {
    fn watch(&mut self, source: IrqSource) -> Result<Arc<IrqEvent>> {
        match source {
            IrqSource::Intx(irq) => self.0.watch_line(irq),
            IrqSource::Intr { cpu } => self.0.watch_pin(cpu, Pin::Intr),
            IrqSource::Nmi { cpu } => self.0.watch_pin(cpu, Pin::Nmi),
            IrqSource::Msi { addr, data } => self.0.watch_message(addr, data),
        }
    }

    fn intx_level(&self, irq: u32) -> bool {
        self.0.level(irq)
    }

    fn acknowledge(&mut self, cpu: u8) -> Option<u8> {
        self.0.controllers.get()?.acknowledge.as_ref()?.acknowledge(cpu)
    }

    fn apic_messages(&mut self) -> Result<Vec<ApicMessage>> {
        self.0.are_shown.store(true, Ordering::Relaxed);
        self.0.shown().take()
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
        assert_eq!(irqs.apic_messages().unwrap(), []);
        irqs.0.send_message(0xfee0_1000, 35);
        irqs.0.send_message(0x100, 36);
        let shown = irqs.apic_messages().unwrap();
        assert_eq!(shown, [ApicMessage { addr: 0xfee0_1000, data: 35 }]);
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
