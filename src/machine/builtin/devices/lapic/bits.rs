//! Registers of a local APIC: SDM table 11-1, and the sections named at each group.

/// Local APIC ID, bits 31:24 (SDM §11.4.6).
pub const APIC_ID: u64 = 0x020;
/// Version (SDM §11.4.8).
pub const APIC_VERSION: u64 = 0x030;
/// Task priority (SDM §11.8.3.1).
pub const APIC_TPR: u64 = 0x080;
/// Arbitration priority (SDM §11.6.2.4).
pub const APIC_APR: u64 = 0x090;
/// Processor priority (SDM §11.8.3.1).
pub const APIC_PPR: u64 = 0x0a0;
/// End of interrupt (SDM §11.8.5), write only.
pub const APIC_EOI: u64 = 0x0b0;
/// Remote read: never anything but 0.
pub const APIC_RRD: u64 = 0x0c0;
/// Logical destination, bits 31:24 (SDM §11.6.2.2).
pub const APIC_LDR: u64 = 0x0d0;
/// Destination format, bits 31:28 (SDM §11.6.2.2).
pub const APIC_DFR: u64 = 0x0e0;
/// Spurious interrupt vector (SDM §11.9).
pub const APIC_SVR: u64 = 0x0f0;
/// In-service register: eight words, 16 bytes apart (SDM §11.8.4).
pub const APIC_ISR: u64 = 0x100;
/// Trigger mode register.
pub const APIC_TMR: u64 = 0x180;
/// Interrupt request register.
pub const APIC_IRR: u64 = 0x200;
/// Past the last word of the request register.
pub const APIC_IRR_END: u64 = 0x280;
/// Error status (SDM §11.5.3).
pub const APIC_ESR: u64 = 0x280;
/// Interrupt command, bits 31:0 (SDM §11.6.1).
pub const APIC_ICR_LOW: u64 = 0x300;
/// Interrupt command, bits 63:32.
pub const APIC_ICR_HIGH: u64 = 0x310;
/// First entry of the local vector table, the timer's; the others follow 16 bytes apart.
pub const APIC_LVT_TIMER: u64 = 0x320;
/// Last entry of the local vector table, the error's.
pub const APIC_LVT_ERROR: u64 = 0x370;
/// Initial count of the timer (SDM §11.5.4).
pub const APIC_TMICT: u64 = 0x380;
/// Current count of the timer.
pub const APIC_TMCCT: u64 = 0x390;
/// Divide configuration of the timer.
pub const APIC_TDCR: u64 = 0x3e0;

/// Version 14h with six entries in the local vector table, and no suppression of EOI messages.
pub const VERSION: u32 = 5 << 16 | 0x14;

/// Entries of the local vector table, in the order of their registers (SDM §11.5.1).
pub const LVT_TIMER: usize = 0;
/// Thermal monitor.
pub const LVT_THERMAL: usize = 1;
/// Performance counters.
pub const LVT_PERF: usize = 2;
/// Pin LINT0.
pub const LVT_LINT0: usize = 3;
/// Pin LINT1.
pub const LVT_LINT1: usize = 4;
/// Errors.
pub const LVT_ERROR: usize = 5;
/// How many there are.
pub const LVTS: usize = 6;

/// Vector, bits 7:0 (SDM figure 11-8).
pub const LVT_VECTOR: u32 = 0xff;
/// Delivery mode, bits 10:8.
pub const LVT_MODE_SHIFT: u32 = 8;
/// Interrupt input pin polarity: active low.
pub const LVT_POLARITY: u32 = 1 << 13;
/// Remote IRR, read only.
pub const LVT_REMOTE_IRR: u32 = 1 << 14;
/// Trigger mode: level.
pub const LVT_LEVEL: u32 = 1 << 15;
/// Mask.
pub const LVT_MASK: u32 = 1 << 16;
/// Timer mode: periodic.
pub const LVT_PERIODIC: u32 = 1 << 17;

/// What software can set in each entry.
pub const LVT_WRITABLE: [u32; LVTS] = [0x300ff, 0x107ff, 0x107ff, 0x1a7ff, 0x1a7ff, 0x100ff];

/// Delivery modes (SDM §11.5.1, §11.6.1).
pub const MODE_FIXED: u8 = 0;
/// Lowest priority.
pub const MODE_LOWEST: u8 = 1;
/// System management interrupt.
pub const MODE_SMI: u8 = 2;
/// Non-maskable interrupt.
pub const MODE_NMI: u8 = 4;
/// INIT.
pub const MODE_INIT: u8 = 5;
/// Start-up, of the interrupt command register only.
pub const MODE_STARTUP: u8 = 6;
/// External (8259A) interrupt, of pins and messages only.
pub const MODE_EXTINT: u8 = 7;

/// Destination mode of the interrupt command register: logical.
pub const ICR_LOGICAL: u32 = 1 << 11;
/// Level of the interrupt command register: assert.
pub const ICR_ASSERT: u32 = 1 << 14;
/// Trigger mode of the interrupt command register: level.
pub const ICR_LEVEL: u32 = 1 << 15;
/// Destination shorthand, bits 19:18.
pub const ICR_SHORTHAND_SHIFT: u32 = 18;
/// What software can set in the low half; delivery status (bit 12) is idle here always.
pub const ICR_LOW_WRITABLE: u32 = 0xc_cfff;
/// What software can set in the high half.
pub const ICR_HIGH_WRITABLE: u32 = 0xff00_0000;

/// APIC software enable (SDM §11.9).
pub const SVR_ENABLE: u32 = 1 << 8;
/// What software can set in the spurious vector register.
pub const SVR_WRITABLE: u32 = 0x1ff;
/// After a reset.
pub const SVR_RESET: u32 = 0xff;

/// Send illegal vector (SDM §11.5.3).
pub const ESR_SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
/// Receive illegal vector.
pub const ESR_RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;
/// Illegal register address.
pub const ESR_ILLEGAL_REGISTER: u32 = 1 << 7;

/// Vectors below are the CPU's exceptions: illegal in an APIC (SDM §11.5.2).
pub const VECTOR_MIN: u8 = 16;

/// Bits of the divide configuration register (SDM figure 11-10).
pub const TDCR_WRITABLE: u32 = 0xb;

/// Bits of the destination format register that always read 1.
pub const DFR_ONES: u32 = 0x0fff_ffff;

/// IA32_APIC_BASE: this is the bootstrap processor (SDM §11.4.4).
pub const APIC_BASE_BSP: u64 = 1 << 8;
/// IA32_APIC_BASE: APIC global enable.
pub const APIC_BASE_ENABLE: u64 = 1 << 11;
/// IA32_APIC_BASE: where the registers are, for 36-bit physical addresses.
pub const APIC_BASE_ADDR: u64 = 0xf_ffff_f000;
/// Where they are after a reset.
pub const APIC_BASE_DEFAULT: u64 = 0xfee0_0000;

/// Line of the LINT0 pins in `LineSink::set_line`: every CPU's.
pub const LINT0: u32 = 0;
/// Line of the LINT1 pins.
pub const LINT1: u32 = 1;

/// The bus clock that the timer divides: 1 GHz, as QEMU's.
pub const BUS_HERTZ: u64 = 1_000_000_000;
