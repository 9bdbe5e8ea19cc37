//! A test thread and the machine it drives: they live together, and a case that panics or hangs
//! takes both with it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::access_log::{AccessLog, Logged};
use super::around::{Around, Occasion};
use super::machines::{MachineChoice, TestMachine};
use super::needs;
use super::outcome::{Finding, Outcome, Stop};
use super::panics;
use super::select::Planned;
use super::setup::MachineSetup;
use super::thread::TestThread;
use crate::base::{Clock, Error, ErrorKind, Nanos, Result, TimeGrade};
use crate::image::Image;
use crate::machine::builtin::Chips;
use crate::machine::{Capabilities, Machine};

/// How often the main thread looks whether the user wants to stop.
const LOOK: Duration = Duration::from_millis(50);

/// A case to run.
pub(super) struct Job {
    pub planned: Planned,
    /// What it needs.
    pub setup: MachineSetup,
    /// What a machine built for it, and for those after it, has.
    pub build: MachineSetup,
    pub machine: MachineChoice,
    pub seed: u64,
    /// The machine may serve a further case.
    pub keep: bool,
    pub scene: Arc<Scene>,
    /// Who stands before machines that are new.
    pub around: Option<Arc<dyn Around>>,
}

/// What can be looked at from outside while a case runs, and after it hung.
#[derive(Default)]
pub(super) struct Scene {
    /// The accesses, where they are wanted.
    pub log: Option<AccessLog>,
    machine: Mutex<Stage>,
}

/// The parts of a machine that are shared with it.
#[derive(Default)]
struct Stage {
    clock: Option<Arc<dyn Clock>>,
    images: Vec<Arc<dyn Image>>,
}

impl Scene {
    pub fn new(log: bool) -> Arc<Self> {
        Arc::new(Self { log: log.then(AccessLog::default), machine: Mutex::default() })
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The images of the machine's disks.
    pub fn images(&self) -> Vec<Arc<dyn Image>> {
        self.stage().images.clone()
    }

    /// The machine's time.
    pub fn now(&self) -> Nanos {
        self.stage().clock.as_ref().map(|clock| clock.now()).unwrap_or_default()
    }
}

/// What a case left.
pub(super) struct Done {
    pub outcome: Outcome,
    pub lines: Vec<String>,
    /// What its times are worth, and how far it moved the clock.
    pub time: Option<(TimeGrade, Nanos)>,
    /// It ran on a machine that an earlier case used.
    pub reused: bool,
}

/// What came of waiting for a case.
pub(super) enum Ended {
    Done(Done),
    /// The deadline passed: thread and machine are left to themselves.
    Hung,
    /// The user stopped it.
    Interrupted,
}

/// The main thread's end of a test thread.
pub(super) struct Bench {
    jobs: Sender<Job>,
    done: Receiver<Done>,
}

impl Bench {
    /// Starts a thread with no machine yet.
    pub fn start(name: &str) -> Result<Self> {
        let (jobs, inbox) = mpsc::channel();
        let (outbox, done) = mpsc::channel();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || serve(&inbox, &outbox))
            .map_err(|e| Error::machine("no thread for a test").source(e))?;
        Ok(Self { jobs, done })
    }

    /// Runs a case; waits for it until `deadline` has passed or `stop` is raised. After anything
    /// but [`Ended::Done`] the bench is of no further use.
    pub fn run(&self, job: Job, deadline: Duration, stop: &AtomicBool) -> Ended {
        let start = Instant::now();
        if self.jobs.send(job).is_err() {
            return died();
        }
        loop {
            if stop.load(Ordering::Relaxed) {
                return Ended::Interrupted;
            }
            let left = deadline.saturating_sub(start.elapsed());
            match self.done.recv_timeout(left.min(LOOK)) {
                Ok(done) => return Ended::Done(done),
                Err(RecvTimeoutError::Disconnected) => return died(),
                Err(RecvTimeoutError::Timeout) if left.is_zero() => return Ended::Hung,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

/// The thread ended without an answer, which no case can make it do.
fn died() -> Ended {
    let outcome = Err(Error::machine("the test thread died").into());
    Ended::Done(Done { outcome, lines: Vec::new(), time: None, reused: false })
}

/// The test thread.
fn serve(jobs: &Receiver<Job>, outbox: &Sender<Done>) {
    let mut slot = None;
    for job in jobs {
        if outbox.send(run(&mut slot, &job)).is_err() {
            return;
        }
    }
}

/// A machine between two cases.
struct Slot {
    machine: TestMachine,
    setup: MachineSetup,
}

fn run(slot: &mut Option<Slot>, job: &Job) -> Done {
    let mut done = Done { outcome: Ok(()), lines: Vec::new(), time: None, reused: false };
    // Dropping the machine is part of the case: an iothread that will not end is a hang.
    let ran = panics::catch(|| {
        let mut used = match take(slot, job, &mut done.reused) {
            Ok(machine) => machine,
            Err(error) => return Err(error.into()),
        };
        let outcome = on_machine(&mut used.machine, job, &mut done);
        if job.keep && matches!(outcome, Ok(()) | Err(Stop::Skipped(_))) {
            *slot = Some(used);
        }
        outcome
    });
    done.outcome =
        ran.unwrap_or_else(|text| Err(finding("the machine panicked", text, job.scene.now())));
    done
}

/// The machine of the case before, when it will do; else a new one.
fn take(slot: &mut Option<Slot>, job: &Job, reused: &mut bool) -> Result<Slot> {
    let kept = slot.take().filter(|kept| kept.setup.covers(&job.setup));
    *reused = kept.is_some();
    let slot = match kept {
        Some(kept) => kept,
        None => Slot { machine: job.machine.build(&job.build)?, setup: job.build.clone() },
    };
    *job.scene.stage() =
        Stage { clock: Some(slot.machine.machine.clock()), images: slot.machine.images.clone() };
    Ok(slot)
}

fn on_machine(on: &mut TestMachine, job: &Job, done: &mut Done) -> Outcome {
    let machine = &mut on.machine;
    needs_met(job, (machine.capabilities(), on.chips))?;
    let clock = machine.clock();
    let start = clock.now();
    let mut outcome = Ok(());
    let mut run = |machine: &mut dyn Machine| {
        outcome = match &job.scene.log {
            Some(log) => run_case(&mut Logged::new(machine, log.clone()), job, &mut done.lines),
            None => run_case(machine, job, &mut done.lines),
        };
    };
    match job.around.as_deref().filter(|_| !done.reused) {
        Some(around) => {
            let occasion = Occasion { name: &job.planned.name(), spec: on.spec.as_ref() };
            around.around(occasion, &mut **machine, &mut run)?;
        }
        None => run(&mut **machine),
    }
    done.time = Some((clock.grade(), Nanos(clock.now() - start)));
    match outcome {
        // Once it runs, a machine error is something that the device did to its driver.
        Err(Stop::Error(error)) if error.kind() == ErrorKind::Machine => {
            Err(finding("the driver gave up on the device", error.to_string(), clock.now()))
        }
        outcome => outcome,
    }
}

/// A skip where the machine lacks what the case needs.
fn needs_met(job: &Job, has: (Capabilities, Chips)) -> Outcome {
    let needs = (job.planned.case.needs, job.planned.module.chips());
    match needs::missing(job.machine.kind().name(), has, needs) {
        Some(reason) => Err(Stop::Skipped(reason)),
        None => Ok(()),
    }
}

/// Init, run, cleanup. What was said survives a panic.
fn run_case(machine: &mut dyn Machine, job: &Job, lines: &mut Vec<String>) -> Outcome {
    let Planned { module, case, .. } = job.planned;
    // Who stands before the machine may take something away.
    needs_met(job, (machine.capabilities(), Chips::FULL))?;
    let mut thread = TestThread::new(machine, job.planned.options.clone(), job.seed);
    let ran = panics::catch(|| {
        module.init(&mut thread)?;
        let outcome = (case.run)(&mut thread);
        if matches!(outcome, Ok(()) | Err(Stop::Skipped(_))) {
            module.cleanup(&mut thread)?;
        }
        outcome
    });
    *lines = thread.take_lines();
    ran.unwrap_or_else(|text| Err(finding("the case panicked", text, job.scene.now())))
}

fn finding(what: &str, got: String, time_ns: Nanos) -> Stop {
    Finding { what: what.to_owned(), expected: String::new(), got, time_ns }.into()
}
