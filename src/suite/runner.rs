//! Runs a plan: each case on a test thread, one after the other, and makes the report.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::around::Around;
use super::artifacts::{Artifacts, Remains};
use super::bench::{Bench, Done, Ended, Job, Scene};
use super::known::{self, KnownBug};
use super::machines::{MachineChoice, MachineKind};
use super::outcome::{Finding, HUNG, Stop};
use super::results::{CaseResult, CaseWall, SCHEMA, Status, SuiteReport, SuiteWall};
use super::select::Planned;
use super::setup::MachineSetup;
use crate::base::prng::mix;
use crate::base::units::human_nanos;
use crate::base::{Error, ErrorKind, Result, TimeGrade};
use crate::machine::builtin::Chips;
use crate::machine::{Capabilities, Obituary};

/// How a plan is run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// What it runs on.
    pub machine: MachineChoice,
    /// All randomness follows from it.
    pub seed: u64,
    /// How long a case may take by the host's clock before it counts as hung.
    pub deadline: Duration,
    /// The folder for what is known of failures.
    pub artifacts: Option<PathBuf>,
    /// Ends the run with the first case that fails.
    pub fail_fast: bool,
    /// Who stands between new machines and cases.
    pub around: Option<Arc<dyn Around>>,
    /// What cases may find and is no news.
    pub known_bugs: &'static [KnownBug],
}

impl RunOptions {
    /// The deadline unless asked otherwise: no case needs a tenth of it.
    pub const DEADLINE: Duration = Duration::from_secs(60);

    /// Seed 1, the usual deadline, nothing kept.
    pub fn new(machine: MachineChoice) -> Self {
        let (deadline, artifacts) = (Self::DEADLINE, None);
        let (around, known_bugs) = (None, known::BUGS);
        Self { machine, seed: 1, deadline, artifacts, fail_fast: false, around, known_bugs }
    }
}

/// Runs `plan`, telling `on_case` of each case as it ends. Raising `stop` abandons the case under
/// way and ends the run with a whole report.
///
/// # Errors
/// The folder for artifacts cannot be had. What goes wrong later stands in the report.
pub fn run(
    plan: &[Planned],
    options: &RunOptions,
    stop: &AtomicBool,
    on_case: &mut dyn FnMut(&CaseResult),
) -> Result<SuiteReport> {
    let artifacts = options.artifacts.as_deref().map(Artifacts::create).transpose()?;
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let start = Instant::now();
    let mut runner = Runner { plan, options, stop, artifacts, chain: None, ended: false };
    let mut cases = Vec::with_capacity(plan.len());
    for index in 0..plan.len() {
        let Some(result) = runner.case(index) else { break };
        on_case(&result);
        cases.push(result);
    }
    Ok(SuiteReport {
        schema: SCHEMA,
        qtrace: env!("CARGO_PKG_VERSION"),
        machine: options.machine.text().to_owned(),
        seed: options.seed,
        interrupted: stop.load(Ordering::Relaxed),
        summary: SuiteReport::summarize(&cases),
        cases,
        wall: SuiteWall { started_unix: started.as_secs(), elapsed_ns: nanos(start.elapsed()) },
    })
}

/// The seed of a case: the same whichever other cases run.
fn case_seed(seed: u64, name: &str) -> u64 {
    name.bytes().fold(mix(seed), |hash, byte| mix(hash ^ u64::from(byte)))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

struct Runner<'a> {
    plan: &'a [Planned],
    options: &'a RunOptions,
    stop: &'a AtomicBool,
    artifacts: Option<Artifacts>,
    /// The test thread of the cases with `fresh=off`.
    chain: Option<Bench>,
    /// Nothing more is to run.
    ended: bool,
}

impl Runner<'_> {
    fn case(&mut self, index: usize) -> Option<CaseResult> {
        let planned = self.plan.get(index)?;
        let mut result = CaseResult {
            module: planned.module.name().to_owned(),
            case: planned.case.name.to_owned(),
            options: planned.options.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            status: Status::NotRun,
            reason: String::new(),
            finding: None,
            lines: Vec::new(),
            notes: Vec::new(),
            time_grade: None,
            machine_time_ns: None,
            artifacts: None,
            wall: CaseWall::default(),
            error_kind: None,
        };
        if self.ended || self.stop.load(Ordering::Relaxed) {
            return Some(result);
        }
        let start = Instant::now();
        let scene = Scene::new(self.artifacts.is_some());
        let mut obituary = None;
        match self.job(index, &scene).and_then(|job| self.run(planned, job)) {
            Ok(Ended::Done(mut done)) => {
                obituary = done.obituary.take();
                finish(&mut result, done);
                self.mind_known_bugs(&mut result);
            }
            Ok(Ended::Hung) => self.hung(&mut result, &scene),
            Ok(Ended::Interrupted) => result.reason = "interrupted".to_owned(),
            Err(error) => could_not_run(&mut result, &error),
        }
        result.wall.elapsed_ns = nanos(start.elapsed());
        if result.status == Status::Failed {
            self.keep(&mut result, &scene, obituary.as_deref());
        }
        let bad = matches!(result.status, Status::Failed | Status::Error);
        self.ended |= bad && self.options.fail_fast;
        Some(result)
    }

    fn job(&self, index: usize, scene: &Arc<Scene>) -> Result<Job> {
        let rest = self.plan.get(index..).unwrap_or_default();
        let planned = rest.first().ok_or_else(|| Error::usage("no such case"))?;
        let kind = self.options.machine.kind();
        let setup = setup_of(kind, planned)?;
        let keep = !planned.settings.fresh;
        let mut build = setup.clone();
        for later in rest.iter().skip(1).filter(|later| keep && !later.settings.fresh) {
            build.extend(&setup_of(kind, later)?);
        }
        Ok(Job {
            planned: planned.clone(),
            setup,
            build,
            machine: self.options.machine.clone(),
            seed: case_seed(self.options.seed, &planned.name()),
            keep,
            scene: Arc::clone(scene),
            around: self.options.around.clone(),
        })
    }

    fn run(&mut self, planned: &Planned, job: Job) -> Result<Ended> {
        let bench = match self.chain.take().filter(|_| job.keep) {
            Some(bench) => bench,
            None => Bench::start(&planned.name())?,
        };
        let keep = job.keep;
        let ended = bench.run(job, self.options.deadline, self.stop);
        // A bench whose case hung is never asked again: the next one begins with a new machine.
        if keep && matches!(ended, Ended::Done(_)) {
            self.chain = Some(bench);
        }
        Ok(ended)
    }

    fn hung(&self, result: &mut CaseResult, scene: &Scene) {
        let deadline = human_nanos(nanos(self.options.deadline));
        result.status = Status::Failed;
        result.finding = Some(Finding {
            what: HUNG.to_owned(),
            expected: format!("an end within {deadline} of the host's time"),
            got: "none".to_owned(),
            time_ns: scene.now(),
        });
        result.notes.push("its thread was abandoned with its machine".to_owned());
    }

    /// A failure that is a known bug of the machine's is a skip that tells all of it.
    fn mind_known_bugs(&self, result: &mut CaseResult) {
        let (machine, case) = (self.options.machine.kind().name(), result.name());
        let bugs = self.options.known_bugs;
        match (result.status, &result.finding) {
            (Status::Failed, Some(finding)) => {
                let Some(bug) = known::shown(bugs, (machine, &case), finding) else { return };
                result.notes.push(format!("found: {finding}"));
                result.status = Status::Skipped;
                result.reason = bug.reason();
                result.finding = None;
            }
            (Status::Passed, _) => {
                let absent = known::of_case(bugs, machine, &case)
                    .map(|bug| format!("a known bug did not show here: {}", bug.what));
                result.notes.extend(absent);
            }
            _ => {}
        }
    }

    fn keep(&mut self, result: &mut CaseResult, scene: &Scene, obituary: Option<&Obituary>) {
        let Some(artifacts) = &mut self.artifacts else { return };
        let log = scene.log.as_ref().map(|log| log.text());
        let remains = Remains { log: log.as_deref(), images: &scene.images(), obituary };
        match artifacts.keep(result, self.options, &remains) {
            Ok(path) => result.artifacts = Some(path.display().to_string()),
            Err(error) => result.notes.push(format!("artifacts could not be kept: {error}")),
        }
    }
}

fn setup_of(kind: &dyn MachineKind, planned: &Planned) -> Result<MachineSetup> {
    let module = planned.module;
    Ok(MachineSetup {
        chips: if planned.settings.minimal { module.minimal_chips() } else { Chips::FULL },
        disks: module.disks(planned.case, &planned.options)?,
        clock: planned.settings.clock,
        controllers: kind.shows_one() && planned.case.needs.contains(Capabilities::CPU_IRQ),
    })
}

fn finish(result: &mut CaseResult, done: Done) {
    let deterministic = matches!(done.time, Some((TimeGrade::Deterministic, _)));
    result.time_grade = done.time.map(|(grade, _)| grade);
    result.machine_time_ns = done.time.filter(|_| deterministic).map(|(_, time)| time.0);
    *if deterministic { &mut result.lines } else { &mut result.wall.lines } = done.lines;
    if done.reused {
        result.notes.push("on the machine of the case before".to_owned());
    }
    result.notes.extend(done.notes);
    match done.outcome {
        Ok(()) => result.status = Status::Passed,
        Err(Stop::Failed(finding)) => {
            result.status = Status::Failed;
            result.finding = Some(*finding);
        }
        Err(Stop::Skipped(reason)) => {
            result.status = Status::Skipped;
            result.reason = reason;
        }
        Err(Stop::Error(error)) => could_not_run(result, &error),
    }
}

fn could_not_run(result: &mut CaseResult, error: &Error) {
    result.status = Status::Error;
    result.reason = error.to_string();
    if let Some(hint) = error.hint_text() {
        result.notes.push(format!("hint: {hint}"));
    }
    let kind = error.kind();
    // An interruption is known from the flag; a case cannot claim one.
    result.error_kind =
        Some(if kind == ErrorKind::Interrupted { ErrorKind::Machine } else { kind });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_differ_by_case_and_by_seed() {
        assert_ne!(case_seed(1, "a/b"), case_seed(1, "a/c"));
        assert_ne!(case_seed(1, "a/b"), case_seed(2, "a/b"));
        assert_eq!(case_seed(1, "a/b"), case_seed(1, "a/b"));
    }
}
