//! The test thread of a bus trace: event by event, in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::command::{self, Command};
use super::interrupts::{Expected, IrqMismatch};
use super::memory::{Done, Memory};
use super::options::{Pace, Plan};
use super::policy::Policy;
use super::regions::{Indexes, Register, may_reset};
use super::tally::{Answer, Found, Has, Tally};
use crate::base::error::Place;
use crate::base::{BusAccess, BusSpace, Clock, Error, GuestAddr, Nanos, Result};
use crate::machine::{Machine, Obituary};
use crate::report::bus::BusCounts;
use crate::trace::{
    AckEvent, BusEvent, ClockStep, Event, IrqChange, Mark, MemoryEvent, MemoryOp, NotRecorded,
    StreamTotals, Trace,
};

/// Reads of one `poll`.
const POLLS_MAX: u64 = 1024;

/// Events between two looks at whether the user wants to stop.
pub(super) const EVENTS_PER_LOOK: u64 = 1024;

/// What is no region, as rules and mismatches call it.
const MEMORY: &str = "memory";
const INTERRUPTS: &str = "interrupts";
const ACKNOWLEDGE: &str = "acknowledge";

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

/// Why something was left out, and how often.
#[derive(Debug, Default)]
struct LeftOut {
    mmio: u64,
    requests: u64,
    memory: u64,
    interrupts: u64,
}

/// Whether a stream tells what devices do of themselves.
pub(super) fn tells_of_devices(totals: &StreamTotals) -> bool {
    totals.bus.memory.iter().chain(&totals.bus.irqs).any(|count| *count > 0)
}

/// A replay under way.
pub struct Engine<'a> {
    machine: &'a mut dyn Machine,
    clock: Arc<dyn Clock>,
    trace: &'a Trace,
    pace: Pace,
    phase: Nanos,
    ports_only: bool,
    values: bool,
    /// The machine's time of the next event, where it does not come from the recording.
    next: Nanos,
    tally: Tally,
    indexes: Indexes,
    expected: Expected,
    memory: Memory,
    done: BusCounts,
    left_out: LeftOut,
    other_checks: (u64, u64),
    waits: u64,
    waits_max: u64,
    /// The trace tells what devices do of themselves: to memory, with interrupts.
    watches: bool,
    /// Something was written, or time passed, that devices may be at work for: in the recording
    /// they were done with it when the next thing happened.
    begun: bool,
    stop: &'a AtomicBool,
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
            trace,
            pace: plan.pace,
            phase: plan.phase,
            ports_only: plan.ports_only,
            values: !trace.summary().not_recorded.contains(NotRecorded::READ_VALUES),
            next: plan.phase,
            tally: Tally::new(plan.rules.clone(), has, trace.streams()),
            indexes: Indexes::default(),
            expected,
            memory: Memory::default(),
            done: BusCounts::default(),
            left_out: LeftOut::default(),
            other_checks: (0, 0),
            waits: 0,
            waits_max: plan.waits_max,
            watches: trace.totals().iter().any(tells_of_devices),
            begun: false,
            stop,
        })
    }

    /// Replays everything; `progress` gets the number of the event reached.
    ///
    /// # Errors
    /// A damaged trace, or a machine that failed.
    pub fn run(mut self, progress: &mut dyn FnMut(u64)) -> Result<Outcome> {
        let mut at = 0;
        let ran = self.run_to_end(progress, &mut at);
        let (interrupted, died) = match (ran, self.machine.obituary()) {
            (Ok(interrupted), None) => (interrupted, None),
            (Err(error), None) => return Err(error),
            (_, Some(obituary)) => (false, Some((at, obituary))),
        };
        let notes = self.notes();
        let (tally, done, other_checks) = (self.tally, self.done, self.other_checks);
        Ok(Outcome { tally, done, other_checks, interrupted, died, notes })
    }

    /// Whether the user stopped it; `at` is the event under way.
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
            self.event(number, &event).map_err(|error| error.at(Place::Event(number)))?;
        }
        self.settle(cursor.position(), self.clock.now())?;
        // What was posted is done, and the machine lives, or not: it is quit in good order.
        self.machine.quit()?;
        Ok(interrupted)
    }

    fn event(&mut self, number: u64, event: &Event) -> Result<()> {
        self.done.events += 1;
        if !matches!(event, Event::Irq(_)) {
            self.settle(number, event.time())?;
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

    /// Lets the time before an event pass.
    fn pass(&mut self, recorded: Nanos) -> Result<()> {
        let to = match self.pace {
            Pace::Recorded => self.phase + recorded.0,
            Pace::Fixed(step) => self.next + step.0,
        };
        self.next = to;
        self.run_until(to)
    }

    fn run_until(&mut self, to: Nanos) -> Result<()> {
        if self.clock.now() < to {
            self.catch_up()?;
            // Interrupts of a step that the machine was only told of are to be waited for.
            self.begun = self.watches;
            self.machine.advance(to)?;
            // What timers do on the way is looked for, and a machine may be on its way yet.
            self.begun |= self.watches;
        }
        // Further deadlines of devices on the way.
        while self.clock.now() < to {
            self.machine.advance(to)?;
            self.waits += 1;
            if self.waits >= self.waits_max {
                return Err(Error::input(format!(
                    "a step to {to}: timers have had {} deadlines by now",
                    self.waits_max
                ))
                .hint("time=1us gives every event the same time instead"));
            }
            if self.waits.is_multiple_of(EVENTS_PER_LOOK) && self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Has what was begun come to its end.
    fn catch_up(&mut self) -> Result<()> {
        if std::mem::take(&mut self.begun) {
            self.machine.settle()?;
        }
        Ok(())
    }

    fn access(&mut self, number: u64, bus: &BusEvent) -> Result<()> {
        self.pass(bus.time)?;
        let access = &bus.access;
        let (place, region) = self.tally.locate(bus.stream, access, &mut self.indexes.functions);
        if access.write {
            self.indexes.written(access);
            write(self.machine, access)?;
            self.begun |= self.tally.write(region) || self.watches;
            self.done.writes += 1;
            return Ok(());
        }
        let got = self.read(access)?;
        if got != access.value && self.machine.obituary().is_some() {
            return Err(Error::machine("the machine is gone"));
        }
        self.done.reads += 1;
        self.indexes.read(access, got);
        if !self.values {
            return Ok(());
        }
        let register = self.indexes.register(place, access);
        let policy = self.tally.policy(region, register, access.size);
        let answer = self.judge(access, got, policy)?;
        if self.tally.read(region, answer) {
            let show =
                |value: u64| format!("{value:#0width$x}", width = 2 + 2 * usize::from(access.size));
            let (expected, got) = (show(access.value), show(got));
            let found = Found { event: number, time: bus.time, expected, got };
            self.tally.differs(region, register, found);
        }
        Ok(())
    }

    fn read(&mut self, access: &BusAccess) -> Result<u64> {
        read(self.machine, access)
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
            if self.read(access)? == access.value {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn memory(&mut self, number: u64, event: &MemoryEvent) -> Result<()> {
        self.pass(event.time)?;
        let register = Register::Offset(event.addr);
        let checks = event.op == MemoryOp::Read;
        if checks && (self.ports_only || self.ignores(MEMORY, "", register)) {
            self.left_out.memory += 1;
            return Ok(());
        }
        if checks {
            self.catch_up()?;
        }
        match self.memory.carry_out(event, self.trace, self.machine)? {
            Done::LeftOut => {
                self.left_out.memory += 1;
                return Ok(());
            }
            Done::Right => {}
            Done::Different(expected, got) => {
                self.other_checks.1 += 1;
                let found = Found { event: number, time: event.time, expected, got };
                let what = format!("{:#x}, {} bytes", event.addr, event.len);
                self.tally.differs_in(MEMORY, what, register, found);
            }
        }
        let count =
            if checks { &mut self.done.memory_checks } else { &mut self.done.memory_writes };
        *count += 1;
        self.other_checks.0 += u64::from(checks);
        Ok(())
    }

    fn ignores(&self, name: &'static str, kind: &str, register: Register) -> bool {
        self.tally.policy_of_other(name, kind, register) == Policy::Ignore
    }

    fn interrupt(&mut self, number: u64, change: &IrqChange) -> Result<()> {
        if self.ports_only {
            self.left_out.interrupts += 1;
            return Ok(());
        }
        self.done.interrupts += 1;
        self.catch_up()?;
        match self.expected.change(change, self.machine)? {
            None => self.left_out.interrupts += 1,
            Some(Ok(())) => self.other_checks.0 += 1,
            Some(Err(wrong)) => self.wrong_interrupt(number, change.time, wrong),
        }
        Ok(())
    }

    /// Whatever fired and was not expected did so by now.
    fn settle(&mut self, number: u64, time: Nanos) -> Result<()> {
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

    fn wrong_interrupt(&mut self, event: u64, time: Nanos, wrong: IrqMismatch) {
        let IrqMismatch { kind, line, expected, got } = wrong;
        let register = Register::Index(line);
        if self.ignores(INTERRUPTS, &kind, register) {
            self.left_out.interrupts += 1;
            return;
        }
        self.other_checks.0 += 1;
        self.other_checks.1 += 1;
        let (expected, got) = (expected.to_owned(), got.to_owned());
        let found = Found { event, time, expected, got };
        self.tally.differs_in(INTERRUPTS, format!("{kind} {line:#x}"), register, found);
    }

    fn acknowledge(&mut self, number: u64, ack: &AckEvent) -> Result<()> {
        self.pass(ack.time)?;
        let cpu = u8::try_from(ack.cpu).ok();
        let got = match cpu {
            Some(cpu) => self.machine.interrupts()?.acknowledge(cpu),
            None => None,
        };
        self.done.acknowledges += 1;
        let register = Register::Index(ack.cpu.into());
        if self.ports_only || self.ignores(ACKNOWLEDGE, "", register) {
            self.left_out.interrupts += 1;
            return Ok(());
        }
        self.other_checks.0 += 1;
        if got != ack.vector {
            self.other_checks.1 += 1;
            let show = |vector: Option<u8>| match vector {
                Some(vector) => format!("vector {vector:#04x}"),
                None => "no interrupt".to_owned(),
            };
            let (expected, got) = (show(ack.vector), show(got));
            let found = Found { event: number, time: ack.time, expected, got };
            self.tally.differs_in(ACKNOWLEDGE, format!("CPU {}", ack.cpu), register, found);
        }
        Ok(())
    }

    fn clock_step(&mut self, step: &ClockStep) -> Result<()> {
        self.done.steps += 1;
        let to = match self.pace {
            Pace::Recorded => self.phase + step.to.0,
            Pace::Fixed(_) => self.next + (step.to - step.time),
        };
        self.next = self.next.max(to);
        if to <= self.clock.now() {
            self.catch_up()?;
            self.machine.poll()?;
            return Ok(());
        }
        self.run_until(to)
    }

    /// A mark of a tap that is a command; any other says nothing to a machine.
    fn command(&mut self, mark: &Mark) -> Result<()> {
        match command::of(self.trace, mark)? {
            None => Ok(()),
            Some(Command::ResizeDisk { disk, bytes }) => {
                self.pass(mark.time)?;
                self.machine.resize_disk(disk, bytes)
            }
        }
    }

    fn notes(&mut self) -> Vec<String> {
        let LeftOut { mmio, requests, memory, interrupts } = self.left_out;
        self.done.left_out = mmio + requests + memory + interrupts;
        let counts = [
            (mmio, "memory-mapped accesses left out: mmio-trace replays them"),
            (requests, "block requests left out: block-trace-virtio replays them"),
            (memory, "events of guest memory left out"),
            (interrupts, "checks of interrupts left out"),
            (self.expected.unwatched, "changes of interrupts beyond those that can be watched"),
            (self.expected.refused, "interrupt sources that the machine does not have"),
        ];
        let mut notes: Vec<String> = Vec::new();
        if !self.values {
            notes.push("the recording has no values of reads: none was checked".to_owned());
        }
        let counted = counts.into_iter().filter(|(count, _)| *count > 0);
        notes.extend(counted.map(|(count, what)| format!("{count} {what}")));
        notes
    }
}

/// Makes a read.
///
/// # Errors
/// The machine is gone.
pub(super) fn read(machine: &mut dyn Machine, access: &BusAccess) -> Result<u64> {
    let BusAccess { space, addr, size, .. } = *access;
    let bus = machine.bus()?;
    Ok(match space {
        BusSpace::Pio => u64::from(bus.pio_read(addr as u16, size)),
        BusSpace::Mmio => bus.mmio_read(GuestAddr(addr), size),
    })
}

/// Makes a write, and waits for its effect only where the next access may depend on more than that.
///
/// # Errors
/// The machine is gone.
pub(super) fn write(machine: &mut dyn Machine, access: &BusAccess) -> Result<()> {
    let BusAccess { space, addr, size, value, .. } = *access;
    let bus = machine.bus()?;
    match space {
        BusSpace::Pio if may_reset(access) => bus.pio_write(addr as u16, size, value as u32),
        BusSpace::Pio => bus.pio_post(addr as u16, size, value as u32),
        BusSpace::Mmio => bus.mmio_post(GuestAddr(addr), size, value),
    }
    Ok(())
}

/// Makes a write that begins no I/O, and waits for its effect.
///
/// # Errors
/// The machine is gone.
pub(super) fn write_through(machine: &mut dyn Machine, access: &BusAccess) -> Result<()> {
    let BusAccess { space, addr, size, value, .. } = *access;
    let bus = machine.bus()?;
    match space {
        BusSpace::Pio => bus.pio_write(addr as u16, size, value as u32),
        BusSpace::Mmio => bus.mmio_write(GuestAddr(addr), size, value),
    }
    Ok(())
}
