//! The ports, and DMA into guest RAM.

use std::sync::Arc;

use super::bits::*;
use super::chip::{FwCfgChip, Transfer};
use super::items::FwCfgConfig;
use crate::base::{GuestAddr, Nanos};
use crate::machine::GuestRam;
use crate::machine::builtin::device::Device;
use crate::machine::builtin::devices::lanes;

const PORTS: usize = 0;

/// Bytes zeroed at a time where a read goes past its item's end.
const FILL: [u8; 4096] = [0; 4096];

/// Firmware configuration. Window 0 is ports 510h (selector, 16 bits) and 511h (data), window 1 is
/// ports 514h to 51Bh (DMA).
#[derive(Debug)]
pub struct FwCfg {
    chip: FwCfgChip,
    ram: Arc<GuestRam>,
}

impl FwCfg {
    /// The device of a board with this RAM. A file that [`FwCfgConfig::check`] would refuse is cut
    /// or left out.
    pub fn new(config: FwCfgConfig, ram: Arc<GuestRam>) -> Self {
        Self { chip: FwCfgChip::new(&config), ram }
    }

    /// Carries out the transfer described at `address`, and says there how it went. A description
    /// outside RAM has nowhere to say it.
    fn dma(&mut self, address: u64) {
        let mut bytes = [0; FW_CFG_DMA_BYTES];
        if !self.ram.read(GuestAddr(address), &mut bytes) {
            // Its first word may still lie within RAM.
            self.ram.write(GuestAddr(address), &FW_CFG_DMA_CTL_ERROR.to_be_bytes());
            return;
        }
        let described = u128::from_be_bytes(bytes);
        let control = (described >> 96) as u32;
        let length = (described >> 64) as u32;
        let target = GuestAddr(described as u64);
        if control & FW_CFG_DMA_CTL_SELECT != 0 {
            self.chip.select((control >> 16) as u16);
        }
        let done = match Transfer::of(control) {
            Some(transfer) if length > 0 => self.transfer(transfer, target, length),
            _ => true,
        };
        let result = if done { 0 } else { FW_CFG_DMA_CTL_ERROR };
        self.ram.write(GuestAddr(address), &result.to_be_bytes());
    }

    /// Moves `length` bytes; whether it could be done. Memory is checked whole before any of it is
    /// touched, so a length is never more work than there is RAM.
    fn transfer(&mut self, transfer: Transfer, target: GuestAddr, length: u32) -> bool {
        let len = length as usize;
        let in_ram = self.ram.contains(target, u64::from(length));
        let done = match transfer {
            Transfer::Skip => true,
            Transfer::Read => in_ram && self.copy_out(target, u64::from(length)),
            Transfer::Write => {
                let place = self.chip.writable(len).filter(|_| in_ram);
                place.is_some_and(|place| self.ram.read(target, place))
            }
        };
        // A write that was refused leaves the place in the item where it was.
        if done || transfer == Transfer::Read {
            self.chip.skip(len);
        }
        done
    }

    /// The item's bytes to memory, and zeros behind its end.
    fn copy_out(&self, target: GuestAddr, length: u64) -> bool {
        let bytes = self.chip.rest(length as usize);
        let mut done = self.ram.write(target, bytes);
        let mut at = bytes.len() as u64;
        while at < length {
            let piece = (length - at).min(FILL.len() as u64);
            let zeros = FILL.get(..piece as usize).unwrap_or(&FILL);
            done &= self.ram.write(GuestAddr(target.0 + at), zeros);
            at += piece;
        }
        done
    }
}

impl Device for FwCfg {
    fn name(&self) -> &'static str {
        "fw_cfg"
    }

    /// A byte read of either port takes the item's next byte; wider reads of these two do not
    /// exist, and answer 0.
    fn read(&mut self, window: usize, offset: u64, size: u8, _now: Nanos) -> u64 {
        match window {
            PORTS if size == 1 => self.chip.read_data().into(),
            PORTS => 0,
            _ => lanes::read(offset, size, |at| self.chip.read_dma(at)),
        }
    }

    /// Only a 16-bit write selects; a byte written to the data register is ignored, as it has been
    /// since the DMA interface took its place.
    fn write(&mut self, window: usize, offset: u64, size: u8, value: u64, _now: Nanos) {
        if window == PORTS {
            if size == 2 && offset == 0 {
                self.chip.select(value as u16);
            }
        } else if let Some(address) = self.chip.write_dma(offset, size, value) {
            self.dma(address);
        }
    }

    fn reset(&mut self, _now: Nanos) {
        self.chip.reset();
    }
}
