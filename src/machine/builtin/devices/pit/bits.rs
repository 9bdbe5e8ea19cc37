//! Registers and bits of the 8254 and of port 61h.

use crate::base::Frequency;

/// The clock of all three counters on a PC: 14.318 MHz divided by 12.
pub const CLK: Frequency = Frequency::new(1_193_182);

/// Offset of the control word register; the counters are at 0 to 2 (8254, "Write Operations").
pub const CONTROL: u64 = 3;

/// SC1 SC0 of the control word: the counter, or 3 for the read-back command ("Control Word Format").
pub const SC_SHIFT: u8 = 6;
/// SC of the read-back command.
pub const SC_READ_BACK: u8 = 3;
/// RW1 RW0: 0 is the counter latch command.
pub const RW_SHIFT: u8 = 4;
/// RW: least significant byte only.
pub const RW_LSB: u8 = 1;
/// RW: most significant byte only.
pub const RW_MSB: u8 = 2;
/// RW: least significant byte, then most significant.
pub const RW_BOTH: u8 = 3;
/// M2 M1 M0; 6 and 7 are 2 and 3, as M2 is not decoded there.
pub const M_SHIFT: u8 = 1;
/// Four decades instead of 16 bits.
pub const BCD: u8 = 1 << 0;

/// Read-back: do *not* latch the count ("Read-Back Command Format").
pub const READ_BACK_NO_COUNT: u8 = 1 << 5;
/// Read-back: do *not* latch the status.
pub const READ_BACK_NO_STATUS: u8 = 1 << 4;
/// Read-back: counter 0 is meant; counters 1 and 2 are the bits above.
pub const READ_BACK_CNT0: u8 = 1 << 1;

/// Status byte: the OUT pin ("Status Byte").
pub const STATUS_OUTPUT: u8 = 1 << 7;
/// Status byte: the last count written is not in the counting element yet.
pub const STATUS_NULL_COUNT: u8 = 1 << 6;
/// Status byte: RW, M and BCD as last programmed.
pub const STATUS_PROGRAMMED: u8 = 0x3f;

/// Counts of a binary counter: a count of 0 is this.
pub const MODULUS_BINARY: u32 = 0x1_0000;
/// Counts of a BCD counter.
pub const MODULUS_BCD: u32 = 10_000;
/// Smallest count of modes 2 and 3 ("Minimum and Maximum Initial Counts").
pub const PERIODIC_COUNT_MIN: u32 = 2;

/// The counter whose OUT is interrupt 0.
pub const COUNTER_IRQ0: usize = 0;
/// The counter that port 61h gates: the speaker's.
pub const COUNTER_SPEAKER: usize = 2;

/// Port 61h: GATE of counter 2 (PIIX4 §4.1.4: timer counter 2 enable).
pub const NMISC_GATE2: u8 = 1 << 0;
/// Port 61h: speaker data enable.
pub const NMISC_SPEAKER: u8 = 1 << 1;
/// Port 61h: bits that keep what was written: the two above, SERR# and IOCHK# disable.
pub const NMISC_WRITABLE: u8 = 0x0f;
/// Port 61h: changes with every refresh cycle.
pub const NMISC_REFRESH: u8 = 1 << 4;
/// Port 61h: OUT of counter 2.
pub const NMISC_OUT2: u8 = 1 << 5;

/// Clocks between two refresh cycles: firmware programs counter 1 of a PC with 18, one row in
/// 15.085 us. PIIX4 makes the cycles itself, whatever counter 1 does.
pub const REFRESH_CLKS: u64 = 18;

/// Changes of OUT0 that one late call makes up for, each by itself: an edge-triggered input latches
/// one request until it is acknowledged, and nobody could acknowledge between them. A board whose
/// time stood still for seconds does not pay for millions; one that wants each edge calls at each
/// deadline.
pub const LATE_EDGES_MAX: u32 = 128;
