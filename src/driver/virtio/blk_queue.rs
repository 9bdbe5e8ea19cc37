//! One request queue of a block device: the ring, and for each head descriptor a slot with the
//! request's header, status byte and range segment in guest RAM.
//!
//! A slot is chosen by the chain's head, so that there is no second free list and the device's
//! answer leads straight to it.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU64};

use super::queue::{DESCRIPTOR_BYTES, Descriptor, SplitQueue, put_descriptor};
use super::ring_memory::Cells;
use super::spec::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE,
};
use super::transport::Doorbell;
use crate::base::{Error, GuestAddr, Result};
use crate::driver::alloc::PageAllocator;
use crate::driver::{BlockStatus, Buffer, Completion};

/// Bytes of a slot in guest RAM: one cache line.
const SLOT_BYTES: usize = 64;
/// `struct virtio_blk_req`'s type, reserved and sector (§5.2.6).
const HEADER_OFFSET: usize = 0;
const HEADER_BYTES: u32 = 16;
const STATUS_OFFSET: usize = 16;
/// `struct virtio_blk_discard_write_zeroes`.
const SEGMENT_OFFSET: usize = 32;
const SEGMENT_BYTES: u32 = 16;

/// What the driver puts in the status byte: no device answers with it.
const STATUS_UNTOUCHED: u8 = 0xff;

/// What stands between header and status of a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Data {
    /// Nothing: flush.
    None,
    /// A buffer that the device reads.
    Out { addr: u64, len: u32 },
    /// A buffer that the device writes.
    In { addr: u64, len: u32 },
    /// A range: discard, write-zeroes.
    Range { sector: u64, sectors: u32, flags: u32 },
}

/// A request as it goes over the ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct WireRequest {
    /// `VIRTIO_BLK_T_*`.
    pub kind: u32,
    /// The header's sector.
    pub sector: u64,
    /// What follows the header.
    pub data: Data,
}

/// Our side of a slot.
#[derive(Debug, Default)]
struct Slot {
    token: u64,
    buffer: Option<Buffer>,
    /// Bytes the device may write: data and status.
    writable: u32,
}

/// Indirect tables, one a slot.
#[derive(Debug)]
struct Tables {
    cells: Cells<AtomicU64>,
    addr: u64,
    /// Descriptors of one table: a power of two.
    stride: usize,
}

/// A request queue.
#[derive(Debug)]
pub(super) struct RequestQueue {
    /// The ring.
    pub ring: SplitQueue,
    /// How the device is notified.
    pub doorbell: Doorbell,
    words: Cells<AtomicU64>,
    bytes: Cells<AtomicU8>,
    addr: u64,
    slots: Box<[Slot]>,
    tables: Option<Tables>,
    /// Largest data descriptor.
    size_max: u32,
    /// Used lengths are checked (1.x devices; §2.7.8.1 says legacy ones are unreliable).
    strict_lengths: bool,
    /// For requests of more than one data segment.
    scratch: Vec<Descriptor>,
}

/// What a request queue needs to know of its device.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueOptions {
    /// Largest data descriptor.
    pub size_max: u32,
    /// Data descriptors of one request at most.
    pub segments: u64,
    /// Chains go through indirect tables.
    pub indirect: bool,
    /// Used lengths are to be believed.
    pub strict_lengths: bool,
}

impl RequestQueue {
    /// Slots (and tables) for every descriptor of `ring`.
    pub fn new(
        pool: &mut PageAllocator,
        ring: SplitQueue,
        doorbell: Doorbell,
        options: QueueOptions,
    ) -> Result<Self> {
        let count = usize::from(ring.size());
        let (words, addr) = area(pool, count * SLOT_BYTES / 8)?;
        let bytes = Cells::new(pool.ram(), GuestAddr(addr), count * SLOT_BYTES);
        let chain_max = options.segments as usize + 2;
        let tables = if options.indirect {
            let stride = chain_max.next_power_of_two();
            let (cells, addr) = area(pool, 2 * stride * count)?;
            Some(Tables { cells, addr, stride })
        } else {
            None
        };
        Ok(Self {
            ring,
            doorbell,
            words,
            bytes: bytes.ok_or_else(no_room)?,
            addr,
            slots: (0..count).map(|_| Slot::default()).collect(),
            tables,
            size_max: options.size_max,
            strict_lengths: options.strict_lengths,
            scratch: Vec::with_capacity(chain_max),
        })
    }

    /// Puts a request on the ring; gives the buffer back when there is no room.
    #[inline]
    pub fn submit(
        &mut self,
        token: u64,
        request: &WireRequest,
        buffer: Option<Buffer>,
    ) -> Result<(), Option<Buffer>> {
        let Some(head) = self.ring.next_head() else {
            return Err(buffer);
        };
        let slot = usize::from(head) * SLOT_BYTES;
        let (data, flags) = self.fill(slot, request);
        let slot_addr = self.addr + slot as u64;
        let header =
            Descriptor { addr: slot_addr + HEADER_OFFSET as u64, len: HEADER_BYTES, flags: 0 };
        let status = slot_addr + STATUS_OFFSET as u64;
        let status = Descriptor { addr: status, len: 1, flags: VIRTQ_DESC_F_WRITE };
        let added = match data {
            None => self.add(head, &[header, status]),
            Some((addr, len)) if len <= self.size_max => {
                self.add(head, &[header, Descriptor { addr, len, flags }, status])
            }
            Some(data) => self.add_split(head, header, data, flags, status),
        };
        if added.is_none() {
            return Err(buffer);
        }
        let data_writable = match request.data {
            Data::In { len, .. } => len,
            _ => 0,
        };
        self.slots[usize::from(head)] = Slot { token, buffer, writable: data_writable + 1 };
        Ok(())
    }

    /// Writes the slot; the data's place and descriptor flags.
    #[inline]
    fn fill(&self, slot: usize, request: &WireRequest) -> (Option<(u64, u32)>, u16) {
        let word = |offset: usize| self.words.at((slot + offset) / 8);
        word(HEADER_OFFSET).store(u64::from(request.kind).to_le(), Relaxed);
        word(HEADER_OFFSET + 8).store(request.sector.to_le(), Relaxed);
        self.bytes.at(slot + STATUS_OFFSET).store(STATUS_UNTOUCHED, Relaxed);
        match request.data {
            Data::None => (None, 0),
            Data::Out { addr, len } => (Some((addr, len)), 0),
            Data::In { addr, len } => (Some((addr, len)), VIRTQ_DESC_F_WRITE),
            Data::Range { sector, sectors, flags } => {
                let rest = u64::from(sectors) | u64::from(flags) << 32;
                word(SEGMENT_OFFSET).store(sector.to_le(), Relaxed);
                word(SEGMENT_OFFSET + 8).store(rest.to_le(), Relaxed);
                let addr = self.addr + (slot + SEGMENT_OFFSET) as u64;
                (Some((addr, SEGMENT_BYTES)), 0)
            }
        }
    }

    /// Adds a chain, directly or through the slot's indirect table.
    #[inline]
    fn add(&mut self, head: u16, chain: &[Descriptor]) -> Option<u16> {
        let Some(tables) = &self.tables else {
            return self.ring.add(chain);
        };
        let first = usize::from(head) * tables.stride;
        for (index, part) in chain.iter().enumerate() {
            let next = index as u16 + 1;
            let goes_on = if index + 1 < chain.len() { VIRTQ_DESC_F_NEXT } else { 0 };
            let flags = part.flags | goes_on;
            put_descriptor(&tables.cells, first + index, part.addr, part.len, flags, next);
        }
        let table = tables.addr + first as u64 * DESCRIPTOR_BYTES;
        self.ring.add_indirect(table, chain.len() as u32)
    }

    /// Adds a chain whose data needs more than one descriptor.
    #[cold]
    fn add_split(
        &mut self,
        head: u16,
        header: Descriptor,
        (mut addr, mut len): (u64, u32),
        flags: u16,
        status: Descriptor,
    ) -> Option<u16> {
        let mut chain = std::mem::take(&mut self.scratch);
        chain.clear();
        chain.push(header);
        while len > 0 {
            let part = len.min(self.size_max);
            chain.push(Descriptor { addr, len: part, flags });
            addr += u64::from(part);
            len -= part;
        }
        chain.push(status);
        let added = self.add(head, &chain);
        self.scratch = chain;
        added
    }

    /// Takes what the device has returned; how many.
    #[inline]
    pub fn reap(&mut self, done: &mut Vec<Completion>) -> Result<usize> {
        let mut count = 0;
        while let Some(used) = self.ring.pop()? {
            let head = usize::from(used.head);
            let status = self.bytes.at(head * SLOT_BYTES + STATUS_OFFSET).load(Relaxed);
            let slot = &mut self.slots[head];
            let status = if self.strict_lengths && used.len > slot.writable {
                BlockStatus::BadLength(used.len)
            } else {
                status_of(status)
            };
            done.push(Completion { token: slot.token, status, buffer: slot.buffer.take() });
            count += 1;
        }
        if count > 0 {
            self.ring.suppress_interrupts();
        }
        Ok(count)
    }

    /// The buffers of requests in flight, when the device has been reset.
    pub fn abandon(&mut self) -> impl Iterator<Item = Buffer> {
        self.slots.iter_mut().filter_map(|slot| slot.buffer.take())
    }
}

#[inline]
fn status_of(byte: u8) -> BlockStatus {
    match byte {
        VIRTIO_BLK_S_OK => BlockStatus::Ok,
        VIRTIO_BLK_S_IOERR => BlockStatus::IoErr,
        VIRTIO_BLK_S_UNSUPP => BlockStatus::Unsupported,
        other => BlockStatus::Bad(other),
    }
}

/// A permanent area of `words` 64-bit cells, and its address.
fn area(pool: &mut PageAllocator, words: usize) -> Result<(Cells<AtomicU64>, u64)> {
    let addr = pool.permanent(words as u64 * 8)?;
    let cells = Cells::new(pool.ram(), addr, words).ok_or_else(no_room)?;
    Ok((cells, addr.0))
}

fn no_room() -> Error {
    Error::machine("request slots cannot be laid out in guest RAM")
}
