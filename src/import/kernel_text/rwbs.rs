//! The letters by which the block layer says what a request is (`blk_fill_rwbs`).
//!
//! ```text
//! [F] R|W|D|DE|F|N|WZ|ZA|ZR|ZRA|ZO|ZC|ZF [F] [A] [S] [M] [U]
//! ```
//!
//! An F before the operation is PREFLUSH, behind it FUA; A read-ahead, S synchronous, M metadata, U
//! atomic. An operation of its own is F (a flush), DE (secure erase), and since Linux 6.19 WZ
//! (write-zeroes) and those of zones. N is any other: before 6.19 write-zeroes is one. Long ago E
//! (secure) and B (barrier: since Linux 2.6.37 PREFLUSH and FUA) stood behind.
//!
//! Source: Linux `kernel/trace/blktrace.c`.

use crate::base::{BlockOp, OpFlags};
use crate::import::blktrace::record::{Record, cat};
use crate::import::blktrace::requests::{flags, operation as wanted};

/// What the letters say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::import) struct Rwbs {
    /// `enum blktrace_cat`; none for an operation, when it is `other`.
    pub categories: u64,
    /// N.
    pub other: bool,
    /// A discard that erases securely.
    pub secure: bool,
}

/// Reads them; `None` when they are others.
pub(in crate::import) fn parse(text: &[u8]) -> Option<Rwbs> {
    let mut rwbs = Rwbs { categories: 0, other: false, secure: false };
    let mut rest = text;
    if let [b'F', operation, ..] = text
        && b"RWDNFZ".contains(operation)
    {
        rwbs.categories |= cat::FLUSH;
        rest = text.get(1..)?;
    }
    rest = operation(rest, &mut rwbs)?;
    for letter in rest {
        rwbs.categories |= match letter {
            b'F' => cat::FUA,
            b'A' => cat::AHEAD,
            b'S' => cat::SYNC,
            b'B' => cat::FLUSH | cat::FUA,
            b'M' => cat::META,
            b'U' => 0,
            b'E' => {
                rwbs.secure = true;
                0
            }
            _ => return None,
        };
    }
    Some(rwbs)
}

impl Rwbs {
    /// What a request of so many bytes asks for.
    ///
    /// # Errors
    /// Why it can be none of a trace.
    pub(in crate::import) fn request(self, bytes: u32) -> Result<(BlockOp, OpFlags), &'static str> {
        let action = self.categories << 16;
        let record = Record { bytes, action, ..Record::default() };
        let op = wanted(&record)?;
        Ok((op, flags(&record, op)))
    }
}

/// Takes the operation; returns what is behind it.
fn operation<'l>(text: &'l [u8], rwbs: &mut Rwbs) -> Option<&'l [u8]> {
    const ZONES: [(&[u8], u64); 6] = [
        (b"ZRA", cat::ZONE_RESET_ALL),
        (b"ZR", cat::ZONE_RESET),
        (b"ZA", cat::ZONE_APPEND),
        (b"ZO", cat::ZONE_OPEN),
        (b"ZC", cat::ZONE_CLOSE),
        (b"ZF", cat::ZONE_FINISH),
    ];
    let zone = ZONES.iter().find_map(|(letters, bit)| Some((text.strip_prefix(*letters)?, *bit)));
    if let Some((rest, bit)) = zone {
        rwbs.categories |= cat::WRITE | bit;
        return Some(rest);
    }
    let (categories, rest) = match text {
        [b'R', rest @ ..] => (cat::READ, rest),
        [b'W', b'Z', rest @ ..] => (cat::WRITE | cat::WRITE_ZEROES, rest),
        [b'W', rest @ ..] => (cat::WRITE, rest),
        [b'D', rest @ ..] => (cat::WRITE | cat::DISCARD, rest),
        // As binary blktrace has the flush that a driver gets.
        [b'F', rest @ ..] => (cat::READ | cat::FLUSH, rest),
        [b'N', rest @ ..] => {
            rwbs.other = true;
            (0, rest)
        }
        _ => return None,
    };
    rwbs.categories |= categories;
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_categories() {
        for (text, categories) in [
            ("R", cat::READ),
            ("RA", cat::READ | cat::AHEAD),
            ("WS", cat::WRITE | cat::SYNC),
            ("WSM", cat::WRITE | cat::SYNC | cat::META),
            ("WFSM", cat::WRITE | cat::FUA | cat::SYNC | cat::META),
            ("FWFSM", cat::FLUSH | cat::WRITE | cat::FUA | cat::SYNC | cat::META),
            ("FWS", cat::FLUSH | cat::WRITE | cat::SYNC),
            ("FF", cat::READ | cat::FLUSH),
            ("F", cat::READ | cat::FLUSH),
            ("FS", cat::READ | cat::FLUSH | cat::SYNC),
            ("DS", cat::WRITE | cat::DISCARD | cat::SYNC),
            ("DE", cat::WRITE | cat::DISCARD),
            ("WZS", cat::WRITE | cat::WRITE_ZEROES | cat::SYNC),
            ("WSU", cat::WRITE | cat::SYNC),
            ("WBS", cat::WRITE | cat::FLUSH | cat::FUA | cat::SYNC),
            ("ZRA", cat::WRITE | cat::ZONE_RESET_ALL),
            ("ZA", cat::WRITE | cat::ZONE_APPEND),
            ("ZFS", cat::WRITE | cat::ZONE_FINISH | cat::SYNC),
        ] {
            let rwbs = parse(text.as_bytes()).unwrap();
            assert_eq!((rwbs.categories, rwbs.other), (categories, false), "{text}");
            assert_eq!(rwbs.secure, text == "DE");
        }
        let other = |text: &[u8]| parse(text).map(|rwbs| (rwbs.categories, rwbs.other));
        assert_eq!(other(b"NS"), Some((cat::SYNC, true)));
        assert_eq!(other(b"FN"), Some((cat::FLUSH, true)));
        for bad in [&b""[..], b"S", b"X", b"RX", b"Read", b"4096", b"r", b"Z"] {
            assert_eq!(parse(bad), None, "{}", bad.escape_ascii());
        }
    }
}
