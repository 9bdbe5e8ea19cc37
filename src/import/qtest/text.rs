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
}

/// Longest command line that is kept.
const MACHINE_BYTES_MAX: usize = 4096;

impl HereDocument {
    /// The one that `text` begins.
    pub fn begun_by(text: &[u8]) -> Option<Self> {
        let at = text.windows(2).position(|two| two == b"<<")?;
        let after = text.get(at + 2..)?;
        let after = after.strip_prefix(b"-").unwrap_or(after).trim_ascii_start();
        let after = after.strip_prefix(b"\\").unwrap_or(after);
        let quote = after.first().filter(|byte| matches!(byte, b'\'' | b'"'));
        let after = if quote.is_some() { after.get(1..)? } else { after };
        let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_';
        let delimiter: Vec<u8> = after.iter().take_while(is_part).copied().collect();
        let closed = quote.is_none_or(|quote| after.get(delimiter.len()) == Some(quote));
        (!delimiter.is_empty() && closed).then_some(Self { delimiter })
    }

    /// Whether `text` is its last line. A report may have it indented as a whole, so blanks do not
    /// count, as they would in a shell.
    pub fn is_ended_by(&self, text: &[u8]) -> bool {
        text.trim_ascii() == self.delimiter
    }
}

/// The part of a pipeline that starts QEMU, with single blanks.
pub fn machine(text: &[u8]) -> Option<String> {
    let is_qemu = |part: &&[u8]| {
        part.windows(4).any(|four| four == b"qemu") || part.windows(6).any(|six| six == b"-qtest")
    };
    let part = text.split(|byte| *byte == b'|').find(is_qemu)?;
    let end = part.windows(2).position(|two| two == b"<<").unwrap_or(part.len());
    Some(readable(part.get(..end)?))
}

/// A shell's comment without its hashes.
pub fn after_hash(text: &[u8]) -> &[u8] {
    let at = text.iter().position(|byte| *byte != b'#').unwrap_or(text.len());
    text.get(at..).unwrap_or_default().trim_ascii_start()
}

/// What a header calls the arguments of a machine.
const ARGS_NAMES: &[&[u8]] = &[
    b"args",
    b"arguments",
    b"qemu args",
    b"qemu arguments",
    b"qemu_args",
    b"machine args",
    b"cmdline",
    b"qemu cmdline",
    b"command line",
    b"qemu command line",
];

/// The arguments of a machine that a header's line has: `args: -M q35`, in a comment or not.
pub fn machine_args(text: &[u8]) -> Option<&[u8]> {
    let colon = text.iter().take(ARGS_NAME_BYTES_MAX).position(|byte| *byte == b':')?;
    let (name, rest) = text.split_at(colon);
    let name = name.trim_ascii();
    if !ARGS_NAMES.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        return None;
    }
    let rest = rest.get(1..)?.trim_ascii();
    let rest = rest.strip_suffix(b"*/").unwrap_or(rest).trim_ascii_end();
    let option = |two: &[u8]| matches!(two, [b'-', second] if second.is_ascii_alphabetic());
    rest.windows(2).any(option).then_some(rest)
}

/// Longest name of [`ARGS_NAMES`], with its colon.
const ARGS_NAME_BYTES_MAX: usize = 20;

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

    #[test]
    fn here_documents() {
        for (text, ends) in [
            ("cat << EOF | ./qemu-system-i386 -qtest stdio", "EOF"),
            ("qemu-system-x86_64 -qtest stdio <<-'END_1' 2>&1", "END_1"),
            ("cat <<\"X\" > commands", "X"),
            ("cat <<\\E1|x", "E1"),
        ] {
            let document = HereDocument::begun_by(text.as_bytes()).expect(text);
            for end in [ends.to_owned(), format!("    {ends}"), format!("\t{ends} ")] {
                assert!(document.is_ended_by(end.as_bytes()), "{text}");
            }
            for other in [format!("{ends}X"), format!("x {ends}"), String::new()] {
                assert!(!document.is_ended_by(other.as_bytes()), "{text}: {other}");
            }
        }
        for text in ["cat < EOF", "1 << ", "cat <<< word", "cat << 'EOF", "a << |"] {
            assert_eq!(HereDocument::begun_by(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn command_lines_for_the_header() {
        for (text, want) in [
            (
                "cat << EOF | ./qemu-system-i386 -M q35  -device x,id=\"a\" -qtest stdio",
                Some("./qemu-system-i386 -M q35 -device x,id=\"a\" -qtest stdio"),
            ),
            ("qemu -qtest stdio <<-'END_1' 2>&1", Some("qemu -qtest stdio")),
            ("cat <<\"X\" > commands", None),
        ] {
            assert_eq!(machine(text.as_bytes()).as_deref(), want, "{text}");
        }
        for (text, want) in [
            ("args: -M q35", Some("-M q35")),
            ("QEMU args: accel=qtest, -m 64 */", Some("accel=qtest, -m 64")),
            ("Command line: ./qemu-system-i386 -M q35", Some("./qemu-system-i386 -M q35")),
            ("args: none", None),
            ("args -M q35", None),
            ("the args: -M q35", None),
        ] {
            assert_eq!(machine_args(text.as_bytes()), want.map(str::as_bytes), "{text}");
        }
    }
}
