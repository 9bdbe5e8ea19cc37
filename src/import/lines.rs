//! Lines of a text trace, bounded: a line longer than [`LINE_BYTES_MAX`] is an error.
//! And the numbers in them.

use std::io::{self, BufRead, Read};

use super::source::Source;
use crate::base::error::Place;
use crate::base::limits::LINE_BYTES_MAX;
use crate::base::{Error, Result};

/// Reads lines into one buffer; the line number is 1-based.
pub struct Lines {
    source: Source,
    line: Vec<u8>,
    number: u64,
    limit: usize,
}

impl Lines {
    /// Lines of `source`.
    pub fn new(source: Source) -> Self {
        Self::with_limit(source, LINE_BYTES_MAX)
    }

    /// Lines of `source`, each of at most `limit` bytes.
    pub fn with_limit(source: Source, limit: usize) -> Self {
        Self { source, line: Vec::new(), number: 0, limit }
    }

    /// The next line without its end (LF or CRLF) and its number.
    ///
    /// # Errors
    /// Input errors: unreadable, or a line that is too long.
    pub fn read_line(&mut self) -> Result<Option<(u64, &[u8])>> {
        self.line.clear();
        let limit = self.limit as u64 + 1;
        let read = self.source.by_ref().take(limit).read_until(b'\n', &mut self.line);
        if read.map_err(|error| self.source.error(error))? == 0 {
            return Ok(None);
        }
        self.number += 1;
        if self.line.len() > self.limit {
            return Err(too_long(self.number, self.limit).path(self.source.path()));
        }
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        Ok(Some((self.number, line.strip_suffix(b"\r").unwrap_or(line))))
    }

    /// The input, to ask what its end was like.
    pub fn source(&self) -> &Source {
        &self.source
    }
}

fn too_long(line: u64, limit: usize) -> Error {
    Error::input(format!("line longer than {limit} bytes")).at(Place::Line(line))
}

/// Passes bytes through to a parser that would otherwise buffer a line of any length.
pub struct LineLimit {
    source: Source,
    line: u64,
    line_bytes: usize,
}

impl LineLimit {
    /// A guard around `source`.
    pub fn new(source: Source) -> Self {
        Self { source, line: 1, line_bytes: 0 }
    }

    /// The input, to ask what its end was like.
    pub fn source(&self) -> &Source {
        &self.source
    }
}

impl Read for LineLimit {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(buf)?;
        for piece in buf[..n].split_inclusive(|byte| *byte == b'\n') {
            self.line_bytes += piece.len();
            if self.line_bytes > LINE_BYTES_MAX {
                return Err(io::Error::other(too_long(self.line, LINE_BYTES_MAX)));
            }
            if piece.ends_with(b"\n") {
                self.line += 1;
                self.line_bytes = 0;
            }
        }
        Ok(n)
    }
}

/// An unsigned decimal number, and nothing else around it.
pub fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 20 {
        return None;
    }
    text.iter().try_fold(0u64, |value, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// An unsigned hexadecimal number without its `0x`.
pub fn hex(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 64 {
        return None;
    }
    text.iter().try_fold(0u64, |value, byte| {
        let digit = char::from(*byte).to_digit(16)?;
        value.checked_mul(16)?.checked_add(u64::from(digit))
    })
}

/// A number as C's `strtoul` reads it with base 0: `0x1f`, `31`, `037`; no sign.
pub fn c_number(text: &[u8]) -> Option<u64> {
    match text {
        [b'0', b'x' | b'X', digits @ ..] => hex(digits),
        [b'0', digits @ ..] if !digits.is_empty() && digits.len() <= 64 => {
            digits.iter().try_fold(0u64, |value, byte| {
                let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 7)?;
                value.checked_mul(8)?.checked_add(u64::from(digit))
            })
        }
        _ => number(text),
    }
}

/// The first word of `text` and what follows the blanks after it; the word is empty at the end.
pub fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let text = text.trim_ascii_start();
    let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word, rest.trim_ascii_start())
}

/// `SECONDS.FRACTION` in nanoseconds; a fraction of at most 9 digits, which may be missing.
pub fn seconds(text: &[u8]) -> Option<u64> {
    const NANOS_PER_SECOND: u64 = 1_000_000_000;
    let dot = text.iter().position(|byte| *byte == b'.').unwrap_or(text.len());
    let (whole, fraction) = text.split_at(dot);
    let whole = number(whole)?.checked_mul(NANOS_PER_SECOND)?;
    let Some(digits) = fraction.strip_prefix(b".") else { return Some(whole) };
    let scale = 10u64.pow(9u32.checked_sub(u32::try_from(digits.len()).ok()?)?);
    whole.checked_add(number(digits)? * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &[u8]) -> Source {
        Source::from_read("t".into(), Box::new(io::Cursor::new(text.to_vec()))).unwrap()
    }

    #[test]
    fn ends_of_lines() {
        let mut lines = Lines::new(source(b"one\r\n\ntwo\rx\nlast"));
        let mut got = Vec::new();
        while let Some((number, line)) = lines.read_line().unwrap() {
            got.push((number, line.to_vec()));
        }
        let want: [(u64, &[u8]); 4] = [(1, b"one"), (2, b""), (3, b"two\rx"), (4, b"last")];
        assert_eq!(got, want.map(|(n, line)| (n, line.to_vec())));
    }

    #[test]
    fn a_line_without_end_is_an_error_with_its_number() {
        let text = [b"ok\n".to_vec(), vec![b'x'; LINE_BYTES_MAX * 4]].concat();
        let mut lines = Lines::new(source(&text));
        assert!(lines.read_line().unwrap().is_some());
        let error = lines.read_line().unwrap_err();
        assert_eq!(error.to_string(), "t: line 2: line longer than 65536 bytes");
        let error = LineLimit::new(source(&text)).read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "line 2: line longer than 65536 bytes");
    }

    #[test]
    fn numbers_are_digits_only() {
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        for bad in [&b""[..], b"18446744073709551616", b"-1", b"+1", b"1 ", b"0x10", b"1.5"] {
            assert_eq!(number(bad), None);
        }
    }
    #[test]
    fn numbers_of_c() {
        for (text, value) in [
            (&b"0x1F"[..], Some(31)),
            (b"0Xffffffffffffffff", Some(u64::MAX)),
            (b"0x10000000000000000", None),
            (b"0x", None),
            (b"31", Some(31)),
            (b"037", Some(31)),
            (b"0", Some(0)),
            (b"08", None),
            (b"0777777777777777777777", Some(0x7fff_ffff_ffff_ffff)),
            (b"07777777777777777777777777", None),
            (b"-1", None),
            (b"", None),
            (b"0x1g", None),
        ] {
            assert_eq!(c_number(text), value, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn words_are_between_blanks() {
        assert_eq!(word(b"  one\t two three "), (&b"one"[..], &b"two three "[..]));
        assert_eq!(word(b"one"), (&b"one"[..], &b""[..]));
        assert_eq!(word(b"  "), (&b""[..], &b""[..]));
    }

    #[test]
    fn seconds_have_up_to_nine_digits_of_fraction() {
        assert_eq!(seconds(b"70.073551"), Some(70_073_551_000));
        assert_eq!(seconds(b"1"), Some(1_000_000_000));
        assert_eq!(seconds(b"0.000000001"), Some(1));
        for bad in [&b"1."[..], b"1.0000000001", b".5", b"", b"99999999999999", b"1.-1"] {
            assert_eq!(seconds(bad), None, "{}", bad.escape_ascii());
        }
        assert_eq!(seconds(b"18446744073.709551615"), Some(u64::MAX));
        assert_eq!(seconds(b"18446744073.709551616"), None);
    }
}
