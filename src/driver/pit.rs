//! The interval timer as software uses it: Intel 8254 at ports 40h to 43h, and port 61h, which
//! gates its counter 2.

use crate::base::{Error, Frequency, Nanos, Result};
use crate::machine::{Bus, Machine};

/// What the counters count, on a PC.
pub const CLOCK: Frequency = Frequency::new(1_193_182);

/// Port of counter 0; the others follow.
const COUNTER0: u16 = 0x40;
/// Port of the control word.
const CONTROL: u16 = 0x43;
/// System control port B.
const PORT_61: u16 = 0x61;

/// Port 61h: GATE of counter 2.
pub const GATE2: u8 = 1 << 0;
/// Port 61h: OUT2 reaches the speaker.
pub const SPEAKER: u8 = 1 << 1;
/// Port 61h: changes with each refresh of the memory; read only.
pub const REFRESH: u8 = 1 << 4;
/// Port 61h: OUT of counter 2; read only.
pub const OUT2: u8 = 1 << 5;

/// Which bytes of a count are written and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The least significant; the other is 0.
    Low = 1,
    /// The most significant; the other is 0.
    High = 2,
    /// The least significant, then the most significant.
    Both = 3,
}

/// What a control word says of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// 0 to 2.
    pub counter: u8,
    /// 0 to 5; 6 and 7 are 2 and 3.
    pub mode: u8,
    /// Bytes of a count.
    pub access: Access,
    /// Four decades instead of 16 bits.
    pub bcd: bool,
}

impl Control {
    /// Binary counts of two bytes.
    pub const fn new(counter: u8, mode: u8) -> Self {
        Self { counter, mode, access: Access::Both, bcd: false }
    }

    /// The byte that is written to port 43h.
    pub const fn word(self) -> u8 {
        self.counter << 6 | self.status()
    }

    /// The part that a status byte shows again.
    pub const fn status(self) -> u8 {
        (self.access as u8) << 4 | (self.mode & 7) << 1 | self.bcd as u8
    }

    /// Writes the control word. The counter waits for a count.
    pub fn write(self, bus: &mut dyn Bus) {
        bus.pio_write(CONTROL, 1, self.word().into());
    }

    /// Writes the control word and the bytes of `count` that belong to it. 0 is the largest count.
    pub fn start(self, bus: &mut dyn Bus, count: u16) {
        self.write(bus);
        self.write_count(bus, count);
    }

    /// Writes the bytes of a count.
    pub fn write_count(self, bus: &mut dyn Bus, count: u16) {
        let [low, high] = count.to_le_bytes();
        if self.access != Access::High {
            write_byte(bus, self.counter, low);
        }
        if self.access != Access::Low {
            write_byte(bus, self.counter, high);
        }
    }

    /// Reads the count as it stands, or as it was latched. Bytes that are not read are 0.
    pub fn read_count(self, bus: &mut dyn Bus) -> u16 {
        let mut byte = |wanted| if wanted { read_byte(bus, self.counter) } else { 0 };
        let low = byte(self.access != Access::High);
        u16::from_le_bytes([low, byte(self.access != Access::Low)])
    }

    /// Latches the count and reads it: both bytes are of one moment.
    pub fn latch_count(self, bus: &mut dyn Bus) -> u16 {
        latch(bus, self.counter);
        self.read_count(bus)
    }
}

/// Ends the interrupts of counter 0, as software does that has another timer: a last count in mode
/// 0, which ends after 55 ms with OUT high for good ("Mode 0: Interrupt on Terminal Count").
pub fn park(bus: &mut dyn Bus) {
    Control::new(0, 0).start(bus, 0);
}

/// Writes one byte of a count.
pub fn write_byte(bus: &mut dyn Bus, counter: u8, byte: u8) {
    bus.pio_write(COUNTER0 + u16::from(counter & 3), 1, byte.into());
}

/// Reads one byte of a counter.
pub fn read_byte(bus: &mut dyn Bus, counter: u8) -> u8 {
    bus.pio_read(COUNTER0 + u16::from(counter & 3), 1) as u8
}

/// The counter latch command: holds the count until it is read.
pub fn latch(bus: &mut dyn Bus, counter: u8) {
    bus.pio_write(CONTROL, 1, (counter << 6).into());
}

/// What the read-back command latches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Latch {
    /// The counts.
    Count,
    /// The status bytes.
    Status,
    /// Both; the status is read first.
    Both,
}

/// The read-back command for `counters`, one bit each.
pub fn read_back(bus: &mut dyn Bus, counters: u8, what: Latch) {
    let without = match what {
        Latch::Count => 1 << 4,
        Latch::Status => 1 << 5,
        Latch::Both => 0,
    };
    bus.pio_write(CONTROL, 1, (0xc0 | without | (counters & 7) << 1).into());
}

/// A status byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The OUT pin.
    pub out: bool,
    /// The count written last is not counted yet.
    pub null_count: bool,
    /// The rest: as [`Control::status`].
    pub control: u8,
}

impl From<u8> for Status {
    fn from(byte: u8) -> Self {
        Self { out: byte >> 7 != 0, null_count: byte >> 6 & 1 != 0, control: byte & 0x3f }
    }
}

/// Latches and reads the status of a counter.
pub fn status(bus: &mut dyn Bus, counter: u8) -> Status {
    read_back(bus, 1 << counter.min(2), Latch::Status);
    read_byte(bus, counter).into()
}

/// Reads port 61h.
pub fn read_port_61(bus: &mut dyn Bus) -> u8 {
    bus.pio_read(PORT_61, 1) as u8
}

/// Writes port 61h.
pub fn write_port_61(bus: &mut dyn Bus, value: u8) {
    bus.pio_write(PORT_61, 1, value.into());
}

/// OUT of counter 2.
pub fn out2(bus: &mut dyn Bus) -> bool {
    read_port_61(bus) & OUT2 != 0
}

/// Waits `clocks` of counter 2 (0: 65,536), as firmware does: mode 0, and a look at OUT2 now and
/// then. The speaker is off afterwards.
///
/// # Errors
/// OUT2 did not rise in twice the time, or the machine died.
pub fn wait(machine: &mut dyn Machine, clocks: u16) -> Result<()> {
    const STEPS: u64 = 64;
    let bus = machine.bus()?;
    write_port_61(bus, GATE2);
    Control::new(2, 0).start(bus, clocks);
    let whole = CLOCK.time_of(if clocks == 0 { 0x1_0000 } else { clocks.into() });
    let clock = machine.clock();
    let end = clock.now() + whole.0.saturating_mul(2).max(10_000);
    loop {
        if out2(machine.bus()?) {
            write_port_61(machine.bus()?, 0);
            return Ok(());
        }
        let now = clock.now();
        if now >= end {
            return Err(Error::machine("counter 2 of the interval timer does not end"));
        }
        let pause = Nanos(now.0.saturating_add((whole.0 / STEPS).max(1_000)));
        while clock.now() < pause {
            machine.wait(&[], Some(pause))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::GuestAddr;
    use crate::machine::builtin::device::{Device, LineProbe, Wire};
    use crate::machine::builtin::devices::pit::Pit;

    /// A timer at its ports, at time 0.
    struct Ports(Pit);

    impl Bus for Ports {
        fn pio_read(&mut self, port: u16, size: u8) -> u32 {
            self.0.read(0, u64::from(port - COUNTER0), size, Nanos(0)) as u32
        }

        fn pio_write(&mut self, port: u16, size: u8, value: u32) {
            self.0.write(0, u64::from(port - COUNTER0), size, value.into(), Nanos(0));
        }

        fn mmio_read(&mut self, _addr: GuestAddr, _size: u8) -> u64 {
            0
        }

        fn mmio_write(&mut self, _addr: GuestAddr, _size: u8, _value: u64) {}
    }

    #[test]
    fn a_parked_timer_interrupts_once_more_at_most() {
        let probe = Arc::new(LineProbe::default());
        let mut ports = Ports(Pit::new(Wire::new(Arc::<LineProbe>::clone(&probe), 0, 0)));
        Control::new(0, 2).start(&mut ports, 1000);
        assert!(ports.0.deadline().is_some());
        park(&mut ports);
        let (_, edges) = probe.line(0);
        let end = ports.0.deadline().unwrap();
        assert!(end <= CLOCK.time_of(0x1_0001), "{end:?}");
        ports.0.run(end);
        assert_eq!(probe.line(0), (true, edges + 1));
        assert_eq!(ports.0.deadline(), None);
    }
}
