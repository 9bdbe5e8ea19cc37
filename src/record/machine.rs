//! The machine tap: a machine between a test thread and its machine that records what passes.
//!
//! Recorded are every access, what the test thread wrote to guest memory and what devices wrote
//! there, interrupts of watched sources as the test could see them, acknowledge cycles, disks given
//! another size, and every turn that the devices were given. Replayed on a machine like it, as new, all of it happens again.
//!
//! A tap is exact under a virtual clock, where nothing happens but what the test thread asks for.
//! Under another clock, or with a disk in a thread of its own, times and interrupts are those of
//! the moment at which they were noticed, and what such a disk writes while the test thread runs
//! is taken for the test thread's. A recording has one test thread: a tapped machine has no others.

use std::cell::RefCell;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::memory::{Changed, Shadow};
use crate::base::{BusAccess, BusSpace, Clock, Error, GuestAddr, Nanos, Result};
use crate::machine::{
    ApicMessage, Bus, Capabilities, GuestRam, Interrupts, IrqEvent, IrqSource, Machine, Obituary,
};
use crate::replay::bus::command::{COMMANDS, Command};
use crate::replay::bus::interrupts::IrqKind;
use crate::replay::bus::options::{TAP_CASE, TAP_FORMAT, TAP_MACHINE};
use crate::replay::bus::regions::{REGIONS, by_address};
use crate::suite::spec::MachineSpec;
use crate::trace::{
    AckEvent, BusEvent, ClockStep, Event, IrqChange, Mark, MemoryEvent, MemoryOp, NotRecorded,
    StreamId, StreamInfo, TraceHeader, TraceSummary, TraceWriter,
};

/// What a bus trace never says, whoever records it.
const NEVER: NotRecorded = NotRecorded::CPUS;

/// The header of a tap's recording. `name` says what is recorded; `spec`, where it is known, which
/// machine a replay is to build.
pub fn header(name: &str, spec: Option<&MachineSpec>) -> TraceHeader {
    let mut interpretation = vec![format!("{TAP_CASE}{name}")];
    interpretation.extend(spec.map(|spec| format!("{TAP_MACHINE}{}", spec.text())));
    TraceHeader {
        tool: concat!("qtrace ", env!("CARGO_PKG_VERSION")).to_owned(),
        source_format: TAP_FORMAT.to_owned(),
        interpretation,
        origin_unix_ns: None,
        not_recorded: NEVER,
    }
}

/// An interrupt source that the test thread watches.
struct Watched {
    stream: StreamId,
    line: u32,
    /// What the machine signals.
    inner: Arc<IrqEvent>,
    /// What the test thread looks at.
    outer: Arc<IrqEvent>,
}

/// How often a recording that others can open is written and made durable, by the host's time.
const SYNC_EVERY: Duration = Duration::from_millis(500);

/// A trace that stands under its name while it is written.
struct Live {
    file: File,
    synced: Instant,
}

/// What is written to the trace.
struct Recorder {
    writer: TraceWriter,
    live: Option<Live>,
    streams: Vec<String>,
    shadow: Shadow,
    /// The first failure: nothing is recorded after it.
    failed: Option<Error>,
}

impl Recorder {
    fn stream(&mut self, name: &str) -> Result<StreamId> {
        if let Some(at) = self.streams.iter().position(|known| known == name) {
            return Ok(StreamId(at as u32));
        }
        let info = StreamInfo { device: name.to_owned(), ..StreamInfo::default() };
        self.streams.push(name.to_owned());
        self.writer.stream(info)
    }

    /// Writes the event that `make` gives for the stream called `name`.
    fn write(&mut self, name: &str, make: impl FnOnce(StreamId) -> Event) {
        self.attempt(|recorder| {
            let stream = recorder.stream(name)?;
            recorder.writer.event(&make(stream))
        });
    }

    fn attempt(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) {
        if self.failed.is_none() {
            self.failed = work(self).and_then(|()| self.sync()).err();
        }
    }

    /// Writes what a reader of a live trace should find by now.
    fn sync(&mut self) -> Result<()> {
        let due = |live: &&mut Live| live.synced.elapsed() >= SYNC_EVERY;
        let Some(live) = self.live.as_mut().filter(due) else { return Ok(()) };
        live.synced = Instant::now();
        self.writer.flush()?;
        live.file.sync_data().map_err(|e| Error::incomplete("cannot sync the trace").source(e))
    }

    /// Writes what changed in memory since the last look: by the test thread (`Write`), or by
    /// devices (`Read`).
    fn memory(&mut self, op: MemoryOp, ram: &GuestRam, time: Nanos) {
        self.attempt(|recorder| {
            for Changed { addr, bytes } in recorder.shadow.changes(ram)? {
                let stream = recorder.stream("memory")?;
                let (len, payload) = (bytes.len() as u64, recorder.writer.payload(&bytes)?);
                let event = MemoryEvent { time, stream, op, addr, len, fill: 0, payload };
                recorder.writer.event(&Event::Memory(event))?;
            }
            Ok(())
        });
    }
}

/// The tap. It is a machine itself.
pub struct Tap<'m> {
    name: String,
    /// Levels are looked at through a shared reference, and so are recorded.
    inner: RefCell<&'m mut dyn Machine>,
    clock: Arc<dyn Clock>,
    ram: Option<Arc<GuestRam>>,
    watched: Vec<(IrqSource, Watched)>,
    recorder: RefCell<Recorder>,
}

impl<'m> Tap<'m> {
    /// A tap on `machine`, which must be as new, that writes to `writer` (see [`header`]).
    ///
    /// # Errors
    /// Guest memory cannot be searched.
    pub fn new(machine: &'m mut dyn Machine, writer: TraceWriter) -> Result<Self> {
        Self::with(machine, writer, None)
    }

    /// The same with a writer of a [live](TraceWriter::create_live) trace: what is recorded reaches
    /// the file within a second of the host's time.
    ///
    /// # Errors
    /// Those of [`Tap::new`]; the file cannot be shared.
    pub fn live(machine: &'m mut dyn Machine, writer: TraceWriter) -> Result<Self> {
        let live = Live { file: writer.file()?, synced: Instant::now() };
        Self::with(machine, writer, Some(live))
    }

    fn with(machine: &'m mut dyn Machine, writer: TraceWriter, live: Option<Live>) -> Result<Self> {
        let ram = match machine.capabilities().contains(Capabilities::MEMORY) {
            true => Some(machine.ram()?),
            false => None,
        };
        let mut shadow = Shadow::default();
        if let Some(ram) = &ram {
            shadow.changes(ram)?;
        }
        let recorder = Recorder { writer, live, streams: Vec::new(), shadow, failed: None };
        let (clock, watched) = (machine.clock(), Vec::new());
        let (name, recorder) = (machine.name().to_owned(), RefCell::new(recorder));
        Ok(Self { name, inner: RefCell::new(machine), clock, ram, watched, recorder })
    }

    /// Writes the end of the trace. Whether there is one: there is none of a machine that nobody
    /// drove.
    ///
    /// # Errors
    /// Whatever kept it from being recorded; nothing is left behind then.
    pub fn finish(mut self) -> Result<bool> {
        self.before();
        let recorder = self.recorder.into_inner();
        match recorder.failed {
            Some(error) => Err(error),
            // A test that was skipped did nothing.
            None if recorder.writer.events() == 0 => Ok(false),
            None => {
                let summary = TraceSummary { not_recorded: NEVER, ..TraceSummary::default() };
                recorder.writer.finish(summary).map(|()| true)
            }
        }
    }

    /// What the test thread wrote to memory since the machine had its last turn.
    fn before(&mut self) {
        let now = self.clock.now();
        if let Some(ram) = &self.ram {
            self.recorder.get_mut().memory(MemoryOp::Write, ram, now);
        }
    }

    /// Writes what was done, and what came of it: interrupts first, then memory.
    fn after(&mut self, name: &str, make: impl FnOnce(StreamId) -> Event) {
        self.recorder.get_mut().write(name, make);
        self.consequences();
    }

    fn consequences(&mut self) {
        self.interrupts_fired();
        let now = self.clock.now();
        if let Some(ram) = &self.ram {
            self.recorder.get_mut().memory(MemoryOp::Read, ram, now);
        }
    }

    /// Hands on what fired; whether anything did.
    fn interrupts_fired(&mut self) -> bool {
        let (time, recorder) = (self.clock.now(), self.recorder.get_mut());
        let mut any = false;
        for (_, watched) in &self.watched {
            for _ in 0..watched.inner.take() {
                any = true;
                watched.outer.signal();
                let change =
                    IrqChange { time, stream: watched.stream, line: watched.line, high: true };
                recorder.attempt(|recorder| recorder.writer.event(&Event::Irq(change)));
            }
        }
        any
    }

    fn access(&mut self, access: BusAccess, time: Nanos) {
        let name = match by_address(access.space, access.addr).and_then(|at| REGIONS.get(at)) {
            Some(region) => region.name,
            None => access.space.name(),
        };
        let value = access.value & BusAccess::ones(access.size);
        let access = BusAccess { value, ..access };
        self.after(name, |stream| Event::Bus(BusEvent { time, stream, access, cpu: None }));
    }

    /// A turn of the devices that began at `from`.
    fn turn(&mut self, from: Nanos) {
        let to = self.clock.now();
        self.after("clock", |stream| Event::Clock(ClockStep { time: from, stream, to }));
    }
}

impl Machine for Tap<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        // A recording has one thread.
        self.inner.borrow().capabilities() - Capabilities::THREADS
    }

    fn bus(&mut self) -> Result<&mut dyn Bus> {
        self.inner.get_mut().bus()?;
        Ok(self)
    }

    fn ram(&self) -> Result<Arc<GuestRam>> {
        self.inner.borrow().ram()
    }

    fn interrupts(&mut self) -> Result<&mut dyn Interrupts> {
        self.inner.get_mut().interrupts()?;
        Ok(self)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    fn resize_disk(&mut self, disk: usize, bytes: u64) -> Result<()> {
        let time = self.clock.now();
        self.before();
        self.inner.get_mut().resize_disk(disk, bytes)?;
        let text = Command::ResizeDisk { disk, bytes }.text();
        let recorder = self.recorder.get_mut();
        recorder.attempt(|recorder| {
            let (stream, text_len) = (recorder.stream(COMMANDS)?, text.len() as u64);
            let text = recorder.writer.payload(text.as_bytes())?;
            recorder.writer.event(&Event::Mark(Mark { time, stream, text, text_len }))
        });
        self.consequences();
        Ok(())
    }

    fn describe(&self) -> String {
        self.inner.borrow().describe()
    }

    fn quit(&mut self) -> Result<()> {
        self.inner.get_mut().quit()
    }

    fn obituary(&self) -> Option<Obituary> {
        self.inner.borrow().obituary()
    }

    fn poll(&mut self) -> Result<bool> {
        let from = self.clock.now();
        self.before();
        let progress = self.inner.get_mut().poll()?;
        // A poll that finds nothing to do is nothing that happened.
        if progress {
            self.turn(from);
        }
        Ok(progress)
    }

    fn wait(&mut self, fds: &[BorrowedFd<'_>], deadline: Option<Nanos>) -> Result<()> {
        let from = self.clock.now();
        self.before();
        // Descriptors of interrupts are ours: it is the machine's behind them that wake it.
        let mut all = fds.to_vec();
        if !fds.is_empty() {
            all.extend(self.watched.iter().map(|(_, watched)| watched.inner.fd()));
        }
        let waited = self.inner.get_mut().wait(&all, deadline);
        drop(all);
        self.turn(from);
        waited
    }
}

// A machine that gave its bus once gives it always; were it not so, nothing would answer.
impl Bus for Tap<'_> {
    fn pio_read(&mut self, port: u16, size: u8) -> u32 {
        let time = self.clock.now();
        self.before();
        let ones = BusAccess::ones(size) as u32;
        let value = self.inner.get_mut().bus().map_or(ones, |bus| bus.pio_read(port, size));
        let (space, addr) = (BusSpace::Pio, port.into());
        self.access(BusAccess { space, write: false, addr, size, value: value.into() }, time);
        value
    }

    fn pio_write(&mut self, port: u16, size: u8, value: u32) {
        let time = self.clock.now();
        self.before();
        if let Ok(bus) = self.inner.get_mut().bus() {
            bus.pio_write(port, size, value);
        }
        let (space, addr) = (BusSpace::Pio, port.into());
        self.access(BusAccess { space, write: true, addr, size, value: value.into() }, time);
    }

    // What a doorbell does in another process is recorded here and not wherever it is seen first.
    fn pio_post(&mut self, port: u16, size: u8, value: u32) {
        let time = self.clock.now();
        self.before();
        let inner = self.inner.get_mut();
        if let Ok(bus) = inner.bus() {
            bus.pio_post(port, size, value);
        }
        let _ = inner.settle();
        let (space, addr) = (BusSpace::Pio, port.into());
        self.access(BusAccess { space, write: true, addr, size, value: value.into() }, time);
    }

    fn mmio_post(&mut self, addr: GuestAddr, size: u8, value: u64) {
        let time = self.clock.now();
        self.before();
        let inner = self.inner.get_mut();
        if let Ok(bus) = inner.bus() {
            bus.mmio_post(addr, size, value);
        }
        let _ = inner.settle();
        let (space, addr) = (BusSpace::Mmio, addr.0);
        self.access(BusAccess { space, write: true, addr, size, value }, time);
    }

    fn mmio_read(&mut self, addr: GuestAddr, size: u8) -> u64 {
        let time = self.clock.now();
        self.before();
        let ones = BusAccess::ones(size);
        let value = self.inner.get_mut().bus().map_or(ones, |bus| bus.mmio_read(addr, size));
        let (space, addr) = (BusSpace::Mmio, addr.0);
        self.access(BusAccess { space, write: false, addr, size, value }, time);
        value
    }

    fn mmio_write(&mut self, addr: GuestAddr, size: u8, value: u64) {
        let time = self.clock.now();
        self.before();
        if let Ok(bus) = self.inner.get_mut().bus() {
            bus.mmio_write(addr, size, value);
        }
        let (space, addr) = (BusSpace::Mmio, addr.0);
        self.access(BusAccess { space, write: true, addr, size, value }, time);
    }
}

impl Interrupts for Tap<'_> {
    fn watch(&mut self, source: IrqSource) -> Result<Arc<IrqEvent>> {
        let inner = self.inner.get_mut().interrupts()?.watch(source)?;
        self.interrupts_fired();
        let (kind, line) = IrqKind::of(source);
        let (time, name) = (self.clock.now(), kind.name());
        let known = self.watched.iter().find(|(known, _)| *known == source);
        let outer = match known {
            Some((_, watched)) => Arc::clone(&watched.outer),
            None => {
                // What it counted before is of nobody's watching.
                inner.take();
                let outer = IrqEvent::new()
                    .map_err(|e| Error::machine("no eventfd for an interrupt").source(e))?;
                let (outer, stream) = (Arc::new(outer), self.recorder.get_mut().stream(&name)?);
                let watched = Watched { stream, line, inner, outer: Arc::clone(&outer) };
                self.watched.push((source, watched));
                outer
            }
        };
        // From here on the recording looks at it.
        let quiet = |stream| Event::Irq(IrqChange { time, stream, line, high: false });
        self.recorder.get_mut().write(&name, quiet);
        Ok(outer)
    }

    fn message(&mut self, function: u16, vector: u16) -> Result<Option<(u64, u32)>> {
        self.inner.get_mut().interrupts()?.message(function, vector)
    }

    fn intx_level(&self, irq: u32) -> bool {
        let high = self.inner.borrow_mut().interrupts().is_ok_and(|i| i.intx_level(irq));
        let (time, name) = (self.clock.now(), IrqKind::IntxLevel.name());
        let level = |stream| Event::Irq(IrqChange { time, stream, line: irq, high });
        self.recorder.borrow_mut().write(&name, level);
        high
    }

    fn acknowledge(&mut self, cpu: u8) -> Option<u8> {
        let time = self.clock.now();
        self.before();
        let vector = self.inner.get_mut().interrupts().ok()?.acknowledge(cpu);
        let cpu = cpu.into();
        self.after("acknowledge", |stream| Event::Ack(AckEvent { time, stream, cpu, vector }));
        vector
    }

    fn apic_messages(&mut self) -> Result<Vec<ApicMessage>> {
        let time = self.clock.now();
        self.before();
        let messages = self.inner.get_mut().interrupts()?.apic_messages()?;
        let count = messages.len() as u32;
        self.after(&IrqKind::ApicLook.name(), |stream| {
            Event::Irq(IrqChange { time, stream, line: count, high: false })
        });
        let recorder = self.recorder.get_mut();
        for ApicMessage { addr, data } in &messages {
            recorder.write(&IrqKind::ApicMessage(*addr).name(), |stream| {
                Event::Irq(IrqChange { time, stream, line: *data, high: true })
            });
        }
        Ok(messages)
    }
}
