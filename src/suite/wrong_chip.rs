//! Chips that are wrong on purpose: a right one behind a fault.

use crate::base::{BusAccess, Nanos};
use crate::machine::builtin::device::Device;

/// What a read shows instead: window, offset, right value.
pub type Read = fn(usize, u64, u64) -> u64;

/// What a write does instead: window, offset, value; `None` loses it.
pub type Write = fn(usize, u64, u64) -> Option<u64>;

/// A fault. Each part of it is off in [`Fault::NONE`].
#[derive(Clone, Copy)]
pub struct Fault {
    /// Of reads.
    pub read: Read,
    /// Of writes.
    pub write: Write,
    /// How fast the chip's time goes, in parts of a million.
    pub speed_ppm: u64,
}

impl Fault {
    /// A right chip.
    pub const NONE: Self =
        Self { read: |_, _, value| value, write: |_, _, value| Some(value), speed_ppm: 1_000_000 };

    /// Wrong reads.
    pub fn reading(read: Read) -> Self {
        Self { read, ..Self::NONE }
    }

    /// Wrong writes.
    pub fn writing(write: Write) -> Self {
        Self { write, ..Self::NONE }
    }

    /// Time that goes at another speed.
    pub fn running(speed_ppm: u64) -> Self {
        Self { speed_ppm, ..Self::NONE }
    }

    /// This fault in front of `device`.
    pub fn on(self, device: impl Device + 'static) -> Box<dyn Device> {
        Box::new(Wrong { device: Box::new(device), fault: self })
    }

    fn inside(&self, time: Nanos) -> Nanos {
        Nanos((u128::from(time.0) * u128::from(self.speed_ppm) / 1_000_000) as u64)
    }

    fn outside(&self, time: Nanos) -> Nanos {
        Nanos((u128::from(time.0) * 1_000_000).div_ceil(self.speed_ppm.into()) as u64)
    }
}

struct Wrong {
    device: Box<dyn Device>,
    fault: Fault,
}

impl Device for Wrong {
    fn name(&self) -> &'static str {
        self.device.name()
    }

    fn read(&mut self, window: usize, offset: u64, size: u8, now: Nanos) -> u64 {
        let value = self.device.read(window, offset, size, self.fault.inside(now));
        (self.fault.read)(window, offset, value) & BusAccess::ones(size)
    }

    fn write(&mut self, window: usize, offset: u64, size: u8, value: u64, now: Nanos) {
        if let Some(value) = (self.fault.write)(window, offset, value) {
            let value = value & BusAccess::ones(size);
            self.device.write(window, offset, size, value, self.fault.inside(now));
        }
    }

    fn deadline(&self) -> Option<Nanos> {
        self.device.deadline().map(|time| self.fault.outside(time))
    }

    fn run(&mut self, now: Nanos) {
        self.device.run(self.fault.inside(now));
    }

    fn reset(&mut self, now: Nanos) {
        self.device.reset(self.fault.inside(now));
    }
}
