//! A line of shell that does to a QEMU what a replay did.

use std::path::Path;

use super::report::{Report, ReportPart, sendable};
use crate::base::limits::QTEST_LINE_BYTES_MAX;
use crate::base::{Result, shell};
use crate::import::lines::Lines;
use crate::import::source::{Meter, Source};

/// Longest list of commands that stands in the line itself.
const INLINE_BYTES_MAX: usize = 2048;

/// What begins a command, for grep.
const COMMANDS: &str = "^(in|out|read|write|b64|memset|clock_|irq_|set_irq|endianness)";

/// Gives QEMU each line when the one before is answered: what comes through a pipe at once is taken
/// at once, and what QEMU puts off is done later then. Its answers come back through a FIFO.
const ONE_BY_ONE: &str =
    "while IFS= read -r c; do printf '%s\\n' \"$c\"; read -r a <&3; done 3<answers";

/// The line: `binary` with `args` gets the commands of `part` on its standard input, `one_by_one`
/// or all at once. `None` where no short line has them: they are many, and wrapped or quoted in the
/// report.
///
/// # Errors
/// Input: the report cannot be read again.
pub fn line(
    report: &Report,
    part: ReportPart,
    binary: &Path,
    args: &[String],
    one_by_one: bool,
) -> Result<Option<String>> {
    let Some(commands) = commands(report, part)? else { return Ok(None) };
    let binary = binary.display().to_string();
    let qtest = ["-qtest", "stdio"];
    let words = std::iter::once(binary.as_str()).chain(args.iter().map(String::as_str));
    let qemu = shell::join(words.chain(qtest));
    Ok(Some(match one_by_one {
        true => {
            format!("rm -f answers; mkfifo answers; {commands} | {ONE_BY_ONE} | {qemu} >answers")
        }
        false => format!("{commands} | {qemu}"),
    }))
}

fn commands(report: &Report, part: ReportPart) -> Result<Option<String>> {
    let mut all = report.commands(part)?;
    let (mut texts, mut bytes) = (Vec::new(), 0);
    let (mut first, mut last) = (0, 0);
    while let Some(command) = all.read()? {
        first = if first == 0 { command.line } else { first };
        last = command.line;
        bytes += command.text.len() + 3;
        if bytes <= INLINE_BYTES_MAX {
            texts.push(command.text);
        }
    }
    if bytes <= INLINE_BYTES_MAX {
        let words = ["printf", "%s\\n"].into_iter().chain(texts.iter().map(String::as_str));
        return Ok(Some(shell::join(words)));
    }
    if !stands_in_the_file(report, part, first, last)? {
        return Ok(None);
    }
    let path = report.path().display().to_string();
    let path = shell::join([path.as_str()]);
    Ok(Some(format!("sed -n '{first},{last}p' {path} | grep -E '{COMMANDS}'")))
}

/// Whether the lines from `first` to `last` that begin as commands are the commands of `part`.
fn stands_in_the_file(report: &Report, part: ReportPart, first: u64, last: u64) -> Result<bool> {
    let path = report.path();
    if !path.is_file() {
        return Ok(false);
    }
    let source = Source::open(path, &Meter::default())?;
    if source.condition().compression.is_some() {
        return Ok(false);
    }
    let mut lines = Lines::with_limit(source, QTEST_LINE_BYTES_MAX);
    let mut all = report.commands(part)?;
    while let Some((number, line)) = lines.read_line()? {
        let inside = (first..=last).contains(&number);
        if !inside || !begins_as_command(line) {
            continue;
        }
        let same = all.read()?.is_some_and(|command| command.text.as_bytes() == line);
        if !same || !matches!(sendable(line), Some(Ok(_))) {
            return Ok(false);
        }
    }
    Ok(all.read()?.is_none())
}

/// As grep decides by [`COMMANDS`].
fn begins_as_command(line: &[u8]) -> bool {
    let inner = COMMANDS.trim_start_matches("^(").trim_end_matches(')');
    inner.split('|').any(|begin| line.starts_with(begin.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[track_caller]
    fn reproduce(text: &str, one_by_one: bool) -> (tempfile::TempDir, Option<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it's a report");
        std::fs::write(&path, text).unwrap();
        let report = Report::open(&path, &AtomicBool::new(false)).unwrap();
        let part = report.survey(1, &AtomicBool::new(false)).unwrap().part;
        // Instead of QEMU, something that shows what it gets.
        let args = ["-c".to_owned(), "tee got".to_owned()];
        let line = line(&report, part, Path::new("/bin/sh"), &args, one_by_one).unwrap();
        (folder, line)
    }

    #[track_caller]
    fn run(folder: &tempfile::TempDir, line: &str) -> String {
        let mut shell = std::process::Command::new("timeout");
        let out = shell.args(["20", "sh", "-c", line]).current_dir(folder).output().unwrap();
        assert!(out.status.success(), "{line}: {out:?}");
        std::fs::read_to_string(folder.path().join("got")).unwrap()
    }

    #[test]
    fn a_shell_gives_the_same_commands() {
        let (folder, line) = reproduce("> outl 0xcf8\t1\nx\n> write 0 2 0x01\n> 02\n", true);
        assert_eq!(run(&folder, &line.unwrap()), "outl 0xcf8 1\nwrite 0 2 0x0102\n");
        let many: String = (0..500).map(|n| format!("outl 0xcf8 {n:#x}\n# x\n\n")).collect();
        let (folder, line) = reproduce(&format!("cat << E | qemu -M pc\n{many}E\ntrace\n"), false);
        let line = line.unwrap();
        assert!(line.starts_with("sed -n '2,"), "{line}");
        assert_eq!(run(&folder, &line), many.replace("# x\n\n", ""));
        // Wrapped, and too many for a line.
        let wrapped = format!("cat << E | qemu -M pc\n{many}write 0 2 0x01\n02\nE\n");
        assert_eq!(reproduce(&wrapped, false).1, None);
        let bad = format!("cat << E | qemu -M pc\noutb 1 1\noutl 1\n{many}E\n");
        assert_eq!(reproduce(&bad, false).1, None);
    }
}
