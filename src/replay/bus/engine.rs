//! One machine, held to the recording.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::access::{read, shown, write};
use super::interrupts::{Expected, IrqMismatch};
use super::memory::{Done, Memory};
use super::options::Plan;
use super::policy::Policy;
use super::regions::{Indexes, Register};
use super::tally::{Answer, Found, Has, Tally};
use super::walk::{self, ACKNOWLEDGE, INTERRUPTS, LeftOut, MEMORY, Walk, Walker};
use crate::base::{BusAccess, Clock, Error, Nanos, Result};
use crate::machine::{Machine, Obituary};
use crate::report::bus::BusCounts;
use crate::trace::{AckEvent, BusEvent, ClockStep, IrqChange, MemoryEvent, NotRecorded, Trace};

/// Reads of one `poll`.
const POLLS_MAX: u64 = 1024;

/// What a replay left behind.
#[derive(Debug)]
pub struct Outcome {
    /// Regions and mismatches.
    pub tally: Tally,
    /// What was done.
    pub done: BusCounts,
    /// Checks that are no reads, of which those that failed.
    pub other_checks: (u64, u64),
    /// The user stopped it.
    pub interrupted: bool,
    /// The machine came to its end: at which event, and how.
    pub died: Option<(u64, Obituary)>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// A replay under way.
pub struct Engine<'a> {
    machine: &'a mut dyn Machine,
    clock: Arc<dyn Clock>,
    walk: Walk<'a>,
    values: bool,
    tally: Tally,
    indexes: Indexes,
    expected: Expected,
    memory: Memory,
}

impl<'a> Engine<'a> {
    /// A replay of `trace` on `machine`, which must be fresh, until `stop` is raised.
    ///
    /// # Errors
    /// A trace that cannot be read.
    pub fn new(
        trace: &'a Trace,
        plan: &Plan,
        has: Has,
        machine: &'a mut dyn Machine,
        stop: &'a AtomicBool,
    ) -> Result<Self> {
        let expected = match plan.ports_only {
            true => Expected::default(),
            false => Expected::watch(trace, machine)?,
        };
        Ok(Self {
            clock: machine.clock(),
            machine,
            walk: Walk::new(trace, plan, stop),
            values: !trace.summary().not_recorded.contains(NotRecorded::READ_VALUES),
            tally: Tally::new(plan.rules.clone(), has, trace.streams()),
            indexes: Indexes::default(),
            expected,
            memory: Memory::default(),
        })
    }

    /// Replays everything; `progress` gets the number of the event reached.
    ///
    /// # Errors
    /// A damaged trace, or a machine that failed.
    pub fn run(mut self, progress: &mut dyn FnMut(u64)) -> Result<Outcome> {
        let mut at = 0;
        let ran = walk::to_end(&mut self, progress, &mut at);
        let (interrupted, died) = match (ran, self.machine.obituary()) {
            (Ok(interrupted), None) => (interrupted, None),
            (Err(error), None) => return Err(error),
            (_, Some(obituary)) => (false, Some((at, obituary))),
        };
        let notes = self.notes();
        let Self { tally, walk: Walk { done, other_checks, .. }, .. } = self;
        Ok(Outcome { tally, done, other_checks, interrupted, died, notes })
    }

    fn judge(&mut self, access: &BusAccess, got: u64, policy: Policy) -> Result<Answer> {
        if got == access.value {
            return Ok(Answer::Equal);
        }
        Ok(match policy {
            Policy::Ignore => Answer::Ignored,
            Policy::Poll(limit) if self.poll(access, limit)? => Answer::Within,
            policy if policy.allows(access.value, got, access.size) => Answer::Within,
            _ => Answer::Different,
        })
    }

    /// Reads again until the value is there, or the time is up.
    fn poll(&mut self, access: &BusAccess, limit: Nanos) -> Result<bool> {
        let start = self.clock.now();
        for turn in 1..=POLLS_MAX {
            let passed = u128::from(limit.0) * u128::from(turn) / u128::from(POLLS_MAX);
            self.run_until(start + passed as u64)?;
            if read(self.machine, access)? == access.value {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn ignores(&self, name: &'static str, kind: &str, register: Register) -> bool {
        self.tally.policy_of_other(name, kind, register) == Policy::Ignore
    }

    fn wrong_interrupt(&mut self, event: u64, time: Nanos, wrong: IrqMismatch) {
        let IrqMismatch { kind, line, expected, got } = wrong;
        let register = Register::Index(line);
        if self.ignores(INTERRUPTS, &kind, register) {
            self.walk.left_out.interrupts += 1;
            return;
        }
        self.walk.other_checks.0 += 1;
        let (expected, got) = (expected.to_owned(), got.to_owned());
        let found = Found { event, time, expected, got };
        self.differs(INTERRUPTS, (&kind, format!("{kind} {line:#x}")), register, found);
    }

    fn notes(&mut self) -> Vec<String> {
        let LeftOut { mmio, requests, memory, interrupts, .. } = self.walk.left_out;
        let mut notes = self.walk.notes(&[
            (mmio, "memory-mapped accesses left out: mmio-trace replays them"),
            (requests, "block requests left out: block-trace-virtio replays them"),
            (memory, "events of guest memory left out"),
            (interrupts, "checks of interrupts left out"),
            (self.expected.unwatched, "changes of interrupts beyond those that can be watched"),
            (self.expected.refused, "interrupt sources that the machine does not have"),
        ]);
        if !self.values {
            notes.insert(0, "the recording has no values of reads: none was checked".to_owned());
        }
        notes
    }
}

impl<'a> Walker<'a> for Engine<'a> {
    fn walk(&mut self) -> &mut Walk<'a> {
        &mut self.walk
    }

    /// Whatever fired and was not expected did so by now.
    fn before(&mut self, number: u64, time: Nanos) -> Result<()> {
        if self.expected.is_empty() {
            return Ok(());
        }
        self.catch_up()?;
        // It came of the event before.
        for wrong in self.expected.settle(self.machine)? {
            self.wrong_interrupt(number.saturating_sub(1), time, wrong);
        }
        Ok(())
    }

    fn catch_up(&mut self) -> Result<()> {
        if std::mem::take(&mut self.walk.begun) {
            self.machine.settle()?;
        }
        Ok(())
    }

    fn run_until(&mut self, to: Nanos) -> Result<()> {
        if self.clock.now() >= to {
            return Ok(());
        }
        self.catch_up()?;
        // Interrupts of a step that the machine was only told of are to be waited for, and what
        // timers do on the way is looked for: a machine may be on its way yet.
        self.walk.begun = self.walk.watches;
        self.walk.advance(self.machine, to)
    }

    fn access(&mut self, number: u64, bus: &BusEvent) -> Result<()> {
        let access = &bus.access;
        let (place, region) = self.tally.locate(bus.stream, access, &mut self.indexes.functions);
        if access.write {
            self.indexes.written(access);
            write(self.machine, access)?;
            self.walk.begun |= self.tally.write(region) || self.walk.watches;
            self.walk.done.writes += 1;
            return Ok(());
        }
        let got = read(self.machine, access)?;
        if got != access.value && self.machine.obituary().is_some() {
            return Err(Error::machine("the machine is gone"));
        }
        self.walk.done.reads += 1;
        self.indexes.read(access, got);
        if !self.values {
            return Ok(());
        }
        let register = self.indexes.register(place, access);
        let policy = self.tally.policy(region, register, access.size);
        let answer = self.judge(access, got, policy)?;
        if self.tally.read(region, answer) {
            let [expected, got] = [access.value, got].map(|value| shown(value, access.size));
            let found = Found { event: number, time: bus.time, expected, got };
            self.tally.differs(region, register, found);
        }
        Ok(())
    }

    fn memory(&mut self, event: &MemoryEvent, checks: bool) -> Result<Done> {
        if checks {
            let register = Register::Offset(event.addr);
            if self.walk.ports_only || self.ignores(MEMORY, "", register) {
                return Ok(Done::LeftOut);
            }
            self.catch_up()?;
        }
        self.memory.carry_out(event, self.walk.trace, self.machine)
    }

    fn interrupt(&mut self, number: u64, change: &IrqChange) -> Result<bool> {
        match self.expected.change(change, self.machine)? {
            None => return Ok(false),
            Some(Ok(())) => self.walk.other_checks.0 += 1,
            Some(Err(wrong)) => self.wrong_interrupt(number, change.time, wrong),
        }
        Ok(true)
    }

    fn acknowledge(&mut self, ack: &AckEvent) -> Result<Option<[Option<u8>; 2]>> {
        let got = match u8::try_from(ack.cpu) {
            Ok(cpu) => self.machine.interrupts()?.acknowledge(cpu),
            Err(_) => None,
        };
        self.walk.done.acknowledges += 1;
        let register = Register::Index(ack.cpu.into());
        if self.walk.ports_only || self.ignores(ACKNOWLEDGE, "", register) {
            self.walk.left_out.interrupts += 1;
            return Ok(None);
        }
        Ok(Some([ack.vector, got]))
    }

    fn clock_step(&mut self, step: &ClockStep) -> Result<()> {
        let to = self.walk.go_over(step);
        if to <= self.clock.now() {
            self.catch_up()?;
            self.machine.poll()?;
            return Ok(());
        }
        self.run_until(to)
    }

    fn resize_disk(&mut self, disk: usize, bytes: u64) -> Result<()> {
        self.machine.resize_disk(disk, bytes)
    }

    fn differs(
        &mut self,
        name: &'static str,
        (_, what): (&str, String),
        register: Register,
        found: Found,
    ) {
        self.walk.other_checks.1 += 1;
        self.tally.differs_in(name, what, register, found);
    }

    fn finish(&mut self, events: u64) -> Result<()> {
        // What the last event of a trace that was cut short brought about may be cut off with it.
        if self.walk.trace.truncation().is_none() {
            self.before(events, self.clock.now())?;
        }
        // What was posted is done, and the machine lives, or not: it is quit in good order.
        self.machine.quit()?;
        Ok(())
    }
}
