//! Lines of `perf trace -e block:*`: milliseconds since the first event, the thread unless there is
//! but one, and the event's fields.
//!
//! ```text
//!      0.000 fio/220 block:block_rq_issue(dev: 8388608, sector: 2048, nr_sector: 8, …)
//!      0.000 (         ): fio/220 block:block_rq_issue(dev: 8388608, …)
//!      0.000 block:block_rq_issue:8,0 WS 4096 () 2048 + 8 [fio])                         before Linux 5.0
//! ```
//!
//! Source: Linux `tools/perf/builtin-trace.c`.

use super::prefix::{Event, Stamp, is_name};
use crate::import::lines::{number, word};

/// Digits behind the point of a time.
const DECIMALS: usize = 3;

/// Reads a line.
pub(super) fn event(line: &[u8]) -> Option<Event<'_>> {
    let (time, mut rest) = word(line);
    let dot = time.iter().position(|byte| *byte == b'.')?;
    let (whole, fraction) = time.split_at(dot);
    if fraction.len() != 1 + DECIMALS || number(whole).is_none() || number(&fraction[1..]).is_none()
    {
        return None;
    }
    // How long a system call took: of an event nothing.
    if rest.starts_with(b"(") {
        rest = rest.get(memchr::memmem::find(rest, b"): ")? + 3..)?;
    }
    let rest = rest.trim_ascii_start();
    let mut at = 0;
    loop {
        let (text, after) = word(rest.get(at..)?);
        if text.is_empty() {
            return None;
        }
        if let Some((system, name, args)) = named(rest.get(at..)?) {
            let (comm, tid) = thread(rest.get(..at)?);
            let time = Stamp::Millis(time);
            return Some(Event { comm, tid, cpu: None, time, system: Some(system), name, args });
        }
        at = rest.len() - after.len();
    }
}

/// `SYSTEM:NAME(ARGS)`, `SYSTEM:NAME:ARGS)`.
fn named(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let colon = text.iter().position(|byte| *byte == b':')?;
    let (system, rest) = (text.get(..colon)?, text.get(colon + 1..)?);
    let end = rest.iter().position(|byte| matches!(byte, b'(' | b':'))?;
    let (name, args) = (rest.get(..end)?, rest.get(end + 1..)?);
    let args = args.trim_ascii().strip_suffix(b")")?;
    (is_name(system) && is_name(name)).then_some((system, name, args))
}

/// `COMM/TID`; of a thread without a name, `:TID/TID`.
fn thread(text: &[u8]) -> (&[u8], Option<u32>) {
    let text = text.trim_ascii();
    let slash = text.iter().rposition(|byte| *byte == b'/');
    let parts = slash.and_then(|at| Some((text.get(..at)?, number(text.get(at + 1..)?)?)));
    match parts {
        Some((comm, tid)) => (comm, u32::try_from(tid).ok()),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shape() {
        for (line, comm, tid, args) in [
            ("0.000 fio/220 block:e(dev: 1, x: 0)", "fio", Some(220), "dev: 1, x: 0"),
            ("17.500 my job/1/220 block:e(dev: 1)", "my job/1", Some(220), "dev: 1"),
            ("0.000 (         ): :0/0 block:e(dev: 1)", ":0", Some(0), "dev: 1"),
            ("0.000 block:e(dev: 1)", "", None, "dev: 1"),
            ("0.000 block:e:8,0 W 0 () 8 + 8 [a])", "", None, "8,0 W 0 () 8 + 8 [a]"),
        ] {
            let event = event(line.as_bytes()).unwrap_or_else(|| panic!("{line}"));
            let text = |bytes| str::from_utf8(bytes).unwrap();
            assert_eq!(
                (text(event.comm), event.tid, text(event.args)),
                (comm, tid, args),
                "{line}"
            );
            assert_eq!((event.name, event.system), (&b"e"[..], Some(&b"block"[..])));
        }
        for line in [
            "",
            "0.000",
            "0.00 block:e(dev: 1)",
            "0.000 block:e(dev: 1",
            "0.000 ( 0.1 ms): fio/220 read(fd: 3) = 1",
            "x block:e(dev: 1)",
        ] {
            assert_eq!(event(line.as_bytes()), None, "{line}");
        }
    }
}
