//! Carries requests out on the image, at once or through its asynchronous queue.

use std::io;
use std::sync::Arc;

use super::bits::*;
use super::chip::{BlkChip, Command, Range};
use super::observer::{BlkObserver, ObservedRequest};
use crate::base::BlockOp;
use crate::image::{Image, IoQueue, QueuedOp};
use crate::machine::builtin::devices::virtio_queue::Chain;
use virtio_bindings::virtio_blk::VIRTIO_BLK_ID_BYTES;

/// What became of a request.
pub(super) enum Outcome {
    /// Answered; so many bytes of its writable part were written.
    Done(u32),
    /// The image works on it.
    Pending,
    /// There is no byte for a status: the device cannot answer.
    Unanswerable,
}

/// An answered request: the chain to give back.
pub(super) struct Finished {
    pub queue: u16,
    pub head: u16,
    pub written: u32,
}

/// Where the answer of a request goes.
#[derive(Clone, Copy)]
struct Reply {
    status: *mut u8,
    queue: u16,
    head: u16,
    /// Used length if it succeeds.
    written: u32,
    token: u64,
}

/// A request that the image works on.
struct Slot {
    reply: Option<Reply>,
    /// Kept here, because an image may read the list after `submit`.
    iov: Vec<libc::iovec>,
    /// A write-through cache: flush before the answer.
    flush_after: bool,
}

/// The image with what is in flight on it.
pub(super) struct Engine {
    image: Arc<dyn Image>,
    pub chip: BlkChip,
    serial: [u8; VIRTIO_BLK_ID_BYTES as usize],
    io: Option<Box<dyn IoQueue>>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    done: Vec<(u64, io::Result<()>)>,
    /// Something was submitted since the last kick.
    unkicked: bool,
    observer: Option<Box<dyn BlkObserver>>,
    tokens: u64,
}

// SAFETY: the pointers in slots and replies reach shared guest RAM, which the worker that owns the
// engine keeps mapped; everything else is Send.
unsafe impl Send for Engine {}

impl Engine {
    pub fn new(
        image: Arc<dyn Image>,
        chip: BlkChip,
        serial: &str,
        aio_depth: usize,
        observer: Option<Box<dyn BlkObserver>>,
        first_token: u64,
    ) -> io::Result<Self> {
        let io = if aio_depth == 0 { None } else { image.queue(aio_depth)? };
        let depth = if io.is_some() { aio_depth } else { 0 };
        let slot = || Slot { reply: None, iov: Vec::new(), flush_after: false };
        let mut id = [0; VIRTIO_BLK_ID_BYTES as usize];
        id.iter_mut().zip(serial.bytes()).for_each(|(cell, byte)| *cell = byte);
        Ok(Self {
            image,
            chip,
            serial: id,
            io,
            slots: std::iter::repeat_with(slot).take(depth).collect(),
            free: (0..depth).rev().collect(),
            done: Vec::with_capacity(depth),
            unkicked: false,
            observer,
            tokens: first_token,
        })
    }

    /// Whether another request can be taken.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.io.is_none() || !self.free.is_empty()
    }

    /// Requests the image works on.
    pub fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// For poll(2), while requests are in flight.
    pub fn event_fd(&self) -> Option<std::os::fd::RawFd> {
        self.io.as_ref().filter(|_| self.in_flight() > 0).map(|io| io.event_fd())
    }

    /// Takes a request to its answer, or as far as the image's queue.
    #[inline]
    pub fn execute(&mut self, queue: u16, chain: &mut Chain) -> Outcome {
        let Some(status) = chain.take_last_writable() else { return Outcome::Unanswerable };
        self.tokens += 1;
        let (head, token) = (chain.head(), self.tokens);
        let mut reply = Reply { status, queue, head, written: 1, token };
        let header = chain.take_readable::<REQUEST_HEADER_BYTES>();
        // A header that is too short is a malformed request that still can be answered.
        let command = header.ok_or(Status::IoErr).and_then(|header| {
            self.chip.decode(&header, chain.readable_bytes(), chain.writable_bytes())
        });
        let result = match command {
            Ok(Command::Read { offset }) => return self.read(reply, offset, chain),
            Ok(Command::Write { offset }) => return self.write(reply, offset, chain),
            Ok(Command::Flush) => return self.flush(reply),
            Ok(Command::GetId) => {
                self.observe(reply, BlockOp::GetId, Range::default(), None);
                reply.written += chain.fill(&self.serial) as u32;
                Ok(())
            }
            Ok(Command::Ranges { zero, count }) => self.ranges(reply, zero, count, chain),
            Err(status) => Err(status),
        };
        self.answer(reply, result)
    }

    fn observe(&mut self, reply: Reply, op: BlockOp, range: Range, chain: Option<&Chain>) {
        if let Some(observer) = &mut self.observer {
            let data = chain.map_or(&[][..], |chain| chain.io_slices());
            let Range { offset, len, unmap } = range;
            let request = ObservedRequest { queue: reply.queue, op, offset, len, unmap, data };
            observer.issue(reply.token, &request);
        }
    }

    /// Writes the status byte. The used length covers data only when all of it was written.
    #[inline]
    fn answer(&mut self, reply: Reply, result: Result<(), Status>) -> Outcome {
        let (status, written) = match result {
            Ok(()) => (Status::Ok, reply.written),
            Err(status) => (status, 1),
        };
        // SAFETY: the byte was found in RAM when the chain was walked, and RAM is still mapped.
        unsafe { reply.status.write_volatile(status as u8) };
        if let Some(observer) = &mut self.observer {
            observer.complete(reply.token, status as u8);
        }
        Outcome::Done(written)
    }

    #[inline]
    fn read(&mut self, mut reply: Reply, offset: u64, chain: &mut Chain) -> Outcome {
        let len = chain.writable_bytes();
        self.observe(reply, BlockOp::Read, Range { offset, len, unmap: false }, None);
        // The chip refused what does not fit in 32 bits.
        reply.written = (len as u32).saturating_add(1);
        if len == 0 {
            return self.answer(reply, Ok(()));
        }
        if self.io.is_some() {
            return self.submit(reply, QueuedOp::Read, offset, chain.writable());
        }
        let result = self.image.read(chain.io_slices_mut(), offset);
        self.answer(reply, status_of(result))
    }

    #[inline]
    fn write(&mut self, reply: Reply, offset: u64, chain: &mut Chain) -> Outcome {
        let len = chain.readable_bytes();
        self.observe(reply, BlockOp::Write, Range { offset, len, unmap: false }, Some(chain));
        if len == 0 {
            return self.answer(reply, Ok(()));
        }
        if self.io.is_some() {
            return self.submit(reply, QueuedOp::Write, offset, chain.readable());
        }
        let result = self.image.write(chain.io_slices(), offset);
        let result = result.and_then(|()| self.write_through());
        self.answer(reply, status_of(result))
    }

    fn flush(&mut self, reply: Reply) -> Outcome {
        self.observe(reply, BlockOp::Flush, Range::default(), None);
        if self.io.is_some() {
            return self.submit(reply, QueuedOp::Flush, 0, &[]);
        }
        let result = self.image.flush();
        self.answer(reply, status_of(result))
    }

    /// With a write-through cache what was written is durable before the answer (§5.2.6.2).
    fn write_through(&self) -> io::Result<()> {
        if self.chip.is_writeback() { Ok(()) } else { self.image.flush() }
    }

    /// Makes everything cached durable: the driver turned the cache to write-through.
    pub fn flush_cache(&self) -> io::Result<()> {
        self.image.flush()
    }

    /// Discards or zeroes. Every range is checked before the first is touched.
    fn ranges(
        &mut self,
        reply: Reply,
        zero: bool,
        count: usize,
        chain: &mut Chain,
    ) -> Result<(), Status> {
        let mut ranges = [Range::default(); RANGES_MAX];
        let ranges = ranges.get_mut(..count).ok_or(Status::IoErr)?;
        for range in ranges.iter_mut() {
            let bytes = chain.take_readable().ok_or(Status::IoErr)?;
            *range = self.chip.range(zero, &bytes)?;
        }
        let op = if zero { BlockOp::WriteZeroes } else { BlockOp::Discard };
        for range in ranges.iter().filter(|r| r.len > 0) {
            self.observe(reply, op, *range, None);
            status_of(match zero {
                true => self.image.write_zeroes(range.offset, range.len, range.unmap),
                false => self.image.discard(range.offset, range.len),
            })?;
        }
        status_of(self.write_through())
    }

    fn submit(&mut self, reply: Reply, op: QueuedOp, offset: u64, bufs: &[libc::iovec]) -> Outcome {
        let index = self.free.pop();
        let Some((index, slot)) = index.and_then(|i| Some((i, self.slots.get_mut(i)?))) else {
            return self.answer(reply, Err(Status::IoErr));
        };
        slot.reply = Some(reply);
        slot.flush_after = op == QueuedOp::Write && !self.chip.is_writeback();
        slot.iov.clear();
        slot.iov.extend_from_slice(bufs);
        match self.start(index, op, offset) {
            None => Outcome::Pending,
            Some(result) => match self.advance(index, result) {
                Some((reply, result)) => self.answer(reply, result),
                None => Outcome::Pending,
            },
        }
    }

    /// Hands a slot to the image; its result when it was finished at once.
    fn start(&mut self, index: usize, op: QueuedOp, offset: u64) -> Option<io::Result<()>> {
        let (Some(io), Some(slot)) = (&mut self.io, self.slots.get(index)) else {
            return Some(Err(io::ErrorKind::NotConnected.into()));
        };
        // SAFETY: the buffers are guest RAM, which stays mapped as long as the engine's owner; the
        // list stays in the slot until the token comes back, because only `advance` frees it. The
        // driver gave the buffers to the device until then.
        match unsafe { io.submit(index as u64, op, offset, &slot.iov) } {
            Ok(None) => {
                self.unkicked = true;
                None
            }
            Ok(Some(result)) => Some(result),
            Err(error) => Some(Err(error)),
        }
    }

    /// The image is done with a slot: flush for it, or free it and give its reply.
    fn advance(
        &mut self,
        index: usize,
        mut result: io::Result<()>,
    ) -> Option<(Reply, Result<(), Status>)> {
        let slot = self.slots.get_mut(index).filter(|s| s.reply.is_some())?;
        if std::mem::take(&mut slot.flush_after) && result.is_ok() {
            slot.iov.clear();
            result = self.start(index, QueuedOp::Flush, 0)?;
        }
        let reply = self.slots.get_mut(index)?.reply.take()?;
        self.free.push(index);
        Some((reply, status_of(result)))
    }

    /// Starts what was submitted.
    pub fn kick(&mut self) -> io::Result<()> {
        match &mut self.io {
            Some(io) if std::mem::take(&mut self.unkicked) => io.kick(),
            _ => Ok(()),
        }
    }

    /// Takes what the image finished and answers it.
    pub fn reap(&mut self, mut finished: impl FnMut(Finished)) -> io::Result<()> {
        let Some(io) = self.io.as_mut() else { return Ok(()) };
        let mut done = std::mem::take(&mut self.done);
        let result = io.reap(&mut done);
        for (token, result) in done.drain(..) {
            let index = usize::try_from(token).unwrap_or(usize::MAX);
            if let Some((reply, result)) = self.advance(index, result)
                && let Outcome::Done(written) = self.answer(reply, result)
            {
                finished(Finished { queue: reply.queue, head: reply.head, written });
            }
        }
        self.done = done;
        self.kick()?;
        result
    }

    /// Waits until nothing is in flight, answering what finishes. When this returns, the image
    /// touches no guest buffer any more.
    pub fn drain(&mut self, mut finished: impl FnMut(Finished)) {
        let mut result = self.kick();
        while result.is_ok()
            && let Some(fd) = self.event_fd()
        {
            result = wait_readable(fd).and_then(|()| self.reap(&mut finished));
        }
        if let Err(error) = result {
            tracing::warn!(%error, "the image's queue failed; requests go to it one by one now");
            self.abandon();
        }
    }

    /// Gives the image's queue up. Dropping it waits for what is in flight (its contract).
    fn abandon(&mut self) {
        self.io = None;
        self.free = (0..self.slots.len()).rev().collect();
        self.slots.iter_mut().for_each(|slot| slot.reply = None);
    }
}

#[inline]
fn status_of(result: io::Result<()>) -> Result<(), Status> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::Unsupported => Status::Unsupported,
        _ => Status::IoErr,
    })
}

/// Waits for a descriptor. A signal (or a spurious wake-up) only makes the caller look again.
fn wait_readable(fd: std::os::fd::RawFd) -> io::Result<()> {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd for the duration of the call.
    if unsafe { libc::poll(&mut poll, 1, -1) } >= 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        error => Err(error),
    }
}
