//! The block device's configuration (virtio 1.2 §5.2.4) and the limits that follow from it.

use super::device::{ConfigReader, VirtioDevice};
use super::spec::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_MQ,
    VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_WRITE_ZEROES,
};
use crate::base::{Result, SECTOR_SIZE};
use crate::driver::BlockLimits;
use crate::machine::Machine;

/// Offsets in `struct virtio_blk_config`.
mod field {
    pub const CAPACITY: u64 = 0;
    pub const SIZE_MAX: u64 = 8;
    pub const SEG_MAX: u64 = 12;
    pub const BLK_SIZE: u64 = 20;
    pub const NUM_QUEUES: u64 = 34;
    pub const MAX_DISCARD_SECTORS: u64 = 36;
    pub const MAX_WRITE_ZEROES_SECTORS: u64 = 48;
    pub const WRITE_ZEROES_MAY_UNMAP: u64 = 56;
}

/// Data descriptors of one request at most: more would make the per-slot tables large, and no
/// device needs them for the contiguous buffers used here.
const SEGMENTS_MAX: u64 = 126;

/// Largest capacity whose bytes can still be counted.
const CAPACITY_SECTORS_MAX: u64 = u64::MAX / SECTOR_SIZE;

/// Largest logical block taken for one: nothing has more, and requests are multiples of it.
const BLK_SIZE_MAX: u32 = 1 << 20;

/// The configuration fields that negotiated features make valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BlkConfig {
    capacity: u64,
    /// Largest data segment in bytes.
    pub size_max: u32,
    seg_max: u32,
    blk_size: u32,
    /// Request queues the device has.
    pub num_queues: u16,
    max_discard_sectors: u32,
    max_write_zeroes_sectors: u32,
    write_zeroes_may_unmap: bool,
}

impl BlkConfig {
    /// Reads the configuration of a device whose features are agreed.
    pub fn read(device: &mut VirtioDevice, machine: &mut dyn Machine) -> Result<Self> {
        let features = device.features;
        let config = device.read_config(machine, |reader| Self::fields(reader, features))?;
        let lie = |what: String| Err(device.error(what));
        if config.capacity > CAPACITY_SECTORS_MAX {
            return lie(format!("claims a capacity of {} sectors", config.capacity));
        }
        let size = config.blk_size;
        if !size.is_power_of_two() || u64::from(size) < SECTOR_SIZE || size > BLK_SIZE_MAX {
            return lie(format!("claims logical blocks of {size} bytes"));
        }
        if config.seg_max == 0 || config.num_queues == 0 {
            return lie(format!(
                "claims {} queues and {} segments a request",
                config.num_queues, config.seg_max
            ));
        }
        Ok(config)
    }

    fn fields(reader: &mut ConfigReader<'_>, features: u64) -> Self {
        let has = |feature| features & feature != 0;
        let discard = has(VIRTIO_BLK_F_DISCARD);
        let zeroes = has(VIRTIO_BLK_F_WRITE_ZEROES);
        let mut u32_if = |condition, offset, other| match condition {
            true => reader.u32(offset),
            false => other,
        };
        // QEMU's storage daemon offers the feature and says 0, which is no limit that a request
        // could keep to.
        let size_max = match u32_if(has(VIRTIO_BLK_F_SIZE_MAX), field::SIZE_MAX, u32::MAX) {
            0 => u32::MAX,
            size_max => size_max,
        };
        // Without the feature nothing is promised beyond one segment.
        let seg_max = u32_if(has(VIRTIO_BLK_F_SEG_MAX), field::SEG_MAX, 1);
        let blk_size = u32_if(has(VIRTIO_BLK_F_BLK_SIZE), field::BLK_SIZE, SECTOR_SIZE as u32);
        let max_discard_sectors = u32_if(discard, field::MAX_DISCARD_SECTORS, 0);
        let max_write_zeroes_sectors = u32_if(zeroes, field::MAX_WRITE_ZEROES_SECTORS, 0);
        Self {
            capacity: reader.u64(field::CAPACITY),
            size_max,
            seg_max,
            blk_size,
            num_queues: if has(VIRTIO_BLK_F_MQ) { reader.u16(field::NUM_QUEUES) } else { 1 },
            max_discard_sectors,
            max_write_zeroes_sectors,
            write_zeroes_may_unmap: zeroes && reader.u8(field::WRITE_ZEROES_MAY_UNMAP) != 0,
        }
    }

    /// Data segments of one request, when chains may have `chain_max` descriptors. 0: none fit.
    pub fn segments(&self, chain_max: u64) -> u64 {
        u64::from(self.seg_max).min(SEGMENTS_MAX).min(chain_max.saturating_sub(2))
    }

    /// What the driver offers: transfers of at most `wanted` bytes in `segments` segments.
    pub fn limits(
        &self,
        device: &VirtioDevice,
        wanted: usize,
        segments: u64,
    ) -> Result<BlockLimits> {
        let has = |feature| device.features & feature != 0;
        let block = u64::from(self.blk_size);
        let transfer = u64::from(self.size_max).saturating_mul(segments).min(wanted as u64);
        let transfer = transfer / block * block;
        if transfer == 0 {
            return Err(device.error(format_args!(
                "takes {segments} segments of {} bytes and at most {wanted} bytes are wanted: not one block of {block}",
                self.size_max
            )));
        }
        Ok(BlockLimits {
            capacity_sectors: self.capacity,
            block_bytes: self.blk_size,
            read_only: has(VIRTIO_BLK_F_RO),
            flush: has(VIRTIO_BLK_F_FLUSH),
            discard_sectors_max: self.max_discard_sectors,
            write_zeroes_sectors_max: self.max_write_zeroes_sectors,
            write_zeroes_unmap: self.write_zeroes_may_unmap,
            transfer_bytes_max: usize::try_from(transfer).unwrap_or(wanted),
            queues: 0,
            depth_max: 0,
        })
    }
}
