//! Who can reset the board: a wire (keyboard controller, port 92h), and the chipset's reset control
//! register at port CF9h.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::machine::builtin::device::LineSink;

/// The port of the reset control register (82371SB, RC; ICH9 §13.7, RST_CNT).
pub const RST_CNT: u16 = 0xcf9;
/// RST_CNT bit 2: its rise resets.
const RST_CPU: u8 = 1 << 2;

/// The reset line: remembers that it was pulled until the board has been reset.
#[derive(Default)]
pub struct ResetLine(AtomicBool);

impl ResetLine {
    /// Asks for a reset when the access that is under way has ended.
    pub fn request(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether a reset was asked for since the last call.
    #[inline]
    pub fn take(&self) -> bool {
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::AcqRel)
    }
}

impl LineSink for ResetLine {
    fn set_line(&self, _line: u32, _source: u32, high: bool) {
        if high {
            self.request();
        }
    }
}

/// The reset control register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetControl {
    value: u8,
    /// Bits that keep what is written: hard reset, and full reset where there is one.
    kept: u8,
}

impl ResetControl {
    /// A register that keeps the bits of `kept`.
    pub fn new(kept: u8) -> Self {
        Self { value: 0, kept }
    }

    /// Its value. The bit that resets is never seen set.
    pub fn read(self) -> u8 {
        self.value
    }

    /// Writes it; whether that resets the board.
    pub fn write(&mut self, value: u8) -> bool {
        self.value = value & self.kept;
        value & RST_CPU != 0
    }

    /// The board was reset.
    pub fn reset(&mut self) {
        self.value = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_register_keeps_the_kind_and_fires_on_its_bit() {
        let mut control = ResetControl::new(0x0a);
        assert!(!control.write(0xfb));
        assert_eq!(control.read(), 0x0a);
        assert!(control.write(0x06));
        assert_eq!(control.read(), 0x02);
        control.reset();
        assert_eq!(control.read(), 0);
    }

    #[test]
    fn the_line_is_taken_once() {
        let line = ResetLine::default();
        line.set_line(0, 0, false);
        assert!(!line.take());
        line.set_line(0, 0, true);
        assert!(line.take() && !line.take());
    }
}
