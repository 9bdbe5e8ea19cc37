//! The I/O APIC on the board: inputs shared by devices, messages, the register window.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::bits::{INPUTS, IOEOI, IOREGSEL, IOWIN};
use super::chip::{Chip, Messages};
use crate::base::Nanos;
use crate::machine::builtin::device::{Device, LineSink, MessageSink};

/// The chip decodes 8 address bits; the window repeats.
const DECODED: u64 = 0xff;

/// Sources of a shared input.
const SOURCES: u32 = u64::BITS;

/// The chip, shared by the bus, by every device that pulls a line, and by the local APICs.
///
/// Messages are sent with the chip locked, so that they arrive in their order. What takes them
/// must not call back from there.
pub struct IoApic {
    state: Mutex<State>,
    messages: Arc<dyn MessageSink>,
}

#[derive(Default)]
struct State {
    chip: Chip,
    /// For each input, who pulls it.
    pulled: [u64; INPUTS as usize],
    /// Messages of the operation under way; kept for its memory.
    out: Messages,
}

impl IoApic {
    /// A chip after power-on that sends to `messages`.
    pub fn new(messages: Arc<dyn MessageSink>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), messages })
    }

    /// The EOI message of a local APIC, for a level-triggered interrupt of this vector.
    pub fn end_of_interrupt(&self, vector: u8) {
        self.with(|chip, out| chip.end_of_interrupt(vector, out));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Chip, &mut Messages) -> T) -> T {
        let mut state = self.lock();
        let State { chip, out, .. } = &mut *state;
        let result = act(chip, out);
        self.send(out);
        result
    }

    fn send(&self, out: &mut Messages) {
        for (addr, data) in out.drain(..) {
            self.messages.message(addr, data);
        }
    }
}

impl LineSink for IoApic {
    fn set_line(&self, line: u32, source: u32, high: bool) {
        let mut state = self.lock();
        let State { chip, pulled, out } = &mut *state;
        let Some(pulled) = pulled.get_mut(line as usize) else { return };
        let bit = 1 << (source % SOURCES);
        *pulled = if high { *pulled | bit } else { *pulled & !bit };
        chip.set_pin(line, *pulled != 0, out);
        self.send(out);
    }
}

/// The chip's registers: window 0 is 4 KiB at fec0_0000h.
#[derive(Clone)]
pub struct IoApicDevice(pub Arc<IoApic>);

/// Registers are 32 bits wide and accessed whole (§3.0); IOREGSEL has 8 that count, which
/// software also writes as a byte. Any other access reads 0 and writes nothing.
impl Device for IoApicDevice {
    fn name(&self) -> &'static str {
        "ioapic"
    }

    fn read(&mut self, window: usize, offset: u64, size: u8, _now: Nanos) -> u64 {
        match (window, offset & DECODED, size) {
            (0, IOREGSEL, 1 | 4) => self.0.lock().chip.selected().into(),
            (0, IOWIN, 4) => self.0.lock().chip.read().into(),
            _ => 0,
        }
    }

    fn write(&mut self, window: usize, offset: u64, size: u8, value: u64, _now: Nanos) {
        match (window, offset & DECODED, size) {
            (0, IOREGSEL, 1 | 4) => self.0.with(|chip, _| chip.select(value as u8)),
            (0, IOWIN, 4) => self.0.with(|chip, out| chip.write(value as u32, out)),
            (0, IOEOI, 4) => self.0.end_of_interrupt(value as u8),
            _ => {}
        }
    }

    fn reset(&mut self, _now: Nanos) {
        self.0.with(|chip, _| chip.reset());
    }
}
