//! The controller's two ports and four lines.

use super::chip::Controller;
use crate::base::Nanos;
use crate::machine::builtin::device::{Device, Wire};
use crate::machine::builtin::devices::lanes;

const DATA: usize = 0;

/// An i8042 with a keyboard and a mouse. Window 0 is port 60h, window 1 is port 64h.
#[derive(Debug)]
pub struct I8042 {
    chip: Controller,
    irq1: Wire,
    irq12: Wire,
    reset: Wire,
    a20: Wire,
}

impl I8042 {
    /// A controller at power on. `irq1` and `irq12` are high while the keyboard's or the mouse's
    /// byte waits, `reset` is pulsed, `a20` is high while the gate is open.
    pub fn new(irq1: Wire, irq12: Wire, reset: Wire, a20: Wire) -> Self {
        let device = Self { chip: Controller::default(), irq1, irq12, reset, a20 };
        device.drive();
        device
    }

    fn drive(&self) {
        self.irq1.set(self.chip.irq1());
        self.irq12.set(self.chip.irq12());
        self.a20.set(self.chip.a20());
    }

    /// Drives the lines as they are, then with the next byte in the output buffer: each byte is an
    /// edge of its own.
    fn settle(&mut self) {
        self.drive();
        self.chip.fill();
        self.drive();
    }

    /// Presses or releases a key: its codes in the scan set in use.
    pub fn press(&mut self, codes: &[u8]) {
        self.chip.keyboard.press(codes);
        self.settle();
    }

    /// Moves the mouse: counts to the right, up, and of the wheel; buttons held (left, right,
    /// middle, fourth, fifth from bit 0).
    pub fn push(&mut self, dx: i16, dy: i16, dz: i8, buttons: u8) {
        self.chip.mouse.push(dx, dy, dz, buttons);
        self.settle();
    }

    fn write_lane(&mut self, window: usize, byte: u8) {
        let reset = match window {
            DATA => self.chip.write_data(byte),
            _ => self.chip.write_command(byte),
        };
        self.settle();
        if reset {
            self.reset.pulse();
        }
    }
}

impl Device for I8042 {
    fn name(&self) -> &'static str {
        "i8042"
    }

    fn read(&mut self, window: usize, offset: u64, size: u8, _now: Nanos) -> u64 {
        lanes::read(offset, size, |_| match window {
            DATA => {
                let byte = self.chip.read_data();
                self.settle();
                byte
            }
            _ => self.chip.read_status(),
        })
    }

    fn write(&mut self, window: usize, offset: u64, size: u8, value: u64, _now: Nanos) {
        lanes::write(offset, size, value, |_, byte| self.write_lane(window, byte));
    }

    fn reset(&mut self, _now: Nanos) {
        self.chip = Controller::default();
        self.drive();
    }
}
