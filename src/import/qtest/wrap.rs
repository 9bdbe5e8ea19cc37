//! Lines that a mail client has wrapped: a command whose arguments or data go on in the next line.

use super::command::{self, Command};
use super::text::{self, Said};

/// How the next line is joined to a command that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// The wrapped blank is put back.
    Blank,
    /// Data was cut between two digits.
    Nothing,
}

/// Whether `next` is the rest of the command in `text`.
pub fn joins(text: &[u8], next: &[u8]) -> Option<Join> {
    let next = next.trim_ascii();
    // Whatever goes on is a number or data.
    if !next.first().is_some_and(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte)) {
        return None;
    }
    let (_, Said::Command(body)) = text::parse(text) else { return None };
    match command::parse(body)? {
        Ok(Command::Write { len, data, base64, .. }) => {
            let whole = data_chars(len, base64)?;
            let part: fn(&u8) -> bool = if base64 { is_base64 } else { u8::is_ascii_hexdigit };
            let goes_on = data.len() + next.len() <= whole && next.iter().all(part);
            goes_on.then_some(Join::Nothing)
        }
        Err(command::MALFORMED) if command::lacks_words(body) => {
            let number = |word: &[u8]| word.first().is_some_and(u8::is_ascii_digit);
            let mut words = next.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            words.all(number).then_some(Join::Blank)
        }
        _ => None,
    }
}

/// Characters of all the data of a `write` of `len` bytes.
fn data_chars(len: u64, base64: bool) -> Option<usize> {
    let len = usize::try_from(len).ok()?;
    if base64 { len.div_ceil(3).checked_mul(4) } else { len.checked_mul(2)?.checked_add(2) }
}

fn is_base64(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/=".contains(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on() {
        use Join::{Blank, Nothing};
        for (text, next, want) in [
            ("write 0x0 0x4 0x0102", "0304", Some(Nothing)),
            ("[R +0.1] write 0x0 0x4 0x0102", "0304", Some(Nothing)),
            ("write 0x0 0x4", "0x01020304", Some(Blank)),
            ("write 0x0", "0x4 0x01020304", Some(Blank)),
            ("outl 0xcf8", "0x80001010", Some(Blank)),
            ("outl", "0xcf8 1", Some(Blank)),
            ("b64write 0x0 6 AQID", "BAUG", Some(Nothing)),
            ("b64write 0x0 5 AQID", "BAU=", Some(Nothing)),
            // Data that QEMU fills with zeros, and a line that is something else.
            ("write 0x0 0x2 0x21", "EOF", None),
            ("write 0x0 0x2 0x21", "outl 0xcf8 1", None),
            ("write 0x0 0x2 0x21", "0304", None),
            ("write 0x0 0x4 0x0102", "0x0304", None),
            ("write 0x0 0x4 0x01020304", "05", None),
            ("b64write 0x0 3 AQID", "EOF1", None),
            ("outl 0xcf8 1", "2", None),
            ("outl 0xcf8", "readb 1", None),
            ("outl 0xcf8", "", None),
            ("no command", "0x1", None),
            ("write 0x0 0xffffffffffffffff 0x01", "02", None),
        ] {
            assert_eq!(joins(text.as_bytes(), next.as_bytes()), want, "{text} / {next}");
        }
    }
}
