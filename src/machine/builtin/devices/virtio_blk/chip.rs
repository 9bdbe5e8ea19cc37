//! What the device offers and what a request means: pure functions of configuration and header.

use virtio_bindings::virtio_blk::*;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::bits::*;
use crate::base::SECTOR_SIZE;
use crate::machine::builtin::devices::virtio_queue::CHAIN_DESCRIPTORS_MAX;

/// What a disk is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlkGeometry {
    /// Sectors of 512 bytes.
    pub capacity_sectors: u64,
    /// Logical block size in bytes.
    pub block_bytes: u32,
    /// Writes are refused.
    pub read_only: bool,
    /// Request queues.
    pub queues: u16,
    /// Largest size of a queue.
    pub queue_size: u16,
}

/// A request that may be carried out; offsets and lengths are in bytes and inside the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Fill the writable buffers.
    Read {
        /// First byte.
        offset: u64,
    },
    /// Store the readable buffers.
    Write {
        /// First byte.
        offset: u64,
    },
    /// Make what was written durable.
    Flush,
    /// Write the device's identifier.
    GetId,
    /// So many ranges follow; they may be forgotten, or (`zero`) become zeros.
    Ranges {
        /// Write-zeroes rather than discard.
        zero: bool,
        /// Ranges.
        count: usize,
    },
}

/// A checked range of a discard or write-zeroes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// It may be deallocated.
    pub unmap: bool,
}

/// Features, configuration, cache mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlkChip {
    geometry: BlkGeometry,
    negotiated: u64,
    writeback: bool,
    config: [u8; CONFIG_BYTES],
}

impl BlkChip {
    /// A disk after power-on.
    pub fn new(geometry: BlkGeometry) -> Self {
        let config = config_of(&geometry);
        Self { geometry, negotiated: 0, writeback: true, config }
    }

    /// What is offered.
    pub fn features(&self) -> u64 {
        let mut offered = feature(VIRTIO_RING_F_INDIRECT_DESC)
            | feature(VIRTIO_RING_F_EVENT_IDX)
            | feature(VIRTIO_BLK_F_SEG_MAX)
            | feature(VIRTIO_BLK_F_GEOMETRY)
            | feature(VIRTIO_BLK_F_BLK_SIZE)
            | feature(VIRTIO_BLK_F_TOPOLOGY)
            | feature(VIRTIO_BLK_F_FLUSH)
            | feature(VIRTIO_BLK_F_CONFIG_WCE);
        if self.geometry.queues > 1 {
            offered |= feature(VIRTIO_BLK_F_MQ);
        }
        offered
            | match self.geometry.read_only {
                true => feature(VIRTIO_BLK_F_RO),
                false => feature(VIRTIO_BLK_F_DISCARD) | feature(VIRTIO_BLK_F_WRITE_ZEROES),
            }
    }

    /// The driver's choice.
    pub fn set_features(&mut self, features: u64) {
        self.negotiated = features & self.features();
    }

    /// Device reset: nothing negotiated, writeback again.
    pub fn reset(&mut self) {
        self.negotiated = 0;
        self.set_writeback(true);
    }

    /// Another capacity.
    pub fn set_capacity(&mut self, sectors: u64) {
        self.geometry.capacity_sectors = sectors;
        for (cell, byte) in self.config.iter_mut().skip(CONFIG_CAPACITY).zip(sectors.to_le_bytes())
        {
            *cell = byte;
        }
    }

    fn has(&self, number: u32) -> bool {
        self.negotiated & feature(number) != 0
    }

    fn set_writeback(&mut self, on: bool) {
        self.writeback = on;
        self.config[CONFIG_WRITEBACK] = on.into();
    }

    /// Whether a write is durable only after a flush. The driver's register decides when it was
    /// negotiated; else a driver that cannot flush gets a write-through cache (§5.2.6.2).
    pub fn is_writeback(&self) -> bool {
        if self.has(VIRTIO_BLK_F_CONFIG_WCE) {
            self.writeback
        } else {
            self.has(VIRTIO_BLK_F_FLUSH)
        }
    }

    /// Reads device configuration.
    pub fn config_read(&self, offset: u64, buf: &mut [u8]) {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (i, byte) in buf.iter_mut().enumerate() {
            let at = from.saturating_add(i);
            *byte = self.config.get(at).copied().unwrap_or(0);
        }
    }

    /// Writes device configuration: only the cache mode is writable, with CONFIG_WCE negotiated or
    /// still being negotiated (§5.2.5 allows it before DRIVER_OK). Whether it became write-through,
    /// so that what is cached must be flushed.
    pub fn config_write(&mut self, offset: u64, bytes: &[u8]) -> bool {
        let Some(at) = (CONFIG_WRITEBACK as u64).checked_sub(offset) else { return false };
        let Some(value) = usize::try_from(at).ok().and_then(|at| bytes.get(at)) else {
            return false;
        };
        let was = self.writeback;
        self.set_writeback(value & 1 != 0);
        was && !self.writeback
    }

    /// What a request with this header asks, or the status that answers it. `out` and `into` are
    /// the bytes of data the chain holds, header and status byte not counted.
    pub fn decode(
        &self,
        header: &[u8; REQUEST_HEADER_BYTES],
        out: u64,
        into: u64,
    ) -> Result<Command, Status> {
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = *header;
        let sector = u64::from_le_bytes(sector);
        match u32::from_le_bytes([t0, t1, t2, t3]) {
            VIRTIO_BLK_T_IN => Ok(Command::Read { offset: self.check(sector, into)? }),
            VIRTIO_BLK_T_OUT => {
                self.check_writable()?;
                Ok(Command::Write { offset: self.check(sector, out)? })
            }
            VIRTIO_BLK_T_FLUSH => Ok(Command::Flush),
            VIRTIO_BLK_T_GET_ID => Ok(Command::GetId),
            VIRTIO_BLK_T_DISCARD => self.ranges(VIRTIO_BLK_F_DISCARD, false, out),
            VIRTIO_BLK_T_WRITE_ZEROES => self.ranges(VIRTIO_BLK_F_WRITE_ZEROES, true, out),
            _ => Err(Status::Unsupported),
        }
    }

    /// §5.2.6.2: a write to a read-only device fails with IOERR.
    fn check_writable(&self) -> Result<(), Status> {
        if self.geometry.read_only { Err(Status::IoErr) } else { Ok(()) }
    }

    /// The byte offset of `len` bytes at `sector`, when they are whole logical blocks inside the
    /// disk.
    fn check(&self, sector: u64, len: u64) -> Result<u64, Status> {
        let sectors = len / SECTOR_SIZE;
        let end = sector.checked_add(sectors).ok_or(Status::IoErr)?;
        let block_sectors = u64::from(self.geometry.block_bytes) / SECTOR_SIZE;
        let aligned = sector.is_multiple_of(block_sectors)
            && len.is_multiple_of(u64::from(self.geometry.block_bytes));
        // A used length has 32 bits (§2.7.8); no chain that a driver may make is longer.
        if !aligned || end > self.geometry.capacity_sectors || len > u64::from(u32::MAX) {
            return Err(Status::IoErr);
        }
        Ok(sector * SECTOR_SIZE)
    }

    fn ranges(&self, needs: u32, zero: bool, out: u64) -> Result<Command, Status> {
        self.check_writable()?;
        if !self.has(needs) {
            return Err(Status::Unsupported);
        }
        let count = out / RANGE_BYTES;
        if count == 0 || !out.is_multiple_of(RANGE_BYTES) || count > RANGES_MAX as u64 {
            return Err(Status::IoErr);
        }
        Ok(Command::Ranges { zero, count: count as usize })
    }

    /// Checks one range (§5.2.6.2): unknown flags, and unmap on a discard, are unsupported.
    pub fn range(&self, zero: bool, bytes: &[u8; RANGE_BYTES as usize]) -> Result<Range, Status> {
        let [s @ .., n0, n1, n2, n3, f0, f1, f2, f3] = *bytes;
        let flags = u32::from_le_bytes([f0, f1, f2, f3]);
        let known = if zero { VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP } else { 0 };
        if flags & !known != 0 {
            return Err(Status::Unsupported);
        }
        let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
        if sectors > RANGE_SECTORS_MAX {
            return Err(Status::IoErr);
        }
        let len = u64::from(sectors) * SECTOR_SIZE;
        let offset = self.check(u64::from_le_bytes(s), len)?;
        Ok(Range { offset, len, unmap: flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0 })
    }
}

fn config_of(geometry: &BlkGeometry) -> [u8; CONFIG_BYTES] {
    let mut config = [0; CONFIG_BYTES];
    let mut set = |at: usize, bytes: &[u8]| {
        for (cell, byte) in config.iter_mut().skip(at).zip(bytes) {
            *cell = *byte;
        }
    };
    // Header and status take two descriptors of a chain, which no table of the driver's lengthens.
    let segments = usize::from(geometry.queue_size).min(CHAIN_DESCRIPTORS_MAX).saturating_sub(2);
    let block_sectors = geometry.block_bytes / SECTOR_SIZE as u32;
    // Whole logical blocks, so that the largest range is a valid one.
    let range_sectors = (RANGE_SECTORS_MAX / block_sectors * block_sectors).to_le_bytes();
    set(CONFIG_CAPACITY, &geometry.capacity_sectors.to_le_bytes());
    set(CONFIG_SEG_MAX, &(segments.max(1) as u32).to_le_bytes());
    let track = u64::from(HEADS) * u64::from(TRACK_SECTORS);
    let cylinders = (geometry.capacity_sectors / track).clamp(*CYLINDERS.start(), *CYLINDERS.end());
    set(CONFIG_CYLINDERS, &(cylinders as u16).to_le_bytes());
    set(CONFIG_HEADS, &[HEADS]);
    set(CONFIG_SECTORS, &[TRACK_SECTORS]);
    set(CONFIG_BLK_SIZE, &geometry.block_bytes.to_le_bytes());
    set(CONFIG_PHYSICAL_BLOCK_EXP, &[0]);
    set(CONFIG_MIN_IO_SIZE, &1u16.to_le_bytes());
    set(CONFIG_OPT_IO_SIZE, &0u32.to_le_bytes());
    set(CONFIG_WRITEBACK, &[1]);
    set(CONFIG_NUM_QUEUES, &geometry.queues.to_le_bytes());
    set(CONFIG_MAX_DISCARD_SECTORS, &range_sectors);
    set(CONFIG_MAX_DISCARD_SEG, &(RANGES_MAX as u32).to_le_bytes());
    set(CONFIG_DISCARD_SECTOR_ALIGNMENT, &block_sectors.to_le_bytes());
    set(CONFIG_MAX_WRITE_ZEROES_SECTORS, &range_sectors);
    set(CONFIG_MAX_WRITE_ZEROES_SEG, &(RANGES_MAX as u32).to_le_bytes());
    set(CONFIG_WRITE_ZEROES_MAY_UNMAP, &[1]);
    config
}
