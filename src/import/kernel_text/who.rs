//! Who stands before the time of an event: command, thread, CPU, in the shapes of each tool.

use crate::import::lines::{hex, number};

/// What stands before the time.
pub(super) struct Before<'l> {
    /// The command; empty where it does not stand there.
    pub comm: &'l [u8],
    /// The thread.
    pub tid: Option<u32>,
    /// The CPU on which it happened.
    pub cpu: Option<u16>,
}

/// What latency-format's option verbose puts before the time: `COMM PID CPU FLAGS PREEMPT INDEX
/// [TIME]`.
fn verbose(text: &[u8]) -> Option<Before<'_>> {
    let (rest, stamp) = last_word(text);
    hex(stamp.strip_prefix(b"[")?.strip_suffix(b"]")?)?;
    let mut rest = rest;
    for _index_preemption_flags in 0..3 {
        let (before, word) = last_word(rest);
        hex(word)?;
        rest = before;
    }
    let (rest, cpu) = last_word(rest);
    let (comm, tid) = last_word(rest);
    Some(Before { comm, tid: Some(pid_tid(tid)?), cpu: Some(number(cpu)?.try_into().ok()?) })
}

/// What stands before the time, from its end.
pub(super) fn context(text: &[u8]) -> Before<'_> {
    if let Some(before) = verbose(text) {
        return before;
    }
    let mut rest = text.trim_ascii_end();
    let mut cpu = None;
    // Flags, and what further columns there may be, stand between CPU and time.
    for _ in 0..COLUMNS_AFTER_CPU_MAX {
        let (before, last) = last_word(rest);
        if let Some(number) = bracketed_cpu(last).or_else(|| cpu_with_flags(last)) {
            cpu = Some(number);
            rest = before;
            break;
        }
        // Without a CPU, perf has nothing but flags there.
        if !is_flags(last) {
            break;
        }
        rest = before;
    }
    let (before, last) = last_word(rest);
    if last.starts_with(b"(") || last.ends_with(b")") {
        // The thread group, right-aligned in its parentheses.
        let open = rest.iter().rposition(|byte| *byte == b'(').unwrap_or(rest.len());
        rest = rest.get(..open).unwrap_or_default().trim_ascii_end();
    } else if let Some(tid) = pid_tid(last) {
        return Before { comm: before, tid: Some(tid), cpu };
    }
    let tid_behind = |at: usize| u32::try_from(number(rest.get(at + 1..)?)?).ok();
    let dash = rest.iter().rposition(|byte| *byte == b'-');
    match dash.and_then(|at| Some((rest.get(..at)?, tid_behind(at)?))) {
        Some((comm, tid)) => Before { comm: comm.trim_ascii(), tid: Some(tid), cpu },
        None => Before { comm: rest, tid: None, cpu },
    }
}

/// Columns between CPU and time: flags, and perf's `misc` or a machine's.
const COLUMNS_AFTER_CPU_MAX: usize = 3;

/// What stands before the last word, and that word.
fn last_word(text: &[u8]) -> (&[u8], &[u8]) {
    let text = text.trim_ascii_end();
    let start = text.iter().rposition(u8::is_ascii_whitespace).map_or(0, |at| at + 1);
    let (before, last) = text.split_at(start);
    (before.trim_ascii_end(), last)
}

/// `[001]`; trace-cmd has raw flags behind it: `[001]-0x1`.
fn bracketed_cpu(text: &[u8]) -> Option<u16> {
    let (digits, flags) = split_once(text.strip_prefix(b"[")?, b']')?;
    let raw = flags.strip_prefix(b"-0x").is_some_and(|flags| hex(flags).is_some());
    u16::try_from(number(digits)?).ok().filter(|_| flags.is_empty() || raw)
}

/// `1d.h1.`: latency-format's CPU and flags in one.
fn cpu_with_flags(text: &[u8]) -> Option<u16> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (cpu, flags) = text.split_at(digits);
    let cpu = u16::try_from(number(cpu)?).ok()?;
    (!flags.first()?.is_ascii_digit() && is_flags(flags)).then_some(cpu)
}

/// Interrupts off, reschedule, hard or soft interrupt, preemption depth, migration: a letter, a
/// hexadecimal digit or a dot each. perf's `misc` is one to four capitals.
fn is_flags(text: &[u8]) -> bool {
    const LETTERS: &[u8] = b".dDbXnNpPBlLhHsSzZKUGghu";
    (1..=8).contains(&text.len())
        && text.iter().all(|byte| LETTERS.contains(byte) || byte.is_ascii_hexdigit())
        && !text.iter().all(u8::is_ascii_digit)
}

/// perf's `TID` or `PID/TID`.
fn pid_tid(text: &[u8]) -> Option<u32> {
    let tid = match text.iter().position(|byte| *byte == b'/') {
        Some(at) => {
            number(text.get(..at)?)?;
            text.get(at + 1..)?
        }
        None => text,
    };
    u32::try_from(number(tid)?).ok()
}

/// What stands before the first `byte`, and behind it.
pub(super) fn split_once(text: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|found| *found == byte)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}
