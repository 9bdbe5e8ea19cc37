//! The test thread's loop: take events, issue what is due and free to go, reap, check, repeat.
//!
//! An event becomes a [`Job`]; a job becomes one device request or several (pieces, flushes), each
//! in a *slot*. At most `iodepth` slots are in flight. A job enters its range into [`Ranges`] when
//! it starts and leaves it when its last part is answered, so a write that still waits for its
//! PREFLUSH already holds back what overlaps it.
//!
//! Everything per request lives in arrays made once; the loop allocates nothing and, at full
//! speed, reads the clock twice a batch: before the requests of a batch are handed over, and after
//! their answers were taken. A latency is therefore that of the batch the request travelled in,
//! which is what a guest's driver that submits and reaps in batches sees too. When pacing is
//! timed, the clock is read for each request.
//!
//! - `take`: events become jobs; `issue`: jobs become device requests; `answer`: and are finished.

mod answer;
mod issue;
mod take;
mod types;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::inflight::Ranges;
use super::pacing::{Latencies, Pacer, SPIN_NS, set_timer_slack};
use super::plan::{Job, Planner};
use super::source::Source;
use crate::base::{Clock, Error, Nanos, Result};
use crate::driver::{BlockDriver, Completion};
use crate::machine::Machine;
pub use types::{Accounts, Answer, Done, End, EngineConfig, Outcome};
use types::{Active, Blocked, Slot};

/// Longest single wait, so that an interrupt or a hang is seen soon.
const WAIT_NS_MAX: u64 = 100_000_000;

/// After an interrupt, requests in flight are awaited this long.
const DRAIN_NS: u64 = 2_000_000_000;

/// What the engine works with.
pub struct Parts<'a, S, A> {
    /// Gives the events.
    pub source: &'a mut S,
    /// Are told of everything.
    pub accounts: &'a mut A,
    /// Makes jobs of issues.
    pub planner: &'a mut Planner,
    /// The device, as its driver offers it.
    pub driver: &'a mut dyn BlockDriver,
    /// What the device is part of.
    pub machine: &'a mut dyn Machine,
    /// Raised by whoever wants it to end.
    pub stop: &'a AtomicBool,
}

/// A replay under way.
pub struct Engine<'a, S, A> {
    config: EngineConfig,
    source: &'a mut S,
    accounts: &'a mut A,
    planner: &'a mut Planner,
    driver: &'a mut dyn BlockDriver,
    machine: &'a mut dyn Machine,
    clock: Arc<dyn Clock>,
    stop: &'a AtomicBool,
    pacer: Pacer,
    latencies: Latencies,
    ranges: Ranges,
    jobs: Vec<Option<Active>>,
    jobs_free: Vec<u32>,
    slots: Vec<Option<Slot>>,
    slots_free: Vec<u32>,
    /// Jobs with parts still to issue, oldest first.
    ready: VecDeque<u32>,
    /// The next job of the trace, when it cannot start yet.
    pending: Option<Job>,
    held_since: Option<Nanos>,
    due: Option<Nanos>,
    /// Closed pacing: the job whose completion the trace waits for.
    awaited: Option<u32>,
    done: Vec<Completion>,
    loop_number: u64,
    loop_jobs: u64,
    exhausted: bool,
    kick: bool,
    now: Nanos,
    /// The hang guard counts from here: the last answer, or the first issue after idleness.
    alive_at: Nanos,
    progress_at: Nanos,
    outcome: Outcome,
}

impl<'a, S: Source, A: Accounts> Engine<'a, S, A> {
    /// Everything made ready; nothing is issued yet.
    pub fn new(config: EngineConfig, pacer: Pacer, parts: Parts<'a, S, A>) -> Self {
        let Parts { source, accounts, planner, driver, machine, stop } = parts;
        let limits = driver.limits();
        let ring = limits.depth_max.max(1).saturating_mul(usize::from(limits.queues.max(1)));
        let depth = config.iodepth.clamp(1, ring);
        let clock = machine.clock();
        let now = clock.now();
        let free = || (0..depth as u32).rev().collect::<Vec<_>>();
        source.seek(config.first_event);
        Self {
            config,
            source,
            accounts,
            planner,
            driver,
            machine,
            clock,
            stop,
            pacer,
            latencies: Latencies::default(),
            ranges: Ranges::new(depth),
            jobs: vec![None; depth],
            jobs_free: free(),
            slots: (0..depth).map(|_| None).collect(),
            slots_free: free(),
            ready: VecDeque::with_capacity(depth),
            pending: None,
            held_since: None,
            due: None,
            awaited: None,
            done: Vec::with_capacity(depth),
            loop_number: 0,
            loop_jobs: 0,
            exhausted: false,
            kick: false,
            now,
            alive_at: now,
            progress_at: now,
            outcome: Outcome::nothing(End::Complete, now),
        }
    }

    /// Replays to the end, an interrupt, or a hang.
    ///
    /// # Errors
    /// Failures of our own: an unreadable trace, a machine that died, a full disk. What the device
    /// does wrong is told to the accounts.
    pub fn run(self) -> Result<Outcome> {
        match self.run_out() {
            (outcome, None) => Ok(outcome),
            (_, Some(error)) => Err(error),
        }
    }

    /// As [`Engine::run`], with what was done until a failure beside it.
    pub fn run_out(mut self) -> (Outcome, Option<Error>) {
        set_timer_slack();
        self.now = self.clock.now();
        self.outcome.started = self.now;
        self.outcome.finished = self.now;
        let end = self.turn_until_end();
        self.outcome.recorded_lost = self.latencies.lost;
        let (end, error) = match end {
            Ok(end) => (end, None),
            Err(error) => {
                let (in_flight, oldest_event) = (self.in_flight(), self.oldest_event());
                (End::Failed { in_flight, oldest_event }, Some(error))
            }
        };
        self.outcome.end = end;
        (self.outcome, error)
    }

    fn turn_until_end(&mut self) -> Result<End> {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                self.drain()?;
                return Ok(End::Interrupted);
            }
            self.now = self.clock.now();
            self.report_progress();
            let blocked = self.fill()?;
            self.kick()?;
            let reaped = self.reap()?;
            if blocked == Blocked::Exhausted && self.in_flight() == 0 && self.ready.is_empty() {
                return Ok(End::Complete);
            }
            if reaped == 0 && blocked != Blocked::Air {
                self.wait(blocked)?;
                if let Some(end) = self.hung()? {
                    return Ok(end);
                }
            }
        }
    }

    fn in_flight(&self) -> usize {
        self.slots.len() - self.slots_free.len()
    }

    fn kick(&mut self) -> Result<()> {
        if std::mem::take(&mut self.kick) { self.driver.kick(self.machine) } else { Ok(()) }
    }

    /// Waits for what [`Engine::fill`] was blocked by. Just before a deadline it returns at once:
    /// the loop then polls.
    fn wait(&mut self, blocked: Blocked) -> Result<()> {
        let mut deadline = self.now + WAIT_NS_MAX;
        let is_virtual = self.clock.is_virtual();
        if is_virtual {
            deadline = self.alive_at + self.config.hang_ns;
        }
        if let Blocked::Until(due) = blocked {
            let wake = if is_virtual { due } else { Nanos(due.0.saturating_sub(SPIN_NS)) };
            if wake <= self.now {
                return Ok(());
            }
            deadline = if self.in_flight() == 0 && is_virtual { wake } else { deadline.min(wake) };
        }
        self.driver.wait(self.machine, Some(deadline))
    }

    fn hung(&mut self) -> Result<Option<End>> {
        let waited = self.clock.now() - self.alive_at;
        if self.in_flight() == 0 || waited < self.config.hang_ns {
            return Ok(None);
        }
        // An answer may have come with the last wait.
        if self.reap()? > 0 {
            return Ok(None);
        }
        Ok(Some(End::Hung {
            in_flight: self.in_flight(),
            oldest_event: self.oldest_event().unwrap_or(0),
            waited: Nanos(waited),
        }))
    }

    /// The event of the request that is in flight for longest.
    fn oldest_event(&self) -> Option<u64> {
        let slots = self.slots.iter().flatten();
        slots.map(|slot| (slot.issue, slot.request.event)).min().map(|(_, event)| event)
    }

    /// After an interrupt: takes the answers that come soon, issues nothing.
    fn drain(&mut self) -> Result<()> {
        self.kick()?;
        let give_up = self.clock.now() + DRAIN_NS.min(self.config.hang_ns);
        while self.in_flight() > 0 {
            if self.reap()? == 0 {
                let now = self.clock.now();
                if now >= give_up {
                    break;
                }
                let soon = give_up.min(now + WAIT_NS_MAX);
                self.driver.wait(self.machine, Some(soon))?;
            }
        }
        Ok(())
    }

    fn report_progress(&mut self) {
        if self.now - self.progress_at >= WAIT_NS_MAX {
            self.progress_at = self.now;
            self.accounts.progress(self.outcome.events);
        }
    }
}
