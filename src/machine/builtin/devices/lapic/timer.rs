//! The APIC timer: a count down from the divided bus clock (SDM §11.5.4).

use super::bits::BUS_HERTZ;
use crate::base::{Frequency, Nanos};

const BUS: Frequency = Frequency::new(BUS_HERTZ);

/// The counter. Its state follows from the moment it was last loaded; nothing is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timer {
    initial: u32,
    configuration: u32,
    periodic: bool,
    run: Option<Run>,
}

/// A count under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// Bus ticks at which the count was `from`.
    start: u64,
    /// Not 0.
    from: u32,
}

impl Timer {
    /// The initial count register.
    pub fn initial(&self) -> u32 {
        self.initial
    }

    /// The divide configuration register.
    pub fn configuration(&self) -> u32 {
        self.configuration
    }

    /// Brings the count to `now`; whether it reached 0 since the last call, once or more often.
    pub fn advance(&mut self, now: Nanos) -> bool {
        let (tick, divisor) = (BUS.ticks(now), self.divisor());
        let Some(run) = &mut self.run else { return false };
        let elapsed = tick.saturating_sub(run.start);
        let Some(past) = elapsed.checked_sub(u64::from(run.from) * divisor) else { return false };
        if self.periodic {
            // Loaded again in the moment it is 0, each time.
            let period = (u64::from(self.initial) * divisor).max(1);
            *run = Run { start: tick - past % period, from: self.initial };
        } else {
            self.run = None;
        }
        true
    }

    /// The current count register. Call [`Timer::advance`] first, here and below.
    pub fn current(&self, now: Nanos) -> u32 {
        let Some(run) = &self.run else { return 0 };
        let counted = BUS.ticks(now).saturating_sub(run.start) / self.divisor();
        run.from.saturating_sub(u32::try_from(counted).unwrap_or(u32::MAX))
    }

    /// Writes the initial count: the count starts anew, and 0 stops it.
    pub fn load(&mut self, initial: u32, now: Nanos) {
        self.initial = initial;
        self.run = (initial != 0).then_some(Run { start: BUS.ticks(now), from: initial });
    }

    /// Writes the divide configuration: a count under way goes on at the new rate.
    pub fn configure(&mut self, configuration: u32, now: Nanos) {
        let from = self.current(now);
        self.configuration = configuration;
        if self.run.is_some() {
            self.run = Some(Run { start: BUS.ticks(now), from });
        }
    }

    /// Chooses what happens at 0: stop or begin again.
    pub fn set_periodic(&mut self, periodic: bool) {
        self.periodic = periodic;
    }

    /// When the count is 0 next.
    pub fn expiry(&self) -> Option<Nanos> {
        let run = self.run.as_ref()?;
        let tick = run.start.checked_add(u64::from(run.from) * self.divisor())?;
        Some(BUS.time_of(tick)).filter(|time| time.0 < u64::MAX)
    }

    /// SDM figure 11-10: bits 3, 1 and 0, where 0 divides by 2 and 7 by 1.
    fn divisor(&self) -> u64 {
        let code = self.configuration >> 1 & 4 | self.configuration & 3;
        1 << ((code + 1) & 7)
    }
}
