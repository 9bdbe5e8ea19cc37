//! A whole replay of a report: read, start, send, tell.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

use super::args::{self, Arguments, Policy};
use super::config::Config;
use super::engine::{Engine, Played};
use super::report::{Report, Survey};
use super::reproduce;
use crate::base::error::Place;
use crate::base::{Error, ErrorKind, Result};
use crate::import::qtest::shell::{self, Variables, Word};
use crate::machine::obituary::End;
use crate::machine::qemu::Mode;
use crate::machine::qemu::probe;
use crate::machine::qemu::start::{Start, Started, start};
use crate::replay::output::{Output, OutputKind};
use crate::report::qtest_log::{
    Outcome, QTEST_LOG_SCHEMA, QtestFinding, QtestLogReport, QtestMachine, SentCommand,
};
use crate::report::{WallReport, json};

/// How long QEMU may take to start; a big machine builds its tables.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// From so many on it matters that they go one at a time.
const MANY_COMMANDS: u64 = 100_000;

/// Replays a report as `config` says. `stop` ends it early; `progress` gets the commands sent and
/// how many there are.
///
/// # Errors
/// Whatever kept the job from being done: machine errors for a QEMU that does not start, or that
/// may not with those arguments. A QEMU that died is no error: see the report.
pub fn run(
    config: &Config,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<QtestLogReport> {
    let begun = (Instant::now(), SystemTime::now());
    let report_file = config
        .report
        .as_deref()
        .map(|path| Output::create(OutputKind::Report, path))
        .transpose()?;
    let report = Report::open(&config.tracefile, stop)?;
    let survey = report.survey(config.pick, stop)?;
    let (arguments, line) = arguments(config, &report, &survey)?;
    let (binary, _) = probe::choose(config.binary.as_deref(), Some(Mode::Qtest))?;
    let folder = tempfile::tempdir()
        .map_err(|e| Error::incomplete("no temporary folder for QEMU").source(e))?;
    let mut launch =
        Start::new(&binary, arguments.words.clone(), START_PATIENCE).fds(arguments.files());
    if !config.trust_args {
        // A name without a folder finds nothing there, and what it leaves is removed. And no
        // sound of the host's, which old QEMUs take unless told.
        launch = launch.folder(folder.path()).variable("QEMU_AUDIO_DRV", "none");
    }
    let started = start(launch).map_err(|not| cannot_start(not.error, &report, line))?;
    let version = started.qmp.version().to_owned();
    let played = play(config, &report, &survey, started, stop, progress)?;
    let machine = QtestMachine {
        binary: binary.display().to_string(),
        version,
        reported: survey.machine.as_ref().map(|m| m.program.clone()).unwrap_or_default(),
        args: arguments.shown.clone(),
        changes: arguments.changes.clone(),
        images: arguments.image_names.clone(),
    };
    let reproduce = match played.end {
        Some(_) => {
            let one_by_one = config.window == 1;
            reproduce::line(&report, survey.part, &binary, &arguments.shown, one_by_one)?
        }
        None => None,
    };
    let mut told = tell(config, &report, survey, machine, played, reproduce);
    told.wall = WallReport::since(begun);
    if let Some(mut file) = report_file {
        file.write(json::to_text(&told)?.as_bytes())?;
        file.finish()?;
    }
    Ok(told)
}

fn play(
    config: &Config,
    report: &Report,
    survey: &Survey,
    started: Started,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Played> {
    let engine = Engine::new(started, config.window, config.deadline);
    let mut commands = report.commands(survey.part)?;
    let total = survey.commands;
    engine
        .play(&mut commands, stop, &mut |sent| progress(sent, total))
        .map_err(|error| error.path(report.path()))
}

/// The exit code that a report stands for.
pub fn exit_code(report: &QtestLogReport) -> u8 {
    match report.outcome {
        Outcome::Interrupted => ErrorKind::Interrupted.exit_code(),
        outcome if outcome.pass() => 0,
        _ => 1,
    }
}

/// The arguments that QEMU gets, and the line of the report that they stand in.
fn arguments(
    config: &Config,
    report: &Report,
    survey: &Survey,
) -> Result<(Arguments, Option<u64>)> {
    let (words, line): (Vec<Word>, _) = match (&config.args, &survey.machine) {
        (Some(text), _) => {
            let segments = shell::split(text, &Variables::default()).map_err(|why| {
                Error::usage(format!("args={text}: {why}")).hint("quote as in a shell")
            })?;
            (segments.concat(), None)
        }
        (None, Some(machine)) => (machine.words.clone(), Some(machine.line)),
        (None, None) => {
            return Err(Error::usage("the report does not say which machine it is for")
                .path(report.path())
                .hint("args=… says it: args=-M q35 -device …; args= for QEMU's default machine"));
        }
    };
    let policy = Policy { trust: config.trust_args, folder: args::folder_of(report.path()) };
    match args::look_at(&words, &policy) {
        Ok(arguments) => Ok((arguments, line)),
        Err(error) => Err(placed(error, report, line)),
    }
}

fn placed(error: Error, report: &Report, line: Option<u64>) -> Error {
    match line {
        Some(line) => error.at(Place::Line(line)).path(report.path()),
        None => error,
    }
}

fn cannot_start(error: Error, report: &Report, line: Option<u64>) -> Error {
    let place = match line {
        Some(line) => {
            format!("the arguments are those of {}, line {line}", report.path().display())
        }
        None => "the arguments are those of args=".to_owned(),
    };
    error.hint(format!("{place}; args=… gives others, binary=… of the machine another QEMU"))
}

fn tell(
    config: &Config,
    report: &Report,
    survey: Survey,
    machine: QtestMachine,
    played: Played,
    reproduce: Option<String>,
) -> QtestLogReport {
    let mut notes = survey.notes;
    notes.extend(played.notes);
    if config.window == 1 && survey.commands >= MANY_COMMANDS {
        notes.push(format!(
            "{} commands went one at a time; window=64 sends them ahead of their answers, many \
             times faster, but what QEMU puts off may then happen later among them",
            survey.commands
        ));
    }
    let stepped = |last: &SentCommand| !last.answered && last.text.starts_with("clock_s");
    if played.outcome == Outcome::Hung && played.last.iter().any(stepped) {
        notes.push(
            "it was stepping its clock: a long step runs every timer within it, and ends with a \
             longer deadline= unless QEMU hangs"
                .to_owned(),
        );
    }
    if played.end.is_some() && reproduce.is_none() {
        notes.push("no short line reproduces it: run this replay again".to_owned());
    }
    let finding = played.end.map(|end| QtestFinding {
        what: end.to_string(),
        signal: match end {
            End::Signal { number, .. } => Some(number),
            _ => None,
        },
        status: match end {
            End::Exit { status } => Some(status),
            _ => None,
        },
        last: played.last,
        stderr: played.stderr.clone(),
        reproduce: reproduce.unwrap_or_default(),
    });
    let mut done = played.done;
    done.commands = survey.commands;
    QtestLogReport {
        schema: QTEST_LOG_SCHEMA.to_owned(),
        qtrace: env!("CARGO_PKG_VERSION").to_owned(),
        report: report.path().display().to_string(),
        reproducer: config.pick,
        reproducers: survey.reproducers,
        settings: config.settings(),
        machine,
        done,
        rejected: survey.rejected.into_lines(),
        events: BTreeMap::from_iter(played.events),
        outcome: played.outcome,
        stderr: if finding.is_none() { played.stderr } else { String::new() },
        finding,
        notes,
        wall: WallReport::default(),
    }
}
