//! A command line as a POSIX shell splits it (POSIX.1-2024, Shell Command Language, §2.2–2.7), as
//! far as a report needs it. Nothing is run, and no file name pattern is looked up.

use crate::base::limits::QTEST_MACHINE_BYTES_MAX;

/// A word, with quotes and backslashes taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// Its text.
    pub text: String,
    /// What only a shell could have filled in: the first variable that is not known, or a command
    /// substitution. Its place in `text` holds it as it was written.
    pub unknown: Option<String>,
}

impl Word {
    /// Whether it sets a variable: `NAME=…`.
    fn assignment(&self) -> Option<(&str, &str)> {
        let (name, value) = self.text.split_once('=')?;
        is_name(name).then_some((name, value))
    }
}

fn is_name(text: &str) -> bool {
    let part = |c: char| c == '_' || c.is_ascii_alphanumeric();
    text.starts_with(|c: char| part(c) && !c.is_ascii_digit()) && text.chars().all(part)
}

/// Variables that the script has set before: `export ARGS="-M q35"`.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    known: Vec<(String, String)>,
    lines: u32,
}

/// Variables kept; scripts that start a machine have two or three.
const VARIABLES_MAX: usize = 64;

/// Lines that are taken for settings of variables: each may make [`QTEST_MACHINE_BYTES_MAX`] of
/// those before, and a file of such lines would never be read to its end.
const VARIABLE_LINES_MAX: u32 = 256;

impl Variables {
    /// Takes what `line` sets, when that is all it does; says whether it was.
    pub fn learn(&mut self, line: &str) -> bool {
        let first = line.trim_start();
        let first = first.strip_prefix("export ").unwrap_or(first);
        let names = first.split_once('=').is_some_and(|(name, _)| is_name(name.trim_start()));
        if !names || self.lines >= VARIABLE_LINES_MAX {
            return false;
        }
        self.lines += 1;
        let Ok(segments) = split(line, self) else { return false };
        let words = segments.concat();
        let words = match words.split_first() {
            Some((first, rest)) if first.text == "export" => rest,
            _ => &words,
        };
        if words.is_empty() || !words.iter().all(|word| word.assignment().is_some()) {
            return false;
        }
        for word in words.iter().filter(|word| word.unknown.is_none()) {
            if let Some((name, value)) = word.assignment() {
                self.known.retain(|(known, _)| known != name);
                if self.known.len() < VARIABLES_MAX {
                    self.known.push((name.to_owned(), value.to_owned()));
                }
            }
        }
        true
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.known.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A command of a pipeline that starts QEMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The program, as it is named there.
    pub program: String,
    /// Its arguments.
    pub words: Vec<Word>,
}

/// The first command of `text` that starts QEMU with arguments: behind assignments, `gdb --args`
/// and the like, which are left out.
///
/// # Errors
/// Says why a shell would refuse the line.
pub fn launch(text: &str, variables: &Variables) -> Result<Option<Launch>, &'static str> {
    let segments = split(text, variables)?;
    let with_options = |words: &[Word]| words.iter().any(|word| word.text.starts_with('-'));
    for words in &segments {
        let at = words.iter().position(is_qemu);
        if let Some((program, rest)) = at.and_then(|at| words.get(at..)?.split_first())
            && with_options(rest)
        {
            return Ok(Some(Launch { program: program.text.clone(), words: rest.to_vec() }));
        }
    }
    // A program of another name: what is given `-qtest` is QEMU.
    let qtest = |word: &Word| matches!(word.text.as_str(), "-qtest" | "--qtest");
    let launch = segments.iter().find(|words| words.iter().any(qtest)).map(|words| {
        let at = words.iter().position(|word| word.text.starts_with('-')).unwrap_or_default();
        let (before, rest) = words.split_at(at);
        let program = before.last().map(|word| word.text.clone()).unwrap_or_default();
        Launch { program, words: rest.to_vec() }
    });
    Ok(launch)
}

/// Whether a word names a system emulator: `./qemu-system-i386`, `qemu-kvm`, `$QEMU`.
fn is_qemu(word: &Word) -> bool {
    if word.assignment().is_some() || word.text.starts_with('-') {
        return false;
    }
    if word.unknown.is_some() {
        return word.text.to_ascii_uppercase().contains("QEMU");
    }
    let name = word.text.rsplit('/').next().unwrap_or_default();
    let message = name.ends_with(':');
    let system = name.contains("qemu-system") || name.starts_with("qemu-fuzz");
    !message && (system || matches!(name, "qemu" | "kvm" | "qemu-kvm"))
}

/// The commands of `text`, each a list of words; redirections are left out with their targets, and
/// so are comments.
///
/// # Errors
/// Says why a shell would refuse it.
pub fn split(text: &str, variables: &Variables) -> Result<Vec<Vec<Word>>, &'static str> {
    if text.len() > QTEST_MACHINE_BYTES_MAX {
        return Err("command line longer than any that a person writes");
    }
    let mut splitter = Splitter::new(text, variables);
    splitter.run()?;
    splitter.done.retain(|words| !words.is_empty());
    Ok(splitter.done)
}

struct Splitter<'t> {
    text: &'t str,
    at: usize,
    variables: &'t Variables,
    /// Commands that are complete, and the one that is not at its end.
    done: Vec<Vec<Word>>,
    word: Option<Word>,
    /// The next word is the target of a redirection.
    target: bool,
    /// Bytes that variables have made: each may stand for many, and name others.
    expanded: usize,
}

impl<'t> Splitter<'t> {
    fn new(text: &'t str, variables: &'t Variables) -> Self {
        let done = vec![Vec::new()];
        Self { text, at: 0, variables, done, word: None, target: false, expanded: 0 }
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest().chars().next()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn take(&mut self, what: char) -> bool {
        let here = self.rest().starts_with(what);
        self.at += if here { what.len_utf8() } else { 0 };
        here
    }

    fn push(&mut self, c: char) {
        self.word.get_or_insert_default().text.push(c);
    }

    fn end_word(&mut self) {
        let Some(word) = self.word.take() else { return };
        if !std::mem::take(&mut self.target)
            && let Some(words) = self.done.last_mut()
        {
            words.push(word);
        }
    }

    fn end_command(&mut self) {
        self.end_word();
        self.target = false;
        self.done.push(Vec::new());
    }

    fn run(&mut self) -> Result<(), &'static str> {
        while let Some(c) = self.next() {
            match c {
                ' ' | '\t' | '\r' => self.end_word(),
                '\n' | ';' | '|' | '(' | ')' => self.end_command(),
                '&' if self.rest().starts_with('>') => {}
                '&' => self.end_command(),
                '<' | '>' => self.redirection(),
                '#' if self.word.is_none() => {
                    let line = self.rest().find('\n').unwrap_or(self.rest().len());
                    self.at += line;
                }
                '\'' => self.single()?,
                '"' => self.double()?,
                '\\' => {
                    // A backslash at the end of a line continues it.
                    if let Some(c) = self.next().filter(|c| *c != '\n') {
                        self.push(c);
                    }
                }
                '$' => self.expansion(true)?,
                '`' => self.substitution('`', '`')?,
                c => self.push(c),
            }
        }
        self.end_word();
        Ok(())
    }

    /// `2>&1`, `< file`, `<<-EOF`, `<<< word`.
    fn redirection(&mut self) {
        let number = |word: &Word| word.text.bytes().all(|byte| byte.is_ascii_digit());
        if self.word.as_ref().is_some_and(number) {
            self.word = None;
        }
        self.end_word();
        let operator = self.rest().trim_start_matches(['<', '>', '&', '|', '-']);
        self.at = self.text.len() - operator.len();
        self.target = true;
    }

    fn single(&mut self) -> Result<(), &'static str> {
        self.word.get_or_insert_default();
        let (quoted, _) = self.rest().split_once('\'').ok_or(UNCLOSED)?;
        self.at += quoted.len() + 1;
        self.word.get_or_insert_default().text.push_str(quoted);
        Ok(())
    }

    fn double(&mut self) -> Result<(), &'static str> {
        self.word.get_or_insert_default();
        loop {
            match self.next().ok_or(UNCLOSED)? {
                '"' => return Ok(()),
                '$' => self.expansion(false)?,
                '`' => self.substitution('`', '`')?,
                '\\' => match self.next().ok_or(UNCLOSED)? {
                    '\n' => {}
                    c @ ('$' | '`' | '"' | '\\') => self.push(c),
                    c => {
                        self.push('\\');
                        self.push(c);
                    }
                },
                c => self.push(c),
            }
        }
    }

    /// After a `$`; a value outside quotes is split at blanks.
    fn expansion(&mut self, splits: bool) -> Result<(), &'static str> {
        if self.take('(') {
            return self.substitution('(', ')');
        }
        let braces = self.take('{');
        let rest = self.rest();
        let part = |c: char| c == '_' || c.is_ascii_alphanumeric();
        let name = rest.get(..rest.find(|c| !part(c)).unwrap_or(rest.len())).unwrap_or_default();
        self.at += name.len();
        if braces && !self.take('}') {
            // `${NAME:-default}` and its kin.
            let (_, after) = self.rest().split_once('}').ok_or("unclosed ${")?;
            self.at = self.text.len() - after.len();
            self.unknown(&format!("${{{name}…}}"));
        } else if name.is_empty() {
            self.push('$');
        } else if let Some(value) = self.variables.get(name) {
            self.expanded += value.len();
            if self.expanded > QTEST_MACHINE_BYTES_MAX {
                return Err("command line longer than any that a person writes");
            }
            self.value(value, splits);
        } else {
            self.unknown(&format!("${name}"));
        }
        Ok(())
    }

    fn value(&mut self, value: &str, splits: bool) {
        for c in value.chars() {
            if splits && c.is_ascii_whitespace() {
                self.end_word();
            } else {
                self.push(c);
            }
        }
    }

    /// `$(…)` and `` `…` ``, after the first `open`: kept as written and never run.
    fn substitution(&mut self, open: char, close: char) -> Result<(), &'static str> {
        let start = self.at;
        let mut depth = 1u32;
        while depth > 0 {
            match self.next().ok_or("unclosed command substitution")? {
                c if c == close => depth -= 1,
                c if c == open => depth += 1,
                _ => {}
            }
        }
        let inside = self.text.get(start..self.at).unwrap_or_default();
        let before = if open == '(' { "$(" } else { "`" };
        self.unknown(&format!("{before}{inside}"));
        Ok(())
    }

    fn unknown(&mut self, what: &str) {
        let word = self.word.get_or_insert_default();
        word.text.push_str(what);
        word.unknown.get_or_insert_with(|| what.to_owned());
    }
}

const UNCLOSED: &str = "unclosed quote";

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Vec<String>> {
        let segments = split(text, &Variables::default()).expect(text);
        segments.into_iter().map(|s| s.into_iter().map(|word| word.text).collect()).collect()
    }

    #[test]
    fn words_and_quotes() {
        for (text, want) in [
            ("a  b\tc", &["a", "b", "c"][..]),
            (r#"-device 'a b',x="c d" e\ f"#, &["-device", "a b,x=c d", "e f"]),
            (r#"'' "" x"#, &["", "", "x"]),
            (r#""a\"b\\c\d$" 'e\'"#, &[r#"a"b\c\d$"#, r"e\"]),
            ("a\\\nb \"c\\\nd\"", &["ab", "cd"]),
            ("a#b # a comment | x", &["a#b"]),
            ("-drive file=null-co://,format=raw", &["-drive", "file=null-co://,format=raw"]),
            ("-trace usb*", &["-trace", "usb*"]),
        ] {
            assert_eq!(words(text), [want], "{text}");
        }
    }

    #[test]
    fn commands_and_redirections() {
        for (text, want) in [
            ("cat << EOF | q -M x", &[&["cat"][..], &["q", "-M", "x"]][..]),
            ("cat <<-'EOF' | q 2>&1 | tee log", &[&["cat"], &["q"], &["tee", "log"]]),
            ("q -a 3 2>/dev/null -b >> log <<EOF -c", &[&["q", "-a", "3", "-b", "-c"]]),
            ("q 12 >x; (r) && s &", &[&["q", "12"], &["r"], &["s"]]),
            ("q &> log -x <<< word", &[&["q", "-x"]]),
        ] {
            assert_eq!(words(text), want, "{text}");
        }
        for text in ["'a", "\"a", "\"a\\", "`a", "$(a", "${a"] {
            assert!(split(text, &Variables::default()).is_err(), "{text}");
        }
        assert!(split(&"a".repeat(QTEST_MACHINE_BYTES_MAX + 1), &Variables::default()).is_err());
    }

    #[test]
    fn variables_are_those_that_the_script_sets() {
        let mut variables = Variables::default();
        assert!(variables.learn("export ARGS=\"-M q35 -m 64\" NAME='x y'"));
        assert!(variables.learn("QEMU=./qemu-system-i386"));
        for text in ["QEMU=x ./run", "outl 0xcf8 1", "", "=x", "1A=x", "A='"] {
            assert!(!variables.learn(text), "{text}");
        }
        let launch = launch("cat | $QEMU $ARGS -name \"$NAME\" ${ARGS}", &variables);
        let launch = launch.unwrap().unwrap();
        assert_eq!(launch.program, "./qemu-system-i386");
        let texts: Vec<&str> = launch.words.iter().map(|word| word.text.as_str()).collect();
        assert_eq!(texts, ["-M", "q35", "-m", "64", "-name", "x y", "-M", "q35", "-m", "64"]);
    }

    #[test]
    fn what_a_shell_alone_knows_is_marked() {
        for (text, unknown) in [
            ("-m $MEM", "$MEM"),
            ("-m a${MEM}b", "$MEM"),
            ("-m ${MEM:-64}", "${MEM…}"),
            ("-m \"$(cat /etc/passwd)\"", "$(cat /etc/passwd)"),
            ("-m `id -u`", "`id -u`"),
        ] {
            let segments = split(text, &Variables::default()).unwrap();
            assert_eq!(segments[0][1].unknown.as_deref(), Some(unknown), "{text}");
        }
        let segments = split("-m '$MEM' \\$MEM $ 5$", &Variables::default()).unwrap();
        assert!(segments[0].iter().all(|word| word.unknown.is_none()));
    }

    #[test]
    fn variables_cannot_make_a_line_without_end() {
        let mut variables = Variables::default();
        let mut line = format!("A0={}", "x".repeat(1024));
        for next in 1..10 {
            variables.learn(&line);
            line = format!("A{next}=\"{}\"", format!("$A{}", next - 1).repeat(16));
        }
        assert!(variables.known.iter().all(|(_, value)| value.len() <= QTEST_MACHINE_BYTES_MAX));
        // Nor a file of such lines one.
        let learned = (0..10_000).filter(|_| variables.learn("B=\"$A1$A1\"")).count();
        assert!(learned < 256, "{learned}");
    }

    #[test]
    fn a_program_that_is_qemu() {
        for (text, program, first) in [
            ("cat << EOF | ./qemu-system-x86_64 -M q35", "./qemu-system-x86_64", "-M"),
            (
                "QEMU_AUDIO_DRV=none gdb --args ../b/qemu-system-arm -S",
                "../b/qemu-system-arm",
                "-S",
            ),
            ("timeout 10 $QEMU_PATH -M x", "$QEMU_PATH", "-M"),
            (
                "cd ~/qemu && ./x86_64-softmmu/qemu-system-x86_64 -m 1",
                "./x86_64-softmmu/qemu-system-x86_64",
                "-m",
            ),
            ("/usr/libexec/qemu-kvm -nodefaults << E", "/usr/libexec/qemu-kvm", "-nodefaults"),
            ("cat x | $BIN -M q35 -qtest stdio", "$BIN", "-M"),
        ] {
            let launch = launch(text, &Variables::default()).unwrap().expect(text);
            assert_eq!((launch.program.as_str(), launch.words[0].text.as_str()), (program, first));
        }
        for text in [
            "git clone https://x/qemu.git -b y",
            "qemu-img create -f raw x 1M",
            "qemu-system-i386: -device x: no such device",
            "#1 0x55 in f (/b/qemu-system-i386+0x1d)",
            "cat x > y",
        ] {
            assert_eq!(launch(text, &Variables::default()), Ok(None), "{text}");
        }
    }
}
