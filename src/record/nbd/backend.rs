//! How the image is asked: in place, through its own queue, or by a worker.

use std::collections::HashMap;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::buffers::Buffer;
use super::workers::{Mailbox, Workers};
use crate::image::{Extent, ExtentKind, Image, IoQueue, QueuedOp, read_exact, write_all};

/// Requests that one connection has in flight at the image's queue.
const QUEUE_DEPTH: usize = 128;

/// A request that was answered in place and took longer than this waited for a disk ...
const SLOW: Duration = Duration::from_micros(500);

/// ... and so the next ones go to workers, which can wait side by side.
const AFTER_SLOW: u32 = 512;

/// Longest range that is trimmed or zeroed in place; a host without fallocate(2) writes zeros.
const IN_PLACE_BYTES_MAX: u64 = 4 << 20;

/// Extents of one block status reply; a client asks again for the rest.
const EXTENTS_MAX: usize = 1024;

/// What the image is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Read,
    Write { fua: bool },
    Flush,
    Trim { fua: bool },
    Zeroes { fua: bool, unmap: bool, fast: bool },
    Cache,
    Status { one: bool },
}

/// Data that goes with it.
#[derive(Debug)]
pub(super) enum Data {
    None,
    /// Is to be filled.
    Into(Buffer),
    /// Is to be written.
    From(Arc<Buffer>),
}

/// A piece of work.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) data: Data,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) result: io::Result<()>,
    pub(super) data: Data,
    pub(super) extents: Vec<Extent>,
}

/// Does `job` here and now.
pub(super) fn run(image: &dyn Image, job: Job) -> Outcome {
    let Job { work, offset, len, mut data } = job;
    let mut extents = Vec::new();
    let durable = |fua: bool| if fua { image.flush() } else { Ok(()) };
    let result = match (work, &mut data) {
        (Work::Read, Data::Into(buffer)) => read_exact(image, buffer.as_mut(), offset),
        (Work::Write { fua }, Data::From(buffer)) => {
            write_all(image, (**buffer).as_ref(), offset).and_then(|()| durable(fua))
        }
        (Work::Flush, _) => image.flush(),
        (Work::Trim { fua }, _) => image.discard(offset, len).and_then(|()| durable(fua)),
        (Work::Zeroes { fua, unmap, fast: true }, _) => {
            image.write_zeroes_fast(offset, len, unmap).and_then(|()| durable(fua))
        }
        (Work::Zeroes { fua, unmap, fast: false }, _) => {
            image.write_zeroes(offset, len, unmap).and_then(|()| durable(fua))
        }
        (Work::Cache, _) => read_ahead(image, offset, len),
        (Work::Status { one }, _) => status(image, offset, len, one).map(|found| extents = found),
        (Work::Read | Work::Write { .. }, _) => Err(io::ErrorKind::InvalidInput.into()),
    };
    Outcome { result, data, extents }
}

/// Asks the host to read what will be wanted, where it has it as it is. It is advice.
fn read_ahead(image: &dyn Image, offset: u64, len: u64) -> io::Result<()> {
    if let Some(located) = image.located(offset, len)? {
        let range = (i64::try_from(located.offset), i64::try_from(located.len));
        if let (Ok(offset), Ok(len)) = range {
            let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_WILLNEED;
            let _ = nix::fcntl::posix_fadvise(located.file, offset, len, advice);
        }
    }
    Ok(())
}

/// The extents of a range, neighbours of one kind joined. Never empty.
fn status(image: &dyn Image, mut offset: u64, mut len: u64, one: bool) -> io::Result<Vec<Extent>> {
    let mut extents: Vec<Extent> = Vec::new();
    while len > 0 {
        let found = image.extent(offset, len)?;
        let step = found.len.clamp(1, len);
        let full = extents.len() >= if one { 1 } else { EXTENTS_MAX };
        match extents.last_mut() {
            Some(last) if last.kind == found.kind => last.len += step,
            _ if full => break,
            _ => extents.push(Extent { len: step, ..found }),
        }
        (offset, len) = (offset + step, len - step);
    }
    Ok(extents)
}

/// One connection's way to the image.
pub(super) struct Backend {
    image: Arc<dyn Image>,
    workers: Arc<Workers>,
    mailbox: Arc<Mailbox>,
    /// Dropped first: the kernel may still be writing into what `queued` holds.
    queue: Option<Box<dyn IoQueue>>,
    queued: HashMap<u64, Job>,
    /// Requests that are still to go to workers.
    slow: u32,
    reaped: Vec<(u64, io::Result<()>)>,
}

impl Backend {
    pub(super) fn new(image: Arc<dyn Image>, workers: Arc<Workers>) -> io::Result<Self> {
        let queue = image.queue(QUEUE_DEPTH)?;
        Ok(Self {
            image,
            workers,
            mailbox: Arc::new(Mailbox::new()?),
            queue,
            queued: HashMap::new(),
            slow: 0,
            reaped: Vec::new(),
        })
    }

    /// Begins `job`; what is finished at once is returned. `alone`: nothing else is in flight, so
    /// that nothing is held up.
    pub(super) fn begin(&mut self, token: u64, job: Job, alone: bool) -> Option<Outcome> {
        let queued = match job.work {
            Work::Read => Some(QueuedOp::Read),
            Work::Write { .. } => Some(QueuedOp::Write),
            Work::Flush => Some(QueuedOp::Flush),
            _ => None,
        };
        if let (Some(op), true) = (queued, self.queue.is_some()) {
            return self.submit(token, op, job);
        }
        let in_place = match job.work {
            Work::Read | Work::Status { .. } | Work::Cache => true,
            Work::Write { fua } => !fua,
            // It is slow by nature, and more may be asked for meanwhile.
            Work::Flush => false,
            Work::Trim { fua } | Work::Zeroes { fua, .. } => {
                alone && !fua && job.len <= IN_PLACE_BYTES_MAX
            }
        };
        if in_place && (self.slow == 0 || alone) {
            let begun = Instant::now();
            let outcome = run(&*self.image, job);
            if begun.elapsed() > SLOW && !alone {
                self.slow = AFTER_SLOW;
            }
            return Some(outcome);
        }
        self.slow = self.slow.saturating_sub(1);
        self.workers.give(token, job, &self.mailbox);
        None
    }

    fn submit(&mut self, token: u64, op: QueuedOp, mut job: Job) -> Option<Outcome> {
        let queue = self.queue.as_mut()?;
        let buffer = match &mut job.data {
            Data::Into(buffer) => Some((buffer.as_mut().as_mut_ptr(), buffer.as_ref().len())),
            // The kernel only reads what is written.
            Data::From(buffer) => {
                let bytes = (**buffer).as_ref();
                Some((bytes.as_ptr().cast_mut(), bytes.len()))
            }
            Data::None => None,
        };
        let iovec = buffer.map(|(at, len)| libc::iovec { iov_base: at.cast(), iov_len: len });
        // SAFETY: the buffer's memory is on the heap and stays where it is when `job` moves. It is
        // kept in `queued`, and not looked at, until the token comes back; a queue that is dropped
        // waits for all that it has, and is dropped before `queued`.
        let submitted = unsafe { queue.submit(token, op, job.offset, iovec.as_slice()) };
        let result = match submitted {
            Ok(None) => {
                self.queued.insert(token, job);
                return None;
            }
            Ok(Some(result)) => result,
            Err(error) => Err(error),
        };
        self.finish(token, job, result)
    }

    /// What comes after the queue is done with `job`: the flush of a FUA write, or its outcome.
    fn finish(&mut self, token: u64, job: Job, result: io::Result<()>) -> Option<Outcome> {
        if let (Work::Write { fua: true }, true) = (job.work, result.is_ok()) {
            // Its data is the kernel's no longer.
            let flush = Job { work: Work::Flush, data: Data::None, ..job };
            return self.submit(token, QueuedOp::Flush, flush);
        }
        Some(Outcome { result, data: job.data, extents: Vec::new() })
    }

    /// Starts what was begun.
    pub(super) fn kick(&mut self) -> io::Result<()> {
        self.queue.as_mut().map_or(Ok(()), |queue| queue.kick())
    }

    /// Moves what has finished into `done`.
    pub(super) fn collect(&mut self, done: &mut Vec<(u64, Outcome)>) -> io::Result<()> {
        self.mailbox.collect(done);
        let mut reaped = std::mem::take(&mut self.reaped);
        if let Some(queue) = self.queue.as_mut().filter(|queue| queue.in_flight() > 0) {
            queue.reap(&mut reaped)?;
        }
        for (token, result) in reaped.drain(..) {
            if let Some(job) = self.queued.remove(&token) {
                done.extend(self.finish(token, job, result).map(|outcome| (token, outcome)));
            }
        }
        self.reaped = reaped;
        Ok(())
    }

    /// Readable when workers have finished something.
    pub(super) fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// Readable when the queue has finished something.
    pub(super) fn queue_fd(&self) -> Option<BorrowedFd<'_>> {
        let fd: RawFd = self.queue.as_ref().filter(|queue| queue.in_flight() > 0)?.event_fd();
        // SAFETY: the queue owns it, and is borrowed as long as this.
        Some(unsafe { BorrowedFd::borrow_raw(fd) })
    }
}

/// Whether an extent reads as zeros.
pub(super) fn is_hole(extent: &Extent) -> bool {
    extent.kind == ExtentKind::Zero
}
