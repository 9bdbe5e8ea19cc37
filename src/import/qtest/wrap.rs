//! Lines that a mail client has wrapped: a command whose arguments or data go on in the next line.

use super::command::{self, Command};
use super::text::{self, Said};

/// What a command lacks, and the next lines may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// So many words; a wrapped blank is put back.
    Words(usize),
    /// Characters of data, which was cut between two of them.
    Data {
        /// How many.
        room: usize,
        /// They are base64 and not hexadecimal.
        base64: bool,
    },
}

/// What the command in `text` lacks.
pub fn lacks(text: &[u8]) -> Option<Lack> {
    let (_, Said::Command(body)) = text::parse(text) else { return None };
    match command::parse(body)? {
        Ok(Command::Write { len, data, base64, .. }) => {
            let room = data_chars(len, base64)?.checked_sub(data.len())?;
            (room > 0).then_some(Lack::Data { room, base64 })
        }
        Err(command::MALFORMED) => match command::words_lacking(body) {
            0 => None,
            words => Some(Lack::Words(words)),
        },
        _ => None,
    }
}

impl Lack {
    /// Whether `next` is some of it, which it lacks no longer then. Only the new line is looked
    /// at: data may be wrapped into any number of them.
    pub fn takes(&mut self, next: &[u8]) -> bool {
        let next = next.trim_ascii();
        match self {
            Self::Words(words) => {
                let is_number = |word: &[u8]| word.first().is_some_and(u8::is_ascii_digit);
                let mut all = next.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
                let fits = *words > 0 && !next.is_empty() && all.all(is_number);
                if fits {
                    let count = next.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty());
                    *words = words.saturating_sub(count.count());
                }
                fits
            }
            Self::Data { room, base64 } => {
                let part = if *base64 { is_base64 } else { u8::is_ascii_hexdigit };
                let fits = !next.is_empty() && next.len() <= *room && next.iter().all(part);
                if fits {
                    *room -= next.len();
                }
                fits
            }
        }
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
        const BLANK: Option<bool> = Some(true);
        const NOTHING: Option<bool> = Some(false);
        for (text, next, want) in [
            ("write 0x0 0x4 0x0102", "0304", NOTHING),
            ("[R +0.1] write 0x0 0x4 0x0102", "0304", NOTHING),
            ("write 0x0 0x4", "0x01020304", BLANK),
            ("write 0x0", "0x4 0x01020304", BLANK),
            ("outl 0xcf8", "0x80001010", BLANK),
            ("outl", "0xcf8 1", BLANK),
            ("b64write 0x0 6 AQID", "BAUG", NOTHING),
            ("b64write 0x0 5 AQID", "BAU=", NOTHING),
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
            let lack = lacks(text.as_bytes());
            let taken = lack.filter(|lack| (*lack).clone().takes(next.as_bytes()));
            let got = taken.map(|lack| matches!(lack, Lack::Words(_)));
            assert_eq!(got, want, "{text} / {next}");
        }
    }
}
