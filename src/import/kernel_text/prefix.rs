//! What stands before an event in the texts of ftrace, perf script and trace-cmd: who, where, when.
//!
//! ```text
//!            fio-220     [001] d..2.    24.511307: block_rq_issue: ARGS          tracefs: trace, trace_pipe
//!            fio-220   (    220) [001] .....    24.511307: block_rq_issue: ARGS   with the option record-tgid
//!     fio-220       1d..2.  511307us+: block_rq_issue: ARGS                       with latency-format
//!            fio   220 [001]    24.511307: block:block_rq_issue: ARGS            perf script
//!            fio   220/220 [001]    24.511307:     1 block:block_rq_issue: ARGS   perf script -F +pid,+tid,+period
//!            fio-220   [001]    24.511307: block_rq_issue:       ARGS            trace-cmd report
//! a.dat:     fio-220   [001]-0x0 24.511307: block_rq_issue:      ARGS            … of several files, -R
//! ```
//!
//! - A command may hold blanks, dashes and colons: fields are found from the time backwards.
//! - Times are `SECONDS.FRACTION` (six digits, nine with `perf script --ns`, `trace-cmd report -t`) of
//!   the trace clock; a clock that does not count nanoseconds (`counter`, `x86-tsc`) is a whole number;
//!   latency-format counts microseconds from the buffer's start. `perf_trace` has lines of its own.
//! - What the tools say themselves is told apart: comments, stacks, and how many events were lost.
//!
//! Sources: Linux `kernel/trace/trace_output.c`, `kernel/trace/trace.c`,
//! `tools/perf/builtin-script.c`; trace-cmd's `tracecmd/trace-read.c`. Checked against texts of all
//! three from Linux 6.1.

use super::remarks::{is_comment, lost};
use super::who::{Before, context};
use super::{block, perf_trace};
use crate::import::lines::{number, seconds, word};

/// A line of such a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::import) enum Line<'l> {
    /// An event.
    Event(Event<'l>),
    /// The tracer lost so many events here; `None` where it does not say how many.
    Lost(Option<u64>),
    /// The tool's own words, which say nothing of events: comments, stacks, headers.
    Comment,
    /// None of these.
    Other,
}

/// An event with what stands before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::import) struct Event<'l> {
    /// The command; empty where it does not stand there.
    pub comm: &'l [u8],
    /// The thread: of perf's `pid/tid` the latter.
    pub tid: Option<u32>,
    /// The CPU on which it happened.
    pub cpu: Option<u16>,
    /// When.
    pub time: Stamp<'l>,
    /// The subsystem, where it is said (perf): `block`.
    pub system: Option<&'l [u8]>,
    /// The event: `block_rq_issue`.
    pub name: &'l [u8],
    /// What the event's own format prints.
    pub args: &'l [u8],
}

/// A time as it stands in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::import) enum Stamp<'l> {
    /// `SECONDS.FRACTION`.
    Seconds(&'l [u8]),
    /// A whole number of a clock that does not count nanoseconds.
    Ticks(&'l [u8]),
    /// Whole microseconds (latency-format).
    Micros(&'l [u8]),
    /// Milliseconds with a fraction (perf trace, latency-format with the option verbose).
    Millis(&'l [u8]),
    /// The text has none.
    None,
}

/// Reads a line without its end.
pub(in crate::import) fn parse(text: &[u8]) -> Line<'_> {
    let line = text.trim_ascii();
    if line.is_empty() {
        return Line::Comment;
    }
    let event = event(line).or_else(|| perf_trace::event(line)).or_else(|| timeless(line));
    if let Some(event) = event {
        // trace-cmd's form of a stack, whose functions are the lines that follow.
        let stack = matches!(event.name, b"kernel_stack" | b"user_stack");
        return if stack || event.name.starts_with(b"PERF_RECORD_") {
            Line::Comment
        } else {
            Line::Event(event)
        };
    }
    if let Some(lost) = lost(line) {
        return Line::Lost(lost);
    }
    if is_comment(line, text.first().is_some_and(u8::is_ascii_whitespace)) {
        Line::Comment
    } else {
        Line::Other
    }
}

/// The first time that has an event's name behind it divides the line.
fn event(line: &[u8]) -> Option<Event<'_>> {
    let mut rest = line;
    loop {
        let (text, after) = word(rest);
        if text.is_empty() {
            return None;
        }
        // Latency-format's mark may be a blank, before the colon.
        let (time, after_time) = match after.strip_prefix(b": ") {
            Some(after) => (micros(text), after),
            None if text.ends_with(b"ms") => millis(text, after),
            None => (stamp(text), after),
        };
        if let Some(time) = time
            && let Some(Named { system, name, args }) = name_and_args(after_time)
        {
            let before = line.get(..line.len() - rest.len()).unwrap_or_default();
            let Before { comm, tid, cpu } = context(before);
            return Some(Event { comm, tid, cpu, time, system, name, args });
        }
        rest = after;
    }
}

/// A time with its colon.
fn stamp(text: &[u8]) -> Option<Stamp<'_>> {
    let time = text.strip_suffix(b":")?;
    let is_number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    if let Some(at) = time.iter().position(|byte| *byte == b'.') {
        let (seconds, fraction) = time.split_at(at);
        let whole = is_number(seconds) && is_number(fraction.get(1..)?) && fraction.len() <= 10;
        return whole.then_some(Stamp::Seconds(time));
    }
    if is_number(time) {
        return Some(Stamp::Ticks(time));
    }
    // A mark behind it says that much time passed before the next event.
    match time {
        [before @ .., b'$' | b'@' | b'*' | b'#' | b'!' | b'+'] => micros(before),
        _ => micros(time),
    }
}

/// `21.744ms (+0.007ms):`, and what follows it.
fn millis<'l>(text: &'l [u8], after: &'l [u8]) -> (Option<Stamp<'l>>, &'l [u8]) {
    let (passed, rest) = word(after);
    let time = text.strip_suffix(b"ms").filter(|_| passed.ends_with(b"ms):"));
    (time.filter(|time| seconds(time).is_some()).map(Stamp::Millis), rest)
}

/// `block:block_rq_issue: ARGS`: an event that is imported, of a text without times.
fn timeless(line: &[u8]) -> Option<Event<'_>> {
    const STARTS: &[&[u8]] =
        &[b"block_rq_", b"block_bio_", b"block_io_", b"nvme_", b"kvm_pio", b"kvm_mmio"];
    let Named { system, name, args } = name_and_args(line)?;
    let known = STARTS.iter().any(|start| name.starts_with(start));
    let time = Stamp::None;
    known.then_some(Event { comm: b"", tid: None, cpu: None, time, system, name, args })
}

/// `123us`.
fn micros(text: &[u8]) -> Option<Stamp<'_>> {
    let digits = text.strip_suffix(b"us")?;
    number(digits).map(|_| Stamp::Micros(digits))
}

/// An event without what stands before it.
struct Named<'l> {
    system: Option<&'l [u8]>,
    name: &'l [u8],
    args: &'l [u8],
}

/// `[PERIOD] [SYSTEM:]NAME: ARGS`; trace-cmd's `--ts-diff` has `(+DELTA)` in place of the period.
fn name_and_args(text: &[u8]) -> Option<Named<'_>> {
    let (mut name, mut args) = word(text);
    if number(name).is_some() || (name.starts_with(b"(+") && name.ends_with(b")")) {
        (name, args) = word(args);
    }
    if block::device(name).is_some() && is_act(word(args).0) {
        return Some(Named { system: None, name: block::TRACER, args: text });
    }
    let name = name.strip_suffix(b":")?;
    let mut parts = name.split(|byte| *byte == b':').filter(|part| !part.is_empty());
    let (first, second) = (parts.next()?, parts.next());
    match second.filter(|second| is_name(second)) {
        _ if !is_name(first) => None,
        Some(second) => Some(Named { system: Some(first), name: second, args }),
        None => Some(Named { system: None, name: first, args }),
    }
}

/// The letters that ftrace's tracer `blk` has for what happened.
fn is_act(text: &[u8]) -> bool {
    matches!(text.len(), 1 | 2) && text.iter().all(u8::is_ascii_uppercase)
}

/// Whether it can be the name of an event or a subsystem.
pub(super) fn is_name(part: &[u8]) -> bool {
    part.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_')
        && part.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(line: &str) -> Event<'_> {
        match parse(line.as_bytes()) {
            Line::Event(event) => event,
            other => panic!("{line}: {other:?}"),
        }
    }

    /// Command, thread, CPU, event, arguments.
    fn brief(line: &str) -> (&str, Option<u32>, Option<u16>, &str, &str) {
        let text = |bytes| str::from_utf8(bytes).unwrap();
        let Event { comm, tid, cpu, name, args, .. } = event(line);
        (text(comm), tid, cpu, text(name), text(args))
    }

    #[test]
    fn the_three_tools_and_their_options() {
        for (line, comm) in [
            ("             fio-220     [001] d..2.    24.511307: block_rq_issue: 8,0 R", "fio"),
            ("             fio-220     [001]    24.511307: block_rq_issue:       8,0 R", "fio"),
            ("  fio-220     (    219) [001] ....1    24.511307: block_rq_issue: 8,0 R", "fio"),
            ("  fio-220     (-------) [001] d.h1    24.511307: block_rq_issue: 8,0 R", "fio"),
            ("     fio-220       1d..2.  511307us+: block_rq_issue: 8,0 R", "fio"),
            ("             fio   220 [001]    24.511307:    block:block_rq_issue: 8,0 R", "fio"),
            ("fio 220/220 [001] 24.511307001:          1 block:block_rq_issue: 8,0 R", "fio"),
            ("trace.dat:  fio-220   [001]    24.511307: block_rq_issue: 8,0 R", "trace.dat:  fio"),
            ("   fio-220 [001] ...1.  24.511307: (+17)  block_rq_issue:  8,0 R", "fio"),
            ("   fio-220   [001]-0x0    24.511307: block_rq_issue:  8,0 R", "fio"),
            (
                "fio  220   1 0 00000000 00000001 [e31444cba] 21.744ms (+0.007ms): \
                 block_rq_issue: 8,0 R",
                "fio",
            ),
        ] {
            let want = (comm, Some(220), Some(1), "block_rq_issue", "8,0 R");
            assert_eq!(brief(line), want, "{line}");
        }
        // ftrace's tracer blk has no events.
        let of_tracer = "fio-220     [001] d..2.    24.511307:   8,1    Q   R 6367 + 8 [fio]";
        let args = "8,1    Q   R 6367 + 8 [fio]";
        assert_eq!(brief(of_tracer), ("fio", Some(220), Some(1), "blk", args));
        // perf's fields are as they were asked for.
        assert_eq!(brief("fio 220 1.5: s:e: x"), ("fio", Some(220), None, "e", "x"));
        assert_eq!(brief("fio 1.5: s:e: x"), ("fio", None, None, "e", "x"));
        assert_eq!(event("a 1 [000] 1.000001: kvm:kvm_pio: x").system, Some(&b"kvm"[..]));
        assert_eq!(event("a-1 [000] 1.000001: kvm_pio: x").system, None);
    }

    #[test]
    fn commands_may_hold_anything() {
        let brief_of = |comm: &str| {
            let ftrace = format!("{comm}-44 [012] .....  1.000001: e: a");
            let perf = format!("{comm} 44 [012]  1.000001: s:e: a");
            let want = (comm.to_owned(), Some(44), Some(12));
            for line in [ftrace, perf] {
                let (comm, tid, cpu, ..) = brief(&line);
                assert_eq!((comm.to_owned(), tid, cpu), want, "{line}");
            }
        };
        let odd = ["my job", "a-1", "x [003] y", "12:", "1.5: x"];
        for comm in ["kworker/1:1H", "<idle>", "<...>", "jbd2/sda-8"].into_iter().chain(odd) {
            brief_of(comm);
        }
        // What is in the arguments divides nothing.
        let (.., name, args) = brief("a-1 [000] 1.0: one: b [000] 2.0: two: c");
        assert_eq!((name, args), ("one", "b [000] 2.0: two: c"));
    }

    #[test]
    fn times_of_each_clock() {
        let time = |line| event(line).time;
        assert_eq!(time("a-1 [0] 1.000001: e: x"), Stamp::Seconds(b"1.000001"));
        assert_eq!(time("a-1 [0] 1.000000001: e:"), Stamp::Seconds(b"1.000000001"));
        assert_eq!(time("a-1 [0] ....  123456789012: e: x"), Stamp::Ticks(b"123456789012"));
        assert_eq!(time("a-1 0d...    17us!: e: x"), Stamp::Micros(b"17"));
        assert_eq!(time("a-1 0d...    17us : e: x"), Stamp::Micros(b"17"));
        assert_eq!(time("a 1 0 0 0 0 [ab] 21.744ms (+0.007ms): e: x"), Stamp::Millis(b"21.744"));
        for line in ["block:block_rq_issue: 8,0 R", "kvm_pio: x"] {
            assert_eq!(time(line), Stamp::None);
        }
        for line in
            ["a-1 [0] 1.0000000001: e: x", "a-1 [0] 1.: e: x", "a-1 [0] .1: e: x", "1.0 e: x"]
        {
            assert_eq!(parse(line.as_bytes()), Line::Other, "{line}");
        }
    }

    #[test]
    fn what_tools_say_themselves() {
        for (line, lost) in [
            ("CPU:1 [LOST 17 EVENTS]", Some(17)),
            ("CPU:7 [204600 EVENTS DROPPED]", Some(204_600)),
            ("CPU:7 [EVENTS DROPPED]", None),
            ("CPU:1 [LOST EVENTS]", None),
            ("Processed 1000 events and lost 1 chunks!", None),
            ("# entries-in-buffer/entries-written: 40/250   #P:4", Some(210)),
            ("  fio 1 [000] 1.5: PERF_RECORD_LOST lost 17", Some(17)),
        ] {
            assert_eq!(parse(line.as_bytes()), Line::Lost(lost), "{line}");
        }
        for line in [
            "",
            "# tracer: nop",
            "# entries-in-buffer/entries-written: 250/250   #P:4",
            "##### CPU 1 buffer started ####",
            "cpus=2",
            "version = 7",
            "CPU 1 is empty",
            " => blk_mq_start_request",
            "a-1     [001] ..... 1.000001: <stack trace>",
            "a-1     [001] ..... 1.000001: <user stack trace>",
            "a-1     [001]  1.000001: kernel_stack:         <stack trace >",
            "   a.dat: cpus=2",
            "CPU:0 [SUBBUFFER START]",
            "[...]",
            "....",
            "Check IO/CPU overload!",
            "  a 0 [000]     0.000000: PERF_RECORD_FORK(1:1):(0:0)",
            "  a 0 [000]     0.000000: PERF_RECORD_COMM: a:1/1",
            "\tffffffff814d2a41 blk_mq_start_request+0x71 ([kernel.kallsyms])",
        ] {
            assert_eq!(parse(line.as_bytes()), Line::Comment, "{line}");
        }
        for line in ["hello", "a-1 [000] 1.0: vfs_read <-ksys_read", "deadbeef x", "CPU:1 [x]"] {
            assert_eq!(parse(line.as_bytes()), Line::Other, "{line}");
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm() {
        let line = b"  fio-220 (  219) [001] d..2. 24.511307: 1 block:block_rq_issue: 8,0 R";
        for len in 0..line.len() {
            parse(&line[..len]);
            parse(&line[len..]);
            for byte in [b' ', b':', b'[', b'(', b'-', 0xff] {
                let mut bad = line.to_vec();
                bad[len] = byte;
                parse(&bad);
            }
        }
    }
}
