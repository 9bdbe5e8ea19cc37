//! A type 0 configuration space: 256 bytes, each with a mask of the bits that software may write.
//!
//! BAR sizing needs nothing special: the address bits below the BAR's size are simply not writable.

use super::bits::*;

/// The space a BAR decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB.
    Mem32,
    /// Memory anywhere, prefetchable; takes two registers.
    Mem64,
}

/// A base address register: its kind and the power-of-two size it decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Space.
    pub kind: BarKind,
    /// Bytes.
    pub size: u64,
}

/// A range that a function decodes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// BAR number.
    pub bar: u8,
    /// Port space rather than memory.
    pub io: bool,
    /// First address.
    pub base: u64,
    /// Bytes.
    pub size: u64,
}

/// Who a function is.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Class, subclass and programming interface, as 0xCCSSPP.
    pub class: u32,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
}

/// The registers of one function.
pub struct ConfigSpace {
    data: [u8; 256],
    /// What the registers hold after a reset.
    initial: [u8; 256],
    writable: [u8; 256],
    bars: [Option<Bar>; PCI_BARS],
    first_capability: u8,
    free: u8,
}

impl ConfigSpace {
    /// A header without BARs, capabilities or interrupt.
    pub fn new(id: &Identity) -> Self {
        let mut space = Self {
            data: [0; 256],
            initial: [0; 256],
            writable: [0; 256],
            bars: [None; PCI_BARS],
            first_capability: 0,
            free: PCI_HEADER_END,
        };
        space.preset(PCI_VENDOR_ID, &id.vendor.to_le_bytes());
        space.preset(PCI_DEVICE_ID, &id.device.to_le_bytes());
        space.preset(PCI_REVISION_ID, &[id.revision]);
        space.preset(PCI_REVISION_ID + 1, &id.class.to_le_bytes()[..3]);
        space.preset(PCI_SUBSYSTEM_VENDOR_ID, &id.subsystem_vendor.to_le_bytes());
        space.preset(PCI_SUBSYSTEM_ID, &id.subsystem.to_le_bytes());
        let command = PCI_COMMAND_IO
            | PCI_COMMAND_MEMORY
            | PCI_COMMAND_MASTER
            | PCI_COMMAND_PARITY
            | PCI_COMMAND_SERR
            | PCI_COMMAND_INTX_DISABLE;
        space.allow(PCI_COMMAND, &command.to_le_bytes());
        space.allow(PCI_CACHE_LINE_SIZE, &[0xff]);
        space.allow(PCI_LATENCY_TIMER, &[0xff]);
        space
    }

    /// Sets read-only (or reset) content.
    pub fn preset(&mut self, reg: u8, bytes: &[u8]) {
        let cells = self.data.iter_mut().zip(&mut self.initial).skip(reg.into());
        for ((cell, initial), byte) in cells.zip(bytes) {
            (*cell, *initial) = (*byte, *byte);
        }
    }

    /// Back to what was preset.
    pub fn reset(&mut self) {
        self.data = self.initial;
    }

    /// Makes the bits of `mask` writable, from `reg` on.
    pub fn allow(&mut self, reg: u8, mask: &[u8]) {
        for (cell, byte) in self.writable.iter_mut().skip(reg.into()).zip(mask) {
            *cell = *byte;
        }
    }

    /// Declares a BAR of `size` bytes, rounded up to the power of two that a BAR can express: at
    /// least 4 for I/O and 16 for memory (PCI 3.0 §6.2.5.1).
    pub fn add_bar(&mut self, number: u8, kind: BarKind, size: u64) {
        let (kind_bits, least) = match kind {
            BarKind::Io => (PCI_BASE_ADDRESS_SPACE_IO, 4),
            BarKind::Mem32 => (0, 16),
            BarKind::Mem64 => (PCI_BASE_ADDRESS_MEM_TYPE_64 | PCI_BASE_ADDRESS_MEM_PREFETCH, 16),
        };
        let size = size.next_power_of_two().max(least);
        let Some(slot) = self.bars.get_mut(usize::from(number)) else { return };
        *slot = Some(Bar { kind, size });
        let reg = PCI_BASE_ADDRESS_0 + 4 * number;
        self.preset(reg, &kind_bits.to_le_bytes());
        let mask = !(size - 1);
        match kind {
            BarKind::Mem64 => self.allow(reg, &mask.to_le_bytes()),
            _ => self.allow(reg, &(mask as u32).to_le_bytes()),
        }
    }

    /// Links a capability of `body` (which begins with its ID and a byte for the next pointer) with
    /// its write mask before those that are there, as QEMU's functions have theirs, and gives its
    /// offset; `None` when configuration space is full.
    pub fn add_capability(&mut self, body: &[u8], mask: &[u8]) -> Option<u8> {
        let at = self.free;
        let end = usize::from(at) + body.len().next_multiple_of(4);
        // The free pointer is a byte: the last four bytes of the space are never used.
        self.free = u8::try_from(end).ok()?;
        self.preset(at, body);
        self.allow(at, mask);
        let next = std::mem::replace(&mut self.first_capability, at);
        self.preset(at + 1, &[next]);
        self.preset(PCI_CAPABILITY_LIST, &[at]);
        self.preset(PCI_STATUS, &PCI_STATUS_CAP_LIST.to_le_bytes());
        Some(at)
    }

    /// Has pin INTA#, with the interrupt line register at `line`: where firmware routed it, or 0.
    pub fn set_interrupt(&mut self, line: u8) {
        self.preset(PCI_INTERRUPT_LINE, &[line]);
        self.allow(PCI_INTERRUPT_LINE, &[0xff]);
        self.preset(PCI_INTERRUPT_PIN, &[1]);
    }

    /// The interrupt status bit, as the device drives it.
    pub fn set_interrupt_status(&mut self, pending: bool) {
        let bit = PCI_STATUS_INTERRUPT as u8;
        let status = &mut self.data[usize::from(PCI_STATUS)];
        *status = if pending { *status | bit } else { *status & !bit };
    }

    /// Reads 1 to 4 bytes; bytes past the end are ones.
    pub fn read(&self, reg: u8, size: u8) -> u32 {
        (0..usize::from(size.min(4))).rev().fold(0, |value, i| {
            let byte = self.data.get(usize::from(reg) + i).copied().unwrap_or(0xff);
            value << 8 | u32::from(byte)
        })
    }

    /// Writes 1 to 4 bytes, as far as they are writable.
    pub fn write(&mut self, reg: u8, size: u8, value: u32) {
        let bytes = value.to_le_bytes();
        let cells = self.data.iter_mut().zip(&self.writable).skip(reg.into());
        for ((cell, mask), byte) in cells.zip(&bytes[..usize::from(size.min(4))]) {
            *cell = *cell & !mask | byte & mask;
        }
    }

    /// The command register.
    pub fn command(&self) -> u16 {
        self.read(PCI_COMMAND, 2) as u16
    }

    /// A BAR as declared.
    pub fn bar(&self, number: u8) -> Option<Bar> {
        self.bars.get(usize::from(number)).copied().flatten()
    }

    /// What the function decodes now: BARs whose space is enabled and that hold an address. An
    /// address of 0 counts as none (firmware leaves unassigned BARs so), and a range that would
    /// pass the end of its space, as during sizing, is not decoded.
    pub fn decoded(&self) -> impl Iterator<Item = Decoded> + '_ {
        let command = self.command();
        self.bars.iter().enumerate().filter_map(move |(number, bar)| {
            let bar = (*bar)?;
            let reg = PCI_BASE_ADDRESS_0 + 4 * number as u8;
            let low = u64::from(self.read(reg, 4));
            let (enable, base, end) = match bar.kind {
                BarKind::Io => (PCI_COMMAND_IO, low & !3, 1 << 16),
                BarKind::Mem32 => (PCI_COMMAND_MEMORY, low & !15, 1 << 32),
                BarKind::Mem64 => {
                    let high = u64::from(self.read(reg + 4, 4)) << 32;
                    (PCI_COMMAND_MEMORY, high | low & !15, u64::MAX)
                }
            };
            let fits = base.checked_add(bar.size).is_some_and(|e| e <= end);
            (command & enable != 0 && base != 0 && fits).then_some(Decoded {
                bar: number as u8,
                io: bar.kind == BarKind::Io,
                base,
                size: bar.size,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> ConfigSpace {
        let mut space = ConfigSpace::new(&Identity {
            vendor: 0x1af4,
            device: 0x1001,
            revision: 0,
            class: 0x01_00_00,
            subsystem_vendor: 0x1af4,
            subsystem: 2,
        });
        space.add_bar(0, BarKind::Io, 100);
        space.add_bar(1, BarKind::Mem32, 4096);
        space.add_bar(4, BarKind::Mem64, 16384);
        space
    }

    fn size_bar(space: &mut ConfigSpace, bar: u8) -> u32 {
        space.write(PCI_BASE_ADDRESS_0 + 4 * bar, 4, u32::MAX);
        space.read(PCI_BASE_ADDRESS_0 + 4 * bar, 4)
    }

    #[test]
    fn sizing_shows_kind_and_size_and_absent_bars_are_zero() {
        let mut space = space();
        assert_eq!(size_bar(&mut space, 0), !127 | 1);
        assert_eq!(size_bar(&mut space, 1), !4095);
        assert_eq!(size_bar(&mut space, 2), 0);
        assert_eq!(size_bar(&mut space, 4), !16383 | 0xc);
        assert_eq!(size_bar(&mut space, 5), u32::MAX);
    }

    #[test]
    fn bars_decode_only_when_enabled_assigned_and_in_range() {
        let mut space = space();
        space.write(0x10, 4, 0xc000);
        space.write(0x20, 4, 0x4000);
        space.write(0x24, 4, 0x80);
        assert_eq!(space.decoded().count(), 0);
        space.write(PCI_COMMAND, 2, u32::from(PCI_COMMAND_IO));
        let io = Decoded { bar: 0, io: true, base: 0xc000, size: 128 };
        assert_eq!(space.decoded().collect::<Vec<_>>(), [io]);
        space.write(PCI_COMMAND, 2, u32::from(PCI_COMMAND_MEMORY));
        let mem = Decoded { bar: 4, io: false, base: 0x80_0000_4000, size: 16384 };
        assert_eq!(space.decoded().collect::<Vec<_>>(), [mem]);
        // Sized while enabled: all ones is no place to decode.
        space.write(0x20, 4, u32::MAX);
        space.write(0x24, 4, u32::MAX);
        assert_eq!(space.decoded().count(), 0);
        // An I/O BAR above the 64 Ki ports does not alias them.
        space.write(0x10, 4, 0x1_c000);
        space.write(PCI_COMMAND, 2, u32::from(PCI_COMMAND_IO));
        assert_eq!(space.decoded().count(), 0);
    }

    #[test]
    fn read_only_registers_keep_their_value_at_any_width() {
        let mut space = space();
        for reg in [PCI_VENDOR_ID, PCI_REVISION_ID, PCI_SUBSYSTEM_VENDOR_ID, PCI_STATUS] {
            let before = space.read(reg, 2);
            space.write(reg, 2, !before);
            space.write(reg + 1, 1, 0xff);
            assert_eq!(space.read(reg, 2), before, "register {reg:#x}");
        }
        space.write(PCI_COMMAND, 2, 0xffff);
        assert_eq!(space.command(), 0x0547);
    }

    #[test]
    fn capabilities_are_linked_newest_first_and_end() {
        let mut space = space();
        let first = space.add_capability(&[PCI_CAP_ID_VNDR, 0, 3], &[]).unwrap();
        let second = space.add_capability(&[PCI_CAP_ID_MSIX, 0xff, 1], &[0, 0, 0, 0x80]).unwrap();
        assert_eq!(space.read(PCI_CAPABILITY_LIST, 1), u32::from(second));
        assert_eq!(space.read(second + 1, 1), u32::from(first));
        assert_eq!(space.read(first + 1, 1), 0);
        assert_ne!(space.read(PCI_STATUS, 2) as u16 & PCI_STATUS_CAP_LIST, 0);
        assert_eq!(space.add_capability(&[0; 200], &[]), None);
    }
}
