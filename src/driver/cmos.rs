//! The real-time clock and CMOS RAM of a PC, as a guest uses them: MC146818 behind ports 70h, 71h.
//!
//! Nothing here waits. Where the chip wants time to pass (an update in progress), the caller is
//! told and lets it pass on the machine's clock.

use crate::base::{Error, Result};
use crate::machine::Bus;

/// Selects a byte; bit 7 keeps NMI away.
pub const PORT_INDEX: u16 = 0x70;
/// The selected byte.
pub const PORT_DATA: u16 = 0x71;

/// Seconds.
pub const SECONDS: u8 = 0x00;
/// Seconds of the alarm.
pub const SECONDS_ALARM: u8 = 0x01;
/// Minutes.
pub const MINUTES: u8 = 0x02;
/// Minutes of the alarm.
pub const MINUTES_ALARM: u8 = 0x03;
/// Hours.
pub const HOURS: u8 = 0x04;
/// Hours of the alarm.
pub const HOURS_ALARM: u8 = 0x05;
/// Day of the week, 1 for Sunday.
pub const DAY_OF_THE_WEEK: u8 = 0x06;
/// Day of the month.
pub const DATE_OF_THE_MONTH: u8 = 0x07;
/// Month, from 1.
pub const MONTH: u8 = 0x08;
/// Year of the century.
pub const YEAR: u8 = 0x09;
/// Divider and rate.
pub const REGISTER_A: u8 = 0x0a;
/// Modes and interrupt enables.
pub const REGISTER_B: u8 = 0x0b;
/// Interrupt flags; reading clears them.
pub const REGISTER_C: u8 = 0x0c;
/// Valid RAM and time.
pub const REGISTER_D: u8 = 0x0d;
/// Century, on PCs.
pub const CENTURY: u8 = 0x32;

/// Register A: update in progress, or about to begin.
pub const A_UIP: u8 = 0x80;
/// Register A: the divider on its 32.768 kHz time base, no periodic rate.
pub const A_DIVIDER_32KHZ: u8 = 0x20;
/// Register A: the divider held in reset.
pub const A_DIVIDER_RESET: u8 = 0x70;
/// Register A: the rate.
pub const A_RATE: u8 = 0x0f;
/// Register B: no updates while the time is set.
pub const B_SET: u8 = 0x80;
/// Register B: periodic interrupt.
pub const B_PIE: u8 = 0x40;
/// Register B: alarm interrupt.
pub const B_AIE: u8 = 0x20;
/// Register B: update-ended interrupt.
pub const B_UIE: u8 = 0x10;
/// Register B: binary, else BCD.
pub const B_DM: u8 = 0x04;
/// Register B: 24 hours, else 12.
pub const B_24H: u8 = 0x02;
/// Register C: the chip interrupts.
pub const C_IRQF: u8 = 0x80;
/// Register C: periodic.
pub const C_PF: u8 = 0x40;
/// Register C: alarm.
pub const C_AF: u8 = 0x20;
/// Register C: update ended.
pub const C_UF: u8 = 0x10;
/// Register D: RAM and time are valid.
pub const D_VRT: u8 = 0x80;

/// An alarm byte that matches always.
pub const ALARM_DONT_CARE: u8 = 0xc0;
/// The hour is after noon, in the 12-hour format.
pub const HOURS_PM: u8 = 0x80;

/// Interrupts a second for each rate in register A, on the 32.768 kHz time base; 0 is none.
pub const RATES: [u32; 16] =
    [0, 256, 128, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2];

/// Reads a byte of CMOS RAM or of the clock.
pub fn read(bus: &mut dyn Bus, index: u8) -> u8 {
    bus.pio_write(PORT_INDEX, 1, index.into());
    bus.pio_read(PORT_DATA, 1) as u8
}

/// Writes a byte of CMOS RAM or of the clock.
pub fn write(bus: &mut dyn Bus, index: u8, value: u8) {
    bus.pio_write(PORT_INDEX, 1, index.into());
    bus.pio_write(PORT_DATA, 1, value.into());
}

/// Reads register C, which clears its flags and lowers the interrupt.
pub fn take_flags(bus: &mut dyn Bus) -> u8 {
    read(bus, REGISTER_C)
}

/// Enables interrupts of [`B_PIE`], [`B_AIE`] and [`B_UIE`].
pub fn enable(bus: &mut dyn Bus, interrupts: u8) {
    let value = read(bus, REGISTER_B) | interrupts;
    write(bus, REGISTER_B, value);
}

/// Disables interrupts of [`B_PIE`], [`B_AIE`] and [`B_UIE`].
pub fn disable(bus: &mut dyn Bus, interrupts: u8) {
    let value = read(bus, REGISTER_B) & !interrupts;
    write(bus, REGISTER_B, value);
}

/// The rate's number in register A for `hertz` interrupts a second, 2 to 8192.
pub fn rate(hertz: u32) -> Option<u8> {
    // The two numbers below 3 repeat rates of others on this time base.
    (3..=15u8).find(|rate| RATES.get(usize::from(*rate)) == Some(&hertz))
}

/// Sets the periodic interrupt's rate.
///
/// # Errors
/// A rate that the chip does not have.
pub fn set_rate(bus: &mut dyn Bus, hertz: u32) -> Result<()> {
    let number = rate(hertz).ok_or_else(|| {
        Error::usage(format!("{hertz} Hz: the clock has powers of two from 2 to 8192 Hz"))
    })?;
    let divider = read(bus, REGISTER_A) & !(A_UIP | A_RATE);
    write(bus, REGISTER_A, divider | number);
    Ok(())
}

/// How time is written in its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Binary, else BCD.
    pub binary: bool,
    /// 24 hours, else 12 with [`HOURS_PM`].
    pub hours_24: bool,
}

impl Format {
    /// All four.
    pub const ALL: [Self; 4] = [
        Self { binary: false, hours_24: true },
        Self { binary: true, hours_24: true },
        Self { binary: false, hours_24: false },
        Self { binary: true, hours_24: false },
    ];

    /// The format that register B sets.
    pub fn of(register_b: u8) -> Self {
        Self { binary: register_b & B_DM != 0, hours_24: register_b & B_24H != 0 }
    }

    /// Its bits in register B.
    pub fn bits(self) -> u8 {
        (if self.binary { B_DM } else { 0 }) | (if self.hours_24 { B_24H } else { 0 })
    }

    /// The byte for a value below 100.
    pub fn encode(self, value: u8) -> u8 {
        if self.binary { value } else { to_bcd(value) }
    }

    /// The value of a byte, if it has one.
    pub fn decode(self, byte: u8) -> Option<u8> {
        if self.binary { (byte < 100).then_some(byte) } else { from_bcd(byte) }
    }

    /// The byte for an hour from 0 to 23.
    pub fn encode_hour(self, hour: u8) -> u8 {
        match (self.hours_24, hour) {
            (true, _) => self.encode(hour),
            (false, 0) => self.encode(12),
            (false, 1..=12) => self.encode(hour) | if hour == 12 { HOURS_PM } else { 0 },
            (false, _) => self.encode(hour - 12) | HOURS_PM,
        }
    }

    /// The hour from 0 of a byte, if it has one.
    pub fn decode_hour(self, byte: u8) -> Option<u8> {
        (0..24).find(|hour| self.encode_hour(*hour) == byte)
    }
}

/// Two decimal digits in a byte; `value` below 100.
pub fn to_bcd(value: u8) -> u8 {
    ((value / 10) << 4) | (value % 10)
}

/// The value of two decimal digits.
pub fn from_bcd(byte: u8) -> Option<u8> {
    let (tens, ones) = (byte >> 4, byte & 15);
    (tens < 10 && ones < 10).then_some(tens * 10 + ones)
}

/// A time of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateTime {
    /// With its century.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 1 (Sunday) to 7.
    pub weekday: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
}

impl DateTime {
    /// Its bytes with their indices.
    pub fn bytes(&self, format: Format) -> [(u8, u8); 8] {
        [
            (CENTURY, format.encode((self.year / 100 % 100) as u8)),
            (YEAR, format.encode((self.year % 100) as u8)),
            (MONTH, format.encode(self.month)),
            (DATE_OF_THE_MONTH, format.encode(self.day)),
            (DAY_OF_THE_WEEK, format.encode(self.weekday)),
            (HOURS, format.encode_hour(self.hour)),
            (MINUTES, format.encode(self.minute)),
            (SECONDS, format.encode(self.second)),
        ]
    }

    fn from_bytes(bytes: [u8; 8], format: Format) -> Option<Self> {
        let [century, year, month, day, weekday, hour, minute, second] = bytes;
        Some(Self {
            year: u16::from(format.decode(century)?) * 100 + u16::from(format.decode(year)?),
            month: format.decode(month)?,
            day: format.decode(day)?,
            weekday: format.decode(weekday)?,
            hour: format.decode_hour(hour)?,
            minute: format.decode(minute)?,
            second: format.decode(second)?,
        })
    }
}

/// Whether an update is in progress or about to begin, so that the time must not be read.
pub fn update_in_progress(bus: &mut dyn Bus) -> bool {
    read(bus, REGISTER_A) & A_UIP != 0
}

/// Reads the time. `None` while an update is in progress: let 244 us to 2.3 ms pass.
///
/// # Errors
/// Bytes that are no time in the chip's format.
pub fn read_time(bus: &mut dyn Bus) -> Result<Option<DateTime>> {
    const INDICES: [u8; 8] =
        [CENTURY, YEAR, MONTH, DATE_OF_THE_MONTH, DAY_OF_THE_WEEK, HOURS, MINUTES, SECONDS];
    let format = Format::of(read(bus, REGISTER_B));
    if update_in_progress(bus) {
        return Ok(None);
    }
    let bytes = INDICES.map(|index| read(bus, index));
    // A slow reader may have met an update in spite of the 244 us that UIP promised.
    if update_in_progress(bus) || read(bus, SECONDS) != bytes[7] {
        return Ok(None);
    }
    DateTime::from_bytes(bytes, format).map(Some).ok_or_else(|| {
        Error::machine(format!("the clock's bytes are no time: {bytes:02x?} as {format:?}"))
    })
}

/// Sets the time under SET, in the format that register B has; the divider goes on.
pub fn set_time(bus: &mut dyn Bus, time: &DateTime) {
    let control = read(bus, REGISTER_B);
    write(bus, REGISTER_B, control | B_SET);
    write_time(bus, time, Format::of(control));
    write(bus, REGISTER_B, control & !B_SET);
}

/// Writes the bytes of a time to a clock that stands still.
pub fn write_time(bus: &mut dyn Bus, time: &DateTime, format: Format) {
    for (index, byte) in time.bytes(format) {
        write(bus, index, byte);
    }
}

/// Sets the alarm in the format that register B has; `None` matches always.
pub fn set_alarm(bus: &mut dyn Bus, hour: Option<u8>, minute: Option<u8>, second: Option<u8>) {
    let format = Format::of(read(bus, REGISTER_B));
    let byte = |value: Option<u8>| value.map_or(ALARM_DONT_CARE, |value| format.encode(value));
    write(bus, SECONDS_ALARM, byte(second));
    write(bus, MINUTES_ALARM, byte(minute));
    write(bus, HOURS_ALARM, hour.map_or(ALARM_DONT_CARE, |hour| format.encode_hour(hour)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::GuestAddr;

    /// A clock that does nothing: bytes behind two ports, and what register A reads in turn.
    struct Still {
        index: u8,
        bytes: [u8; 128],
        uip: Vec<bool>,
    }

    impl Bus for Still {
        fn pio_read(&mut self, port: u16, _size: u8) -> u32 {
            assert_eq!(port, PORT_DATA);
            let byte = self.bytes[usize::from(self.index)];
            let uip = self.index == REGISTER_A && self.uip.pop().unwrap_or(false);
            u32::from(byte | if uip { A_UIP } else { 0 })
        }
        fn pio_write(&mut self, port: u16, _size: u8, value: u32) {
            match port {
                PORT_INDEX => self.index = value as u8,
                _ => self.bytes[usize::from(self.index)] = value as u8,
            }
        }
        fn mmio_read(&mut self, _addr: GuestAddr, _size: u8) -> u64 {
            u64::MAX
        }
        fn mmio_write(&mut self, _addr: GuestAddr, _size: u8, _value: u64) {}
    }

    fn still() -> Still {
        Still { index: 0, bytes: [0; 128], uip: Vec::new() }
    }

    const TIME: DateTime =
        DateTime { year: 2024, month: 2, day: 29, weekday: 5, hour: 23, minute: 59, second: 58 };

    #[test]
    fn time_is_read_as_it_was_set_in_each_format() {
        for format in Format::ALL {
            let mut bus = still();
            write(&mut bus, REGISTER_B, format.bits());
            set_time(&mut bus, &TIME);
            assert_eq!(read_time(&mut bus).unwrap(), Some(TIME), "{format:?}");
            assert_eq!(bus.bytes[usize::from(REGISTER_B)], format.bits());
            assert!((0..24).all(|h| format.decode_hour(format.encode_hour(h)) == Some(h)));
        }
        let mut bus = still();
        set_time(&mut bus, &TIME);
        assert_eq!(bus.bytes[usize::from(HOURS)], 0x91);
    }

    #[test]
    fn an_update_before_or_after_the_bytes_spoils_the_reading() {
        for uip in [vec![true], vec![true, false]] {
            let mut bus = still();
            write(&mut bus, REGISTER_B, B_24H);
            set_time(&mut bus, &TIME);
            bus.uip = uip;
            assert_eq!(read_time(&mut bus).unwrap(), None);
        }
    }

    #[test]
    fn bytes_that_are_no_time_are_an_error() {
        let mut bus = still();
        write(&mut bus, MINUTES, 0x5a);
        assert!(read_time(&mut bus).unwrap_err().to_string().contains("5a"));
    }

    #[test]
    fn rates_are_found_and_refused() {
        let mut bus = still();
        write(&mut bus, REGISTER_A, 0x26);
        set_rate(&mut bus, 8192).unwrap();
        assert_eq!(bus.bytes[usize::from(REGISTER_A)], 0x23);
        assert_eq!((rate(2), rate(256), rate(1000), rate(0)), (Some(15), Some(8), None, None));
        assert!(set_rate(&mut bus, 3).is_err());
    }
}
