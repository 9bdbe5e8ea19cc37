//! Registers of the 82093AA (data sheet §3) and of the messages it sends (Intel SDM volume 3,
//! §11.11).

/// Interrupt inputs.
pub const INPUTS: u32 = 24;

/// I/O register select, from the base of the window (§3.1.1).
pub const IOREGSEL: u64 = 0x00;
/// I/O window: the selected register (§3.1.2).
pub const IOWIN: u64 = 0x10;
/// EOI register of version 20h and later (ICH9 §13.5.5).
pub const IOEOI: u64 = 0x40;

/// Identification register (§3.2.1).
pub const IOAPICID: u8 = 0x00;
/// Version register (§3.2.2).
pub const IOAPICVER: u8 = 0x01;
/// Arbitration register (§3.2.3).
pub const IOAPICARB: u8 = 0x02;
/// First redirection table register (§3.2.4): two for each input, low half first.
pub const IOREDTBL: u8 = 0x10;

/// Bits 27:24 of the identification and arbitration registers.
pub const ID_MASK: u32 = 0x0f00_0000;

/// Version 20h, 24 entries (bits 23:16 hold the number of the last one).
pub const VERSION: u32 = (INPUTS - 1) << 16 | 0x20;

/// Interrupt vector.
pub const VECTOR: u64 = 0xff;
/// Delivery mode, bits 10:8.
pub const DELMOD_SHIFT: u32 = 8;
/// Destination mode: logical.
pub const DESTMOD: u64 = 1 << 11;
/// Delivery status (read only): idle here always, as the bus takes no time.
pub const DELIVS: u64 = 1 << 12;
/// Input polarity: active low.
pub const INTPOL: u64 = 1 << 13;
/// Remote IRR (read only): a local APIC has a level interrupt and no EOI came yet.
pub const REMOTE_IRR: u64 = 1 << 14;
/// Trigger mode: level.
pub const TRIGGER_LEVEL: u64 = 1 << 15;
/// Interrupt mask.
pub const MASK: u64 = 1 << 16;
/// Destination field, bits 63:56.
pub const DEST_SHIFT: u32 = 56;

/// What software can set in an entry; the rest is read only or reserved.
pub const ENTRY_WRITABLE: u64 =
    0xff << DEST_SHIFT | MASK | TRIGGER_LEVEL | INTPOL | DESTMOD | 7 << DELMOD_SHIFT | VECTOR;

/// Delivery modes of an entry that may be level triggered (§3.2.4).
pub const DELMOD_FIXED: u8 = 0;
/// Lowest priority.
pub const DELMOD_LOWEST: u8 = 1;

/// Address of an interrupt message: bits 31:20.
pub const MESSAGE_BASE: u64 = 0xfee0_0000;
/// Destination ID in an address.
pub const MESSAGE_DEST_SHIFT: u32 = 12;
/// Destination mode in an address: logical.
pub const MESSAGE_LOGICAL: u64 = 1 << 2;
/// Level, in the data: assert.
pub const MESSAGE_ASSERT: u32 = 1 << 14;
/// Trigger mode, in the data: level.
pub const MESSAGE_LEVEL: u32 = 1 << 15;
