//! The options that say which events of a trace are meant, as `show`, `edit` and `export` share
//! them.

use std::collections::BTreeSet;

use crate::base::units::{parse_nanos, parse_size};
use crate::base::{Error, Result, SECTOR_SIZE};
use crate::trace::{Filter, Kinds, Span, Trace};

/// Nanoseconds of a second: the unit of times without one, as in a replay.
const SECOND_NS: u64 = 1_000_000_000;

/// Devices listed in an error.
const LISTED_MAX: usize = 12;

/// Which events.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Which events")]
pub struct Selection {
    /// Only these kinds, comma-separated: read, write, flush, discard, write-zeroes, get-id
    /// (request: all six, each with its completion), complete, mark; of a bus: in, out, mmio-read,
    /// mmio-write (bus: all four), memory, irq, ack, clock.
    #[arg(long, value_name = "KIND,…", value_delimiter = ',')]
    op: Vec<String>,
    /// Only what touches bytes A up to, not including, B of the disk, or addresses of a bus:
    /// 1M-2M, 4k+512, 2048s+8s (s: sectors), 0x70-0x72; either end may be left out. Repeatable.
    #[arg(long, value_name = "A-B|A+LEN", allow_hyphen_values = true)]
    range: Vec<String>,
    /// Only this part of the recorded time (s; ms, us, ns as suffix): 1s-2.5s, 250ms-, -10s.
    #[arg(long, value_name = "A-B", allow_hyphen_values = true)]
    time: Option<String>,
    /// Only events A up to, not including, B; either may be left out.
    #[arg(long, value_name = "A-B", allow_hyphen_values = true)]
    events: Option<String>,
    /// Only these streams, by number, comma-separated.
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    stream: Vec<u32>,
    /// Only the streams of this device (or region of a bus), by its name.
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
}

impl Selection {
    /// The filter that they say, for `trace`.
    ///
    /// # Errors
    /// Usage: an option that cannot be understood, or names what the trace does not have.
    pub fn filter(&self, trace: &Trace) -> Result<Filter> {
        let ranges = self.range.iter().map(|text| range(text)).collect::<Result<_>>()?;
        let events =
            span_option("--events", self.events.as_deref(), "100-200, 100- or -200", |n| {
                n.parse().ok()
            })?;
        let times = span_option("--time", self.time.as_deref(), "1s-2.5s, 250ms- or -10s", |n| {
            parse_nanos(n, SECOND_NS)
        })?;
        Ok(Filter {
            kinds: kinds("--op", &self.op)?,
            ranges,
            streams: self.streams(trace)?,
            events,
            times,
        })
    }

    /// Whether all of a trace is meant.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Whether streams are chosen by number.
    pub fn names_streams(&self) -> bool {
        !self.stream.is_empty()
    }

    fn streams(&self, trace: &Trace) -> Result<Option<BTreeSet<u32>>> {
        let count = trace.streams().len();
        if let Some(stream) = self.stream.iter().find(|stream| **stream as usize >= count) {
            let hint = "qtrace info lists the streams";
            let what = format!("--stream {stream}: the trace has {count} streams, from 0");
            return Err(Error::usage(what).path(trace.path()).hint(hint));
        }
        let mut chosen = (!self.stream.is_empty()).then(|| self.stream.iter().copied().collect());
        if let Some(name) = &self.device {
            let of_device = of_device(trace, name)?;
            let both = |chosen: BTreeSet<u32>| chosen.intersection(&of_device).copied().collect();
            chosen = Some(chosen.map_or_else(|| of_device.clone(), both));
        }
        Ok(chosen)
    }
}

/// The streams of a device.
fn of_device(trace: &Trace, name: &str) -> Result<BTreeSet<u32>> {
    let streams: BTreeSet<u32> = (0..)
        .zip(trace.streams())
        .filter(|(_, info)| info.device == name)
        .map(|(n, _)| n)
        .collect();
    if !streams.is_empty() {
        return Ok(streams);
    }
    let names: BTreeSet<&str> = trace.streams().iter().map(|info| info.device.as_str()).collect();
    let mut listed: Vec<String> =
        names.iter().take(LISTED_MAX).map(|name| format!("'{}'", name.escape_debug())).collect();
    if names.len() > LISTED_MAX {
        listed.push("…".to_owned());
    }
    Err(Error::usage(format!("--device: the trace has no '{}'", name.escape_debug()))
        .path(trace.path())
        .hint(format!("it has {}", listed.join(", "))))
}

/// Warns of a trace that lacks its end.
pub fn warn_if_cut(trace: &Trace) {
    if let Some(cut) = trace.truncation() {
        let path = trace.path().display();
        tracing::warn!("{path}: cut short at offset {}: {}", cut.offset, cut.why);
    }
}

/// The kinds that the words of `option` name.
///
/// # Errors
/// Usage: an unknown word.
pub fn kinds(option: &str, words: &[String]) -> Result<Kinds> {
    let kind = |word: &String| {
        Kinds::parse(word.trim()).ok_or_else(|| {
            Error::usage(format!("{option}: no kind of event '{}'", word.escape_debug()))
                .hint(format!("kinds: {}", Kinds::words().join(", ")))
        })
    };
    words.iter().try_fold(Kinds::empty(), |all, word| Ok(all | kind(word)?))
}

/// `A-B`, either end of which may be left out.
fn span(text: &str, parse: impl Fn(&str) -> Option<u64>) -> Option<Span> {
    let (from, to) = text.split_once('-')?;
    let from = if from.trim().is_empty() { 0 } else { parse(from)? };
    let to = if to.trim().is_empty() { u64::MAX } else { parse(to)? };
    (from < to).then_some(Span { from, to })
}

fn span_option(
    option: &str,
    text: Option<&str>,
    forms: &str,
    parse: impl Fn(&str) -> Option<u64>,
) -> Result<Span> {
    let Some(text) = text else { return Ok(Span::default()) };
    span(text, parse).ok_or_else(|| {
        Error::usage(format!("{option} '{}' is no A-B with A below B", text.escape_debug()))
            .hint(format!("such as {forms}"))
    })
}

/// Bytes or addresses: `A-B` or `A+LEN`.
///
/// # Errors
/// Usage: neither.
pub fn range(text: &str) -> Result<Span> {
    let from_len = || {
        let (from, len) = text.split_once('+')?;
        let (from, len) = (place(from)?, place(len)?);
        (len > 0).then_some(Span { from, to: from.checked_add(len)? })
    };
    span(text, place).or_else(from_len).ok_or_else(|| {
        Error::usage(format!("the range '{}' is neither A-B nor A+LEN", text.escape_debug()))
            .hint("such as 1M-2M, 4k+512, 2048s+8s (sectors), 0x70-0x72; A below B")
    })
}

/// A byte or an address: a size, a hexadecimal number, or sectors with an `s` behind.
pub fn place(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16).ok();
    }
    if let Some(sectors) = text.strip_suffix('s') {
        return sectors.parse::<u64>().ok()?.checked_mul(SECTOR_SIZE);
    }
    parse_size(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_in_bytes_sectors_and_addresses() {
        for (text, from, to) in [
            ("1M-2M", 1 << 20, 2 << 20),
            ("4k+512", 4096, 4608),
            ("2048s+8s", 1 << 20, (1 << 20) + 4096),
            ("0x70-0x72", 0x70, 0x72),
            ("-8s", 0, 4096),
            ("1G-", 1 << 30, u64::MAX),
        ] {
            assert_eq!(range(text).expect(text), Span { from, to });
        }
        for text in ["", "5", "2M-1M", "1M+0", "x-y", "1-2-3", "18446744073709551615+1"] {
            let error = range(text).expect_err(text);
            assert_eq!(error.kind().exit_code(), 2);
            assert!(error.hint_text().is_some());
        }
    }

    #[test]
    fn spans_may_be_open() {
        let events = |text| span_option("--events", Some(text), "x", |n| n.parse().ok()).unwrap();
        assert_eq!(events("3-"), Span { from: 3, to: u64::MAX });
        assert_eq!(events("-7"), Span { from: 0, to: 7 });
        assert!(events("-").is_all());
        assert!(span_option("--events", Some("7-3"), "x", |n| n.parse().ok()).is_err());
    }

    #[test]
    fn an_unknown_kind_lists_the_known() {
        assert_eq!(
            kinds("--op", &["read".into(), " mark".into()]).unwrap(),
            Kinds::READ | Kinds::MARK
        );
        let error = kinds("--op", &["reed".into()]).unwrap_err();
        assert!(error.hint_text().unwrap().contains("write-zeroes"));
    }
}
