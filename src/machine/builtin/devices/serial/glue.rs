//! The port's registers, its interrupt, and the line.

use super::chip::Uart;
use super::line::SerialLine;
use crate::base::Nanos;
use crate::machine::builtin::device::{Device, Wire};
use crate::machine::builtin::devices::lanes;

/// A serial port. Window 0 is its eight ports, 3F8h to 3FFh for the first.
#[derive(Debug)]
pub struct Serial {
    chip: Uart,
    interrupt: Wire,
    line: SerialLine,
}

impl Serial {
    /// A port at power on; `irq4` is high while an enabled interrupt is pending.
    pub fn new(irq4: Wire) -> Self {
        Self { chip: Uart::default(), interrupt: irq4, line: SerialLine::default() }
    }

    /// The far end of its line.
    pub fn line(&self) -> SerialLine {
        self.line.clone()
    }

    fn drive(&self) {
        self.interrupt.set(self.chip.interrupt());
    }

    /// Takes what the line brings, as far as there is room.
    fn fill(&mut self, now: Nanos) {
        let room = self.chip.room();
        if room > 0 && self.line.is_waiting() {
            for byte in self.line.take(room) {
                self.chip.receive(byte, now);
            }
        }
    }
}

impl Device for Serial {
    fn name(&self) -> &'static str {
        "serial"
    }

    fn read(&mut self, _window: usize, offset: u64, size: u8, now: Nanos) -> u64 {
        lanes::read(offset, size, |register| {
            self.fill(now);
            let value = self.chip.read(register, now);
            self.drive();
            value
        })
    }

    fn write(&mut self, _window: usize, offset: u64, size: u8, value: u64, now: Nanos) {
        lanes::write(offset, size, value, |register, byte| {
            self.fill(now);
            self.chip.write(register, byte, now);
            // The holding register is full for a moment: each character is an edge of its own.
            self.drive();
            if let Some(byte) = self.chip.transmit(now) {
                self.line.output().push(byte);
            }
            self.drive();
        });
    }

    /// At once when the line brings something, else the chip's character timeout.
    fn deadline(&self) -> Option<Nanos> {
        if self.chip.room() > 0 && self.line.is_waiting() {
            return Some(Nanos(0));
        }
        self.chip.deadline()
    }

    fn run(&mut self, now: Nanos) {
        self.fill(now);
        self.chip.advance(now);
        self.drive();
    }

    fn reset(&mut self, _now: Nanos) {
        self.chip = Uart::default();
        self.drive();
    }
}
