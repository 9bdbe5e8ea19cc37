//! The test thread: it stands where the vCPU would, and is all that a case sees.

use std::fmt::Debug;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::outcome::{Finding, Outcome, Stop};
use crate::base::options::Options;
use crate::base::{GuestAddr, Nanos, Prng, Result, TimeGrade};
use crate::machine::{GuestRam, IrqEvent, IrqSource, Machine};

/// Waits after which no time has passed, before it is taken for granted that none will: a machine
/// first ends what is under way, and where nothing has a deadline its time stands.
const STANDS_MAX: u32 = 4;

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

    /// Lets the machine get on: with what is under way first, then with `most` of its clock's time
    /// at most. Whoever waits for something looks for it after each call.
    pub fn get_on(&mut self, most: Nanos) -> Outcome {
        let end = Nanos(self.now().0.saturating_add(most.0));
        Ok(self.machine.wait(&[], Some(end))?)
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

    /// The moment at which `event` fires next, within `time`; its count is taken. Exact on every
    /// virtual clock, if a timer of the machine's brings it. Where commands step the clock
    /// ([`TimeGrade::ClockStepped`]) only the next deadline of any device can be stepped to, so
    /// time may have passed beyond the end when none came.
    pub fn expect_next_irq(&mut self, what: &str, event: &IrqEvent, time: Nanos) -> Outcome<Nanos> {
        let end = Nanos(self.now().0.saturating_add(time.0));
        let stepped = self.machine.clock().grade() == TimeGrade::ClockStepped;
        let mut stood = 0;
        while event.take() == 0 {
            let now = self.now();
            if now >= end || stood > STANDS_MAX {
                return self.failed(what, format!("an interrupt within {} ns", time.0), "none");
            }
            self.machine.wait(&[event.fd()], if stepped { None } else { Some(end) })?;
            stood = if stepped && self.now() == now { stood + 1 } else { 0 };
        }
        let now = self.now();
        if now > end {
            let came = format!("{} ns later", now - end);
            return self.failed(what, format!("an interrupt within {} ns", time.0), came);
        }
        Ok(now)
    }

    /// Lets time pass until `at`, when `event` fires: it has not since it was taken last, and does
    /// not a nanosecond earlier. Takes its count. Exact on every virtual clock, unlike the time
    /// after [`TestThread::wait_any`].
    pub fn expect_irq_at(&mut self, what: &str, event: &IrqEvent, at: Nanos) -> Outcome<u64> {
        self.expect_irq_between(what, event, (at, at))
    }

    /// As [`TestThread::expect_irq_at`], for a moment from `first` to `last`.
    pub fn expect_irq_between(
        &mut self,
        what: &str,
        event: &IrqEvent,
        (first, last): (Nanos, Nanos),
    ) -> Outcome<u64> {
        if first.0 > 0 {
            self.expect_quiet_until(what, event, Nanos(first.0 - 1))?;
        }
        self.run_until(last)?;
        match event.take() {
            0 if first == last => {
                self.failed(what, format!("an interrupt at {} ns", last.0), "none by then")
            }
            0 => self.failed(
                what,
                format!("an interrupt from {} to {} ns", first.0, last.0),
                "none by then",
            ),
            count => Ok(count),
        }
    }

    /// Lets time pass until `end`: `event` has not fired since it was taken last, and does not by
    /// then.
    pub fn expect_quiet_until(&mut self, what: &str, event: &IrqEvent, end: Nanos) -> Outcome {
        self.run_until(end)?;
        match event.take() {
            0 => Ok(()),
            count => self.failed(
                what,
                format!("no interrupt up to {} ns", end.0),
                format!("{count} by then"),
            ),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::builtin::device::{Device, Wire};
    use crate::suite::outcome::Stop;
    use crate::suite::testbed::Testbed;

    /// Interrupts once, at 1000 ns.
    struct Once {
        wire: Wire,
        done: bool,
    }

    impl Device for Once {
        fn name(&self) -> &'static str {
            "once"
        }

        fn read(&mut self, _: usize, _: u64, _: u8, _: Nanos) -> u64 {
            0
        }

        fn write(&mut self, _: usize, _: u64, _: u8, _: u64, _: Nanos) {}

        fn deadline(&self) -> Option<Nanos> {
            (!self.done).then_some(Nanos(1000))
        }

        fn run(&mut self, _: Nanos) {
            self.done = true;
            self.wire.pulse();
        }

        fn reset(&mut self, _: Nanos) {}
    }

    /// What `look` finds on a machine that interrupts once.
    fn once<T>(look: impl Fn(&mut TestThread<'_>, &IrqEvent) -> Outcome<T>) -> Outcome<T> {
        let mut machine =
            Testbed::new(&[], |wire, _| Box::new(Once { wire: wire(3), done: false }));
        let mut thread = TestThread::new(&mut machine, Options::default(), 1);
        let event = thread.watch(IrqSource::Intx(3))?;
        look(&mut thread, &event)
    }

    fn got<T: Debug>(outcome: Outcome<T>) -> String {
        match outcome {
            Err(Stop::Failed(finding)) => finding.got,
            other => panic!("no finding: {other:?}"),
        }
    }

    #[test]
    fn a_moment_is_exact_to_both_sides() {
        assert_eq!(once(|t, e| t.expect_irq_at("x", e, Nanos(1000))).unwrap(), 1);
        assert_eq!(got(once(|t, e| t.expect_irq_at("x", e, Nanos(999)))), "none by then");
        assert_eq!(got(once(|t, e| t.expect_irq_at("x", e, Nanos(1001)))), "1 by then");
        let between =
            |first, last| once(|t, e| t.expect_irq_between("x", e, (Nanos(first), Nanos(last))));
        assert_eq!(between(1000, 1001).unwrap(), 1);
        assert_eq!(between(0, 1000).unwrap(), 1);
        assert_eq!(got(between(1001, 1002)), "1 by then");
        assert_eq!(got(between(998, 999)), "none by then");
        once(|t, e| t.expect_quiet_until("x", e, Nanos(999))).unwrap();
        assert_eq!(got(once(|t, e| t.expect_quiet_until("x", e, Nanos(1000)))), "1 by then");
    }

    #[test]
    fn the_next_moment_is_found() {
        assert_eq!(once(|t, e| t.expect_next_irq("x", e, Nanos(5000))).unwrap(), Nanos(1000));
        assert_eq!(got(once(|t, e| t.expect_next_irq("x", e, Nanos(999)))), "none");
        let twice = |t: &mut TestThread<'_>, e: &IrqEvent| {
            t.expect_next_irq("x", e, Nanos(1000))?;
            t.expect_next_irq("x", e, Nanos(1000))
        };
        assert_eq!(got(once(twice)), "none");
    }
}
