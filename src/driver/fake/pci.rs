//! Configuration space as bytes with write masks.

/// One PCI function.
pub struct FakeFunction {
    pub bytes: [u8; 256],
    pub writable: [u8; 256],
}

impl FakeFunction {
    pub fn new(vendor: u16, device: u16, class: u16) -> Self {
        let mut function = Self { bytes: [0; 256], writable: [0; 256] };
        function.put16(0x00, vendor);
        function.put16(0x02, device);
        function.put16(0x0a, class);
        function.writable[0x04] = 0x07;
        function.writable[0x05] = 0x04;
        function
    }

    pub fn bridge() -> Self {
        let mut bridge = Self::new(0x1b36, 0x0001, 0x0604);
        bridge.bytes[0x0e] = 1;
        bridge.writable[0x18..0x1d].fill(0xff);
        bridge.writable[0x1c..0x1e].fill(0xf0);
        bridge.writable[0x20..0x34].fill(0xff);
        bridge
    }

    /// A transitional virtio block device: I/O BAR 0, MSI-X in BAR 1, modern structures in BAR 4.
    pub fn virtio_blk() -> Self {
        let mut f = Self::new(0x1af4, 0x1001, 0x0100);
        f.bar(0, 1, 0xffff_ff80);
        f.bar(1, 0, 0xffff_f000);
        f.bar(4, 0x0c, 0xffff_c000);
        f.bar(5, 0, 0xffff_ffff);
        f.bytes[0x06] = 0x10;
        f.bytes[0x34] = 0x40;
        f.bytes[0x3c] = super::LINE as u8;
        f.bytes[0x3d] = 1;
        // MSI-X: 8 vectors, table at 0 and pending bits at 0x800 of BAR 1.
        f.put(0x40, &[0x11, 0x50, 7, 0, 1, 0, 0, 0, 1, 8, 0, 0]);
        f.writable[0x43] = 0xc0;
        // An unknown type in a reserved BAR comes first: it must be passed over.
        f.vendor_cap(0x50, 0x60, 1, 7, 0, 0x38);
        f.vendor_cap(0x60, 0x70, 1, 4, 0, 0x38);
        f.vendor_cap(0x70, 0x84, 2, 4, 0x3000, 0x1000);
        f.bytes[0x80] = 4; // notify_off_multiplier
        f.vendor_cap(0x84, 0x94, 3, 4, 0x1000, 1);
        f.vendor_cap(0x94, 0, 4, 4, 0x2000, 0x100);
        f
    }

    pub fn vendor_cap(&mut self, at: usize, next: u8, kind: u8, bar: u8, offset: u32, len: u32) {
        self.put(at, &[0x09, next, 16, kind, bar, 0, 0, 0]);
        self.put(at + 8, &offset.to_le_bytes());
        self.put(at + 12, &len.to_le_bytes());
    }

    pub fn bar(&mut self, index: usize, fixed: u8, mask: u32) {
        self.put(0x10 + 4 * index, &u32::from(fixed).to_le_bytes());
        self.writable[0x10 + 4 * index..][..4].copy_from_slice(&mask.to_le_bytes());
    }

    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub fn put16(&mut self, at: usize, value: u16) {
        self.put(at, &value.to_le_bytes());
    }

    pub fn get32(&self, at: usize) -> u32 {
        self.read(at, 4)
    }

    pub fn read(&self, at: usize, size: u8) -> u32 {
        let mut value = [0; 4];
        value[..usize::from(size)].copy_from_slice(&self.bytes[at..at + usize::from(size)]);
        u32::from_le_bytes(value)
    }

    pub fn write(&mut self, at: usize, size: u8, value: u32) {
        for (index, byte) in value.to_le_bytes().into_iter().take(usize::from(size)).enumerate() {
            let mask = self.writable[at + index];
            self.bytes[at + index] = (self.bytes[at + index] & !mask) | (byte & mask);
        }
    }

    pub fn is_bridge(&self) -> bool {
        self.bytes[0x0a] == 4 && self.bytes[0x0b] == 6
    }

    pub fn msix_enabled(&self) -> bool {
        self.bytes[0x43] & 0xc0 == 0x80
    }

    pub fn is_master(&self) -> bool {
        self.bytes[0x04] & 4 != 0
    }

    /// Which BAR answers an access, if decoding is on.
    pub fn decode(&self, io: bool, addr: u64) -> Option<(usize, u64)> {
        let mut index = 0;
        while index < 6 {
            let at = 0x10 + 4 * index;
            let (low, mask) = (self.get32(at), self.mask(index));
            let is_io = low & 1 != 0;
            let wide = !is_io && low & 6 == 4;
            let high = if wide { u64::from(self.get32(at + 4)) << 32 } else { 0 };
            let base = high | u64::from(low & mask);
            let size = u64::from(mask.wrapping_neg());
            let decoding = self.bytes[0x04] & if is_io { 1 } else { 2 } != 0;
            let inside = (base..base.saturating_add(size)).contains(&addr);
            if mask != 0 && is_io == io && decoding && base != 0 && inside {
                return Some((index, addr - base));
            }
            index += if wide { 2 } else { 1 };
        }
        None
    }

    fn mask(&self, index: usize) -> u32 {
        let mut mask = [0; 4];
        mask.copy_from_slice(&self.writable[0x10 + 4 * index..][..4]);
        u32::from_le_bytes(mask)
    }
}
