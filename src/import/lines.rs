//! Lines of a text trace, bounded: a line longer than [`LINE_BYTES_MAX`] is an error.

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
}

impl Lines {
    /// Lines of `source`.
    pub fn new(source: Source) -> Self {
        Self { source, line: Vec::new(), number: 0 }
    }

    /// The next line without its end (LF or CRLF) and its number.
    ///
    /// # Errors
    /// Input errors: unreadable, or a line that is too long.
    pub fn read_line(&mut self) -> Result<Option<(u64, &[u8])>> {
        self.line.clear();
        let limit = LINE_BYTES_MAX as u64 + 1;
        let read = self.source.by_ref().take(limit).read_until(b'\n', &mut self.line);
        if read.map_err(|error| self.source.error(error))? == 0 {
            return Ok(None);
        }
        self.number += 1;
        if self.line.len() > LINE_BYTES_MAX {
            return Err(too_long(self.number).path(self.source.path()));
        }
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        Ok(Some((self.number, line.strip_suffix(b"\r").unwrap_or(line))))
    }

    /// The input, to ask what its end was like.
    pub fn source(&self) -> &Source {
        &self.source
    }
}

fn too_long(line: u64) -> Error {
    Error::input(format!("line longer than {LINE_BYTES_MAX} bytes")).at(Place::Line(line))
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
                return Err(io::Error::other(too_long(self.line)));
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
}
