//! The qtest protocol as text: QEMU's `-qtest-log`, a transcript of the socket, or the commands
//! alone, as fuzzers' reports have them (QEMU `system/qtest.c`).
//!
//! ```text
//! outl 0xcf8 0x80001010           [R +0.023456] outl 0xcf8 0x80001010     cat << EOF | qemu… \
//! inl 0xcfc                       [S +0.023460] OK                        -qtest stdio
//! write 0x1000 0x2 0x0102         [R +0.023471] inl 0xcfc                 outl 0xcf8 0x80001010
//! clock_step 1000000              [S +0.023480] OK 0x1af4                 EOF
//! ```
//!
//! - `command`: what each command holds; numbers as C reads them, sizes and addresses bytes.
//! - `text`, `script`: marks of the log, answers, continued lines, here-documents;
//!   `gutter`, `wrap`, `quoted`, `shell`: what mail, terminals and shells make of them.
//! - `session`: what commands and answers make: `in*`, `out*`, `readX` and `writeX` an access;
//!   `write`, `memset` and `read` guest memory (which may be a device's all the same: the protocol
//!   does not know); `clock_step` and `clock_set` a step of the clock; `IRQ` an interrupt.
//! - `data`: hexadecimal and base64.
//!
//! Times are those of the virtual clock, in nanoseconds, which commands alone move under QEMU's
//! qtest accelerator; the stamps of the log are the host's time, which no device saw, and are left
//! out. Without a clock command there are no times.
//!
//! A script's line `# args: …` and the command line that begins its here-document are kept in the
//! header as `machine: …`. What is no command is counted as lost.

pub(crate) mod command;
pub(crate) mod data;
pub(crate) mod gutter;
mod quoted;
pub(crate) mod script;
mod session;
pub(crate) mod shell;
#[cfg(test)]
mod tests;
pub(crate) mod text;
mod wrap;

use self::script::{Part, Script};
use self::session::Session;
use self::text::{HereDocument, Said, Speaker};
use super::job::{Job, line_place};
use super::registry::{Confidence, Importer, Probe};
use super::source::Source;
use super::{ImportOptions, note_condition};
use crate::base::Result;
use crate::trace::NotRecorded;

/// The importer.
pub struct Qtest;

impl Importer for Qtest {
    fn name(&self) -> &'static str {
        "qtest"
    }

    fn description(&self) -> &'static str {
        "qtest commands: QEMU's -qtest-log, a fuzzer's reproducer"
    }

    fn yields(&self) -> &'static str {
        "bus access"
    }

    fn probe(&self, probe: &Probe<'_>) -> Option<Confidence> {
        let (mut commands, mut others) = (0u32, 0u32);
        for line in probe.head.split(|byte| *byte == b'\n') {
            let line = gutter::split(line).1.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            match text::parse(line) {
                (Speaker::Log, _) => return Some(Confidence::Certain),
                (_, Said::Command(text)) if matches!(command::parse(text), Some(Ok(_))) => {
                    commands += 1;
                }
                (_, Said::Command(text)) if is_here_document(text) => {
                    return Some(Confidence::Likely);
                }
                (_, Said::Command(_)) => others += 1,
                _ => {}
            }
        }
        match commands {
            0 => None,
            _ if commands > others => Some(Confidence::Likely),
            _ => Some(Confidence::Possible),
        }
    }

    fn import(&self, sources: Vec<Source>, _: &ImportOptions, job: &mut Job<'_>) -> Result<()> {
        job.lacks(NotRecorded::CPUS | NotRecorded::REGIONS);
        job.interpret("times: the virtual clock, as clock_step and clock_set move it");
        for source in sources {
            Reader::default().read(source, job)?;
        }
        Ok(())
    }
}

/// Whether a line shows that the text is one for qtest, whatever else stands in it.
pub(super) fn is_ours(line: &[u8]) -> bool {
    let line = gutter::split(line).1;
    text::parse(line).0 == Speaker::Log || is_here_document(line)
}

/// A here-document for QEMU's qtest socket, which may be named on a later line.
fn is_here_document(text: &[u8]) -> bool {
    let has = |what: &[u8]| text.windows(what.len()).any(|part| part == what);
    (has(b"-qtest") || has(b"qemu")) && HereDocument::begun_by(text).is_some()
}

/// Command lines kept in the header.
const MACHINES_MAX: usize = 8;

#[derive(Default)]
struct Reader {
    session: Session,
    /// The log's marks were seen: what has none is the echo of another stream.
    marked: bool,
    sessions: u64,
    machines: usize,
}

impl Reader {
    fn read(mut self, source: Source, job: &mut Job<'_>) -> Result<()> {
        let mut script = Script::new(source);
        // Here-documents are for machines of their own: the first that holds something counts.
        let (mut documents, mut taken) = (0u64, None);
        while let Some((line, part, text)) = script.read()? {
            job.tick()?;
            match part {
                Part::Commands if taken.is_some_and(|first| first != documents) => {
                    job.summary.lose("line of another here-document", || line_place(line));
                }
                Part::Commands => {
                    if documents > 0 && !text.is_empty() {
                        taken = Some(documents);
                    }
                    self.line(line, text, job)?;
                }
                Part::Begin | Part::Launch => {
                    documents += u64::from(part == Part::Begin);
                    let args = text::machine_args(text::after_hash(text)).map(text::readable);
                    let machine = args.or_else(|| text::machine(text));
                    machine.into_iter().for_each(|machine| self.machine(&machine, job));
                }
                Part::End => {}
                Part::After => {
                    if !text.trim_ascii().is_empty() {
                        let reason = "line after the end of the here-document";
                        job.summary.lose(reason, || line_place(line));
                    }
                }
            }
        }
        self.session.end(job)?;
        note_condition(script.source(), job);
        if self.sessions > 1 {
            let sessions = self.sessions;
            job.summary.note(format!("{sessions} sessions in one log, one after the other"));
        }
        Ok(())
    }

    fn line(&mut self, line: u64, text: &[u8], job: &mut Job<'_>) -> Result<()> {
        let text = text.trim_ascii();
        if text.starts_with(b"#") {
            return Ok(());
        }
        let (speaker, said) = text::parse(text);
        self.marked |= speaker == Speaker::Log;
        let echo = self.marked && speaker == Speaker::Unmarked;
        match said {
            Said::Command(b"") => Ok(()),
            // QEMU's messages and trace events, where they went into the same file.
            Said::Command(text) if echo && command::parse(text).is_none() => {
                job.summary.lose("line beside those of the log", || line_place(line));
                Ok(())
            }
            Said::Command(text) => self.command(line, text, job),
            Said::Answer(_) | Said::Refusal | Said::Irq { .. } if echo => Ok(()),
            Said::Answer(value) => self.session.answer(value, job),
            Said::Refusal => self.session.refusal(job),
            Said::Irq { line: number, high } => self.session.irq(line, number, high, job),
            Said::Session => {
                self.sessions += u64::from(text.ends_with(b"OPENED"));
                Ok(())
            }
            Said::Other => {
                job.summary.lose("message of QEMU's that is no answer", || line_place(line));
                Ok(())
            }
        }
    }

    fn command(&mut self, line: u64, text: &[u8], job: &mut Job<'_>) -> Result<()> {
        match command::parse(text) {
            Some(Ok(command)) => return self.session.command(line, command, job),
            Some(Err(reason)) => job.summary.malformed(reason, || line_place(line)),
            None => job.summary.malformed("line that is no qtest command", || line_place(line)),
        }
        Ok(())
    }

    fn machine(&mut self, args: &str, job: &mut Job<'_>) {
        if self.machines < MACHINES_MAX {
            self.machines += 1;
            job.interpret(format!("machine: {}", args.trim()));
        }
    }
}
