//! `cache=none`: transfers on an `O_DIRECT` descriptor, which wants everything aligned.
//!
//! What is aligned goes straight through. The rest takes a bounce buffer, and a write that covers
//! only a part of a block reads the block first, under a lock that keeps other writes out.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::{PoisonError, RwLock};

use super::host::HostFile;
use super::iov::{Direction, advanced, total_raw, transfer};
use crate::base::Result;
use crate::base::error::IoContext;

/// Bytes bounced at a time.
const BOUNCE_BYTES: usize = 256 << 10;

/// Alignments tried where the kernel does not tell (before Linux 6.1): the logical block sizes
/// that exist.
const TRIED: [usize; 2] = [512, 4096];

/// How a descriptor wants its transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alignment {
    /// Offsets and lengths are multiples of this.
    pub offset: usize,
    /// Addresses are multiples of this.
    pub memory: usize,
}

/// Direct I/O on one file.
#[derive(Debug)]
pub struct DirectIo {
    alignment: Alignment,
    /// Where a regular file must end: writing whole blocks may carry it further.
    file_end: Option<u64>,
    /// Shared by aligned writes, exclusive for read-modify-write.
    gate: RwLock<()>,
}

impl DirectIo {
    /// Turns the page cache off for `host`.
    pub fn enable(host: &HostFile) -> Result<Self> {
        host.set_direct()?;
        let alignment = match stated_alignment(host.fd()) {
            Some(alignment) => alignment,
            None => tried_alignment(host.fd()).reading(&host.path, "cannot use cache=none")?,
        };
        let file_end = (!host.block_device).then(|| host.len_in_whole_sectors());
        Ok(Self { alignment, file_end, gate: RwLock::new(()) })
    }

    /// Whether a transfer can go to the kernel as it is.
    pub fn is_aligned(&self, bufs: &[libc::iovec], offset: u64) -> bool {
        let fits = |value: usize, to: usize| value.is_multiple_of(to);
        offset.is_multiple_of(self.alignment.offset as u64)
            && bufs.iter().all(|b| {
                fits(b.iov_base as usize, self.alignment.memory)
                    && fits(b.iov_len, self.alignment.offset)
            })
    }

    /// Reads until the end of the file at most; returns the bytes read.
    ///
    /// # Safety
    /// Every buffer is writable memory.
    pub unsafe fn read(&self, fd: RawFd, bufs: &[libc::iovec], offset: u64) -> io::Result<u64> {
        if self.is_aligned(bufs, offset) {
            // SAFETY: as for this function.
            return unsafe { self.read_aligned(fd, bufs, offset) };
        }
        let (total, mut done) = (total_raw(bufs), 0);
        let mut bounce = Bounce::new(self.alignment.memory)?;
        while done < total {
            let at = offset + done;
            let start = at - at % self.alignment.offset as u64;
            let skip = at - start;
            let got = bounce.read(fd, start, skip + (total - done), self.alignment.offset)?;
            let usable = got.saturating_sub(skip).min(total - done);
            if usable == 0 {
                break;
            }
            // SAFETY: parts of the caller's buffers.
            unsafe { copy_to(bounce.bytes(skip, usable), &advanced(bufs, done)) };
            done += usable;
        }
        Ok(done)
    }

    /// A direct read ends short at the end of the file, perhaps off the alignment.
    ///
    /// # Safety
    /// As for [`DirectIo::read`]: every buffer is writable memory.
    unsafe fn read_aligned(&self, fd: RawFd, bufs: &[libc::iovec], offset: u64) -> io::Result<u64> {
        let total = total_raw(bufs);
        // SAFETY: as for `read`.
        let mut done = unsafe { super::iov::transfer_once(fd, Direction::Read, bufs, offset, 0) }?;
        while done < total && done.is_multiple_of(self.alignment.offset as u64) {
            let rest = advanced(bufs, done);
            // SAFETY: parts of the caller's buffers.
            let more =
                unsafe { super::iov::transfer_once(fd, Direction::Read, &rest, offset + done, 0) }?;
            if more == 0 {
                break;
            }
            done += more;
        }
        Ok(done)
    }

    /// Writes everything.
    ///
    /// # Safety
    /// Every buffer is readable memory.
    pub unsafe fn write(&self, fd: RawFd, bufs: &[libc::iovec], offset: u64) -> io::Result<()> {
        if self.is_aligned(bufs, offset) {
            let _shared = self.gate.read().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: as for this function.
            return unsafe { transfer(fd, Direction::Write, bufs, offset) }.map(drop);
        }
        let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let unit = self.alignment.offset as u64;
        let (total, mut done) = (total_raw(bufs), 0);
        let mut bounce = Bounce::new(self.alignment.memory)?;
        while done < total {
            let at = offset + done;
            let start = at - at % unit;
            let skip = at - start;
            let n = (total - done).min(BOUNCE_BYTES as u64 - skip);
            let span = (skip + n).next_multiple_of(unit);
            if skip != 0 || span != skip + n {
                bounce.clear();
                bounce.read(fd, start, span, self.alignment.offset)?;
            }
            // SAFETY: parts of the caller's buffers.
            unsafe { copy_from(&advanced(bufs, done), bounce.bytes_mut(skip, n)) };
            bounce.write(fd, start, span)?;
            self.cut(fd, start + span)?;
            done += n;
        }
        Ok(())
    }

    /// Cuts off what a whole-block write at the end of the file added.
    fn cut(&self, fd: RawFd, written_to: u64) -> io::Result<()> {
        match self.file_end {
            Some(end) if written_to > end => {
                // SAFETY: plain integers and an open descriptor.
                let rc = unsafe { libc::ftruncate(fd, super::host::to_off(end)?) };
                if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }
}

/// What statx(2) says (`STATX_DIOALIGN`, Linux 6.1).
fn stated_alignment(fd: RawFd) -> Option<Alignment> {
    // SAFETY: an all-zero statx is valid, and the kernel fills it.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a valid empty string and `stat` outlives the call.
    let rc = unsafe {
        libc::statx(fd, c"".as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN, &mut stat)
    };
    let told = rc == 0 && stat.stx_mask & libc::STATX_DIOALIGN != 0;
    let usable = |n: u32| n.is_power_of_two() && n as usize <= BOUNCE_BYTES / 2;
    (told && usable(stat.stx_dio_mem_align) && usable(stat.stx_dio_offset_align)).then_some(
        Alignment {
            offset: stat.stx_dio_offset_align as usize,
            memory: stat.stx_dio_mem_align as usize,
        },
    )
}

/// The least alignment with which a read succeeds.
fn tried_alignment(fd: RawFd) -> io::Result<Alignment> {
    let mut last = io::Error::from(io::ErrorKind::Unsupported);
    for unit in TRIED {
        let mut bounce = Bounce::new(BOUNCE_BYTES / 2)?;
        match bounce.read(fd, unit as u64, unit as u64, unit) {
            // A page is a safe guess for memory.
            Ok(_) => return Ok(Alignment { offset: unit, memory: 4096 }),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// A zeroed, aligned buffer of [`BOUNCE_BYTES`].
struct Bounce {
    at: NonNull<u8>,
    layout: Layout,
}

impl Bounce {
    fn new(align: usize) -> io::Result<Self> {
        let layout =
            Layout::from_size_align(BOUNCE_BYTES, align.max(4096)).map_err(io::Error::other)?;
        // SAFETY: the layout's size is not zero.
        let at = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { at, layout })
    }

    fn all(&mut self) -> &mut [u8] {
        // SAFETY: allocated with this size, initialised, and borrowed through self.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), BOUNCE_BYTES) }
    }

    fn clear(&mut self) {
        self.all().fill(0);
    }

    fn bytes(&mut self, from: u64, len: u64) -> &[u8] {
        self.bytes_mut(from, len)
    }

    fn bytes_mut(&mut self, from: u64, len: u64) -> &mut [u8] {
        let from = (from as usize).min(BOUNCE_BYTES);
        let len = (len as usize).min(BOUNCE_BYTES - from);
        &mut self.all()[from..from + len]
    }

    fn iovec(&mut self, len: u64) -> libc::iovec {
        let len = (len as usize).min(BOUNCE_BYTES);
        libc::iovec { iov_base: self.at.as_ptr().cast(), iov_len: len }
    }

    /// Reads up to `want` bytes, rounded up to `unit`, as far as they fit.
    fn read(&mut self, fd: RawFd, offset: u64, want: u64, unit: usize) -> io::Result<u64> {
        let len = want.min(BOUNCE_BYTES as u64).next_multiple_of(unit as u64);
        let iovec = [self.iovec(len)];
        // SAFETY: the buffer is ours, and borrowed mutably.
        unsafe { super::iov::transfer_once(fd, Direction::Read, &iovec, offset, 0) }
    }

    fn write(&mut self, fd: RawFd, offset: u64, len: u64) -> io::Result<()> {
        let iovec = [self.iovec(len)];
        // SAFETY: the buffer is ours.
        unsafe { transfer(fd, Direction::Write, &iovec, offset) }.map(drop)
    }
}

impl Drop for Bounce {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and dropped once.
        unsafe { dealloc(self.at.as_ptr(), self.layout) };
    }
}

/// Copies `from` over `to`, as far as both reach.
///
/// # Safety
/// Every buffer of `to` is writable memory apart from `from`.
unsafe fn copy_to(mut from: &[u8], to: &[libc::iovec]) {
    for buf in to {
        let (head, tail) = from.split_at(buf.iov_len.min(from.len()));
        // SAFETY: `head` is no longer than the buffer.
        unsafe { std::ptr::copy_nonoverlapping(head.as_ptr(), buf.iov_base.cast(), head.len()) };
        from = tail;
    }
}

/// Copies `from` over `to`, as far as both reach.
///
/// # Safety
/// Every buffer of `from` is readable memory apart from `to`.
unsafe fn copy_from(from: &[libc::iovec], mut to: &mut [u8]) {
    for buf in from {
        let n = buf.iov_len.min(to.len());
        // SAFETY: both are at least `n` bytes long.
        unsafe { std::ptr::copy_nonoverlapping(buf.iov_base.cast(), to.as_mut_ptr(), n) };
        to = &mut to[n..];
    }
}
