//! The power management device with its second master: commands at the APM port turn ACPI on and
//! off, as the SMI handler of a PC's firmware does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::device::{Device, LineSink};
use super::devices::pm::Pm;
use crate::base::Nanos;

/// A power management device that two reach: the bus, and the APM port by wire.
#[derive(Clone)]
pub(super) struct AcpiPm(Arc<Mutex<Pm>>);

impl AcpiPm {
    pub fn new(pm: Pm) -> Self {
        Self(Arc::new(Mutex::new(pm)))
    }

    fn pm(&self) -> MutexGuard<'_, Pm> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device for AcpiPm {
    fn name(&self) -> &'static str {
        self.pm().name()
    }

    fn read(&mut self, window: usize, offset: u64, size: u8, now: Nanos) -> u64 {
        self.pm().read(window, offset, size, now)
    }

    fn write(&mut self, window: usize, offset: u64, size: u8, value: u64, now: Nanos) {
        self.pm().write(window, offset, size, value, now);
    }

    fn deadline(&self) -> Option<Nanos> {
        self.pm().deadline()
    }

    fn run(&mut self, now: Nanos) {
        self.pm().run(now);
    }

    fn reset(&mut self, now: Nanos) {
        self.pm().reset(now);
    }
}

/// High: ACPI mode.
impl LineSink for AcpiPm {
    fn set_line(&self, _line: u32, _source: u32, high: bool) {
        self.pm().set_acpi_enabled(high);
    }
}
