//! The guest's side of devices, written once for every machine.
//!
//! A driver owns pages of guest RAM and talks to its device through the machine's facets. What
//! every machine kind shares is the [`BlockDriver`]: it takes requests and gives completions.

pub mod acpi;
pub mod alloc;
pub mod apic;
pub mod chipset;
pub mod cmos;
pub mod pci;
pub mod pic;
pub mod pit;
pub mod virtio;

#[cfg(test)]
mod fake;

use crate::base::{BlockOp, GuestAddr, Nanos, Result};
use crate::machine::Machine;

/// What a block device offers, after feature negotiation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockLimits {
    /// Sectors of 512 bytes.
    pub capacity_sectors: u64,
    /// Logical block size in bytes; requests should be multiples of it.
    pub block_bytes: u32,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether flush is offered.
    pub flush: bool,
    /// Largest discard in sectors; 0 when not offered.
    pub discard_sectors_max: u32,
    /// Largest write-zeroes in sectors; 0 when not offered.
    pub write_zeroes_sectors_max: u32,
    /// Whether write-zeroes may unmap.
    pub write_zeroes_unmap: bool,
    /// Largest read or write the driver makes, in bytes.
    pub transfer_bytes_max: usize,
    /// Request queues in use.
    pub queues: u16,
    /// Requests that one queue holds at once.
    pub depth_max: usize,
}

/// A request in the terms of the device: whole sectors, at most the limits above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRequest {
    /// What is asked. Writes take the bytes the caller put in the buffer.
    pub op: BlockOp,
    /// First sector; 0 for operations without a range.
    pub sector: u64,
    /// Sectors; 0 for operations without a range.
    pub sectors: u32,
    /// Write-zeroes: the range may be deallocated.
    pub unmap: bool,
}

/// A buffer of guest RAM that the driver lends to the caller: filled before a write is submitted,
/// read after a read completed.
#[derive(Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Guest-physical address, page aligned and contiguous.
    pub addr: GuestAddr,
    /// Usable bytes.
    pub len: usize,
    /// The allocator's own mark (size class).
    pub class: u8,
}

/// An answered request.
#[derive(Debug, PartialEq, Eq)]
pub struct Completion {
    /// The caller's token; tokens in flight are distinct.
    pub token: u64,
    /// The device's answer.
    pub status: BlockStatus,
    /// The buffer that was submitted with it, back in the caller's hands.
    pub buffer: Option<Buffer>,
}

/// The status byte of an answered request (virtio 1.2 §5.2.6), or what was wrong with the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockStatus {
    /// `VIRTIO_BLK_S_OK`.
    Ok,
    /// `VIRTIO_BLK_S_IOERR`.
    IoErr,
    /// `VIRTIO_BLK_S_UNSUPP`.
    Unsupported,
    /// The device wrote another byte, or none at all (the driver put 0xff there).
    Bad(u8),
    /// The device reported a used length that cannot be right for this request: bytes reported.
    BadLength(u32),
}

/// A block device as a guest's driver offers it. All machine kinds give one.
pub trait BlockDriver {
    /// What the device offers.
    fn limits(&self) -> &BlockLimits;
    /// A buffer of at least `len` bytes, or `None` when guest RAM is used up for now.
    fn buffer(&mut self, len: usize) -> Option<Buffer>;
    /// Gives a buffer back.
    fn release(&mut self, buffer: Buffer);
    /// The bytes of a buffer that the caller holds.
    fn bytes<'a>(&'a self, buffer: &'a Buffer) -> &'a [u8];
    /// The bytes of a buffer that the caller holds, to fill.
    fn bytes_mut<'a>(&'a mut self, buffer: &'a mut Buffer) -> &'a mut [u8];
    /// Puts a request on `queue` (modulo the queues in use) without telling the device yet.
    /// [`Submitted::Full`] gives the buffer back when the ring is full.
    ///
    /// # Errors
    /// A request outside the device's limits, or a device that broke the ring.
    fn submit(
        &mut self,
        queue: u16,
        token: u64,
        request: &BlockRequest,
        buffer: Option<Buffer>,
    ) -> Result<Submitted>;
    /// Tells the device about everything submitted since the last kick, as far as it wants to know.
    fn kick(&mut self, machine: &mut dyn Machine) -> Result<()>;
    /// Takes what has completed, without waiting. A device that breaks the ring protocol (an id
    /// that is not in flight, an index that jumps) is an error of kind `Machine`.
    fn reap(&mut self, machine: &mut dyn Machine, done: &mut Vec<Completion>) -> Result<()>;
    /// Waits until something may have completed or the clock reaches `deadline`.
    fn wait(&mut self, machine: &mut dyn Machine, deadline: Option<Nanos>) -> Result<()>;
    /// Requests submitted and not yet reaped.
    fn in_flight(&self) -> usize;
    /// Resets the device and takes its rings back; buffers in flight are lost to the caller.
    fn shutdown(&mut self, machine: &mut dyn Machine) -> Result<()>;
}

/// What became of [`BlockDriver::submit`].
#[derive(Debug, PartialEq, Eq)]
pub enum Submitted {
    /// It is on the ring.
    Queued,
    /// The ring is full: try again after completions were reaped. The buffer comes back.
    Full(Option<Buffer>),
}
