//! A line of QEMU's log: its time, and the trace event in it.
//!
//! ```text
//! EVENT ARGUMENTS                                    no -msg timestamp=on
//! TID@SEC.USEC:EVENT ARGUMENTS                       -msg timestamp=on, before QEMU 10.2
//! YYYY-MM-DDTHH:MM:SS.ffffffZ EVENT ARGUMENTS        since; the fraction is left out when zero
//! ```
//!
//! After an ISO time a word may name who speaks: `1234`, `1234:`, `[1234]` or
//! `qemu-system-x86_64(1234:main):`.

use crate::import::lines::{number, seconds, word};

/// A line that holds a trace event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'l> {
    /// Unix time in nanoseconds (the source has microseconds).
    pub time: Option<u64>,
    /// The event's name.
    pub event: &'l [u8],
    /// What follows it.
    pub args: &'l [u8],
}

/// Splits a line; `None` when it is no trace event.
pub fn parse(text: &[u8]) -> Option<Line<'_>> {
    let text = text.trim_ascii();
    let (time, rest) = if let Some((time, rest)) = thread_time(text) {
        (Some(time), rest)
    } else if let Some((time, rest)) = iso_time(text) {
        (Some(time), after_speaker(rest))
    } else {
        (None, text)
    };
    let (event, args) = word(rest);
    is_event_name(event).then_some(Line { time, event, args })
}

/// Names of events are C identifiers, and all that QEMU has hold an underscore; prose does not.
fn is_event_name(name: &[u8]) -> bool {
    name.first().is_some_and(u8::is_ascii_alphabetic)
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        && name.contains(&b'_')
}

/// `TID@SEC.USEC:`.
fn thread_time(text: &[u8]) -> Option<(u64, &[u8])> {
    let (thread, rest) = split_at_byte(text, b'@')?;
    let (time, rest) = split_at_byte(rest, b':')?;
    number(thread)?;
    Some((seconds(time)?, rest))
}

/// `YYYY-MM-DDTHH:MM:SS[.f]Z` and what follows the blank after it.
fn iso_time(text: &[u8]) -> Option<(u64, &[u8])> {
    let (stamp, rest) = word(text);
    let stamp = stamp.strip_suffix(b"Z")?;
    let (date, time) = split_at_byte(stamp, b'T')?;
    let (&[y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1], time) = (date, time) else { return None };
    let [h0, h1, b':', n0, n1, b':', second @ ..] = time else { return None };
    let year = number(&[y0, y1, y2, y3])?;
    let (month, day) = (number(&[m0, m1])?, number(&[d0, d1])?);
    let (hour, minute) = (number(&[*h0, *h1])?, number(&[*n0, *n1])?);
    let second_ns = seconds(second)?;
    // A leap second is 60.
    if hour > 23 || minute > 59 || second_ns >= 61_000_000_000 {
        return None;
    }
    let days = days_since_1970(year, month, day)?;
    let whole = days.checked_mul(24)?.checked_add(hour)?.checked_mul(60)?.checked_add(minute)?;
    Some((whole.checked_mul(60_000_000_000)?.checked_add(second_ns)?, rest))
}

/// Days of the Gregorian calendar; `None` for no date, or one before 1970.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let leap_day = |month: u64| u64::from(leap && month > 2);
    let before = BEFORE.get(usize::try_from(month.checked_sub(1)?).ok()?)? + leap_day(month);
    let next = BEFORE.get(usize::try_from(month).ok()?).copied().unwrap_or(365);
    let len = next + leap_day(month + 1) - before;
    if year < 1970 || day == 0 || day > len {
        return None;
    }
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    let years = (year - 1970) * 365 + leaps(year - 1) - leaps(1969);
    Some(years + before + day - 1)
}

/// Leaves out the word that says who speaks, where there is one.
fn after_speaker(text: &[u8]) -> &[u8] {
    let (speaker, rest) = word(text);
    let speaker = speaker.strip_suffix(b":").unwrap_or(speaker);
    let inner = speaker.strip_prefix(b"[").and_then(|inner| inner.strip_suffix(b"]"));
    let program = speaker.ends_with(b")") && speaker.contains(&b'(');
    if program || number(inner.unwrap_or(speaker)).is_some() { rest } else { text }
}

fn split_at_byte(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == at)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn time_of(text: &str) -> Option<u64> {
        let line = parse(text.as_bytes()).expect("an event");
        assert_eq!((line.event, line.args), (&b"cpu_in"[..], &b"addr 0x70(b) value 1"[..]));
        line.time
    }

    const EVENT: &str = "cpu_in addr 0x70(b) value 1";

    #[test]
    fn the_three_shapes() {
        assert_eq!(time_of(EVENT), None);
        let epoch_ns = Some(1_795_334_721_345_295_000);
        assert_eq!(time_of(&format!("21520@1795334721.345295:{EVENT}")), epoch_ns);
        for speaker in ["", "21520 ", "21520: ", "[21520] ", "qemu-system-x86_64(21520:main): "] {
            let line = format!("2026-11-22T08:45:21.345295Z {speaker}{EVENT}\r");
            assert_eq!(time_of(&line), Some(1_795_337_121_345_295_000), "{speaker:?}");
        }
        // GLib leaves out a fraction of zero.
        assert_eq!(time_of(&format!("1970-01-02T00:00:01Z {EVENT}")), Some(86_401_000_000_000));
    }

    #[test]
    fn dates_of_the_calendar() {
        for (date, days) in [
            ((1970, 1, 1), Some(0)),
            ((1972, 2, 29), Some(789)),
            ((1972, 3, 1), Some(790)),
            ((2000, 12, 31), Some(11_322)),
            ((2001, 1, 1), Some(11_323)),
            ((2024, 2, 29), Some(19_782)),
            ((2026, 9, 24), Some(20_720)),
            ((2100, 3, 1), Some(47_541)),
            ((2023, 2, 29), None),
            ((2100, 2, 29), None),
            ((2023, 4, 31), None),
            ((2023, 0, 1), None),
            ((2023, 13, 1), None),
            ((2023, 1, 0), None),
            ((1969, 12, 31), None),
        ] {
            assert_eq!(days_since_1970(date.0, date.1, date.2), days, "{date:?}");
        }
    }

    #[test]
    fn what_is_no_event() {
        for text in [
            "",
            "qemu-system-x86_64: warning: something",
            "Invalid access at addr 0x10",
            "2026-11-22T08:45:21Z qemu-system-x86_64: warning",
            "1@2:3:cpu_in",
            "x@1.000000:cpu_in",
            "_x 1",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        // A time that is none leaves its line without an event, not with a wrong time.
        for stamp in ["2026-13-22T08:45:21Z", "2026-11-22T24:00:00Z", "2026-11-22T08:60:00Z"] {
            assert_eq!(parse(format!("{stamp} {EVENT}").as_bytes()), None, "{stamp}");
        }
    }
}
