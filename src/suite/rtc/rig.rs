//! A machine of one RTC that can be wrong, for the tests of these cases.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::base::{Clock, Error, GuestAddr, Nanos, Result};
use crate::machine::builtin::device::{Device, LineSink, Wire};
use crate::machine::builtin::devices::rtc::{Rtc, RtcConfig};
use crate::machine::{Bus, Capabilities, GuestRam, Interrupts, IrqEvent, IrqSource, Machine};

/// Interrupt 8: its level, and an event for each rise.
struct Line {
    level: AtomicBool,
    event: Arc<IrqEvent>,
}

impl LineSink for Line {
    fn set_line(&self, _line: u32, _source: u32, high: bool) {
        if !self.level.swap(high, Ordering::AcqRel) && high {
            self.event.signal();
        }
    }
}

/// What is wrong with an RTC: what a read of `index` gives instead of `value`.
pub type Fault = fn(index: u8, value: u8) -> u8;

/// The machine.
pub struct Rig {
    rtc: Rtc,
    index: u8,
    fault: Fault,
    line: Arc<Line>,
    clock: Arc<dyn Clock>,
}

impl Rig {
    /// A machine with a right RTC, on `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let event = Arc::new(IrqEvent::new().unwrap());
        let line = Arc::new(Line { level: AtomicBool::new(false), event });
        let wire = Wire::new(Arc::<Line>::clone(&line), 8, 0);
        Self {
            rtc: Rtc::new(RtcConfig::default(), wire),
            index: 0,
            fault: |_, value| value,
            line,
            clock,
        }
    }

    /// The same with a fault.
    pub fn faulty(self, fault: Fault) -> Self {
        Self { fault, ..self }
    }

    fn run_due(&mut self) -> bool {
        let now = self.clock.now();
        let due = self.rtc.deadline().is_some_and(|deadline| deadline <= now);
        if due {
            self.rtc.run(now);
        }
        due
    }
}

/// Where a port is in the chip's window, if it is there.
fn offset(port: u16) -> Option<u64> {
    port.checked_sub(0x70).filter(|offset| *offset < 2).map(u64::from)
}

impl Bus for Rig {
    fn pio_read(&mut self, port: u16, size: u8) -> u32 {
        self.run_due();
        let Some(offset) = offset(port) else { return u32::MAX };
        let value = self.rtc.read(0, offset, size, self.clock.now());
        (self.fault)(self.index, value as u8).into()
    }

    fn pio_write(&mut self, port: u16, size: u8, value: u32) {
        self.run_due();
        let Some(offset) = offset(port) else { return };
        if offset == 0 {
            self.index = value as u8 & 0x7f;
        }
        self.rtc.write(0, offset, size, value.into(), self.clock.now());
    }

    fn mmio_read(&mut self, _addr: GuestAddr, _size: u8) -> u64 {
        u64::MAX
    }

    fn mmio_write(&mut self, _addr: GuestAddr, _size: u8, _value: u64) {}
}

impl Interrupts for Rig {
    fn watch(&mut self, source: IrqSource) -> Result<Arc<IrqEvent>> {
        assert_eq!(source, IrqSource::Intx(8));
        Ok(Arc::clone(&self.line.event))
    }

    fn intx_level(&self, irq: u32) -> bool {
        irq == 8 && self.line.level.load(Ordering::Acquire)
    }
}

impl Machine for Rig {
    fn name(&self) -> &str {
        "rig"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::PIO | Capabilities::INTX | Capabilities::VIRTUAL_CLOCK | Capabilities::TIMERS
    }

    fn bus(&mut self) -> Result<&mut dyn Bus> {
        Ok(self)
    }

    fn ram(&self) -> Result<Arc<GuestRam>> {
        Err(Error::machine("the rig has no RAM"))
    }

    fn interrupts(&mut self) -> Result<&mut dyn Interrupts> {
        Ok(self)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    fn poll(&mut self) -> Result<bool> {
        Ok(self.run_due())
    }

    fn wait(&mut self, fds: &[BorrowedFd<'_>], deadline: Option<Nanos>) -> Result<()> {
        let mut list: Vec<_> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        if self.run_due() || poll(&mut list, PollTimeout::ZERO).unwrap() > 0 {
            return Ok(());
        }
        let next = self.rtc.deadline().into_iter().chain(deadline).min().unwrap();
        if self.clock.is_virtual() {
            self.clock.advance_to(next);
        } else {
            let millis = (next - self.clock.now()).div_ceil(1_000_000) as u16;
            poll(&mut [], PollTimeout::from(millis)).unwrap();
        }
        self.run_due();
        Ok(())
    }
}
