//! Clocks: where a run's time comes from, and how exact a figure measured by it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::units::Nanos;

/// How far a duration may be trusted; printed beside every duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeGrade {
    /// Builtin machine, virtual clock: the same trace gives the same times, always.
    Deterministic,
    /// Virtual timers are ours, host I/O is not (QEMU under qtest).
    ClockStepped,
    /// The host's clock.
    RealTime,
}

impl TimeGrade {
    /// The words a report prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Deterministic => "deterministic",
            Self::ClockStepped => "clock-stepped",
            Self::RealTime => "real time",
        }
    }
}

/// A source of time for a run. Times count from the clock's own start.
pub trait Clock: Send + Sync {
    /// Nanoseconds since the clock started. Never goes back.
    fn now(&self) -> Nanos;
    /// What a time of this clock is worth.
    fn grade(&self) -> TimeGrade;
    /// Whether time stands still until [`Clock::advance_to`] moves it.
    fn is_virtual(&self) -> bool;
    /// Moves a virtual clock forward to `deadline`; nothing on a host clock, or when it is past.
    fn advance_to(&self, deadline: Nanos);
}

/// `CLOCK_MONOTONIC`, counted from its creation.
#[derive(Debug)]
pub struct HostClock(std::time::Instant);

impl HostClock {
    /// A clock that reads zero now.
    pub fn new() -> Self {
        Self(std::time::Instant::now())
    }
}

impl Default for HostClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for HostClock {
    fn now(&self) -> Nanos {
        Nanos(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn grade(&self) -> TimeGrade {
        TimeGrade::RealTime
    }

    fn is_virtual(&self) -> bool {
        false
    }

    fn advance_to(&self, _deadline: Nanos) {}
}

/// Time that moves only when told to; clones share it.
#[derive(Clone, Debug, Default)]
pub struct VirtualClock(Arc<AtomicU64>);

impl VirtualClock {
    /// A clock at zero.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Nanos {
        Nanos(self.0.load(Ordering::Acquire))
    }

    fn grade(&self) -> TimeGrade {
        TimeGrade::Deterministic
    }

    fn is_virtual(&self) -> bool {
        true
    }

    fn advance_to(&self, deadline: Nanos) {
        self.0.fetch_max(deadline.0, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_time_moves_only_forward_and_is_shared() {
        let clock = VirtualClock::new();
        let other = clock.clone();
        clock.advance_to(Nanos(50));
        other.advance_to(Nanos(20));
        assert_eq!((clock.now(), other.now()), (Nanos(50), Nanos(50)));
    }
}
