//! The numbers in columns.

use memchr::memchr;

use super::swar;

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
    match (text.split_first_chunk(), text.last_chunk()) {
        (Some((first, rest)), Some(last)) => {
            let high = swar::eight(u64::from_le_bytes(*first))?;
            long_digits(high, rest, u64::from_le_bytes(*last))
        }
        _ if text.is_empty() => None,
        _ => swar::eight(swar::short_digits(text)),
    }
}

/// The number whose first eight digits are `high`, before `rest`; `last` are the last eight of all.
#[inline]
fn long_digits(high: u64, rest: &[u8], last: u64) -> Option<u64> {
    let (high, len) = match rest.split_first_chunk() {
        Some((next, rest)) => {
            (high * POWERS[8] + swar::eight(u64::from_le_bytes(*next))?, rest.len())
        }
        None => (high, rest.len()),
    };
    // 19 digits are below 2^64 whatever they are: only 20 can be too much.
    let low = swar::eight(swar::last_digits(last, len)).filter(|_| len <= 4)?;
    high.checked_mul(*POWERS.get(len)?)?.checked_add(low)
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
        if unit.is_multiple_of(*scale) {
            return high.checked_add(low * (unit / scale));
        }
        let low = u128::from(low) * u128::from(unit) / u128::from(*scale);
        return high.checked_add(u64::try_from(low).ok()?);
    }
    let exponent = i32::try_from(unit.ilog10()).ok()?;
    Decimal::parse(text)?.times(exponent).map(|(value, _)| value)
}

/// Powers of ten that fit.
pub(super) const POWERS: [u64; 20] = {
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
