//! The machine's time when commands move it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::{Clock, Nanos, TimeGrade};

/// QEMU's virtual clock, as its last answer told it. Only [`Machine::wait`] moves it.
///
/// [`Machine::wait`]: crate::machine::Machine::wait
#[derive(Debug, Default)]
pub struct SteppedClock(AtomicU64);

impl SteppedClock {
    /// What QEMU says the time is.
    pub fn set(&self, now: Nanos) {
        self.0.fetch_max(now.0, Ordering::AcqRel);
    }
}

impl Clock for SteppedClock {
    fn now(&self) -> Nanos {
        Nanos(self.0.load(Ordering::Acquire))
    }

    fn grade(&self) -> TimeGrade {
        TimeGrade::ClockStepped
    }

    fn is_virtual(&self) -> bool {
        true
    }

    fn advance_to(&self, _deadline: Nanos) {}
}
