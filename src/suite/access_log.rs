//! The last accesses of a test thread, kept in memory and written out when the case fails.

use std::collections::VecDeque;
use std::fmt::Write;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};

use crate::base::{BusAccess, BusSpace, Clock, GuestAddr, Nanos, Result};
use crate::machine::{Bus, Capabilities, GuestRam, Interrupts, Machine, Obituary, Vrings};

/// Entries kept: some megabytes of text, and more than a reader follows back.
const ENTRIES_MAX: usize = 1 << 16;

#[derive(Clone, Copy)]
enum What {
    Access(BusAccess),
    Wait(Option<Nanos>),
}

#[derive(Default)]
struct Ring {
    entries: VecDeque<(Nanos, What)>,
    dropped: u64,
}

/// A log that the machine's wrapper fills and whoever reports a failure reads.
#[derive(Clone, Default)]
pub(super) struct AccessLog(Arc<Mutex<Ring>>);

impl AccessLog {
    fn push(&self, time: Nanos, what: What) {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.entries.len() == ENTRIES_MAX {
            ring.entries.pop_front();
            ring.dropped += 1;
        }
        ring.entries.push_back((time, what));
    }

    /// A line for each entry.
    pub fn text(&self) -> String {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = String::from(
            "# time_ns space operation address size value; neither RAM nor interrupts are logged\n",
        );
        if ring.dropped > 0 {
            let _ = writeln!(out, "# {} earlier lines were dropped", ring.dropped);
        }
        for (time, what) in &ring.entries {
            let _ = write!(out, "{} ", time.0);
            let _ = match what {
                What::Access(a) => {
                    let word = match (a.space, a.write) {
                        (BusSpace::Pio, true) => "out",
                        (BusSpace::Pio, false) => "in",
                        (BusSpace::Mmio, true) => "store",
                        (BusSpace::Mmio, false) => "load",
                    };
                    let (space, digits) = (a.space.name(), 2 + 2 * usize::from(a.size));
                    writeln!(out, "{space} {word} {:#x} {} {:#0digits$x}", a.addr, a.size, a.value)
                }
                What::Wait(Some(until)) => writeln!(out, "clock wait until {}", until.0),
                What::Wait(None) => writeln!(out, "clock wait"),
            };
        }
        out
    }
}

/// A machine whose test thread is logged.
pub(super) struct Logged<'m> {
    inner: &'m mut dyn Machine,
    clock: Arc<dyn Clock>,
    log: AccessLog,
}

impl<'m> Logged<'m> {
    pub fn new(inner: &'m mut dyn Machine, log: AccessLog) -> Self {
        let clock = inner.clock();
        Self { inner, clock, log }
    }

    fn access(&self, space: BusSpace, write: bool, addr: u64, size: u8, value: u64) {
        let access = BusAccess { space, write, addr, size, value };
        self.log.push(self.clock.now(), What::Access(access));
    }
}

impl Machine for Logged<'_> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn bus(&mut self) -> Result<&mut dyn Bus> {
        self.inner.bus()?;
        Ok(self)
    }

    // Rings are served elsewhere: there is no access to log.
    fn vrings(&mut self) -> Result<&mut dyn Vrings> {
        self.inner.vrings()
    }

    fn ram(&self) -> Result<Arc<GuestRam>> {
        self.inner.ram()
    }

    fn interrupts(&mut self) -> Result<&mut dyn Interrupts> {
        self.inner.interrupts()
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    fn poll(&mut self) -> Result<bool> {
        self.inner.poll()
    }

    // What another thread does is not in this log.
    fn another_handle(&self) -> Result<Box<dyn Machine + Send>> {
        self.inner.another_handle()
    }

    fn resize_disk(&mut self, disk: usize, bytes: u64) -> Result<()> {
        self.inner.resize_disk(disk, bytes)
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn quit(&mut self) -> Result<()> {
        self.inner.quit()
    }

    fn advance(&mut self, to: Nanos) -> Result<()> {
        self.log.push(self.clock.now(), What::Wait(Some(to)));
        self.inner.advance(to)
    }

    fn settle(&mut self) -> Result<()> {
        self.inner.settle()
    }

    fn obituary(&self) -> Option<Obituary> {
        self.inner.obituary()
    }

    fn wait(&mut self, fds: &[BorrowedFd<'_>], deadline: Option<Nanos>) -> Result<()> {
        self.log.push(self.clock.now(), What::Wait(deadline));
        self.inner.wait(fds, deadline)
    }
}

// A machine that gave its bus once gives it always; were it not so, nothing would answer.
impl Bus for Logged<'_> {
    fn pio_read(&mut self, port: u16, size: u8) -> u32 {
        let value =
            self.inner.bus().map_or(BusAccess::ones(size) as u32, |b| b.pio_read(port, size));
        self.access(BusSpace::Pio, false, port.into(), size, value.into());
        value
    }

    fn pio_write(&mut self, port: u16, size: u8, value: u32) {
        self.access(BusSpace::Pio, true, port.into(), size, value.into());
        if let Ok(bus) = self.inner.bus() {
            bus.pio_write(port, size, value);
        }
    }

    fn pio_post(&mut self, port: u16, size: u8, value: u32) {
        self.access(BusSpace::Pio, true, port.into(), size, value.into());
        if let Ok(bus) = self.inner.bus() {
            bus.pio_post(port, size, value);
        }
    }

    fn mmio_post(&mut self, addr: GuestAddr, size: u8, value: u64) {
        self.access(BusSpace::Mmio, true, addr.0, size, value);
        if let Ok(bus) = self.inner.bus() {
            bus.mmio_post(addr, size, value);
        }
    }

    fn mmio_read(&mut self, addr: GuestAddr, size: u8) -> u64 {
        let value = self.inner.bus().map_or(BusAccess::ones(size), |b| b.mmio_read(addr, size));
        self.access(BusSpace::Mmio, false, addr.0, size, value);
        value
    }

    fn mmio_write(&mut self, addr: GuestAddr, size: u8, value: u64) {
        self.access(BusSpace::Mmio, true, addr.0, size, value);
        if let Ok(bus) = self.inner.bus() {
            bus.mmio_write(addr, size, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::builtin::{BuiltinConfig, BuiltinMachine};

    #[test]
    fn accesses_are_logged_as_they_were_made_and_answered() {
        let log = AccessLog::default();
        let clock = Arc::new(crate::base::VirtualClock::new());
        let machine = BuiltinMachine::new(BuiltinConfig { clock, ..BuiltinConfig::default() });
        let mut machine = machine.unwrap();
        let mut machine = Logged::new(&mut machine, log.clone());
        machine.bus().unwrap().pio_write(0xcf8, 4, 0x8000_0000);
        machine.wait(&[], Some(Nanos(500))).unwrap();
        assert_eq!(machine.bus().unwrap().pio_read(0xcfc, 2), 0x8086);
        let text = log.text();
        let lines: Vec<&str> = text.lines().skip(1).collect();
        let want = [
            "0 port out 0xcf8 4 0x80000000",
            "0 clock wait until 500",
            "500 port in 0xcfc 2 0x8086",
        ];
        assert_eq!(lines, want);
    }

    #[test]
    fn a_long_run_keeps_its_end() {
        let log = AccessLog::default();
        for time in 0..ENTRIES_MAX as u64 + 3 {
            log.push(Nanos(time), What::Wait(None));
        }
        let text = log.text();
        assert!(text.contains("# 3 earlier lines"));
        assert_eq!(text.lines().nth(2), Some("3 clock wait"));
    }
}
