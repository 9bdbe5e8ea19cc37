//! The test thread's loop over a bus trace: event by event, in order, each at its time.
//!
//! What stands at the other end is a [`Walker`]'s: one machine that is held to the recording
//! ([`Engine`](super::engine::Engine)), or two that are held to each other
//! ([`Duel`](super::against::engine::Duel)).

use std::sync::atomic::{AtomicBool, Ordering};

use super::command::{self, Command};
use super::memory::Done;
use super::options::{Pace, Plan};
use super::regions::Register;
use super::tally::Found;
use crate::base::error::Place;
use crate::base::{BusSpace, Error, Nanos, Result};
use crate::machine::Machine;
use crate::report::bus::BusCounts;
use crate::trace::{
    AckEvent, BusEvent, ClockStep, Event, IrqChange, Mark, MemoryEvent, MemoryOp, StreamTotals,
    Trace,
};

/// Events, or deadlines, between two looks at whether the user wants to stop.
const EVENTS_PER_LOOK: u64 = 1024;

/// What is no region, as rules and mismatches call it.
pub const MEMORY: &str = "memory";
/// Interrupts, as rules and mismatches call them.
pub const INTERRUPTS: &str = "interrupts";
/// A CPU's acknowledge cycles, as rules and mismatches call them.
pub const ACKNOWLEDGE: &str = "acknowledge";

/// Why something was left out, and how often.
#[derive(Debug, Default)]
pub struct LeftOut {
    /// Memory-mapped accesses, where only ports are replayed.
    pub mmio: u64,
    /// Block requests and completions.
    pub requests: u64,
    /// Events of guest memory.
    pub memory: u64,
    /// Interrupts.
    pub interrupts: u64,
    /// Acknowledge cycles.
    pub acknowledges: u64,
}

impl LeftOut {
    fn total(&self) -> u64 {
        let Self { mmio, requests, memory, interrupts, acknowledges } = self;
        mmio + requests + memory + interrupts + acknowledges
    }
}

/// A walk under way: where it is, and the books that every kind of it keeps.
pub struct Walk<'a> {
    /// The recording.
    pub trace: &'a Trace,
    /// Memory-mapped accesses, memory and interrupts are not looked at.
    pub ports_only: bool,
    /// The trace tells what devices do of themselves: to memory, with interrupts.
    pub watches: bool,
    /// Something was written, or time passed, that devices may be at work for: in the recording
    /// they were done with it when the next thing happened.
    pub begun: bool,
    /// What was done.
    pub done: BusCounts,
    /// What was not.
    pub left_out: LeftOut,
    /// Checks that are no reads, of which those that failed.
    pub other_checks: (u64, u64),
    pace: Pace,
    phase: Nanos,
    /// By how much the machine's time is behind the recording's.
    slack: Nanos,
    /// The machine's time of the event under way.
    next: Nanos,
    waits: u64,
    waits_max: u64,
    stop: &'a AtomicBool,
}

impl<'a> Walk<'a> {
    /// A walk over `trace` as `plan` says, until `stop` is raised.
    pub fn new(trace: &'a Trace, plan: &Plan, stop: &'a AtomicBool) -> Self {
        Self {
            trace,
            ports_only: plan.ports_only,
            watches: trace.totals().iter().any(tells_of_devices),
            begun: false,
            done: BusCounts::default(),
            left_out: LeftOut::default(),
            other_checks: (0, 0),
            pace: plan.pace,
            phase: plan.phase,
            slack: Nanos(0),
            next: plan.phase,
            waits: 0,
            waits_max: plan.waits_max,
            stop,
        }
    }

    /// The machine's time of the event under way.
    pub fn now(&self) -> Nanos {
        self.next
    }

    /// The machine falls behind the recording by so much more.
    pub fn fall_behind(&mut self, by: Nanos) {
        self.slack += by.0;
    }

    /// The machine's time of a moment of the recording.
    fn time_of(&self, recorded: Nanos) -> Nanos {
        self.phase + recorded.0 + self.slack.0
    }

    /// Goes on to an event that was recorded at this time; the machine's time of it.
    fn go_to(&mut self, recorded: Nanos) -> Nanos {
        self.next = match self.pace {
            Pace::Recorded => self.time_of(recorded),
            Pace::Fixed(step) => self.next + step.0,
        };
        self.next
    }

    /// Goes to the end of a step of the clock; the machine's time of it.
    pub fn go_over(&mut self, step: &ClockStep) -> Nanos {
        let to = match self.pace {
            Pace::Recorded => self.time_of(step.to),
            Pace::Fixed(_) => self.next + (step.to - step.time),
        };
        self.next = self.next.max(to);
        to
    }

    /// Lets a machine reach `to`, deadline by deadline; early when the user wants to stop.
    ///
    /// # Errors
    /// The machine is gone, or its timers have more deadlines than anything asks for.
    pub fn advance(&mut self, machine: &mut dyn Machine, to: Nanos) -> Result<()> {
        machine.advance(to)?;
        let clock = machine.clock();
        while clock.now() < to {
            machine.advance(to)?;
            self.waits += 1;
            if self.waits >= self.waits_max {
                return Err(Error::input(format!(
                    "a step to {to}: timers have had {} deadlines by now",
                    self.waits_max
                ))
                .hint("time=1us gives every event the same time instead"));
            }
            if self.waits.is_multiple_of(EVENTS_PER_LOOK) && self.is_stopped() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// What was left out is counted and said in words: why, with the count of it.
    pub fn notes(&mut self, counts: &[(u64, &str)]) -> Vec<String> {
        self.done.left_out = self.left_out.total();
        let counted = counts.iter().filter(|(count, _)| *count > 0);
        counted.map(|(count, what)| format!("{count} {what}")).collect()
    }
}

/// Whether a stream tells what devices do of themselves.
fn tells_of_devices(totals: &StreamTotals) -> bool {
    totals.bus.memory.iter().chain(&totals.bus.irqs).any(|count| *count > 0)
}

/// What is done at each event, and what is made of it.
pub trait Walker<'a> {
    /// The walk.
    fn walk(&mut self) -> &mut Walk<'a>;

    /// What came of the event before `number`, which is no change of an interrupt, is looked at.
    ///
    /// # Errors
    /// A machine is gone.
    fn before(&mut self, number: u64, time: Nanos) -> Result<()>;

    /// Has what was begun come to its end.
    ///
    /// # Errors
    /// A machine is gone.
    fn catch_up(&mut self) -> Result<()>;

    /// Every clock reaches `to`.
    ///
    /// # Errors
    /// Those of [`Walk::advance`].
    fn run_until(&mut self, to: Nanos) -> Result<()>;

    /// Makes an access.
    ///
    /// # Errors
    /// A machine is gone.
    fn access(&mut self, number: u64, bus: &BusEvent) -> Result<()>;

    /// Carries out or checks (`checks`) an event of guest memory.
    ///
    /// # Errors
    /// A machine is gone, or the data cannot be read.
    fn memory(&mut self, event: &MemoryEvent, checks: bool) -> Result<Done>;

    /// The recording says that an interrupt changed; whether that can be looked at.
    ///
    /// # Errors
    /// A machine is gone.
    fn interrupt(&mut self, number: u64, change: &IrqChange) -> Result<bool>;

    /// A CPU asks for a vector: what was expected and what came, where that is looked at.
    ///
    /// # Errors
    /// A machine is gone.
    fn acknowledge(&mut self, ack: &AckEvent) -> Result<Option<[Option<u8>; 2]>>;

    /// A step of the clock that ends at `to`.
    ///
    /// # Errors
    /// Those of [`Walk::advance`].
    fn clock_step(&mut self, step: &ClockStep) -> Result<()>;

    /// A disk gets another size.
    ///
    /// # Errors
    /// A machine is gone, or has no such disk.
    fn resize_disk(&mut self, disk: usize, bytes: u64) -> Result<()>;

    /// Takes note of a check that failed in what is no region: its name and kind, as rules call
    /// them, and what it is in words.
    fn differs(&mut self, name: &'static str, of: (&str, String), register: Register, found: Found);

    /// All `events` are done: the machines, with nothing under way, are quit in good order.
    ///
    /// # Errors
    /// A machine is gone.
    fn finish(&mut self, events: u64) -> Result<()>;
}

/// Walks over everything; whether the user stopped it. `at` is the event under way, `progress`
/// gets it from time to time.
///
/// # Errors
/// A damaged trace, or a machine that failed.
pub fn to_end<'a>(
    walker: &mut impl Walker<'a>,
    progress: &mut dyn FnMut(u64),
    at: &mut u64,
) -> Result<bool> {
    let mut cursor = walker.walk().trace.cursor(0);
    let mut interrupted = false;
    while let Some((number, event)) = cursor.next()? {
        *at = number;
        if number.is_multiple_of(EVENTS_PER_LOOK) {
            progress(number);
        }
        if walker.walk().is_stopped() {
            interrupted = true;
            break;
        }
        step(walker, number, &event).map_err(|error| error.at(Place::Event(number)))?;
    }
    walker.finish(cursor.position())?;
    Ok(interrupted)
}

fn step<'a>(walker: &mut impl Walker<'a>, number: u64, event: &Event) -> Result<()> {
    walker.walk().done.events += 1;
    if !matches!(event, Event::Irq(_)) {
        walker.before(number, event.time())?;
    }
    match event {
        Event::Bus(bus) if walker.walk().ports_only && bus.access.space == BusSpace::Mmio => {
            walker.walk().left_out.mmio += 1;
        }
        Event::Bus(bus) => {
            pass(walker, bus.time)?;
            walker.access(number, bus)?;
        }
        Event::Memory(event) => memory(walker, number, event)?,
        Event::Irq(change) => interrupt(walker, number, change)?,
        Event::Ack(ack) => acknowledge(walker, number, ack)?,
        Event::Clock(step) => {
            walker.walk().done.steps += 1;
            walker.clock_step(step)?;
        }
        Event::Issue(_) | Event::Complete(_) => walker.walk().left_out.requests += 1,
        Event::Mark(mark) => command(walker, mark)?,
    }
    Ok(())
}

/// Lets the time before an event pass.
fn pass<'a>(walker: &mut impl Walker<'a>, recorded: Nanos) -> Result<()> {
    let to = walker.walk().go_to(recorded);
    walker.run_until(to)
}

fn memory<'a>(walker: &mut impl Walker<'a>, number: u64, event: &MemoryEvent) -> Result<()> {
    pass(walker, event.time)?;
    let checks = event.op == MemoryOp::Read;
    match walker.memory(event, checks)? {
        Done::LeftOut => {
            walker.walk().left_out.memory += 1;
            return Ok(());
        }
        Done::Right => {}
        Done::Different(expected, got) => {
            let found = Found { event: number, time: event.time, expected, got };
            let what = format!("{:#x}, {} bytes", event.addr, event.len);
            walker.differs(MEMORY, ("", what), Register::Offset(event.addr), found);
        }
    }
    let walk = walker.walk();
    let done = &mut walk.done;
    *if checks { &mut done.memory_checks } else { &mut done.memory_writes } += 1;
    walk.other_checks.0 += u64::from(checks);
    Ok(())
}

fn interrupt<'a>(walker: &mut impl Walker<'a>, number: u64, change: &IrqChange) -> Result<()> {
    if walker.walk().ports_only {
        walker.walk().left_out.interrupts += 1;
        return Ok(());
    }
    walker.walk().done.interrupts += 1;
    walker.catch_up()?;
    if !walker.interrupt(number, change)? {
        walker.walk().left_out.interrupts += 1;
    }
    Ok(())
}

fn acknowledge<'a>(walker: &mut impl Walker<'a>, number: u64, ack: &AckEvent) -> Result<()> {
    pass(walker, ack.time)?;
    let Some(vectors) = walker.acknowledge(ack)? else { return Ok(()) };
    walker.walk().other_checks.0 += 1;
    if vectors[0] != vectors[1] {
        let [expected, got] = vectors.map(|vector| match vector {
            Some(vector) => format!("vector {vector:#04x}"),
            None => "no interrupt".to_owned(),
        });
        let found = Found { event: number, time: ack.time, expected, got };
        let what = format!("CPU {}", ack.cpu);
        walker.differs(ACKNOWLEDGE, ("", what), Register::Index(ack.cpu.into()), found);
    }
    Ok(())
}

/// A mark of a tap that is a command; any other says nothing to a machine.
fn command<'a>(walker: &mut impl Walker<'a>, mark: &Mark) -> Result<()> {
    match command::of(walker.walk().trace, mark)? {
        None => Ok(()),
        Some(Command::ResizeDisk { disk, bytes }) => {
            pass(walker, mark.time)?;
            walker.resize_disk(disk, bytes)
        }
    }
}
