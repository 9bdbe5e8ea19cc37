//! Registers and bits of the HPET, with the sections of the IA-PC HPET specification 1.0a.

use crate::base::Frequency;

/// The main counter's clock: 10 ns, as QEMU's.
pub const CLK: Frequency = Frequency::new(100_000_000);

/// Comparators; a block has 3 to 32.
pub const TIMERS: usize = 3;

/// General capabilities and ID (§2.3.4): a period of 10^7 fs, vendor 8086h, legacy replacement
/// capable, a 64-bit counter, [`TIMERS`] less one, revision 1.
pub const GCAP_ID: u64 = 0x0098_9680_8086_0001 | 1 << 15 | 1 << 13 | (TIMERS as u64 - 1) << 8;

/// Offset of [`GCAP_ID`].
pub const GCAP_ID_REG: u64 = 0x000;
/// General configuration (§2.3.5).
pub const GEN_CONF: u64 = 0x010;
/// General interrupt status (§2.3.6): write 1 to clear.
pub const GINTR_STA: u64 = 0x020;
/// Main counter (§2.3.7).
pub const MAIN_CNT: u64 = 0x0f0;
/// First timer's registers (§2.3.8).
pub const TIMER0: u64 = 0x100;
/// Bytes from one timer's registers to the next's.
pub const TIMER_STRIDE: u64 = 0x20;
/// Configuration and capability, within a timer's registers (§2.3.8).
pub const TN_CONF: u64 = 0x00;
/// Comparator (§2.3.9).
pub const TN_COMPARATOR: u64 = 0x08;
/// FSB interrupt route (§2.3.10): value in the low half, address in the high half.
pub const TN_FSB_ROUTE: u64 = 0x10;

/// The main counter runs and timers may interrupt.
pub const ENABLE_CNF: u64 = 1 << 0;
/// Timer 0 is interrupt 0 of the PIC, timer 1 interrupt 8 (§2.3.5, LEG_RT_CNF).
pub const LEG_RT_CNF: u64 = 1 << 1;

/// Level triggered.
pub const TN_INT_TYPE_CNF: u64 = 1 << 1;
/// Interrupts enabled.
pub const TN_INT_ENB_CNF: u64 = 1 << 2;
/// Periodic.
pub const TN_TYPE_CNF: u64 = 1 << 3;
/// Read only: can be periodic.
pub const TN_PER_INT_CAP: u64 = 1 << 4;
/// Read only: is 64 bits wide.
pub const TN_SIZE_CAP: u64 = 1 << 5;
/// The next write of the comparator sets the accumulator of a periodic timer too; clears itself.
pub const TN_VAL_SET_CNF: u64 = 1 << 6;
/// Works as a 32-bit timer.
pub const TN_32MODE_CNF: u64 = 1 << 8;
/// Input of the I/O APIC, bits 13:9.
pub const TN_INT_ROUTE_SHIFT: u32 = 9;
/// Mask of the above, in place.
pub const TN_INT_ROUTE_CNF: u64 = 31 << TN_INT_ROUTE_SHIFT;
/// Interrupts are messages.
pub const TN_FSB_EN_CNF: u64 = 1 << 14;
/// Read only: can send messages.
pub const TN_FSB_INT_DEL_CAP: u64 = 1 << 15;
/// Read only: inputs of the I/O APIC that can be chosen, bits 63:32.
pub const TN_INT_ROUTE_CAP_SHIFT: u32 = 32;
/// Bits of a timer's configuration that keep what is written, besides the route.
pub const TN_WRITABLE: u64 =
    TN_INT_TYPE_CNF | TN_INT_ENB_CNF | TN_TYPE_CNF | TN_VAL_SET_CNF | TN_32MODE_CNF | TN_FSB_EN_CNF;

/// Routes of an i440fx board, as its firmware tables and guests know it: input 2 only.
pub const ROUTES_PC: u32 = 1 << 2;
/// Routes of a q35 board: inputs 2, 8 and 16 to 23.
pub const ROUTES_Q35: u32 = 0x00ff_0104;

/// Interrupts that one late call makes up for, each by itself; see the 8254's of the same name.
pub const LATE_INTERRUPTS_MAX: u32 = 128;
