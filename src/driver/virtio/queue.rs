//! The driver's side of a split virtqueue (virtio 1.2 §2.7).
//!
//! What the device could overwrite is never believed: descriptor links, chain lengths and what is
//! in flight are kept on our side, and the ring is only written, except for the device's own used
//! ring and its two event words.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, fence};

use super::ring_memory::Cells;
use super::spec::{
    LEGACY_QUEUE_ALIGN, VIRTQ_AVAIL_F_NO_INTERRUPT, VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT,
    VIRTQ_SIZE_MAX, VIRTQ_USED_F_NO_NOTIFY,
};
use crate::base::{Error, GuestAddr, Result};
use crate::machine::GuestRam;

/// Bytes of one descriptor (§2.7.5).
pub const DESCRIPTOR_BYTES: u64 = 16;

/// Index of `flags` in a ring's first two words.
const FLAGS: usize = 0;
/// Index of `idx` in a ring's first two words.
const IDX: usize = 1;

/// How far ahead `used_event` is put to silence a device: half the index space, which no device
/// reaches before the next reap, for at most 32768 entries are in flight.
const EVENT_FAR_AHEAD: u16 = 0x8000;

/// Where the three parts of a queue lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLayout {
    /// Entries: a power of two, at most 32768.
    pub size: u16,
    /// Descriptor table.
    pub desc: GuestAddr,
    /// Available ring.
    pub avail: GuestAddr,
    /// Used ring.
    pub used: GuestAddr,
}

impl QueueLayout {
    /// The legacy layout (§2.7.2) from a page-aligned `base`; modern devices take it as well.
    pub fn new(base: GuestAddr, size: u16) -> Self {
        let avail = base + DESCRIPTOR_BYTES * u64::from(size);
        // flags, idx, ring, used_event
        let avail_end = avail.0 + 2 * (3 + u64::from(size));
        let used = GuestAddr(avail_end.next_multiple_of(LEGACY_QUEUE_ALIGN));
        Self { size, desc: base, avail, used }
    }

    /// Bytes from the descriptor table to the used ring's end.
    pub fn bytes(size: u16) -> u64 {
        let layout = Self::new(GuestAddr(0), size);
        // flags, idx, ring of 8-byte elements, avail_event
        layout.used.0 + 6 + 8 * u64::from(size)
    }
}

/// One buffer of a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Guest-physical address.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
    /// `VIRTQ_DESC_F_*`; the queue adds `VIRTQ_DESC_F_NEXT` where the chain goes on.
    pub flags: u16,
}

/// A descriptor written exactly as given, for tests that send malformed chains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawDescriptor {
    /// Guest-physical address.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
    /// All flags, `VIRTQ_DESC_F_NEXT` included.
    pub flags: u16,
    /// `next` as written; `None` links to the chain's next descriptor.
    pub next: Option<u16>,
}

/// A chain that the device has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// Head descriptor of the chain.
    pub head: u16,
    /// Bytes the device says it wrote.
    pub len: u32,
}

/// Our own record of a descriptor.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    /// Next of its chain, or of the free list.
    next: u16,
    /// Last of the chain it is the head of.
    tail: u16,
    /// Descriptors of the chain in flight that it is the head of; else 0.
    count: u16,
    /// Available index at which the chain was put.
    position: u16,
}

/// The driver's side of a split virtqueue.
#[derive(Debug)]
pub struct SplitQueue {
    layout: QueueLayout,
    desc: Cells<AtomicU64>,
    avail: Cells<AtomicU16>,
    avail_ring: Cells<AtomicU16>,
    used_event: Cells<AtomicU16>,
    used: Cells<AtomicU16>,
    used_ring: Cells<AtomicU32>,
    avail_event: Cells<AtomicU16>,
    links: Box<[Link]>,
    free_head: u16,
    free: u16,
    /// Next available index to fill.
    avail_idx: u16,
    /// Available index the device was last shown.
    published: u16,
    /// Next used index to take.
    used_idx: u16,
    /// The device's used index when last read.
    used_seen: u16,
    in_flight: u16,
    event_idx: bool,
}

impl SplitQueue {
    /// A queue over zeroed memory at `layout`, with interrupts suppressed.
    ///
    /// # Errors
    /// A machine error when the layout is not one the specification allows or not within RAM.
    pub fn new(ram: &Arc<GuestRam>, layout: QueueLayout, event_idx: bool) -> Result<Self> {
        let bad = || Error::machine(format!("no virtqueue can be laid out as {layout:?}"));
        let size = layout.size;
        if !size.is_power_of_two() || size > VIRTQ_SIZE_MAX {
            return Err(bad());
        }
        let n = usize::from(size);
        let wide = u64::from(size);
        let links = (0..size).map(|i| Link { next: i.wrapping_add(1), ..Link::default() });
        let queue = Self {
            layout,
            desc: Cells::new(ram, layout.desc, 2 * n).ok_or_else(bad)?,
            avail: Cells::new(ram, layout.avail, 2).ok_or_else(bad)?,
            avail_ring: Cells::new(ram, layout.avail + 4, n).ok_or_else(bad)?,
            used_event: Cells::new(ram, layout.avail + (4 + 2 * wide), 1).ok_or_else(bad)?,
            used: Cells::new(ram, layout.used, 2).ok_or_else(bad)?,
            used_ring: Cells::new(ram, layout.used + 4, 2 * n).ok_or_else(bad)?,
            avail_event: Cells::new(ram, layout.used + (4 + 8 * wide), 1).ok_or_else(bad)?,
            links: links.collect(),
            free_head: 0,
            free: size,
            avail_idx: 0,
            published: 0,
            used_idx: 0,
            used_seen: 0,
            in_flight: 0,
            event_idx,
        };
        queue.suppress_interrupts();
        Ok(queue)
    }

    /// Where it lies.
    pub fn layout(&self) -> &QueueLayout {
        &self.layout
    }

    /// Entries.
    pub fn size(&self) -> u16 {
        self.layout.size
    }

    /// Descriptors not in a chain.
    pub fn free_descriptors(&self) -> u16 {
        self.free
    }

    /// Chains added and not yet taken back.
    pub fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// The head that the next chain will have, so that memory kept for it by head can be filled
    /// before the chain is added. `None` when no descriptor is free.
    #[inline]
    pub fn next_head(&self) -> Option<u16> {
        (self.free > 0).then_some(self.free_head)
    }

    /// Adds a chain and returns its head, or `None` when the ring has no room for it. The device
    /// sees it at the next [`SplitQueue::publish`].
    #[inline]
    pub fn add(&mut self, chain: &[Descriptor]) -> Option<u16> {
        let count = self.room_for(chain.len())?;
        let (head, mut at, mut tail) = (self.free_head, self.free_head, self.free_head);
        for (index, part) in chain.iter().enumerate() {
            let next = self.links[usize::from(at)].next;
            let goes_on = if index + 1 < chain.len() { VIRTQ_DESC_F_NEXT } else { 0 };
            self.put(at, part.addr, part.len, part.flags | goes_on, next);
            (tail, at) = (at, next);
        }
        self.free_head = at;
        self.make_available(head, tail, count);
        Some(head)
    }

    /// Adds a chain that is one indirect table of `count` descriptors at `table` (§2.7.5.3).
    #[inline]
    pub fn add_indirect(&mut self, table: u64, count: u32) -> Option<u16> {
        let len = count.saturating_mul(DESCRIPTOR_BYTES as u32);
        self.add(&[Descriptor { addr: table, len, flags: VIRTQ_DESC_F_INDIRECT }])
    }

    /// Adds a chain with every field as given, right or wrong. It is accounted for as one chain of
    /// that many descriptors, whatever the links say.
    pub fn add_raw(&mut self, chain: &[RawDescriptor]) -> Option<u16> {
        let count = self.room_for(chain.len())?;
        let (head, mut at, mut tail) = (self.free_head, self.free_head, self.free_head);
        for part in chain {
            let next = self.links[usize::from(at)].next;
            self.put(at, part.addr, part.len, part.flags, part.next.unwrap_or(next));
            (tail, at) = (at, next);
        }
        self.free_head = at;
        self.make_available(head, tail, count);
        Some(head)
    }

    /// Puts any number on the available ring, without a chain behind it: for tests of devices. It
    /// is not in flight: a device that returns it is in error.
    pub fn add_bogus_head(&mut self, head: u16) {
        self.avail_ring.at(usize::from(self.avail_idx)).store(head.to_le(), Relaxed);
        self.avail_idx = self.avail_idx.wrapping_add(1);
    }

    /// Shows the device everything added since the last call, with one store of `avail.idx`, and
    /// says whether it wants to be notified (§2.7.10, §2.7.13.4).
    #[inline]
    pub fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.avail_idx);
        if old == new {
            return false;
        }
        self.avail.at(IDX).store(new.to_le(), Release);
        self.published = new;
        // The device stores its event word, then looks at avail.idx; we do it the other way
        // round. Without a full barrier between, each could miss the other's store.
        fence(SeqCst);
        if self.event_idx {
            let event = u16::from_le(self.avail_event.at(0).load(Relaxed));
            passed(event, new, old)
        } else {
            u16::from_le(self.used.at(FLAGS).load(Relaxed)) & VIRTQ_USED_F_NO_NOTIFY == 0
        }
    }

    /// Whether something was added that [`SplitQueue::publish`] has not shown yet.
    #[inline]
    pub fn has_unpublished(&self) -> bool {
        self.avail_idx != self.published
    }

    /// Whether the device has returned something.
    #[inline]
    pub fn has_used(&self) -> bool {
        self.used_idx != u16::from_le(self.used.at(IDX).load(Relaxed))
    }

    /// Takes back the next chain the device has returned, if there is one.
    ///
    /// # Errors
    /// A machine error when the device broke the ring: an index that passes what is in flight, an
    /// id that is not in flight. The queue stays where it is; only a reset helps.
    #[inline]
    pub fn pop(&mut self) -> Result<Option<Used>> {
        if self.used_idx == self.used_seen && !self.look()? {
            return Ok(None);
        }
        let at = 2 * usize::from(self.used_idx & (self.layout.size - 1));
        let id = u32::from_le(self.used_ring.at(at).load(Relaxed));
        let len = u32::from_le(self.used_ring.at(at + 1).load(Relaxed));
        let Some(link) = self.links.get(id as usize).filter(|link| link.count > 0) else {
            return Err(not_in_flight(id));
        };
        let link = *link;
        let unpublished = self.avail_idx.wrapping_sub(self.published);
        if link.position.wrapping_sub(self.published) < unpublished {
            return Err(not_in_flight(id));
        }
        let head = id as u16;
        self.links[usize::from(link.tail)].next = self.free_head;
        self.links[usize::from(head)].count = 0;
        self.free_head = head;
        self.free += link.count;
        self.in_flight -= 1;
        self.used_idx = self.used_idx.wrapping_add(1);
        Ok(Some(Used { head, len }))
    }

    /// Asks for an interrupt at the next completion. Returns `false` when something has been
    /// returned already, in which case none may come (§2.7.14).
    pub fn request_interrupt(&self) -> bool {
        if self.event_idx {
            self.used_event.at(0).store(self.used_idx.to_le(), Relaxed);
        } else {
            self.avail.at(FLAGS).store(0, Relaxed);
        }
        fence(SeqCst);
        !self.has_used()
    }

    /// Asks for no interrupts: by the flag, or, with `VIRTIO_F_EVENT_IDX`, which forbids the flag
    /// (§2.7.7.1), by an event index that is not reached before the next call.
    #[inline]
    pub fn suppress_interrupts(&self) {
        if self.event_idx {
            let far = self.used_idx.wrapping_add(EVENT_FAR_AHEAD);
            self.used_event.at(0).store(far.to_le(), Relaxed);
        } else {
            self.avail.at(FLAGS).store(VIRTQ_AVAIL_F_NO_INTERRUPT.to_le(), Relaxed);
        }
    }

    /// `count` as a chain length, if that many descriptors are free.
    #[inline]
    fn room_for(&self, count: usize) -> Option<u16> {
        u16::try_from(count).ok().filter(|count| (1..=self.free).contains(count))
    }

    #[inline]
    fn put(&self, at: u16, addr: u64, len: u32, flags: u16, next: u16) {
        put_descriptor(&self.desc, usize::from(at), addr, len, flags, next);
    }

    #[inline]
    fn make_available(&mut self, head: u16, tail: u16, count: u16) {
        let position = self.avail_idx;
        let link = &mut self.links[usize::from(head)];
        (link.tail, link.count, link.position) = (tail, count, position);
        self.free -= count;
        self.in_flight += 1;
        self.avail_ring.at(usize::from(position)).store(head.to_le(), Relaxed);
        self.avail_idx = position.wrapping_add(1);
    }

    /// Reads the device's used index; whether it moved.
    fn look(&mut self) -> Result<bool> {
        // Acquire: the elements, status bytes and data before the index are read after it.
        let idx = u16::from_le(self.used.at(IDX).load(Acquire));
        let returned = idx.wrapping_sub(self.used_idx);
        let shown = self.in_flight - self.unpublished_chains();
        if returned > shown {
            return Err(Error::machine(format!(
                "device moved its used index from {} to {idx}: {returned} requests returned, {shown} in flight",
                self.used_idx
            )));
        }
        self.used_seen = idx;
        Ok(returned > 0)
    }

    /// Chains added since the last publication (bogus heads may be among them).
    fn unpublished_chains(&self) -> u16 {
        self.avail_idx.wrapping_sub(self.published).min(self.in_flight)
    }
}

/// Writes descriptor `index` of a table.
#[inline]
pub(super) fn put_descriptor(
    table: &Cells<AtomicU64>,
    index: usize,
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
) {
    let rest = u64::from(len) | u64::from(flags) << 32 | u64::from(next) << 48;
    table.at(2 * index).store(addr.to_le(), Relaxed);
    table.at(2 * index + 1).store(rest.to_le(), Relaxed);
}

/// Whether an index moving from `old` to `new` passed `event` (§2.7.13.4).
#[inline]
fn passed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cold]
fn not_in_flight(id: u32) -> Error {
    Error::machine(format!("device returned descriptor id {id} which is not in flight"))
}

#[cfg(test)]
mod tests;
