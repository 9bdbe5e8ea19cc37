//! One local APIC.

use super::bits::*;
use super::lvt::Lvt;
use super::message::{Message, Signal, logical_match, physical_match};
use super::timer::Timer;
use super::vectors::Vectors;
use crate::base::Nanos;

/// Pins, by their number.
const PINS: [usize; 2] = [LVT_LINT0, LVT_LINT1];

/// What a write does beyond the APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The EOI of a level-triggered vector, for the I/O APICs.
    Eoi(u8),
    /// An interrupt command.
    Send(Message),
}

/// What an acknowledge cycle gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// Nothing is requested.
    Nothing,
    /// The 8259A has the vector.
    External,
    /// This vector.
    Vector(u8),
}

/// What reached the CPU other than by a vector, counted since power-on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuSignals {
    /// NMIs.
    pub nmis: u64,
    /// SMIs.
    pub smis: u64,
    /// INITs.
    pub inits: u64,
    /// Start-up messages.
    pub startups: u64,
    /// The vector of the last start-up message: the page where the CPU begins.
    pub startup_vector: Option<u8>,
}

/// The registers, pins and outputs of one APIC.
///
/// The CPU samples INTR when it rises. A vector that the task priority has overtaken by the time
/// of the acknowledge leaves the spurious vector there (SDM §11.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lapic {
    cpu: u8,
    base: u64,
    id: u8,
    tpr: u8,
    ldr: u32,
    dfr: u32,
    svr: u32,
    isr: Vectors,
    tmr: Vectors,
    irr: Vectors,
    /// Errors as the register shows them, and those since its last write.
    esr: u32,
    errors: u32,
    icr_low: u32,
    icr_high: u32,
    lvt: Lvt,
    timer: Timer,
    /// Electrical levels of LINT0 and LINT1.
    pins: [bool; PINS.len()],
    /// An ExtINT message came.
    external: bool,
    /// A vector was deliverable and is not acknowledged yet.
    requested: bool,
    signals: CpuSignals,
}

impl Lapic {
    /// The APIC of CPU `cpu` after power-on; that of CPU 0 is the bootstrap processor's.
    pub fn new(cpu: u8) -> Self {
        let bootstrap = if cpu == 0 { APIC_BASE_BSP } else { 0 };
        Self {
            cpu,
            base: APIC_BASE_DEFAULT | APIC_BASE_ENABLE | bootstrap,
            id: cpu,
            tpr: 0,
            ldr: 0,
            dfr: u32::MAX,
            svr: SVR_RESET,
            isr: Vectors::default(),
            tmr: Vectors::default(),
            irr: Vectors::default(),
            esr: 0,
            errors: 0,
            icr_low: 0,
            icr_high: 0,
            lvt: Lvt::default(),
            timer: Timer::default(),
            pins: [false; PINS.len()],
            external: false,
            requested: false,
            signals: CpuSignals::default(),
        }
    }

    /// The board's reset: everything but pins and counts.
    pub fn reset(&mut self) {
        *self = Self { pins: self.pins, signals: self.signals, ..Self::new(self.cpu) };
    }

    /// INIT: as a reset, but base and ID stay (SDM §11.4.7.3).
    fn init(&mut self) {
        let Self { base, id, .. } = *self;
        self.reset();
        (self.base, self.id) = (base, id);
    }

    /// IA32_APIC_BASE.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Writes IA32_APIC_BASE. Clearing the enable bit disables the APIC globally; set again, it
    /// is as after a reset (SDM §11.4.3). The bootstrap bit is the hardware's.
    pub fn set_base(&mut self, value: u64) {
        let was = self.is_enabled();
        let writable = APIC_BASE_ADDR | APIC_BASE_ENABLE;
        let base = self.base & !writable | value & writable;
        self.base = base;
        if was != self.is_enabled() {
            self.reset();
            self.base = base;
        }
    }

    /// Whether the APIC is globally enabled. If not, LINT0 is INTR and LINT1 is NMI.
    pub fn is_enabled(&self) -> bool {
        self.base & APIC_BASE_ENABLE != 0
    }

    fn is_software_enabled(&self) -> bool {
        self.svr & SVR_ENABLE != 0
    }

    /// What reached the CPU.
    pub fn signals(&self) -> CpuSignals {
        self.signals
    }

    /// Whether a physical destination means this APIC.
    pub fn is_physical(&self, dest: u8) -> bool {
        physical_match(dest, self.id)
    }

    /// Whether a logical destination means this APIC.
    pub fn is_logical(&self, mda: u8) -> bool {
        logical_match(mda, self.ldr, self.dfr)
    }

    /// Whether a lowest-priority message may choose this APIC: it must take vectors.
    pub fn takes_vectors(&self) -> bool {
        self.is_enabled() && self.is_software_enabled()
    }

    /// The level of INTR.
    pub fn output(&self) -> bool {
        self.requested || self.external_requested()
    }

    /// Reads a register: 32 bits at a multiple of 16.
    pub fn read(&mut self, offset: u64, now: Nanos) -> u32 {
        self.advance(now);
        let word = |first: u64| (offset - first) as usize / 16;
        match offset {
            APIC_ID => u32::from(self.id) << 24,
            APIC_VERSION => VERSION,
            APIC_TPR => self.tpr.into(),
            APIC_APR => self.arbitration_priority().into(),
            APIC_PPR => self.priority().into(),
            APIC_EOI | APIC_RRD => 0,
            APIC_LDR => self.ldr,
            APIC_DFR => self.dfr,
            APIC_SVR => self.svr,
            APIC_ISR..APIC_TMR => self.isr.word(word(APIC_ISR)),
            APIC_TMR..APIC_IRR => self.tmr.word(word(APIC_TMR)),
            APIC_IRR..APIC_IRR_END => self.irr.word(word(APIC_IRR)),
            APIC_ESR => self.esr,
            APIC_ICR_LOW => self.icr_low,
            APIC_ICR_HIGH => self.icr_high,
            APIC_LVT_TIMER..=APIC_LVT_ERROR => self.lvt.read(word(APIC_LVT_TIMER)),
            APIC_TMICT => self.timer.initial(),
            APIC_TMCCT => self.timer.current(now),
            APIC_TDCR => self.timer.configuration(),
            _ => {
                self.error(ESR_ILLEGAL_REGISTER);
                0
            }
        }
    }

    /// Writes a register: 32 bits at a multiple of 16.
    pub fn write(&mut self, offset: u64, value: u32, now: Nanos) -> Option<Effect> {
        self.advance(now);
        match offset {
            APIC_ID => self.id = (value >> 24) as u8,
            APIC_TPR => self.tpr = value as u8,
            APIC_EOI => return self.end_of_interrupt(),
            APIC_LDR => self.ldr = value & ICR_HIGH_WRITABLE,
            APIC_DFR => self.dfr = value | DFR_ONES,
            APIC_SVR => self.write_svr(value),
            APIC_ESR => self.esr = std::mem::take(&mut self.errors),
            APIC_ICR_LOW => return self.command(value),
            APIC_ICR_HIGH => self.icr_high = value & ICR_HIGH_WRITABLE,
            APIC_LVT_TIMER..=APIC_LVT_ERROR => self.write_lvt(offset, value),
            APIC_TMICT => self.timer.load(value, now),
            APIC_TDCR => self.timer.configure(value & TDCR_WRITABLE, now),
            // Read only.
            APIC_VERSION | APIC_APR | APIC_PPR | APIC_RRD | APIC_TMCCT => {}
            APIC_ISR..APIC_IRR_END => {}
            _ => self.error(ESR_ILLEGAL_REGISTER),
        }
        self.settle();
        None
    }

    fn write_svr(&mut self, value: u32) {
        self.svr = value & SVR_WRITABLE;
        if !self.is_software_enabled() {
            self.lvt.mask_all();
        }
    }

    fn write_lvt(&mut self, offset: u64, value: u32) {
        let index = (offset - APIC_LVT_TIMER) as usize / 16;
        self.lvt.write(index, value, self.is_software_enabled());
        self.timer.set_periodic(self.lvt.read(LVT_TIMER) & LVT_PERIODIC != 0);
        self.serve_levels();
    }

    fn command(&mut self, low: u32) -> Option<Effect> {
        self.icr_low = low & ICR_LOW_WRITABLE;
        let message = Message::of_command(self.icr_low, self.icr_high)?;
        let Signal { mode, vector, .. } = message.signal;
        if matches!(mode, MODE_FIXED | MODE_LOWEST) && vector < VECTOR_MIN {
            self.error(ESR_SEND_ILLEGAL_VECTOR);
            self.settle();
            return None;
        }
        Some(Effect::Send(message))
    }

    fn end_of_interrupt(&mut self) -> Option<Effect> {
        let ended = self.isr.highest()?;
        self.isr.set(ended, false);
        let level = self.tmr.contains(ended);
        if level {
            self.lvt.end(ended);
            self.serve_levels();
        }
        self.settle();
        level.then_some(Effect::Eoi(ended))
    }

    /// The level at pin `pin`: 0 or 1.
    pub fn set_pin(&mut self, pin: usize, high: bool) {
        let (Some(level), Some(entry)) = (self.pins.get_mut(pin), PINS.get(pin)) else { return };
        let changed = std::mem::replace(level, high) != high;
        if !self.is_enabled() {
            // SDM §11.4.3: the pins are those of a CPU without an APIC.
            self.signals.nmis += u64::from(changed && high && *entry == LVT_LINT1);
        } else if changed && self.lvt.is_active(*entry, high) {
            let edge = self.lvt.signal(*entry).filter(|s| !s.level && s.mode != MODE_EXTINT);
            edge.into_iter().for_each(|signal| self.accept(signal));
        }
        self.serve_levels();
        self.settle();
    }

    /// A message for this APIC, or an edge of a pin.
    pub fn accept(&mut self, signal: Signal) {
        if !self.is_enabled() {
            return;
        }
        match signal.mode {
            MODE_FIXED | MODE_LOWEST => self.accept_vector(signal.vector, signal.level),
            MODE_SMI => self.signals.smis += 1,
            MODE_NMI => self.signals.nmis += 1,
            MODE_INIT => {
                self.init();
                self.signals.inits += 1;
            }
            MODE_STARTUP => {
                self.signals.startups += 1;
                self.signals.startup_vector = Some(signal.vector);
            }
            MODE_EXTINT => self.external = true,
            _ => {}
        }
        self.settle();
    }

    /// Into the IRR. A software disabled APIC takes no vectors (SDM §11.4.7.2).
    fn accept_vector(&mut self, vector: u8, level: bool) {
        if !self.is_software_enabled() {
            return;
        }
        if vector < VECTOR_MIN {
            return self.error(ESR_RECEIVE_ILLEGAL_VECTOR);
        }
        self.irr.set(vector, true);
        self.tmr.set(vector, level);
    }

    /// Logs an error. The first since the last write of the register is an interrupt (§11.5.3).
    fn error(&mut self, error: u32) {
        let first = self.errors == 0;
        self.errors |= error;
        let signal = self.lvt.signal(LVT_ERROR).filter(|signal| signal.vector >= VECTOR_MIN);
        if let Some(signal) = signal.filter(|_| first) {
            self.accept_vector(signal.vector, false);
            self.settle();
        }
    }

    /// When the timer has to interrupt. While its last interrupt is still in the IRR, nobody
    /// could tell a further one from it.
    pub fn deadline(&self) -> Option<Nanos> {
        let vector = self.lvt.signal(LVT_TIMER)?.vector;
        let told = match vector {
            0..VECTOR_MIN => self.errors & ESR_RECEIVE_ILLEGAL_VECTOR != 0,
            _ => self.irr.contains(vector),
        };
        if told { None } else { self.timer.expiry() }
    }

    /// Lets time pass.
    pub fn advance(&mut self, now: Nanos) {
        if self.timer.advance(now)
            && let Some(signal) = self.lvt.signal(LVT_TIMER)
        {
            self.accept_vector(signal.vector, false);
            self.settle();
        }
    }

    /// The acknowledge cycle. External interrupts go before any vector: they ignore priorities.
    pub fn acknowledge(&mut self, now: Nanos) -> Acknowledged {
        self.advance(now);
        if self.external_requested() {
            self.external = false;
            return Acknowledged::External;
        }
        if !std::mem::take(&mut self.requested) {
            return Acknowledged::Nothing;
        }
        let Some(vector) = self.deliverable() else {
            return Acknowledged::Vector(self.svr as u8);
        };
        self.irr.set(vector, false);
        self.isr.set(vector, true);
        self.settle();
        Acknowledged::Vector(vector)
    }

    /// Whether INTR is high for the 8259A.
    pub fn external_requested(&self) -> bool {
        if !self.is_enabled() {
            return self.pins[0];
        }
        let pin = |(index, high): (&usize, &bool)| {
            let external = self.lvt.signal(*index).is_some_and(|s| s.mode == MODE_EXTINT);
            external && self.lvt.is_active(*index, *high)
        };
        self.external || PINS.iter().zip(&self.pins).any(pin)
    }

    /// Level-triggered pins that are active and do not wait for an EOI.
    fn serve_levels(&mut self) {
        if !self.is_enabled() {
            return;
        }
        for (index, high) in PINS.into_iter().zip(self.pins) {
            if let Some(signal) = self.lvt.take_level(index, high) {
                self.accept(signal);
            }
        }
    }

    fn settle(&mut self) {
        self.requested |= self.deliverable().is_some();
    }

    /// The vector to deliver: the highest requested, if its class is above the processor's.
    fn deliverable(&self) -> Option<u8> {
        self.irr.highest().filter(|vector| vector >> 4 > self.priority() >> 4)
    }

    /// The processor priority (SDM §11.8.3.1).
    fn priority(&self) -> u8 {
        let serving = self.isr.highest().unwrap_or(0);
        if self.tpr >> 4 >= serving >> 4 { self.tpr } else { serving & 0xf0 }
    }

    /// The arbitration priority, by which a lowest-priority message chooses (SDM §11.6.2.4).
    pub fn arbitration_priority(&self) -> u8 {
        let class = |vectors: &Vectors| vectors.highest().unwrap_or(0) & 0xf0;
        let (waiting, serving) = (class(&self.irr), class(&self.isr));
        let task = self.tpr & 0xf0;
        if task >= waiting && task > serving { self.tpr } else { task.max(waiting).max(serving) }
    }
}
