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

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::inflight::{Range, Ranges};
use super::pacing::{Latencies, Pacer, SPIN_NS, set_timer_slack};
use super::plan::{Job, Planner};
use super::policy::{OverlapPolicy, Window};
use super::run_log::Part;
use super::source::Source;
use crate::base::error::Place;
use crate::base::{BlockOp, Clock, Error, Nanos, Result, SECTOR_SIZE, stamp};
use crate::driver::{BlockDriver, BlockRequest, BlockStatus, Buffer, Completion, Submitted};
use crate::machine::Machine;
use crate::oracle::PlannedRequest;
use crate::trace::{Complete, Event, Issue, PayloadRef};

/// Longest single wait, so that an interrupt or a hang is seen soon.
const WAIT_NS_MAX: u64 = 100_000_000;

/// After an interrupt, requests in flight are awaited this long.
const DRAIN_NS: u64 = 2_000_000_000;

/// Events looked at before the loop comes up for air (events that issue nothing cost no request).
const EVENTS_PER_TURN: u32 = 4096;

/// The virtio-blk device identifier (virtio 1.2 §5.2.6, `VIRTIO_BLK_T_GET_ID`).
const ID_BYTES: u64 = 20;

/// An answered device request, as the accounts see it.
pub struct Answer<'a> {
    /// The token it was announced with.
    pub token: u64,
    /// What was asked.
    pub request: &'a PlannedRequest,
    /// Which part of the trace's request.
    pub part: Part,
    /// The device's answer.
    pub status: BlockStatus,
    /// The recording failed this request too.
    pub failed_in_recording: bool,
    /// When it was issued.
    pub issue: Nanos,
    /// When its answer was seen.
    pub complete: Nanos,
    /// What a read returned, where the accounts want data.
    pub data: Option<&'a [u8]>,
}

/// A request of the trace that was carried out, with all its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// The trace's operation.
    pub op: BlockOp,
    /// Bytes of its range.
    pub bytes: u64,
    /// Whether every part was answered with success.
    pub ok: bool,
    /// When its first part was issued.
    pub issue: Nanos,
    /// When its last answer was seen.
    pub complete: Nanos,
    /// When it was due, if pacing is timed.
    pub due: Option<Nanos>,
}

/// Who keeps the accounts of a run: oracle, statistics, run log.
pub trait Accounts {
    /// Whether [`Answer::data`] is wanted for reads.
    fn wants_data(&self) -> bool;
    /// A device request is about to be issued.
    fn issued(&mut self, token: u64, request: &PlannedRequest) -> Result<()>;
    /// It was answered.
    fn answered(&mut self, answer: &Answer<'_>) -> Result<()>;
    /// A request of the trace is done.
    fn done(&mut self, done: &Done);
    /// The recording's own latency of a request.
    fn recorded(&mut self, op: BlockOp, latency_ns: u64);
    /// A completion in the recording carries an error status.
    fn recorded_error(&mut self, status: u16);
    /// Now and then: this many events of all loops have been taken.
    fn progress(&mut self, events: u64);
}

/// What the engine is told to do.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// Device requests in flight at most.
    pub iodepth: usize,
    /// What happens to requests that overlap one in flight.
    pub overlap: OverlapPolicy,
    /// Which events take part.
    pub window: Window,
    /// First event of the window, where it is known to begin later than 0.
    pub first_event: u64,
    /// Passes over the window.
    pub loops: u64,
    /// Seed of stamps.
    pub seed: u64,
    /// No completion for so long while requests are in flight means that the device hangs.
    pub hang_ns: u64,
    /// Whether the recording's latencies are wanted.
    pub recorded_latencies: bool,
    /// Whether a failed request is looked up in the recording.
    pub recorded_status: bool,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Every request was answered.
    Complete,
    /// The user stopped it.
    Interrupted,
    /// The device stopped answering.
    Hung {
        /// Requests without an answer.
        in_flight: usize,
        /// The event that issued the oldest of them.
        oldest_event: u64,
        /// For how long nothing had completed.
        waited: Nanos,
    },
}

/// What a run did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// Requests of the trace carried out.
    pub requests: u64,
    /// Device requests that took.
    pub device_requests: u64,
    /// Events taken, over all loops.
    pub events: u64,
    /// First issue.
    pub started: Nanos,
    /// Last answer.
    pub finished: Nanos,
    /// Requests that were held back because they overlapped one in flight.
    pub held: u64,
    /// The time that cost, summed.
    pub held_ns: u64,
    /// Most device requests in flight at once.
    pub in_flight_max: usize,
    /// Completions the recording lost (see [`Latencies::lost`]).
    pub recorded_lost: u64,
}

/// A job under way.
#[derive(Clone, Copy)]
struct Active {
    job: Job,
    /// Sectors of the body issued so far.
    issued: u64,
    /// Whether the body (of no range) was issued.
    body_started: bool,
    step: Part,
    outstanding: u32,
    ok: bool,
    issue: Option<Nanos>,
    due: Option<Nanos>,
}

/// A device request under way.
struct Slot {
    job: u32,
    request: PlannedRequest,
    part: Part,
    bytes: usize,
    issue: Nanos,
}

/// Why nothing more can be issued just now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blocked {
    /// An answer must come first.
    Answer,
    /// The time for the next request has not come.
    Until(Nanos),
    /// The trace is used up.
    Exhausted,
    /// Nothing: other work wants a turn.
    Air,
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
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        config: EngineConfig,
        pacer: Pacer,
        source: &'a mut S,
        accounts: &'a mut A,
        planner: &'a mut Planner,
        driver: &'a mut dyn BlockDriver,
        machine: &'a mut dyn Machine,
        stop: &'a AtomicBool,
    ) -> Self {
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
            outcome: Outcome {
                end: End::Complete,
                requests: 0,
                device_requests: 0,
                events: 0,
                started: now,
                finished: now,
                held: 0,
                held_ns: 0,
                in_flight_max: 0,
                recorded_lost: 0,
            },
        }
    }

    /// Replays to the end, an interrupt, or a hang.
    ///
    /// # Errors
    /// Failures of our own: an unreadable trace, a machine that died, a full disk. What the device
    /// does wrong is told to the accounts.
    pub fn run(mut self) -> Result<Outcome> {
        set_timer_slack();
        self.now = self.clock.now();
        self.outcome.started = self.now;
        self.outcome.finished = self.now;
        let end = self.turn_until_end();
        self.outcome.recorded_lost = self.latencies.lost;
        self.outcome.end = end?;
        Ok(self.outcome)
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

    /// Issues everything that may be issued now.
    fn fill(&mut self) -> Result<Blocked> {
        for _ in 0..EVENTS_PER_TURN {
            while let Some(&job) = self.ready.front() {
                if !self.advance(job)? {
                    return Ok(Blocked::Answer);
                }
                self.ready.pop_front();
            }
            if let Some(job) = self.pending.take() {
                if let Some(blocked) = self.start(job)? {
                    self.pending = Some(job);
                    return Ok(blocked);
                }
                continue;
            }
            if self.awaited.is_some() {
                return Ok(Blocked::Answer);
            }
            if self.exhausted {
                return Ok(Blocked::Exhausted);
            }
            self.take_event()?;
        }
        Ok(Blocked::Air)
    }

    /// The next event of the trace becomes the pending job, a completion to await, or nothing.
    fn take_event(&mut self) -> Result<()> {
        let Some((number, event)) = self.source.next()? else {
            self.next_loop();
            return Ok(());
        };
        match self.config.window.place(number, event.time()) {
            std::cmp::Ordering::Less => return Ok(()),
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Greater => {
                self.next_loop();
                return Ok(());
            }
        }
        self.outcome.events += 1;
        match event {
            Event::Issue(issue) => self.take_issue(number, &issue)?,
            Event::Complete(complete) => self.take_complete(&complete),
            Event::Mark(_) => {}
        }
        Ok(())
    }

    fn take_issue(&mut self, number: u64, issue: &Issue) -> Result<()> {
        let base = self.loop_number.saturating_mul(self.source.events());
        self.pending = self.planner.plan(number, base.saturating_add(number), issue)?;
        if self.pending.is_some() {
            self.loop_jobs += 1;
            if self.config.recorded_latencies && self.loop_number == 0 {
                self.latencies.issued(issue);
            }
        }
        Ok(())
    }

    fn take_complete(&mut self, complete: &Complete) {
        if !self.planner.selects(complete.stream) {
            return;
        }
        if self.loop_number == 0 {
            if complete.status != 0 {
                self.accounts.recorded_error(complete.status);
            }
            if self.config.recorded_latencies
                && let Some((op, latency)) =
                    self.latencies.completed(complete.stream, complete.tag, complete.time)
            {
                self.accounts.recorded(op, latency);
            }
        }
        if let Some(closed) = &self.pacer.closed {
            self.awaited = closed.awaited(complete.stream, complete.tag);
        }
    }

    fn next_loop(&mut self) {
        self.loop_number += 1;
        // A window without requests stays so, however often it is passed.
        if self.loop_number >= self.config.loops || self.loop_jobs == 0 {
            self.exhausted = true;
            return;
        }
        self.loop_jobs = 0;
        self.source.seek(self.config.first_event);
        if let Some(schedule) = &mut self.pacer.schedule {
            schedule.next_loop();
        }
    }

    /// Starts a job, or says what it waits for.
    fn start(&mut self, job: Job) -> Result<Option<Blocked>> {
        if let Some(schedule) = &mut self.pacer.schedule {
            self.now = self.clock.now();
            let due = *self.due.get_or_insert_with(|| schedule.due(job.time, self.now));
            if due > self.now {
                return Ok(Some(Blocked::Until(due)));
            }
        }
        if self.slots_free.is_empty() {
            return Ok(Some(Blocked::Answer));
        }
        let range = Range {
            start: job.request.sector,
            end: job.request.sector.saturating_add(job.request.sectors),
            writer: job.request.op.changes_content(),
        };
        if self.config.overlap == OverlapPolicy::Hold && self.ranges.conflicts(range) {
            self.held_since.get_or_insert(self.now);
            return Ok(Some(Blocked::Answer));
        }
        let Some(index) = self.jobs_free.pop() else {
            return Ok(Some(Blocked::Answer));
        };
        if let Some(since) = self.held_since.take() {
            self.outcome.held += 1;
            self.outcome.held_ns = self.outcome.held_ns.saturating_add(self.now - since);
        }
        self.ranges.insert(index as usize, range);
        if let Some(closed) = &mut self.pacer.closed {
            closed.issued(job.stream, job.tag, index);
        }
        let step = if job.pre_flush { Part::FlushBefore } else { Part::Body };
        let active = Active {
            job,
            issued: 0,
            body_started: false,
            step,
            outstanding: 0,
            ok: true,
            issue: None,
            due: self.due.take(),
        };
        if let Some(entry) = self.jobs.get_mut(index as usize) {
            *entry = Some(active);
        }
        if !self.advance(index)? {
            self.ready.push_back(index);
        }
        Ok(None)
    }

    /// Issues as much of a job's present step as there is room for; whether that was all of it.
    fn advance(&mut self, index: u32) -> Result<bool> {
        loop {
            let Some(active) = self.active(index) else {
                return Ok(true);
            };
            let Some((device, request)) = next_part(active) else {
                return Ok(true);
            };
            let (part, queue) = (active.step, active.job.queue);
            if !self.issue(index, part, queue, device, request)? {
                return Ok(false);
            }
            let now = self.now;
            if let Some(active) = self.jobs.get_mut(index as usize).and_then(Option::as_mut) {
                active.issued += if part == Part::Body { request.sectors } else { 0 };
                active.body_started = true;
                active.outstanding += 1;
                active.issue.get_or_insert(now);
            }
        }
    }

    fn active(&self, index: u32) -> Option<&Active> {
        self.jobs.get(index as usize).and_then(Option::as_ref)
    }

    /// Puts one device request on its ring; `false` when there is no room now.
    fn issue(
        &mut self,
        job: u32,
        part: Part,
        queue: u16,
        device: BlockOp,
        request: PlannedRequest,
    ) -> Result<bool> {
        let Some(&slot) = self.slots_free.last() else {
            return Ok(false);
        };
        let bytes = match device {
            BlockOp::Read | BlockOp::Write => request.sectors.saturating_mul(SECTOR_SIZE),
            BlockOp::GetId => ID_BYTES,
            _ => 0,
        };
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let buffer = match self.prepare(device, &request, bytes) {
            Ok(Some(buffer)) => buffer,
            Ok(None) => return self.no_room("guest RAM holds no buffer", bytes),
            Err(error) => return Err(error.at(Place::Event(request.event))),
        };
        let wire = BlockRequest {
            op: device,
            sector: request.sector,
            sectors: u32::try_from(request.sectors).unwrap_or(u32::MAX),
            unmap: request.unmap,
        };
        match self.driver.submit(queue, u64::from(slot), &wire, buffer)? {
            Submitted::Full(buffer) => {
                if let Some(buffer) = buffer {
                    self.driver.release(buffer);
                }
                return self.no_room("the ring is full", bytes);
            }
            Submitted::Queued => {}
        }
        self.accounts.issued(u64::from(slot), &request)?;
        if self.in_flight() == 0 {
            self.alive_at = self.now;
        }
        self.slots_free.pop();
        if let Some(entry) = self.slots.get_mut(slot as usize) {
            *entry = Some(Slot { job, request, part, bytes, issue: self.now });
        }
        self.kick = true;
        self.outcome.device_requests += 1;
        self.outcome.in_flight_max = self.outcome.in_flight_max.max(self.in_flight());
        Ok(true)
    }

    /// No room is fine while answers are to come, which make room.
    fn no_room(&self, what: &str, bytes: usize) -> Result<bool> {
        if self.in_flight() > 0 {
            return Ok(false);
        }
        let what = format!("{what} for a request of {bytes} bytes, with nothing in flight");
        Err(Error::machine(what)
            .hint("ram= gives the guest more memory, transfer_max= cuts requests"))
    }

    /// The buffer of a request, filled. `Ok(None)`: no memory now; `Ok(Some(None))`: none needed.
    fn prepare(
        &mut self,
        device: BlockOp,
        request: &PlannedRequest,
        bytes: usize,
    ) -> Result<Option<Option<Buffer>>> {
        if bytes == 0 {
            return Ok(Some(None));
        }
        let Some(mut buffer) = self.driver.buffer(bytes) else {
            return Ok(None);
        };
        let memory = self.driver.bytes_mut(&mut buffer);
        let Some(memory) = memory.get_mut(..bytes) else {
            return Err(Error::machine(format!("a buffer of fewer than {bytes} bytes")));
        };
        match (device, request.op, request.payload) {
            (BlockOp::Write, BlockOp::WriteZeroes, _) => memory.fill(0),
            (BlockOp::Write, _, PayloadRef::Absent) => {
                stamp::fill(memory, self.config.seed, request.sector, request.write);
            }
            (BlockOp::Write, _, payload) => {
                let (total, from) = (request.payload_total, request.payload_from);
                self.source.payload(payload, total, from, memory)?;
            }
            _ if self.accounts.wants_data() => poison(memory),
            _ => {}
        }
        Ok(Some(Some(buffer)))
    }

    fn kick(&mut self) -> Result<()> {
        if std::mem::take(&mut self.kick) { self.driver.kick(self.machine) } else { Ok(()) }
    }

    /// Takes the answers that are there; how many there were.
    fn reap(&mut self) -> Result<usize> {
        if self.in_flight() == 0 {
            return Ok(0);
        }
        self.machine.poll()?;
        let mut done = std::mem::take(&mut self.done);
        self.driver.reap(self.machine, &mut done)?;
        let count = done.len();
        if count > 0 {
            self.now = self.clock.now();
            self.outcome.finished = self.now;
            self.alive_at = self.now;
        }
        for completion in done.drain(..) {
            self.complete(completion)?;
        }
        self.done = done;
        Ok(count)
    }

    fn complete(&mut self, completion: Completion) -> Result<()> {
        let token = completion.token;
        let slot = usize::try_from(token).ok().and_then(|at| self.slots.get_mut(at));
        let Some(slot) = slot.and_then(Option::take) else {
            return Err(Error::machine(format!(
                "an answer to request {token}, which is not in flight"
            )));
        };
        self.slots_free.push(token as u32);
        let ok = completion.status == BlockStatus::Ok;
        let failed_in_recording = !ok && self.failed_in_recording(&slot)?;
        let data = match &completion.buffer {
            Some(buffer) if slot.request.op == BlockOp::Read && self.accounts.wants_data() => {
                self.driver.bytes(buffer).get(..slot.bytes)
            }
            _ => None,
        };
        self.accounts.answered(&Answer {
            token,
            request: &slot.request,
            part: slot.part,
            status: completion.status,
            failed_in_recording,
            issue: slot.issue,
            complete: self.now,
            data,
        })?;
        if let Some(buffer) = completion.buffer {
            self.driver.release(buffer);
        }
        self.part_done(slot.job, ok);
        Ok(())
    }

    fn failed_in_recording(&mut self, slot: &Slot) -> Result<bool> {
        if !self.config.recorded_status {
            return Ok(false);
        }
        let status = self.source.recorded_status(slot.request.event)?;
        Ok(status.is_some_and(|status| status != 0))
    }

    /// A part of a job was answered: the next step, or the job's end.
    fn part_done(&mut self, index: u32, ok: bool) {
        let Some(active) = self.jobs.get_mut(index as usize).and_then(Option::as_mut) else {
            return;
        };
        active.outstanding = active.outstanding.saturating_sub(1);
        active.ok &= ok;
        if active.outstanding > 0 || next_part(active).is_some() {
            // Parts are under way, or stand in the ready list.
            return;
        }
        let job = active.job;
        let next = match active.step {
            Part::FlushBefore if job.has_body() => Some(Part::Body),
            Part::Body if job.post_flush && active.ok => Some(Part::FlushAfter),
            _ => None,
        };
        if let Some(step) = next {
            active.step = step;
            active.body_started = false;
            self.ready.push_back(index);
            return;
        }
        self.finish(index);
    }

    fn finish(&mut self, index: u32) {
        let Some(active) = self.jobs.get_mut(index as usize).and_then(Option::take) else {
            return;
        };
        let job = active.job;
        self.ranges.remove(index as usize);
        self.jobs_free.push(index);
        if let Some(closed) = &mut self.pacer.closed {
            closed.finished(job.stream, job.tag, index);
        }
        if self.awaited == Some(index) {
            self.awaited = None;
        }
        self.outcome.requests += 1;
        self.accounts.done(&Done {
            op: job.request.op,
            bytes: job.request.sectors.saturating_mul(SECTOR_SIZE),
            ok: active.ok,
            issue: active.issue.unwrap_or(self.now),
            complete: self.now,
            due: active.due,
        });
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
        let oldest = self.slots.iter().flatten().map(|slot| (slot.issue, slot.request.event)).min();
        Ok(Some(End::Hung {
            in_flight: self.in_flight(),
            oldest_event: oldest.map_or(0, |(_, event)| event),
            waited: Nanos(waited),
        }))
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

/// The next device request of a job's present step, if it has one that was not issued yet: the
/// operation for the device, and what it means.
fn next_part(active: &Active) -> Option<(BlockOp, PlannedRequest)> {
    let job = &active.job;
    let whole = job.request;
    if active.step != Part::Body {
        let flush = PlannedRequest {
            op: BlockOp::Flush,
            sector: 0,
            sectors: 0,
            payload: PayloadRef::Absent,
            unmap: false,
            ..whole
        };
        return (!active.body_started).then_some((BlockOp::Flush, flush));
    }
    if !whole.op.has_range() {
        return (!active.body_started).then_some((job.device_op, whole));
    }
    let left = whole.sectors.saturating_sub(active.issued);
    let piece = PlannedRequest {
        sector: whole.sector + active.issued,
        sectors: left.min(job.piece_sectors),
        payload_from: whole.payload_from + active.issued * SECTOR_SIZE,
        ..whole
    };
    (piece.sectors > 0).then_some((job.device_op, piece))
}

/// Marks each sector of a read's buffer, so that what an earlier request left in it is never taken
/// for an answer that the device did not give.
fn poison(memory: &mut [u8]) {
    const POISON: [u8; 8] = [0xa5, 0x5a, 0xde, 0xad, 0xa5, 0x5a, 0xde, 0xad];
    for sector in memory.chunks_mut(SECTOR_SIZE as usize) {
        if let Some(first) = sector.first_chunk_mut() {
            *first = POISON;
        }
        if let Some(last) = sector.last_chunk_mut() {
            *last = POISON;
        }
    }
}
