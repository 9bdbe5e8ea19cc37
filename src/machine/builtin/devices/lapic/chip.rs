//! One local APIC.

mod priority;
mod registers;

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
}
