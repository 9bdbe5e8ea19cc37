//! A block device of the host, recorded by the kernel's own tracer: the `blk` tracer of tracefs
//! with its binary output, which has blktrace's records and works where lockdown keeps blktrace's
//! files (relay, in debugfs) from being read.
//!
//! - `device`: what is traced; `tracefs`: the tracer's files; `settings`: what is changed there, and
//!   put back; `stream`: records out of bytes; `sink`: requests into the recording.
//!
//! The importer of blktrace makes requests of records, so that a recording says the same as an
//! import of what blktrace would have captured: no data, and with each request the moment that
//! `Stage` names. The tracer is one for the whole machine: it is refused when somebody uses it.

mod device;
mod settings;
mod sink;
mod stream;
mod tracefs;

use std::fs::File;
use std::io::{ErrorKind as Io, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub use self::device::Device;
use self::settings::Settings;
use self::sink::RecordingSink;
use self::stream::Stream;
use self::tracefs::Tracefs;
use crate::base::{Error, Nanos, Result, SECTOR_SIZE};
use crate::import::Stage;
use crate::import::blktrace::record::{Record, cat, notify};
use crate::import::blktrace::requests::Requests;
use crate::import::job::Job;
use crate::import::source::Meter;
use crate::machine::IrqEvent;
use crate::record::recording::{Recording, Tap};
use crate::trace::{Loss, NotRecorded, TraceHeader};

/// How often the tracer's pipe is looked at: its own wake-ups wait for a buffer that is half full.
const LOOK_MS: u16 = 20;

/// Bytes of one read: the pipe never gives more.
const READ_BYTES: usize = 64 << 10;

/// The header of such a recording.
pub fn header(device: &Device, stage: Stage) -> TraceHeader {
    use NotRecorded as N;
    TraceHeader {
        tool: concat!("qtrace ", env!("CARGO_PKG_VERSION")).to_owned(),
        source_format: "blk-tracer".to_owned(),
        interpretation: vec![
            format!("recorded: {}", device.name()),
            format!(
                "stage: {}",
                if stage == Stage::Queue { "Q (queued)" } else { "D (dispatched)" }
            ),
            "data: none, the kernel's tracer has none; a write-zeroes stands as a write".to_owned(),
        ],
        origin_unix_ns: None,
        not_recorded: N::WRITE_DATA | N::READ_DATA | N::QUEUES | N::UNMAP | N::WRITE_ZEROES,
    }
}

/// Whether this machine has what the tap needs, somebody who uses it apart.
///
/// # Errors
/// A machine error that says what is missing.
pub fn available() -> Result<()> {
    settings::tracer().map(drop)
}

/// A device being traced. Dropped, the tracer is as it was before.
pub struct Tracer {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<Result<Ended>>>,
}

struct Stop {
    wanted: AtomicBool,
    wake: IrqEvent,
}

/// What a tracer leaves.
#[derive(Debug, Default)]
pub struct Ended {
    /// What was lost on the way.
    pub losses: Vec<Loss>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

impl Tracer {
    /// Begins to trace `device` into `recording`.
    ///
    /// # Errors
    /// A machine error: the tracer cannot be had.
    pub fn start(device: Device, stage: Stage, recording: &Recording) -> Result<Self> {
        let tracefs = settings::tracer()?;
        let (settings, pipe) = Settings::apply(&tracefs, &device)?;
        let wake = IrqEvent::new().map_err(|e| Error::machine("no eventfd").source(e))?;
        let stop = Arc::new(Stop { wanted: AtomicBool::new(false), wake });
        let tap = recording.stream(device.stream());
        let work = Work { pipe, tracefs, settings, device, stage, stop: Arc::clone(&stop) };
        let thread = std::thread::Builder::new()
            .name("blk-tracer".to_owned())
            .spawn(move || work.run(tap))
            .map_err(|e| Error::machine("no thread for the tracer").source(e))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends it, with everything recorded that the kernel has by now.
    ///
    /// # Errors
    /// Whatever ended it before.
    pub fn stop(mut self) -> Result<Ended> {
        self.end()
    }

    fn end(&mut self) -> Result<Ended> {
        self.stop.wanted.store(true, Ordering::Release);
        self.stop.wake.signal();
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(ended)) => ended,
            Some(Err(_)) => Err(Error::incomplete("the tracer's thread broke down")),
            None => Ok(Ended::default()),
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// The tracer's thread.
struct Work {
    pipe: File,
    tracefs: Tracefs,
    settings: Settings,
    device: Device,
    stage: Stage,
    stop: Arc<Stop>,
}

impl Work {
    fn run(mut self, tap: Tap) -> Result<Ended> {
        let origin = origin(&tap);
        let mut sink = RecordingSink::new(tap);
        let mut progress = |_| ();
        let mut job = Job::new(&mut sink, "blk-tracer", None, Meter::default(), &mut progress);
        let mut requests = Requests::new(self.stage);
        let mut stream = Stream::default();
        let mut piece = vec![0; READ_BYTES];
        let mut elsewhere = 0;
        loop {
            let last = self.stop.wanted.load(Ordering::Acquire);
            if last {
                // What was issued is in the buffer; nothing more comes.
                self.device.enable(false)?;
            }
            let came = self.read(&mut piece, &mut stream)?;
            while let Some(entry) = stream.pop(last || !came) {
                let Some(record) = self.own(entry.record) else {
                    elsewhere += 1;
                    continue;
                };
                let time = Nanos(record.time.saturating_sub(origin));
                if record.is(cat::NOTIFY) {
                    message(&record, &entry.data, time, &mut job)?;
                } else {
                    requests.record(&record, time, &mut job)?;
                }
            }
            if last {
                break;
            }
            self.wait();
        }
        requests.finish(&mut job);
        let mut ended =
            Ended { losses: job.summary.losses().to_vec(), notes: job.summary.notes().to_vec() };
        let lost = self.tracefs.lost();
        if lost > 0 {
            ended.losses.push(Loss {
                reason: "records that the kernel's buffer had no room for".to_owned(),
                count: lost,
                first: "not known".to_owned(),
            });
        }
        if elsewhere > 0 {
            ended.notes.push(format!("{elsewhere} records of other parts of the disk left out"));
        }
        // The pipe goes first: the kernel changes no tracer while one is open.
        drop(self.pipe);
        drop(self.settings);
        Ok(ended)
    }

    /// Reads all that there is; whether there was anything.
    fn read(&mut self, piece: &mut [u8], stream: &mut Stream) -> Result<bool> {
        let mut any = false;
        loop {
            match self.pipe.read(piece) {
                Ok(0) => return Ok(any),
                Ok(len) => {
                    any = true;
                    stream.push(piece.get(..len).unwrap_or_default());
                }
                Err(e) if e.kind() == Io::WouldBlock => return Ok(any),
                Err(e) if e.kind() == Io::Interrupted => {}
                Err(e) => {
                    return Err(Error::incomplete("the tracer's pipe cannot be read").source(e));
                }
            }
        }
    }

    /// A record of the device, with sectors of its own: those of a partition are the disk's.
    fn own(&self, record: Record) -> Option<Record> {
        let (start, end) = self.device.range();
        let ends = record.sector.saturating_add(u64::from(record.bytes).div_ceil(SECTOR_SIZE));
        if record.is(cat::NOTIFY) || (record.bytes == 0 && record.sector == 0) {
            return Some(record);
        }
        let inside = record.sector >= start && ends <= end;
        inside.then(|| Record { sector: record.sector - start, ..record })
    }

    fn wait(&self) {
        let mut fds = [PollFd::new(self.stop.wake.fd(), PollFlags::POLLIN)];
        // An interrupted wait is a short one.
        let _ = poll(&mut fds, PollTimeout::from(LOOK_MS));
    }
}

/// A message of somebody's (`echo TEXT >trace/msg`), as a mark.
fn message(record: &Record, data: &[u8], time: Nanos, job: &mut Job<'_>) -> Result<()> {
    if record.act() != notify::MESSAGE {
        return Ok(());
    }
    let text = data.get(record.cgroup_bytes()..).unwrap_or_default();
    let stream = job.stream(record.device_name().as_bytes(), None, || record.place())?;
    stream.map_or(Ok(()), |stream| job.mark(time, stream, text))
}

/// CLOCK_MONOTONIC at the recording's origin.
fn origin(tap: &Tap) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills the timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    let now = (now.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(now.tv_nsec as u64);
    now.saturating_sub(tap.now().0)
}
