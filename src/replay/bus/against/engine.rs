//! Both machines, event by event.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::irqs::{IrqDifference, Irqs};
use crate::base::{BusSpace, Clock, Error, Nanos, Result};
use crate::machine::{Capabilities, Machine, Obituary};
use crate::replay::bus::access::{read, shown, write, write_through};
use crate::replay::bus::memory::{Done, Memory};
use crate::replay::bus::options::Plan;
use crate::replay::bus::policy::{Policy, Rules};
use crate::replay::bus::regions::{Indexes, Place, Register};
use crate::replay::bus::tally::{Answer, FIRST_KEPT, Found, Has, Tally};
use crate::replay::bus::walk::{self, INTERRUPTS, LeftOut, Walk, Walker};
use crate::report::bus::BusCounts;
use crate::trace::{AckEvent, BusEvent, ClockStep, IrqChange, MemoryEvent, Trace};

/// How much longer a step of the clock takes than the recording's, which often ends at a device's
/// deadline to the nanosecond: machines round such a moment to a tick of their own, the slowest of
/// those that matter being the 8254's CLK of 838 ns. Both machines get the same.
const SLACK: Nanos = Nanos(1_000);

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The first.
    First,
    /// The second.
    Second,
}

/// Differences that a rule allows.
#[derive(Debug, Default)]
pub struct Allowed {
    /// How many.
    pub count: u64,
    /// The first ones, each with the name of what it is of.
    pub first: Vec<(String, Found)>,
}

/// What a comparison left behind.
#[derive(Debug)]
pub struct Outcome {
    /// Regions and differences.
    pub tally: Tally,
    /// What was allowed, by number of the rule.
    pub allowed: BTreeMap<usize, Allowed>,
    /// What was done.
    pub done: BusCounts,
    /// Comparisons that are no reads, of which those that differed.
    pub other_checks: (u64, u64),
    /// The user stopped it.
    pub interrupted: bool,
    /// A machine came to its end: which, at which event, and how.
    pub died: Option<(Which, u64, Obituary)>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// A comparison under way.
pub struct Duel<'a> {
    first: &'a mut dyn Machine,
    second: &'a mut dyn Machine,
    clocks: [Arc<dyn Clock>; 2],
    walk: Walk<'a>,
    tally: Tally,
    allowed: BTreeMap<usize, Allowed>,
    indexes: Indexes,
    irqs: Irqs,
    memory: Memory,
}

impl<'a> Duel<'a> {
    /// A comparison over `trace` of two machines, which must be fresh, until `stop` is raised.
    ///
    /// # Errors
    /// A trace that cannot be read.
    pub fn new(
        trace: &'a Trace,
        (plan, rules, has): (&Plan, Rules, Has),
        [first, second]: [&'a mut dyn Machine; 2],
        stop: &'a AtomicBool,
    ) -> Result<Self> {
        let irqs = match plan.ports_only {
            true => Irqs::default(),
            false => Irqs::watch(trace, has.others, [&mut *first, &mut *second])?,
        };
        Ok(Self {
            clocks: [first.clock(), second.clock()],
            first,
            second,
            walk: Walk::new(trace, plan, stop),
            tally: Tally::new(rules, has, trace.streams()),
            allowed: BTreeMap::new(),
            indexes: Indexes::default(),
            irqs,
            memory: Memory::default(),
        })
    }

    /// Compares over everything; `progress` gets the number of the event reached. Both machines
    /// are quit then.
    ///
    /// # Errors
    /// A damaged trace, or a machine that failed and lives.
    pub fn run(mut self, progress: &mut dyn FnMut(u64)) -> Result<Outcome> {
        let mut at = 0;
        let ran = walk::to_end(&mut self, progress, &mut at);
        let died = [(Which::First, self.first.obituary()), (Which::Second, self.second.obituary())];
        let died = died.into_iter().find_map(|(which, end)| end.map(|end| (which, at, end)));
        let interrupted = match (ran, &died) {
            (Ok(interrupted), _) => interrupted,
            (Err(_), Some(_)) => false,
            (Err(error), None) => return Err(error),
        };
        let notes = self.notes();
        let Self { tally, allowed, irqs, walk: Walk { done, mut other_checks, .. }, .. } = self;
        other_checks.0 += irqs.checks;
        Ok(Outcome { tally, allowed, done, other_checks, interrupted, died, notes })
    }

    fn allow(&mut self, number: usize, what: String, found: Found) {
        let allowed = self.allowed.entry(number).or_default();
        allowed.count += 1;
        if allowed.first.len() < FIRST_KEPT {
            allowed.first.push((what, found));
        }
    }

    /// An error when a machine is gone: what it seemed to answer is nothing.
    fn alive(&self) -> Result<()> {
        match self.first.obituary().is_some() || self.second.obituary().is_some() {
            true => Err(Error::machine("the machine is gone")),
            false => Ok(()),
        }
    }

    /// As [`Walker::differs`], of two counts that are so far apart.
    fn differs_by(
        &mut self,
        apart: u64,
        name: &'static str,
        (kind, what): (&str, String),
        register: Register,
        found: Found,
    ) {
        let rule = self.tally.rule_of_other(name, kind, register);
        let allows = |policy: Policy| match policy {
            Policy::Ignore => true,
            Policy::Near(most) => apart <= most,
            Policy::Exact | Policy::Mask(_) | Policy::Poll(_) => false,
        };
        match rule.filter(|(_, policy)| allows(*policy)) {
            Some((number, _)) => self.allow(number, format!("{name} {what}"), found),
            None => {
                self.walk.other_checks.1 += 1;
                self.tally.differs_in(name, what, register, found);
            }
        }
    }

    fn irq_differs(&mut self, event: u64, time: Nanos, difference: IrqDifference) {
        let IrqDifference { kind, line, got: [expected, got], apart } = difference;
        let what = format!("{kind} {line:#x}");
        let found = Found { event, time, expected, got };
        self.differs_by(apart, INTERRUPTS, (&kind, what), Register::Index(line), found);
    }

    fn compare_levels(&mut self, event: u64, time: Nanos) -> Result<()> {
        if self.walk.ports_only {
            return Ok(());
        }
        for difference in self.irqs.levels([&mut *self.first, &mut *self.second])? {
            self.irq_differs(event, time, difference);
        }
        Ok(())
    }

    fn compare_interrupts(&mut self, event: u64, time: Nanos) {
        for difference in self.irqs.fired() {
            self.irq_differs(event, time, difference);
        }
    }

    fn have_cpus(&self) -> bool {
        let both = self.first.capabilities() & self.second.capabilities();
        both.contains(Capabilities::CPU_IRQ)
    }

    fn notes(&mut self) -> Vec<String> {
        let LeftOut { mmio, requests, memory, interrupts, acknowledges } = self.walk.left_out;
        self.walk.notes(&[
            (mmio, "memory-mapped accesses left out: mmio-trace makes them"),
            (requests, "block requests left out"),
            (memory, "events of guest memory left out"),
            (interrupts, "changes of interrupts that are not watched left out"),
            (acknowledges, "acknowledge cycles left out: not both machines have a CPU's pins"),
            (self.irqs.unwatched, "changes of interrupts beyond those that can be watched"),
            (self.irqs.refused, "changes of interrupts that not both machines have"),
        ])
    }
}

impl<'a> Walker<'a> for Duel<'a> {
    fn walk(&mut self) -> &mut Walk<'a> {
        &mut self.walk
    }

    fn before(&mut self, number: u64, time: Nanos) -> Result<()> {
        if self.walk.watches {
            self.catch_up()?;
            self.compare_interrupts(number.saturating_sub(1), time);
        }
        Ok(())
    }

    /// I/O takes no time of either clock, so that its end is no difference of theirs.
    fn catch_up(&mut self) -> Result<()> {
        if std::mem::take(&mut self.walk.begun) {
            for machine in [&mut *self.second, &mut *self.first] {
                machine.settle()?;
                while machine.poll()? {}
            }
        }
        Ok(())
    }

    /// The second machine, which may be another process, is told first.
    fn run_until(&mut self, to: Nanos) -> Result<()> {
        let [ours, theirs] = &self.clocks;
        let behind = [theirs.now() < to, ours.now() < to];
        if behind == [false, false] {
            return Ok(());
        }
        self.catch_up()?;
        // Interrupts of a step that the second machine was only told of are to be waited for.
        self.walk.begun = self.walk.watches;
        for (machine, behind) in [&mut *self.second, &mut *self.first].into_iter().zip(behind) {
            if behind {
                self.walk.advance(machine, to)?;
            }
        }
        Ok(())
    }

    fn access(&mut self, number: u64, bus: &BusEvent) -> Result<()> {
        let access = &bus.access;
        let (place, region) = self.tally.locate(bus.stream, access, &mut self.indexes.functions);
        if access.write {
            self.indexes.written(access);
            // In a nameless place anything may be, disks too.
            let begins = self.tally.write(region)
                || self.walk.watches && matches!(place, Place::Nameless(BusSpace::Mmio));
            for machine in [&mut *self.second, &mut *self.first] {
                if begins { write(machine, access)? } else { write_through(machine, access)? }
            }
            self.walk.begun |= begins;
            self.walk.done.writes += 1;
            return Ok(());
        }
        self.catch_up()?;
        let [ours, theirs] = [read(self.first, access)?, read(self.second, access)?];
        if ours != theirs {
            self.alive()?;
        }
        self.walk.done.reads += 1;
        self.indexes.read(access, ours);
        let register = self.indexes.register(place, access);
        let [expected, got] = [ours, theirs].map(|value| shown(value, access.size));
        let found = Found { event: number, time: bus.time, expected, got };
        let rule = self.tally.rule(region, register, access.size);
        let rule = rule.map(|rule| (rule.number(), rule.policy()));
        let answer = match rule {
            _ if ours == theirs => Answer::Equal,
            Some((_, Policy::Ignore)) => Answer::Ignored,
            Some((_, policy)) if policy.allows(ours, theirs, access.size) => Answer::Within,
            _ => Answer::Different,
        };
        if let (Answer::Ignored | Answer::Within, Some((number, _))) = (answer, rule) {
            let what = format!("{} {register}", self.tally.name(region));
            self.allow(number, what, found);
            self.tally.read(region, answer);
        } else if self.tally.read(region, answer) {
            self.tally.differs(region, register, found);
        }
        // The answer to a read is behind everything that came before it.
        self.compare_levels(number, bus.time)
    }

    fn memory(&mut self, event: &MemoryEvent, checks: bool) -> Result<Done> {
        if !checks {
            self.memory.carry_out(event, self.walk.trace, self.second)?;
            return self.memory.carry_out(event, self.walk.trace, self.first);
        }
        // A word that a message was written to may have been taken back.
        if self.walk.ports_only || self.irqs.has_message_in(event.addr, event.len) {
            return Ok(Done::LeftOut);
        }
        self.memory.compare(event, self.first, self.second)
    }

    fn interrupt(&mut self, number: u64, change: &IrqChange) -> Result<bool> {
        match self.irqs.change(change, [&mut *self.first, &mut *self.second])? {
            None => return Ok(false),
            Some(None) => {}
            Some(Some(difference)) => self.irq_differs(number, change.time, difference),
        }
        Ok(true)
    }

    fn acknowledge(&mut self, ack: &AckEvent) -> Result<Option<[Option<u8>; 2]>> {
        let Some(cpu) = u8::try_from(ack.cpu).ok().filter(|_| self.have_cpus()) else {
            self.walk.left_out.acknowledges += 1;
            return Ok(None);
        };
        self.walk.done.acknowledges += 1;
        Ok(Some([
            self.first.interrupts()?.acknowledge(cpu),
            self.second.interrupts()?.acknowledge(cpu),
        ]))
    }

    fn clock_step(&mut self, step: &ClockStep) -> Result<()> {
        if step.to > step.time {
            self.walk.fall_behind(SLACK);
        }
        let to = self.walk.go_over(step);
        // A turn that takes no time is given to both when something was begun.
        self.walk.begun = true;
        self.catch_up()?;
        self.run_until(to)
    }

    fn resize_disk(&mut self, disk: usize, bytes: u64) -> Result<()> {
        self.walk.begun = true;
        self.first.resize_disk(disk, bytes)?;
        self.second.resize_disk(disk, bytes)
    }

    fn differs(
        &mut self,
        name: &'static str,
        of: (&str, String),
        register: Register,
        found: Found,
    ) {
        self.differs_by(u64::MAX, name, of, register, found);
    }

    fn finish(&mut self, events: u64) -> Result<()> {
        let now = self.walk.now();
        self.catch_up()?;
        self.compare_interrupts(events.saturating_sub(1), now);
        self.first.quit()?;
        self.second.quit()
    }
}
