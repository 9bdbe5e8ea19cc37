//! Command words of the 8259A, in the data sheet's names. Its figures 7 and 8 draw them.

/// Inputs of one chip.
pub const INPUTS: u8 = 8;
/// The master's input that the slave's INT output is wired to on a PC.
pub const CASCADE: u8 = 2;

/// In a write to A0 = 0: an initialization command word follows (ICW1).
pub const ICW1: u8 = 1 << 4;
/// IC4: ICW4 will be given; without it all its functions are off.
pub const ICW1_IC4: u8 = 1 << 0;
/// SNGL: a single chip, so no ICW3.
pub const ICW1_SNGL: u8 = 1 << 1;

/// T7–T3: the vector's high five bits.
pub const ICW2_VECTOR: u8 = 0xf8;
/// ID2–ID0 of a slave's ICW3.
pub const ICW3_ID: u8 = 0x07;

/// AEOI: the in-service bit is cleared at the end of the acknowledge sequence.
pub const ICW4_AEOI: u8 = 1 << 1;
/// SFNM: special fully nested mode.
pub const ICW4_SFNM: u8 = 1 << 4;

/// In a write to A0 = 0 without [`ICW1`]: OCW3, else OCW2.
pub const OCW3: u8 = 1 << 3;
/// EOI: end of interrupt.
pub const OCW2_EOI: u8 = 1 << 5;
/// SL: the level in L2–L0 is meant.
pub const OCW2_SL: u8 = 1 << 6;
/// R: rotate priorities.
pub const OCW2_R: u8 = 1 << 7;
/// L2–L0.
pub const OCW2_LEVEL: u8 = 0x07;

/// RIS: which register RR selects, 1 the ISR.
pub const OCW3_RIS: u8 = 1 << 0;
/// RR: select the register that A0 = 0 reads.
pub const OCW3_RR: u8 = 1 << 1;
/// P: the next read is a poll.
pub const OCW3_P: u8 = 1 << 2;
/// SMM: the new special mask mode.
pub const OCW3_SMM: u8 = 1 << 5;
/// ESMM: take SMM.
pub const OCW3_ESMM: u8 = 1 << 6;

/// I of the poll byte: an interrupt was taken; its level is in W2–W0.
pub const POLL_I: u8 = 1 << 7;

/// The level of a default interrupt, when none is left to acknowledge.
pub const DEFAULT_LEVEL: u8 = 7;

/// What ELCR1 can set: IRQ 0, 1 and 2 are always edge triggered (PIIX4 §4.2.4.1).
pub const ELCR1_WRITABLE: u8 = 0xf8;
/// What ELCR2 can set: IRQ 8 and 13 are always edge triggered (PIIX4 §4.2.4.2).
pub const ELCR2_WRITABLE: u8 = 0xde;
