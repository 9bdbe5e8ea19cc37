//! The pair on the board: inputs shared by devices, the INTR wire, ports.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::bits::{CASCADE, INPUTS};
use super::pair::Pair;
use crate::base::Nanos;
use crate::machine::builtin::device::{Device, LineSink, Wire};
use crate::machine::builtin::devices::lanes;

/// Windows of [`PicDevice`].
const WINDOW_MASTER: usize = 0;
const WINDOW_SLAVE: usize = 1;
const WINDOW_ELCR: usize = 2;

/// Inputs of both chips.
const IRQS: usize = 2 * INPUTS as usize;

/// Sources of a shared input.
const SOURCES: u32 = u64::BITS;

/// Both chips, shared by the bus and by every device that pulls a line.
///
/// The INTR wire is driven with the pair locked, so that levels arrive in their order. What is at
/// its end must not call back from there.
#[derive(Debug)]
pub struct PicPair {
    state: Mutex<State>,
    intr: Wire,
}

#[derive(Debug, Default)]
struct State {
    pair: Pair,
    /// For each input, who pulls it.
    pulled: [u64; IRQS],
}

impl PicPair {
    /// A pair after power-on whose INTR output is `intr`.
    pub fn new(intr: Wire) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), intr })
    }

    /// The interrupt acknowledge cycle: a vector. Level 7 of a chip when the request that
    /// started it is gone. INTR falls in the cycle, so that a further request is a further edge.
    pub fn acknowledge(&self) -> u8 {
        self.with(|pair| {
            let vector = pair.acknowledge();
            self.intr.set(false);
            vector
        })
    }

    /// The level of INTR.
    pub fn output(&self) -> bool {
        self.lock().pair.output()
    }

    /// Interrupt inputs with a request, unmasked or not: slave in the high byte.
    pub fn requests(&self) -> u16 {
        let state = self.lock();
        u16::from_le_bytes([state.pair.master.irr(), state.pair.slave.irr()])
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Pair) -> T) -> T {
        let mut state = self.lock();
        let result = act(&mut state.pair);
        self.intr.set(state.pair.output());
        result
    }
}

impl LineSink for PicPair {
    fn set_line(&self, line: u32, source: u32, high: bool) {
        let mut state = self.lock();
        let Some(pulled) = state.pulled.get_mut(line as usize) else { return };
        let bit = 1 << (source % SOURCES);
        *pulled = if high { *pulled | bit } else { *pulled & !bit };
        let high = *pulled != 0;
        if line != u32::from(CASCADE) {
            state.pair.set_pin(line as u8, high);
            self.intr.set(state.pair.output());
        }
    }
}

/// The pair's registers: window 0 is ports 20h and 21h, 1 is a0h and a1h, 2 is 4d0h and 4d1h.
#[derive(Clone, Debug)]
pub struct PicDevice(pub Arc<PicPair>);

impl PicDevice {
    fn read_byte(&self, window: usize, offset: u64) -> u8 {
        let odd = offset & 1 != 0;
        match window {
            WINDOW_MASTER => self.0.with(|pair| pair.read(false, odd)),
            WINDOW_SLAVE => self.0.with(|pair| pair.read(true, odd)),
            WINDOW_ELCR => self.0.lock().pair.elcr(odd),
            _ => 0xff,
        }
    }

    fn write_byte(&self, window: usize, offset: u64, value: u8) {
        let odd = offset & 1 != 0;
        match window {
            WINDOW_MASTER => self.0.with(|pair| pair.write(false, odd, value)),
            WINDOW_SLAVE => self.0.with(|pair| pair.write(true, odd, value)),
            WINDOW_ELCR => self.0.with(|pair| pair.set_elcr(odd, value)),
            _ => {}
        }
    }
}

impl Device for PicDevice {
    fn name(&self) -> &'static str {
        "pic"
    }

    fn read(&mut self, window: usize, offset: u64, size: u8, _now: Nanos) -> u64 {
        lanes::read(offset, size, |at| self.read_byte(window, at))
    }

    fn write(&mut self, window: usize, offset: u64, size: u8, value: u64, _now: Nanos) {
        lanes::write(offset, size, value, |at, byte| self.write_byte(window, at, byte));
    }

    fn reset(&mut self, _now: Nanos) {
        self.0.with(Pair::reset);
    }
}
