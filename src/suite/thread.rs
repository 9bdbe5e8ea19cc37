//! The test thread: it stands where the vCPU would, and is all that a case sees.

use std::fmt::Debug;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::outcome::{Finding, Outcome, Stop};
use crate::base::options::Options;
use crate::base::{GuestAddr, Nanos, Prng, Result};
use crate::machine::{GuestRam, IrqEvent, IrqSource, Machine};

/// A thread of a test, with the machine it drives.
pub struct TestThread<'m> {
    machine: &'m mut dyn Machine,
    options: Options,
    prng: Prng,
    lines: Vec<String>,
}

impl<'m> TestThread<'m> {
    /// A thread on `machine` with the options of its case; `seed` is its randomness.
    pub fn new(machine: &'m mut dyn Machine, options: Options, seed: u64) -> Self {
        Self { machine, options, prng: Prng::new(seed), lines: Vec::new() }
    }

    /// The machine.
    pub fn machine(&mut self) -> &mut dyn Machine {
        self.machine
    }

    /// The options of the case, as given.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The case's randomness; it follows from `--seed`.
    pub fn prng(&mut self) -> &mut Prng {
        &mut self.prng
    }

    /// Prints a line with the case's result: a figure, a reading.
    pub fn say(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// Takes what was said.
    pub fn take_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    /// `in` of `size` bytes; all ones where the machine has no ports.
    pub fn port_in(&mut self, port: u16, size: u8) -> Outcome<u32> {
        Ok(self.machine.bus()?.pio_read(port, size))
    }

    /// `out` of `size` bytes.
    pub fn port_out(&mut self, port: u16, size: u8, value: u32) -> Outcome {
        self.machine.bus()?.pio_write(port, size, value);
        Ok(())
    }

    /// `in` of a byte.
    pub fn inb(&mut self, port: u16) -> Outcome<u8> {
        Ok(self.port_in(port, 1)? as u8)
    }

    /// `in` of 16 bits.
    pub fn inw(&mut self, port: u16) -> Outcome<u16> {
        Ok(self.port_in(port, 2)? as u16)
    }

    /// `in` of 32 bits.
    pub fn inl(&mut self, port: u16) -> Outcome<u32> {
        self.port_in(port, 4)
    }

    /// `out` of a byte.
    pub fn outb(&mut self, port: u16, value: u8) -> Outcome {
        self.port_out(port, 1, value.into())
    }

    /// `out` of 16 bits.
    pub fn outw(&mut self, port: u16, value: u16) -> Outcome {
        self.port_out(port, 2, value.into())
    }

    /// `out` of 32 bits.
    pub fn outl(&mut self, port: u16, value: u32) -> Outcome {
        self.port_out(port, 4, value)
    }

    /// A load of `size` bytes from memory-mapped registers.
    pub fn load(&mut self, addr: u64, size: u8) -> Outcome<u64> {
        Ok(self.machine.bus()?.mmio_read(GuestAddr(addr), size))
    }

    /// A store of `size` bytes to memory-mapped registers.
    pub fn store(&mut self, addr: u64, size: u8, value: u64) -> Outcome {
        self.machine.bus()?.mmio_write(GuestAddr(addr), size, value);
        Ok(())
    }

    /// A 32-bit load.
    pub fn readl(&mut self, addr: u64) -> Outcome<u32> {
        Ok(self.load(addr, 4)? as u32)
    }

    /// A 32-bit store.
    pub fn writel(&mut self, addr: u64, value: u32) -> Outcome {
        self.store(addr, 4, value.into())
    }

    /// Guest RAM.
    pub fn ram(&self) -> Outcome<Arc<GuestRam>> {
        Ok(self.machine.ram()?)
    }

    /// The machine's time.
    pub fn now(&self) -> Nanos {
        self.machine.clock().now()
    }

    /// Lets `time` pass on the machine's clock; devices act at their moments.
    pub fn step(&mut self, time: Nanos) -> Outcome {
        let end = Nanos(self.now().0.saturating_add(time.0));
        self.run_until(end)
    }

    /// Lets time pass until the machine's clock reads `end`.
    pub fn run_until(&mut self, end: Nanos) -> Outcome {
        while self.now() < end {
            self.machine.wait(&[], Some(end))?;
        }
        Ok(())
    }

    /// Watches an interrupt; the event counts from now on.
    pub fn watch(&mut self, source: IrqSource) -> Outcome<Arc<IrqEvent>> {
        let event = self.machine.interrupts()?.watch(source)?;
        event.take();
        Ok(event)
    }

    /// Waits until one of `events` has fired, at most `time` of the machine's clock. Its index, or
    /// `None` when the time was up. The event's count is left to the caller to take.
    pub fn wait_any(&mut self, events: &[&IrqEvent], time: Nanos) -> Outcome<Option<usize>> {
        let end = Nanos(self.now().0.saturating_add(time.0));
        let fds: Vec<BorrowedFd<'_>> = events.iter().map(|event| event.fd()).collect();
        loop {
            if let Some(index) = first_ready(&fds)? {
                return Ok(Some(index));
            }
            if self.now() >= end {
                return Ok(None);
            }
            self.machine.wait(&fds, Some(end))?;
        }
    }

    /// Waits for one event as [`TestThread::wait_any`] does, and takes its count; a finding when
    /// it does not come.
    pub fn expect_irq(&mut self, what: &str, event: &IrqEvent, time: Nanos) -> Outcome<u64> {
        if self.wait_any(&[event], time)?.is_none() {
            return self.failed(what, format!("an interrupt within {} ns", time.0), "none");
        }
        Ok(event.take())
    }

    /// A finding now.
    pub fn failed<T>(
        &self,
        what: impl Into<String>,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> Outcome<T> {
        Err(Finding {
            what: what.into(),
            expected: expected.into(),
            got: got.into(),
            time_ns: self.now(),
        }
        .into())
    }

    /// A finding unless `got` is `expected`. Numbers are shown in hexadecimal.
    pub fn expect<T: PartialEq + Debug>(&self, what: &str, got: T, expected: T) -> Outcome {
        if got == expected {
            return Ok(());
        }
        self.failed(what, format!("{expected:#x?}"), format!("{got:#x?}"))
    }

    /// A finding unless `holds`.
    pub fn check(&self, holds: bool, what: impl Into<String>) -> Outcome {
        if holds { Ok(()) } else { self.failed(what, "", "it does not hold") }
    }

    /// Ends the case as skipped.
    pub fn skip<T>(&self, reason: impl Into<String>) -> Outcome<T> {
        Err(Stop::skipped(reason))
    }
}

/// The first descriptor that can be read now.
fn first_ready(fds: &[BorrowedFd<'_>]) -> Result<Option<usize>> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut list: Vec<PollFd<'_>> =
        fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    match poll(&mut list, PollTimeout::ZERO) {
        Ok(0) | Err(nix::errno::Errno::EINTR) => Ok(None),
        Ok(_) => Ok(list.iter().position(|fd| fd.any().unwrap_or(false))),
        Err(e) => Err(crate::base::Error::machine("polling interrupts failed").source(e)),
    }
}
