//! virtio-blk's numbers that virtio-bindings has in another shape: virtio 1.2 §5.2.

use virtio_bindings::virtio_blk::*;

/// Class 01 (mass storage), subclass 00 (SCSI), as QEMU and Linux expect of virtio-blk.
pub const PCI_CLASS_STORAGE_SCSI: u32 = 0x01_00_00;

/// Bytes of struct virtio_blk_req before the data (§5.2.6): type, reserved, sector.
pub const REQUEST_HEADER_BYTES: usize = 16;

/// struct virtio_blk_config (§5.2.4): offsets.
pub const CONFIG_CAPACITY: usize = 0x00;
/// Largest segment.
pub const CONFIG_SIZE_MAX: usize = 0x08;
/// Most segments in a request.
pub const CONFIG_SEG_MAX: usize = 0x0c;
/// Geometry: cylinders, heads, sectors of a track.
pub const CONFIG_CYLINDERS: usize = 0x10;
/// Heads.
pub const CONFIG_HEADS: usize = 0x12;
/// Sectors of a track.
pub const CONFIG_SECTORS: usize = 0x13;
/// Logical block size.
pub const CONFIG_BLK_SIZE: usize = 0x14;
/// Topology: exponent of logical blocks in a physical one, alignment, minimum and optimal I/O.
pub const CONFIG_PHYSICAL_BLOCK_EXP: usize = 0x18;
/// Minimum I/O size in logical blocks.
pub const CONFIG_MIN_IO_SIZE: usize = 0x1a;
/// Optimal I/O size in logical blocks.
pub const CONFIG_OPT_IO_SIZE: usize = 0x1c;
/// Cache mode: 1 is writeback.
pub const CONFIG_WRITEBACK: usize = 0x20;
/// Queues.
pub const CONFIG_NUM_QUEUES: usize = 0x22;
/// Largest discard segment in sectors.
pub const CONFIG_MAX_DISCARD_SECTORS: usize = 0x24;
/// Discard segments in a request.
pub const CONFIG_MAX_DISCARD_SEG: usize = 0x28;
/// Discard alignment in sectors.
pub const CONFIG_DISCARD_SECTOR_ALIGNMENT: usize = 0x2c;
/// Largest write-zeroes segment in sectors.
pub const CONFIG_MAX_WRITE_ZEROES_SECTORS: usize = 0x30;
/// Write-zeroes segments in a request.
pub const CONFIG_MAX_WRITE_ZEROES_SEG: usize = 0x34;
/// Whether write-zeroes may deallocate.
pub const CONFIG_WRITE_ZEROES_MAY_UNMAP: usize = 0x38;
/// Bytes up to and including the last field of a feature that is offered.
pub const CONFIG_BYTES: usize = 0x3c;

/// Bytes of struct virtio_blk_discard_write_zeroes (§5.2.6): sector, num_sectors, flags.
pub const RANGE_BYTES: u64 = 16;
/// The geometry of a disk that has none: tracks of 63 sectors, 16 heads, and as many cylinders as
/// ATA can say (ATA/ATAPI-6 §C): what every BIOS assumes.
pub const TRACK_SECTORS: u8 = 63;
/// See [`TRACK_SECTORS`].
pub const HEADS: u8 = 16;
/// See [`TRACK_SECTORS`].
pub const CYLINDERS: std::ops::RangeInclusive<u64> = 2..=16383;

/// Ranges in a request that this device takes: 256, as Linux merges at most.
pub const RANGES_MAX: usize = 256;
/// Sectors in a range that this device takes: 2 GiB less one sector's 31-bit byte limit, which
/// every back-end's calls accept.
pub const RANGE_SECTORS_MAX: u32 = (i32::MAX as u32) >> 9;

/// The status byte (§5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Ok = VIRTIO_BLK_S_OK as u8,
    /// Failed.
    IoErr = VIRTIO_BLK_S_IOERR as u8,
    /// Not a request this device knows, or not one it may do.
    Unsupported = VIRTIO_BLK_S_UNSUPP as u8,
}

/// A feature's bit in the 64-bit word.
pub const fn feature(number: u32) -> u64 {
    1 << number
}
