//! The MC146818A data sheet's numbers, under its names; the section stands at each. What a PC adds
//! to the chip (ports, century byte) is marked so.

use bitflags::bitflags;

use crate::base::Nanos;

/// Bytes that the index port can select: ten of time, four registers, RAM.
pub const BYTES: usize = 128;

/// Section "time, calendar, and alarm locations", as the nine after it: 0 to 59.
pub const SECONDS: u8 = 0x00;
/// Alarm for [`SECONDS`].
pub const SECONDS_ALARM: u8 = 0x01;
/// 0 to 59.
pub const MINUTES: u8 = 0x02;
/// Alarm for [`MINUTES`].
pub const MINUTES_ALARM: u8 = 0x03;
/// 0 to 23, or 1 to 12 with [`HOURS_PM`].
pub const HOURS: u8 = 0x04;
/// Alarm for [`HOURS`].
pub const HOURS_ALARM: u8 = 0x05;
/// 1 (Sunday) to 7.
pub const DAY_OF_THE_WEEK: u8 = 0x06;
/// 1 to 31.
pub const DATE_OF_THE_MONTH: u8 = 0x07;
/// 1 to 12.
pub const MONTH: u8 = 0x08;
/// 0 to 99.
pub const YEAR: u8 = 0x09;
/// Divider, rate, and [`UIP`].
pub const REGISTER_A: u8 = 0x0a;
/// [`RegisterB`].
pub const REGISTER_B: u8 = 0x0b;
/// [`RegisterC`].
pub const REGISTER_C: u8 = 0x0c;
/// [`VRT`].
pub const REGISTER_D: u8 = 0x0d;
/// The century, in the format of the year: not the chip's but every PC's since the AT.
pub const CENTURY: u8 = 0x32;
/// The same byte where the PS/2 has it.
pub const CENTURY_PS2: u8 = 0x37;

/// In the 12-hour format: the hour is after noon (time, calendar, and alarm locations).
pub const HOURS_PM: u8 = 0x80;
/// Both bits in an alarm byte: it matches always (time, calendar, and alarm locations).
pub const ALARM_DONT_CARE: u8 = 0xc0;

/// Register A: an update is in progress or begins within [`TIME_BEFORE_UPDATE`]. Read only.
pub const UIP: u8 = 0x80;
/// Register A: the time base (table 4).
pub const DV_SHIFT: u8 = 4;
/// Register A: the tap for the periodic interrupt (table 5).
pub const RS_MASK: u8 = 0x0f;
/// Register A as a PC's firmware sets it: 32.768 kHz time base, 1024 Hz.
pub const REGISTER_A_PC: u8 = 0x26;

bitflags! {
    /// Register B.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct RegisterB: u8 {
        /// No updates: the program may write the time.
        const SET = 0x80;
        /// Periodic interrupt enable.
        const PIE = 0x40;
        /// Alarm interrupt enable.
        const AIE = 0x20;
        /// Update-ended interrupt enable; [`RegisterB::SET`] clears it.
        const UIE = 0x10;
        /// Square wave on a pin that a PC leaves open.
        const SQWE = 0x08;
        /// Data mode: binary, else BCD.
        const DM = 0x04;
        /// 24 hours, else 12.
        const HOURS_24 = 0x02;
        /// Daylight saving by American rules of 1984. Kept and not acted upon.
        const DSE = 0x01;
    }

    /// Register C: what has happened since it was last read. A flag and its enable in
    /// [`RegisterB`] are the same bit.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct RegisterC: u8 {
        /// An enabled flag is set: the state of the IRQ pin.
        const IRQF = 0x80;
        /// A periodic edge came.
        const PF = 0x40;
        /// The alarm matched.
        const AF = 0x20;
        /// An update ended.
        const UF = 0x10;
    }
}

/// Register D: RAM and time have been valid since power was good. Read only.
pub const VRT: u8 = 0x80;

/// Index port of a PC: this bit keeps NMI from the CPU, the others select the byte.
pub const PORT_NMI_MASK: u8 = 0x80;

/// Hertz of the divider's fastest tap, which every rate of table 5 divides.
pub const TAP_HERTZ: u64 = 32_768;
/// From the divider's release to the first update cycle (register A, DV).
pub const FIRST_UPDATE: Nanos = Nanos(500_000_000);
/// `tBUC`, table 6: [`UIP`] rises this long before an update cycle. 8 ticks of 32.768 kHz.
pub const TIME_BEFORE_UPDATE: Nanos = Nanos(244_140);
/// Ticks of [`TAP_HERTZ`] in `tBUC`.
pub const TICKS_BEFORE_UPDATE: u64 = 8;
/// `tUC`, table 6: an update cycle of the 32.768 kHz time base.
pub const UPDATE_CYCLE_SLOW: Nanos = Nanos(1_984_000);
/// `tUC`, table 6: an update cycle of the two faster time bases.
pub const UPDATE_CYCLE_FAST: Nanos = Nanos(248_000);
