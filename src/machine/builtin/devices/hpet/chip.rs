//! The block's registers and its counter, as a function of time.

use super::bits::*;
use super::timer::{Route, Timer, merge};
use crate::base::Nanos;

/// An HPET block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HpetChip {
    gen_conf: u64,
    gintr_sta: u64,
    /// The main counter at `tick`.
    counter: u64,
    /// Ticks of [`CLK`] seen.
    tick: u64,
    timers: [Timer; TIMERS],
}

impl HpetChip {
    /// A block after reset: halted at zero.
    pub fn new(routes: u32, fsb: bool) -> Self {
        let timers = std::array::from_fn(|_| Timer::new(routes, fsb));
        Self { gen_conf: 0, gintr_sta: 0, counter: 0, tick: 0, timers }
    }

    /// The state after reset, at `now`.
    pub fn reset(&mut self, now: Nanos) {
        let timers = self.timers.each_ref().map(Timer::after_reset);
        *self = Self { timers, tick: CLK.ticks(now), ..Self::new(0, false) };
    }

    /// Whether the legacy replacement route is on.
    pub fn is_legacy(&self) -> bool {
        self.gen_conf & LEG_RT_CNF != 0
    }

    fn is_running(&self) -> bool {
        self.gen_conf & ENABLE_CNF != 0
    }

    /// The lines of timers 0 and 1 while the legacy replacement route is on.
    fn legacy_line(&self, timer: usize) -> Option<u32> {
        let line = match timer {
            0 => 0,
            1 => 8,
            _ => return None,
        };
        self.is_legacy().then_some(line)
    }

    /// When a timer that may interrupt next matches: every time when it is edge triggered, else
    /// until its status is set.
    pub fn deadline(&self) -> Option<Nanos> {
        let counts = self.next_interrupt()?;
        Some(CLK.time_of(self.tick.saturating_add(counts))).filter(|time| *time < Nanos(u64::MAX))
    }

    fn next_interrupt(&self) -> Option<u64> {
        if !self.is_running() {
            return None;
        }
        let waiting = self.timers.iter().enumerate().filter(|(n, timer)| {
            timer.is_enabled() && !(timer.is_level() && self.gintr_sta >> n & 1 != 0)
        });
        waiting.map(|(_, timer)| timer.until_match(self.counter)).min()
    }

    /// Brings the block to `now`; `edge` takes each edge-triggered interrupt, one for every timer
    /// that matched. A caller that wants all stops at each deadline.
    pub fn run(&mut self, now: Nanos, mut edge: impl FnMut(Route)) {
        let counts = CLK.ticks(now).saturating_sub(self.tick);
        self.tick += counts;
        if !self.is_running() || counts == 0 {
            return;
        }
        for n in 0..TIMERS {
            let legacy = self.legacy_line(n);
            let Some(timer) = self.timers.get_mut(n) else { continue };
            if !timer.advance(self.counter, counts) {
                continue;
            }
            match timer.is_level() {
                true => self.gintr_sta |= 1 << n,
                false if timer.is_enabled() => edge(timer.route(legacy)),
                false => {}
            }
        }
        self.counter = self.counter.wrapping_add(counts);
    }

    /// The lines that level-triggered timers hold high, one bit each.
    pub fn levels(&self) -> u32 {
        let held = |(n, timer): (usize, &Timer)| {
            let high = timer.is_level() && timer.is_enabled() && self.gintr_sta >> n & 1 != 0;
            match timer.route(self.legacy_line(n)) {
                Route::Line(Some(line)) if high && self.is_running() => 1 << line,
                _ => 0,
            }
        };
        self.timers.iter().enumerate().map(held).fold(0, |lines, line| lines | line)
    }

    /// Reads the 64-bit register at `offset`, a multiple of 8, as of the last [`HpetChip::run`].
    pub fn read(&self, offset: u64) -> u64 {
        match offset {
            GCAP_ID_REG => GCAP_ID,
            GEN_CONF => self.gen_conf,
            GINTR_STA => self.gintr_sta,
            MAIN_CNT => self.counter,
            _ => {
                let (n, register) = timer_at(offset);
                self.timers.get(n).map_or(0, |timer| timer.read(register))
            }
        }
    }

    /// Writes the bits of `mask` to the 64-bit register at `offset`.
    pub fn write(&mut self, offset: u64, value: u64, mask: u64) {
        match offset {
            GEN_CONF => {
                self.gen_conf = merge(self.gen_conf, value, mask & (ENABLE_CNF | LEG_RT_CNF));
            }
            GINTR_STA => self.gintr_sta &= !(value & mask),
            // §2.3.7: to be written only while halted; a running counter does not take it.
            MAIN_CNT if !self.is_running() => self.counter = merge(self.counter, value, mask),
            _ => {
                let (n, register) = timer_at(offset);
                if let Some(timer) = self.timers.get_mut(n) {
                    timer.write(register, value, mask);
                }
            }
        }
    }
}

/// The timer and its register that lie at `offset`; before the first timer, one that there is not.
fn timer_at(offset: u64) -> (usize, u64) {
    match offset.checked_sub(TIMER0) {
        Some(offset) => ((offset / TIMER_STRIDE) as usize, offset % TIMER_STRIDE),
        None => (usize::MAX, 0),
    }
}
