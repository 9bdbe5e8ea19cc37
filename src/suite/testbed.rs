//! For tests of modules: a machine of a few devices, so that a case can be run against a chip that
//! is right and against one that is wrong.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};

use super::{Module, Outcome, Stop, TestThread};
use crate::base::options::Options;
use crate::base::{BusAccess, Clock, Error, GuestAddr, Nanos, Result, VirtualClock};
use crate::machine::builtin::device::{Device, LineSink, Wire};
use crate::machine::{Bus, Capabilities, GuestRam, Interrupts, IrqEvent, IrqSource, Machine};

/// What a wrong chip makes of a read: window, offset and right value to the value that is seen.
pub type Lie = fn(usize, u64, u64) -> u64;

/// Which writes a wrong chip misses: window, offset and value.
pub type Deaf = fn(usize, u64, u64) -> bool;

#[derive(Default)]
struct Line {
    high: bool,
    event: Option<Arc<IrqEvent>>,
}

/// The interrupt lines as a test thread watches them.
#[derive(Default)]
struct Lines(Mutex<HashMap<u32, Line>>);

impl LineSink for Lines {
    fn set_line(&self, line: u32, _source: u32, high: bool) {
        let mut lines = self.0.lock().unwrap();
        let line = lines.entry(line).or_default();
        if let (true, false, Some(event)) = (high, line.high, &line.event) {
            event.signal();
        }
        line.high = high;
    }
}

struct LineWatch(Arc<Lines>);

impl Interrupts for LineWatch {
    fn watch(&mut self, source: IrqSource) -> Result<Arc<IrqEvent>> {
        let IrqSource::Intx(line) = source else { return Err(Error::machine("lines only")) };
        let mut lines = self.0.0.lock().unwrap();
        let event = &mut lines.entry(line).or_default().event;
        Ok(Arc::clone(event.get_or_insert_with(|| Arc::new(IrqEvent::new().unwrap()))))
    }

    fn intx_level(&self, irq: u32) -> bool {
        self.0.0.lock().unwrap().get(&irq).is_some_and(|line| line.high)
    }
}

/// A machine with one device at its ports.
pub struct Testbed {
    device: Box<dyn Device>,
    windows: Vec<(u64, u64)>,
    lie: Option<Lie>,
    deaf: Option<Deaf>,
    lines: LineWatch,
    ram: Arc<GuestRam>,
    clock: Arc<VirtualClock>,
}

impl Testbed {
    /// The device that `build` makes, with its windows (first port, length); those that begin
    /// beyond the ports are memory.
    pub fn new(
        windows: &[(u64, u64)],
        build: impl FnOnce(&dyn Fn(u32) -> Wire, Arc<GuestRam>) -> Box<dyn Device>,
    ) -> Self {
        let lines = Arc::new(Lines::default());
        let ram = Arc::new(GuestRam::new(1 << 20).unwrap());
        let sink = Arc::clone(&lines);
        let wire = move |line| Wire::new(sink.clone(), line, 0);
        Self {
            device: build(&wire, Arc::clone(&ram)),
            windows: windows.to_vec(),
            lie: None,
            deaf: None,
            lines: LineWatch(lines),
            ram,
            clock: Arc::new(VirtualClock::new()),
        }
    }

    /// The same machine with a chip that lies.
    pub fn lying(self, lie: Lie) -> Self {
        Self { lie: Some(lie), ..self }
    }

    /// The same machine with a chip that misses writes.
    pub fn deaf(self, deaf: Deaf) -> Self {
        Self { deaf: Some(deaf), ..self }
    }

    /// Runs a case of `module` as the runner does.
    pub fn run(&mut self, module: &dyn Module, case: &str) -> Outcome {
        let found = module.cases().iter().find(|found| found.name == case);
        let case = found.unwrap_or_else(|| panic!("no case {case} in {}", module.name()));
        assert!(self.capabilities().contains(case.needs), "{}", case.name);
        let mut thread = TestThread::new(self, Options::default(), 1);
        module.init(&mut thread)?;
        (case.run)(&mut thread)?;
        module.cleanup(&mut thread)
    }

    fn find(&self, addr: u64, size: u8) -> Option<(usize, u64)> {
        self.windows.iter().enumerate().find_map(|(window, (base, len))| {
            let offset = addr.checked_sub(*base)?;
            (offset + u64::from(size) <= *len).then_some((window, offset))
        })
    }

    fn load(&mut self, addr: u64, size: u8) -> u64 {
        self.run_devices();
        let Some((window, offset)) = self.find(addr, size) else {
            return BusAccess::ones(size);
        };
        let value = self.device.read(window, offset, size, self.clock.now());
        self.lie.map_or(value, |lie| lie(window, offset, value))
    }

    fn store(&mut self, addr: u64, size: u8, value: u64) {
        self.run_devices();
        if let Some((window, offset)) = self.find(addr, size)
            && !self.deaf.is_some_and(|deaf| deaf(window, offset, value))
        {
            self.device.write(window, offset, size, value, self.clock.now());
        }
    }

    fn run_devices(&mut self) {
        let now = self.clock.now();
        if self.device.deadline().is_some_and(|at| at <= now) {
            self.device.run(now);
        }
    }
}

/// Every case of `module` passes on a machine of `build`, twice in a row on one machine.
pub fn all_pass(module: &dyn Module, build: impl Fn() -> Testbed) {
    let mut shared = build();
    for case in module.cases() {
        for machine in [&mut build(), &mut shared] {
            if let Err(stop) = machine.run(module, case.name) {
                panic!("{}/{}: {stop:?}", module.name(), case.name);
            }
        }
    }
}

/// The finding of `case` on a wrong machine: what it looked at.
pub fn caught(module: &dyn Module, case: &str, mut machine: Testbed) -> String {
    match machine.run(module, case) {
        Err(Stop::Failed(finding)) => finding.what,
        other => panic!("{}/{case} missed the fault: {other:?}", module.name()),
    }
}

impl Bus for Testbed {
    fn pio_read(&mut self, port: u16, size: u8) -> u32 {
        self.load(port.into(), size) as u32
    }

    fn pio_write(&mut self, port: u16, size: u8, value: u32) {
        self.store(port.into(), size, value.into());
    }

    fn mmio_read(&mut self, addr: GuestAddr, size: u8) -> u64 {
        self.load(addr.0, size)
    }

    fn mmio_write(&mut self, addr: GuestAddr, size: u8, value: u64) {
        self.store(addr.0, size, value);
    }
}

impl Machine for Testbed {
    fn name(&self) -> &str {
        "testbed"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::PIO
            | Capabilities::MMIO
            | Capabilities::INTX
            | Capabilities::MEMORY
            | Capabilities::VIRTUAL_CLOCK
            | Capabilities::TIMERS
    }

    fn bus(&mut self) -> Result<&mut dyn Bus> {
        Ok(self)
    }

    fn ram(&self) -> Result<Arc<GuestRam>> {
        Ok(Arc::clone(&self.ram))
    }

    fn interrupts(&mut self) -> Result<&mut dyn Interrupts> {
        Ok(&mut self.lines)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    fn poll(&mut self) -> Result<bool> {
        self.run_devices();
        Ok(false)
    }

    fn wait(&mut self, _fds: &[BorrowedFd<'_>], deadline: Option<Nanos>) -> Result<()> {
        let next = [self.device.deadline(), deadline].into_iter().flatten().min();
        let next = next.ok_or_else(|| Error::machine("nothing will ever happen"))?;
        self.clock.advance_to(next);
        self.run_devices();
        Ok(())
    }
}
