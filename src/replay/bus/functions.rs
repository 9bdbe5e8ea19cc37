//! Where firmware or a driver put a virtio function's structures, as the accesses of a trace tell
//! it: a trace that does not name regions says so by its configuration cycles.

use std::collections::BTreeMap;

use super::regions::{
    MSIX_PBA, MSIX_TABLE, Named, VIRTIO_COMMON, VIRTIO_DEVICE, VIRTIO_ISR, VIRTIO_LEGACY,
    VIRTIO_NOTIFY,
};
use crate::base::{BusAccess, BusSpace};

/// Functions that are followed: eight buses of a full board.
const FUNCTIONS_MAX: usize = 256;

/// Bytes of configuration space behind the two ports.
const CONFIG_BYTES: usize = 256;

/// Vendor, and the two ids of a block device (virtio 1.2 §4.1.2).
const VIRTIO: u16 = 0x1af4;
const BLOCK: [u16; 2] = [0x1001, 0x1042];

/// Capabilities: the list's head (PCI 3.0 §6.7), the vendor's own, MSI-X.
const CAPABILITIES: usize = 0x34;
const CAP_VENDOR: u8 = 0x09;
const CAP_MSIX: u8 = 0x11;
/// More than fit.
const CAPS_MAX: usize = 64;

/// Length of the legacy interface's registers with a disk's behind them.
const LEGACY_BYTES: u64 = 0x80;
/// Bytes of an entry of an MSI-X table (PCI 3.0 §6.8.2).
const MSIX_ENTRY_BYTES: u64 = 16;

type Config = [u8; CONFIG_BYTES];

/// A structure's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    space: BusSpace,
    start: u64,
    len: u64,
    /// The region it is.
    region: usize,
}

/// Configuration space as far as it was seen.
#[derive(Clone, Debug, Default)]
pub struct Functions {
    seen: BTreeMap<u16, Box<Config>>,
    windows: Vec<Window>,
    /// Something changed since `windows` was made.
    stale: bool,
}

impl Functions {
    /// Takes note of what was written to a register of function `bdf`.
    pub fn written(&mut self, bdf: u16, register: usize, size: u8, value: u64) {
        let kept = self.seen.get(&bdf).map_or(0, |config| kept(config, register));
        let known = self.seen.get(&bdf).map_or(0, |config| u64::from(byte(config, register)));
        self.note(bdf, register, size, value & !kept | known & kept);
    }

    /// Takes note of what was read from a register of function `bdf`.
    pub fn note(&mut self, bdf: u16, register: usize, size: u8, value: u64) {
        if !self.seen.contains_key(&bdf) && self.seen.len() >= FUNCTIONS_MAX {
            return;
        }
        let config = self.seen.entry(bdf).or_insert_with(|| Box::new([0; CONFIG_BYTES]));
        for (at, byte) in (register..).zip(value.to_le_bytes()).take(size.into()) {
            if let Some(known) = config.get_mut(at) {
                self.stale |= *known != byte;
                *known = byte;
            }
        }
    }

    /// The region at an address, by its position in the list of regions.
    pub fn find(&mut self, access: &BusAccess) -> Option<usize> {
        if std::mem::take(&mut self.stale) {
            self.windows = self.seen.values().flat_map(|config| windows(config)).collect();
        }
        let here = |window: &&Window| {
            let offset = access.addr.checked_sub(window.start);
            window.space == access.space && offset.is_some_and(|offset| offset < window.len)
        };
        self.windows.iter().find(here).map(|window| window.region)
    }
}

fn byte(config: &Config, at: usize) -> u8 {
    config.get(at).copied().unwrap_or(0)
}

fn word(config: &Config, at: usize) -> u16 {
    u16::from_le_bytes([byte(config, at), byte(config, at + 1)])
}

fn long(config: &Config, at: usize) -> u32 {
    u32::from(word(config, at)) | u32::from(word(config, at + 2)) << 16
}

/// Bits of a base address register that writes leave as they are (PCI 3.0 §6.2.5.1): the kind of
/// the space. The upper half of a 64-bit address has none.
fn kept(config: &Config, register: usize) -> u64 {
    if !(0x10..0x28).contains(&register) || !register.is_multiple_of(4) {
        return 0;
    }
    let low =
        (0x10..register).step_by(4).fold(false, |upper, at| !upper && byte(config, at) & 7 == 4);
    match byte(config, register) & 1 {
        _ if low => 0,
        1 => 3,
        _ => 15,
    }
}

/// Where a base address register points, if it does (PCI 3.0 §6.2.5.1).
fn bar(config: &Config, number: u8) -> Option<(BusSpace, u64)> {
    if number > 5 {
        return None;
    }
    let at = 0x10 + 4 * usize::from(number);
    let low = long(config, at);
    let (space, base) = match low & 7 {
        io if io & 1 != 0 => (BusSpace::Pio, u64::from(low & !3)),
        4 => (BusSpace::Mmio, u64::from(low & !15) | u64::from(long(config, at + 4)) << 32),
        _ => (BusSpace::Mmio, u64::from(low & !15)),
    };
    (base != 0).then_some((space, base))
}

fn windows(config: &Config) -> Vec<Window> {
    let mut windows = Vec::new();
    if word(config, 0) != VIRTIO || !BLOCK.contains(&word(config, 2)) {
        return windows;
    }
    let mut add = |name: &str, number: u8, offset: u64, len: u64| {
        let known = Named::new(name);
        // MSI-X is in memory always (PCI 3.0 §6.8.2); what was not read of it says nothing.
        let memory = name == MSIX_TABLE || name == MSIX_PBA;
        let place = bar(config, number).filter(|(space, _)| !memory || *space == BusSpace::Mmio);
        if let (Named::Known(region), Some((space, base))) = (known, place) {
            windows.push(Window { space, start: base.wrapping_add(offset), len, region });
        }
    };
    let mut at = usize::from(byte(config, CAPABILITIES) & !3);
    for _ in 0..CAPS_MAX {
        match byte(config, at) {
            _ if at == 0 => break,
            CAP_VENDOR => {
                // struct virtio_pci_cap, virtio 1.2 §4.1.4.
                let name = match byte(config, at + 3) {
                    1 => Some(VIRTIO_COMMON),
                    2 => Some(VIRTIO_NOTIFY),
                    3 => Some(VIRTIO_ISR),
                    4 => Some(VIRTIO_DEVICE),
                    _ => None,
                };
                let (offset, len) = (long(config, at + 8), long(config, at + 12));
                if let Some(name) = name {
                    add(name, byte(config, at + 4), offset.into(), len.into());
                }
            }
            CAP_MSIX => {
                let entries = u64::from(word(config, at + 2) & 0x7ff) + 1;
                let (table, pba) = (long(config, at + 4), long(config, at + 8));
                let of = |place: u32| ((place & 7) as u8, u64::from(place & !7));
                let ((bar, offset), (pba_bar, pba_offset)) = (of(table), of(pba));
                add(MSIX_TABLE, bar, offset, entries * MSIX_ENTRY_BYTES);
                add(MSIX_PBA, pba_bar, pba_offset, entries.div_ceil(64) * 8);
            }
            _ => {}
        }
        at = usize::from(byte(config, at + 1) & !3);
    }
    if bar(config, 0).is_some_and(|(space, _)| space == BusSpace::Pio) {
        add(VIRTIO_LEGACY, 0, 0, LEGACY_BYTES);
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::bus::regions::REGIONS;

    fn name(functions: &mut Functions, space: BusSpace, addr: u64) -> Option<&'static str> {
        let access = BusAccess { space, write: false, addr, size: 1, value: 0 };
        functions.find(&access).map(|at| REGIONS[at].name)
    }

    #[test]
    fn structures_are_where_capabilities_and_base_addresses_say() {
        let mut functions = Functions::default();
        let mut note = |register, size, value| functions.note(0x20, register, size, value);
        note(0, 4, 0x1001_1af4);
        note(0x10, 4, 0xffff_ff81);
        note(0x10, 4, 0xc081);
        note(0x14, 4, 0xfebd_1000);
        note(0x20, 4, 0xc);
        note(0x24, 4, 0x80);
        note(0x34, 1, 0x40);
        note(0x40, 4, 0x0410_5009);
        note(0x44, 4, 4);
        note(0x48, 4, 0x2000);
        note(0x4c, 4, 0x1000);
        note(0x50, 4, 0x0001_0011);
        note(0x54, 4, 1);
        note(0x58, 4, 0x801);
        assert_eq!(name(&mut functions, BusSpace::Pio, 0xc093), Some(VIRTIO_LEGACY));
        assert_eq!(name(&mut functions, BusSpace::Mmio, 0x80_0000_2014), Some(VIRTIO_DEVICE));
        assert_eq!(name(&mut functions, BusSpace::Mmio, 0x80_0000_3000), None);
        assert_eq!(name(&mut functions, BusSpace::Mmio, 0xfebd_101f), Some(MSIX_TABLE));
        assert_eq!(name(&mut functions, BusSpace::Mmio, 0xfebd_1020), None);
        assert_eq!(name(&mut functions, BusSpace::Mmio, 0xfebd_1800), Some(MSIX_PBA));
        // It moves.
        functions.written(0x20, 0x10, 4, 0xd000);
        assert_eq!(name(&mut functions, BusSpace::Pio, 0xc093), None);
        assert_eq!(name(&mut functions, BusSpace::Pio, 0xd013), Some(VIRTIO_LEGACY));
    }

    #[test]
    fn a_base_address_is_written_without_the_bits_that_tell_its_kind() {
        let mut functions = Functions::default();
        functions.note(0x20, 0, 4, 0x1001_1af4);
        functions.note(0x20, 0x34, 1, 0x40);
        for (at, value) in [(0x40, 0x0110_0009), (0x44, 4), (0x48, 0), (0x4c, 0x1000)] {
            functions.note(0x20, at, 4, value);
        }
        // Each is sized, then placed.
        for (at, size, base) in [(0x10, 0xffff_ff81, 0xc080), (0x20, 0xffff_c00c, 0)] {
            functions.written(0x20, at, 4, 0xffff_ffff);
            functions.note(0x20, at, 4, size);
            functions.written(0x20, at, 4, base);
        }
        functions.written(0x20, 0x24, 4, 0xffff_ffff);
        functions.note(0x20, 0x24, 4, 0xffff_ffff);
        functions.written(0x20, 0x24, 4, 0x80);
        assert_eq!(name(&mut functions, BusSpace::Pio, 0xc093), Some(VIRTIO_LEGACY));
        assert_eq!(name(&mut functions, BusSpace::Mmio, 0x80_0000_0014), Some(VIRTIO_COMMON));
    }

    #[test]
    fn whatever_is_there_nothing_is_taken_for_a_structure_that_is_none() {
        let mut functions = Functions::default();
        // A list of capabilities that goes round, and one beyond the end.
        for (bdf, head) in [(0, 0x40), (8, 0xfc)] {
            functions.note(bdf, 0, 4, 0x1042_1af4);
            functions.note(bdf, 0x34, 1, head);
            functions.note(bdf, head as usize, 4, 0x0100_0009 | head << 8);
            functions.note(bdf, head as usize + 4, 1, 7);
            functions.note(bdf, 0xfe, 8, u64::MAX);
        }
        for bdf in 0..u16::MAX {
            functions.note(bdf, 0, 2, 0x8086);
        }
        assert_eq!(functions.seen.len(), FUNCTIONS_MAX);
        assert_eq!(name(&mut functions, BusSpace::Mmio, 0), None);
    }
}
