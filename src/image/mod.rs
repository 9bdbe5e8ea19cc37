//! The bytes of a disk, whatever holds them.
//!
//! Everything above talks to an [`Image`]; `open` and `create` choose the implementation by format.
//! An image that some other program has open is refused (QEMU's own locks are honoured).

mod chain;
pub mod compare;
pub mod digest;
mod direct;
pub mod fault;
mod first_sector;
mod foreign;
pub mod given;
mod host;
mod iov;
mod kept;
pub mod lock;
mod mapped;
mod mem;
mod nbd;
pub mod nbd_proto;
mod nbd_wire;
mod null;
mod open;
pub mod overlay;
mod pending;
pub mod probe;
mod qcow2;
mod qcow2_check;
#[cfg(test)]
mod qcow2_check_tests;
mod qcow2_header;
mod qcow2_refcounts;
#[cfg(test)]
mod qcow2_tests;
mod qemu_nbd;
mod ranges;
mod raw;
#[cfg(test)]
pub(crate) mod testkit;
mod uring;
pub mod watch;

use std::io::{self, IoSlice, IoSliceMut};
use std::path::Path;

pub use host::HostFile;
pub use kept::KeptRaw;
pub use mem::mem;
pub use null::null;
pub use open::{open, open_for_guest};
pub use pending::{PendingFile, PendingImage, create};

/// What a range of an image holds, as far as its metadata tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentKind {
    /// Bytes are stored; they may well be zeros.
    Data,
    /// Reads as zeros without being stored.
    Zero,
}

/// A run of one kind, from the offset that was asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// What it holds.
    pub kind: ExtentKind,
    /// Bytes; never 0 within the image.
    pub len: u64,
}

/// A run of an image's bytes in a file of the host.
#[derive(Clone, Copy, Debug)]
pub struct Located<'a> {
    /// The file.
    pub file: &'a std::fs::File,
    /// Where in the file the run begins.
    pub offset: u64,
    /// Bytes; never 0.
    pub len: u64,
}

/// What an image says of itself, for reports and error texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// Its path; empty for images without one (`null`, `mem`).
    pub path: std::path::PathBuf,
    /// `raw`, `qcow2`, `null`, `mem`, `nbd`, …
    pub format: String,
    /// How it is reached when not directly: `qemu-nbd`, or the I/O engine.
    pub via: String,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether a discarded range reads as zeros afterwards.
    pub discard_zeroes: bool,
}

/// A disk. Methods take any byte offset and length within [`Image::size`]; what lies past the end
/// is an `InvalidInput` error. All of them may be called from several threads.
pub trait Image: Send + Sync {
    /// Guest-visible bytes.
    fn size(&self) -> u64;
    /// What it is.
    fn info(&self) -> &ImageInfo;
    /// Fills `bufs` in order from byte `offset`.
    fn read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<()>;
    /// Writes `bufs` in order from byte `offset`.
    fn write(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Everything written before is durable when it returns (as `cache=` allows).
    fn flush(&self) -> io::Result<()>;
    /// The range is no longer needed. Afterwards it reads as zeros where `info().discard_zeroes`.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()>;
    /// The range reads as zeros afterwards; `unmap` allows its space to be given back.
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()>;
    /// As [`Image::write_zeroes`], where that takes no writing of data; else nothing happens and
    /// the error is `EOPNOTSUPP`.
    fn write_zeroes_fast(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let _ = (offset, len, unmap);
        Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
    }
    /// What the range from `offset` holds, for at most `len` bytes.
    fn extent(&self, offset: u64, len: u64) -> io::Result<Extent>;
    /// Where the bytes from `offset` are stored just as they are, for at most `len` bytes; `None`
    /// where they are not, or not in the host's page cache.
    fn located(&self, offset: u64, len: u64) -> io::Result<Option<Located<'_>>> {
        let _ = (offset, len);
        Ok(None)
    }
    /// An asynchronous queue of this image, for `depth` requests at once, where that pays; `None`
    /// means that the calls above are the fastest way.
    fn queue(&self, depth: usize) -> io::Result<Option<Box<dyn IoQueue>>> {
        let _ = depth;
        Ok(None)
    }
}

/// Convenience over [`Image::read`].
pub fn read_exact(image: &dyn Image, buf: &mut [u8], offset: u64) -> io::Result<()> {
    image.read(&mut [IoSliceMut::new(buf)], offset)
}

/// Convenience over [`Image::write`].
pub fn write_all(image: &dyn Image, buf: &[u8], offset: u64) -> io::Result<()> {
    image.write(&[IoSlice::new(buf)], offset)
}

/// An operation handed to an [`IoQueue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueuedOp {
    /// Fill the buffers.
    Read,
    /// Write the buffers.
    Write,
    /// As [`Image::flush`].
    Flush,
}

/// Requests in flight on an image. Dropping it waits for them.
pub trait IoQueue: Send {
    /// Queues one request; it may start at once or at the next [`IoQueue::kick`]. Returns
    /// `Ok(Some(result))` when it was finished at once, without a completion to come.
    ///
    /// # Safety
    /// Every buffer must stay mapped, and must not be accessed by anything but other I/O, until
    /// the token comes back from [`IoQueue::reap`] (or the call returns `Some`).
    unsafe fn submit(
        &mut self,
        token: u64,
        op: QueuedOp,
        offset: u64,
        bufs: &[libc::iovec],
    ) -> io::Result<Option<io::Result<()>>>;
    /// Starts everything queued so far.
    fn kick(&mut self) -> io::Result<()>;
    /// Moves what has finished into `done` without waiting.
    fn reap(&mut self, done: &mut Vec<(u64, io::Result<()>)>) -> io::Result<()>;
    /// Requests submitted and not reaped.
    fn in_flight(&self) -> usize;
    /// Becomes readable when something finishes, for poll(2).
    fn event_fd(&self) -> std::os::fd::RawFd;
}

/// How an image's bytes reach the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// `O_DIRECT`: the host's page cache is bypassed.
    None,
    /// The page cache is used; a flush reaches the disk.
    #[default]
    Writeback,
    /// The page cache is used and flushes are not passed on.
    Unsafe,
}

/// How a raw image is read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AioMode {
    /// The fastest way that was measured for the cache mode and depth.
    #[default]
    Auto,
    /// pread/pwrite in the calling thread; the only deterministic order of completion.
    Sync,
    /// io_uring for everything.
    IoUring,
}

/// How to open or create an image.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// `raw`, `qcow2`, …; `None` probes by content (never written to unless it is certain).
    pub format: Option<String>,
    /// Open for writing.
    pub writable: bool,
    /// See [`CacheMode`].
    pub cache: CacheMode,
    /// See [`AioMode`].
    pub aio: AioMode,
    /// Backing and data files outside the image's own folder are opened too.
    pub allow_backing: bool,
}

/// The backing file that a qcow2 image names; other formats' are not looked at.
///
/// # Errors
/// Input: it cannot be read, or is damaged.
pub fn backing_name(path: &std::path::Path) -> crate::base::Result<Option<String>> {
    let host = host::HostFile::open(path, false)?;
    match probe::format_of_file(&host)? {
        "qcow2" => Ok(qcow2_header::read(&host)?.backing),
        _ => Ok(None),
    }
}

/// The folder an image's implicit references are confined to.
pub fn home_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
