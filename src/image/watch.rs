//! An image that remembers the first failure of the one below.
//!
//! A device answers a failed request with an error status and nothing more. Whether the *device*
//! was wrong or the *host* could not do its part (a full disk, a dying one) is known down here
//! only; a replay asks afterwards, and stops as soon as it has happened.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::iov::total;
use super::{Extent, Image, ImageInfo, IoQueue, QueuedOp};
use crate::base::Error;

/// What failed first, and why.
#[derive(Debug)]
struct Failure {
    verb: &'static str,
    offset: u64,
    len: u64,
    error: io::Error,
}

/// Shared by a watched image, its queues and whoever asks.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    first: Mutex<Option<Failure>>,
}

impl Watch {
    /// The first failure as an error of kind [`Incomplete`](crate::base::ErrorKind::Incomplete);
    /// it is taken out.
    pub fn take(&self) -> Option<Error> {
        let failure = self.first.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let Failure { verb, offset, len, error } = failure;
        let full = matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        );
        let what = Error::incomplete(format!(
            "the target image failed to {verb} {len} bytes at offset {offset}"
        ))
        .source(error);
        Some(if full {
            what.hint("free space on the file system that holds the target, or name another place")
        } else {
            what
        })
    }

    fn note<T>(
        &self,
        verb: &'static str,
        offset: u64,
        len: u64,
        result: io::Result<T>,
    ) -> io::Result<T> {
        result.inspect_err(|error| {
            // A request the image refuses by its contract is the caller's doing, not the host's.
            if error.kind() == io::ErrorKind::InvalidInput {
                return;
            }
            let copy = match error.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(error.kind(), error.to_string()),
            };
            let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(Failure { verb, offset, len, error: copy });
            self.stop.store(true, Ordering::Release);
        })
    }
}

struct Watched {
    image: Arc<dyn Image>,
    watch: Arc<Watch>,
}

/// `image`, watched: its first failure raises `stop`.
pub fn wrap(image: Arc<dyn Image>, stop: Arc<AtomicBool>) -> (Arc<dyn Image>, Arc<Watch>) {
    let watch = Arc::new(Watch { stop, first: Mutex::default() });
    (Arc::new(Watched { image, watch: Arc::clone(&watch) }), watch)
}

impl Image for Watched {
    fn size(&self) -> u64 {
        self.image.size()
    }

    fn info(&self) -> &ImageInfo {
        self.image.info()
    }

    fn read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<()> {
        let len = bufs.iter().map(|buf| buf.len() as u64).sum();
        self.watch.note("read", offset, len, self.image.read(bufs, offset))
    }

    fn write(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.watch.note("write", offset, total(bufs), self.image.write(bufs, offset))
    }

    fn flush(&self) -> io::Result<()> {
        self.watch.note("flush", 0, 0, self.image.flush())
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.watch.note("discard", offset, len, self.image.discard(offset, len))
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let result = self.image.write_zeroes(offset, len, unmap);
        self.watch.note("write zeroes over", offset, len, result)
    }

    fn extent(&self, offset: u64, len: u64) -> io::Result<Extent> {
        self.image.extent(offset, len)
    }

    fn queue(&self, depth: usize) -> io::Result<Option<Box<dyn IoQueue>>> {
        let watch = &self.watch;
        Ok(self.image.queue(depth)?.map(|queue| {
            let watch = Arc::clone(watch);
            Box::new(WatchedQueue { queue, watch }) as Box<dyn IoQueue>
        }))
    }
}

struct WatchedQueue {
    queue: Box<dyn IoQueue>,
    watch: Arc<Watch>,
}

impl WatchedQueue {
    fn verb(op: QueuedOp) -> &'static str {
        match op {
            QueuedOp::Read => "read",
            QueuedOp::Write => "write",
            QueuedOp::Flush => "flush",
        }
    }
}

impl IoQueue for WatchedQueue {
    // SAFETY: the caller's promise, of the trait, is all that the inner queue asks for.
    unsafe fn submit(
        &mut self,
        token: u64,
        op: QueuedOp,
        offset: u64,
        bufs: &[libc::iovec],
    ) -> io::Result<Option<io::Result<()>>> {
        // SAFETY: the caller's promise is passed on unchanged.
        let answer = unsafe { self.queue.submit(token, op, offset, bufs) }?;
        Ok(answer.map(|result| {
            let len = bufs.iter().map(|buf| buf.iov_len as u64).sum();
            self.watch.note(Self::verb(op), offset, len, result)
        }))
    }

    fn kick(&mut self) -> io::Result<()> {
        self.queue.kick()
    }

    fn reap(&mut self, done: &mut Vec<(u64, io::Result<()>)>) -> io::Result<()> {
        let from = done.len();
        self.queue.reap(done)?;
        // Where a late failure stood is not kept for each request: the cause is what counts.
        for (_, result) in done.iter_mut().skip(from).filter(|(_, result)| result.is_err()) {
            let taken = std::mem::replace(result, Ok(()));
            *result = self.watch.note("finish a request of", 0, 0, taken);
        }
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.queue.in_flight()
    }

    fn event_fd(&self) -> RawFd {
        self.queue.event_fd()
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("image", self.image.info()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{fault, mem, read_exact, write_all};

    #[test]
    fn the_first_failure_is_kept_with_its_place_and_raises_the_flag() {
        let stop = Arc::new(AtomicBool::new(false));
        let faulty = fault::wrap(mem(8192), "error:1".parse().unwrap());
        let (image, watch) = wrap(faulty, Arc::clone(&stop));
        write_all(&*image, &[1; 512], 0).unwrap();
        assert!(!stop.load(Ordering::Acquire) && watch.take().is_none());
        write_all(&*image, &[1; 1024], 512).unwrap_err();
        assert!(stop.load(Ordering::Acquire));
        let error = watch.take().unwrap();
        assert_eq!(error.kind().exit_code(), 7);
        assert!(error.to_string().contains("write 1024 bytes at offset 512"), "{error}");
    }

    #[test]
    fn a_request_past_the_end_is_the_callers_mistake() {
        let (image, watch) = wrap(mem(4096), Arc::default());
        read_exact(&*image, &mut [0; 512], 8192).unwrap_err();
        assert!(watch.take().is_none());
    }
}
