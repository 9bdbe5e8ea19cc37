//! Lines of a script or log: continued lines joined, the here-document found.

use super::text::HereDocument;
use crate::base::limits::QTEST_LINE_BYTES_MAX;
use crate::base::{Error, Result, error::Place};
use crate::import::lines::Lines;
use crate::import::source::Source;

/// Where in a script a line stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A line that may hold a command.
    Commands,
    /// The shell's line that begins the here-document.
    Begin,
    /// The line that ends it.
    End,
    /// After its end.
    After,
}

/// Reads lines; a backslash at the end continues one, as the shell has it.
pub struct Script {
    lines: Lines,
    text: Vec<u8>,
    state: State,
}

enum State {
    Outside,
    Inside(HereDocument),
    After,
}

impl Script {
    /// The script in `source`.
    pub fn new(source: Source) -> Self {
        let lines = Lines::with_limit(source, QTEST_LINE_BYTES_MAX);
        Self { lines, text: Vec::new(), state: State::Outside }
    }

    /// The next line, with the number of its first piece.
    ///
    /// # Errors
    /// Input: unreadable, or a line that is too long.
    pub fn read(&mut self) -> Result<Option<(u64, Part, &[u8])>> {
        let Some(number) = self.join()? else { return Ok(None) };
        let part = self.part();
        Ok(Some((number, part, &self.text)))
    }

    /// QEMU's command line, as far as the line that began the here-document has it.
    pub fn machine(&self) -> Option<&str> {
        match &self.state {
            State::Inside(document) => document.machine.as_deref(),
            State::Outside | State::After => None,
        }
    }

    /// The input, to ask what its end was like.
    pub fn source(&self) -> &Source {
        self.lines.source()
    }

    fn join(&mut self) -> Result<Option<u64>> {
        self.text.clear();
        let mut first = None;
        while let Some((number, line)) = self.lines.read_line()? {
            first.get_or_insert(number);
            let slashes = line.iter().rev().take_while(|byte| **byte == b'\\').count();
            // Neither a comment of the shell's nor a line of QEMU's log goes on.
            let whole = self.text.is_empty() && matches!(line.first(), Some(b'#' | b'['));
            let continued = slashes % 2 == 1 && !whole;
            let piece = if continued { line.strip_suffix(b"\\").unwrap_or(line) } else { line };
            if self.text.len() + piece.len() > QTEST_LINE_BYTES_MAX {
                let what = format!("continued line longer than {QTEST_LINE_BYTES_MAX} bytes");
                let error = Error::input(what).at(Place::Line(number));
                return Err(error.path(self.source().path()));
            }
            self.text.extend_from_slice(piece);
            if !continued {
                break;
            }
        }
        Ok(first)
    }

    fn part(&mut self) -> Part {
        match &self.state {
            State::After => Part::After,
            State::Inside(document) if document.is_ended_by(&self.text) => {
                self.state = State::After;
                Part::End
            }
            State::Inside(_) => Part::Commands,
            State::Outside => match HereDocument::begun_by(&self.text) {
                Some(document) if !self.text.trim_ascii_start().starts_with(b"#") => {
                    self.state = State::Inside(document);
                    Part::Begin
                }
                _ => Part::Commands,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(u64, Part, String)> {
        let input = Box::new(std::io::Cursor::new(text.as_bytes().to_vec()));
        let mut script = Script::new(Source::from_read("t".into(), input).unwrap());
        let mut all = Vec::new();
        while let Some((number, part, text)) = script.read().unwrap() {
            all.push((number, part, String::from_utf8(text.to_vec()).unwrap()));
        }
        all
    }

    #[test]
    fn a_script_with_its_here_document() {
        let text =
            "# how to\ncat << EOF | \\\nqemu -M q35 \\\n-qtest stdio\noutb 1 \\\n2\nEOF\ndone\n";
        let want = [
            (1, Part::Commands, "# how to"),
            (2, Part::Begin, "cat << EOF | qemu -M q35 -qtest stdio"),
            (5, Part::Commands, "outb 1 2"),
            (7, Part::End, "EOF"),
            (8, Part::After, "done"),
        ];
        assert_eq!(read(text), want.map(|(n, part, text)| (n, part, text.to_owned())));
    }

    #[test]
    fn data_is_wrapped_without_a_blank() {
        let want = (1, Part::Commands, "write 0x0 0x4 0x01020304".to_owned());
        assert_eq!(read("write 0x0 0x4 0x0102\\\n0304\n"), [want]);
        // The end of the input ends a continued line; two backslashes are no continuation.
        assert_eq!(read("outb 1 2\\"), [(1, Part::Commands, "outb 1 2".to_owned())]);
        for text in ["x\\\\\ny", "# a comment \\\noutb 1 2", "[R +0.1] x \\\n[S +0.1] FAIL"] {
            assert_eq!(read(text).len(), 2, "{text}");
        }
    }

    #[test]
    fn joined_lines_are_bounded() {
        let piece = format!("{}\\\n", "0".repeat(1 << 20));
        let text = piece.repeat(QTEST_LINE_BYTES_MAX / (1 << 20) + 1);
        let input = Box::new(std::io::Cursor::new(text.into_bytes()));
        let mut script = Script::new(Source::from_read("t".into(), input).unwrap());
        let error = script.read().unwrap_err();
        assert_eq!(error.to_string(), "t: line 17: continued line longer than 16777216 bytes");
    }
}
