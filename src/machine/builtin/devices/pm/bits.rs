//! Fixed hardware registers of ACPI, in PIIX4's layout.

use crate::base::Frequency;

/// The timer's clock: 14.318 MHz divided by 4 (ACPI §4.7.2.1).
pub const CLK: Frequency = Frequency::new(3_579_545);

/// Bytes of the I/O block (PIIX4 §7.1.3: PMBA decodes 64).
pub const BLOCK_BYTES: u64 = 64;

/// PM1 status, 16 bits, write 1 to clear (PIIX4 §7.2.1, PMSTS; ACPI §4.7.3.1.1).
pub const PM1_STS: u64 = 0x00;
/// PM1 enable, 16 bits (PIIX4 §7.2.2, PMEN; ACPI §4.7.3.1.2).
pub const PM1_EN: u64 = 0x02;
/// PM1 control, 16 bits (PIIX4 §7.2.3, PMCNTRL; ACPI §4.7.3.2.1).
pub const PM1_CNT: u64 = 0x04;
/// The timer, 32 bits, read only (PIIX4 §7.2.4, PMTMR; ACPI §4.7.3.3).
pub const PM_TMR: u64 = 0x08;
/// First byte after the timer; the rest of the block is chipset specific and not modelled.
pub const PM_END: u64 = 0x0c;

/// The most significant bit of the timer changed.
pub const TMR_STS: u16 = 1 << 0;
/// A bus master asked for the bus.
pub const BM_STS: u16 = 1 << 4;
/// Firmware released the global lock.
pub const GBL_STS: u16 = 1 << 5;
/// Power button.
pub const PWRBTN_STS: u16 = 1 << 8;
/// Sleep button.
pub const SLPBTN_STS: u16 = 1 << 9;
/// The real-time clock's alarm.
pub const RTC_STS: u16 = 1 << 10;
/// PCI Express wake.
pub const PCIEXP_WAKE_STS: u16 = 1 << 14;
/// The system woke.
pub const WAK_STS: u16 = 1 << 15;

/// Events of PM1 that can be enabled: timer, global lock, buttons, clock.
pub const PM1_EVENTS: u16 = TMR_STS | GBL_STS | PWRBTN_STS | SLPBTN_STS | RTC_STS;
/// Bits of PM1 enable that exist: the events, and bit 14, which disables PCI Express wake.
pub const PM1_EN_WRITABLE: u16 = PM1_EVENTS | PCIEXP_WAKE_STS;

/// Events make SCIs; else SMIs.
pub const SCI_EN: u16 = 1 << 0;
/// A bus master request wakes the processor.
pub const BM_RLD: u16 = 1 << 1;
/// Sleep type, bits 12:10.
pub const SLP_TYP: u16 = 7 << SLP_TYP_SHIFT;
/// Place of the above.
pub const SLP_TYP_SHIFT: u32 = 10;
/// Write only: sleep now.
pub const SLP_EN: u16 = 1 << 13;
/// Bits of PM1 control that keep what is written. GBL_RLS and SLP_EN read as 0.
pub const PM1_CNT_WRITABLE: u16 = SCI_EN | BM_RLD | SLP_TYP;

/// Bits of the timer.
pub const TMR_VAL: u64 = 0x00ff_ffff;
/// Ticks from one change of the timer's most significant bit to the next.
pub const TMR_MSB_TICKS: u64 = 1 << 23;

/// Bytes of GPE0 of an i440fx machine: 16 status bits, then 16 enables.
pub const GPE0_BYTES_PC: usize = 4;
/// Bytes of GPE0 of ICH9 (§13.8.3): 64 and 64 bits.
pub const GPE0_BYTES_ICH9: usize = 16;
