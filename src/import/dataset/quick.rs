//! A line of plain columns, read where it stands in the input's buffer.
//!
//! Plain are digits, perhaps with a point, and words without blanks and quotes, each directly
//! beside its separator; the line ends with LF or CRLF. For all else every method says so, and the
//! line is split and read the long way: so nothing here needs to be right about what is odd, only
//! to notice it.

use std::ops::RangeInclusive;

use memchr::memchr;

use super::clock::Clock;
use super::columns::Columns;
use super::fields::Separator;
use super::numbers::POWERS;
use super::swar;
use super::text::Skip;

/// Not plain; nobody sees it.
const ODD: Skip = Skip::Quiet;

/// Most digits of a number that fits whatever they are.
const DIGITS_MAX: usize = 19;

/// Longest plain word of a text.
const TEXT_BYTES_MAX: usize = 64;

/// Bytes looked at at a time.
const WORD_BYTES: usize = 8;

/// The columns of the line at the beginning of a text.
///
/// Its methods are small parts of one loop over lines, which is why they are put into it.
pub(in crate::import) struct Quick<'l> {
    text: &'l [u8],
    /// What was not read yet.
    rest: &'l [u8],
    separator: u8,
    /// Columns are set apart by blanks, so that none is empty.
    by_blanks: bool,
    /// Columns that were ended by a separator.
    separated: usize,
    count: RangeInclusive<usize>,
    ended: bool,
}

impl<'l> Quick<'l> {
    /// The line that `text` begins with; it goes on behind the line's end.
    #[inline]
    pub(super) fn new(text: &'l [u8], separator: Separator) -> Self {
        let (separator, by_blanks) = match separator {
            Separator::Byte(byte) => (byte, false),
            Separator::Blanks => (b' ', true),
        };
        let count = 0..=usize::MAX;
        Self { text, rest: text, separator, by_blanks, separated: 0, count, ended: false }
    }

    /// Bytes of the line with its end, once its columns were read.
    #[inline]
    pub(super) fn line_bytes(&self) -> Option<usize> {
        let behind = match self.ended {
            true if self.count.contains(&(self.separated + 1)) => {
                self.rest.strip_prefix(b"\r").unwrap_or(self.rest).get(1..)?
            }
            false if *self.count.end() == usize::MAX && self.separated >= *self.count.start() => {
                self.rest.get(memchr(b'\n', self.rest)? + 1..)?
            }
            _ => return None,
        };
        Some(self.text.len() - behind.len())
    }

    /// Whether all columns were read.
    #[inline]
    pub(in crate::import) fn has_ended(&self) -> bool {
        self.ended
    }

    #[inline(always)]
    fn word(&self) -> Result<u64, Skip> {
        self.rest.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)).ok_or(ODD)
    }

    /// Takes `len` bytes.
    #[inline(always)]
    fn take(&mut self, len: usize) -> Result<&'l [u8], Skip> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(ODD)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Digits, at least one: their number, and how many they are.
    #[inline(always)]
    fn digits(&mut self) -> Result<(u64, usize), Skip> {
        let (mut value, mut count) = (0, 0);
        loop {
            let word = self.word()?;
            let len = swar::leading_digits(word);
            if count + len > DIGITS_MAX {
                return Err(ODD);
            }
            if len == WORD_BYTES {
                // As a constant: the processor reads on before it knows how many digits there are.
                self.take(WORD_BYTES)?;
                count += WORD_BYTES;
                value = value * POWERS[WORD_BYTES] + swar::leading_number(word, WORD_BYTES);
                continue;
            }
            self.take(len)?;
            let power = POWERS.get(len).copied().unwrap_or_default();
            let value = value * power + swar::leading_number(word, len);
            return if count + len > 0 { Ok((value, count + len)) } else { Err(ODD) };
        }
    }

    /// A column ends here.
    #[inline(always)]
    fn end_column(&mut self) -> Result<(), Skip> {
        match self.rest {
            [byte, rest @ ..] if *byte == self.separator => {
                self.rest = rest;
                self.separated += 1;
            }
            [b'\n', ..] | [b'\r', b'\n', ..] => self.ended = true,
            _ => return Err(ODD),
        }
        Ok(())
    }

    /// A column begins here.
    #[inline(always)]
    fn begin_column(&self) -> Result<(), Skip> {
        if self.ended { Err(ODD) } else { Ok(()) }
    }
}

impl<'l> Columns<'l> for Quick<'l> {
    #[inline(always)]
    fn expect(&mut self, count: RangeInclusive<usize>, _or: &'static str) -> Result<(), Skip> {
        self.count = count;
        Ok(())
    }

    #[inline(always)]
    fn text(&mut self) -> Result<&'l [u8], Skip> {
        self.begin_column()?;
        let (start, mut len) = (self.rest, 0);
        loop {
            let plain = swar::plain_bytes(self.word()?, self.separator);
            self.take(plain)?;
            len += plain;
            if plain < WORD_BYTES {
                break;
            }
            if len > TEXT_BYTES_MAX {
                return Err(ODD);
            }
        }
        if self.by_blanks && len == 0 {
            return Err(ODD);
        }
        self.end_column()?;
        start.get(..len).ok_or(ODD)
    }

    #[inline(always)]
    fn whole(&mut self) -> Result<u64, Skip> {
        self.begin_column()?;
        let (value, _) = self.digits()?;
        self.end_column()?;
        Ok(value)
    }

    #[inline(always)]
    fn number_name(&mut self) -> Result<&'l [u8], Skip> {
        let start = self.rest;
        self.begin_column()?;
        let (_, len) = self.digits()?;
        self.end_column()?;
        start.get(..len).ok_or(ODD)
    }

    #[inline(always)]
    fn scaled(&mut self, unit: u64) -> Result<u64, Skip> {
        self.begin_column()?;
        let (whole, _) = self.digits()?;
        let mut value = whole.checked_mul(unit).ok_or(ODD)?;
        if let [b'.', rest @ ..] = self.rest {
            self.rest = rest;
            let (fraction, len) = self.digits()?;
            // No division: units are powers of ten.
            let digits = unit.checked_ilog10().ok_or(ODD)?;
            let left = digits.checked_sub(len as u32).ok_or(ODD)?;
            let power = POWERS.get(left as usize).ok_or(ODD)?;
            value = value.checked_add(fraction * power).ok_or(ODD)?;
        }
        self.end_column()?;
        Ok(value)
    }

    #[inline(always)]
    fn scaled_or_empty(&mut self, unit: u64) -> Result<Option<u64>, Skip> {
        // An empty column is odd enough.
        self.scaled(unit).map(Some)
    }

    #[inline(always)]
    fn time(&mut self, clock: &mut Clock) -> Result<u64, Skip> {
        self.scaled(clock.settled_unit().ok_or(ODD)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::dataset::fields::{Splitter, scaled, whole};

    const COMMA: Separator = Separator::Byte(b',');
    /// What stands behind a line, so that it is read from a buffer.
    const BEHIND: &str = "\nmore than a few words of it\n";

    /// `text,whole,scaled` of a line.
    fn read(line: &str, separator: Separator) -> Option<(String, u64, u64, usize)> {
        let text = format!("{line}{BEHIND}");
        let mut quick = Quick::new(text.as_bytes(), separator);
        quick.expect(3..=3, "").ok()?;
        let name = String::from_utf8(quick.text().ok()?.to_vec()).unwrap();
        let (whole, scaled) = (quick.whole().ok()?, quick.scaled(1_000_000_000).ok()?);
        Some((name, whole, scaled, quick.line_bytes()?))
    }

    #[test]
    fn plain_lines_are_read() {
        let want = Some(("ab".to_owned(), 12, 1_500_000_000, 10));
        assert_eq!(read("ab,12,1.5", COMMA), want);
        let want = Some(("".to_owned(), 9_999_999_999_999_999_999, 0, 24));
        assert_eq!(read(",9999999999999999999,0\r", COMMA), want);
        let name = "x".repeat(50);
        assert_eq!(
            read(&format!("{name} 12345678 12345678.12345678"), Separator::Blanks),
            Some((name, 12_345_678, 12_345_678_123_456_780, 78))
        );
    }

    #[test]
    fn what_is_odd_is_noticed() {
        for line in [
            "",
            "ab",
            "ab,1",
            "ab,1,2,3",
            "ab,1,",
            " ab,1,2",
            "ab ,1,2",
            "\"ab\",1,2",
            "ab,+1,2",
            "ab,1.0,2",
            "ab,1,2 ",
            "ab,1,.5",
            "ab,1,5.",
            "ab,1,1e3",
            "ab,-1,2",
            "ab,1,2\r\r",
            "ab,,2",
            "ab,99999999999999999999,2",
            "ab,1,99999999999999999",
            "ab,1,1.0123456789",
            "a\tb,1,2",
            "ab,1\0,2",
            "ab;1;2",
            "ab,1,2,",
        ] {
            assert_eq!(read(line, COMMA), None, "{line}");
        }
        assert_eq!(read("ab  1 2", Separator::Blanks), None);
        assert_eq!(read(" 1 2", Separator::Blanks), None);
        assert_eq!(read(&format!("{},1,2", "x".repeat(100)), COMMA), None);
    }

    #[test]
    fn a_text_that_ends_too_soon_is_left_to_the_long_way() {
        let line = "ab,12,1.5\n";
        for len in 0..line.len() {
            let mut quick = Quick::new(&line.as_bytes()[..len], COMMA);
            let row = (quick.text(), quick.whole(), quick.scaled(1));
            assert!(row.0.is_err() || row.1.is_err() || row.2.is_err(), "{len}");
        }
    }

    #[test]
    fn more_columns_are_passed_over_where_they_may_stand() {
        for (line, len) in [("1,2", Some(4)), ("1,2,,\"x y\"", Some(11)), ("1", None)] {
            let text = format!("{line}{BEHIND}");
            let mut quick = Quick::new(text.as_bytes(), COMMA);
            quick.expect(2..=usize::MAX, "").unwrap();
            let read = quick.whole().and(quick.whole());
            assert_eq!(read.ok().and_then(|_| quick.line_bytes()), len, "{line}");
        }
    }

    /// Whatever is taken for plain is what the long way makes of it.
    #[test]
    fn both_ways_agree() {
        let mut prng = crate::base::Prng::new(12);
        let mut read_quick = 0;
        for _ in 0..200_000 {
            let mut column = |most: u64| {
                let bytes: String = (0..prng.below(most))
                    .map(|_| {
                        char::from(b"01234567890123456789.. a\"\r\t-e,"[prng.below(30) as usize])
                    })
                    .collect();
                bytes
            };
            let line = format!("{},{},{}", column(12), column(22), column(22));
            let Some((name, number, time, bytes)) = read(&line, COMMA) else { continue };
            read_quick += 1;
            let line = line.strip_suffix('\r').unwrap_or(&line);
            let mut splitter = Splitter::new(COMMA);
            let fields = splitter.split(line.as_bytes());
            assert_eq!(fields.len(), 3, "{line}");
            assert_eq!(fields.get(0), name.as_bytes(), "{line}");
            assert_eq!(whole(fields.get(1)), Some(number), "{line}");
            assert_eq!(scaled(fields.get(2), 1_000_000_000), Some(time), "{line}");
            assert!(bytes == line.len() + 1 || bytes == line.len() + 2);
        }
        assert!(read_quick > 100, "{read_quick}");
    }
}
