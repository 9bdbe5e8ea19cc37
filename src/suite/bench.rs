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
use super::outcome::{
    Finding, MACHINE_DIED, MACHINE_HUNG, MACHINE_PANICKED, Outcome, PANICKED, Stop,
};
use super::panics;
use super::select::Planned;
use super::setup::MachineSetup;
use super::thread::TestThread;
use crate::base::{Clock, Error, ErrorKind, Nanos, Result, TimeGrade};
use crate::image::Image;
use crate::machine::builtin::Chips;
use crate::machine::obituary::End;
use crate::machine::{Capabilities, Machine, Obituary};

/// How often the main thread looks whether the user wants to stop.
const LOOK: Duration = Duration::from_millis(50);

/// Where firmware writes its progress: reading it changes nothing.
const POST_CODE: u16 = 0x80;

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
    /// How the machine died, if it did.
    pub obituary: Option<Box<Obituary>>,
    /// What the reader should know besides.
    pub notes: Vec<String>,
}

impl Done {
    fn new(outcome: Outcome) -> Self {
        let (lines, notes) = (Vec::new(), Vec::new());
        Self { outcome, lines, time: None, reused: false, obituary: None, notes }
    }
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
    Ended::Done(Done::new(Err(Error::machine("the test thread died").into())))
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
    let mut done = Done::new(Ok(()));
    // Dropping the machine is part of the case: an iothread that will not end is a hang.
    let ran = panics::catch(|| {
        // What no machine of its kind has needs none to be built.
        needs_met(job, needs::best(job.machine.kind().lacks()))?;
        let mut used = match take(slot, job, &mut done.reused) {
            Ok(machine) => machine,
            Err(error) => return Err(error.into()),
        };
        let outcome = on_machine(&mut used.machine, job, &mut done);
        let keep =
            |outcome: &Outcome| job.keep && matches!(outcome, Ok(()) | Err(Stop::Skipped(_)));
        let last = !keep(&outcome);
        let outcome = outlived(&mut *used.machine.machine, last, outcome, &mut done);
        if keep(&outcome) {
            *slot = Some(used);
        }
        outcome
    });
    done.outcome = ran.unwrap_or_else(|text| Err(finding(MACHINE_PANICKED, text, job.scene.now())));
    done
}

/// The outcome of a case, unless its machine died. `last`: nobody needs the machine any more.
fn outlived(machine: &mut dyn Machine, last: bool, outcome: Outcome, done: &mut Done) -> Outcome {
    let ended = match &outcome {
        // It has to end in good order, too.
        Ok(()) if last => machine.quit(),
        // What was posted last may be what kills it: an answer comes when all of it was done.
        _ if machine.capabilities().contains(Capabilities::PIO) => machine.bus().map(|bus| {
            bus.pio_read(POST_CODE, 1);
        }),
        _ => Ok(()),
    };
    let Some(obituary) = machine.obituary() else {
        return outcome.and_then(|()| Ok(ended?));
    };
    let what = match obituary.what {
        End::Hung { .. } => MACHINE_HUNG,
        End::Signal { .. } | End::Exit { .. } | End::Closed | End::Broken { .. } => MACHINE_DIED,
    };
    let before = match outcome {
        Err(Stop::Failed(finding)) => Some(format!("the case found then: {finding}")),
        Err(Stop::Error(error)) => Some(format!("the case met then: {error}")),
        Ok(()) | Err(Stop::Skipped(_)) => None,
    };
    done.notes.extend(before.into_iter().chain(obituary.lines()));
    let summary = obituary.summary();
    done.obituary = Some(Box::new(obituary));
    Err(finding(what, summary, machine.clock().now()))
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
    let kind = job.machine.kind();
    match needs::missing((kind.name(), kind.lacks()), has, needs) {
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
    ran.unwrap_or_else(|text| Err(finding(PANICKED, text, job.scene.now())))
}

fn finding(what: &str, got: String, time_ns: Nanos) -> Stop {
    Finding { what: what.to_owned(), expected: String::new(), got, time_ns }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::GuestAddr;
    use crate::machine::{Bus, GuestRam, Interrupts};
    use std::os::fd::BorrowedFd;

    /// A machine that a read after the case's last access finds dead, or that does not quit.
    struct Dying {
        end: End,
        by_quit: bool,
        dead: bool,
    }

    impl Bus for Dying {
        fn pio_read(&mut self, _port: u16, _size: u8) -> u32 {
            self.dead = !self.by_quit;
            u32::MAX
        }
        fn pio_write(&mut self, _port: u16, _size: u8, _value: u32) {}
        fn mmio_read(&mut self, _addr: GuestAddr, _size: u8) -> u64 {
            u64::MAX
        }
        fn mmio_write(&mut self, _addr: GuestAddr, _size: u8, _value: u64) {}
    }

    impl Machine for Dying {
        fn name(&self) -> &str {
            "dying"
        }
        fn capabilities(&self) -> Capabilities {
            Capabilities::PIO
        }
        fn bus(&mut self) -> Result<&mut dyn Bus> {
            Ok(self)
        }
        fn ram(&self) -> Result<Arc<GuestRam>> {
            Err(Error::machine("none"))
        }
        fn interrupts(&mut self) -> Result<&mut dyn Interrupts> {
            Err(Error::machine("none"))
        }
        fn clock(&self) -> Arc<dyn Clock> {
            Arc::new(crate::base::VirtualClock::new())
        }
        fn obituary(&self) -> Option<Obituary> {
            self.dead.then(|| Obituary {
                program: "QEMU".to_owned(),
                what: self.end.clone(),
                stderr: "assertion failed".to_owned(),
                last_commands: Vec::new(),
                command: "qemu -M pc".to_owned(),
            })
        }
        fn poll(&mut self) -> Result<bool> {
            Ok(false)
        }
        fn wait(&mut self, _fds: &[BorrowedFd<'_>], _deadline: Option<Nanos>) -> Result<()> {
            Ok(())
        }
        fn quit(&mut self) -> Result<()> {
            self.dead = true;
            Err(Error::machine("it died"))
        }
    }

    fn ends(end: End, by_quit: bool, outcome: Outcome) -> (Finding, Done) {
        let mut machine = Dying { end, by_quit, dead: false };
        let mut done = Done::new(Ok(()));
        match outlived(&mut machine, by_quit, outcome, &mut done) {
            Err(Stop::Failed(finding)) => (*finding, done),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_machine_that_died_is_the_finding_whatever_the_case_said() {
        let signal = || End::Signal { number: 6, name: "SIGABRT".to_owned() };
        for by_quit in [false, true] {
            let (finding, done) = ends(signal(), by_quit, Ok(()));
            assert_eq!(finding.what, MACHINE_DIED);
            assert_eq!(finding.got, "QEMU died of signal 6 (SIGABRT): assertion failed");
            assert!(done.notes.contains(&"command: qemu -M pc".to_owned()), "{:?}", done.notes);
            assert!(done.obituary.is_some());
        }
        let wrong = finding("register A", "0xff".to_owned(), Nanos(0));
        let (finding, done) = ends(signal(), false, Err(wrong));
        assert_eq!(finding.what, MACHINE_DIED);
        assert_eq!(done.notes[0], "the case found then: register A: 0xff");
        let (finding, _) = ends(End::Hung { waited_ms: 30 }, false, Ok(()));
        assert_eq!(finding.what, MACHINE_HUNG);
    }
}
