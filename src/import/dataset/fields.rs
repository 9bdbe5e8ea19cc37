//! Columns of a line, and the numbers in them.

use memchr::{memchr, memchr_iter};

/// Most columns of a line that are looked at: the widest format has 23.
pub(in crate::import) const COLUMNS_MAX: usize = 40;

/// How columns are set apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::import) enum Separator {
    /// One such byte; blanks around a column are no part of it, and it may stand in quotes.
    Byte(u8),
    /// Any number of blanks.
    Blanks,
}

/// The columns of one line.
#[derive(Clone, Copy, Debug)]
pub(in crate::import) struct Fields<'l> {
    line: &'l [u8],
    bounds: &'l [(u32, u32)],
}

impl<'l> Fields<'l> {
    /// How many there are.
    #[inline]
    pub(in crate::import) fn len(&self) -> usize {
        self.bounds.len()
    }

    /// Column `at`, from 0; empty where there is none.
    #[inline]
    pub(in crate::import) fn get(&self, at: usize) -> &'l [u8] {
        let bounds = self.bounds.get(at).copied().unwrap_or_default();
        self.line.get(bounds.0 as usize..bounds.1 as usize).unwrap_or_default()
    }

    /// Column `at` counted from the last, which is 0.
    #[inline]
    pub(in crate::import) fn last_but(&self, at: usize) -> &'l [u8] {
        self.len().checked_sub(at + 1).map_or(&[], |at| self.get(at))
    }

    /// The whole line.
    #[inline]
    pub(in crate::import) fn line(&self) -> &'l [u8] {
        self.line
    }
}

/// Splits lines; keeps its memory from line to line.
pub(in crate::import) struct Splitter {
    separator: Separator,
    bounds: Vec<(u32, u32)>,
    /// A line without its quotes.
    unquoted: Vec<u8>,
}

impl Splitter {
    /// Lines whose columns are set apart by `separator`.
    pub(in crate::import) fn new(separator: Separator) -> Self {
        Self { separator, bounds: Vec::with_capacity(COLUMNS_MAX), unquoted: Vec::new() }
    }

    /// The columns of `line`; those past [`COLUMNS_MAX`] are left out.
    #[inline]
    pub(in crate::import) fn split<'s>(&'s mut self, line: &'s [u8]) -> Fields<'s> {
        self.bounds.clear();
        match self.separator {
            Separator::Blanks => {
                self.split_blanks(line);
                Fields { line, bounds: &self.bounds }
            }
            Separator::Byte(byte) if memchr(b'"', line).is_none() => {
                self.split_bytes(line, byte);
                Fields { line, bounds: &self.bounds }
            }
            Separator::Byte(byte) => self.split_quoted(line, byte),
        }
    }

    #[inline]
    fn split_bytes(&mut self, line: &[u8], separator: u8) {
        let mut start = 0;
        for end in memchr_iter(separator, line) {
            self.add(line, start, end);
            start = end + 1;
        }
        self.add(line, start, line.len());
    }

    #[inline]
    fn add(&mut self, line: &[u8], mut start: usize, mut end: usize) {
        while start < end && line.get(start).is_some_and(u8::is_ascii_whitespace) {
            start += 1;
        }
        while start < end && line.get(end - 1).is_some_and(u8::is_ascii_whitespace) {
            end -= 1;
        }
        if self.bounds.len() < COLUMNS_MAX {
            self.bounds.push((start as u32, end as u32));
        }
    }

    fn split_blanks(&mut self, line: &[u8]) {
        let mut start = None;
        for (at, byte) in line.iter().enumerate() {
            match (byte.is_ascii_whitespace(), start) {
                (true, Some(from)) => {
                    self.add(line, from, at);
                    start = None;
                }
                (false, None) => start = Some(at),
                _ => {}
            }
        }
        if let Some(from) = start {
            self.add(line, from, line.len());
        }
    }

    /// RFC 4180 §2: a column in quotes may hold separators, and two quotes stand for one. A quote
    /// that is never closed ends with its line.
    #[cold]
    fn split_quoted<'s>(&'s mut self, line: &[u8], separator: u8) -> Fields<'s> {
        self.unquoted.clear();
        let mut text = std::mem::take(&mut self.unquoted);
        let (mut start, mut quoted) = (0, false);
        let mut bytes = line.iter().copied().peekable();
        while let Some(byte) = bytes.next() {
            match byte {
                b'"' if quoted && bytes.peek() == Some(&b'"') => {
                    bytes.next();
                    text.push(b'"');
                }
                b'"' => quoted = !quoted,
                byte if byte == separator && !quoted => {
                    let end = text.len();
                    self.add(&text, start, end);
                    start = end;
                }
                byte => text.push(byte),
            }
        }
        let end = text.len();
        self.add(&text, start, end);
        self.unquoted = text;
        Fields { line: &self.unquoted, bounds: &self.bounds }
    }
}

/// An unsigned whole number: digits, or a decimal that is whole (`4096.0`, `1.5e3`).
#[inline]
pub(in crate::import) fn whole(text: &[u8]) -> Option<u64> {
    match digits(text) {
        Some(value) => Some(value),
        None => exact_decimal(text),
    }
}

/// Digits and nothing else.
#[inline]
fn digits(text: &[u8]) -> Option<u64> {
    // 19 digits are below 2^64 whatever they are.
    if text.is_empty() || text.len() > 19 {
        return if text.len() == 20 { crate::import::lines::number(text) } else { None };
    }
    let mut value = 0u64;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    Some(value)
}

#[cold]
fn exact_decimal(text: &[u8]) -> Option<u64> {
    let decimal = Decimal::parse(text)?;
    let (value, rest) = decimal.times(0)?;
    (!rest).then_some(value)
}

/// A number times `unit`, a power of ten: whole, decimal or in scientific notation. What is
/// finer than the result holds is cut off.
#[inline]
pub(in crate::import) fn scaled(text: &[u8], unit: u64) -> Option<u64> {
    match digits(text) {
        Some(value) => value.checked_mul(unit),
        None => decimal_scaled(text, unit),
    }
}

#[inline]
fn decimal_scaled(text: &[u8], unit: u64) -> Option<u64> {
    // The usual: digits, a point, digits, few enough of both.
    if let Some(point) = memchr(b'.', text)
        && let (whole, fraction) = (text.get(..point)?, text.get(point + 1..)?)
        && let (Some(high), Some(low)) = (digits(whole), digits(fraction))
        && let Some(scale) = POWERS.get(fraction.len())
    {
        let high = high.checked_mul(unit)?;
        let low = u128::from(low) * u128::from(unit) / u128::from(*scale);
        return high.checked_add(u64::try_from(low).ok()?);
    }
    let exponent = i32::try_from(unit.ilog10()).ok()?;
    Decimal::parse(text)?.times(exponent).map(|(value, _)| value)
}

/// Powers of ten that fit.
const POWERS: [u64; 20] = {
    let mut powers = [1u64; 20];
    let mut at = 1;
    while at < 20 {
        powers[at] = powers[at - 1] * 10;
        at += 1;
    }
    powers
};

/// Significant digits that are kept: what a `u64` times a second's nanoseconds needs and more.
const DIGITS_MAX: u32 = 30;

/// A decimal number, not negative: mantissa × 10^exponent.
struct Decimal {
    mantissa: u128,
    exponent: i32,
    /// Digits other than 0 were cut off.
    inexact: bool,
}

impl Decimal {
    /// `12`, `12.`, `.5`, `12.5`, `1.25e-3`, `+1E6`.
    fn parse(text: &[u8]) -> Option<Self> {
        let text = text.strip_prefix(b"+").unwrap_or(text);
        let split = text.iter().position(|byte| matches!(byte, b'e' | b'E')).unwrap_or(text.len());
        let (number, exponent) = text.split_at(split);
        let mut decimal = Self { mantissa: 0, exponent: parse_exponent(exponent)?, inexact: false };
        let (mut seen, mut point, mut significant) = (false, false, 0);
        for byte in number {
            let digit = match byte {
                b'0'..=b'9' => byte - b'0',
                b'.' if !point => {
                    point = true;
                    continue;
                }
                _ => return None,
            };
            seen = true;
            if significant < DIGITS_MAX {
                decimal.mantissa = decimal.mantissa * 10 + u128::from(digit);
                significant += u32::from(decimal.mantissa != 0);
                decimal.exponent = decimal.exponent.checked_sub(i32::from(point))?;
            } else {
                decimal.inexact |= digit != 0;
                decimal.exponent = decimal.exponent.checked_add(i32::from(!point))?;
            }
        }
        seen.then_some(decimal)
    }

    /// Its whole part times 10^`power`, and whether anything was cut off.
    fn times(&self, power: i32) -> Option<(u64, bool)> {
        let exponent = self.exponent.checked_add(power)?;
        let steps = exponent.unsigned_abs();
        if self.mantissa == 0 {
            return Some((0, self.inexact));
        }
        if exponent >= 0 {
            let value = 10u128.checked_pow(steps)?.checked_mul(self.mantissa)?;
            return Some((u64::try_from(value).ok()?, self.inexact));
        }
        let Some(divisor) = 10u128.checked_pow(steps) else { return Some((0, true)) };
        let value = u64::try_from(self.mantissa / divisor).ok()?;
        Some((value, self.inexact || !self.mantissa.is_multiple_of(divisor)))
    }
}

/// The `e-3` behind a number; nothing is 0.
fn parse_exponent(text: &[u8]) -> Option<i32> {
    let Some((_, text)) = text.split_first() else { return Some(0) };
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    // More than three digits are no number that a trace holds.
    let value = digits(text).filter(|_| text.len() <= 3)?;
    let value = i32::try_from(value).ok()?;
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(separator: Separator, line: &[u8]) -> Vec<String> {
        let mut splitter = Splitter::new(separator);
        let fields = splitter.split(line);
        (0..fields.len()).map(|at| fields.get(at).escape_ascii().to_string()).collect()
    }

    #[test]
    fn columns_by_comma_blanks_and_quotes() {
        let comma = Separator::Byte(b',');
        for (line, want) in [
            (&b"a,b,c"[..], &["a", "b", "c"][..]),
            (b" a , b,\tc ", &["a", "b", "c"]),
            (b",,", &["", "", ""]),
            (b"", &[""]),
            (br#""a,b","c""d",e"#, &["a,b", "c\\\"d", "e"]),
            (br#"a,"b,c"#, &["a", "b,c"]),
        ] {
            assert_eq!(split(comma, line), want, "{}", line.escape_ascii());
        }
        assert_eq!(split(Separator::Blanks, b"  one\ttwo   three\t"), ["one", "two", "three"]);
        assert_eq!(split(Separator::Blanks, b"   ").len(), 0);
        assert_eq!(split(comma, &[b','; 1000]).len(), COLUMNS_MAX);
    }

    #[test]
    fn columns_from_the_last() {
        let mut splitter = Splitter::new(Separator::Byte(b','));
        let fields = splitter.split(b"a,b,c");
        assert_eq!((fields.last_but(0), fields.last_but(2)), (&b"c"[..], &b"a"[..]));
        assert_eq!((fields.last_but(3), fields.get(3)), (&b""[..], &b""[..]));
        assert_eq!(fields.line(), b"a,b,c");
    }

    #[test]
    fn whole_numbers_may_be_written_as_decimals() {
        for (text, value) in [
            (&b"0"[..], Some(0)),
            (b"4096", Some(4096)),
            (b"4096.0", Some(4096)),
            (b"4096.", Some(4096)),
            (b"1.5e3", Some(1500)),
            (b"1E+2", Some(100)),
            (b"9999999999999999999", Some(9_999_999_999_999_999_999)),
            (b"18446744073709551615", Some(u64::MAX)),
            (b"18446744073709551615.000", Some(u64::MAX)),
            (b"18446744073709551616", None),
            (b"00000000000000000000000000001", Some(1)),
            (b"1.5", None),
            (b"1e-1", None),
            (b"-1", None),
            (b"", None),
            (b".", None),
            (b"e5", None),
            (b"1e", None),
            (b"1e9999999999", None),
            (b"0x10", None),
            (b"nan", None),
            (b"inf", None),
        ] {
            assert_eq!(whole(text), value, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn decimals_are_exact_to_the_nanosecond() {
        const S: u64 = 1_000_000_000;
        for (text, unit, value) in [
            (&b"0.551706"[..], S, Some(551_706_000)),
            (b"1455591804.310701000", S, Some(1_455_591_804_310_701_000)),
            (b"5.581152529", S, Some(5_581_152_529)),
            (b"0.0000000019", S, Some(1)),
            (b"13.191135", 1_000_000, Some(13_191_135)),
            (b"1.2e-3", S, Some(1_200_000)),
            (b"1.455591804310701E9", S, Some(1_455_591_804_310_701_000)),
            (b".5", S, Some(500_000_000)),
            (b"7", 1_000, Some(7_000)),
            (b"0.1234567890123456789012345678901234567890", S, Some(123_456_789)),
            (b"18446744073.709551615", S, Some(u64::MAX)),
            (b"18446744073.709551616", S, None),
            (b"1e300", S, None),
            (b"1e-300", S, Some(0)),
            (b"1.-5", S, None),
            (b"-0.5", S, None),
            (b"1.5.5", S, None),
        ] {
            assert_eq!(scaled(text, unit), value, "{}", text.escape_ascii());
        }
    }
}
