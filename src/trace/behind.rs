//! Frames written by a thread of their own: whoever makes events need not wait for checksums, the
//! kernel's copy and a disk that is slow for a moment. The disk is given its work as it comes, so
//! that little is left for the sync at the end.

use std::fs::File;
use std::io::{self, IoSlice, Seek};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::JoinHandle;

use zerocopy::IntoBytes;

use super::format::{FrameHeader, Record};
use super::sink::write_all_vectored;

/// Frames handed over at a time: waking a thread takes as long as some of a frame's events.
const BATCH_FRAMES: usize = 16;

/// Batches that may wait: with 64 KiB a frame 2 MiB.
const WAITING_BATCHES: usize = 8;

/// Bytes after which the kernel is told to begin writing them to the disk: a few of its largest
/// requests.
const WRITE_BACK_BYTES: u64 = 8 << 20;

/// What stands in a frame.
enum Body {
    /// Nearly all frames are of these.
    Records(Vec<Record>),
    Bytes(Vec<u8>),
}

impl Body {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Records(records) => records.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// A frame.
struct Frame {
    /// But for lengths and CRCs.
    header: FrameHeader,
    /// With its padding.
    body: Body,
    /// Bytes of it that are no padding.
    len: usize,
}

/// The writing thread.
pub(super) struct Behind {
    batch: Vec<Frame>,
    /// Gone once no more is to come.
    full: Option<SyncSender<Vec<Frame>>>,
    /// Records that were written, for use again.
    empty: Receiver<Vec<Record>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Behind {
    /// Starts it; it appends to `file`.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub(super) fn start(file: File) -> io::Result<Self> {
        let (full, frames) = mpsc::sync_channel(WAITING_BATCHES);
        let (written, empty) = mpsc::channel();
        let thread = std::thread::Builder::new().name("trace-writer".to_owned());
        let thread = thread.spawn(move || write(file, frames, &written))?;
        Ok(Self { batch: Vec::new(), full: Some(full), empty, thread: Some(thread) })
    }

    /// Hands over a frame, whose body is `parts` with their padding, of which `len` bytes count.
    ///
    /// # Errors
    /// Writing failed, for this or an earlier frame.
    pub(super) fn frame<'a>(
        &mut self,
        header: FrameHeader,
        parts: impl IntoIterator<Item = &'a [u8]>,
        len: usize,
    ) -> io::Result<()> {
        let bytes = parts.into_iter().collect::<Vec<_>>().concat();
        self.put(Frame { header, body: Body::Bytes(bytes), len })
    }

    /// Hands over a frame of records, which need no padding; their memory is another then.
    ///
    /// # Errors
    /// Those of [`Behind::frame`].
    pub(super) fn records(
        &mut self,
        header: FrameHeader,
        records: &mut Vec<Record>,
    ) -> io::Result<()> {
        let empty = self.empty.try_recv();
        let empty = empty.unwrap_or_else(|_| Vec::with_capacity(records.capacity()));
        let (len, body) = (size_of_val(records.as_slice()), std::mem::replace(records, empty));
        self.put(Frame { header, body: Body::Records(body), len })
    }

    fn put(&mut self, frame: Frame) -> io::Result<()> {
        self.batch.push(frame);
        if self.batch.len() >= BATCH_FRAMES { self.hand_over() } else { Ok(()) }
    }

    fn hand_over(&mut self) -> io::Result<()> {
        let batch = std::mem::take(&mut self.batch);
        match &self.full {
            Some(full) if full.send(batch).is_ok() => Ok(()),
            _ => self.join(),
        }
    }

    /// Waits until everything is written.
    ///
    /// # Errors
    /// It was not.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.hand_over()?;
        self.join()
    }

    /// Ends the thread and says how it went.
    fn join(&mut self) -> io::Result<()> {
        self.full = None;
        let lost = || io::Error::other("the thread that writes is gone");
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(written)) => written,
            Some(Err(_)) | None => Err(lost()),
        }
    }
}

impl Drop for Behind {
    /// What was not waited for is of no use to anybody: its file is given up.
    fn drop(&mut self) {
        self.batch.clear();
        // Nobody is left to hear of it.
        drop(self.join());
    }
}

/// Seals and writes what comes until nothing more does.
fn write(
    file: File,
    frames: Receiver<Vec<Frame>>,
    written: &mpsc::Sender<Vec<Record>>,
) -> io::Result<()> {
    let mut at = (&file).stream_position()?;
    let mut begun = at;
    for mut batch in frames {
        for frame in &mut batch {
            frame.header.seal([frame.body.as_bytes()], frame.len);
        }
        // In one call: the kernel finds larger pages for more bytes.
        let parts = batch.iter().flat_map(|frame| [frame.header.as_bytes(), frame.body.as_bytes()]);
        write_all_vectored(&file, &mut parts.map(IoSlice::new).collect::<Vec<_>>())?;
        at += batch.iter().map(|frame| frame.header.frame_bytes()).sum::<u64>();
        if at - begun >= WRITE_BACK_BYTES {
            write_back(&file, begun, at - begun);
            begun = at;
        }
        for frame in batch {
            if let Body::Records(mut records) = frame.body {
                records.clear();
                // Who hands over may have left already.
                drop(written.send(records));
            }
        }
    }
    Ok(())
}

/// Has the kernel begin to write a range to the disk, and does not wait for it.
fn write_back(file: &File, from: u64, len: u64) {
    let (Ok(from), Ok(len)) = (from.try_into(), len.try_into()) else { return };
    // SAFETY: the descriptor is open as long as `file` is borrowed, and no memory is passed.
    let _ =
        unsafe { libc::sync_file_range(file.as_raw_fd(), from, len, libc::SYNC_FILE_RANGE_WRITE) };
    // A file system that cannot do it loses nothing: the sync at the end writes everything.
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::format::{FRAME_HEADER_BYTES, KIND_EVENTS};

    fn header() -> FrameHeader {
        FrameHeader::new(KIND_EVENTS, 1)
    }

    #[test]
    fn frames_stand_one_behind_the_other_when_it_has_finished() {
        let mut file = tempfile::tempfile().unwrap();
        let mut behind = Behind::start(file.try_clone().unwrap()).unwrap();
        let bodies: Vec<Vec<u8>> = (0..1001).map(|n| vec![n as u8; 8 * (n % 50)]).collect();
        let mut want = Vec::new();
        for body in &bodies {
            let mut header = header();
            let (first, second) = body.split_at(body.len() / 3);
            behind.frame(header, [first, second], body.len()).unwrap();
            header.seal([body.as_slice()], body.len());
            want.extend_from_slice(header.as_bytes());
            want.extend_from_slice(body);
        }
        behind.finish().unwrap();
        let mut got = Vec::new();
        io::Seek::rewind(&mut file).unwrap();
        io::Read::read_to_end(&mut file, &mut got).unwrap();
        assert!(got == want && got.len() > 1000 * FRAME_HEADER_BYTES);
    }

    #[test]
    fn a_failed_write_is_told_at_the_end_at_the_latest() {
        let file = File::options().write(true).open("/dev/full").unwrap();
        let mut behind = Behind::start(file.try_clone().unwrap()).unwrap();
        behind.frame(header(), [&[0; 8][..]], 8).unwrap();
        assert_eq!(behind.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
        let mut behind = Behind::start(file).unwrap();
        let failed = (0..10_000).find_map(|_| behind.frame(header(), [&[0; 8][..]], 8).err());
        assert_eq!(failed.unwrap().kind(), io::ErrorKind::StorageFull);
    }
}
