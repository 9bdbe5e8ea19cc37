//! Both machines, event by event.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::irqs::{IrqDifference, Irqs};
use crate::base::error::Place as At;
use crate::base::{BusSpace, Clock, Error, Nanos, Result};
use crate::machine::{Machine, Obituary};
use crate::replay::bus::command::{self, Command};
use crate::replay::bus::engine::{EVENTS_PER_LOOK, read, tells_of_devices, write, write_through};
use crate::replay::bus::memory::{Done, Memory};
use crate::replay::bus::options::{Pace, Plan};
use crate::replay::bus::policy::{Policy, Rules};
use crate::replay::bus::regions::{Indexes, Place, Register};
use crate::replay::bus::tally::{Answer, FIRST_KEPT, Found, Has, Tally};
use crate::report::bus::BusCounts;
use crate::trace::{
    AckEvent, BusEvent, ClockStep, Event, IrqChange, Mark, MemoryEvent, MemoryOp, Trace,
};

/// What is no region, as rules and differences call it.
const MEMORY: &str = "memory";
const INTERRUPTS: &str = "interrupts";
const ACKNOWLEDGE: &str = "acknowledge";

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

/// Why something was left out, and how often.
#[derive(Debug, Default)]
struct LeftOut {
    mmio: u64,
    requests: u64,
    memory: u64,
    interrupts: u64,
    acknowledges: u64,
}

/// A comparison under way.
pub struct Duel<'a> {
    first: &'a mut dyn Machine,
    second: &'a mut dyn Machine,
    clocks: [Arc<dyn Clock>; 2],
    trace: &'a Trace,
    pace: Pace,
    phase: Nanos,
    ports_only: bool,
    next: Nanos,
    tally: Tally,
    allowed: BTreeMap<usize, Allowed>,
    indexes: Indexes,
    irqs: Irqs,
    memory: Memory,
    done: BusCounts,
    left_out: LeftOut,
    other_checks: (u64, u64),
    waits: u64,
    waits_max: u64,
    watches: bool,
    begun: bool,
    /// By how much the machines' time is behind the recording's.
    slack: Nanos,
    stop: &'a AtomicBool,
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
            trace,
            pace: plan.pace,
            phase: plan.phase,
            ports_only: plan.ports_only,
            next: plan.phase,
            tally: Tally::new(rules, has, trace.streams()),
            allowed: BTreeMap::new(),
            indexes: Indexes::default(),
            irqs,
            memory: Memory::default(),
            done: BusCounts::default(),
            left_out: LeftOut::default(),
            other_checks: (0, 0),
            waits: 0,
            waits_max: plan.waits_max,
            watches: trace.totals().iter().any(tells_of_devices),
            begun: false,
            slack: Nanos(0),
            stop,
        })
    }

    /// Compares over everything; `progress` gets the number of the event reached. Both machines
    /// are quit then.
    ///
    /// # Errors
    /// A damaged trace, or a machine that failed and lives.
    pub fn run(mut self, progress: &mut dyn FnMut(u64)) -> Result<Outcome> {
        let mut at = 0;
        let ran = self.run_to_end(progress, &mut at);
        let died = [(Which::First, self.first.obituary()), (Which::Second, self.second.obituary())];
        let died = died.into_iter().find_map(|(which, end)| end.map(|end| (which, at, end)));
        let interrupted = match (ran, &died) {
            (Ok(interrupted), _) => interrupted,
            (Err(_), Some(_)) => false,
            (Err(error), None) => return Err(error),
        };
        let notes = self.notes();
        self.other_checks.0 += self.irqs.checks;
        let Self { tally, allowed, done, other_checks, .. } = self;
        Ok(Outcome { tally, allowed, done, other_checks, interrupted, died, notes })
    }

    fn run_to_end(&mut self, progress: &mut dyn FnMut(u64), at: &mut u64) -> Result<bool> {
        let mut cursor = self.trace.cursor(0);
        let mut interrupted = false;
        while let Some((number, event)) = cursor.next()? {
            *at = number;
            if number.is_multiple_of(EVENTS_PER_LOOK) {
                progress(number);
            }
            if self.stop.load(Ordering::Relaxed) {
                interrupted = true;
                break;
            }
            self.event(number, &event).map_err(|error| error.at(At::Event(number)))?;
        }
        let now = self.next;
        self.catch_up()?;
        self.compare_interrupts(cursor.position().saturating_sub(1), now)?;
        self.first.quit()?;
        self.second.quit()?;
        Ok(interrupted)
    }

    fn event(&mut self, number: u64, event: &Event) -> Result<()> {
        self.done.events += 1;
        if self.watches && !matches!(event, Event::Irq(_)) {
            // What came of the event before.
            self.catch_up()?;
            self.compare_interrupts(number.saturating_sub(1), event.time())?;
        }
        match event {
            Event::Bus(bus) if self.ports_only && bus.access.space == BusSpace::Mmio => {
                self.left_out.mmio += 1;
            }
            Event::Bus(bus) => self.access(number, bus)?,
            Event::Memory(memory) => self.memory(number, memory)?,
            Event::Irq(change) => self.interrupt(number, change)?,
            Event::Ack(ack) => self.acknowledge(number, ack)?,
            Event::Clock(step) => self.clock_step(step)?,
            Event::Issue(_) | Event::Complete(_) => self.left_out.requests += 1,
            Event::Mark(mark) => self.command(mark)?,
        }
        Ok(())
    }

    fn pass(&mut self, recorded: Nanos) -> Result<()> {
        let to = match self.pace {
            Pace::Recorded => self.slackened(recorded),
            Pace::Fixed(step) => self.next + step.0,
        };
        self.next = to;
        self.run_until(to)
    }

    /// The machines' time of a moment of the recording.
    fn slackened(&self, recorded: Nanos) -> Nanos {
        Nanos((self.phase + recorded.0).0.saturating_add(self.slack.0))
    }

    /// Both clocks reach `to`. The second machine, which may be another process, is told first.
    fn run_until(&mut self, to: Nanos) -> Result<()> {
        let [ours, theirs] = &self.clocks;
        if ours.now() >= to && theirs.now() >= to {
            return Ok(());
        }
        self.catch_up()?;
        // Interrupts of a step that the second machine was only told of are to be waited for.
        self.begun = self.watches;
        for side in [Which::Second, Which::First] {
            let mut steps = 0;
            while self.clock(side).now() < to {
                self.machine(side).advance(to)?;
                steps += 1;
                self.waits += u64::from(steps > 1);
                if self.waits >= self.waits_max {
                    let what = format!("a step to {to}: timers have had {} deadlines", self.waits);
                    return Err(
                        Error::input(what).hint("time=1us gives every event the same time instead")
                    );
                }
                if steps % EVENTS_PER_LOOK == 0 && self.stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn machine(&mut self, which: Which) -> &mut dyn Machine {
        match which {
            Which::First => &mut *self.first,
            Which::Second => &mut *self.second,
        }
    }

    fn clock(&self, which: Which) -> &dyn Clock {
        let [first, second] = &self.clocks;
        match which {
            Which::First => &**first,
            Which::Second => &**second,
        }
    }

    /// Has what was begun come to its end in both. I/O takes no time of either clock, so that its
    /// end is no difference of theirs.
    fn catch_up(&mut self) -> Result<()> {
        if std::mem::take(&mut self.begun) {
            for side in [Which::Second, Which::First] {
                let machine = self.machine(side);
                machine.settle()?;
                while machine.poll()? {}
            }
        }
        Ok(())
    }

    fn access(&mut self, number: u64, bus: &BusEvent) -> Result<()> {
        self.pass(bus.time)?;
        let access = &bus.access;
        let (place, region) = self.tally.locate(bus.stream, access, &mut self.indexes.functions);
        if access.write {
            self.indexes.written(access);
            // In a nameless place anything may be, disks too.
            let begins = self.tally.write(region)
                || self.watches && matches!(place, Place::Nameless(BusSpace::Mmio));
            for machine in [&mut *self.second, &mut *self.first] {
                if begins { write(machine, access)? } else { write_through(machine, access)? }
            }
            self.begun |= begins;
            self.done.writes += 1;
            return Ok(());
        }
        self.catch_up()?;
        let got = [read(self.first, access)?, read(self.second, access)?];
        let [ours, theirs] = got;
        if ours != theirs {
            self.alive()?;
        }
        self.done.reads += 1;
        self.indexes.read(access, ours);
        let register = self.indexes.register(place, access);
        let show =
            |value: u64| format!("{value:#0width$x}", width = 2 + 2 * usize::from(access.size));
        let [expected, got] = got.map(show);
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

    /// Takes note of a difference in what is no region.
    fn differs(&mut self, name: &'static str, (kind, what): (&str, String), at: Found, key: u32) {
        self.differs_by(u64::MAX, name, (kind, what), at, key);
    }

    /// As [`Duel::differs`], of two counts that are so far apart.
    fn differs_by(
        &mut self,
        apart: u64,
        name: &'static str,
        (kind, what): (&str, String),
        at: Found,
        key: u32,
    ) {
        let register = Register::Index(key);
        let rule = self.tally.rule_of_other(name, kind, register);
        let allows = |policy: Policy| match policy {
            Policy::Ignore => true,
            Policy::Near(most) => apart <= most,
            Policy::Exact | Policy::Mask(_) | Policy::Poll(_) => false,
        };
        match rule.filter(|(_, policy)| allows(*policy)) {
            Some((number, _)) => self.allow(number, format!("{name} {what}"), at),
            None => {
                self.other_checks.1 += 1;
                self.tally.differs_in(name, what, register, at);
            }
        }
    }

    fn irq_differs(&mut self, event: u64, time: Nanos, difference: IrqDifference) {
        let IrqDifference { kind, line, got: [expected, got], apart } = difference;
        let what = format!("{kind} {line:#x}");
        let found = Found { event, time, expected, got };
        self.differs_by(apart, INTERRUPTS, (&kind, what), found, line);
    }

    fn compare_levels(&mut self, event: u64, time: Nanos) -> Result<()> {
        if self.ports_only {
            return Ok(());
        }
        for difference in self.irqs.levels([&mut *self.first, &mut *self.second])? {
            self.irq_differs(event, time, difference);
        }
        Ok(())
    }

    fn compare_interrupts(&mut self, event: u64, time: Nanos) -> Result<()> {
        for difference in self.irqs.fired() {
            self.irq_differs(event, time, difference);
        }
        Ok(())
    }

    fn memory(&mut self, number: u64, event: &MemoryEvent) -> Result<()> {
        self.pass(event.time)?;
        let checks = event.op == MemoryOp::Read;
        let done = match checks {
            false => {
                self.memory.carry_out(event, self.trace, self.second)?;
                self.memory.carry_out(event, self.trace, self.first)?
            }
            // A word that a message was written to may have been taken back.
            true if self.ports_only || self.irqs.has_message_in(event.addr, event.len) => {
                Done::LeftOut
            }
            true => self.memory.compare(event, self.first, self.second)?,
        };
        match done {
            Done::LeftOut => {
                self.left_out.memory += 1;
                return Ok(());
            }
            Done::Right => {}
            Done::Different(expected, got) => {
                let found = Found { event: number, time: event.time, expected, got };
                let what = format!("{:#x}, {} bytes", event.addr, event.len);
                self.differs(MEMORY, ("", what), found, event.addr as u32);
            }
        }
        let count =
            if checks { &mut self.done.memory_checks } else { &mut self.done.memory_writes };
        *count += 1;
        self.other_checks.0 += u64::from(checks);
        Ok(())
    }

    fn interrupt(&mut self, number: u64, change: &IrqChange) -> Result<()> {
        if self.ports_only {
            self.left_out.interrupts += 1;
            return Ok(());
        }
        self.catch_up()?;
        self.done.interrupts += 1;
        match self.irqs.change(change, [&mut *self.first, &mut *self.second])? {
            None => self.left_out.interrupts += 1,
            Some(None) => {}
            Some(Some(difference)) => self.irq_differs(number, change.time, difference),
        }
        Ok(())
    }

    fn acknowledge(&mut self, number: u64, ack: &AckEvent) -> Result<()> {
        self.pass(ack.time)?;
        let Some(cpu) = u8::try_from(ack.cpu).ok().filter(|_| self.have_cpus()) else {
            self.left_out.acknowledges += 1;
            return Ok(());
        };
        let got =
            [self.first.interrupts()?.acknowledge(cpu), self.second.interrupts()?.acknowledge(cpu)];
        self.done.acknowledges += 1;
        self.other_checks.0 += 1;
        if got[0] != got[1] {
            let [expected, got] = got.map(|vector| match vector {
                Some(vector) => format!("vector {vector:#04x}"),
                None => "no interrupt".to_owned(),
            });
            let found = Found { event: number, time: ack.time, expected, got };
            self.differs(ACKNOWLEDGE, ("", format!("CPU {}", ack.cpu)), found, ack.cpu.into());
        }
        Ok(())
    }

    fn have_cpus(&self) -> bool {
        let both = self.first.capabilities() & self.second.capabilities();
        both.contains(crate::machine::Capabilities::CPU_IRQ)
    }

    fn clock_step(&mut self, step: &ClockStep) -> Result<()> {
        self.done.steps += 1;
        if step.to > step.time {
            self.slack += SLACK.0;
        }
        let to = match self.pace {
            Pace::Recorded => self.slackened(step.to),
            Pace::Fixed(_) => self.next + (step.to - step.time),
        };
        self.next = self.next.max(to);
        // A turn that takes no time is given to both when something was begun.
        self.begun = true;
        self.catch_up()?;
        self.run_until(to)
    }

    fn command(&mut self, mark: &Mark) -> Result<()> {
        match command::of(self.trace, mark)? {
            None => Ok(()),
            Some(Command::ResizeDisk { disk, bytes }) => {
                self.pass(mark.time)?;
                self.begun = true;
                self.first.resize_disk(disk, bytes)?;
                self.second.resize_disk(disk, bytes)
            }
        }
    }

    fn notes(&mut self) -> Vec<String> {
        let LeftOut { mmio, requests, memory, interrupts, acknowledges } = self.left_out;
        self.done.left_out = mmio + requests + memory + interrupts + acknowledges;
        let counts = [
            (mmio, "memory-mapped accesses left out: mmio-trace makes them"),
            (requests, "block requests left out"),
            (memory, "events of guest memory left out"),
            (interrupts, "changes of interrupts that are not watched left out"),
            (acknowledges, "acknowledge cycles left out: not both machines have a CPU's pins"),
            (self.irqs.unwatched, "changes of interrupts beyond those that can be watched"),
            (self.irqs.refused, "changes of interrupts that not both machines have"),
        ];
        let counted = counts.into_iter().filter(|(count, _)| *count > 0);
        counted.map(|(count, what)| format!("{count} {what}")).collect()
    }
}
