//! What the tools say themselves in their texts: headers, comments, stacks, and what was lost.

use super::who::split_once;
use crate::import::lines::{number, word};

/// How many events the tool says were lost.
pub(super) fn lost(line: &[u8]) -> Option<Option<u64>> {
    // tracefs: `CPU:1 [LOST 17 EVENTS]`; trace-cmd: `CPU:1 [17 EVENTS DROPPED]`, or without a number.
    if line.starts_with(b"CPU:") {
        let open = line.iter().position(|byte| *byte == b'[')?;
        let inner = line.get(open + 1..)?.strip_suffix(b"]")?;
        if inner.ends_with(b"EVENTS") || inner.ends_with(b"EVENTS DROPPED") {
            let words = inner.split(u8::is_ascii_whitespace);
            return Some(words.filter_map(number).next());
        }
        return None;
    }
    // `# entries-in-buffer/entries-written: 140080/250280   #P:4`: the rest was written over.
    if let Some(counts) = line.strip_prefix(b"# entries-in-buffer/entries-written:") {
        let (held, written) = split_once(word(counts).0, b'/')?;
        let missing = number(written)?.checked_sub(number(held)?)?;
        return (missing > 0).then_some(Some(missing));
    }
    // perf script, at its end: `Processed 1000 events and lost 1 chunks!`.
    if line.starts_with(b"Processed ") && line.ends_with(b" chunks!") {
        return Some(None);
    }
    // perf script --show-lost-events: `... PERF_RECORD_LOST lost 17`.
    let at = memchr::memmem::find(line, b"PERF_RECORD_LOST")?;
    let words = line.get(at..)?.split(u8::is_ascii_whitespace);
    Some(words.filter_map(number).next())
}

/// What the tools print beside events.
pub(super) fn is_comment(line: &[u8], indented: bool) -> bool {
    // ftrace's stacks, and perf's: an address, a symbol, a file.
    let frame = |line: &[u8]| {
        let address = word(line).0;
        address.len() >= 4 && address.iter().all(u8::is_ascii_hexdigit)
    };
    let is_header = |prefix: &[u8]| {
        line.strip_prefix(prefix).is_some_and(|rest| number(rest.trim_ascii()).is_some())
    };
    let empty_cpu = || line.starts_with(b"CPU ") && line.ends_with(b" is empty");
    // Of several files each has its name before it: `a.dat: cpus=2`.
    let named_cpus = || {
        let at = memchr::memmem::find(line, b": cpus=")?;
        number(line.get(at + 7..)?)
    };
    // ftrace's stacks are events whose text is this, and lines with arrows.
    let stack = [&b"<stack trace>"[..], b"<user stack trace>"];
    line.starts_with(b"#")
        || line.starts_with(b"=>")
        || (indented && frame(line))
        || is_header(b"cpus=")
        || is_header(b"version =")
        || empty_cpu()
        || stack.iter().any(|stack| line.ends_with(stack))
        || line.ends_with(b"[SUBBUFFER START]")
        || named_cpus().is_some()
        || memchr::memmem::find(line, b"PERF_RECORD_").is_some()
        // What perf says on its other stream.
        || matches!(line, b"Warning:" | b"Check IO/CPU overload!")
        // Where an excerpt leaves lines out.
        || matches!(line, b"[...]" | b"[snip]" | b"<snip>" | b"^C" | b"^D")
        || line.iter().all(|byte| *byte == b'.')
}
