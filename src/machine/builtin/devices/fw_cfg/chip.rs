//! The selected item, the place in it, and the DMA address register.

use std::collections::BTreeMap;

use super::bits::*;
use super::items::{FwCfgConfig, Item, table};

/// The device's registers and items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FwCfgChip {
    items: BTreeMap<u16, Item>,
    selector: u16,
    offset: usize,
    dma_address: u64,
}

/// What a DMA transfer does with the next bytes of the item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// To memory.
    Read,
    /// From memory.
    Write,
    /// Neither.
    Skip,
}

impl Transfer {
    /// The operation that control asks for: reading before writing before skipping.
    pub fn of(control: u32) -> Option<Self> {
        let asked = |bit| control & bit != 0;
        if asked(FW_CFG_DMA_CTL_READ) {
            Some(Self::Read)
        } else if asked(FW_CFG_DMA_CTL_WRITE) {
            Some(Self::Write)
        } else {
            asked(FW_CFG_DMA_CTL_SKIP).then_some(Self::Skip)
        }
    }
}

impl FwCfgChip {
    /// The device at power on: the signature is selected.
    pub fn new(config: &FwCfgConfig) -> Self {
        Self { items: table(config), selector: FW_CFG_SIGNATURE, offset: 0, dma_address: 0 }
    }

    /// Writes the selector: the item is read from its start. The write channel bit is taken off.
    pub fn select(&mut self, selector: u16) {
        self.selector = selector & !FW_CFG_WRITE_CHANNEL;
        self.offset = 0;
    }

    /// Reads a byte of the data register: the item's next, 0 behind its end or where there is none.
    pub fn read_data(&mut self) -> u8 {
        let byte = self.items.get(&self.selector).and_then(|item| item.data.get(self.offset));
        match byte.copied() {
            Some(byte) => {
                self.offset += 1;
                byte
            }
            None => 0,
        }
    }

    /// The item's bytes from here on, at most `len`.
    pub fn rest(&self, len: usize) -> &[u8] {
        let rest = self.items.get(&self.selector).and_then(|item| item.data.get(self.offset..));
        let rest = rest.unwrap_or_default();
        rest.get(..len).unwrap_or(rest)
    }

    /// Moves on by `len` bytes, at most to the item's end.
    pub fn skip(&mut self, len: usize) {
        self.offset += self.rest(len).len();
    }

    /// The place for exactly `len` bytes of a writable item, or `None`: such a write is refused as a
    /// whole.
    pub fn writable(&mut self, len: usize) -> Option<&mut [u8]> {
        let item = self.items.get_mut(&self.selector).filter(|item| item.writable)?;
        let end = self.offset.checked_add(len)?;
        item.data.get_mut(self.offset..end)
    }

    /// Reads byte `offset` of the DMA address register: its signature, most significant byte first.
    pub fn read_dma(&self, offset: u64) -> u8 {
        let bytes = FW_CFG_DMA_SIGNATURE.to_be_bytes();
        bytes.get(offset as usize).copied().unwrap_or(0)
    }

    /// Writes the DMA address register, whose halves are big endian. The low half, or the whole,
    /// starts the transfer at the address returned; the register is then 0 again. Other widths do
    /// not exist.
    #[must_use]
    pub fn write_dma(&mut self, offset: u64, size: u8, value: u64) -> Option<u64> {
        match (offset, size) {
            (0, 4) => {
                self.dma_address = u64::from((value as u32).swap_bytes()) << 32;
                None
            }
            (4, 4) => {
                let address = self.dma_address | u64::from((value as u32).swap_bytes());
                self.dma_address = 0;
                Some(address)
            }
            (0, 8) => {
                self.dma_address = 0;
                Some(value.swap_bytes())
            }
            _ => None,
        }
    }

    /// The board's reset line: the signature is selected; items that were written stay.
    pub fn reset(&mut self) {
        self.select(FW_CFG_SIGNATURE);
        self.dma_address = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selecting_begins_the_item_and_its_end_reads_zero() {
        let mut chip = FwCfgChip::new(&FwCfgConfig::pc(1 << 30, 3));
        let mut read = |selector, len| -> Vec<u8> {
            chip.select(selector);
            (0..len).map(|_| chip.read_data()).collect()
        };
        assert_eq!(read(FW_CFG_SIGNATURE, 6), *b"QEMU\0\0");
        assert_eq!(read(FW_CFG_SIGNATURE | FW_CFG_WRITE_CHANNEL, 4), *b"QEMU");
        assert_eq!(read(FW_CFG_ID, 4), [3, 0, 0, 0]);
        assert_eq!(read(FW_CFG_RAM_SIZE, 8), (1u64 << 30).to_le_bytes());
        assert_eq!(read(FW_CFG_NB_CPUS, 2), [3, 0]);
        assert_eq!(read(0x3fff, 4), [0; 4]);
        assert_eq!(read(FW_CFG_ARCH_LOCAL, 4), [0; 4], "not the signature");
    }

    #[test]
    fn the_dma_register_is_two_big_endian_halves() {
        let mut chip = FwCfgChip::new(&FwCfgConfig::pc(0, 1));
        assert_eq!((0..8).map(|i| chip.read_dma(i)).collect::<Vec<_>>(), b"QEMU CFG");
        assert_eq!(chip.write_dma(0, 4, 0x0100_0000), None);
        assert_eq!(chip.write_dma(4, 4, 0x3c6f_0000), Some(0x1_0000_6f3c));
        assert_eq!(chip.write_dma(4, 4, 0x3c6f_0000), Some(0x6f3c), "the high half was used up");
        assert_eq!(chip.write_dma(0, 8, 0x3c6f_0000_0100_0000), Some(0x1_0000_6f3c));
        assert_eq!(chip.write_dma(4, 2, 0), None);
        assert_eq!(chip.write_dma(6, 1, 0), None);
    }
}
