//! The local APICs on the board: pins, wires to the CPUs, messages, the register window, and the
//! way back to the 8259A and the I/O APIC.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use super::bank::Bank;
use super::chip::{Acknowledged, CpuSignals};
use super::message::Message;
use crate::base::{BusAccess, Clock, Nanos};
use crate::machine::builtin::device::{Device, LineSink, MessageSink, Wire};
use crate::machine::builtin::devices::ioapic::IoApic;
use crate::machine::builtin::devices::pic::PicPair;

/// Pins of an APIC.
const PINS: usize = 2;

/// Sources of a shared pin.
const SOURCES: u32 = u64::BITS;

/// Windows of [`LapicDevice`].
const WINDOW_REGISTERS: usize = 0;
const WINDOW_MESSAGES: usize = 1;
/// Where the second window begins.
const MESSAGES_BASE: u64 = super::bits::APIC_BASE_DEFAULT + 0x1000;

/// What a board's local APICs are connected to.
pub struct LapicConfig {
    /// CPUs: 1 to 255.
    pub cpus: u8,
    /// The machine's time, for the acknowledge cycle.
    pub clock: Arc<dyn Clock>,
    /// INTR of each CPU.
    pub intr: Vec<Wire>,
    /// NMI of each CPU: an edge for each.
    pub nmi: Vec<Wire>,
}

/// Every CPU's local APIC, shared by the bus, the I/O APIC, the 8259A and devices that send
/// messages.
///
/// Pins and messages may come from within those chips: nothing is called back with this one
/// locked, but for the wires to the CPUs.
pub struct LocalApics {
    state: Mutex<State>,
    config: LapicConfig,
    pic: OnceLock<Weak<PicPair>>,
    ioapic: OnceLock<Weak<IoApic>>,
}

struct State {
    bank: Bank,
    /// For each pin, who pulls it.
    pulled: [u64; PINS],
    /// NMIs of each CPU that its wire has seen.
    nmis: Vec<u64>,
}

impl LocalApics {
    /// APICs after power-on.
    pub fn new(config: LapicConfig) -> Arc<Self> {
        let bank = Bank::new(config.cpus);
        let nmis = bank.iter().map(|_| 0).collect();
        Arc::new(Self {
            state: Mutex::new(State { bank, pulled: [0; PINS], nmis }),
            config,
            pic: OnceLock::new(),
            ioapic: OnceLock::new(),
        })
    }

    /// Where the vector of an external interrupt comes from: the first call counts.
    pub fn connect_pic(&self, pic: &Arc<PicPair>) {
        // Already connected: the board has one.
        let _ = self.pic.set(Arc::downgrade(pic));
    }

    /// Where the EOI of a level-triggered interrupt goes: the first call counts.
    pub fn connect_ioapic(&self, ioapic: &Arc<IoApic>) {
        // Already connected: the board has one.
        let _ = self.ioapic.set(Arc::downgrade(ioapic));
    }

    /// The acknowledge cycle of a CPU: its vector, `None` when nothing is requested. An external
    /// interrupt's comes from the 8259A; without one the bus floats. INTR falls in the cycle, so
    /// that a further request is a further edge.
    pub fn acknowledge(&self, cpu: u8) -> Option<u8> {
        let now = self.config.clock.now();
        let taken = self.lock().bank.get_mut(cpu).map(|lapic| lapic.acknowledge(now))?;
        let vector = match taken {
            Acknowledged::Nothing => None,
            Acknowledged::Vector(vector) => Some(vector),
            Acknowledged::External => {
                let pic = self.pic.get().and_then(Weak::upgrade);
                Some(pic.map_or(0xff, |pic| pic.acknowledge()))
            }
        };
        let mut state = self.lock();
        // The 8259A drops its own output.
        if vector.is_some()
            && state.bank.get(cpu).is_some_and(|lapic| !lapic.external_requested())
            && let Some(wire) = self.config.intr.get(usize::from(cpu))
        {
            wire.set(false);
        }
        self.drive(&mut state);
        vector
    }

    /// IA32_APIC_BASE of a CPU; 0 where there is none.
    pub fn apic_base(&self, cpu: u8) -> u64 {
        self.lock().bank.get(cpu).map_or(0, |lapic| lapic.base())
    }

    /// Writes IA32_APIC_BASE of a CPU: enables or disables its APIC. The window stays where the
    /// board put it.
    pub fn set_apic_base(&self, cpu: u8, value: u64) {
        self.with(|bank| bank.get_mut(cpu).into_iter().for_each(|lapic| lapic.set_base(value)));
    }

    /// What reached a CPU other than by a vector.
    pub fn signals(&self, cpu: u8) -> CpuSignals {
        self.lock().bank.get(cpu).map(|lapic| lapic.signals()).unwrap_or_default()
    }

    /// A read by CPU `cpu` of its APIC's window; all ones when the APIC is globally disabled and
    /// so does not answer.
    pub fn read(&self, cpu: u8, offset: u64, size: u8, now: Nanos) -> u64 {
        self.with(|bank| match bank.get(cpu) {
            Some(lapic) if lapic.is_enabled() => bank.read(cpu, offset, size, now).into(),
            _ => BusAccess::ones(size),
        })
    }

    /// A write by CPU `cpu` to its APIC's window.
    pub fn write(&self, cpu: u8, offset: u64, size: u8, value: u32, now: Nanos) {
        let ended = self.with(|bank| {
            let enabled = bank.get(cpu).is_some_and(|lapic| lapic.is_enabled());
            enabled.then(|| bank.write(cpu, offset, size, value, now)).flatten()
        });
        if let (Some(vector), Some(ioapic)) = (ended, self.ioapic.get().and_then(Weak::upgrade)) {
            ioapic.end_of_interrupt(vector);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Bank) -> T) -> T {
        let mut state = self.lock();
        let result = act(&mut state.bank);
        self.drive(&mut state);
        result
    }

    /// The pins of the CPUs follow.
    fn drive(&self, state: &mut State) {
        let intr = state.bank.iter().zip(&self.config.intr);
        intr.for_each(|(lapic, wire)| wire.set(lapic.output()));
        let nmis = state.bank.iter().zip(&mut state.nmis).zip(&self.config.nmi);
        for ((lapic, seen), wire) in nmis {
            let now = lapic.signals().nmis;
            (*seen..now).for_each(|_| wire.pulse());
            *seen = now;
        }
    }
}

/// Lines 0 and 1 are the LINT0 and LINT1 pins, each of every CPU.
impl LineSink for LocalApics {
    fn set_line(&self, line: u32, source: u32, high: bool) {
        let mut state = self.lock();
        let State { bank, pulled, .. } = &mut *state;
        let Some(pulled) = pulled.get_mut(line as usize) else { return };
        let bit = 1 << (source % SOURCES);
        *pulled = if high { *pulled | bit } else { *pulled & !bit };
        bank.set_pin(line, *pulled != 0);
        self.drive(&mut state);
    }
}

impl MessageSink for LocalApics {
    fn message(&self, addr: u64, data: u32) {
        if let Some(message) = Message::of_write(addr, data) {
            self.with(|bank| bank.send(None, message));
        }
    }
}

/// The registers as one CPU sees them: window 0 is 4 KiB at fee0_0000h. Window 1 is the rest of
/// the 1 MiB, where a write of 32 bits is an interrupt message.
#[derive(Clone)]
pub struct LapicDevice {
    apics: Arc<LocalApics>,
    cpu: u8,
}

impl LapicDevice {
    /// The window of CPU `cpu`.
    pub fn new(apics: Arc<LocalApics>, cpu: u8) -> Self {
        Self { apics, cpu }
    }
}

impl Device for LapicDevice {
    fn name(&self) -> &'static str {
        "lapic"
    }

    fn read(&mut self, window: usize, offset: u64, size: u8, now: Nanos) -> u64 {
        match window {
            WINDOW_REGISTERS => self.apics.read(self.cpu, offset, size, now),
            _ => BusAccess::ones(size),
        }
    }

    fn write(&mut self, window: usize, offset: u64, size: u8, value: u64, now: Nanos) {
        match (window, size) {
            (WINDOW_REGISTERS, _) => self.apics.write(self.cpu, offset, size, value as u32, now),
            (WINDOW_MESSAGES, 4) => {
                self.apics.message(MESSAGES_BASE.saturating_add(offset), value as u32);
            }
            _ => {}
        }
    }

    fn deadline(&self) -> Option<Nanos> {
        self.apics.lock().bank.deadline()
    }

    fn run(&mut self, now: Nanos) {
        self.apics.with(|bank| bank.iter_mut().for_each(|lapic| lapic.advance(now)));
    }

    fn reset(&mut self, _now: Nanos) {
        self.apics.with(|bank| bank.iter_mut().for_each(|lapic| lapic.reset()));
    }
}
