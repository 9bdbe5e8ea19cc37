//! A line of the log: when, on which connection, which call, and whether it begins or ends.

use crate::base::{BlockOp, OpFlags};
use crate::import::calendar::unix_ns;
use crate::import::lines::{c_number, number, word};

/// A line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'l> {
    /// Unix time in nanoseconds; `None` where nbdkit could not get it ("Time unknown").
    pub time: Option<u64>,
    /// The connection, for calls of one.
    pub connection: Option<u64>,
    /// The call ends: `...Read`.
    pub ends: bool,
    /// `Read`, `Connect`, ….
    pub action: &'l [u8],
    /// Joins beginning and end; unique in its connection.
    pub id: Option<u64>,
    /// What follows.
    pub rest: &'l [u8],
}

/// A call that is a request for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// What is asked.
    pub op: BlockOp,
    /// FUA, and whether a zero may trim.
    pub flags: OpFlags,
    /// Bytes.
    pub offset: u64,
    /// Bytes.
    pub count: u64,
    /// A zero that fails at once where it would be slow.
    pub fast: bool,
}

/// Splits a line; `None` when it is none of this format.
pub fn parse(text: &[u8]) -> Option<Line<'_>> {
    let (date, rest) = word(text);
    let (time, rest) = word(rest);
    let time = match (date, time) {
        (b"Time", b"unknown") => None,
        _ => Some(unix_ns(date, time)?),
    };
    let (mut action, mut rest) = word(rest);
    let mut connection = None;
    if let Some(number_text) = action.strip_prefix(b"connection=") {
        connection = Some(number(number_text)?);
        (action, rest) = word(rest);
    }
    let (ends, action) = action.strip_prefix(b"...").map_or((false, action), |act| (true, act));
    if !action.first()?.is_ascii_uppercase() || !action.iter().all(u8::is_ascii_alphanumeric) {
        return None;
    }
    let (first, after) = word(rest);
    let mut id = None;
    if let Some(number_text) = first.strip_prefix(b"id=") {
        id = Some(number(number_text)?);
        rest = after;
    }
    Some(Line { time, connection, ends, action, id, rest })
}

/// The value of `key=` in a list of words; before 1.21.22 the dots that end a zero's line touch it.
pub fn field<'l>(rest: &'l [u8], key: &[u8]) -> Option<&'l [u8]> {
    let mut words = rest.split(u8::is_ascii_whitespace);
    let value = words.find_map(|word| word.strip_prefix(key)?.strip_prefix(b"="))?;
    Some(value.strip_suffix(b"...").unwrap_or(value))
}

/// The request that the beginning of a call is.
///
/// # Errors
/// Why it is none, and whether that is the line's fault.
pub fn call(line: &Line<'_>) -> Result<Call, Refusal> {
    let flag = |key: &[u8]| field(line.rest, key).is_some_and(|value| value != b"0");
    let mut flags = OpFlags::empty();
    flags.set(OpFlags::FUA, flag(b"fua"));
    let op = match line.action {
        b"Read" => BlockOp::Read,
        b"Write" => BlockOp::Write,
        b"Trim" => BlockOp::Discard,
        b"Flush" => BlockOp::Flush,
        b"Zero" => {
            flags.set(OpFlags::UNMAP, flag(b"trim"));
            BlockOp::WriteZeroes
        }
        b"Extents" => return Err(Refusal::NoRequest("Extents: asks for allocation, not for data")),
        b"Cache" => return Err(Refusal::NoRequest("Cache: a prefetch, no operation of a trace")),
        _ => return Err(Refusal::NoRequest("unknown action")),
    };
    let (mut offset, mut count) = (0, 0);
    if op.has_range() {
        let value = |key| field(line.rest, key).and_then(c_number).ok_or(Refusal::Malformed);
        (offset, count) = (value(b"offset")?, value(b"count")?);
    }
    Ok(Call { op, flags, offset, count, fast: flag(b"fast") })
}

/// Why a line is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is another call.
    NoRequest(&'static str),
    /// Its fields cannot be read.
    Malformed,
}

/// The status of an answer as a Linux errno: `return=0`, `return=0 (Success)`,
/// `return=-1 error=EIO`, `return=-1 (EROFS=>EPERM)`: the client is told what stands behind `=>`.
pub fn status(rest: &[u8]) -> Option<u16> {
    if field(rest, b"return")? == b"0" {
        return Some(0);
    }
    let named = field(rest, b"error").or_else(|| {
        let (_, inner) = split_at(rest, b'(')?;
        let (inner, _) = split_at(inner, b')')?;
        Some(inner.rsplit(|byte| *byte == b'>').next().unwrap_or(inner))
    });
    Some(match named.unwrap_or_default() {
        b"EPERM" => 1,
        b"EIO" => 5,
        b"ENOMEM" => 12,
        b"ENOSPC" => 28,
        b"EOVERFLOW" => 75,
        b"ENOTSUP" => 95,
        b"ESHUTDOWN" => 108,
        // What NBD has no number for is sent as EINVAL.
        _ => 22,
    })
}

fn split_at(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == at)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// What a `Connect` tells: the export's name (empty before 1.21.21, and for the default export)
/// and its size.
pub fn connect(rest: &[u8]) -> (Vec<u8>, Option<u64>) {
    const SIZE: &[u8] = b"size=";
    // A name may hold anything: the last field of that name is nbdkit's.
    let is_size = |at: &usize| {
        rest.get(*at..).is_some_and(|text| text.starts_with(SIZE)) && before(rest, *at)
    };
    let size = (0..rest.len()).rev().find(is_size).map(|at| at + SIZE.len());
    let size = size.and_then(|at| c_number(word(rest.get(at..)?).0));
    let name = rest.strip_prefix(b"export=").map(export_name).unwrap_or_default();
    (name, size)
}

/// Whether a field begins at `at`.
fn before(rest: &[u8], at: usize) -> bool {
    at.checked_sub(1).is_none_or(|before| rest.get(before) == Some(&b' '))
}

/// A name quoted for a shell: as it is, in double quotes with backslashes, or (before 1.23.11) in
/// single quotes with none.
fn export_name(text: &[u8]) -> Vec<u8> {
    match text {
        [b'"', quoted @ ..] => {
            let mut name = Vec::new();
            let mut bytes = quoted.iter();
            while let Some(byte) = bytes.next().filter(|byte| **byte != b'"') {
                name.push(if *byte == b'\\' { *bytes.next().unwrap_or(byte) } else { *byte });
            }
            name
        }
        [b'\'', quoted @ ..] => {
            let end = quoted.iter().rposition(|byte| *byte == b'\'').unwrap_or(quoted.len());
            quoted.get(..end).unwrap_or_default().to_vec()
        }
        _ => word(text).0.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn line(text: &str) -> Line<'_> {
        parse(text.as_bytes()).expect("a line")
    }

    #[test]
    fn beginnings_and_ends() {
        let begin = line(
            "2026-11-22 08:15:12.472597 connection=3 Write id=1 offset=0x10 count=0x1000 fua=1 ...",
        );
        assert_eq!(begin.time, Some(1_795_335_312_472_597_000));
        assert_eq!((begin.connection, begin.ends, begin.id), (Some(3), false, Some(1)));
        let want =
            Call { op: BlockOp::Write, flags: OpFlags::FUA, offset: 16, count: 4096, fast: false };
        assert_eq!(call(&begin), Ok(want));
        let end = line("2026-11-22 08:15:12.472639 connection=3 ...Write id=1 return=0");
        assert_eq!((end.connection, end.ends, end.action), (Some(3), true, &b"Write"[..]));
        assert_eq!(status(end.rest), Some(0));
        let unknown = line("Time unknown Preconnect id=1 readonly=0 ...");
        assert_eq!((unknown.time, unknown.connection), (None, None));
    }

    #[test]
    fn the_spellings_of_a_zero() {
        let flags = |rest: &str| {
            let text = format!("2020-01-01 00:00:00.000001 connection=1 Zero id=4 {rest}");
            call(&line(&text)).map(|call| (call.offset, call.count, call.flags, call.fast))
        };
        let unmap = OpFlags::UNMAP;
        // Up to 1.13, up to 1.21 (no blank before the dots), and since.
        for (rest, want) in [
            ("offset=0x100 count=0x200 trim=1 fua=0 ...", (256, 512, unmap, false)),
            (
                "offset=0x100 count=0x200 trim=1 fua=1 fast=0...",
                (256, 512, unmap | OpFlags::FUA, false),
            ),
            ("offset=0x100 count=0x200 trim=0 fua=0 fast=1...", (256, 512, OpFlags::empty(), true)),
            (
                "offset=0x100 count=0x200 trim=0 fua=0 fast=1 ...",
                (256, 512, OpFlags::empty(), true),
            ),
        ] {
            assert_eq!(flags(rest), Ok(want), "{rest}");
        }
        assert_eq!(flags("offset=0x100 count= trim=0 ..."), Err(Refusal::Malformed));
        assert_eq!(flags("offset=0x100 trim=0 ..."), Err(Refusal::Malformed));
    }

    #[test]
    fn errors_of_both_spellings() {
        for (rest, want) in [
            ("return=0 (Success)", Some(0)),
            ("return=-1 (EROFS=>EPERM)", Some(1)),
            ("return=-1 (EIO)", Some(5)),
            ("return=-1 (EFBIG=>ENOSPC)", Some(28)),
            ("return=-1 (Other=>EINVAL)", Some(22)),
            ("return=-1 error=ESHUTDOWN", Some(108)),
            ("return=-1 error=ENOTSUP", Some(95)),
            ("return=-1", Some(22)),
            ("extents=[{ offset=0x0, length=0x10, type=0 }] return=0", Some(0)),
            ("", None),
        ] {
            assert_eq!(status(rest.as_bytes()), want, "{rest}");
        }
    }

    #[test]
    fn names_of_exports_in_every_quoting() {
        for (rest, name, size) in [
            ("size=0x400 write=1 flush=1", "", Some(1024)),
            ("export='it's' tls=0 size=0x400 write=1", "it's", Some(1024)),
            ("export=\"\" tls=0 size=0x400 minsize=0x1 maxsize=0xffffffff", "", Some(1024)),
            ("export=/a,b tls=1 size=0x200", "/a,b", Some(512)),
            ("export=\"q\\\"\\$x \\\\\" tls=1 size=0x200", "q\"$x \\", Some(512)),
            ("export=\" size=0x1 \" tls=1 size=0x200", " size=0x1 ", Some(512)),
            ("export=\"never ends", "never ends", None),
            ("", "", None),
        ] {
            assert_eq!(connect(rest.as_bytes()), (name.as_bytes().to_vec(), size), "{rest}");
        }
    }

    #[test]
    fn what_is_no_line() {
        for text in [
            "",
            "2026-11-22",
            "2026-11-22 08:15:12.472597",
            "2026-11-22 08:15:12.472597 connection=x Read id=1",
            "2026-11-22 08:15:12.472597 connection=1",
            "2026-11-22 08:15:12.472597 connection=1 Read id=-1",
            "2026-11-22 08:15:12.472597 some words",
            "nbdkit: memory[1]: debug: Read",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
