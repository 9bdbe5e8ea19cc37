//! A raw image that was taken for one because no signature stands in it, served to a writer who is
//! not trusted.
//!
//! Were such a writer to put another format's header there, the next one to open the image by its
//! content would follow that header, to a backing file for one: any file of the host. QEMU refuses
//! these writes with EPERM (`raw_co_pwritev` in block/raw-format.c); so does this.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::RawFd;
use std::slice::from_raw_parts;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::probe::{PROBE_BYTES, format_of};
use super::{Extent, Image, ImageInfo, IoQueue, Located, QueuedOp, read_exact};

/// What is shared with the queues.
struct First {
    image: Arc<dyn Image>,
    /// Changes of the bytes that are looked at come one after the other: two that are harmless
    /// could be a signature together.
    one: Mutex<()>,
    said: AtomicBool,
}

struct Guarded(Arc<First>);

/// `image`, which was found to be raw by its content, and stays what is found to be raw.
pub(super) fn guard(image: Arc<dyn Image>) -> Arc<dyn Image> {
    let first = First { image, one: Mutex::default(), said: AtomicBool::new(false) };
    Arc::new(Guarded(Arc::new(first)))
}

/// What a range becomes.
enum Becomes<'a> {
    Bytes(&'a [IoSlice<'a>]),
    Zeros(u64),
}

impl First {
    /// Does `change`, after which the range from `offset` is what `becomes` says, unless the image
    /// would no longer be found to be raw.
    fn change(
        &self,
        offset: u64,
        becomes: &Becomes<'_>,
        change: impl FnOnce(&dyn Image) -> io::Result<()>,
    ) -> io::Result<()> {
        if offset >= PROBE_BYTES as u64 {
            return change(&*self.image);
        }
        let _one = self.one.lock().unwrap_or_else(PoisonError::into_inner);
        let mut head = [0; PROBE_BYTES];
        let len = self.image.size().min(PROBE_BYTES as u64) as usize;
        let head = head.get_mut(..len).unwrap_or_default();
        read_exact(&*self.image, head, 0)?;
        // Below PROBE_BYTES.
        put(head.get_mut(offset as usize..).unwrap_or_default(), becomes);
        match format_of(head) {
            "raw" => change(&*self.image),
            other => {
                self.say(other);
                Err(io::Error::from_raw_os_error(libc::EPERM))
            }
        }
    }

    fn say(&self, format: &str) {
        if !self.said.swap(true, Ordering::Relaxed) {
            let path = self.image.info().path.display().to_string();
            tracing::warn!(
                path,
                "a write that would make this raw image look like {format} was refused: its format \
                 was found by its content. Say that it is raw to allow it"
            );
        }
    }
}

/// Lays the beginning of what is written on `head`.
fn put(head: &mut [u8], becomes: &Becomes<'_>) {
    match becomes {
        Becomes::Zeros(len) => {
            let len = head.len().min(usize::try_from(*len).unwrap_or(usize::MAX));
            head.iter_mut().take(len).for_each(|byte| *byte = 0);
        }
        Becomes::Bytes(bufs) => {
            let bytes = bufs.iter().flat_map(|buf| buf.iter());
            head.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        }
    }
}

impl Image for Guarded {
    fn size(&self) -> u64 {
        self.0.image.size()
    }

    fn info(&self) -> &ImageInfo {
        self.0.image.info()
    }

    fn read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<()> {
        self.0.image.read(bufs, offset)
    }

    fn write(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.0.change(offset, &Becomes::Bytes(bufs), |image| image.write(bufs, offset))
    }

    fn flush(&self) -> io::Result<()> {
        self.0.image.flush()
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.change(offset, &Becomes::Zeros(len), |image| image.discard(offset, len))
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let zeros = Becomes::Zeros(len);
        self.0.change(offset, &zeros, |image| image.write_zeroes(offset, len, unmap))
    }

    fn write_zeroes_fast(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let zeros = Becomes::Zeros(len);
        self.0.change(offset, &zeros, |image| image.write_zeroes_fast(offset, len, unmap))
    }

    fn extent(&self, offset: u64, len: u64) -> io::Result<Extent> {
        self.0.image.extent(offset, len)
    }

    fn located(&self, offset: u64, len: u64) -> io::Result<Option<Located<'_>>> {
        self.0.image.located(offset, len)
    }

    fn queue(&self, depth: usize) -> io::Result<Option<Box<dyn IoQueue>>> {
        Ok(self.0.image.queue(depth)?.map(|queue| {
            let first = Arc::clone(&self.0);
            Box::new(GuardedQueue { queue, first }) as Box<dyn IoQueue>
        }))
    }
}

struct GuardedQueue {
    queue: Box<dyn IoQueue>,
    first: Arc<First>,
}

impl IoQueue for GuardedQueue {
    // SAFETY: the caller's promise, of the trait, is all that the inner queue asks for.
    unsafe fn submit(
        &mut self,
        token: u64,
        op: QueuedOp,
        offset: u64,
        bufs: &[libc::iovec],
    ) -> io::Result<Option<io::Result<()>>> {
        if op != QueuedOp::Write || offset >= PROBE_BYTES as u64 {
            // SAFETY: the caller's promise is passed on unchanged.
            return unsafe { self.queue.submit(token, op, offset, bufs) };
        }
        // At once, so that nothing comes between the look and the write.
        let bufs: Vec<IoSlice<'_>> = bufs
            .iter()
            .filter(|buf| buf.iov_len > 0)
            // SAFETY: the caller promises that the buffer is mapped, and changed by nothing.
            .map(|buf| IoSlice::new(unsafe { from_raw_parts(buf.iov_base.cast(), buf.iov_len) }))
            .collect();
        let becomes = Becomes::Bytes(&bufs);
        Ok(Some(self.first.change(offset, &becomes, |image| image.write(&bufs, offset))))
    }

    fn kick(&mut self) -> io::Result<()> {
        self.queue.kick()
    }

    fn reap(&mut self, done: &mut Vec<(u64, io::Result<()>)>) -> io::Result<()> {
        self.queue.reap(done)
    }

    fn in_flight(&self) -> usize {
        self.queue.in_flight()
    }

    fn event_fd(&self) -> RawFd {
        self.queue.event_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AioMode, OpenOptions, mem, open_for_guest, testkit, write_all};
    use super::*;

    fn refused(result: io::Result<()>) -> bool {
        result.is_err_and(|e| e.raw_os_error() == Some(libc::EPERM))
    }

    #[test]
    fn no_other_format_comes_into_being_whole_or_in_parts() {
        let image = guard(mem(8192));
        assert!(refused(write_all(&*image, b"QFI\xfb\0\0\0\x03", 0)));
        let mut sectors = [0; 4096];
        sectors[0x40..0x44].copy_from_slice(&[0x7f, 0x10, 0xda, 0xbe]);
        assert!(refused(write_all(&*image, &sectors, 0)));
        write_all(&*image, b"FI\xfb", 1).unwrap();
        assert!(refused(write_all(&*image, b"Q", 0)));
        // A zero completes this one.
        write_all(&*image, b"QED!", 0).unwrap();
        assert!(refused(image.write_zeroes(3, 1, false)) && refused(image.discard(3, 1)));
        image.write_zeroes(0, 8192, true).unwrap();
        write_all(&*image, b"QFI\xfb", 512).unwrap();
        write_all(&*image, &[0xaa; 8192], 0).unwrap();
    }

    #[test]
    fn it_is_there_when_the_format_was_not_said_and_else_does_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::File::create(&path).unwrap().set_len(testkit::SIZE).unwrap();
        let options = OpenOptions { writable: true, ..OpenOptions::default() };
        let image = open_for_guest(&path, &options).unwrap();
        assert!(refused(write_all(&*image, b"vhdxfile", 0)));
        testkit::exercise(&*image);
        drop(image);
        let options = OpenOptions { format: Some("raw".to_owned()), ..options };
        write_all(&*open_for_guest(&path, &options).unwrap(), b"vhdxfile", 0).unwrap();
    }

    #[test]
    fn queues_are_guarded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, [0; 8192]).unwrap();
        let options = OpenOptions { writable: true, aio: AioMode::IoUring, ..Default::default() };
        let image = open_for_guest(&path, &options).unwrap();
        let mut queue = image.queue(4).unwrap().expect("io_uring");
        let data = *b"QFI\xfb\0\0\0\x03";
        let buf = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
        // SAFETY: `data` outlives the queue's use of it: it is answered at once, or dropped below.
        let answer = unsafe { queue.submit(1, QueuedOp::Write, 0, &[buf]) }.unwrap();
        assert!(refused(answer.expect("an answer at once")));
        drop(queue);
        assert_eq!(std::fs::read(&path).unwrap(), [0; 8192]);
    }
}
