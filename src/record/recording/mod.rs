//! A live recording: requests and accesses come in from any number of threads, and one thread
//! writes them to a `.qtrace` that can be opened from the start.
//!
//! - [`Recording`]: begins and ends it, tells how it goes; [`Tap`]: the handle of one stream;
//! - `queue`: what lies between the two, bounded in bytes and in age; `writer`: the thread, and
//!   the one that makes what it wrote durable; `repeats`: data that came before.
//!
//! What a tap says is told in the order in which it is said, with times of CLOCK_MONOTONIC since
//! the recording's origin. An event reaches the file when it is [`LINGER`] old, so that a file
//! whose recorder was killed holds no answer that the client had not been told; and it is there
//! when it is less than a second old, if the disk takes it.

mod queue;
mod repeats;
mod tap;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempPath;

use self::queue::{Item, Queue};
pub use self::repeats::zeros;
pub use self::tap::{BlockIssue, Bytes, Stopped, Tag, Tap};
use crate::base::error::IoContext;
use crate::base::limits::RECORD_QUEUE_BYTES;
use crate::base::{Error, Result};
use crate::trace::{LiveOptions, Loss, NotRecorded, StreamInfo, TraceHeader, TraceWriter};

/// How old an event is before it is written. A tap says that a request is complete just before it
/// tells the client: were the recorder killed between the two, a file written at once would hold
/// an answer that nobody got.
pub const LINGER: Duration = Duration::from_millis(150);

/// How often frames are written, even if they are small.
pub const FLUSH_EVERY: Duration = Duration::from_millis(250);

/// How often what was written is made durable.
pub const SYNC_EVERY: Duration = Duration::from_millis(900);

/// What happens to an event for which the queue has no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnOverflow {
    /// Whoever has it waits.
    #[default]
    Block,
    /// It is left out, and counted.
    Drop,
}

/// What happens when the recording fails (a full disk).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnError {
    /// Requests are served on, unrecorded.
    #[default]
    Continue,
    /// Requests fail from then on.
    Fail,
}

/// How to record.
#[derive(Clone, Debug)]
pub struct Options {
    /// How the file is made.
    pub live: LiveOptions,
    /// See [`OnOverflow`].
    pub on_overflow: OnOverflow,
    /// See [`OnError`].
    pub on_error: OnError,
    /// Bytes that the queue holds.
    pub queue_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            live: LiveOptions::default(),
            on_overflow: OnOverflow::default(),
            on_error: OnError::default(),
            queue_bytes: RECORD_QUEUE_BYTES,
        }
    }
}

/// How far a recording has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Requests issued, or other events where there are no requests.
    pub requests: u64,
    /// Events recorded.
    pub events: u64,
    /// Bytes that the requests asked to be read or written.
    pub bytes: u64,
    /// Accesses to a bus.
    pub accesses: u64,
    /// What was lost on the way in, as far as the taps have said.
    pub lost: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Requests and other events that [`OnOverflow::Drop`] left out.
    pub dropped: u64,
    /// The recording has failed: see [`Recording::finish`].
    pub failed: bool,
}

/// A recording under way. Dropped without [`Recording::finish`] it is brought to its end all the
/// same, but nobody learns whether that went well.
#[derive(Debug)]
pub struct Recording {
    path: PathBuf,
    /// The trace, whatever becomes of its name.
    file: File,
    /// What it replaced, until it is certain that something comes of this one.
    replaced: Mutex<Option<TempPath>>,
    queue: Arc<Queue>,
    writer: Option<JoinHandle<Result<()>>>,
}

impl Recording {
    /// Begins a recording at `path`. The header is completed with the time of its origin and the
    /// clock. From here on the file can be opened.
    ///
    /// # Errors
    /// Those of [`TraceWriter::create_live`]; `Incomplete` when there is no thread for it.
    pub fn start(path: &Path, mut header: TraceHeader, options: &Options) -> Result<Self> {
        let origin = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        header.origin_unix_ns = u64::try_from(origin.as_nanos()).ok();
        header.interpretation.push("clock: CLOCK_MONOTONIC since the origin".to_owned());
        let queue = Arc::new(Queue::new(options));
        let not_recorded = header.not_recorded;
        let mut trace = TraceWriter::create_live(path, header, options.live)?;
        let (file, replaced) = (trace.file()?, Mutex::new(trace.replaced()));
        let work = writer::Writer::new(trace, Arc::clone(&queue), not_recorded)?;
        let writer = std::thread::Builder::new()
            .name("record".to_owned())
            .spawn(move || work.run())
            .map_err(|e| Error::incomplete("no thread to write the trace").source(e))?;
        Ok(Self { path: path.to_path_buf(), file, replaced, queue, writer: Some(writer) })
    }

    /// Adds a stream and returns its handle; clones of it share the stream.
    pub fn stream(&self, info: StreamInfo) -> Tap {
        let stream = self.queue.add_stream(info);
        Tap::new(Arc::clone(&self.queue), stream)
    }

    /// Says in the trace's summary what a reader should know.
    pub fn note(&self, text: impl Into<String>) {
        self.queue.push_always(Item::Note(text.into()));
    }

    /// Says in the trace's summary what was lost on the way in.
    pub fn loss(&self, loss: Loss) {
        self.queue.push_always(Item::Loss(loss));
    }

    /// Adds to what the header says is not recorded, in the trace's summary.
    pub fn lacks(&self, what: NotRecorded) {
        self.queue.push_always(Item::Lacks(what));
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        self.queue.progress()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is to be recorded runs: a trace that this one replaces goes now.
    pub fn settle(&self) {
        drop(self.take_replaced());
    }

    fn take_replaced(&self) -> Option<TempPath> {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether the trace is still what stands under its name.
    pub fn has_its_name(&self) -> bool {
        let identity = |meta: Metadata| (meta.dev(), meta.ino());
        let named = std::fs::metadata(&self.path).map(identity);
        matches!((named, self.file.metadata().map(identity)), (Ok(a), Ok(b)) if a == b)
    }

    /// Writes what has been said so far and the end of the trace, and makes it durable. Taps that
    /// are still there record nothing any more.
    ///
    /// # Errors
    /// `Incomplete`: whatever kept the trace from being whole, also if that was long ago. What
    /// was written before stands in the file. Or somebody removed the file, or put another in its
    /// place.
    pub fn finish(mut self) -> Result<Progress> {
        self.end()?;
        if !self.has_its_name() {
            let what = "the trace was removed or replaced while it was recorded, and is lost";
            return Err(Error::incomplete(what)
                .path(&self.path)
                .hint("give each recording a file of its own"));
        }
        let file_bytes = std::fs::metadata(&self.path).map_or(0, |meta| meta.len());
        Ok(Progress { file_bytes, ..self.queue.progress() })
    }

    /// Ends it and removes the file, or puts back what it replaced: for when what was to be
    /// recorded never began.
    ///
    /// # Errors
    /// `Incomplete` when the file cannot be removed.
    pub fn discard(mut self) -> Result<()> {
        // Whether it was written well is of no interest any more.
        let _ = self.end();
        match self.has_its_name() {
            true => take_away(&self.path, self.take_replaced()),
            // It is somebody else's by now.
            false => Ok(()),
        }
    }

    fn end(&mut self) -> Result<()> {
        self.queue.close();
        match self.writer.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(Error::incomplete("the recording broke down").path(&self.path)),
            None => Ok(()),
        }
    }
}

/// Removes the trace at `path`, of which nothing came, or puts back what it replaced.
///
/// # Errors
/// `Incomplete` when that cannot be done.
pub fn take_away(path: &Path, replaced: Option<TempPath>) -> Result<()> {
    // The file, where `path` is a link to it.
    let real = std::fs::canonicalize(path).writing(path, "cannot remove the unused trace")?;
    let Some(old) = replaced else {
        return std::fs::remove_file(&real).writing(path, "cannot remove the unused trace");
    };
    old.persist(&real).map_err(|e| e.error).writing(path, "cannot put the old trace back")
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _ = self.end();
    }
}
