//! A structure of registers within a BAR, in I/O or memory space.

use crate::base::GuestAddr;
use crate::driver::virtio::transport::Doorbell;
use crate::machine::Bus;

/// A checked range of a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    io: bool,
    base: u64,
    len: u64,
}

impl Window {
    /// `len` bytes at bus address `base`, in I/O space or memory space.
    pub fn new(io: bool, base: u64, len: u64) -> Self {
        Self { io, base, len }
    }

    /// Its bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `size` bytes at `offset` lie within it.
    pub fn contains(&self, offset: u64, size: u64) -> bool {
        offset.checked_add(size).is_some_and(|end| end <= self.len)
    }

    /// The part of it that begins at `offset`; empty when that is outside.
    #[must_use]
    pub fn skip(&self, offset: u64) -> Self {
        let skipped = offset.min(self.len);
        Self { base: self.base + skipped, len: self.len - skipped, ..*self }
    }

    /// The 16-bit register at `offset` as a queue's doorbell, or `None` when it is outside.
    pub fn doorbell(&self, offset: u64, queue: u16) -> Option<Doorbell> {
        let addr = self.base.saturating_add(offset);
        let doorbell = match self.io {
            true => Doorbell::Port(addr as u16, queue),
            false => Doorbell::Memory(GuestAddr(addr), queue),
        };
        self.contains(offset, 2).then_some(doorbell)
    }

    /// Reads 1, 2 or 4 bytes; all ones outside the window, as a bus answers where nothing is.
    pub fn read(&self, bus: &mut dyn Bus, offset: u64, size: u8) -> u32 {
        if !self.contains(offset, u64::from(size)) {
            return u32::MAX;
        }
        if self.io {
            bus.pio_read((self.base + offset) as u16, size)
        } else {
            bus.mmio_read(GuestAddr(self.base + offset), size) as u32
        }
    }

    /// Writes 1, 2 or 4 bytes; nothing outside the window.
    #[inline]
    pub fn write(&self, bus: &mut dyn Bus, offset: u64, size: u8, value: u32) {
        if !self.contains(offset, u64::from(size)) {
            return;
        }
        if self.io {
            bus.pio_write((self.base + offset) as u16, size, value);
        } else {
            bus.mmio_write(GuestAddr(self.base + offset), size, u64::from(value));
        }
    }

    /// Writes 64 bits as two 32-bit halves, low first: the access every device must take for its
    /// 64-bit registers (virtio 1.2 §4.1.3.1).
    pub fn write_u64(&self, bus: &mut dyn Bus, offset: u64, value: u64) {
        self.write(bus, offset, 4, value as u32);
        self.write(bus, offset + 4, 4, (value >> 32) as u32);
    }
}
