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

use crate::import::calendar::unix_ns;
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
    // A mail may quote it.
    let quoted = |byte: &u8| *byte == b'>' || byte.is_ascii_whitespace();
    let start = text.iter().position(|byte| !quoted(byte)).unwrap_or(text.len());
    let text = text.get(start..)?.trim_ascii_end();
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
    let (date, time) = split_at_byte(stamp.strip_suffix(b"Z")?, b'T')?;
    Some((unix_ns(date, time)?, rest))
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
        assert_eq!(time_of(&format!("> > {EVENT}\r")), None);
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
