//! Interrupt messages between APICs: what is sent, and whom it reaches.

use super::bits::*;
use crate::machine::builtin::devices::ioapic::bits::{
    MESSAGE_ASSERT, MESSAGE_BASE, MESSAGE_DEST_SHIFT, MESSAGE_LEVEL, MESSAGE_LOGICAL,
};

/// Redirection hint in a message's address (SDM §11.11.1).
const MESSAGE_REDIRECT: u64 = 1 << 3;
/// The range of message addresses: 1 MiB.
const MESSAGE_RANGE: u64 = 0xf_ffff;

/// A destination that means every APIC (SDM §11.6.2.1).
const BROADCAST: u8 = 0xff;

/// Who is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// An APIC ID.
    Physical(u8),
    /// A message destination address, compared as DFR and LDR say.
    Logical(u8),
    /// The sender.
    Own,
    /// Everyone.
    All,
    /// Everyone but the sender.
    Others,
}

/// What a pin or message asks a local APIC to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Delivery mode.
    pub mode: u8,
    /// Vector, where the mode has one.
    pub vector: u8,
    /// Level triggered: its EOI goes to the I/O APICs.
    pub level: bool,
}

/// A signal on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// To whom.
    pub to: Destination,
    /// To only one of them, the one with the lowest priority.
    pub lowest: bool,
    /// What.
    pub signal: Signal,
}

impl Message {
    /// The message of a memory write (SDM §11.11); `None` for an address elsewhere, or for a
    /// level that is deasserted, which asks for nothing.
    pub fn of_write(addr: u64, data: u32) -> Option<Self> {
        if addr & !MESSAGE_RANGE != MESSAGE_BASE {
            return None;
        }
        let mode = (data >> LVT_MODE_SHIFT & 7) as u8;
        let level = data & MESSAGE_LEVEL != 0 && matches!(mode, MODE_FIXED | MODE_LOWEST);
        if level && data & MESSAGE_ASSERT == 0 {
            return None;
        }
        let dest = (addr >> MESSAGE_DEST_SHIFT) as u8;
        let logical = addr & MESSAGE_LOGICAL != 0;
        let redirect = addr & MESSAGE_REDIRECT != 0 && mode == MODE_FIXED;
        Some(Self {
            to: if logical { Destination::Logical(dest) } else { Destination::Physical(dest) },
            lowest: mode == MODE_LOWEST || redirect,
            signal: Signal { mode, vector: data as u8, level },
        })
    }

    /// The message of an interrupt command (SDM §11.6.1); `None` for a combination that sends
    /// nothing. Commands are edges, but for the INIT level de-assert, which APICs of this version
    /// ignore.
    pub fn of_command(low: u32, high: u32) -> Option<Self> {
        let mode = (low >> LVT_MODE_SHIFT & 7) as u8;
        let dest = (high >> 24) as u8;
        let to = match low >> ICR_SHORTHAND_SHIFT & 3 {
            0 if low & ICR_LOGICAL != 0 => Destination::Logical(dest),
            0 => Destination::Physical(dest),
            1 => Destination::Own,
            2 => Destination::All,
            _ => Destination::Others,
        };
        let deassert = mode == MODE_INIT && low & ICR_LEVEL != 0 && low & ICR_ASSERT == 0;
        // SDM table 11-3: only a fixed interrupt can be sent to oneself by shorthand.
        let sendable = match to {
            Destination::Own | Destination::All => mode == MODE_FIXED,
            _ => !matches!(mode, 3 | MODE_EXTINT),
        };
        (sendable && !deassert).then_some(Self {
            to,
            lowest: mode == MODE_LOWEST,
            signal: Signal { mode, vector: low as u8, level: false },
        })
    }
}

/// Whether message destination address `mda` means an APIC with this logical ID and format
/// (SDM §11.6.2.2).
pub fn logical_match(mda: u8, ldr: u32, dfr: u32) -> bool {
    let id = (ldr >> 24) as u8;
    match dfr >> 28 {
        _ if mda == BROADCAST => true,
        0xf => mda & id != 0,
        0 => mda & 0xf0 == id & 0xf0 && mda & id & 0x0f != 0,
        _ => false,
    }
}

/// Whether `dest` means APIC `id`.
pub fn physical_match(dest: u8, id: u8) -> bool {
    dest == BROADCAST || dest == id
}
