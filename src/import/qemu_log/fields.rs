//! The arguments of an event by name, from the text of a log or from a binary record.
//!
//! Versions of QEMU add fields and leave some out, so they are found by the word that stands before
//! each number: `vdev 0x55… req 0x7f… sector 8 nsectors 1`, `sector_num=0 n=8`,
//! `ahci(0x55…)[0][tag:3]: NCQ reading 8 sectors from LBA 2048`. A number without such a word (the
//! port in the last one) has the empty name.

use crate::import::lines::{hex, number};

/// Numbers of an event that are kept: what is imported has seven at most.
const FIELDS_MAX: usize = 12;

/// The arguments of an event.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fields<'l> {
    values: [(&'l [u8], u64); FIELDS_MAX],
    len: usize,
    /// The first string.
    text: Option<&'l [u8]>,
    /// All of it, where it is text.
    whole: &'l [u8],
}

impl<'l> Fields<'l> {
    /// The arguments as the `log` backend prints them.
    pub fn of_text(text: &'l [u8]) -> Self {
        let mut fields = Self { whole: text, ..Self::default() };
        let mut rest = text;
        let mut name: &[u8] = b"";
        while let Some((&byte, after)) = rest.split_first() {
            if byte == b'\'' || byte == b'"' {
                let end = after.iter().position(|other| *other == byte).unwrap_or(after.len());
                fields.text.get_or_insert(after.get(..end).unwrap_or_default());
                rest = after.get(end + 1..).unwrap_or_default();
                continue;
            }
            let minus = byte == b'-' && after.first().is_some_and(u8::is_ascii_digit);
            let word = word_at(if minus { after } else { rest });
            if word.is_empty() {
                rest = after;
                continue;
            }
            match value(word) {
                Some(value) => {
                    fields.push(name, if minus { value.wrapping_neg() } else { value });
                    name = b"";
                }
                None => name = word,
            }
            rest = rest.get(word.len() + usize::from(minus)..).unwrap_or_default();
        }
        fields
    }

    /// Adds a number; one too many is left out.
    pub fn push(&mut self, name: &'l [u8], value: u64) {
        if let Some(slot) = self.values.get_mut(self.len) {
            *slot = (name, value);
            self.len += 1;
        }
    }

    /// Sets the string, unless there is one.
    pub fn push_text(&mut self, text: &'l [u8]) {
        self.text.get_or_insert(text);
    }

    /// The first number with this name.
    pub fn get(&self, name: &str) -> Option<u64> {
        let values = self.values.get(..self.len)?;
        values.iter().find(|(key, _)| *key == name.as_bytes()).map(|(_, value)| *value)
    }

    /// The same, for a number with a sign.
    pub fn signed(&self, name: &str) -> Option<i64> {
        self.get(name).map(u64::cast_signed)
    }

    /// The same, for a number of 16 bits.
    pub fn short(&self, name: &str) -> Option<u16> {
        self.get(name)?.try_into().ok()
    }

    /// The controller and the port of an event of AHCI's that begins with them: `ahci(0x55…)[0]`.
    pub fn ahci_port(&self) -> Option<(u64, u64)> {
        match self.values.get(..self.len)? {
            [(b"ahci", hba), (b"", port), ..] => Some((*hba, *port)),
            _ => None,
        }
    }

    /// The string; of a text without a quoted one, all of it.
    pub fn text(&self) -> &'l [u8] {
        self.text.unwrap_or(self.whole)
    }

    /// The string, where there is one by itself.
    pub fn string(&self) -> Option<&'l [u8]> {
        self.text
    }
}

fn word_at(text: &[u8]) -> &[u8] {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let end = text.iter().position(|byte| !is_word(byte)).unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}

/// `31`, `0x1f`, and glibc's null pointer.
fn value(word: &[u8]) -> Option<u64> {
    match word {
        b"nil" => Some(0),
        [b'0', b'x', digits @ ..] => hex(digits),
        _ => number(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_word_before_them() {
        let fields = Fields::of_text(b"vdev 0x55 req (nil) sector 8 nsectors 1");
        let get = |name| fields.get(name);
        assert_eq!([get("vdev"), get("req"), get("sector")], [Some(0x55), Some(0), Some(8)]);
        assert_eq!((get("nsectors"), get("size")), (Some(1), None));
        let fields = Fields::of_text(b"IDEState 0x56; sector_num=4 n=8 cmd=DMA READ");
        assert_eq!((fields.get("IDEState"), fields.get("sector_num")), (Some(0x56), Some(4)));
        assert!(fields.text().ends_with(b"DMA READ"));
        let fields = Fields::of_text(b"ahci(0x57)[2][tag:3]: NCQ reading 8 sectors from LBA 2048");
        assert_eq!(fields.ahci_port(), Some((0x57, 2)));
        let irq = Fields::of_text(b"ahci(0x57): check irq 0x00000000 --> 0x00000001");
        assert_eq!((irq.get("ahci"), irq.ahci_port()), (Some(0x57), None));
        assert_eq!((fields.get("reading"), fields.get("LBA")), (Some(8), Some(2048)));
    }

    #[test]
    fn strings_and_signs() {
        let fields = Fields::of_text(b"cid 1 opname 'NVME 7 x' nsid 2 ret -5 blk 'd'");
        assert_eq!(fields.string(), Some(&b"NVME 7 x"[..]));
        assert_eq!((fields.get("nsid"), fields.signed("ret")), (Some(2), Some(-5)));
        assert_eq!(fields.get("7"), None);
        assert_eq!(Fields::of_text(b"name 'never ends").string(), Some(&b"never ends"[..]));
        assert_eq!(Fields::of_text(b"cid 65536").short("cid"), None);
    }

    #[test]
    fn hostile_text() {
        for text in [&b""[..], b"-", b"'", b"0x", b"99999999999999999999 x", b"- -1 '' ''"] {
            Fields::of_text(text);
        }
        let many: Vec<u8> = (0..100).flat_map(|n| format!("k{n} {n} ").into_bytes()).collect();
        let fields = Fields::of_text(&many);
        assert_eq!((fields.get("k11"), fields.get("k12")), (Some(11), None));
    }
}
