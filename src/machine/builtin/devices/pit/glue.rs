//! Where OUT0 goes, and when it changes.

use super::bits::LATE_EDGES_MAX;
use super::chip::{PitChip, Refresh};
use crate::base::Nanos;
use crate::machine::builtin::device::{Device, Wire};
use crate::machine::builtin::devices::lanes;

/// The interval timer. Window 0 is ports 40h to 43h, window 1 port 61h.
#[derive(Debug)]
pub struct Pit {
    chip: PitChip,
    irq0: Wire,
    irq0_enabled: bool,
}

impl Pit {
    /// A timer whose OUT0 is `irq0`.
    pub fn new(irq0: Wire) -> Self {
        Self { chip: PitChip::new(Refresh::default()), irq0, irq0_enabled: true }
    }

    /// The same timer with this behaviour of the refresh bit.
    #[must_use]
    pub fn with_refresh(self, refresh: Refresh) -> Self {
        Self { chip: PitChip::new(refresh), ..self }
    }

    /// Connects OUT0 to its interrupt or takes it off: the HPET has interrupt 0 while its legacy
    /// replacement route is on.
    pub fn set_irq0_enabled(&mut self, enabled: bool) {
        self.irq0_enabled = enabled;
        self.drive();
    }

    fn drive(&self) {
        self.irq0.set(self.irq0_enabled && self.chip.out0());
    }

    /// Changes of OUT0 up to `now`, each at its moment, then `now`.
    fn catch_up(&mut self, now: Nanos) {
        for _ in 0..LATE_EDGES_MAX {
            let Some(edge) = self.deadline().filter(|edge| *edge <= now) else { break };
            self.chip.run(edge);
            self.drive();
        }
        self.chip.run(now);
        self.drive();
    }
}

impl Device for Pit {
    fn name(&self) -> &'static str {
        "pit"
    }

    fn read(&mut self, window: usize, offset: u64, size: u8, now: Nanos) -> u64 {
        self.catch_up(now);
        // An 8-bit chip: a wider access is one of each port in turn.
        lanes::read(offset, size, |port| match window {
            0 => self.chip.read(port, now),
            _ => self.chip.read_nmisc(now),
        })
    }

    fn write(&mut self, window: usize, offset: u64, size: u8, value: u64, now: Nanos) {
        self.catch_up(now);
        lanes::write(offset, size, value, |port, byte| {
            match window {
                0 => self.chip.write(port, byte, now),
                _ => self.chip.write_nmisc(byte, now),
            }
            self.drive();
        });
    }

    fn deadline(&self) -> Option<Nanos> {
        self.chip.deadline().filter(|_| self.irq0_enabled)
    }

    fn run(&mut self, now: Nanos) {
        self.catch_up(now);
    }

    fn reset(&mut self, now: Nanos) {
        self.chip.reset(now);
        self.drive();
    }
}
