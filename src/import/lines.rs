//! Lines of a text trace, bounded: a line longer than [`LINE_BYTES_MAX`] is clipped, so that one
//! line of garbage costs one record and not the trace. Where a line is a command, and half of it
//! another one, it is an error.
//! And the numbers in them.

use std::io::{self, Read};

use memchr::memchr;

use super::source::Source;
use crate::base::error::Place;
use crate::base::limits::LINE_BYTES_MAX;
use crate::base::{Error, Result};

/// Bytes read at a time: more than the input's own buffer has, so that they are not copied twice.
const BLOCK_BYTES: usize = 256 << 10;
/// The same, where there may be hundreds of inputs.
const SMALL_BLOCK_BYTES: usize = 16 << 10;

/// Finds lines in blocks of the input; the line number is 1-based.
pub struct Lines {
    source: Source,
    buffer: Vec<u8>,
    /// The next line begins here, and what was read ends there.
    start: usize,
    end: usize,
    ended: bool,
    number: u64,
    limit: usize,
    clips: bool,
    /// The rest of a clipped line is still to be passed over.
    in_clipped: bool,
}

impl Lines {
    /// Lines of `source`; of one that is longer than [`LINE_BYTES_MAX`] the first bytes.
    pub fn new(source: Source) -> Self {
        Self { clips: true, ..Self::with_limit(source, LINE_BYTES_MAX) }
    }

    /// The same, of one of several inputs that are read at a time: with little memory.
    pub fn of_many(source: Source) -> Self {
        Self { buffer: vec![0; SMALL_BLOCK_BYTES], ..Self::new(source) }
    }

    /// Lines of `source`; one of more than `limit` bytes is an error.
    pub fn with_limit(source: Source, limit: usize) -> Self {
        Self {
            source,
            buffer: vec![0; BLOCK_BYTES],
            start: 0,
            end: 0,
            ended: false,
            number: 0,
            limit,
            clips: false,
            in_clipped: false,
        }
    }

    /// The next line without its end (LF or CRLF) and its number.
    ///
    /// # Errors
    /// Input errors: unreadable, or a line that is too long.
    pub fn read_line(&mut self) -> Result<Option<(u64, &[u8])>> {
        if self.in_clipped {
            self.pass_over()?;
        }
        let mut scanned = self.start;
        let end = loop {
            let rest = self.buffer.get(scanned..self.end).unwrap_or_default();
            if let Some(at) = memchr(b'\n', rest) {
                break scanned + at + 1;
            }
            // One byte more than a line may have tells that it is too long.
            if self.ended || self.end - self.start > self.limit {
                break self.end;
            }
            let begun = self.end - self.start;
            self.fill()?;
            scanned = begun;
        };
        let start = std::mem::replace(&mut self.start, end);
        if end == start {
            return Ok(None);
        }
        self.number += 1;
        let line = self.buffer.get(start..end).unwrap_or_default();
        if line.len() > self.limit {
            if !self.clips {
                return Err(too_long(self.number, self.limit).path(self.source.path()));
            }
            self.in_clipped = !line.ends_with(b"\n");
            return Ok(Some((self.number, line.get(..self.limit).unwrap_or(line))));
        }
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        Ok(Some((self.number, line.strip_suffix(b"\r").unwrap_or(line))))
    }

    /// What was read and not given out yet; a line may end behind it.
    #[inline]
    pub fn buffered(&self) -> &[u8] {
        if self.in_clipped {
            return &[];
        }
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Passes over a line, its end included, that was taken from [`Lines::buffered`].
    #[inline]
    pub fn pass_line(&mut self, bytes: usize) {
        self.start = (self.start + bytes).min(self.end);
        self.number += 1;
    }

    /// Lines given out so far.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Goes to the end of a line whose beginning was given out.
    fn pass_over(&mut self) -> Result<()> {
        self.in_clipped = false;
        loop {
            let rest = self.buffer.get(self.start..self.end).unwrap_or_default();
            if let Some(at) = memchr(b'\n', rest) {
                self.start += at + 1;
                return Ok(());
            }
            self.start = self.end;
            if self.ended {
                return Ok(());
            }
            self.fill()?;
        }
    }

    /// Reads a block behind the begun line, which moves to the front.
    fn fill(&mut self) -> Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        loop {
            match self.source.read(room) {
                Ok(n) => {
                    self.ended = n == 0;
                    self.end += n;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.source.error(error)),
            }
        }
    }

    /// The input, to ask what its end was like.
    pub fn source(&self) -> &Source {
        &self.source
    }
}

fn too_long(line: u64, limit: usize) -> Error {
    Error::input(format!("line longer than {limit} bytes")).at(Place::Line(line))
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
        let mut lines = Lines::with_limit(source(&text), LINE_BYTES_MAX);
        assert!(lines.read_line().unwrap().is_some());
        let error = lines.read_line().unwrap_err();
        assert_eq!(error.to_string(), "t: line 2: line longer than 65536 bytes");
    }

    #[test]
    fn long_lines_are_clipped() {
        let long = |n: usize| [vec![b'x'; n], b"\n".to_vec()].concat();
        let text = [
            b"a\n".to_vec(),
            long(LINE_BYTES_MAX + 7),
            b"b\n".to_vec(),
            long(LINE_BYTES_MAX * 5),
            b"c\n".to_vec(),
            vec![b'y'; LINE_BYTES_MAX * 3],
        ]
        .concat();
        for step in [4096, usize::MAX] {
            let input = Box::new(Dripping(text.clone(), step));
            let mut lines = Lines::new(Source::from_read("t".into(), input).unwrap());
            let mut got = Vec::new();
            while let Some((number, line)) = lines.read_line().unwrap() {
                got.push((number, line.len(), line[0]));
            }
            let max = LINE_BYTES_MAX;
            let want = [(1, 1, b'a'), (2, max, b'x'), (3, 1, b'b'), (4, max, b'x'), (5, 1, b'c')];
            assert_eq!(got, [&want[..], &[(6, max, b'y')]].concat(), "{step}");
        }
    }

    /// Gives out a few bytes at a time.
    struct Dripping(Vec<u8>, usize);

    impl Read for Dripping {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len()).min(buf.len());
            buf[..n].copy_from_slice(&self.0[..n]);
            self.0.drain(..n);
            Ok(n)
        }
    }

    #[test]
    fn lines_across_blocks_and_small_reads_are_whole() {
        let text: Vec<u8> = (0..20_000u32).flat_map(|n| format!("{n}\n").into_bytes()).collect();
        let long = [vec![b'x'; LINE_BYTES_MAX - 1], b"\n".to_vec()].concat();
        let text = [text, long.clone(), long].concat();
        for step in [7, 4096, usize::MAX] {
            let input = Box::new(Dripping(text.clone(), step));
            let mut lines = Lines::new(Source::from_read("t".into(), input).unwrap());
            for n in 0..20_000u32 {
                let (number, line) = lines.read_line().unwrap().unwrap();
                assert_eq!((number, line), (u64::from(n) + 1, n.to_string().as_bytes()));
            }
            for _ in 0..2 {
                assert_eq!(lines.read_line().unwrap().unwrap().1.len(), LINE_BYTES_MAX - 1);
            }
            assert!(lines.read_line().unwrap().is_none());
            assert!(lines.read_line().unwrap().is_none());
        }
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
