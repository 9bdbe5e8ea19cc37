//! `qtrace test --against`: each case runs on the first machine and is recorded; the recording is
//! replayed on both, from the start, and compared access by access.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Args, Format, print};
use crate::base::{Error, ErrorKind, Result};
use crate::record::tap_dir::TapDir;
use crate::replay::bus::against::session;
use crate::replay::bus::options::{Config, MMIO_TEST};
use crate::report::against::{
    AGAINST_TESTS_SCHEMA, AgainstCase, AgainstReport, AgainstStatus, AgainstSummary, AgainstTests,
    PairVerdict,
};
use crate::report::{against_tests, json};
use crate::suite::machines::MachineChoice;
use crate::suite::runner::{self, RunOptions};
use crate::suite::select::{self, Modules, Planned};
use crate::suite::{CaseResult, Status, needs};

/// What is compared.
struct Pair {
    first: MachineChoice,
    second: MachineChoice,
}

/// Runs the cases on both machines and prints the report; the exit code.
///
/// # Errors
/// Whatever kept the tests from being run at all.
pub(super) fn run(modules: Modules, args: &Args, second: &str, stop: &AtomicBool) -> Result<u8> {
    if !matches!(args.format, Format::Text | Format::Json) {
        return Err(Error::usage("--against has no such report").hint("--format text or json"));
    }
    let plan = select::plan(modules, &args.words)?;
    let pair =
        Pair { first: MachineChoice::parse(&args.machine)?, second: MachineChoice::parse(second)? };
    session::check(&pair.second)?;
    pair.first.available()?;
    pair.second.available()?;
    // Recordings that nobody asked for go where nobody sees them.
    let hidden =
        match args.tap {
            Some(_) => None,
            None => Some(tempfile::tempdir().map_err(|e| {
                Error::incomplete("no folder for the recordings of cases").source(e)
            })?),
        };
    let folder = args.tap.as_deref().or(hidden.as_ref().map(|folder| folder.path()));
    let taps = Arc::new(TapDir::create(folder.unwrap_or(Path::new(".")))?);
    let options = RunOptions {
        seed: args.seed,
        deadline: args.deadline,
        artifacts: args.artifacts.clone(),
        around: Some(Arc::clone(&taps) as _),
        ..RunOptions::new(pair.first.clone())
    };
    let live = args.format == Format::Text;
    let (mut cases, mut code, mut printed) = (Vec::new(), None, Ok(()));
    let suite = runner::run(&plan, &options, stop, &mut |result: &CaseResult| {
        let Some(planned) = plan.get(cases.len()) else { return };
        let path = taps.latest(&result.name());
        let (case, error) = pair.case(planned, result, &path, stop);
        if hidden.is_some() {
            // It is in a folder that goes as a whole, and may be large.
            let _ = std::fs::remove_file(&path);
        }
        code = code.or(error);
        if live && printed.is_ok() {
            printed = print(against_tests::case(&case).as_bytes());
        }
        cases.push(case);
    })?;
    printed?;
    let report = AgainstTests {
        schema: AGAINST_TESTS_SCHEMA.to_owned(),
        qtrace: env!("CARGO_PKG_VERSION").to_owned(),
        machines: [pair.first.text().to_owned(), pair.second.text().to_owned()],
        seed: args.seed,
        interrupted: suite.interrupted || stop.load(Ordering::Relaxed),
        summary: summarize(&cases),
        cases,
    };
    let rest = if live { against_tests::summary(&report) } else { json::to_text(&report)? };
    print(rest.as_bytes())?;
    if report.interrupted {
        let mut err = std::io::stderr().lock();
        let _ = writeln!(err, "qtrace: interrupted: the report is partial");
    }
    Ok(exit_code(&report, code))
}

/// 130 when it was interrupted, 1 when something differs or failed, else the code of the first
/// case that could not be compared, 4 when none was, else 0.
fn exit_code(report: &AgainstTests, error: Option<ErrorKind>) -> u8 {
    let AgainstSummary { same, different, failed, .. } = report.summary;
    match error {
        _ if report.interrupted => ErrorKind::Interrupted.exit_code(),
        _ if different + failed > 0 => 1,
        Some(kind) => kind.exit_code(),
        None if same == 0 => ErrorKind::Nothing.exit_code(),
        None => 0,
    }
}

fn summarize(cases: &[AgainstCase]) -> AgainstSummary {
    let count = |status| cases.iter().filter(|case| case.status == status).count();
    AgainstSummary {
        same: count(AgainstStatus::Same),
        different: count(AgainstStatus::Different),
        skipped: count(AgainstStatus::Skipped),
        failed: count(AgainstStatus::Failed),
        errors: count(AgainstStatus::Error),
        checks: cases.iter().map(|case| case.verdict.checks).sum(),
        accepted: cases.iter().map(|case| case.verdict.accepted).sum(),
    }
}

impl Pair {
    /// A case that ended on the first machine, compared; and the kind of error that kept it from
    /// being so, if one did.
    fn case(
        &self,
        planned: &Planned,
        result: &CaseResult,
        path: &Path,
        stop: &AtomicBool,
    ) -> (AgainstCase, Option<ErrorKind>) {
        let without = |status, reason: &str| AgainstCase {
            case: result.name(),
            status,
            reason: reason.to_owned(),
            verdict: PairVerdict::default(),
            differences: Vec::new(),
            differences_unlisted: 0,
            accepted: Vec::new(),
            died: None,
            notes: result.notes.clone(),
        };
        match result.status {
            Status::Passed => {}
            Status::Skipped => return (without(AgainstStatus::Skipped, &result.reason), None),
            Status::Failed => {
                let finding = result.finding.as_ref().map(ToString::to_string);
                return (without(AgainstStatus::Failed, &finding.unwrap_or_default()), None);
            }
            Status::Error => {
                return (without(AgainstStatus::Error, &result.reason), result.error_kind);
            }
            Status::NotRun => return (without(AgainstStatus::Error, "not run"), None),
        }
        if let Some(reason) = self.lacks(planned) {
            return (without(AgainstStatus::Skipped, &reason), None);
        }
        if !path.exists() {
            let reason = "nothing was recorded: it had the machine of the case before it";
            return (without(AgainstStatus::Skipped, reason), None);
        }
        match self.compare(path, stop) {
            Ok(report) => (compared(result.name(), report), None),
            Err(error) => (without(AgainstStatus::Error, &error.to_string()), Some(error.kind())),
        }
    }

    /// Why the second machine cannot run a case, as far as no machine of its kind can.
    fn lacks(&self, planned: &Planned) -> Option<String> {
        let kind = self.second.kind();
        let needs = (planned.case.needs, planned.module.chips());
        needs::missing((kind.name(), kind.lacks()), needs::best(kind.lacks()), needs)
    }

    fn compare(&self, path: &Path, stop: &AtomicBool) -> Result<AgainstReport> {
        let path = path.to_str().ok_or_else(|| {
            Error::usage("the folder of recordings has a name that is no UTF-8").path(path)
        })?;
        let text = format!("tracefile={}", path.replace(',', ",,"));
        let config = Config::parse_for(MMIO_TEST, self.first.clone(), &[text])?;
        session::run(&config, &self.second, stop, &mut |_, _| ())
    }
}

fn compared(case: String, report: AgainstReport) -> AgainstCase {
    let verdict = report.verdict;
    let (status, reason) = match (verdict.pass, verdict.checks) {
        (false, _) => (AgainstStatus::Different, String::new()),
        (true, 0) => (AgainstStatus::Skipped, nothing(&report)),
        (true, _) if !report.complete => (AgainstStatus::Error, "not complete".to_owned()),
        (true, _) => (AgainstStatus::Same, String::new()),
    };
    AgainstCase {
        case,
        status,
        reason,
        verdict,
        differences: report.differences,
        differences_unlisted: report.differences_unlisted,
        accepted: report.accepted,
        died: report.died,
        notes: report.notes,
    }
}

/// Why there was nothing to compare.
fn nothing(report: &AgainstReport) -> String {
    let why = "no access is of a device that both machines have";
    [why].into_iter().chain(report.notes.iter().map(String::as_str)).collect::<Vec<_>>().join("; ")
}
