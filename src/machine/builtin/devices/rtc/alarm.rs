//! The alarm: three bytes compared with the time at each update.

use super::bits::ALARM_DONT_CARE;
use super::calendar::{DAY_SECONDS, Format};

/// What one alarm byte asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Match {
    Always,
    At(u32),
    /// A value that the time never has.
    Never,
}

impl Match {
    fn new(byte: u8, value: Option<u32>) -> Self {
        if byte & ALARM_DONT_CARE == ALARM_DONT_CARE {
            return Self::Always;
        }
        value.map_or(Self::Never, Self::At)
    }

    fn holds(self, value: u32) -> bool {
        match self {
            Self::Always => true,
            Self::At(at) => at == value,
            Self::Never => false,
        }
    }
}

/// The alarm time, read from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alarm {
    second: Match,
    minute: Match,
    hour: Match,
}

impl Alarm {
    /// From the bytes at `SECONDS_ALARM`, `MINUTES_ALARM` and `HOURS_ALARM`.
    pub fn new(second: u8, minute: u8, hour: u8, format: Format) -> Self {
        Self {
            second: Match::new(second, format.valid(second, 59)),
            minute: Match::new(minute, format.valid(minute, 59)),
            hour: Match::new(hour, format.valid_hour(hour)),
        }
    }

    /// Seconds from `second_of_day` to the next match after it, at most a day; `None` when there
    /// is none on any day.
    pub fn next(&self, second_of_day: u32) -> Option<u32> {
        if [self.second, self.minute, self.hour].contains(&Match::Never) {
            return None;
        }
        let (mut at, end) = (second_of_day + 1, second_of_day + DAY_SECONDS);
        // Skips whole hours, then whole minutes: about 140 steps at most.
        while at <= end {
            let (hour, minute) = (at / 3600 % 24, at / 60 % 60);
            if !self.hour.holds(hour) {
                at = (at / 3600 + 1) * 3600;
            } else if !self.minute.holds(minute) {
                at = (at / 60 + 1) * 60;
            } else if !self.second.holds(at % 60) {
                at += 1;
            } else {
                return Some(at - second_of_day);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BINARY: Format = Format { binary: true, hours_24: true };
    const ANY: u8 = 0xc0;

    /// The definition, second by second.
    fn by_search(bytes: [u8; 3], from: u32) -> Option<u32> {
        let holds = |byte: u8, value: u32| byte >= ANY || u32::from(byte) == value;
        (1..=DAY_SECONDS).find(|step| {
            let at = (from + step) % DAY_SECONDS;
            let [second, minute, hour] = bytes;
            holds(second, at % 60) && holds(minute, at / 60 % 60) && holds(hour, at / 3600)
        })
    }

    #[test]
    fn the_next_match_is_the_first_one() {
        let values = [[0, 59, 30], [0, 59, 30], [0, 23, 12]];
        for mask in 0..8u8 {
            for pick in 0..27usize {
                let mut bytes = [values[0][pick % 3], values[1][pick / 3 % 3], values[2][pick / 9]];
                for (i, byte) in bytes.iter_mut().enumerate() {
                    if mask >> i & 1 != 0 {
                        *byte = ANY + pick as u8;
                    }
                }
                let alarm = Alarm::new(bytes[0], bytes[1], bytes[2], BINARY);
                for from in [0, 1, 59, 60, 3599, 43_200, 45_029, 45_030, 86_340, 86_398, 86_399] {
                    assert_eq!(alarm.next(from), by_search(bytes, from), "{bytes:x?} {from}");
                }
            }
        }
    }

    #[test]
    fn a_value_that_no_time_has_never_matches() {
        let bcd = Format { binary: false, hours_24: false };
        for bytes in [[0x60, ANY, ANY], [0x0a, ANY, ANY], [ANY, 0x7f, ANY], [ANY, ANY, 0x13]] {
            assert_eq!(Alarm::new(bytes[0], bytes[1], bytes[2], bcd).next(5), None, "{bytes:x?}");
        }
        assert_eq!(Alarm::new(0, 0, 24, BINARY).next(0), None);
        // In the 12-hour format midnight is 12 before noon, and 0 is no hour.
        assert_eq!(Alarm::new(0, 0, 0x12, bcd).next(DAY_SECONDS - 1), Some(1));
        assert_eq!(Alarm::new(0, 0, 0x00, bcd).next(0), None);
        assert_eq!(Alarm::new(0, 0, 0x92, bcd).next(0), Some(DAY_SECONDS / 2));
    }
}
