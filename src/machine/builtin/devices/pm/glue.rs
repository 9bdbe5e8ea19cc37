//! The SCI line, and what the rest of the board tells the power management block.

use super::bits::GPE0_BYTES_PC;
use super::chip::PmChip;
use crate::base::Nanos;
use crate::machine::builtin::device::{Device, Wire};
use crate::machine::builtin::devices::lanes;

/// ACPI power management. Window 0 is the I/O block, window 1 GPE0.
#[derive(Debug)]
pub struct Pm {
    chip: PmChip,
    sci: Wire,
}

impl Pm {
    /// A block whose SCI is `sci`, with the GPE0 of an i440fx machine.
    pub fn new(sci: Wire) -> Self {
        Self { chip: PmChip::new(GPE0_BYTES_PC), sci }
    }

    /// The same block with a GPE0 of `bytes`, half of them status and half enables.
    #[must_use]
    pub fn with_gpe_bytes(self, bytes: usize) -> Self {
        Self { chip: PmChip::new(bytes), ..self }
    }

    /// Enters or leaves ACPI mode: SCI_EN, as firmware sets it when the SMI command port is written
    /// with the fixed table's ACPI_ENABLE or ACPI_DISABLE.
    pub fn set_acpi_enabled(&mut self, enabled: bool) {
        self.chip.set_acpi_enabled(enabled);
        self.drive();
    }

    /// Sets these bits of PM1 status: a button, an alarm, a wake.
    pub fn raise(&mut self, events: u16) {
        self.chip.raise(events);
        self.drive();
    }

    /// Sets bit `event` of GPE0's status.
    pub fn raise_gpe(&mut self, event: u32) {
        self.chip.raise_gpe(event);
        self.drive();
    }

    /// The sleep type that software last asked for with SLP_EN; `None` when it never did.
    pub fn sleep_requested(&self) -> Option<u8> {
        self.chip.sleep()
    }

    fn drive(&self) {
        self.sci.set(self.chip.sci());
    }
}

impl Device for Pm {
    fn name(&self) -> &'static str {
        "acpi-pm"
    }

    fn read(&mut self, window: usize, offset: u64, size: u8, now: Nanos) -> u64 {
        self.run(now);
        lanes::read(offset, size, |byte| match window {
            0 => self.chip.read(byte),
            _ => self.chip.read_gpe(byte),
        })
    }

    fn write(&mut self, window: usize, offset: u64, size: u8, value: u64, now: Nanos) {
        self.run(now);
        lanes::write(offset, size, value, |at, byte| match window {
            0 => self.chip.write(at, byte),
            _ => self.chip.write_gpe(at, byte),
        });
        self.drive();
    }

    fn deadline(&self) -> Option<Nanos> {
        self.chip.deadline()
    }

    fn run(&mut self, now: Nanos) {
        self.chip.run(now);
        self.drive();
    }

    fn reset(&mut self, now: Nanos) {
        self.chip.reset(now);
        self.drive();
    }
}
