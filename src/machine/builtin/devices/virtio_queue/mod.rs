//! The device's side of a split virtqueue (virtio 1.2 §2.7), working in place on guest RAM.
//!
//! Written here instead of using the `virtio-queue` crate's iterator because the whole request
//! path has a budget of a few hundred nanoseconds: host addresses of the three areas are resolved
//! once, when the queue starts; descriptors are two loads each; the used index is published and the
//! interrupt decided once a batch. `bench_against_virtio_queue` (tests/bench.rs) showed 27 ns for a
//! chain of three against 239 ns.
//!
//! A driver that breaks the ring's rules is answered with a [`RingError`], on which the device asks
//! for a reset (§2.1.2); nothing of the offending chain is executed.

mod chain;

pub use chain::Chain;

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

use virtio_bindings::virtio_ring::*;

use crate::base::GuestAddr;
use crate::machine::{DeviceMemory, GuestRam};

/// Bytes of a descriptor (§2.7.5).
pub const DESCRIPTOR_BYTES: u64 = 16;

/// Largest queue (§2.7: power of two, at most 32768).
pub const QUEUE_SIZE_MAX: u16 = 32768;

/// Descriptors in one chain, indirect ones counted: what one `readv` takes (`IOV_MAX`). The device
/// announces a `seg_max` below it.
pub const CHAIN_DESCRIPTORS_MAX: usize = 1024;

/// A rule of the ring that the driver broke. Every one of them ends in DEVICE_NEEDS_RESET: an
/// answer would need a chain that can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// An area is misaligned, outside RAM, or the size is no power of two (§2.7).
    #[error("the ring's areas are not valid")]
    Layout,
    /// More new entries than the ring holds (§2.7.13.3: the index counts entries).
    #[error("the available index jumped by more than the queue size")]
    AvailableJump,
    /// A head or a next field past the descriptor table (§2.7.5).
    #[error("a descriptor index is out of range")]
    DescriptorRange,
    /// More descriptors than the queue has, so it loops (§2.7.5.2), or more than this device takes.
    #[error("a descriptor chain loops or is too long")]
    ChainLength,
    /// VIRTQ_DESC_F_INDIRECT without VIRTIO_F_INDIRECT_DESC (§2.7.5.3.1).
    #[error("an indirect descriptor was not negotiated")]
    IndirectNotNegotiated,
    /// An indirect descriptor in an indirect table (§2.7.5.3.1).
    #[error("an indirect table holds an indirect descriptor")]
    IndirectNested,
    /// Both INDIRECT and NEXT (§2.7.5.3.1).
    #[error("an indirect descriptor has a next one")]
    IndirectNext,
    /// The table's length is 0 or no multiple of 16 (§2.7.5.3).
    #[error("an indirect table has a bad length")]
    IndirectLength,
    /// A buffer or table with any byte outside guest RAM.
    #[error("a descriptor points outside guest memory")]
    Address,
    /// A device-readable buffer behind a device-writable one (§2.7.4.2).
    #[error("a readable descriptor follows a writable one")]
    Order,
}

/// What the transport tells a device about a queue it starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueConfig {
    /// Entries.
    pub size: u16,
    /// Descriptor table.
    pub desc: u64,
    /// Available ring (driver area).
    pub avail: u64,
    /// Used ring (device area).
    pub used: u64,
}

/// An array in guest RAM, resolved once and reached with atomics.
struct Cells<T> {
    base: NonNull<T>,
    len: usize,
}

impl<T> Cells<T> {
    /// `T` is one of the unsigned atomics, for which any bytes are a value.
    fn new<M: DeviceMemory>(ram: &M, addr: u64, align: u64, len: usize) -> Option<Self> {
        let bytes = (len * size_of::<T>()) as u64;
        let host = ram.host(GuestAddr(addr), bytes).filter(|_| addr.is_multiple_of(align))?;
        Some(Self { base: NonNull::new(host.cast())?, len })
    }

    #[inline(always)]
    fn at(&self, index: usize) -> &T {
        // Indices are masked by the caller; the clamp makes it memory-safe whatever they are.
        let index = index.min(self.len - 1);
        // SAFETY: `index` is within the range that `new` found in RAM and aligned; the queue that
        // holds this keeps RAM mapped; shared access is through atomics only.
        unsafe { self.base.add(index).as_ref() }
    }
}

/// One descriptor, decoded.
#[derive(Clone, Copy)]
struct Descriptor {
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    fn from_words(addr: u64, rest: u64) -> Self {
        let (addr, rest) = (u64::from_le(addr), u64::from_le(rest));
        Self { addr, len: rest as u32, flags: (rest >> 32) as u16, next: (rest >> 48) as u16 }
    }

    fn has(self, flag: u32) -> bool {
        u32::from(self.flags) & flag != 0
    }
}

/// A started queue.
pub struct DeviceQueue<M = GuestRam> {
    ram: Arc<M>,
    /// Two words a descriptor.
    descriptors: Cells<AtomicU64>,
    /// `flags, idx, ring[size], used_event`.
    avail: Cells<AtomicU16>,
    /// flags | idx << 16, then id and len for each entry.
    used: Cells<AtomicU32>,
    /// flags and idx, each by itself.
    used_head: Cells<AtomicU16>,
    /// avail_event, behind the used ring.
    avail_event: Cells<AtomicU16>,
    size: u16,
    event_idx: bool,
    indirect: bool,
    /// The driver runs in another thread: its memory accesses and ours interleave.
    concurrent: bool,
    next_avail: u16,
    /// The available index when it was last looked at.
    end_avail: u16,
    next_used: u16,
    /// The used index when an interrupt was last decided.
    published: u16,
}

// SAFETY: the pointers reach shared guest RAM, which `ram` keeps mapped in every thread.
unsafe impl<M: DeviceMemory> Send for DeviceQueue<M> {}

impl<M: DeviceMemory> DeviceQueue<M> {
    /// Starts a queue with both indices at 0.
    ///
    /// # Errors
    /// [`RingError::Layout`].
    pub fn new(
        ram: &Arc<M>,
        config: &QueueConfig,
        features: u64,
        concurrent: bool,
    ) -> Result<Self, RingError> {
        let size = config.size;
        if !size.is_power_of_two() || size > QUEUE_SIZE_MAX {
            return Err(RingError::Layout);
        }
        let n = usize::from(size);
        let has = |bit: u32| features & (1 << bit) != 0;
        let used_end = config.used.checked_add(4 + 8 * u64::from(size)).ok_or(RingError::Layout)?;
        let areas = |ram: &Arc<M>| {
            let shared = Arc::clone(ram);
            let ram: &M = ram;
            Some(Self {
                ram: shared,
                descriptors: Cells::new(ram, config.desc, VRING_DESC_ALIGN_SIZE.into(), 2 * n)?,
                avail: Cells::new(ram, config.avail, VRING_AVAIL_ALIGN_SIZE.into(), n + 3)?,
                used: Cells::new(ram, config.used, VRING_USED_ALIGN_SIZE.into(), 1 + 2 * n)?,
                used_head: Cells::new(ram, config.used, VRING_USED_ALIGN_SIZE.into(), 2)?,
                avail_event: Cells::new(ram, used_end, 2, 1)?,
                size,
                event_idx: has(VIRTIO_RING_F_EVENT_IDX),
                indirect: has(VIRTIO_RING_F_INDIRECT_DESC),
                concurrent,
                next_avail: 0,
                end_avail: 0,
                next_used: 0,
                published: 0,
            })
        };
        areas(ram).ok_or(RingError::Layout)
    }

    /// Goes on where another device left off: at this entry of the available ring, and where the
    /// used ring says. Call it before anything is taken.
    #[must_use]
    pub fn resumed_at(self, next_avail: u16) -> Self {
        let used = self.used_index();
        Self { next_avail, end_avail: next_avail, next_used: used, published: used, ..self }
    }

    /// The used index that the driver sees.
    pub fn used_index(&self) -> u16 {
        u16::from_le(self.used_head.at(1).load(Ordering::Acquire))
    }

    /// The entry of the available ring that is taken next.
    pub fn next_avail(&self) -> u16 {
        self.next_avail
    }

    /// The entry of the used ring that is filled next: the used index, once it is published.
    pub fn next_used(&self) -> u16 {
        self.next_used
    }

    /// Walks the chain at `head`, which was taken before and never given back.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn take_again(&self, head: u16, chain: &mut Chain) -> Result<(), RingError> {
        self.walk(head, chain)
    }

    /// Entries.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Looks at the available index: how many chains wait.
    #[inline]
    pub fn refresh(&mut self) -> Result<u16, RingError> {
        // Acquire: the entries and descriptors behind the index are read after it (§2.7.13.3).
        let end = u16::from_le(self.avail.at(1).load(Ordering::Acquire));
        let waiting = end.wrapping_sub(self.next_avail);
        if waiting > self.size {
            return Err(RingError::AvailableJump);
        }
        self.end_avail = end;
        Ok(waiting)
    }

    /// Takes the next of the chains that the last [`DeviceQueue::refresh`] saw.
    #[inline]
    pub fn pop(&mut self, chain: &mut Chain) -> Result<bool, RingError> {
        if self.next_avail == self.end_avail {
            return Ok(false);
        }
        let slot = usize::from(self.next_avail & (self.size - 1));
        let head = u16::from_le(self.avail.at(2 + slot).load(Ordering::Relaxed));
        self.walk(head, chain)?;
        self.next_avail = self.next_avail.wrapping_add(1);
        Ok(true)
    }

    fn walk(&self, head: u16, chain: &mut Chain) -> Result<(), RingError> {
        chain.start(head);
        let mut index = head;
        for _ in 0..usize::from(self.size).min(CHAIN_DESCRIPTORS_MAX) {
            if index >= self.size {
                return Err(RingError::DescriptorRange);
            }
            let i = 2 * usize::from(index);
            let desc = Descriptor::from_words(
                self.descriptors.at(i).load(Ordering::Relaxed),
                self.descriptors.at(i + 1).load(Ordering::Relaxed),
            );
            if desc.has(VRING_DESC_F_INDIRECT) {
                return self.walk_indirect(desc, chain);
            }
            chain.push(&*self.ram, desc)?;
            if !desc.has(VRING_DESC_F_NEXT) {
                return Ok(());
            }
            index = desc.next;
        }
        Err(RingError::ChainLength)
    }

    /// §2.7.5.3: the table replaces the rest of the chain; the WRITE flag of the descriptor that
    /// refers to it is ignored.
    fn walk_indirect(&self, table: Descriptor, chain: &mut Chain) -> Result<(), RingError> {
        if !self.indirect {
            return Err(RingError::IndirectNotNegotiated);
        }
        if table.has(VRING_DESC_F_NEXT) {
            return Err(RingError::IndirectNext);
        }
        let bytes = u64::from(table.len);
        if bytes == 0 || !bytes.is_multiple_of(DESCRIPTOR_BYTES) {
            return Err(RingError::IndirectLength);
        }
        let in_memory = self.ram.part(GuestAddr(table.addr), bytes).is_some();
        if !in_memory || table.addr.checked_add(bytes).is_none() {
            return Err(RingError::Address);
        }
        let count = bytes / DESCRIPTOR_BYTES;
        let mut index = 0u64;
        for _ in 0..count.min(CHAIN_DESCRIPTORS_MAX as u64) {
            if index >= count {
                return Err(RingError::DescriptorRange);
            }
            // The table may stand at any address, so it is copied out, not read as atomics; the
            // driver must not change it meanwhile, and what it then gets is still range-checked.
            let at = GuestAddr(table.addr.wrapping_add(index * DESCRIPTOR_BYTES));
            let host = self.ram.host(at, DESCRIPTOR_BYTES).ok_or(RingError::Address)?;
            // SAFETY: `host` found 16 bytes of memory there, and any bytes are a value.
            let words: [[u8; 8]; 2] = unsafe { host.cast::<[[u8; 8]; 2]>().read_unaligned() };
            let [addr, rest] = words.map(u64::from_ne_bytes);
            let desc = Descriptor::from_words(addr, rest);
            if desc.has(VRING_DESC_F_INDIRECT) {
                return Err(RingError::IndirectNested);
            }
            chain.push(&*self.ram, desc)?;
            if !desc.has(VRING_DESC_F_NEXT) {
                return Ok(());
            }
            index = u64::from(desc.next);
        }
        Err(RingError::ChainLength)
    }

    /// Gives a chain back, `len` bytes of its writable part written. Seen by the driver at the next
    /// [`DeviceQueue::publish`].
    #[inline]
    pub fn push_used(&mut self, head: u16, len: u32) {
        let slot = 1 + 2 * usize::from(self.next_used & (self.size - 1));
        self.used.at(slot).store(u32::from(head).to_le(), Ordering::Relaxed);
        self.used.at(slot + 1).store(len.to_le(), Ordering::Relaxed);
        self.next_used = self.next_used.wrapping_add(1);
    }

    /// Publishes everything given back; whether something was.
    #[inline]
    pub fn publish(&mut self) -> bool {
        if self.next_used == self.published {
            return false;
        }
        // Release: data, status and entries are visible before the index (§2.7.14).
        self.used_head.at(1).store(self.next_used.to_le(), Ordering::Release);
        true
    }

    /// Whether the driver wants an interrupt for what was published since the last decision
    /// (§2.7.7.2, §2.7.10).
    #[inline]
    pub fn wants_interrupt(&mut self) -> bool {
        let (old, new) = (self.published, self.next_used);
        self.published = new;
        // The driver stores used_event, then looks at the used index; we do the reverse. Without
        // a full barrier on both sides each could miss the other.
        self.barrier();
        if !self.event_idx {
            let flags = u16::from_le(self.avail.at(0).load(Ordering::Relaxed));
            return u32::from(flags) & VRING_AVAIL_F_NO_INTERRUPT == 0;
        }
        let slot = 2 + usize::from(self.size);
        let event = u16::from_le(self.avail.at(slot).load(Ordering::Relaxed));
        // Fires when the used index passed `event` on its way from `old` to `new`, modulo 2^16.
        new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
    }

    /// Asks the driver not to ring while the queue is being worked on. With EVENT_IDX a stale
    /// avail_event does that by itself.
    pub fn suppress_notifications(&mut self) {
        if self.concurrent && !self.event_idx {
            self.used_head.at(0).store((VRING_USED_F_NO_NOTIFY as u16).to_le(), Ordering::Relaxed);
        }
    }

    /// Asks the driver to ring for the next chain; whether chains came meanwhile, for which it may
    /// not ring.
    #[inline]
    pub fn enable_notifications(&mut self) -> Result<bool, RingError> {
        if self.event_idx {
            self.avail_event.at(0).store(self.next_avail.to_le(), Ordering::Relaxed);
        } else if self.concurrent {
            self.used_head.at(0).store(0, Ordering::Relaxed);
        }
        self.barrier();
        Ok(self.refresh()? != 0)
    }

    /// A store-load barrier, where another thread could see the difference. When the driver runs
    /// in this thread, program order is all the order there is.
    #[inline(always)]
    fn barrier(&self) {
        if self.concurrent {
            fence(Ordering::SeqCst);
        }
    }
}
