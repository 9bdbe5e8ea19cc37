//! Exact conversion between nanoseconds and the ticks of a crystal, both ways.

use super::units::Nanos;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// The frequency of a counter, in hertz. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frequency(u64);

impl Frequency {
    /// A counter of `hertz` ticks a second; 0 is taken as 1.
    pub const fn new(hertz: u64) -> Self {
        Self(if hertz == 0 { 1 } else { hertz })
    }

    /// Ticks a second.
    pub const fn hertz(self) -> u64 {
        self.0
    }

    /// Whole ticks that `time` nanoseconds hold, rounded down.
    pub const fn ticks(self, time: Nanos) -> u64 {
        let ticks = time.0 as u128 * self.0 as u128 / NANOS_PER_SECOND;
        if ticks > u64::MAX as u128 { u64::MAX } else { ticks as u64 }
    }

    /// The first nanosecond at which [`Frequency::ticks`] is at least `ticks`; the end of time
    /// when that is beyond it.
    pub const fn time_of(self, ticks: u64) -> Nanos {
        let time = (ticks as u128 * NANOS_PER_SECOND).div_ceil(self.0 as u128);
        Nanos(if time > u64::MAX as u128 { u64::MAX } else { time as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_tick_is_its_first_nanosecond() {
        for hertz in [1, 1024, 32_768, 1_193_182, 3_579_545, 14_318_180, 100_000_000] {
            let frequency = Frequency::new(hertz);
            for tick in [0, 1, 2, 3, 1000, 32_767, 123_456_789] {
                let time = frequency.time_of(tick);
                assert_eq!(frequency.ticks(time), tick, "{hertz} Hz");
                if time.0 > 0 {
                    assert_eq!(frequency.ticks(Nanos(time.0 - 1)), tick - 1, "{hertz} Hz");
                }
            }
        }
        assert_eq!(Frequency::new(2).time_of(u64::MAX), Nanos(u64::MAX));
    }
}
