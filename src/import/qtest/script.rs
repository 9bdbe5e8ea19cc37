//! Lines of a script, log or report: continued and wrapped lines joined, the command line that
//! starts QEMU and the here-documents found.

use std::collections::VecDeque;

use super::quoted::{self, Quoted};
use super::shell::{self, Variables};
use super::text::{self, HereDocument, Said};
use super::wrap::{self, Lack};
use super::{command, gutter};
use crate::base::limits::{QTEST_LINE_BYTES_MAX, QTEST_MACHINE_BYTES_MAX};
use crate::base::{Error, Result, error::Place};
use crate::import::lines::Lines;
use crate::import::source::Source;

/// Where in a script a line stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A line that may hold a command.
    Commands,
    /// The shell's line that begins a here-document, with what was wrapped of it.
    Begin,
    /// A shell's line that starts QEMU and begins no here-document, or a header's line that says
    /// with which arguments; likewise.
    Launch,
    /// The line that ends a here-document.
    End,
    /// After its end.
    After,
}

/// Reads lines; a backslash at the end continues one, as the shell has it, and quoting and
/// indentation are left out.
pub struct Script {
    lines: Lines,
    text: Vec<u8>,
    /// The line after it, where it was looked at.
    ahead: Option<(u64, Vec<u8>)>,
    /// Lines that one line of the shell holds.
    queue: VecDeque<(u64, Part, Vec<u8>)>,
    state: State,
}

enum State {
    Outside,
    Inside { document: HereDocument, hash: bool },
    After,
}

impl Script {
    /// The script in `source`.
    pub fn new(source: Source) -> Self {
        let lines = Lines::with_limit(source, QTEST_LINE_BYTES_MAX);
        Self { lines, text: Vec::new(), ahead: None, queue: VecDeque::new(), state: State::Outside }
    }

    /// The next line, with the number of its first piece.
    ///
    /// # Errors
    /// Input: unreadable, or a line that is too long.
    pub fn read(&mut self) -> Result<Option<(u64, Part, &[u8])>> {
        loop {
            if let Some((number, part, text)) = self.queue.pop_front() {
                self.text = text;
                return Ok(Some((number, part, &self.text)));
            }
            let Some(number) = self.advance()? else { return Ok(None) };
            if let Some(part) = self.part(number)? {
                return Ok(Some((number, part, &self.text)));
            }
        }
    }

    /// The input, to ask what its end was like.
    pub fn source(&self) -> &Source {
        self.lines.source()
    }

    fn advance(&mut self) -> Result<Option<u64>> {
        if let Some((number, text)) = self.ahead.take() {
            self.text = text;
            return Ok(Some(number));
        }
        join(&mut self.lines, &mut self.text)
    }

    /// The line after this one.
    fn look_ahead(&mut self) -> Result<Option<&[u8]>> {
        if self.ahead.is_none() {
            let mut text = Vec::new();
            self.ahead = join(&mut self.lines, &mut text)?.map(|number| (number, text));
        }
        Ok(self.ahead.as_ref().map(|(_, text)| text.as_slice()))
    }

    /// What the line is; `None` when the queue holds it.
    fn part(&mut self, number: u64) -> Result<Option<Part>> {
        if let State::Inside { document, hash } = &self.state {
            if *hash && let Some(text) = self.text.strip_prefix(b"#") {
                self.text = text.trim_ascii_start().to_vec();
            }
            if document.is_ended_by(&self.text) {
                self.state = State::After;
                return Ok(Some(Part::End));
            }
            self.unwrap_command()?;
            return Ok(Some(Part::Commands));
        }
        let command = is_command(&self.text);
        if let Some((document, hash)) = begun_by(&self.text).filter(|_| !command) {
            if hash {
                self.text = text::after_hash(&self.text).to_vec();
            }
            self.unwrap_machine(true, Some(&document))?;
            self.state = State::Inside { document, hash };
            return Ok(Some(Part::Begin));
        }
        if !command && self.quoted(number)? {
            return Ok(None);
        }
        let header = || text::machine_args(text::after_hash(&self.text)).is_some();
        if !command && (header() || starts_qemu(&self.text)) {
            self.unwrap_machine(false, None)?;
            return Ok(Some(Part::Launch));
        }
        if matches!(self.state, State::After) {
            return Ok(Some(Part::After));
        }
        self.unwrap_command()?;
        Ok(Some(Part::Commands))
    }

    /// Adds what was wrapped of a command.
    fn unwrap_command(&mut self) -> Result<()> {
        while let Some(mut lack) = wrap::lacks(&self.text) {
            let mut added = false;
            while let Some(next) = self.look_ahead()?
                && lack.takes(next)
                && let Some((number, next)) = self.ahead.take()
            {
                if matches!(lack, Lack::Words(_)) {
                    self.text.push(b' ');
                }
                let next = next.trim_ascii();
                extend(&mut self.text, next, number).map_err(|error| self.named(error))?;
                added = true;
            }
            // With its words it may turn out to lack data.
            if !added || matches!(lack, Lack::Data { .. }) {
                break;
            }
        }
        Ok(())
    }

    /// Adds what was wrapped of a command line.
    fn unwrap_machine(&mut self, begins: bool, document: Option<&HereDocument>) -> Result<()> {
        for _ in 0..MACHINE_LINES_MAX {
            let text = std::mem::take(&mut self.text);
            let goes_on = self.look_ahead()?.is_some_and(|next| {
                let next = next.trim_ascii();
                !document.is_some_and(|document| document.is_ended_by(next))
                    && machine_goes_on(&text, next, begins)
            });
            self.text = text;
            let Some((_, next)) = self.ahead.take_if(|_| goes_on) else { return Ok(()) };
            let next = next.trim_ascii();
            // A list was wrapped behind a comma; an option never begins within a list.
            if !self.text.ends_with(b",") || next.starts_with(b"-") {
                self.text.push(b' ');
            }
            self.text.extend_from_slice(next);
        }
        Ok(())
    }

    /// Commands that `echo` or `printf` write, put in the queue.
    fn quoted(&mut self, number: u64) -> Result<bool> {
        let mut parsed = quoted::parse(&self.text);
        let mut tries = 0;
        while parsed == Some(Quoted::Open) {
            let text = std::mem::take(&mut self.text);
            let next = self.look_ahead()?.filter(|next| fits_quote(&text, next));
            let closes = next.is_some_and(|next| next.contains(&b'"') || next.contains(&b'\''));
            let goes_on = next.is_some() && tries < QUOTED_TRIES_MAX;
            self.text = text;
            let Some((_, next)) = self.ahead.take_if(|_| goes_on) else { break };
            self.text.push(b'\n');
            self.text.extend_from_slice(&next);
            if closes {
                parsed = quoted::parse(&self.text);
                tries += 1;
            }
        }
        let Some(Quoted::Whole { lines, rest }) = parsed else {
            return Ok(self.give_back(number));
        };
        if !lines.first().is_some_and(|line| is_command(line)) {
            return Ok(self.give_back(number));
        }
        let piped = rest.contains(&b'|');
        if piped {
            self.text = rest;
            self.unwrap_machine(false, None)?;
            self.queue.push_back((number, Part::Begin, std::mem::take(&mut self.text)));
        }
        let lines = lines.into_iter().filter(|line| !line.trim_ascii().is_empty());
        self.queue.extend(lines.map(|line| (number, Part::Commands, line)));
        if piped {
            self.queue.push_back((number, Part::End, Vec::new()));
            self.state = State::After;
        }
        Ok(true)
    }

    /// Puts lines that were no quoted text in the queue, each for itself; none when there is one.
    fn give_back(&mut self, number: u64) -> bool {
        if !self.text.contains(&b'\n') {
            return false;
        }
        let lines = self.text.split(|byte| *byte == b'\n').zip(number..);
        self.queue.extend(lines.map(|(line, number)| (number, Part::Commands, line.to_vec())));
        true
    }

    fn named(&self, error: Error) -> Error {
        error.path(self.source().path())
    }
}

/// Lines of a wrapped command line: each is looked at with all before it.
const MACHINE_LINES_MAX: usize = 64;

/// Most of a quoted text that is looked through for its end, line after line.
const QUOTED_BYTES_MAX: usize = 64 << 10;

/// Lines with a quote that are looked at for it.
const QUOTED_TRIES_MAX: u32 = 64;

/// Whether `next` may be within the open quote of `text`, which holds nothing but commands.
fn fits_quote(text: &[u8], next: &[u8]) -> bool {
    let first = text.iter().position(|byte| matches!(byte, b'"' | b'\''));
    let body = first.and_then(|at| text.get(at + 1..)).unwrap_or_default();
    let mut lines = body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    text.len() + next.len() <= QUOTED_BYTES_MAX && lines.next_back().is_none_or(is_command)
}

/// One line into `text`, with its number; continued ones are joined.
fn join(lines: &mut Lines, text: &mut Vec<u8>) -> Result<Option<u64>> {
    text.clear();
    let mut first = None;
    let mut before = Vec::new();
    loop {
        let Some((number, line)) = lines.read_line()? else { return Ok(first) };
        let line = if first.is_none() {
            let (gutter, line) = gutter::split(line);
            before.extend_from_slice(gutter);
            line
        } else {
            let line = gutter::continued(&before, line);
            if text.starts_with(b"#") { line.strip_prefix(b"#").unwrap_or(line) } else { line }
        };
        first.get_or_insert(number);
        let slashes = line.iter().rev().take_while(|byte| **byte == b'\\').count();
        // Neither a comment of the shell's nor a line of QEMU's log goes on.
        let whole = text.is_empty() && is_whole(line);
        let continued = slashes % 2 == 1 && !whole;
        let piece = if continued { line.strip_suffix(b"\\").unwrap_or(line) } else { line };
        let added = extend(text, piece, number);
        added.map_err(|error| error.path(lines.source().path()))?;
        if !continued {
            return Ok(first);
        }
    }
}

/// Whether a backslash at the end of `line` means nothing. A root's prompt looks like a comment.
fn is_whole(line: &[u8]) -> bool {
    match line.first() {
        Some(b'#') => {
            let body = text::after_hash(line);
            !(text::machine_args(body).is_some() || begun_by(line).is_some() || starts_qemu(body))
        }
        first => first == Some(&b'['),
    }
}

fn extend(text: &mut Vec<u8>, piece: &[u8], number: u64) -> Result<()> {
    if text.len() + piece.len() > QTEST_LINE_BYTES_MAX {
        let what = format!("continued line longer than {QTEST_LINE_BYTES_MAX} bytes");
        return Err(Error::input(what).at(Place::Line(number)));
    }
    text.extend_from_slice(piece);
    Ok(())
}

/// Whether a line is of the protocol: a command, well formed or not, or what QEMU's log holds.
fn is_command(line: &[u8]) -> bool {
    match text::parse(line) {
        (_, Said::Command(body)) => command::parse(body).is_some(),
        _ => true,
    }
}

/// A here-document for QEMU that `line` begins, and whether a hash stands before its lines: a
/// script that is commented out, or a root's prompt.
fn begun_by(line: &[u8]) -> Option<(HereDocument, bool)> {
    let hash = line.starts_with(b"#");
    let body = if hash { text::after_hash(line) } else { line };
    let document = HereDocument::begun_by(body)?;
    let has = |what: &[u8]| body.windows(what.len()).any(|part| part == what);
    // A shift in C looks much the same.
    let writes = body.starts_with(b"cat") || !hash && (has(b"cat ") || has(b"cat<"));
    (writes || has(b"-qtest") || has(b"tee ") || starts_qemu(body)).then_some((document, hash))
}

/// Whether a line is a command of the shell that starts QEMU.
fn starts_qemu(line: &[u8]) -> bool {
    let has = |what: &[u8]| line.windows(what.len()).any(|part| part == what);
    if line.len() > QTEST_MACHINE_BYTES_MAX || line.starts_with(b"#") || !has(b" -") {
        return false;
    }
    if !(has(b"qemu") || has(b"QEMU") || has(b"kvm") || has(b"-qtest")) {
        return false;
    }
    let line = String::from_utf8_lossy(line);
    match shell::launch(&line, &Variables::default()) {
        Ok(launch) => launch.is_some(),
        // A quote may be closed in a line that was wrapped.
        Err(_) => shell::launch(&line.replace(['"', '\''], ""), &Variables::default())
            .is_ok_and(|launch| launch.is_some()),
    }
}

/// Options that take no value, so that what follows one on the next line is no part of it.
const FLAGS: &[&[u8]] = &[
    b"-nodefaults",
    b"-no-user-config",
    b"-nographic",
    b"-enable-kvm",
    b"-usb",
    b"-snapshot",
    b"-no-reboot",
    b"-no-shutdown",
    b"-no-acpi",
    b"-no-hpet",
    b"-S",
    b"-s",
];

/// Whether `next` is a wrapped piece of the command line in `text`.
fn machine_goes_on(text: &[u8], next: &[u8], begins: bool) -> bool {
    let too_long = text.len() + next.len() > QTEST_MACHINE_BYTES_MAX;
    let first = next.first().copied().unwrap_or(b'#');
    if too_long || first == b'#' || gutter::is_fence(next) || is_command(next) {
        return false;
    }
    let option = next.trim_ascii_start().strip_prefix(b"-");
    let option = option.map(|rest| rest.strip_prefix(b"-").unwrap_or(rest));
    let option = option.is_some_and(|name| name.first().is_some_and(u8::is_ascii_alphabetic));
    if option || first == b'|' || text.ends_with(b"|") {
        return true;
    }
    let last = text.rsplit(u8::is_ascii_whitespace).find(|word| !word.is_empty());
    let open =
        |word: &[u8]| word.ends_with(b",") || word.starts_with(b"-") && !FLAGS.contains(&word);
    // Behind the `-qtest` of a here-document stands nothing that a report wraps.
    let has_qtest = text.windows(7).any(|part| part == b"-qtest ");
    last.is_some_and(open) || begins && !has_qtest && (starts_qemu(text) || starts_qemu(next))
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

    #[track_caller]
    fn check(text: &str, want: &[(u64, Part, &str)]) {
        let got = read(text);
        let got: Vec<_> = got.iter().map(|(n, part, text)| (*n, *part, text.as_str())).collect();
        assert_eq!(got, want, "{text}");
    }

    use Part::{After, Begin, Commands, End, Launch};

    #[test]
    fn a_script_with_its_here_document() {
        check(
            "# how to\ncat << EOF | \\\nqemu -M q35 \\\n-qtest stdio\noutb 1 \\\n2\nEOF\ndone\n",
            &[
                (1, Commands, "# how to"),
                (2, Begin, "cat << EOF | qemu -M q35 -qtest stdio"),
                (5, Commands, "outb 1 2"),
                (7, End, "EOF"),
                (8, After, "done"),
            ],
        );
    }

    #[test]
    fn data_is_wrapped_without_a_blank() {
        let want = (1, Commands, "write 0x0 0x4 0x01020304");
        check("write 0x0 0x4 0x0102\\\n0304\n", &[want]);
        check("write 0x0 0x4 0x0102\n0304\n", &[want]);
        check(
            "> write 0x0 0x4\n> 0x01\n> 0203\n>\n> 04\n",
            &[(1, Commands, "write 0x0 0x4 0x010203"), (4, Commands, ""), (5, Commands, "04")],
        );
        // The end of the input ends a continued line; two backslashes are no continuation.
        check("outb 1 2\\", &[(1, Commands, "outb 1 2")]);
        for text in ["x\\\\\ny", "# a comment \\\noutb 1 2", "[R +0.1] x \\\n[S +0.1] FAIL"] {
            assert_eq!(read(text).len(), 2, "{text}");
        }
    }

    #[test]
    fn a_command_line_that_mail_has_wrapped() {
        let begin = "cat << EOF | ./qemu-system-i386 -machine accel=qtest, -m 512M \
                     -drive id=d,if=none,file=null-co:// -nodefaults -qtest stdio";
        check(
            "cat << EOF | ./qemu-system-i386 -machine accel=qtest,\n-m 512M -drive id=d,if=none,\n\
             file=null-co:// -nodefaults -qtest\nstdio\noutb 1 2\nEOF\n",
            &[(1, Begin, begin), (5, Commands, "outb 1 2"), (6, End, "EOF")],
        );
        check(
            "cat << EOF |\n./qemu-system-i386 -M\nq35 -qtest stdio\nno command\nEOF\n",
            &[
                (1, Begin, "cat << EOF | ./qemu-system-i386 -M q35 -qtest stdio"),
                (4, Commands, "no command"),
                (5, End, "EOF"),
            ],
        );
    }

    #[test]
    fn quoting_prompts_and_stars() {
        for (before, first) in
            [("", ""), ("> ", ""), ("    ", ""), (" * ", ""), ("", "$ "), ("# ", "")]
        {
            let lines = ["cat <<'E' | qemu -M q35 \\", "  -qtest stdio", "outb 1 2", "E", "x"];
            let text: String = lines.map(|line| format!("{before}{line}\n")).concat();
            let got = read(&format!("{first}{text}"));
            let parts: Vec<_> = got.iter().map(|(n, part, _)| (*n, *part)).collect();
            assert_eq!(parts, [(1, Begin), (3, Commands), (4, End), (5, After)], "{before}{first}");
            let words: Vec<&str> = got[0].2.split_whitespace().collect();
            let want = "cat <<'E' | qemu -M q35 -qtest stdio";
            assert_eq!(words.join(" "), want, "{before}{first}");
            assert_eq!(got[1].2, "outb 1 2");
        }
        let root = "# cat << E | qemu -M q35\noutb 1 2\nE\n";
        assert_eq!(read(root)[1], (2, Commands, "outb 1 2".to_owned()));
    }

    #[test]
    fn a_machine_without_a_here_document() {
        check(
            "Run this:\n./qemu-system-i386 -M q35 \\\n -nodefaults\nand see.\n-- \nme\n",
            &[
                (1, Commands, "Run this:"),
                (2, Launch, "./qemu-system-i386 -M q35  -nodefaults"),
                (4, Commands, "and see."),
                (5, Commands, "-- "),
                (6, Commands, "me"),
            ],
        );
        check(
            "cat << E > x\noutb 1 2\nE\nqemu -M q35 < x\n#0 0x1 in f (/x/qemu-system-arm+0x1)\n",
            &[
                (1, Begin, "cat << E > x"),
                (2, Commands, "outb 1 2"),
                (3, End, "E"),
                (4, Launch, "qemu -M q35 < x"),
                (5, After, "#0 0x1 in f (/x/qemu-system-arm+0x1)"),
            ],
        );
        // A shift in C begins no here-document.
        check(
            "x = 1 << SHIFT;\noutb 1 2\n",
            &[(1, Commands, "x = 1 << SHIFT;"), (2, Commands, "outb 1 2")],
        );
    }

    #[test]
    fn a_header() {
        check(
            "# args: -M q35\n/* QEMU args: -M q35,\n * smm=off */\noutb 1 2\n",
            &[
                (1, Launch, "# args: -M q35"),
                (2, Launch, "QEMU args: -M q35,smm=off */"),
                (4, Commands, "outb 1 2"),
            ],
        );
    }

    #[test]
    fn what_echo_writes() {
        check(
            "printf 'outb 1 2\\ninb 1\\n' | qemu -M q35\nx\n",
            &[
                (1, Begin, " | qemu -M q35"),
                (1, Commands, "outb 1 2"),
                (1, Commands, "inb 1"),
                (1, End, ""),
                (2, After, "x"),
            ],
        );
        check(
            "echo \"outb 1 2\ninb 1\n\" | qemu -M \\\nq35\n",
            &[
                (1, Begin, " | qemu -M q35"),
                (1, Commands, "outb 1 2"),
                (1, Commands, "inb 1"),
                (1, End, ""),
            ],
        );
        let open = "echo \"outb 1 2\ninb 1\nthe end\nqemu -M q35\n";
        check(
            open,
            &[
                (1, Commands, "echo \"outb 1 2"),
                (2, Commands, "inb 1"),
                (3, Commands, "the end"),
                (4, Launch, "qemu -M q35"),
            ],
        );
        check("echo \"It's\nfine\"\n", &[(1, Commands, "echo \"It's"), (2, Commands, "fine\"")]);
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
