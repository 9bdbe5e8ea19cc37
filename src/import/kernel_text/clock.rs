//! Times of a trace clock.
//!
//! `SECONDS.FRACTION` is what all clocks that count nanoseconds look like. The others (`counter`,
//! `x86-tsc`, `uptime`) stand as whole numbers of a unit that the text does not name: it can be told,
//! and is a nanosecond otherwise, with a note.

use super::prefix::Stamp;
use crate::import::TimeUnit;
use crate::import::job::Job;
use crate::import::lines::{number, seconds};
use crate::trace::NotRecorded;

const BILLION: u128 = 1_000_000_000;

/// A whole number, in billionths.
fn whole(text: &[u8]) -> Option<u128> {
    Some(u128::from(number(text)?) * BILLION)
}

/// Reads times.
#[derive(Clone, Debug)]
pub(in crate::import) struct Clock {
    told: Option<TimeUnit>,
    ticks: bool,
    millis: bool,
    none: bool,
}

impl Clock {
    /// A clock; `told` is what a whole number counts, and a second where fractions are.
    pub fn new(told: Option<TimeUnit>) -> Self {
        Self { told, ticks: false, millis: false, none: false }
    }

    /// Nanoseconds of the trace clock.
    pub fn read(&mut self, stamp: Stamp<'_>) -> Option<u64> {
        let (billionths, unit) = match stamp {
            Stamp::Seconds(text) => (seconds(text)?.into(), TimeUnit::S),
            Stamp::Micros(text) => (whole(text)?, TimeUnit::Us),
            Stamp::Millis(text) => {
                self.millis = true;
                (seconds(text)?.into(), TimeUnit::Ms)
            }
            Stamp::None => {
                self.none = true;
                return Some(0);
            }
            Stamp::Ticks(text) => {
                self.ticks = true;
                (whole(text)?, TimeUnit::Ns)
            }
        };
        let unit = u128::from(self.told.unwrap_or(unit).nanos());
        u64::try_from(billionths.checked_mul(unit)? / BILLION).ok()
    }

    /// Whether it has read whole numbers.
    pub fn is_ticking(&self) -> bool {
        self.ticks
    }

    /// What a trace of these lacks.
    pub fn lacks(&self) -> NotRecorded {
        if self.none { NotRecorded::TIMES } else { NotRecorded::empty() }
    }

    /// Says how times are read, once some were.
    pub fn describe(&self, job: &mut Job<'_>) {
        if self.none {
            job.interpret("times: none in the text; events stand in its order");
            return;
        }
        let what = match (self.told, self.ticks) {
            (Some(unit), _) => format!("units of {} ns of the trace clock, as told", unit.nanos()),
            (None, true) => "whole numbers, read as nanoseconds of the trace clock".to_owned(),
            (None, false) if self.millis => "milliseconds".to_owned(),
            (None, false) => "seconds of the trace clock".to_owned(),
        };
        job.interpret(format!("times: {what}, from the first event"));
        if self.ticks && self.told.is_none() {
            job.summary.note(
                "times are whole numbers of a trace clock that does not say its unit: read as \
                 nanoseconds (--time-unit tells another)",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_clock_in_nanoseconds() {
        let mut clock = Clock::new(None);
        assert_eq!(clock.read(Stamp::Seconds(b"24.511307")), Some(24_511_307_000));
        assert_eq!(clock.read(Stamp::Seconds(b"24.511307001")), Some(24_511_307_001));
        assert_eq!(clock.read(Stamp::Micros(b"17")), Some(17_000));
        assert!(!clock.ticks);
        assert_eq!(clock.read(Stamp::Ticks(b"17")), Some(17));
        assert!(clock.ticks);
        assert_eq!(clock.read(Stamp::Ticks(b"18446744073709551616")), None);
        assert_eq!(clock.read(Stamp::Millis(b"1.002")), Some(1_002_000));
        let mut clock = Clock::new(Some(TimeUnit::Ms));
        assert_eq!(clock.read(Stamp::Ticks(b"17")), Some(17_000_000));
        assert_eq!(clock.read(Stamp::Seconds(b"1.5")), Some(1_500_000));
        assert_eq!(clock.read(Stamp::Ticks(b"18446744073709551615")), None);
    }
}
