//! An input: a file or standard input, decompressed by content, with its place kept.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::decompress::{self, Condition, SharedCondition};
use crate::base::error::IoContext;
use crate::base::{Error, ErrorKind, Result, stop};

/// Bytes that a probe may look at.
pub const PROBE_BYTES: usize = 8 << 10;

/// The buffer of one input, of which there may be hundreds. Who reads more at a time reads past it.
const BUFFER_BYTES: usize = 32 << 10;

/// The byte order mark that editors and spreadsheets put before UTF-8 text.
const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

/// How long a read waits for input before it looks whether the user wants to stop.
const STOP_POLL_MS: u16 = 100;

/// Counts bytes read of all inputs, before decompression, and carries the user's wish to stop.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    bytes: Arc<AtomicU64>,
    stop: Option<Arc<AtomicBool>>,
}

impl Meter {
    /// A meter; `stop` becomes true when the user wants to stop.
    pub fn new(stop: Option<Arc<AtomicBool>>) -> Self {
        Self { bytes: Arc::default(), stop }
    }

    /// Bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether the user wants to stop.
    pub fn stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    /// # Errors
    /// [`ErrorKind::Interrupted`] when the user wants to stop.
    pub fn check_stop(&self) -> Result<()> {
        if self.stopped() {
            return Err(Error::new(ErrorKind::Interrupted, "import stopped").hint("nothing kept"));
        }
        Ok(())
    }
}

/// The raw bytes of an input, metered and stoppable.
struct Raw {
    file: File,
    meter: Meter,
}

impl Raw {
    fn is_stopped(&self) -> bool {
        self.meter.stopped() || stop::is_wanted()
    }

    /// Waits until there is something to read, so that a stop is noticed while there is nothing: of
    /// a pipe, of a FIFO until somebody writes to it, and of tracefs' `trace_pipe`, which is a
    /// regular file by its looks. A file on a disk is always ready.
    fn wait_readable(&self) -> io::Result<()> {
        use nix::poll::{PollFd, PollFlags, poll};
        loop {
            let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, STOP_POLL_MS) {
                Ok(0) | Err(nix::errno::Errno::EINTR) if !self.is_stopped() => {}
                Ok(0) | Err(nix::errno::Errno::EINTR) => return Err(io::Error::other("stopped")),
                Ok(_) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl Read for Raw {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.wait_readable()?;
        let n = self.file.read(buf)?;
        self.meter.bytes.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// One open input. Its [`Read`] gives decompressed bytes.
pub struct Source {
    path: PathBuf,
    reader: BufReader<Box<dyn Read + Send>>,
    condition: SharedCondition,
    offset: u64,
}

impl Source {
    /// Opens `path`, or standard input for `-`, and looks through its compression.
    ///
    /// # Errors
    /// Input errors when it cannot be opened or its beginning cannot be decompressed or is a
    /// folder; a usage error for a terminal.
    pub fn open(path: &Path, meter: &Meter) -> Result<Self> {
        let (file, path) = if path.as_os_str() == "-" {
            (open_stdin()?, PathBuf::from("(standard input)"))
        } else {
            (open_file(path)?, path.to_path_buf())
        };
        let meta = file.metadata().reading(&path, "cannot look at")?;
        if meta.is_dir() {
            return Err(Error::input("is a folder").path(path).hint("name the trace file in it"));
        }
        let raw = Raw { file, meter: meter.clone() };
        Self::from_read(path, Box::new(raw))
    }

    /// An input over any reader; the content decides its compression.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn from_read(path: PathBuf, raw: Box<dyn Read + Send>) -> Result<Self> {
        let condition = SharedCondition::default();
        let plain = decompress::plain(raw, condition.clone())
            .map_err(|error| Error::input("cannot read").path(&path).source(error))?;
        let reader = BufReader::with_capacity(BUFFER_BYTES, plain);
        let mut source = Self { path, reader, condition, offset: 0 };
        source.pass_text_mark()?;
        Ok(source)
    }

    /// Passes over the byte order mark of a text; what has a NUL near it is binary, and keeps it.
    fn pass_text_mark(&mut self) -> Result<()> {
        let marked = match self.reader.fill_buf() {
            Ok(bytes) => bytes.starts_with(UTF8_MARK),
            Err(error) => return Err(self.error(error)),
        };
        if marked && !self.head()?.contains(&0) {
            self.skip(UTF8_MARK.len() as u64)?;
            self.offset = 0;
        }
        Ok(())
    }

    /// The first bytes, up to [`PROBE_BYTES`], without consuming them.
    ///
    /// # Errors
    /// Input errors.
    pub fn head(&mut self) -> Result<Vec<u8>> {
        let mut head = Vec::with_capacity(PROBE_BYTES);
        let read = self.by_ref().take(PROBE_BYTES as u64).read_to_end(&mut head);
        read.map_err(|error| self.error(error))?;
        self.unread(head.clone());
        Ok(head)
    }

    /// Puts bytes just read back in front.
    fn unread(&mut self, head: Vec<u8>) {
        self.offset -= head.len() as u64;
        let empty: Box<dyn Read + Send> = Box::new(io::empty());
        let rest = std::mem::replace(&mut self.reader, BufReader::with_capacity(0, empty));
        let chained: Box<dyn Read + Send> = Box::new(io::Cursor::new(head).chain(rest));
        self.reader = BufReader::with_capacity(PROBE_BYTES, chained);
    }

    /// The name it goes by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The decompressed offset of the next byte.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What was found out about its compression: complete only once the end is reached.
    pub fn condition(&self) -> Condition {
        self.condition.get().clone()
    }

    /// Reads until `buf` is full or the input ends; returns the bytes read.
    ///
    /// # Errors
    /// Input errors.
    pub fn read_full(&mut self, buf: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.read(&mut buf[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error(error)),
            }
        }
        Ok(filled)
    }

    /// Skips `len` bytes or to the end; returns the bytes skipped.
    ///
    /// # Errors
    /// Input errors.
    pub fn skip(&mut self, len: u64) -> Result<u64> {
        let skipped = io::copy(&mut self.by_ref().take(len), &mut io::sink());
        skipped.map_err(|error| self.error(error))
    }

    /// Puts this input's name and place on an I/O error.
    pub fn error(&self, error: io::Error) -> Error {
        match self.condition.get().compression {
            None => Error::input("cannot read").path(&self.path).source(error),
            Some(name) => {
                let what = format!("cannot read, {} bytes into what {name} holds", self.offset);
                let hint = format!(
                    "decompress it with {name}'s own tool: what that gives can be imported"
                );
                Error::input(what).path(&self.path).source(error).hint(hint)
            }
        }
    }
}

impl Read for Source {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buf)?;
        self.offset += n as u64;
        Ok(n)
    }
}

impl BufRead for Source {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.offset += amount as u64;
        self.reader.consume(amount);
    }
}

/// Opening a FIFO would wait for its writer, and nothing else: that is left to the first read.
fn open_file(path: &Path) -> Result<File> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let options = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = options.reading(path, "cannot open")?;
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))
        .map_err(io::Error::from)
        .reading(path, "cannot open")?;
    Ok(file)
}

fn open_stdin() -> Result<File> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Err(Error::usage("standard input is a terminal").hint("pipe a trace into it"));
    }
    let fd: OwnedFd = stdin.as_fd().try_clone_to_owned().reading("-", "cannot open")?;
    Ok(File::from(fd))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_consumes_nothing() {
        let data: Vec<u8> = (0..20_000u32).map(|n| n as u8).collect();
        let mut source =
            Source::from_read("x".into(), Box::new(io::Cursor::new(data.clone()))).unwrap();
        assert_eq!(source.head().unwrap(), data[..PROBE_BYTES]);
        assert_eq!(source.offset(), 0);
        let mut all = Vec::new();
        source.read_to_end(&mut all).unwrap();
        assert_eq!(all, data);
        assert_eq!(source.offset(), 20_000);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_text() {
        for (data, want) in [
            (&b"\xef\xbb\xbf1,2\n"[..], &b"1,2\n"[..]),
            (b"\xef\xbb\xbf", b""),
            (b"\xef\xbb1\n", b"\xef\xbb1\n"),
            (b"\xef\xbb\xbf\x5e\0\0\0\0", b"\xef\xbb\xbf\x5e\0\0\0\0"),
        ] {
            let mut source = Source::from_read("x".into(), Box::new(data)).unwrap();
            assert_eq!(source.offset(), 0);
            let mut all = Vec::new();
            source.read_to_end(&mut all).unwrap();
            assert_eq!(all, want);
        }
    }

    #[test]
    fn a_stop_is_noticed_while_a_pipe_is_silent() {
        let (reader, _writer) = nix::unistd::pipe().unwrap();
        let stop = Arc::new(AtomicBool::new(true));
        let meter = Meter::new(Some(stop));
        let mut raw = Raw { file: File::from(reader), meter: meter.clone() };
        assert!(raw.read(&mut [0; 8]).is_err());
        assert_eq!(meter.check_stop().unwrap_err().kind(), ErrorKind::Interrupted);
    }
}
