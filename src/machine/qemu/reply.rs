//! What QEMU says on the qtest socket: answers, in the order of the commands, and interrupt lines
//! at any moment.

use crate::import::qtest::data;

/// One line from QEMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line<'l> {
    /// An answer.
    Answer(Answer<'l>),
    /// `IRQ raise N`, `IRQ lower N`.
    Irq {
        /// Number of the line within the device that is intercepted.
        line: u32,
        /// Raised.
        high: bool,
    },
}

/// An answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<'l> {
    /// `OK`, with what follows it.
    Ok(&'l str),
    /// `FAIL` or `ERR`, with why.
    Fail(&'l str),
}

impl<'l> Line<'l> {
    /// Understands a line without its end; `None` for one that is not of the protocol.
    pub fn parse(line: &'l str) -> Option<Self> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim_ascii();
        match word {
            "OK" => Some(Self::Answer(Answer::Ok(rest))),
            "FAIL" | "ERR" => Some(Self::Answer(Answer::Fail(rest))),
            "IRQ" => {
                let (edge, line) = rest.split_once(' ')?;
                let high = match edge {
                    "raise" => true,
                    "lower" => false,
                    _ => return None,
                };
                Some(Self::Irq { line: line.trim_ascii().parse().ok()?, high })
            }
            _ => None,
        }
    }
}

/// The number of an `OK`: `0x1af4`, or decimal for a time. QEMU prints a negative time with a sign.
pub fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The bytes of an `OK` to `b64read`, `len` of them.
pub fn base64(text: &str, len: usize) -> Option<Vec<u8>> {
    data::from_base64(text.as_bytes()).ok().filter(|bytes| bytes.len() == len)
}

/// The bytes of an `OK` to `read`, `len` of them.
pub fn hex(text: &str, len: usize) -> Option<Vec<u8>> {
    data::from_hex(text.as_bytes()).ok().filter(|bytes| bytes.len() == len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_protocol() {
        for (line, want) in [
            ("OK", Some(Line::Answer(Answer::Ok("")))),
            ("OK 0x0039", Some(Line::Answer(Answer::Ok("0x0039")))),
            ("OK 27462700\r", Some(Line::Answer(Answer::Ok("27462700")))),
            ("FAIL Unknown device", Some(Line::Answer(Answer::Fail("Unknown device")))),
            ("ERR x", Some(Line::Answer(Answer::Fail("x")))),
            ("IRQ raise 8", Some(Line::Irq { line: 8, high: true })),
            ("IRQ lower 0", Some(Line::Irq { line: 0, high: false })),
            ("IRQ raise -1", None),
            ("IRQ toggle 1", None),
            ("IRQ", None),
            ("OKAY", None),
            ("", None),
            ("[S +0.1] OK", None),
        ] {
            assert_eq!(Line::parse(line), want, "{line:?}");
        }
        assert_eq!(number("0x1af4"), Some(0x1af4));
        assert_eq!(number("27"), Some(27));
        assert_eq!(number("-1"), None);
        assert_eq!(number("0x"), None);
        assert_eq!(base64("AQID", 3), Some(vec![1, 2, 3]));
        assert_eq!(base64("AQID", 2), None);
        assert_eq!(hex("0x0102", 2), Some(vec![1, 2]));
        assert_eq!(hex("0102", 2), None);
    }
}
