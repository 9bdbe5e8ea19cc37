//! The capability lists, walked with bounds: that of PCI (3.0 §6.7), and the extended one of PCI
//! Express (3.0 §7.9), which only the memory-mapped mechanism reaches.

use super::config::ConfigAccess;
use super::function::{Function, STATUS_CAPABILITIES, reg};
use crate::base::Result;
use crate::machine::Bus;

/// Vendor-specific capability.
pub const CAP_ID_VENDOR: u8 = 0x09;
/// MSI-X capability.
pub const CAP_ID_MSIX: u8 = 0x11;

/// Capabilities lie behind the 64-byte header.
const FIRST_OFFSET: u8 = 0x40;

/// A capability's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Its id.
    pub id: u8,
    /// Its offset in configuration space.
    pub offset: u16,
}

/// All capabilities of a function, in list order.
///
/// # Errors
/// A machine error when the list points into the header or runs in a circle.
pub fn list(bus: &mut dyn Bus, function: &Function) -> Result<Vec<Capability>> {
    let mut found = Vec::new();
    if function.read16(bus, reg::STATUS) & STATUS_CAPABILITIES == 0 {
        return Ok(found);
    }
    // One bit for each double word of the 256 bytes: a place seen twice closes a circle.
    let mut seen = 0u64;
    let mut next = function.read(bus, reg::CAPABILITIES, 1) as u8 & !3;
    while next != 0 {
        if next < FIRST_OFFSET {
            return Err(function.error(format_args!(
                "its capability list points into the header, at {next:#04x}"
            )));
        }
        let bit = 1u64 << (next >> 2);
        if seen & bit != 0 {
            return Err(function
                .error(format_args!("its capability list runs in a circle through {next:#04x}")));
        }
        seen |= bit;
        let head = function.read16(bus, u16::from(next));
        found.push(Capability { id: head as u8, offset: u16::from(next) });
        next = (head >> 8) as u8 & !3;
    }
    Ok(found)
}

/// Extended capabilities begin behind the 256 bytes of PCI.
const FIRST_EXTENDED: u16 = 0x100;
/// Double words of the extended space: a list cannot be longer.
const EXTENDED_MAX: usize = (4096 - 256) / 4;

/// An extended capability's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedCapability {
    /// Its id.
    pub id: u16,
    /// Version of its layout.
    pub version: u8,
    /// Its offset in configuration space.
    pub offset: u16,
}

/// All extended capabilities of a function, in list order; none where ports are the only way, or
/// the function is a conventional one.
///
/// # Errors
/// A machine error when the list points out of its space or runs in a circle.
pub fn extended(bus: &mut dyn Bus, function: &Function) -> Result<Vec<ExtendedCapability>> {
    let mut found = Vec::new();
    if function.access == ConfigAccess::Ports {
        return Ok(found);
    }
    let mut offset = FIRST_EXTENDED;
    while found.len() < EXTENDED_MAX {
        let head = function.read(bus, offset, 4);
        // An empty list is a single header of zeros; no extended space at all, ones.
        if matches!(head, 0 | u32::MAX) {
            return Ok(found);
        }
        found.push(ExtendedCapability {
            id: head as u16,
            version: (head >> 16 & 15) as u8,
            offset,
        });
        match (head >> 20) as u16 & !3 {
            0 => return Ok(found),
            next @ 1..FIRST_EXTENDED => {
                return Err(function.error(format_args!(
                    "its extended capability list points out of its space, at {next:#05x}"
                )));
            }
            next => offset = next,
        }
    }
    Err(function.error("its extended capability list runs in a circle"))
}
