//! Carries the requests of one queue out on the image and says them to the tap.
//!
//! Data go through buffers of ours: what is recorded is what the image got or gave, whatever a
//! guest does to its memory meanwhile, and the host's I/O never touches memory that another
//! process may take away.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use virtio_bindings::virtio_blk::VIRTIO_BLK_ID_BYTES;

use crate::base::{BlockOp, OpFlags};
use crate::image::{Image, IoQueue, QueuedOp};
use crate::machine::builtin::devices::virtio_blk::bits::{
    RANGES_MAX, REQUEST_HEADER_BYTES, Status,
};
use crate::machine::builtin::devices::virtio_blk::chip::{BlkChip, Command, Range};
use crate::machine::builtin::devices::virtio_queue::Chain;
use crate::record::recording::{BlockIssue, Bytes, Tag, Tap};

/// Most data of one request: as much as an NBD server must take, and far more than any guest sends
/// by itself. A buffer of that size is made for each request in flight.
pub const REQUEST_DATA_BYTES_MAX: u64 = 32 << 20;

/// Requests of one queue that the image works on at once.
pub const DEPTH: usize = 64;

/// Bytes of buffers of one queue. A request that finds less room left waits on its ring.
const BUFFER_BYTES_MAX: u64 = 64 << 20;

/// What the queues of a disk share.
pub struct Disk {
    /// What it offers, and what a request means.
    pub chip: RwLock<BlkChip>,
    /// Its identifier.
    pub serial: [u8; VIRTIO_BLK_ID_BYTES as usize],
    /// Requests that were refused: they are not recorded.
    pub refused: AtomicU64,
}

impl Disk {
    /// A disk as new, with an identifier of at most 20 bytes.
    pub fn new(chip: BlkChip, serial: &str) -> Self {
        let mut id = [0; VIRTIO_BLK_ID_BYTES as usize];
        id.iter_mut().zip(serial.bytes()).for_each(|(cell, byte)| *cell = byte);
        Self { chip: RwLock::new(chip), serial: id, refused: AtomicU64::new(0) }
    }

    fn with<T>(&self, work: impl FnOnce(&BlkChip) -> T) -> T {
        work(&self.chip.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered; so many bytes of its writable part were written.
    Done(u32),
    /// The image works on it.
    Pending,
    /// There is no byte for a status: nobody can be told.
    Unanswerable,
}

/// Where an answer goes, and what it says.
struct Reply {
    status: *mut u8,
    head: u16,
    /// Used length if it succeeds.
    written: u32,
    tag: Tag,
}

/// What a request moves.
enum Data {
    /// To be read, and where it goes in the guest's memory.
    Read(Vec<u8>, Vec<libc::iovec>),
    /// To be written; the tap has it, too.
    Write(Arc<Vec<u8>>),
    /// Nothing: a flush.
    None,
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Self::Read(buffer, _) => buffer.len(),
            Self::Write(buffer) => buffer.len(),
            Self::None => 0,
        }
    }

    /// For the image; the bytes stay where they are when `self` is moved.
    fn iov(&mut self) -> libc::iovec {
        let (base, iov_len) = match self {
            Self::Read(buffer, _) => (buffer.as_mut_ptr(), buffer.len()),
            // The image only reads it.
            Self::Write(buffer) => (buffer.as_ptr().cast_mut(), buffer.len()),
            Self::None => (std::ptr::null_mut(), 0),
        };
        libc::iovec { iov_base: base.cast(), iov_len }
    }
}

/// A request that the image works on.
struct Slot {
    reply: Reply,
    data: Data,
    iov: [libc::iovec; 1],
    /// A write-through cache: flush before the answer.
    flush_after: bool,
}

/// Requests of one queue.
pub struct Engine {
    disk: Arc<Disk>,
    image: Arc<dyn Image>,
    tap: Tap,
    io: Option<Box<dyn IoQueue>>,
    slots: Vec<Option<Box<Slot>>>,
    free: Vec<usize>,
    buffered: u64,
    done: Vec<(u64, io::Result<()>)>,
    unkicked: bool,
}

// SAFETY: the pointers in slots reach the front-end's memory, which the ring that took the
// requests keeps mapped until they are answered, and buffers that the slots own.
unsafe impl Send for Engine {}

impl Engine {
    /// The tap that it records through.
    pub fn tap(&self) -> &Tap {
        &self.tap
    }

    /// An engine for `image` that records through `tap`.
    ///
    /// # Errors
    /// The image's queue cannot be made.
    pub fn new(disk: Arc<Disk>, image: Arc<dyn Image>, tap: Tap) -> io::Result<Self> {
        let io = image.queue(DEPTH)?;
        let depth = if io.is_some() { DEPTH } else { 0 };
        Ok(Self {
            disk,
            image,
            tap,
            io,
            slots: std::iter::repeat_with(|| None).take(depth).collect(),
            free: (0..depth).rev().collect(),
            buffered: 0,
            done: Vec::with_capacity(depth),
            unkicked: false,
        })
    }

    /// Whether another request can be taken.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.io.is_none() || (!self.free.is_empty() && self.buffered < BUFFER_BYTES_MAX)
    }

    /// Requests the image works on.
    pub fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Becomes readable when the image has finished something.
    pub fn event_fd(&self) -> Option<RawFd> {
        self.io.as_ref().map(|io| io.event_fd())
    }

    /// Takes a request to its answer, or as far as the image's queue. The chain's memory must stay
    /// mapped until it is answered.
    pub fn execute(&mut self, chain: &mut Chain) -> Outcome {
        let Some(status) = chain.take_last_writable() else { return Outcome::Unanswerable };
        let head = chain.head();
        let header = chain.take_readable::<REQUEST_HEADER_BYTES>();
        // A header that is too short is a malformed request that still can be answered.
        let command = header.ok_or(Status::IoErr).and_then(|header| {
            let (out, into) = (chain.readable_bytes(), chain.writable_bytes());
            self.disk.with(|chip| chip.decode(&header, out, into))
        });
        let target = (status, head);
        match command {
            Ok(Command::Read { offset }) => self.read(target, offset, chain),
            Ok(Command::Write { offset }) => self.write(target, offset, chain),
            Ok(Command::Flush) => self.flush(target),
            Ok(Command::GetId) => self.get_id(target, chain),
            Ok(Command::Ranges { zero, count }) => self.ranges(target, zero, count, chain),
            Err(status) => self.refuse(target, status),
        }
    }

    /// Answers what is not carried out, and so not recorded.
    fn refuse(&self, (byte, _): (*mut u8, u16), status: Status) -> Outcome {
        self.disk.refused.fetch_add(1, Ordering::Relaxed);
        put_status(byte, status);
        Outcome::Done(1)
    }

    fn read(&mut self, to: (*mut u8, u16), offset: u64, chain: &mut Chain) -> Outcome {
        let len = chain.writable_bytes();
        if len > REQUEST_DATA_BYTES_MAX {
            return self.refuse(to, Status::IoErr);
        }
        let Ok(tag) = self.tap.issue(issue(BlockOp::Read, offset, len), None) else {
            return self.refuse(to, Status::IoErr);
        };
        let mut buffer = vec![0; len as usize];
        let reply = Reply { status: to.0, head: to.1, written: 1 + len as u32, tag };
        if self.io.is_some() && len > 0 {
            let data = Data::Read(buffer, chain.writable().to_vec());
            return self.submit(reply, QueuedOp::Read, offset, data);
        }
        let result = match len {
            0 => Ok(()),
            _ => self.image.read(&mut [IoSliceMut::new(&mut buffer)], offset),
        };
        self.answer(reply, result, Some((buffer, chain.writable())))
    }

    fn write(&mut self, to: (*mut u8, u16), offset: u64, chain: &mut Chain) -> Outcome {
        let len = chain.readable_bytes();
        if len > REQUEST_DATA_BYTES_MAX {
            return self.refuse(to, Status::IoErr);
        }
        let buffer = Arc::new(gather(chain.readable(), len as usize));
        let write_through = !self.disk.with(BlkChip::is_writeback);
        let mut issue = issue(BlockOp::Write, offset, len);
        issue.flags.set(OpFlags::FUA, write_through);
        let Ok(tag) = self.tap.issue(issue, Some(Arc::clone(&buffer) as _)) else {
            return self.refuse(to, Status::IoErr);
        };
        let reply = Reply { status: to.0, head: to.1, written: 1, tag };
        if self.io.is_some() && len > 0 {
            return self.submit(reply, QueuedOp::Write, offset, Data::Write(buffer));
        }
        let mut result = match len {
            0 => Ok(()),
            _ => self.image.write(&[IoSlice::new(&buffer)], offset),
        };
        if write_through {
            result = result.and_then(|()| self.image.flush());
        }
        self.answer(reply, result, None)
    }

    fn flush(&mut self, to: (*mut u8, u16)) -> Outcome {
        let Ok(tag) = self.tap.issue(issue(BlockOp::Flush, 0, 0), None) else {
            return self.refuse(to, Status::IoErr);
        };
        let reply = Reply { status: to.0, head: to.1, written: 1, tag };
        if self.io.is_some() {
            return self.submit(reply, QueuedOp::Flush, 0, Data::None);
        }
        let result = self.image.flush();
        self.answer(reply, result, None)
    }

    fn get_id(&mut self, to: (*mut u8, u16), chain: &Chain) -> Outcome {
        let Ok(tag) = self.tap.issue(issue(BlockOp::GetId, 0, 0), None) else {
            return self.refuse(to, Status::IoErr);
        };
        let written = 1 + chain.fill(&self.disk.serial) as u32;
        let reply = Reply { status: to.0, head: to.1, written, tag };
        self.answer(reply, Ok(()), None)
    }

    /// Discards or zeroes. Every range is checked before the first is touched, and recorded as a
    /// request of its own.
    fn ranges(
        &mut self,
        to: (*mut u8, u16),
        zero: bool,
        count: usize,
        chain: &mut Chain,
    ) -> Outcome {
        let mut ranges = [Range::default(); RANGES_MAX];
        let ranges = ranges.get_mut(..count).unwrap_or_default();
        for range in ranges.iter_mut() {
            let bytes = chain.take_readable().ok_or(Status::IoErr);
            match bytes.and_then(|bytes| self.disk.with(|chip| chip.range(zero, &bytes))) {
                Ok(checked) => *range = checked,
                Err(status) => return self.refuse(to, status),
            }
        }
        let last = ranges.iter().rposition(|range| range.len > 0);
        let mut result = Ok(());
        for (at, range) in ranges.iter().enumerate().filter(|(_, range)| range.len > 0) {
            result = self.range(zero, *range, last == Some(at));
            if result.is_err() {
                break;
            }
        }
        put_status(to.0, result.err().unwrap_or(Status::Ok));
        Outcome::Done(1)
    }

    /// One range; with a write-through cache the last one is followed by a flush.
    fn range(&mut self, zero: bool, range: Range, last: bool) -> Result<(), Status> {
        let op = if zero { BlockOp::WriteZeroes } else { BlockOp::Discard };
        let mut issue = issue(op, range.offset, range.len);
        issue.flags.set(OpFlags::UNMAP, range.unmap);
        let tag = self.tap.issue(issue, None).map_err(|_| Status::IoErr)?;
        let mut result = match zero {
            true => self.image.write_zeroes(range.offset, range.len, range.unmap),
            false => self.image.discard(range.offset, range.len),
        };
        if last && !self.disk.with(BlkChip::is_writeback) {
            result = result.and_then(|()| self.image.flush());
        }
        self.tap.complete(tag, errno(&result), None);
        result.map_err(|error| status_of(&error))
    }

    /// Says what came of it and writes the status; the chain is to be given back then.
    fn answer(
        &self,
        reply: Reply,
        result: io::Result<()>,
        read: Option<(Vec<u8>, &[libc::iovec])>,
    ) -> Outcome {
        let mut data: Option<Bytes> = None;
        if let (Some((buffer, into)), Ok(())) = (read, &result) {
            scatter(&buffer, into);
            data = (!buffer.is_empty()).then(|| Arc::new(buffer) as _);
        }
        self.tap.complete(reply.tag, errno(&result), data);
        let status = result.map_or_else(|error| status_of(&error), |()| Status::Ok);
        put_status(reply.status, status);
        Outcome::Done(if status == Status::Ok { reply.written } else { 1 })
    }

    fn submit(&mut self, reply: Reply, op: QueuedOp, offset: u64, mut data: Data) -> Outcome {
        // `has_room` was asked before the request was taken.
        let Some(index) = self.free.pop() else {
            return self.answer(reply, Err(io::ErrorKind::ResourceBusy.into()), None);
        };
        let iov = [data.iov()];
        let flush_after = op == QueuedOp::Write && !self.disk.with(BlkChip::is_writeback);
        self.buffered += data.len() as u64;
        let slot = Slot { reply, data, iov, flush_after };
        if let Some(free) = self.slots.get_mut(index) {
            *free = Some(Box::new(slot));
        }
        match self.start(index, op, offset) {
            None => Outcome::Pending,
            Some(result) => self.advance(index, result).map_or(Outcome::Pending, |(_, done)| done),
        }
    }

    /// Hands a slot to the image; its result when it was finished at once.
    fn start(&mut self, index: usize, op: QueuedOp, offset: u64) -> Option<io::Result<()>> {
        let slot = self.slots.get(index).and_then(Option::as_ref);
        let (Some(io), Some(slot)) = (&mut self.io, slot) else {
            return Some(Err(io::ErrorKind::NotConnected.into()));
        };
        let bufs = if op == QueuedOp::Flush { &[][..] } else { &slot.iov[..] };
        // SAFETY: the buffer and the list are in the slot, which is boxed and stays until the
        // token comes back: only `advance` frees it.
        match unsafe { io.submit(index as u64, op, offset, bufs) } {
            Ok(None) => {
                self.unkicked = true;
                None
            }
            Ok(Some(result)) => Some(result),
            Err(error) => Some(Err(error)),
        }
    }

    /// The image is done with a slot: flush for it, or free it and answer.
    fn advance(&mut self, index: usize, mut result: io::Result<()>) -> Option<(u16, Outcome)> {
        let slot = self.slots.get_mut(index)?.as_mut()?;
        if std::mem::take(&mut slot.flush_after) && result.is_ok() {
            result = self.start(index, QueuedOp::Flush, 0)?;
        }
        let slot = self.slots.get_mut(index)?.take()?;
        self.free.push(index);
        let Slot { reply, data, .. } = *slot;
        self.buffered = self.buffered.saturating_sub(data.len() as u64);
        let head = reply.head;
        let done = match data {
            Data::Read(buffer, into) => self.answer(reply, result, Some((buffer, &into))),
            Data::Write(_) | Data::None => self.answer(reply, result, None),
        };
        Some((head, done))
    }

    /// Starts what was submitted.
    ///
    /// # Errors
    /// The image's queue failed.
    pub fn kick(&mut self) -> io::Result<()> {
        match &mut self.io {
            Some(io) if std::mem::take(&mut self.unkicked) => io.kick(),
            _ => Ok(()),
        }
    }

    /// Takes what the image finished and answers it: `finished` gets each head with its used
    /// length.
    ///
    /// # Errors
    /// The image's queue failed.
    pub fn reap(&mut self, mut finished: impl FnMut(u16, u32)) -> io::Result<()> {
        let Some(io) = self.io.as_mut() else { return Ok(()) };
        let mut done = std::mem::take(&mut self.done);
        let result = io.reap(&mut done);
        for (token, result) in done.drain(..) {
            let index = usize::try_from(token).unwrap_or(usize::MAX);
            if let Some((head, Outcome::Done(written))) = self.advance(index, result) {
                finished(head, written);
            }
        }
        self.done = done;
        self.kick()?;
        result
    }

    /// Waits until nothing is in flight, answering what finishes.
    ///
    /// # Errors
    /// The image's queue failed; nothing is in flight on it any more.
    pub fn drain(&mut self, mut finished: impl FnMut(u16, u32)) -> io::Result<()> {
        let mut result = self.kick();
        while result.is_ok() && self.in_flight() > 0 {
            let Some(fd) = self.event_fd() else { break };
            result = wait_readable(fd).and_then(|()| self.reap(&mut finished));
        }
        if result.is_err() {
            // Dropping it waits for what is in flight: its contract.
            self.io = None;
            for slot in self.slots.drain(..).flatten() {
                self.tap.complete(slot.reply.tag, libc::EIO as u16, None);
            }
            self.free.clear();
        }
        result
    }
}

fn issue(op: BlockOp, offset: u64, len: u64) -> BlockIssue {
    BlockIssue { op, flags: OpFlags::empty(), offset, len, cpu: None }
}

/// What an error is called in a trace.
fn errno(result: &io::Result<()>) -> u16 {
    match result {
        Ok(()) => 0,
        Err(error) => match error.raw_os_error().and_then(|errno| u16::try_from(errno).ok()) {
            Some(errno) if errno != 0 => errno,
            _ => libc::EIO as u16,
        },
    }
}

fn status_of(error: &io::Error) -> Status {
    match error.kind() {
        io::ErrorKind::Unsupported => Status::Unsupported,
        _ => Status::IoErr,
    }
}

fn put_status(byte: *mut u8, status: Status) {
    // SAFETY: the byte was found in memory when the chain was walked, and is mapped until the
    // chain is given back.
    unsafe { byte.write_volatile(status as u8) };
}

/// Copies the guest's buffers, `len` bytes of them.
fn gather(from: &[libc::iovec], len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::with_capacity(len);
    for iov in from {
        let n = iov.iov_len.min(len - bytes.len());
        let filled = bytes.len();
        // SAFETY: the chain's walk found `iov_len` bytes of memory there; the vector has room for
        // `len` bytes, of which `filled + n` are at most all, and n bytes are initialised here.
        unsafe {
            let to = bytes.as_mut_ptr().add(filled);
            std::ptr::copy_nonoverlapping(iov.iov_base.cast::<u8>(), to, n);
            bytes.set_len(filled + n);
        }
    }
    bytes
}

/// Copies to the guest's buffers.
fn scatter(bytes: &[u8], into: &[libc::iovec]) {
    let mut rest = bytes;
    for iov in into {
        let n = iov.iov_len.min(rest.len());
        let (now, later) = rest.split_at(n);
        // SAFETY: the chain's walk found `iov_len` bytes of memory there, and n is at most that.
        unsafe { std::ptr::copy_nonoverlapping(now.as_ptr(), iov.iov_base.cast(), n) };
        rest = later;
    }
}

/// Waits for a descriptor. A signal (or a spurious wake-up) only makes the caller look again.
fn wait_readable(fd: RawFd) -> io::Result<()> {
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
