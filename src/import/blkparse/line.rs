//! The lines that blkparse prints by default.

use crate::base::SECTOR_SIZE;
use crate::import::blktrace::record::{Record, act, cat};
use crate::import::kernel_text::block::{device, errno, place};
use crate::import::kernel_text::rwbs;
use crate::import::lines::{number, seconds, word};

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line<'l> {
    /// A record, with the number that its CPU gave it.
    Record(Record, u64),
    /// A message.
    Message(Record, &'l [u8]),
    /// It begins as a record does, and cannot be read for this reason.
    Malformed(&'static str),
    /// It is none.
    Other,
}

/// Reads a line without its end.
pub(super) fn parse(text: &[u8]) -> Line<'_> {
    let Some((head, action, rest)) = head(text) else { return Line::Other };
    if action == b"m" {
        // The RWBS of a message are always N.
        let (_, message) = word(rest);
        return Line::Message(head.record, message);
    }
    match record(head.record, action, rest) {
        Ok(record) => Line::Record(record, head.sequence),
        Err(why) => Line::Malformed(why),
    }
}

struct Head {
    record: Record,
    sequence: u64,
}

/// `%D %2c %8s %5T.%9t %5p %2a `: what every line has.
fn head(text: &[u8]) -> Option<(Head, &[u8], &[u8])> {
    // A device's numbers are padded to three columns: a comma may have a blank behind it.
    let text = text.trim_ascii_start();
    let (numbers, rest) = word(text);
    let device = device(numbers)?;
    let (cpu, rest) = word(rest);
    let (sequence, rest) = word(rest);
    let (time, rest) = word(rest);
    let (pid, rest) = word(rest);
    let (action, rest) = word(rest);
    number(pid)?;
    let record = Record {
        sequence: 0,
        time: seconds(time).filter(|_| time.contains(&b'.'))?,
        sector: 0,
        bytes: 0,
        action: 0,
        device,
        cpu: u32::try_from(number(cpu)?).ok()?,
        error: 0,
        pdu_len: 0,
    };
    Some((Head { record, sequence: number(sequence)? }, action, rest))
}

/// What is behind the action.
fn record(mut record: Record, action: &[u8], rest: &[u8]) -> Result<Record, &'static str> {
    let act = act::of_letter(action).ok_or("record of an unknown action")?;
    let (letters, rest) = word(rest);
    let rwbs = rwbs::parse(letters).ok_or("record with unknown RWBS letters")?;
    // What blkparse calls N is no write and has no length.
    let mut categories = rwbs.categories | if rwbs.other { cat::READ } else { 0 };
    match act {
        act::COMPLETE | act::REQUEUE => {
            record.error = errno(rest).ok_or("completion without [ERROR]")?;
            // A packet command has no sector, but perhaps its bytes: (12 00 ..).
            match number(word(rest).0) {
                None => categories |= cat::PC,
                Some(_) => extent(&mut record, rest)?,
            }
        }
        act::QUEUE | act::ISSUE => {
            let (first, after) = word(rest);
            match number(first) {
                // A flush, with `(ELAPSED)` perhaps, and the process.
                None if first.starts_with(b"[") || first.starts_with(b"(") => {}
                Some(bytes) if !after.starts_with(b"+") => {
                    categories |= cat::PC;
                    record.bytes = u32::try_from(bytes).map_err(|_| TOO_LONG)?;
                }
                Some(_) => extent(&mut record, rest)?,
                None => return Err("record that ends behind its RWBS letters"),
            }
        }
        // Of use for the flush that follows, whose place is not printed.
        act::REMAP => record.sector = place(rest).map_or(0, |(sector, ..)| sector),
        // No stage takes these: what they say is not read.
        _ => {}
    }
    record.action = categories << 16 | u64::from(act);
    Ok(record)
}

const TOO_LONG: &str = "length of 4 GiB or more";

/// `SECTOR + SECTORS`, or of what has no length `SECTOR`.
fn extent(record: &mut Record, text: &[u8]) -> Result<(), &'static str> {
    let (sector, sectors) = match place(text) {
        Some((sector, sectors, _)) => (sector, sectors),
        None if word(text).1.starts_with(b"+") => return Err("record with unknown SECTORS"),
        None => (number(word(text).0).filter(|sector| *sector != u64::MAX).unwrap_or(0), 0),
    };
    record.sector = sector;
    let bytes = sectors.checked_mul(SECTOR_SIZE).and_then(|bytes| u32::try_from(bytes).ok());
    record.bytes = bytes.ok_or(TOO_LONG)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Record {
        match parse(line.as_bytes()) {
            Line::Record(record, _) => record,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn records_of_each_shape() {
        let line = "254,32   1       12     3.000143020   143  Q FWFSM 524160 + 8 [mkfs (x) [y]]";
        let record = read(line);
        assert_eq!((record.device, record.cpu, record.time), (254 << 20 | 32, 1, 3_000_143_020));
        assert_eq!((record.act(), record.sector, record.bytes), (act::QUEUE, 524_160, 4096));
        let all = cat::FLUSH | cat::WRITE | cat::FUA | cat::SYNC | cat::META;
        assert_eq!(record.categories(), all);
        for (tail, act, sector, bytes, error) in [
            ("C  RA 8 + 8 [0]", act::COMPLETE, 8, 4096, 0),
            ("C  RA 8 + 8 (   12345) [0]", act::COMPLETE, 8, 4096, 0),
            ("C  RA 8 + 8 [65531]", act::COMPLETE, 8, 4096, 5),
            ("C  RA 8 + 8 [-5]", act::COMPLETE, 8, 4096, 5),
            ("C  WS 0 [0]", act::COMPLETE, 0, 0, 0),
            ("C  WS 8 (   12345) [0]", act::COMPLETE, 8, 0, 0),
            ("C  FF 18446744073709551615 [0]", act::COMPLETE, 0, 0, 0),
            ("R   W 8 + 8 [0]", act::REQUEUE, 8, 4096, 0),
            ("D  FN [kworker/0:1H]", act::ISSUE, 0, 0, 0),
            ("D  FN (   12345) [kworker/0:1H]", act::ISSUE, 0, 0, 0),
            ("D  WS 8 + 8 (   12345) [fio]", act::ISSUE, 8, 4096, 0),
            ("P   N [fio]", 9, 0, 0, 0),
            ("UT   N [fio] 1", 11, 0, 0, 0),
            ("U   N [fio] 1", 10, 0, 0, 0),
            ("X  WS 2048 / 4096 [fio]", act::SPLIT, 0, 0, 0),
            ("A  WS 8 + 8 <- (8,1) 0", act::REMAP, 8, 0, 0),
        ] {
            let record = read(&format!("  8,0    0        1     0.000000001     0 {tail}"));
            let got = (record.act(), record.sector, record.bytes, record.errno());
            assert_eq!(got, (act, sector, bytes, error), "{tail}");
            assert!(!record.is(cat::PC));
        }
    }

    #[test]
    fn packet_commands_are_told_apart() {
        for tail in [
            "D   R 36 (12 00 00 00 24 00 ..) [udevd]",
            "D   N 0 [smartd]",
            "C   R (12 00 ..) [0]",
            "C   N [0]",
            "R   N [0]",
        ] {
            assert!(read(&format!("8,0 0 1 0.1 0 {tail}")).is(cat::PC), "{tail}");
        }
    }

    #[test]
    fn messages_and_what_is_none() {
        let line = b"  8,0    1        0     0.000003434     0  m   N cfq17S / alloced";
        let Line::Message(record, text) = parse(line) else { panic!("no message") };
        assert_eq!((record.time, text), (3434, &b"cfq17S / alloced"[..]));
        for line in [
            "",
            "CPU0 (vdc):",
            " Reads Queued:          23,       80KiB\t Writes Queued:         434,    15125KiB",
            "8,0 0 1 7 0 Q R 8 + 8 [x]",
            "8,0 x 1 0.1 0 Q R 8 + 8 [x]",
            "8 0 1 0.1 0 Q R 8 + 8 [x]",
        ] {
            assert_eq!(parse(line.as_bytes()), Line::Other, "{line}");
        }
        for (tail, why) in [
            ("Y   R 8 + 8 [x]", "record of an unknown action"),
            ("Q   Y 8 + 8 [x]", "record with unknown RWBS letters"),
            ("Q   R 8 + x [x]", "record with unknown SECTORS"),
            ("Q   R 8 + 8388608 [x]", "length of 4 GiB or more"),
            ("Q   R", "record that ends behind its RWBS letters"),
            ("C   R 8 + 8", "completion without [ERROR]"),
        ] {
            let line = format!("8,0 0 1 0.1 0 {tail}");
            assert_eq!(parse(line.as_bytes()), Line::Malformed(why), "{line}");
        }
    }
}
