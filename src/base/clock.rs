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
    /// How long the host takes until `duration` has passed on this clock: what to sleep.
    fn host_duration(&self, duration: Nanos) -> Nanos {
        duration
    }
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

/// The host's time, faster or slower by a fixed factor, counted from its creation.
#[derive(Debug)]
pub struct ScaledClock {
    host: HostClock,
    /// Nanoseconds of this clock in [`ScaledClock::UNIT`] of the host's.
    rate: u64,
}

impl ScaledClock {
    const UNIT: u64 = 1_000_000;

    /// Factors from a millionth to a million, in steps of a millionth.
    const RATES: std::ops::RangeInclusive<f64> = 1.0..=1e12;

    /// A clock that reads zero now and runs `factor` times as fast as the host's; `None` for a
    /// factor that is no number, or outside a millionth to a million.
    pub fn new(factor: f64) -> Option<Self> {
        let rate = (factor * Self::UNIT as f64).round();
        let usable = Self::RATES.contains(&rate);
        usable.then(|| Self { host: HostClock::new(), rate: rate as u64 })
    }
}

/// `a * b / c`, rounded up, at the end of time when it lies beyond.
fn mul_div(a: u64, b: u64, c: u64) -> u64 {
    let value = (u128::from(a) * u128::from(b)).div_ceil(u128::from(c.max(1)));
    u64::try_from(value).unwrap_or(u64::MAX)
}

impl Clock for ScaledClock {
    fn now(&self) -> Nanos {
        Nanos(mul_div(self.host.now().0, self.rate, Self::UNIT))
    }

    fn grade(&self) -> TimeGrade {
        TimeGrade::RealTime
    }

    fn is_virtual(&self) -> bool {
        false
    }

    fn advance_to(&self, _deadline: Nanos) {}

    fn host_duration(&self, duration: Nanos) -> Nanos {
        Nanos(mul_div(duration.0, Self::UNIT, self.rate))
    }
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
    fn scaled_time_follows_the_hosts_by_its_factor() {
        let clock = ScaledClock::new(1000.0).unwrap();
        let host = HostClock::new();
        let (before, scaled) = (host.now(), clock.now());
        assert!(scaled.0 >= before.0 * 1000, "{scaled:?} at {before:?}");
        assert_eq!(clock.host_duration(Nanos(5_000_000)), Nanos(5_000));
        let slow = ScaledClock::new(0.25).unwrap();
        assert_eq!(slow.host_duration(Nanos(1000)), Nanos(4000));
        assert_eq!(clock.grade(), TimeGrade::RealTime);
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e7, 1e-8] {
            assert!(ScaledClock::new(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn virtual_time_moves_only_forward_and_is_shared() {
        let clock = VirtualClock::new();
        let other = clock.clone();
        clock.advance_to(Nanos(50));
        other.advance_to(Nanos(20));
        assert_eq!((clock.now(), other.now()), (Nanos(50), Nanos(50)));
    }
}
