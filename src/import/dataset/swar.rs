//! Eight bytes at a time in one register: what finds columns and reads digits without a step, and
//! a branch that is hard to foretell, for each byte.
//!
//! The first byte of a text is the lowest of its word.

/// 1 in every byte.
const ONES: u64 = 0x0101_0101_0101_0101;
/// Every bit but the highest of each byte.
const LOW_BITS: u64 = 0x7f * ONES;
/// The digit 0 in every byte.
const ZEROS: u64 = b'0' as u64 * ONES;

/// The highest bit of each byte of `word` that is `byte`.
#[inline]
pub(super) fn equal(word: u64, byte: u8) -> u64 {
    let differing = word ^ (u64::from(byte) * ONES);
    !(((differing & LOW_BITS) + LOW_BITS) | differing | LOW_BITS)
}

/// The highest bits of all bytes as the lowest eight.
#[inline]
pub(super) fn gather(marks: u64) -> u64 {
    // Bit 8 i goes to bit 56 + i; no two products meet.
    (marks >> 7 & ONES).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

/// The bytes of a text of less than eight, and zeros.
#[inline]
pub(super) fn short(text: &[u8]) -> u64 {
    let byte = |at: usize| text.get(at).map_or(0, |byte| u64::from(*byte) << (at * 8));
    match (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        // Where both overlap they are the same.
        (Some(first), Some(last)) => {
            let shift = (text.len() - 4) * 8;
            u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << shift
        }
        _ => byte(0) | byte(1) | byte(2),
    }
}

/// The word that a text of less than eight digits is, zeros in front.
#[inline]
pub(super) fn short_digits(text: &[u8]) -> u64 {
    match text.len() {
        len @ 1..8 => short(text) << ((8 - len) * 8) | ZEROS >> (len * 8),
        _ => ZEROS,
    }
}

/// The last `len` (less than eight) digits of a word, zeros in front.
#[inline]
pub(super) fn last_digits(word: u64, len: usize) -> u64 {
    let front = (len % 8) * 8;
    word & !(u64::MAX >> front) | ZEROS >> front
}

/// How many of the first bytes of a word are digits.
#[inline]
pub(super) fn leading_digits(word: u64) -> usize {
    // What is carried out of a byte that is none reaches only those behind it.
    not_digits(word ^ ZEROS).trailing_zeros() as usize / 8
}

/// The number that the first `len` (at most eight) bytes of a word are: all digits.
#[inline]
pub(super) fn leading_number(word: u64, len: usize) -> u64 {
    let digits = word ^ ZEROS;
    number(digits.checked_shl((8 - len as u32) * 8).unwrap_or_default())
}

/// How many bytes stand before the first that is `byte`, a blank or another control character, or
/// a quote; 8 when none is.
#[inline]
pub(super) fn plain_bytes(word: u64, byte: u8) -> usize {
    let above_blank = (word & LOW_BITS) + (0x80 - 0x21) * ONES;
    let low = !(above_blank | word | LOW_BITS);
    (low | equal(word, byte) | equal(word, b'"')).trailing_zeros() as usize / 8
}

/// The number that eight digits are.
#[inline]
pub(super) fn eight(word: u64) -> Option<u64> {
    let digits = word ^ ZEROS;
    (not_digits(digits) == 0).then(|| number(digits))
}

/// Marks the highest bit of bytes above 9: such a byte reaches it, or has it.
#[inline]
fn not_digits(digits: u64) -> u64 {
    (digits.wrapping_add(0x76 * ONES) | digits) & !LOW_BITS
}

/// The number of eight digits, each the value of its byte.
#[inline]
fn number(digits: u64) -> u64 {
    // Pairs, then fours, then all: each multiplication adds a lower half to a shifted upper one.
    let pairs = digits.wrapping_mul(10 << 8 | 1) >> 8 & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul(100 << 16 | 1) >> 16 & 0x0000_ffff_0000_ffff;
    fours.wrapping_mul(10_000 << 32 | 1) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_exact_whatever_stands_beside() {
        let mut text = *b"\0,-,+\xac,,";
        for _ in 0..8 {
            let want = (0..8).filter(|at| text[*at] == b',').fold(0, |bits, at| bits | 1 << at);
            assert_eq!(gather(equal(u64::from_le_bytes(text), b',')), want);
            text.rotate_left(1);
        }
        assert_eq!(gather(u64::MAX), 0xff);
    }

    #[test]
    fn what_a_word_begins_with() {
        let mut prng = crate::base::Prng::new(3);
        for _ in 0..20_000 {
            let text: [u8; 8] =
                std::array::from_fn(|_| b"0189,0\"5 \n7/:\xb0\xff!"[prng.below(16) as usize]);
            let word = u64::from_le_bytes(text);
            let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(8);
            assert_eq!(leading_digits(word), end, "{}", text.escape_ascii());
            let value = std::str::from_utf8(&text[..end]).unwrap().parse().unwrap_or(0);
            assert_eq!(leading_number(word, end), value);
            let plain = |byte: &u8| *byte > b' ' && !b",\"".contains(byte);
            let end = text.iter().position(|byte| !plain(byte)).unwrap_or(8);
            assert_eq!(plain_bytes(word, b','), end, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn words_of_digits() {
        let text = b"98765432";
        for len in 0..8 {
            let want = text[..len].iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
            assert_eq!(eight(short_digits(&text[..len])), Some(want));
            let last = std::str::from_utf8(&text[8 - len..]).unwrap().parse().unwrap_or(0);
            assert_eq!(eight(last_digits(u64::from_le_bytes(*text), len)), Some(last));
        }
        for at in 0..8 {
            for byte in 0..=255 {
                let mut text = *b"00000000";
                text[at] = byte;
                let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10);
                let want = digit.map(|digit| u64::from(digit) * 10u64.pow(7 - at as u32));
                assert_eq!(eight(u64::from_le_bytes(text)), want, "{byte} at {at}");
            }
        }
    }
}
