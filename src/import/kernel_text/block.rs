//! The arguments of the block layer's events.
//!
//! ```text
//! block_rq_issue, block_rq_insert, block_io_start:   8,0 WS 4096 () 2048 + 8 [fio]
//!                                since Linux 6.10:   8,0 WS 4096 () 2048 + 8 be,0,4 [fio]
//! block_rq_complete, block_rq_requeue:               8,0 WS () 2048 + 8 [0]
//!                                since Linux 6.10:   8,0 WS () 2048 + 8 be,0,4 [-5]
//! block_bio_queue:                                   8,0 WS 2048 + 8 [fio]
//! block_bio_complete:                                8,0 WS 2048 + 8 [0]
//! the tracer blk, in place of an event's name:       8,0 Q WS 2048 + 8 [fio]    D, I; C and R: [0]
//! ```
//!
//! Device, RWBS, bytes, command (of a packet command, in hex), first sector + sectors of 512 bytes,
//! I/O priority, process or errno. Sector 18446744073709551615 is "none". Bytes are 0 for requests
//! of a file system before Linux 5.0. A packet command has no sectors.
//!
//! Source: Linux `include/trace/events/block.h`, 2.6.32 to 6.19; checked against texts of 6.1.

use super::fields::{are_fields, number_or_zero, value};
use super::rwbs::{self, Rwbs};
use crate::base::SECTOR_SIZE;
use crate::import::blktrace::record::{Record, cat};
use crate::import::lines::{c_number, number, word};

/// Events that say where a request is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::import) enum Kind {
    /// A file system queued it.
    BioQueue,
    /// It became a request of the device's queue.
    IoStart,
    /// It was put into the scheduler.
    RqInsert,
    /// The driver got it.
    RqIssue,
    /// The driver gave it back to be tried again.
    RqRequeue,
    /// The device answered.
    RqComplete,
    /// What was queued is done: of devices without requests of their own (dm, md).
    BioComplete,
    /// Accounted as done.
    IoDone,
}

impl Kind {
    /// Every kind, in the order of its number.
    pub const ALL: [Self; 8] = [
        Self::BioQueue,
        Self::IoStart,
        Self::RqInsert,
        Self::RqIssue,
        Self::RqRequeue,
        Self::RqComplete,
        Self::BioComplete,
        Self::IoDone,
    ];

    /// The event's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::BioQueue => "block_bio_queue",
            Self::IoStart => "block_io_start",
            Self::RqInsert => "block_rq_insert",
            Self::RqIssue => "block_rq_issue",
            Self::RqRequeue => "block_rq_requeue",
            Self::RqComplete => "block_rq_complete",
            Self::BioComplete => "block_bio_complete",
            Self::IoDone => "block_io_done",
        }
    }

    /// The kind of the event with this name.
    pub fn of(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name().as_bytes() == name)
    }

    /// Whether an errno stands in its brackets, and not a process.
    pub fn has_errno(self) -> bool {
        matches!(self, Self::RqRequeue | Self::RqComplete | Self::BioComplete)
    }

    /// The errno of an event that has one, at the end of it.
    fn errno(self, rest: &[u8]) -> Result<u16, &'static str> {
        if self.has_errno() { errno(rest).ok_or(NO_ERRNO) } else { Ok(0) }
    }
}

/// What stands for the name of an event in lines of ftrace's tracer `blk`, which have none.
pub(in crate::import) const TRACER: &[u8] = b"blk";

/// The event with this name, if it is one of these.
///
/// # Errors
/// Why it cannot be read.
pub(in crate::import) fn event(
    name: &[u8],
    args: &[u8],
) -> Option<Result<(Kind, Record), &'static str>> {
    if name == TRACER {
        let kind = match act(args) {
            b"Q" => Kind::BioQueue,
            b"I" => Kind::RqInsert,
            b"D" => Kind::RqIssue,
            b"R" => Kind::RqRequeue,
            b"C" => Kind::RqComplete,
            _ => return None,
        };
        return Some(traced(kind, args).and_then(record).map(|record| (kind, record)));
    }
    let kind = Kind::of(name)?;
    Some(parse(kind, args).map(|record| (kind, record)))
}

/// The letter by which the tracer `blk` tells what happened.
pub(in crate::import) fn act(args: &[u8]) -> &[u8] {
    word(word(args).1).0
}

/// What the events of a request say; time, CPU, place and act are the caller's.
///
/// # Errors
/// Why it cannot be read.
pub(in crate::import) fn parse(kind: Kind, args: &[u8]) -> Result<Record, &'static str> {
    if are_fields(args) { by_name(args) } else { printed(kind, args) }.and_then(record)
}

/// The record that says the same.
fn record(said: Said) -> Result<Record, &'static str> {
    let Said { device, rwbs, bytes, has_command, sector, sectors, errno } = said;
    let bytes = length(bytes, sectors).ok_or("length of 4 GiB or more")?;
    let (mut categories, packet) = (rwbs.categories, has_command || (sectors == 0 && bytes > 0));
    if packet || (rwbs.other && sectors == 0 && categories & cat::FLUSH == 0) {
        categories |= cat::PC;
    } else if rwbs.other {
        // A flush that a driver gets has N in older kernels; with sectors it is write-zeroes.
        categories |= if sectors > 0 { cat::WRITE | cat::WRITE_ZEROES } else { cat::READ };
    }
    Ok(Record {
        sequence: 0,
        time: 0,
        sector,
        bytes,
        action: categories << 16,
        device,
        cpu: 0,
        error: errno,
        pdu_len: 0,
    })
}

/// What an event says.
struct Said {
    device: u32,
    rwbs: Rwbs,
    bytes: Option<u64>,
    has_command: bool,
    sector: u64,
    sectors: u64,
    errno: u16,
}

const NO_DEVICE: &str = "event without a device MAJOR,MINOR";
const NO_ERRNO: &str = "event without its errno";
const NO_LETTERS: &str = "event with unknown RWBS letters";

/// As the kernel's own format has it.
fn printed(kind: Kind, args: &[u8]) -> Result<Said, &'static str> {
    let (text, rest) = word(args);
    let device = device(text).ok_or(NO_DEVICE)?;
    let (text, rest) = word(rest);
    let rwbs = rwbs::parse(text).ok_or(NO_LETTERS)?;
    let (bytes, rest) = match word(rest) {
        (text, after) if !after.starts_with(b"+") && number(text).is_some() => {
            (number(text), after)
        }
        _ => (None, rest),
    };
    let (has_command, rest) = command(rest).ok_or("event whose command does not end")?;
    let (sector, sectors, rest) = place(rest).ok_or("event without SECTOR + SECTORS")?;
    let errno = kind.errno(rest)?;
    Ok(Said { device, rwbs, bytes, has_command, sector, sectors, errno })
}

/// `8,0 Q WS 2048 + 8 [fio]`; of a flush `8,0 Q FWS [fio]`, `8,0 C FWS 0 [0]`; of a packet command
/// `8,0 D R 36 (12 00 …) [fio]`.
fn traced(kind: Kind, args: &[u8]) -> Result<Said, &'static str> {
    let (text, rest) = word(args);
    let device = device(text).ok_or(NO_DEVICE)?;
    let (text, rest) = word(word(rest).1);
    let rwbs = rwbs::parse(text).ok_or(NO_LETTERS)?;
    let (first, after) = word(rest);
    let has_command = after.starts_with(b"(");
    let (sector, sectors) = match after.first() {
        Some(b'+') => place(rest).map(|(sector, sectors, _)| (sector, sectors)),
        Some(b'[') => number(first).map(|sector| (some_sector(sector), 0)),
        _ => Some((0, 0)),
    }
    .ok_or("event without SECTOR + SECTORS")?;
    let errno = kind.errno(rest)?;
    Ok(Said { device, rwbs, bytes: None, has_command, sector, sectors, errno })
}

/// By the names of the event's fields.
fn by_name(args: &[u8]) -> Result<Said, &'static str> {
    // The kernel's own number of a device is made as a record's is.
    let of_number = |text: &[u8]| u32::try_from(c_number(text)?).ok();
    let device = value(args, b"dev").and_then(|text| device(text).or_else(|| of_number(text)));
    let rwbs = value(args, b"rwbs").and_then(rwbs::parse);
    let bytes = value(args, b"bytes").and_then(c_number);
    let sector = match value(args, b"sector") {
        Some(b"-1") => Some(u64::MAX),
        _ => number_or_zero(args, b"sector"),
    };
    let places = || Some((sector?, number_or_zero(args, b"nr_sector")?));
    let (sector, sectors) = places().ok_or("event without sector or nr_sector")?;
    let error = value(args, b"error").or_else(|| value(args, b"errors")).unwrap_or(b"0");
    Ok(Said {
        device: device.ok_or(NO_DEVICE)?,
        rwbs: rwbs.ok_or(NO_LETTERS)?,
        bytes,
        has_command: value(args, b"cmd").is_some_and(|command| !command.is_empty()),
        sector: some_sector(sector),
        sectors,
        errno: signed(error).ok_or(NO_ERRNO)?,
    })
}

/// `MAJOR,MINOR` as the kernel's `dev_t` has it: 12 bits and 20.
pub(in crate::import) fn device(text: &[u8]) -> Option<u32> {
    let at = text.iter().position(|byte| *byte == b',')?;
    let (major, minor) = (number(text.get(..at)?)?, number(text.get(at + 1..)?)?);
    (major < 1 << 12 && minor < 1 << 20).then_some((major as u32) << 20 | minor as u32)
}

/// `(HEX HEX ...)`: whether something is in it, and what follows. It may not be there at all.
fn command(text: &[u8]) -> Option<(bool, &[u8])> {
    let Some(inner) = text.strip_prefix(b"(") else { return Some((false, text)) };
    let end = inner.iter().position(|byte| *byte == b')')?;
    let (inner, rest) = inner.split_at(end);
    Some((!inner.trim_ascii().is_empty(), rest.get(1..)?.trim_ascii_start()))
}

/// `SECTOR + SECTORS`, and what follows.
pub(in crate::import) fn place(text: &[u8]) -> Option<(u64, u64, &[u8])> {
    let (sector, rest) = word(text);
    let rest = rest.strip_prefix(b"+")?;
    let (sectors, rest) = word(rest);
    Some((some_sector(number(sector)?), number(sectors)?, rest))
}

/// (sector_t)-1: a flush or a packet command has none.
fn some_sector(sector: u64) -> u64 {
    if sector == u64::MAX { 0 } else { sector }
}

/// Bytes where they are said and agree with the sectors; these may have lost part of one.
fn length(bytes: Option<u64>, sectors: u64) -> Option<u32> {
    let whole = sectors.checked_mul(SECTOR_SIZE)?;
    let exact = bytes.filter(|bytes| bytes / SECTOR_SIZE == sectors);
    u32::try_from(exact.unwrap_or(whole)).ok()
}

/// `[-5]`, behind an I/O priority perhaps; as the kernel's 16-bit field in a record has it.
pub(in crate::import) fn errno(text: &[u8]) -> Option<u16> {
    let open = text.iter().position(|byte| *byte == b'[')?;
    let inner = text.get(open + 1..)?;
    signed(inner.get(..inner.iter().position(|byte| *byte == b']')?)?)
}

/// `-5` or `0xfffffffb`, as 16 bits.
fn signed(text: &[u8]) -> Option<u16> {
    if text.starts_with(b"0x") {
        return u32::try_from(c_number(text)?).ok().map(|number| number as u16);
    }
    let (digits, negative) = match text.strip_prefix(b"-") {
        Some(digits) => (digits, true),
        None => (text, false),
    };
    let errno = u16::try_from(number(digits)?).ok()?;
    Some(if negative { errno.wrapping_neg() } else { errno })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BlockOp, OpFlags};
    use crate::import::blktrace::requests::{flags, operation};

    fn read(kind: Kind, args: &str) -> Record {
        parse(kind, args.as_bytes()).unwrap_or_else(|why| panic!("{args}: {why}"))
    }

    #[test]
    fn events_of_old_and_new_kernels() {
        for (kind, args) in [
            (Kind::RqIssue, "8,17 WS 4096 () 2048 + 8 [my [odd] job]"),
            (Kind::RqIssue, "8,17 WS 4096 () 2048 + 8 be,0,4 [fio]"),
            (Kind::RqIssue, "8,17 WS 0 () 2048 + 8 [fio]"),
            (Kind::RqComplete, "8,17 WS () 2048 + 8 [-5]"),
            (Kind::RqComplete, "8,17 WS () 2048 + 8 none,0,0 [-5]"),
            (Kind::RqRequeue, "8,17 WS () 2048 + 8 rt,0,4 [0]"),
            (Kind::BioQueue, "8,17 WS 2048 + 8 [fio]"),
            (Kind::BioComplete, "8,17 WS 2048 + 8 [-5]"),
            (Kind::RqIssue, "dev=8388625 sector=2048 nr_sector=8 bytes=4096 rwbs=WS comm=a b cmd="),
            (Kind::RqComplete, "dev=8388625 sector=2048 nr_sector=8 error=-5 rwbs=WS cmd="),
            (
                Kind::RqIssue,
                "dev: 8388625, sector: 2048, nr_sector: 8, bytes: 4096, rwbs: \"WS\", comm: \"a\"",
            ),
            (Kind::RqComplete, "dev: 8388625, sector: 2048, nr_sector: 8, error: -5, rwbs: \"WS\""),
            (
                Kind::RqComplete,
                "dev=0x800011 (8388625) sector=0x800 (2048) nr_sector=0x8 (8) \
                 error=0xfffffffb (-5) rwbs=WS cmd=",
            ),
        ] {
            let record = read(kind, args);
            assert_eq!((record.device, record.sector, record.bytes), (8 << 20 | 17, 2048, 4096));
            assert_eq!(record.categories(), cat::WRITE | cat::SYNC);
            assert_eq!(record.errno(), if args.contains("-5") { 5 } else { 0 }, "{args}");
        }
        assert_eq!(read(Kind::RqComplete, "dev: 1, sector: -1, rwbs: \"FF\"").sector, 0);
        // Bytes that are no whole sectors are kept.
        assert_eq!(read(Kind::RqIssue, "8,0 R 4100 () 0 + 8 [x]").bytes, 4100);
    }

    #[test]
    fn lines_of_the_tracer_blk() {
        let read = |args: &str| match event(TRACER, args.as_bytes()) {
            Some(Ok((kind, record))) => {
                assert_eq!(record.device, 8 << 20 | 1);
                Some((kind, record.sector, record.bytes, record.errno(), record.categories()))
            }
            Some(Err(why)) => panic!("{args}: {why}"),
            None => None,
        };
        let write = cat::WRITE | cat::SYNC;
        let flush = cat::FLUSH | write;
        for (args, want) in [
            ("8,1    Q  WS 6367 + 8 [kjournald]", Some((Kind::BioQueue, 6367, 4096, 0, write))),
            ("8,1    D  WS 6367 + 8 [kjournald]", Some((Kind::RqIssue, 6367, 4096, 0, write))),
            ("8,1    C  WS 6367 + 8 [-5]", Some((Kind::RqComplete, 6367, 4096, 5, write))),
            ("8,1    Q FWS [kjournald]", Some((Kind::BioQueue, 0, 0, 0, flush))),
            ("8,1    C FWS 0 [0]", Some((Kind::RqComplete, 0, 0, 0, flush))),
            ("8,1    D   R 36 (12 00) [a]", Some((Kind::RqIssue, 0, 0, 0, cat::READ | cat::PC))),
            ("8,1    A WBS 6367 + 8 <- (8,1) 6304", None),
            ("8,1    P   N [kjournald]", None),
        ] {
            assert_eq!(read(args), want, "{args}");
        }
    }

    #[test]
    fn operations_by_their_letters() {
        let op = |args: &str| {
            let record = read(Kind::RqIssue, args);
            if record.is(cat::PC) { Err("packet") } else { operation(&record) }
        };
        assert_eq!(op("8,0 N 65536 () 8 + 128 [x]"), Ok(BlockOp::WriteZeroes));
        assert_eq!(op("8,0 WZS 65536 () 8 + 128 [x]"), Ok(BlockOp::WriteZeroes));
        assert_eq!(op("8,0 FN 0 () 0 + 0 [x]"), Ok(BlockOp::Flush));
        assert_eq!(op("8,0 FF 0 () 18446744073709551615 + 0 [x]"), Ok(BlockOp::Flush));
        assert_eq!(op("8,0 DS 1048576 () 8 + 2048 [x]"), Ok(BlockOp::Discard));
        assert_eq!(op("8,0 R 36 (12 00 00 00 24 00) 0 + 0 [udevd]"), Err("packet"));
        assert_eq!(op("8,0 N 36 () 0 + 0 [udevd]"), Err("packet"));
        assert_eq!(op("8,0 N 0 () 0 + 0 [x]"), Err("packet"));
        assert_eq!(op("8,0 ZR 0 () 8 + 0 [x]"), Err("zone reset"));
        assert_eq!(read(Kind::RqIssue, "8,0 FF 0 () 18446744073709551615 + 0 [x]").sector, 0);
        let journal = read(Kind::BioQueue, "8,0 FWFSM 8 + 2 [jbd2]");
        let all = OpFlags::PREFLUSH | OpFlags::FUA | OpFlags::SYNC | OpFlags::META;
        assert_eq!(flags(&journal, BlockOp::Write), all);
    }

    #[test]
    fn what_is_damaged_says_why() {
        for (kind, args, why) in [
            (Kind::RqIssue, "", "event without a device MAJOR,MINOR"),
            (Kind::RqIssue, "4096,0 R 0 () 0 + 8 [x]", "event without a device MAJOR,MINOR"),
            (Kind::RqIssue, "8,0 Q 0 () 0 + 8 [x]", "event with unknown RWBS letters"),
            (Kind::RqIssue, "8,0 R 0 (12 00 0 + 8 [x]", "event whose command does not end"),
            (Kind::RqIssue, "8,0 R 0 () 0 8 [x]", "event without SECTOR + SECTORS"),
            (Kind::RqIssue, "8,0 R 0 () 0 + 8388608 [x]", "length of 4 GiB or more"),
            (Kind::RqComplete, "8,0 R () 0 + 8", "event without its errno"),
            (Kind::RqComplete, "8,0 R () 0 + 8 [fio]", "event without its errno"),
        ] {
            assert_eq!(parse(kind, args.as_bytes()), Err(why), "{args}");
        }
    }
}
