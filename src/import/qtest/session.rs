//! What a session of commands and answers did to the machine, as events.
//!
//! A read and a clock command wait for their answer; interrupts that are reported in between come
//! after them. Without an answer the next command says that there is none.

use super::command::Command;
use super::data::{from_base64, from_hex};
use crate::base::{BusAccess, Nanos, Result};
use crate::import::job::{Job, line_place};
use crate::import::lines::c_number;
use crate::import::summary::counted;
use crate::trace::{
    BusEvent, ClockStep, Event, IrqChange, MemoryEvent, MemoryOp, NotRecorded, PayloadRef, StreamId,
};

/// Interrupts kept while a command waits for its answer. A device that toggles a line more often
/// within one access is not one that anybody reads about.
const IRQS_WAITING_MAX: usize = 4096;

/// The stream of interrupts before any `irq_intercept_*`.
const IRQ_STREAM: &[u8] = b"irq";

/// A command that waits for its answer.
#[derive(Clone, Copy)]
enum Waiting {
    Load(BusAccess),
    Memory { addr: u64, len: u64, base64: bool },
    Clock { target: Option<u64> },
}

/// The session so far.
#[derive(Default)]
pub struct Session {
    /// QEMU_CLOCK_VIRTUAL: under qtest it begins at 0 and only commands move it.
    now: u64,
    waiting: Option<(u64, Waiting)>,
    irqs: Vec<(u64, u32, bool)>,
    /// Whether reads have values: the first one decides.
    values: Option<bool>,
    /// Who reports interrupts.
    intercepted: Vec<u8>,
    interrupts: bool,
    steps: bool,
    setup: u64,
    refused: u64,
    odd: u64,
    /// A command was made an event that QEMU may yet refuse.
    refusable: bool,
}

impl Session {
    /// A command, which stood at `line`.
    ///
    /// # Errors
    /// Those of the job.
    pub fn command(&mut self, line: u64, command: Command<'_>, job: &mut Job<'_>) -> Result<()> {
        self.settle(job)?;
        self.refusable = true;
        match command {
            Command::Store(access) => self.access(line, access, job),
            Command::Load(access) => self.wait(line, Waiting::Load(access)),
            Command::Read { addr, len, base64 } => {
                self.wait(line, Waiting::Memory { addr, len, base64 })
            }
            Command::Fill { addr, len, byte } => self.fill(line, addr, len, byte, job),
            Command::Write { addr, len, data, base64 } => {
                let data = if base64 { from_base64(data) } else { from_hex(data) };
                match data {
                    Ok(data) => self.write(line, (addr, len), &data, base64, job),
                    Err(reason) => {
                        job.summary.malformed(reason, || line_place(line));
                        Ok(())
                    }
                }
            }
            Command::Step(step) => {
                let target = step.map(|step| self.now.saturating_add(step));
                self.wait(line, Waiting::Clock { target })
            }
            Command::Set(time) => self.wait(line, Waiting::Clock { target: Some(time) }),
            Command::Intercept { device, lines } => {
                self.setup += 1;
                let dot: &[u8] = if lines.is_empty() { b"" } else { b"/" };
                self.intercepted = [device, dot, lines].concat();
                Ok(())
            }
            Command::SetIrq => {
                job.summary.lose("set_irq_in: a line that the test drives", || line_place(line));
                Ok(())
            }
            Command::Setup => {
                self.setup += 1;
                Ok(())
            }
        }
    }

    /// `OK`, with what follows it.
    ///
    /// # Errors
    /// Those of the job.
    pub fn answer(&mut self, value: &[u8], job: &mut Job<'_>) -> Result<()> {
        self.refusable = false;
        let Some((line, waiting)) = self.waiting.take() else { return Ok(()) };
        match waiting {
            Waiting::Load(access) => self.loaded(line, access, Some(value), job)?,
            Waiting::Memory { addr, len, base64 } => {
                self.found(line, (addr, len), Some((value, base64)), job)?;
            }
            Waiting::Clock { .. } => self.stepped(line, c_number(value), job)?,
        }
        self.release_irqs(job)
    }

    /// `FAIL` or `ERR`: the command did nothing.
    ///
    /// # Errors
    /// Those of the job.
    pub fn refusal(&mut self, job: &mut Job<'_>) -> Result<()> {
        if let Some((line, _)) = self.waiting.take() {
            job.summary.lose("command that QEMU refused", || line_place(line));
        } else {
            self.refused += u64::from(std::mem::take(&mut self.refusable));
        }
        self.release_irqs(job)
    }

    /// `IRQ raise` or `IRQ lower`.
    ///
    /// # Errors
    /// Those of the job.
    pub fn irq(&mut self, line: u64, number: u32, high: bool, job: &mut Job<'_>) -> Result<()> {
        if self.waiting.is_none() {
            return self.interrupt(line, number, high, job);
        }
        if self.irqs.len() < IRQS_WAITING_MAX {
            self.irqs.push((line, number, high));
        } else {
            job.summary.lose("interrupt change, too many in one command", || line_place(line));
        }
        Ok(())
    }

    /// The end of the log: what still waits has no answer.
    ///
    /// # Errors
    /// Those of the job.
    pub fn end(&mut self, job: &mut Job<'_>) -> Result<()> {
        self.settle(job)?;
        if self.values == Some(false) {
            job.not_recorded |= NotRecorded::READ_VALUES;
        }
        if !self.interrupts {
            job.not_recorded |= NotRecorded::IRQS;
        }
        if !self.steps {
            job.not_recorded |= NotRecorded::TIMES;
        }
        if self.setup > 0 {
            let count = counted(self.setup, "command", "commands");
            job.summary.note(format!("{count} of set-up (endianness, irq_intercept, …) left out"));
        }
        if self.refused > 0 {
            let count = counted(self.refused, "command was", "commands were");
            job.summary.note(format!("{count} refused by QEMU and imported all the same"));
        }
        if self.odd > 0 {
            let count = counted(self.odd, "write has", "writes have");
            job.summary.note(format!(
                "{count} less or more data than its length: cut, or zeros at its end, as QEMU does"
            ));
        }
        Ok(())
    }

    fn wait(&mut self, line: u64, what: Waiting) -> Result<()> {
        self.waiting = Some((line, what));
        Ok(())
    }

    /// No answer came to what waits.
    fn settle(&mut self, job: &mut Job<'_>) -> Result<()> {
        let Some((line, waiting)) = self.waiting.take() else { return Ok(()) };
        match waiting {
            Waiting::Load(access) => self.loaded(line, access, None, job)?,
            Waiting::Memory { addr, len, .. } => self.found(line, (addr, len), None, job)?,
            Waiting::Clock { target: Some(target) } => self.stepped(line, Some(target), job)?,
            Waiting::Clock { target: None } => {
                let reason = "clock_step to a deadline that no answer tells";
                job.summary.lose(reason, || line_place(line));
            }
        }
        self.release_irqs(job)
    }

    /// Whether a read that has a value, or has none, is like those before it.
    fn is_alike(&mut self, line: u64, has_value: bool, job: &mut Job<'_>) -> bool {
        let first = *self.values.get_or_insert(has_value);
        if has_value != first {
            let reason = if first { "read without an answer" } else { "read whose like had none" };
            job.summary.lose(reason, || line_place(line));
        }
        has_value == first
    }

    fn loaded(
        &mut self,
        line: u64,
        access: BusAccess,
        value: Option<&[u8]>,
        job: &mut Job<'_>,
    ) -> Result<()> {
        let known = value.map(c_number);
        if known == Some(None) {
            job.summary.malformed("answer that is no number", || line_place(line));
            return Ok(());
        }
        if !self.is_alike(line, known.is_some(), job) {
            return Ok(());
        }
        // QEMU prints what the function returned, which may be wider than asked.
        let value = known.flatten().unwrap_or(0) & BusAccess::ones(access.size);
        self.access(line, BusAccess { value, ..access }, job)
    }

    fn found(
        &mut self,
        line: u64,
        (addr, len): (u64, u64),
        data: Option<(&[u8], bool)>,
        job: &mut Job<'_>,
    ) -> Result<()> {
        let data =
            data.map(|(text, base64)| if base64 { from_base64(text) } else { from_hex(text) });
        let data = match data.transpose() {
            Ok(data) if data.as_ref().is_none_or(|data| data.len() as u64 == len) => data,
            _ => {
                let reason = "answer that is not the data asked for";
                job.summary.malformed(reason, || line_place(line));
                return Ok(());
            }
        };
        if !self.is_alike(line, data.is_some(), job) {
            return Ok(());
        }
        let payload = match &data {
            Some(data) => job.payload(data)?,
            None => PayloadRef::Absent,
        };
        self.memory(line, MemoryOp::Read, (addr, len), 0, payload, job)
    }

    fn stepped(&mut self, line: u64, to: Option<u64>, job: &mut Job<'_>) -> Result<()> {
        let Some(to) = to.filter(|to| *to >= self.now) else {
            job.summary.malformed("clock that goes back or cannot be read", || line_place(line));
            return Ok(());
        };
        if let Some(stream) = self.stream(line, b"clock", job)? {
            let step = ClockStep { time: Nanos(self.now), stream, to: Nanos(to) };
            job.bus_event(Event::Clock(step))?;
        }
        self.now = to;
        self.steps = true;
        Ok(())
    }

    /// QEMU writes zeros where hexadecimal data ends before its length.
    fn write(
        &mut self,
        line: u64,
        (addr, len): (u64, u64),
        data: &[u8],
        base64: bool,
        job: &mut Job<'_>,
    ) -> Result<()> {
        let given = (data.len() as u64).min(len);
        if base64 && given < len {
            job.summary.malformed("data shorter than its length", || line_place(line));
            return Ok(());
        }
        self.odd += u64::from(data.len() as u64 != len);
        if given > 0 {
            let payload = job.payload(data.get(..given as usize).unwrap_or(data))?;
            self.memory(line, MemoryOp::Write, (addr, given), 0, payload, job)?;
        }
        self.fill(line, addr + given, len - given, 0, job)
    }

    fn fill(&self, line: u64, addr: u64, len: u64, byte: u8, job: &mut Job<'_>) -> Result<()> {
        match len {
            0 => Ok(()),
            _ => self.memory(line, MemoryOp::Fill, (addr, len), byte, PayloadRef::Absent, job),
        }
    }

    fn memory(
        &self,
        line: u64,
        op: MemoryOp,
        (addr, len): (u64, u64),
        fill: u8,
        payload: PayloadRef,
        job: &mut Job<'_>,
    ) -> Result<()> {
        let Some(stream) = self.stream(line, b"memory", job)? else { return Ok(()) };
        let time = Nanos(self.now);
        job.bus_event(Event::Memory(MemoryEvent { time, stream, op, addr, len, fill, payload }))
    }

    fn access(&self, line: u64, access: BusAccess, job: &mut Job<'_>) -> Result<()> {
        let space = access.space.name().as_bytes();
        let Some(stream) = self.stream(line, space, job)? else { return Ok(()) };
        job.bus(BusEvent { time: Nanos(self.now), stream, access, cpu: None })
    }

    fn interrupt(&mut self, line: u64, number: u32, high: bool, job: &mut Job<'_>) -> Result<()> {
        self.interrupts = true;
        let name = if self.intercepted.is_empty() { IRQ_STREAM } else { &self.intercepted };
        let Some(stream) = self.stream(line, name, job)? else { return Ok(()) };
        let change = IrqChange { time: Nanos(self.now), stream, line: number, high };
        job.bus_event(Event::Irq(change))
    }

    fn release_irqs(&mut self, job: &mut Job<'_>) -> Result<()> {
        for (line, number, high) in std::mem::take(&mut self.irqs) {
            self.interrupt(line, number, high, job)?;
        }
        Ok(())
    }

    fn stream(&self, line: u64, name: &[u8], job: &mut Job<'_>) -> Result<Option<StreamId>> {
        job.stream(name, None, || line_place(line))
    }
}
