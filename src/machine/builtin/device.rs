//! What a device model offers to the board: registers in windows, and a place in time.
//!
//! A chip is a pure state machine; its glue implements [`Device`] and pulls the [`Wire`]s. The
//! board decides where each window lies and calls [`Device::run`] when a deadline has come.

use std::sync::Arc;

use crate::base::Nanos;

/// A device behind ports or memory.
///
/// The board calls `run(now)` before an access whenever a deadline lies at or before `now`, so
/// that an access sees the state of its moment. `now` never goes back.
pub trait Device: Send {
    /// Its name in listings and logs: `rtc`.
    fn name(&self) -> &'static str;

    /// Reads `size` (1, 2, 4 or 8) bytes that lie within window `window`. Registers narrower than
    /// the access answer as the chip's bus does.
    fn read(&mut self, window: usize, offset: u64, size: u8, now: Nanos) -> u64;

    /// Writes `size` (1, 2, 4 or 8) bytes that lie within window `window`.
    fn write(&mut self, window: usize, offset: u64, size: u8, value: u64, now: Nanos);

    /// When it next has to act by itself: an absolute time of the machine's clock. A device whose
    /// timer would change nothing that anybody can see without an access has none.
    fn deadline(&self) -> Option<Nanos> {
        None
    }

    /// Does what its deadlines up to and at `now` ask for, in their order. Afterwards
    /// [`Device::deadline`] lies after `now`.
    fn run(&mut self, now: Nanos) {
        let _ = now;
    }

    /// The board's reset line.
    fn reset(&mut self, now: Nanos);
}

/// Where a wire ends: an input of an interrupt controller, a CPU pin, a probe of a test.
pub trait LineSink: Send + Sync {
    /// The level of input `line`, as one of several `source`s that may share it, is now `high`.
    fn set_line(&self, line: u32, source: u32, high: bool);
}

/// An output pin of a device, connected to an input of something else.
#[derive(Clone)]
pub struct Wire(Option<(Arc<dyn LineSink>, u32, u32)>);

impl Wire {
    /// A wire to input `line` of `sink`, which the device pulls as `source` (0 to 63).
    pub fn new(sink: Arc<dyn LineSink>, line: u32, source: u32) -> Self {
        Self(Some((sink, line, source)))
    }

    /// A pin that is not connected.
    pub fn open() -> Self {
        Self(None)
    }

    /// Drives the pin. Driving it to the level it has is harmless.
    pub fn set(&self, high: bool) {
        if let Some((sink, line, source)) = &self.0 {
            sink.set_line(*line, *source, high);
        }
    }

    /// Low to high and back: one edge for an edge-triggered input.
    pub fn pulse(&self) {
        self.set(true);
        self.set(false);
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some((_, line, source)) => write!(f, "Wire(line {line}, source {source})"),
            None => f.write_str("Wire(open)"),
        }
    }
}

/// Where messages go: a device's memory write that is an interrupt (PCI 3.0 §6.8, HPET 1.0a
/// §2.3.9.2), or an I/O APIC's delivery to the local APICs.
pub trait MessageSink: Send + Sync {
    /// A 32-bit write of `data` to `addr`.
    fn message(&self, addr: u64, data: u32);
}

/// Messages a [`MessageProbe`] keeps: a walk sends any number.
const PROBED_MESSAGES_MAX: usize = 64;

/// A probe for tests of glue: keeps the first messages as (address, data).
#[derive(Debug, Default)]
pub struct MessageProbe(std::sync::Mutex<Vec<(u64, u32)>>);

impl MessageProbe {
    /// Takes the messages so far.
    pub fn take(&self) -> Vec<(u64, u32)> {
        let mut list = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        std::mem::take(&mut list)
    }
}

impl MessageSink for MessageProbe {
    fn message(&self, addr: u64, data: u32) {
        let mut list = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if list.len() < PROBED_MESSAGES_MAX {
            list.push((addr, data));
        }
    }
}

/// A probe for tests of glue: remembers levels and counts rising edges of 32 lines.
#[derive(Debug, Default)]
pub struct LineProbe(std::sync::Mutex<[(bool, u64); 32]>);

impl LineProbe {
    /// The level of `line` and its rising edges so far.
    pub fn line(&self, line: u32) -> (bool, u64) {
        let lines = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        lines.get(line as usize).copied().unwrap_or_default()
    }
}

impl LineSink for LineProbe {
    fn set_line(&self, line: u32, _source: u32, high: bool) {
        let mut lines = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((level, edges)) = lines.get_mut(line as usize) {
            *edges += u64::from(high && !*level);
            *level = high;
        }
    }
}
