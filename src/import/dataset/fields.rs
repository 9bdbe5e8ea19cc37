//! Columns of a line.

pub(in crate::import) use super::numbers::{scaled, whole};
use super::swar;

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
    bounds: [(u32, u32); COLUMNS_MAX],
    columns: usize,
    /// A line without its quotes.
    unquoted: Vec<u8>,
}

/// Bytes of a line whose separators are the bits of one word.
const BLOCK_BYTES: usize = 64;

impl Splitter {
    /// Lines whose columns are set apart by `separator`.
    pub(in crate::import) fn new(separator: Separator) -> Self {
        Self { separator, bounds: [(0, 0); COLUMNS_MAX], columns: 0, unquoted: Vec::new() }
    }

    /// The columns of `line`; those past [`COLUMNS_MAX`] are left out.
    #[inline]
    pub(in crate::import) fn split<'s>(&'s mut self, line: &'s [u8]) -> Fields<'s> {
        self.columns = 0;
        match self.separator {
            Separator::Blanks => self.split_blanks(line),
            Separator::Byte(byte) => {
                if self.split_bytes(line, byte) {
                    return self.split_quoted(line, byte);
                }
            }
        }
        Fields { line, bounds: self.bounds.get(..self.columns).unwrap_or_default() }
    }

    /// Also says whether there is a quote, with which this is no way to split.
    #[inline]
    fn split_bytes(&mut self, line: &[u8], separator: u8) -> bool {
        let (mut start, mut quotes) = (0, 0);
        for (number, block) in line.chunks(BLOCK_BYTES).enumerate() {
            let mut ends = 0;
            each_word(block, |at, word| {
                quotes |= swar::equal(word, b'"');
                ends |= swar::gather(swar::equal(word, separator)) << at;
            });
            while ends != 0 {
                let end = number * BLOCK_BYTES + ends.trailing_zeros() as usize;
                self.add_trimmed(line, start, end);
                start = end + 1;
                ends &= ends - 1;
            }
        }
        self.add_trimmed(line, start, line.len());
        quotes != 0
    }

    #[inline]
    fn add_trimmed(&mut self, line: &[u8], mut start: usize, mut end: usize) {
        while start < end && line.get(start).is_some_and(u8::is_ascii_whitespace) {
            start += 1;
        }
        while start < end && line.get(end - 1).is_some_and(u8::is_ascii_whitespace) {
            end -= 1;
        }
        self.add(start, end);
    }

    #[inline]
    fn add(&mut self, start: usize, end: usize) {
        if let Some(bounds) = self.bounds.get_mut(self.columns) {
            *bounds = (start as u32, end as u32);
            self.columns += 1;
        }
    }

    /// A column begins and ends where what is blank changes.
    fn split_blanks(&mut self, line: &[u8]) {
        // The byte before the line is blank, and so are those behind it.
        let (mut start, mut before) = (None, 1);
        for (number, block) in line.chunks(BLOCK_BYTES).enumerate() {
            let mut columns = 0;
            each_word(block, |at, word| {
                let blank = BLANKS.into_iter().fold(0, |all, byte| all | swar::equal(word, byte));
                columns |= swar::gather(!blank) << at;
            });
            let blank = !(columns & u64::MAX >> (BLOCK_BYTES - block.len()));
            let mut edges = blank ^ (blank << 1 | before);
            before = blank >> (BLOCK_BYTES - 1);
            while edges != 0 {
                let edge = number * BLOCK_BYTES + edges.trailing_zeros() as usize;
                start = match start {
                    Some(start) => {
                        self.add(start, edge);
                        None
                    }
                    None => Some(edge),
                };
                edges &= edges - 1;
            }
        }
        if let Some(start) = start {
            self.add(start, line.len());
        }
    }

    /// RFC 4180 §2: a column in quotes may hold separators, and two quotes stand for one. A quote
    /// that is never closed ends with its line.
    #[cold]
    fn split_quoted<'s>(&'s mut self, line: &[u8], separator: u8) -> Fields<'s> {
        self.columns = 0;
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
                    self.add_trimmed(&text, start, end);
                    start = end;
                }
                byte => text.push(byte),
            }
        }
        self.add_trimmed(&text, start, text.len());
        self.unquoted = text;
        let bounds = self.bounds.get(..self.columns).unwrap_or_default();
        Fields { line: &self.unquoted, bounds }
    }
}

/// What [`u8::is_ascii_whitespace`] takes for blank.
const BLANKS: [u8; 5] = *b" \t\n\x0c\r";

/// Calls `word` for each eight bytes of a block with their place in it, the last filled with zeros.
#[inline]
fn each_word(block: &[u8], mut word: impl FnMut(usize, u64)) {
    let (words, rest) = block.as_chunks();
    for (number, bytes) in words.iter().enumerate() {
        word(number * 8, u64::from_le_bytes(*bytes));
    }
    if !rest.is_empty() {
        word(words.len() * 8, swar::short(rest));
    }
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
    fn columns_are_the_same_wherever_they_stand_in_a_word() {
        let mut prng = crate::base::Prng::new(8);
        for len in 0..200 {
            let line: Vec<u8> =
                (0..len).map(|_| b"ab,1 \0,\t\xff c,"[prng.below(12) as usize]).collect();
            let text = |column: &[u8]| column.trim_ascii().escape_ascii().to_string();
            let want: Vec<_> = line.split(|byte| *byte == b',').map(text).collect();
            assert_eq!(split(Separator::Byte(b','), &line), want[..want.len().min(COLUMNS_MAX)]);
            let words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            let want: Vec<_> = words.map(text).collect();
            assert_eq!(split(Separator::Blanks, &line), want[..want.len().min(COLUMNS_MAX)]);
        }
    }

    #[test]
    fn columns_from_the_last() {
        let mut splitter = Splitter::new(Separator::Byte(b','));
        let fields = splitter.split(b"a,b,c");
        assert_eq!((fields.last_but(0), fields.last_but(2)), (&b"c"[..], &b"a"[..]));
        assert_eq!((fields.last_but(3), fields.get(3)), (&b""[..], &b""[..]));
        assert_eq!(fields.line(), b"a,b,c");
    }
}
