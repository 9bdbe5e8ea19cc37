//! A report as people paste it: which machine it starts, and which of its lines are commands.
//!
//! It is read twice, line by line: once to find out which part of it is meant, and once to send
//! that. A here-document, or what `echo` or `printf` pipe to QEMU, counts as one *reproducer* when
//! it holds a command; without any, the commands that stand between the other lines are one. Of a
//! part that is a log of QEMU's (`[R +0.1] outl …`), only what QEMU was told there counts.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::rejected::{Rejected, Why};
use crate::base::error::{IoContext, Place};
use crate::base::limits::{
    QTEST_MACHINE_BYTES_MAX, QTEST_READ_BYTES_MAX, QTEST_SPOOL_BYTES_MAX, QTEST_WRITE_BYTES_MAX,
};
use crate::base::{Error, ErrorKind, Result};
use crate::import::qtest::command::{self, Command};
use crate::import::qtest::gutter;
use crate::import::qtest::script::{Part, Script};
use crate::import::qtest::shell::{self, Variables, Word};
use crate::import::qtest::text::{self, Said, Speaker};
use crate::import::source::{Meter, Source};

/// A report that can be read several times.
#[derive(Debug)]
pub struct Report {
    path: PathBuf,
    /// What came through a pipe.
    spool: Option<File>,
}

/// What a report says.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The machine it starts, where it says so.
    pub machine: Option<MachineLine>,
    /// Which part is meant.
    pub part: ReportPart,
    /// Reproducers in it.
    pub reproducers: u64,
    /// Commands of the part.
    pub commands: u64,
    /// Lines that are not sent.
    pub rejected: Rejected,
    /// What else is to be known of it.
    pub notes: Vec<String>,
}

/// How a report starts its machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineLine {
    /// Where.
    pub line: u64,
    /// The program, where one is named.
    pub program: String,
    /// Its arguments.
    pub words: Vec<Word>,
}

/// A part of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportPart {
    /// Number of its here-document, from 1; 0 is what stands outside of all.
    document: u64,
    /// It is a log of QEMU's: lines without its marks are no part of it.
    marked: bool,
}

/// A command of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The line of the report that it begins in.
    pub line: u64,
    /// As it is sent.
    pub text: String,
}

impl Report {
    /// Opens `path`; `-` is standard input.
    ///
    /// # Errors
    /// Input: unreadable, or longer than [`QTEST_SPOOL_BYTES_MAX`] and no file. Interrupted, when
    /// `stop` is raised.
    pub fn open(path: &Path, stop: &AtomicBool) -> Result<Self> {
        let regular = path.metadata().is_ok_and(|meta| meta.is_file());
        let mut report = Self { path: path.to_path_buf(), spool: None };
        if !regular {
            let source = Source::open(path, &Meter::default())?;
            report.path = source.path().to_path_buf();
            report.spool = Some(spool(source, stop)?);
        }
        Ok(report)
    }

    /// Its name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn script(&self) -> Result<Script> {
        let source = match &self.spool {
            None => Source::open(&self.path, &Meter::default())?,
            Some(file) => {
                let mut file = file.try_clone().reading(&self.path, "cannot read again")?;
                file.rewind().reading(&self.path, "cannot read again")?;
                Source::from_read(self.path.clone(), Box::new(file))?
            }
        };
        Ok(Script::new(source))
    }

    /// Finds out what it says; `pick` chooses one of several reproducers, from 1.
    ///
    /// # Errors
    /// [`ErrorKind::Nothing`] without a command, input errors, and usage errors for a `pick` that
    /// is not there.
    pub fn survey(&self, pick: u64, stop: &AtomicBool) -> Result<Survey> {
        let mut surveyor = Surveyor::new(pick);
        let mut script = self.script()?;
        while let Some((line, part, text)) = script.read()? {
            surveyor.line(line, part, text);
            check(stop)?;
        }
        let mut survey = surveyor.finish().map_err(|error| error.path(&self.path))?;
        let condition = script.source().condition();
        if let (true, Some(name)) = (condition.cut, condition.compression) {
            survey.notes.push(format!("the {name} file ends before its own end"));
        }
        Ok(survey)
    }

    /// The commands of a part, in order.
    ///
    /// # Errors
    /// Input: unreadable.
    pub fn commands(&self, part: ReportPart) -> Result<Commands> {
        Ok(Commands { script: self.script()?, part, document: 0 })
    }
}

/// The commands of a report's part.
pub struct Commands {
    script: Script,
    part: ReportPart,
    document: u64,
}

impl Commands {
    /// The next one.
    ///
    /// # Errors
    /// Input: unreadable.
    pub fn read(&mut self) -> Result<Option<Sent>> {
        while let Some((line, part, text)) = self.script.read()? {
            self.document += u64::from(part == Part::Begin);
            if part != Part::Commands || self.document != self.part.document {
                continue;
            }
            if let Said::Command(body) = said(text, self.part.marked)
                && let Some(Ok(text)) = sendable(body)
            {
                return Ok(Some(Sent { line, text }));
            }
        }
        Ok(None)
    }
}

/// What a line says; in a log, a line without marks is something else.
fn said(text: &[u8], marked: bool) -> Said<'_> {
    match text::parse(text) {
        (Speaker::Unmarked, _) if marked => Said::Other,
        (_, said) => said,
    }
}

/// A command as it may be sent; `None` when the text does not begin as one.
pub fn sendable(body: &[u8]) -> Option<Result<String, &'static str>> {
    // QEMU would take a comment for an argument.
    let end = body.windows(2).position(|two| two == b" #").unwrap_or(body.len());
    let tidy = command::tidy(body.get(..end)?);
    let command = match command::parse(&tidy)? {
        Ok(command) => command,
        Err(why) => return Some(Err(why)),
    };
    let bad = match command {
        Command::Write { len, .. } | Command::Fill { len, .. } => {
            (len > QTEST_WRITE_BYTES_MAX).then_some("it writes more than QEMU can hold in memory")
        }
        Command::Read { len, .. } => {
            (len > QTEST_READ_BYTES_MAX).then_some("it reads more than one answer may hold")
        }
        Command::Setup if tidy.starts_with(b"module_load") => {
            Some("it loads a module from the host's files")
        }
        _ => None,
    };
    if let Some(why) = bad {
        return Some(Err(why));
    }
    Some(match String::from_utf8(tidy) {
        Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') => Ok(text),
        _ => Err("it has a character that no command has"),
    })
}

/// How well a line says which machine is meant; the better come last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// A command line elsewhere in the report.
    Launch,
    /// One with `-qtest`.
    Qtest,
    /// A header: `# args: …`.
    Header,
    /// The pipeline that gets the commands.
    Own,
}

/// A line that says which machine is meant.
struct Candidate {
    rank: Rank,
    line: u64,
    text: String,
}

/// One part of a report, as it is read.
#[derive(Default)]
struct Unit {
    document: u64,
    commands: u64,
    marked: u64,
    rejected: Rejected,
    /// Commands of a log's part without its marks.
    echoed: Rejected,
    machine: Option<Candidate>,
}

struct Surveyor {
    pick: u64,
    documents: u64,
    reproducers: u64,
    outside: Unit,
    inside: Option<Unit>,
    chosen: Option<Unit>,
    /// Lines of no part, and of those that were not chosen.
    others: Rejected,
    machine: Option<Candidate>,
    variables: Variables,
}

impl Surveyor {
    fn new(pick: u64) -> Self {
        Self {
            pick,
            documents: 0,
            reproducers: 0,
            outside: Unit::default(),
            inside: None,
            chosen: None,
            others: Rejected::default(),
            machine: None,
            variables: Variables::default(),
        }
    }

    fn line(&mut self, line: u64, part: Part, text: &[u8]) {
        match part {
            Part::Begin => {
                self.close();
                self.documents += 1;
                let machine = self.candidate(Rank::Own, line, text);
                let unit = Unit { document: self.documents, machine, ..Unit::default() };
                self.inside = Some(unit);
                self.others.add(Why::Shell, line, text);
            }
            Part::Launch => {
                let header = text::machine_args(text::after_hash(text));
                let qtest = text.windows(7).any(|part| part == b"-qtest ");
                let (rank, args, why) = match header {
                    Some(args) => (Rank::Header, args, Why::Header),
                    None if qtest => (Rank::Qtest, text, Why::Shell),
                    None => (Rank::Launch, text, Why::Shell),
                };
                let candidate = self.candidate(rank, line, args);
                self.prefer(candidate);
                self.others.add(why, line, text);
            }
            Part::End => {
                self.close();
                self.others.add(Why::Shell, line, text);
            }
            Part::After => {
                if !text.trim_ascii().is_empty() {
                    self.others.add(Why::After, line, text);
                }
                self.sets_variables(text);
            }
            Part::Commands => self.command(line, text),
        }
    }

    fn command(&mut self, line: u64, text: &[u8]) {
        if text.trim_ascii().is_empty() {
            return;
        }
        let header = self.inside.is_none() && self.sets_variables(text);
        let unit = self.inside.as_mut().unwrap_or(&mut self.outside);
        let (speaker, said) = text::parse(text);
        match said {
            _ if header => unit.rejected.add(Why::Header, line, text),
            Said::Command(body) if body.starts_with(b"#") || gutter::is_fence(body) => {
                unit.rejected.add(Why::Comment, line, text)
            }
            Said::Command(body) => match sendable(body) {
                Some(Ok(_)) => {
                    unit.commands += 1;
                    if speaker == Speaker::Log {
                        unit.marked += 1;
                    } else {
                        unit.echoed.add(Why::Echo, line, text);
                    }
                }
                Some(Err(why)) => unit.rejected.add(Why::Malformed(why), line, text),
                None => unit.rejected.add(Why::NoCommand, line, text),
            },
            Said::Answer(_) | Said::Refusal | Said::Irq { .. } | Said::Session | Said::Other => {
                unit.rejected.add(Why::Answer, line, text);
            }
        }
    }

    /// Takes a line that sets variables.
    fn sets_variables(&mut self, text: &[u8]) -> bool {
        // Cheap, because most lines are commands.
        let may = text.len() <= QTEST_MACHINE_BYTES_MAX && text.contains(&b'=');
        may && std::str::from_utf8(text).is_ok_and(|text| self.variables.learn(text))
    }

    fn candidate(&self, rank: Rank, line: u64, text: &[u8]) -> Option<Candidate> {
        let text = String::from_utf8_lossy(text).into_owned();
        let starts = rank == Rank::Header
            || shell::launch(&text, &self.variables).is_ok_and(|launch| launch.is_some());
        // A line that no shell would take is still the one that was meant.
        let meant = starts || text.contains("qemu") || text.contains("-qtest");
        meant.then_some(Candidate { rank, line, text })
    }

    /// Of several lines the one that says it best, and of those the first.
    fn prefer(&mut self, candidate: Option<Candidate>) {
        let known = self.machine.as_ref().map(|known| known.rank);
        if candidate.as_ref().is_some_and(|new| known.is_none_or(|known| new.rank > known)) {
            self.machine = candidate;
        }
    }

    /// A here-document has ended.
    fn close(&mut self) {
        let Some(unit) = self.inside.take() else { return };
        self.reproducers += u64::from(unit.commands > 0);
        if unit.commands > 0 && self.reproducers == self.pick && self.chosen.is_none() {
            self.chosen = Some(unit);
            return;
        }
        self.others.add_all(unit.rejected);
        self.others.add_as(Why::Another, unit.echoed);
        self.prefer(unit.machine);
    }

    fn finish(mut self) -> Result<Survey> {
        self.close();
        let mut rejected = self.others;
        let unit = match self.chosen {
            Some(unit) => {
                rejected.add_all(self.outside.rejected);
                rejected.add_as(Why::Outside, self.outside.echoed);
                unit
            }
            None if self.reproducers == 0 && self.outside.commands > 0 && self.pick == 1 => {
                self.reproducers = 1;
                self.outside
            }
            None => {
                rejected.add_all(self.outside.rejected);
                return Err(nothing(self.reproducers, &rejected));
            }
        };
        let marked = unit.marked > 0;
        rejected.add_all(unit.rejected);
        if marked {
            rejected.add_all(unit.echoed);
        }
        let machine = match unit.machine.or(self.machine) {
            Some(candidate) => Some(candidate.read(&self.variables)?),
            None => None,
        };
        let mut notes = Vec::new();
        if self.reproducers > 1 {
            let (pick, all) = (self.pick, self.reproducers);
            notes.push(format!("reproducer {pick} of {all} in the report; pick=N takes another"));
        }
        Ok(Survey {
            machine,
            part: ReportPart { document: unit.document, marked },
            reproducers: self.reproducers,
            commands: if marked { unit.marked } else { unit.commands },
            rejected,
            notes,
        })
    }
}

impl Candidate {
    fn read(self, variables: &Variables) -> Result<MachineLine> {
        let Self { rank, line, text } = self;
        let bad = |why: &str| {
            Error::input(format!("the machine's command line cannot be read: {why}"))
                .at(Place::Line(line))
                .hint("say it by args=…, or put its quotes right")
        };
        let launch = shell::launch(&text, variables).map_err(bad)?;
        if let Some(launch) = launch {
            return Ok(MachineLine { line, program: launch.program, words: launch.words });
        }
        if rank != Rank::Header {
            return Err(bad("no arguments of QEMU's in it"));
        }
        let segments = shell::split(&text, variables).map_err(bad)?;
        match <[_; 1]>::try_from(segments) {
            Ok([words]) => Ok(MachineLine { line, program: String::new(), words }),
            Err(_) => Err(bad("more than one command")),
        }
    }
}

fn nothing(reproducers: u64, rejected: &Rejected) -> Error {
    if reproducers > 0 {
        let what = format!("there are {reproducers} reproducers in the report");
        return Error::usage(what).hint(format!("pick=1 to pick={reproducers}"));
    }
    let error = |what: String| Error::new(ErrorKind::Nothing, what);
    match rejected.first_malformed() {
        Some(line) => error(format!(
            "no qtest command in it that can be sent: {} begin as one and would make QEMU abort \
             or are out of range",
            rejected.malformed()
        ))
        .hint(format!("the first, {line}")),
        None => error("no qtest command in it".to_owned())
            .hint("commands are lines such as: outl 0xcf8 0x80001010"),
    }
}

fn check(stop: &AtomicBool) -> Result<()> {
    if stop.load(Ordering::Relaxed) {
        return Err(Error::new(ErrorKind::Interrupted, "stopped before the report was read"));
    }
    Ok(())
}

/// What comes through a pipe, in a file without a name.
fn spool(mut source: Source, stop: &AtomicBool) -> Result<File> {
    const WHAT: &str = "cannot keep the report in a temporary file";
    let folder = std::env::temp_dir();
    let mut file = tempfile::tempfile().writing(&folder, WHAT)?;
    let (mut buf, mut all) = (vec![0; 64 << 10], 0u64);
    loop {
        let len = source.read(&mut buf).map_err(|error| source.error(error))?;
        if len == 0 {
            break;
        }
        all += len as u64;
        check(stop)?;
        if all > QTEST_SPOOL_BYTES_MAX {
            let what = format!("more than {QTEST_SPOOL_BYTES_MAX} bytes through a pipe");
            return Err(Error::input(what).path(source.path()).hint("put it in a file first"));
        }
        file.write_all(buf.get(..len).unwrap_or_default()).writing(&folder, WHAT)?;
    }
    Ok(file)
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
