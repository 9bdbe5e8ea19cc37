//! The columns of a row, read one after the other.
//!
//! A format says once, for any [`Columns`], what its columns are. Nearly all lines are plain and
//! are read where they stand in the input's buffer, without a look for their end and their columns
//! before ([`Quick`]); what is anything but plain, or no row, is split into
//! [`Fields`] and read again, which says why.

use std::ops::RangeInclusive;

use super::clock::Clock;
use super::fields::{Fields, Separator, scaled, whole};
use super::quick::Quick;
use super::text::{LineFormat, NOT_A_NUMBER, Parsed, Skip};

/// The columns of a line from the first on.
pub(in crate::import) trait Columns<'l> {
    /// Says how many there must be; else the row is malformed, for that reason.
    ///
    /// # Errors
    /// There are not so many, where that is known already.
    fn expect(&mut self, count: RangeInclusive<usize>, or: &'static str) -> Result<(), Skip>;

    /// The next column.
    ///
    /// # Errors
    /// It cannot be had as it stands.
    fn text(&mut self) -> Result<&'l [u8], Skip>;

    /// The next column, a whole number.
    ///
    /// # Errors
    /// It is none.
    fn whole(&mut self) -> Result<u64, Skip>;

    /// The next column, a whole number that is a name.
    ///
    /// # Errors
    /// It is none.
    fn number_name(&mut self) -> Result<&'l [u8], Skip>;

    /// The next column, a number, perhaps with a fraction, times a power of ten.
    ///
    /// # Errors
    /// It is none.
    fn scaled(&mut self, unit: u64) -> Result<u64, Skip>;

    /// The same; `None` when the column is empty.
    ///
    /// # Errors
    /// It is no number.
    fn scaled_or_empty(&mut self, unit: u64) -> Result<Option<u64>, Skip>;

    /// The next column, a time.
    ///
    /// # Errors
    /// It is none.
    fn time(&mut self, clock: &mut Clock) -> Result<u64, Skip>;

    /// The next column, a whole number of units, in bytes.
    ///
    /// # Errors
    /// It is none, or the bytes are too many for any number.
    #[inline]
    fn units(&mut self, unit_bytes: u64) -> Result<u64, Skip> {
        self.whole()?.checked_mul(unit_bytes).ok_or(NOT_A_NUMBER)
    }
}

/// A format whose rows are read column by column.
pub(in crate::import) trait RowFormat: Send + 'static {
    /// What sets its columns apart.
    const SEPARATOR: Separator;

    /// The row that the columns are.
    ///
    /// # Errors
    /// Says why they are none.
    fn row<'l, C: Columns<'l>>(
        &self,
        columns: &mut C,
        clock: &mut Clock,
    ) -> Result<Parsed<'l>, Skip>;

    /// As [`LineFormat::is_header`].
    fn is_header(&self, _fields: Fields<'_>) -> bool {
        false
    }
}

impl<F: RowFormat> LineFormat for F {
    const SEPARATOR: Separator = F::SEPARATOR;

    fn parse<'l>(&mut self, fields: Fields<'l>, clock: &mut Clock) -> Result<Parsed<'l>, Skip> {
        self.row(&mut Split { fields, next: 0 }, clock)
    }

    #[inline]
    fn quick<'l>(&self, line: &mut Quick<'l>, clock: &mut Clock) -> Option<Parsed<'l>> {
        self.row(line, clock).ok()
    }

    fn is_header(&self, fields: Fields<'_>) -> bool {
        RowFormat::is_header(self, fields)
    }
}

/// The columns of a line that was split.
struct Split<'l> {
    fields: Fields<'l>,
    next: usize,
}

impl<'l> Split<'l> {
    fn next(&mut self) -> &'l [u8] {
        let column = self.fields.get(self.next);
        self.next += 1;
        column
    }
}

impl<'l> Columns<'l> for Split<'l> {
    fn expect(&mut self, count: RangeInclusive<usize>, or: &'static str) -> Result<(), Skip> {
        if count.contains(&self.fields.len()) { Ok(()) } else { Err(Skip::Malformed(or)) }
    }

    fn text(&mut self) -> Result<&'l [u8], Skip> {
        Ok(self.next())
    }

    fn whole(&mut self) -> Result<u64, Skip> {
        whole(self.next()).ok_or(NOT_A_NUMBER)
    }

    fn number_name(&mut self) -> Result<&'l [u8], Skip> {
        let name = self.next();
        whole(name).map(|_| name).ok_or(NOT_A_NUMBER)
    }

    fn scaled(&mut self, unit: u64) -> Result<u64, Skip> {
        scaled(self.next(), unit).ok_or(NOT_A_NUMBER)
    }

    fn scaled_or_empty(&mut self, unit: u64) -> Result<Option<u64>, Skip> {
        match self.next() {
            b"" => Ok(None),
            text => scaled(text, unit).map(Some).ok_or(NOT_A_NUMBER),
        }
    }

    fn time(&mut self, clock: &mut Clock) -> Result<u64, Skip> {
        let text = self.next();
        clock.read(text).ok_or_else(|| clock.why_not(text))
    }
}

#[cfg(test)]
pub(in crate::import) mod testing {
    use super::*;
    use crate::base::Prng;
    use crate::import::dataset::fields::Splitter;

    const LINES: u64 = 20_000;
    /// What is put into lines: what formats are made of, and what is none of it.
    const BYTES: &[u8] = b"0123456789,. \t\"\r\n-+eERWrwx_;\0\xff";

    /// Damages `line` again and again: what is taken for plain must be the row that the long way
    /// makes of it, and nothing but the line.
    pub(in crate::import) fn both_ways_agree<F: LineFormat>(
        mut format: F,
        mut clock: Clock,
        line: &str,
    ) {
        clock.read(b"1").unwrap();
        let mut prng = Prng::new(7);
        let mut plain = 0;
        for _ in 0..LINES {
            let mut text = format!("{line}\nand what follows it").into_bytes();
            for _ in 0..prng.below(3) {
                let at = prng.below(line.len() as u64 + 1) as usize;
                let byte = BYTES[prng.below(BYTES.len() as u64) as usize];
                match prng.below(3) {
                    0 => text[at] = byte,
                    1 => text.insert(at, byte),
                    _ => drop(text.remove(at)),
                }
            }
            let mut quick = Quick::new(&text, F::SEPARATOR);
            let row = format.quick(&mut quick, &mut clock);
            let Some((row, bytes)) = row.zip(quick.line_bytes()) else { continue };
            plain += 1;
            let row = format!("{row:?}");
            let taken = text[..bytes].strip_suffix(b"\n").unwrap();
            assert!(!taken.contains(&b'\n'), "{}", text.escape_ascii());
            let taken = taken.strip_suffix(b"\r").unwrap_or(taken);
            let mut splitter = Splitter::new(F::SEPARATOR);
            let want = format.parse(splitter.split(taken), &mut clock);
            assert_eq!(row, format!("{:?}", want.unwrap()), "{}", taken.escape_ascii());
        }
        // A third of the lines is whole, and much damage leaves a plain one.
        assert!(plain > LINES / 3, "{plain}");
    }
}
