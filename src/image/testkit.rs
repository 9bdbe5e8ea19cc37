//! What every writable image must do, as one test body; and the tools of the tests around it.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::iov::{raw, raw_mut};
use super::{Extent, ExtentKind, Image, ImageInfo, IoQueue, QueuedOp, read_exact, write_all};
use crate::base::Prng;

/// Guest-visible bytes of the images under test: several clusters and L2 entries, not a round
/// number of any of them, whole sectors.
pub const SIZE: u64 = (3 << 20) + 512 * 7;

/// Random operations against a plain buffer, then the whole image compared, with its extents.
pub fn exercise(image: &dyn Image) {
    exercise_from(image, vec![0; SIZE as usize]);
}

/// As [`exercise`], on an image that holds `model` at first.
pub fn exercise_from(image: &dyn Image, mut model: Vec<u8>) {
    assert_eq!(image.size(), SIZE);
    let mut prng = Prng::new(42);
    let mut buf = vec![0u8; 300 << 10];
    for round in 0..600 {
        // Byte-granular now and then, sectors mostly.
        let unit = if prng.below(8) == 0 { 1 } else { 512 };
        let longest = [4, 64, 500][prng.below(3) as usize];
        let len = (1 + prng.below(longest)) * unit;
        let offset = prng.below((SIZE - len) / unit + 1) * unit;
        let (from, to) = (offset as usize, (offset + len) as usize);
        match prng.below(12) {
            0..=4 => {
                prng.fill(&mut buf[..len as usize]);
                write_in_parts(image, &buf[..len as usize], offset, &mut prng);
                model[from..to].copy_from_slice(&buf[..len as usize]);
            }
            5 => {
                image.write_zeroes(offset, len, prng.below(2) == 0).unwrap();
                model[from..to].fill(0);
            }
            6 => {
                image.discard(offset, len).unwrap();
                if image.info().discard_zeroes {
                    model[from..to].fill(0);
                } else {
                    read_exact(image, &mut model[from..to], offset).unwrap();
                }
            }
            7 => image.flush().unwrap(),
            _ => {
                let got = &mut buf[..len as usize];
                read_exact(image, got, offset).unwrap();
                assert!(got == &model[from..to], "round {round}: {offset}+{len} differs");
            }
        }
    }
    check_against(image, &model);
    check_bounds(image);
}

fn write_in_parts(image: &dyn Image, data: &[u8], offset: u64, prng: &mut Prng) {
    let cut = prng.below(data.len() as u64 + 1) as usize;
    let parts = [std::io::IoSlice::new(&data[..cut]), std::io::IoSlice::new(&data[cut..])];
    image.write(&parts, offset).unwrap();
}

/// The whole image equals `model`, and what its extents call zero is zero.
pub fn check_against(image: &dyn Image, model: &[u8]) {
    let mut got = vec![1; model.len()];
    read_exact(image, &mut got, 0).unwrap();
    let first = got.iter().zip(model).position(|(a, b)| a != b);
    assert_eq!(first, None, "first differing byte");
    let (mut at, size) = (0, model.len() as u64);
    while at < size {
        let extent = image.extent(at, size - at).unwrap();
        assert!(extent.len > 0 && extent.len <= size - at, "extent {extent:?} at {at}");
        if extent.kind == ExtentKind::Zero {
            let run = &model[at as usize..(at + extent.len) as usize];
            assert!(run.iter().all(|b| *b == 0), "zero extent at {at} holds data");
        }
        at += extent.len;
    }
}

fn check_bounds(image: &dyn Image) {
    let invalid = std::io::ErrorKind::InvalidInput;
    let mut buf = [0; 1024];
    assert_eq!(read_exact(image, &mut buf, SIZE - 512).unwrap_err().kind(), invalid);
    assert_eq!(write_all(image, &buf, SIZE - 512).unwrap_err().kind(), invalid);
    assert_eq!(write_all(image, &buf, u64::MAX - 5).unwrap_err().kind(), invalid);
    assert_eq!(image.discard(SIZE, 1).unwrap_err().kind(), invalid);
    assert_eq!(image.write_zeroes(1, SIZE, true).unwrap_err().kind(), invalid);
    assert_eq!(image.extent(SIZE, 1).unwrap_err().kind(), invalid);
    image.discard(SIZE, 0).unwrap();
}

/// An image whose reads, writes and flushes go through its queue, one at a time.
pub struct Queued<'a> {
    image: &'a dyn Image,
    queue: Mutex<Box<dyn IoQueue>>,
}

impl<'a> Queued<'a> {
    /// `image` must offer a queue.
    pub fn new(image: &'a dyn Image) -> Self {
        Self { image, queue: Mutex::new(image.queue(8).unwrap().expect("a queue")) }
    }

    fn run(&self, op: QueuedOp, offset: u64, bufs: &[libc::iovec]) -> io::Result<()> {
        let mut queue = self.queue.lock().unwrap();
        // SAFETY: the call does not return before the request is finished.
        if let Some(result) = unsafe { queue.submit(7, op, offset, bufs) }? {
            return result;
        }
        queue.kick()?;
        let mut done = Vec::new();
        while done.is_empty() {
            assert_eq!(queue.in_flight(), 1);
            // SAFETY: the queue keeps its descriptor open.
            let fd = unsafe { BorrowedFd::borrow_raw(queue.event_fd()) };
            let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
            assert_eq!(poll(&mut fds, PollTimeout::from(10_000u16)).unwrap(), 1, "no event");
            queue.reap(&mut done)?;
        }
        assert_eq!(done.len(), 1);
        let (token, result) = done.remove(0);
        assert_eq!(token, 7);
        result
    }
}

impl Image for Queued<'_> {
    fn size(&self) -> u64 {
        self.image.size()
    }
    fn info(&self) -> &ImageInfo {
        self.image.info()
    }
    fn read(&self, bufs: &mut [io::IoSliceMut<'_>], offset: u64) -> io::Result<()> {
        self.run(QueuedOp::Read, offset, raw_mut(bufs))
    }
    fn write(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.run(QueuedOp::Write, offset, raw(bufs))
    }
    fn flush(&self) -> io::Result<()> {
        self.run(QueuedOp::Flush, 0, &[])
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.image.discard(offset, len)
    }
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.image.write_zeroes(offset, len, unmap)
    }
    fn extent(&self, offset: u64, len: u64) -> io::Result<Extent> {
        self.image.extent(offset, len)
    }
}

/// Runs a QEMU tool; `None`, with the reason printed, where it is not installed.
pub fn qemu(tool: &str, args: &[&str]) -> Option<std::process::Output> {
    match Command::new(tool).args(args).output() {
        Ok(output) => Some(output),
        Err(e) => {
            eprintln!("skipped: {tool} cannot be run ({e}); install qemu-utils");
            None
        }
    }
}

/// As [`qemu`], and it must succeed.
pub fn qemu_ok(tool: &str, args: &[&str]) -> Option<String> {
    let output = qemu(tool, args)?;
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{tool} {args:?}: {text}");
    Some(text)
}

/// A temporary folder on the file system of the build, where /tmp may be in memory.
pub fn folder_on_disk() -> tempfile::TempDir {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    std::fs::create_dir_all(&target).unwrap();
    tempfile::tempdir_in(target).unwrap()
}

/// A path as an argument.
pub fn arg(path: &Path) -> &str {
    path.to_str().unwrap()
}
