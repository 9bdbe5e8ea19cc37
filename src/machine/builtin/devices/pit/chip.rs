//! The three counters, the control word and port 61h, as a function of time.

use super::bits::*;
use super::counter::Counter;
use crate::base::Nanos;

/// What bit 4 of port 61h does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refresh {
    /// It changes with every refresh cycle, each 18 clocks.
    #[default]
    Cycles,
    /// It changes with every read, as it does in QEMU: recordings made there compare equal.
    Reads,
}

/// An 8254 with the system control port of a PC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PitChip {
    counters: [Counter; 3],
    /// CLK pulses that the counters have seen.
    clks: u64,
    nmisc: u8,
    refresh: Refresh,
    refresh_level: bool,
}

impl PitChip {
    /// A timer after power-on. GATE of counters 0 and 1 is tied high, that of counter 2 is low.
    pub fn new(refresh: Refresh) -> Self {
        let counters = [Counter::new(true), Counter::new(true), Counter::new(false)];
        Self { counters, clks: 0, nmisc: 0, refresh, refresh_level: false }
    }

    /// The state after power-on, at `now`.
    pub fn reset(&mut self, now: Nanos) {
        *self = Self { clks: CLK.ticks(now), ..Self::new(self.refresh) };
    }

    /// Brings the counters to `now`.
    pub fn run(&mut self, now: Nanos) {
        let clks = CLK.ticks(now);
        let passed = clks.saturating_sub(self.clks);
        self.clks = self.clks.max(clks);
        if passed > 0 {
            self.counters.iter_mut().for_each(|counter| counter.advance(passed));
        }
    }

    /// OUT of counter 0.
    pub fn out0(&self) -> bool {
        self.counters[COUNTER_IRQ0].out()
    }

    /// OUT of counter 2 as far as the speaker hears it.
    pub fn speaker(&self) -> bool {
        self.nmisc & NMISC_SPEAKER != 0 && self.counters[COUNTER_SPEAKER].out()
    }

    /// When OUT of counter 0 next changes.
    pub fn deadline(&self) -> Option<Nanos> {
        let clks = self.counters[COUNTER_IRQ0].until_edge()?;
        Some(CLK.time_of(self.clks.saturating_add(clks))).filter(|time| *time < Nanos(u64::MAX))
    }

    /// Reads a byte of ports 40h to 43h. The control word register is write-only and reads as 0.
    pub fn read(&mut self, offset: u64, now: Nanos) -> u8 {
        self.run(now);
        self.counters.get_mut(offset as usize).map_or(0, Counter::read)
    }

    /// Writes a byte of ports 40h to 43h.
    pub fn write(&mut self, offset: u64, byte: u8, now: Nanos) {
        self.run(now);
        if offset == CONTROL {
            self.control(byte);
        } else if let Some(counter) = self.counters.get_mut(offset as usize) {
            counter.write(byte);
        }
    }

    fn control(&mut self, word: u8) {
        let select = word >> SC_SHIFT;
        if select == SC_READ_BACK {
            return self.read_back(word);
        }
        let Some(counter) = self.counters.get_mut(usize::from(select)) else { return };
        match word >> RW_SHIFT & 3 {
            0 => counter.latch_count(),
            _ => counter.program(word),
        }
    }

    fn read_back(&mut self, command: u8) {
        for (n, counter) in self.counters.iter_mut().enumerate() {
            if command & READ_BACK_CNT0 << n == 0 {
                continue;
            }
            if command & READ_BACK_NO_COUNT == 0 {
                counter.latch_count();
            }
            if command & READ_BACK_NO_STATUS == 0 {
                counter.latch_status();
            }
        }
    }

    /// Reads port 61h.
    pub fn read_nmisc(&mut self, now: Nanos) -> u8 {
        self.run(now);
        let refresh = match self.refresh {
            Refresh::Cycles => (self.clks / REFRESH_CLKS) & 1 != 0,
            Refresh::Reads => {
                self.refresh_level = !self.refresh_level;
                self.refresh_level
            }
        };
        let out2 = self.counters[COUNTER_SPEAKER].out();
        let bit = |bit: u8, set: bool| if set { bit } else { 0 };
        self.nmisc | bit(NMISC_REFRESH, refresh) | bit(NMISC_OUT2, out2)
    }

    /// Writes port 61h.
    pub fn write_nmisc(&mut self, byte: u8, now: Nanos) {
        self.run(now);
        self.nmisc = byte & NMISC_WRITABLE;
        self.counters[COUNTER_SPEAKER].set_gate(byte & NMISC_GATE2 != 0);
    }
}
