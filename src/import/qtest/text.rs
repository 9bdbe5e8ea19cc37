//! What a line of a qtest log or script is: a command, an answer, an interrupt; and where a shell
//! script keeps its here-document.

use crate::import::lines::{number, word};

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said<'l> {
    /// A command, or what should be one.
    Command(&'l [u8]),
    /// `OK`, with what follows it.
    Answer(&'l [u8]),
    /// `FAIL` or `ERR`.
    Refusal,
    /// `IRQ raise N` and `IRQ lower N`.
    Irq { line: u32, high: bool },
    /// `OPENED`, `CLOSED`.
    Session,
    /// Something else that QEMU sent.
    Other,
}

/// Who speaks: QEMU's log marks each line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// `[R +t]`, `[S +t]`, `[I t]`: QEMU's log.
    Log,
    /// No mark: a script, or what came over the socket.
    Unmarked,
}

/// Reads a line.
pub fn parse(text: &[u8]) -> (Speaker, Said<'_>) {
    match marked(text) {
        Some((b'R', body)) => (Speaker::Log, Said::Command(body)),
        Some((b'S', body)) => (Speaker::Log, answer(body).unwrap_or(Said::Other)),
        Some(_) => (Speaker::Log, Said::Session),
        None => (Speaker::Unmarked, answer(text).unwrap_or(Said::Command(text))),
    }
}

/// `[X TIME] BODY`.
fn marked(text: &[u8]) -> Option<(u8, &[u8])> {
    let text = text.trim_ascii();
    let (mark, rest) = text.split_first_chunk::<3>()?;
    let [b'[', speaker @ (b'R' | b'S' | b'I'), b' '] = mark else { return None };
    let end = rest.iter().take(MARK_BYTES_MAX).position(|byte| *byte == b']')?;
    Some((*speaker, rest.get(end + 1..)?.trim_ascii_start()))
}

/// Longest time in a mark.
const MARK_BYTES_MAX: usize = 40;

fn answer(text: &[u8]) -> Option<Said<'_>> {
    let (first, rest) = word(text);
    match first {
        b"OK" => Some(Said::Answer(rest.trim_ascii_end())),
        b"FAIL" | b"ERR" => Some(Said::Refusal),
        b"IRQ" => {
            let (level, rest) = word(rest);
            let high = match level {
                b"raise" => true,
                b"lower" => false,
                _ => return None,
            };
            let line = u32::try_from(number(word(rest).0)?).ok()?;
            Some(Said::Irq { line, high })
        }
        _ => None,
    }
}

/// A here-document that a line of shell begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HereDocument {
    /// The line that ends it.
    delimiter: Vec<u8>,
    /// `<<-`: tabs before the delimiter are left out.
    tabs: bool,
    /// The command line of QEMU, as far as it is in that line.
    pub machine: Option<String>,
}

/// Longest command line that is kept.
const MACHINE_BYTES_MAX: usize = 4096;

impl HereDocument {
    /// The one that `text` begins.
    pub fn begun_by(text: &[u8]) -> Option<Self> {
        let at = text.windows(2).position(|two| two == b"<<")?;
        let after = text.get(at + 2..)?;
        let tabs = after.first() == Some(&b'-');
        let after = if tabs { after.get(1..)? } else { after };
        let after = after.trim_ascii_start();
        let quote = after.first().filter(|byte| matches!(byte, b'\'' | b'"'));
        let after = if quote.is_some() { after.get(1..)? } else { after };
        let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_';
        let delimiter: Vec<u8> = after.iter().take_while(is_part).copied().collect();
        let closed = quote.is_none_or(|quote| after.get(delimiter.len()) == Some(quote));
        if delimiter.is_empty() || !closed {
            return None;
        }
        Some(Self { delimiter, tabs, machine: machine(text) })
    }

    /// Whether `text` is its last line.
    pub fn is_ended_by(&self, text: &[u8]) -> bool {
        let skipped = text.iter().take_while(|byte| self.tabs && **byte == b'\t').count();
        text.get(skipped..) == Some(&self.delimiter)
    }
}

/// The part of a pipeline that starts QEMU, with single blanks.
fn machine(text: &[u8]) -> Option<String> {
    let is_qemu = |part: &&[u8]| part.windows(4).any(|four| four == b"qemu");
    let part = text.split(|byte| *byte == b'|').find(is_qemu)?;
    let end = part.windows(2).position(|two| two == b"<<").unwrap_or(part.len());
    Some(readable(part.get(..end)?))
}

/// `text` with single blanks, cut to a bearable length.
pub fn readable(text: &[u8]) -> String {
    let text = text.get(..MACHINE_BYTES_MAX).unwrap_or(text);
    let text = String::from_utf8_lossy(text);
    let words = text.split_whitespace().map(|word| word.escape_debug().to_string());
    words.collect::<Vec<_>>().join(" ").replace("\\\"", "\"").replace("\\'", "'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_and_unmarked_lines() {
        for (text, speaker, said) in [
            ("[R +0.012345] outl 0xcf8 1", Speaker::Log, Said::Command(b"outl 0xcf8 1")),
            ("[S +0.012346] OK", Speaker::Log, Said::Answer(b"")),
            ("[S +0.012346] OK 0x0000ff", Speaker::Log, Said::Answer(b"0x0000ff")),
            ("[S +0.1] IRQ raise 4", Speaker::Log, Said::Irq { line: 4, high: true }),
            ("[S +0.1] FAIL Unknown command 'x'", Speaker::Log, Said::Refusal),
            ("[S +0.1] b64write: data length mismatch", Speaker::Log, Said::Other),
            ("[I 0.000001] OPENED", Speaker::Log, Said::Session),
            ("[I +9.5] CLOSED", Speaker::Log, Said::Session),
            ("outl 0xcf8 1", Speaker::Unmarked, Said::Command(b"outl 0xcf8 1")),
            ("OK 0x1", Speaker::Unmarked, Said::Answer(b"0x1")),
            ("IRQ lower 0", Speaker::Unmarked, Said::Irq { line: 0, high: false }),
            ("IRQ up 0", Speaker::Unmarked, Said::Command(b"IRQ up 0")),
            ("[R", Speaker::Unmarked, Said::Command(b"[R")),
            ("[R no end", Speaker::Unmarked, Said::Command(b"[R no end")),
        ] {
            assert_eq!(parse(text.as_bytes()), (speaker, said), "{text}");
        }
    }

    #[track_caller]
    fn here(text: &str) -> HereDocument {
        HereDocument::begun_by(text.as_bytes()).expect("a here-document")
    }

    #[test]
    fn here_documents() {
        let doc = here("cat << EOF | ./qemu-system-i386 -M q35  -device x,id=\"a\" -qtest stdio");
        assert_eq!(
            doc.machine.as_deref(),
            Some("./qemu-system-i386 -M q35 -device x,id=\"a\" -qtest stdio")
        );
        assert!(doc.is_ended_by(b"EOF"));
        assert!(
            !doc.is_ended_by(b"EOFX") && !doc.is_ended_by(b" EOF") && !doc.is_ended_by(b"\tEOF")
        );
        let doc = here("qemu-system-x86_64 -qtest stdio <<-'END_1' 2>&1");
        assert_eq!(doc.machine.as_deref(), Some("qemu-system-x86_64 -qtest stdio"));
        assert!(doc.is_ended_by(b"\t\tEND_1"));
        assert_eq!(here("cat <<\"X\" > commands").machine, None);
        for text in ["cat < EOF", "1 << ", "cat <<< word", "cat << 'EOF", "a << |"] {
            assert_eq!(HereDocument::begun_by(text.as_bytes()), None, "{text}");
        }
    }
}
