//! Foreign traces in: one file per format, chosen by a probe of the content.
//!
//! - [`registry`]: what an importer is and the table of them; a new format is a file and a line;
//! - [`job`]: the seam between importers and the trace that is written ([`job::Sink`]);
//! - [`source`], [`decompress`], [`lines`]: inputs as bounded streams;
//! - [`calendar`], [`log_clock`]: the times of logs;
//! - `dataset`: what the importers of research data sets share;
//! - `text_records`: texts whose lines are records of requests' lives;
//! - `external`: what comes too late for a window is sorted on disk;
//! - [`sort`]: the window that puts nearly sorted sources in time order;
//! - [`summary`]: what was lost, by reason, with the first place.
//!
//! # What becomes of bad input
//! A record that cannot be read is counted as lost, by reason, with the first place, and the
//! import goes on; when not one request can be read the import fails with an Input error. An
//! input that ends before its own end (a compressed stream, a log, a record) is imported up to
//! the cut: the trace is written, the summary says where, and the command exits 7. A compressed
//! stream whose checksum fails is refused whole: none of its content can be trusted.

mod batches;
pub mod calendar;
mod counts;
mod dataset;
pub mod decompress;
mod external;
mod file;
pub mod inputs;
pub mod job;
pub mod lines;
pub mod log_clock;
mod nvme_status;
pub mod registry;
mod sink;
pub mod sort;
pub mod source;
pub mod summary;
mod text_records;

pub mod alibaba;
pub mod biosnoop;
pub mod blkparse;
pub mod blkreplay;
pub mod blktrace;
pub mod btrecord;
pub mod disksim_validate;
pub mod dm_log_writes;
pub mod fio_iolog;
pub mod fiu;
pub mod hfplayer;
pub mod io_tracer;
pub mod kernel_text;
pub mod kvm_bus;
pub mod mmiotrace;
pub mod msr_csv;
pub mod nbdkit_log;
pub mod oracle_general;
pub mod qemu_log;
pub mod qtest;
pub mod simulator;
pub mod spc;
pub mod systor17;
pub mod tencent;
pub mod vscsi;

#[cfg(test)]
mod hostile;
#[cfg(test)]
pub(crate) mod testing;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub use self::dataset::clock::TimeUnit;
use self::decompress::Condition;
pub use self::file::import;
use self::job::{Counts, Job, Sink};
use self::registry::{Importer, Probe};
use self::source::{Meter, Source};
use crate::base::{BlockOp, Error, ErrorKind, Result};
use crate::trace::TraceSummary;

/// The moment of a request's life that becomes its issue, for sources that have several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Stage {
    /// Queued by the file system: requests as they were meant, with PREFLUSH and FUA.
    #[default]
    #[value(name = "Q", alias = "q")]
    Queue,
    /// Dispatched to the driver: requests as the device saw them, merged and split.
    #[value(name = "D", alias = "d")]
    Dispatch,
}

impl Stage {
    /// How it is read, for the trace's header.
    pub(crate) fn interpretation(self) -> &'static str {
        match self {
            Self::Queue => "stage: Q (queued), with PREFLUSH and FUA as the file system meant them",
            Self::Dispatch => "stage: D (dispatched), merged and split as the device saw them",
        }
    }
}

/// What a `wait` of an fio v2 iolog means: the manual and the program disagree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum WaitUnit {
    /// Milliseconds since the job's start: what fio does (seen with 3.33 and its HEAD).
    #[default]
    Ms,
    /// Microseconds since the wait before: what fio's manual says.
    Us,
}

/// How to import.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// The format; `None` probes.
    pub from: Option<String>,
    /// The stage, where the source has several; `None` is Q, or what a text has.
    pub stage: Option<Stage>,
    /// Keep this device only.
    pub device: Option<String>,
    /// Size of the device in bytes, where the user knows it.
    pub device_bytes: Option<u64>,
    /// What an fio v2 `wait` means; `None` is milliseconds.
    pub iolog_wait: Option<WaitUnit>,
    /// Also read dm-log-writes entries past the superblock's count.
    pub uncounted: bool,
    /// What each access is, for a format that does not say.
    pub op: Option<BlockOp>,
    /// Bytes that an address counts, for a format that does not say, or not reliably.
    pub unit_bytes: Option<u64>,
    /// What times count, where that is not as the format's documentation has it.
    pub time_unit: Option<TimeUnit>,
    /// Becomes true when the user wants to stop.
    pub stop: Option<Arc<AtomicBool>>,
}

/// What an import did.
#[derive(Clone, Debug)]
pub struct ImportReport {
    /// The format it was read as.
    pub format: String,
    /// How it was read, one `key: value` a line.
    pub interpretation: Vec<String>,
    /// What it lacks and lost, and notes.
    pub summary: TraceSummary,
    /// Events written.
    pub events: u64,
    /// Issues by operation.
    pub ops: Counts,
    /// Where the input was cut, when it was.
    pub cut: Option<String>,
}

/// Imports open `sources` into `sink`.
///
/// # Errors
/// As [`import`].
pub fn run(
    mut sources: Vec<Source>,
    options: &ImportOptions,
    meter: Meter,
    sink: &mut dyn Sink,
    progress: &mut dyn FnMut(u64),
) -> Result<ImportReport> {
    let Some(first) = sources.first_mut() else {
        return Err(Error::usage("no input").hint("name a trace file, or - for standard input"));
    };
    let path = first.path().to_path_buf();
    let importer = choose(first, options).map_err(|error| error.path(&path))?;
    let looks_like = likeliest(first)?.filter(|found| *found != importer.name());
    if sources.len() > 1 && !importer.takes_several() {
        return Err(Error::usage(format!("{} takes one input", importer.name()))
            .hint("import them one by one"));
    }
    if options.from.is_none() {
        refuse_other_formats(&mut sources, importer)?;
    }
    for (option, given) in [
        (registry::STAGE, options.stage.is_some()),
        ("--iolog-wait", options.iolog_wait.is_some()),
        ("--uncounted", options.uncounted),
        (registry::OP, options.op.is_some()),
        (registry::UNIT, options.unit_bytes.is_some()),
        (registry::TIME_UNIT, options.time_unit.is_some()),
    ] {
        if given {
            registry::check_option(importer, option).map_err(|error| error.path(&path))?;
        }
    }
    let mut job = Job::new(sink, importer.name(), options.device.clone(), meter, progress)
        .yields(importer.yields());
    if let Some(bytes) = options.device_bytes {
        job.device_size(bytes);
    }
    let imported = importer.import(sources, options, &mut job).and_then(|()| job.close(&path));
    imported.map_err(|error| match (error.kind(), looks_like) {
        (ErrorKind::Input | ErrorKind::Nothing, Some(other)) => {
            error.hint(format!("by its content it is {other}: leave --from out"))
        }
        _ => error,
    })?;
    let summary = TraceSummary {
        not_recorded: job.not_recorded,
        losses: job.summary.losses().to_vec(),
        notes: job.summary.notes().to_vec(),
        streams: Vec::new(),
    };
    Ok(ImportReport {
        format: importer.name().to_owned(),
        interpretation: job.header.interpretation.clone(),
        summary,
        events: job.counts().events(),
        ops: *job.counts(),
        cut: job.summary.cut_text().map(str::to_owned),
    })
}

fn choose(source: &mut Source, options: &ImportOptions) -> Result<&'static dyn Importer> {
    if let Some(name) = &options.from {
        return registry::by_name(name);
    }
    let head = source.head()?;
    if let (true, Condition { cut: true, compression: Some(name), .. }) =
        (head.is_empty(), source.condition())
    {
        return Err(Error::input(format!("this {name} input is cut before any of its content")));
    }
    registry::by_content(&Probe { head: &head, name: &file_name(source) })
}

/// The format that the content has, where it is plainly not that of `importer`.
fn other_format(source: &mut Source, importer: &dyn Importer) -> Result<Option<&'static str>> {
    let head = source.head()?;
    if importer.probe(&Probe { head: &head, name: &file_name(source) }).is_some() {
        return Ok(None);
    }
    Ok(likeliest(source)?.filter(|found| *found != importer.name()))
}

/// The one format that the content speaks for.
fn likeliest(source: &mut Source) -> Result<Option<&'static str>> {
    let head = source.head()?;
    let probe = Probe { head: &head, name: &file_name(source) };
    Ok(registry::by_content(&probe).ok().map(Importer::name))
}

fn file_name(source: &Source) -> String {
    source.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Of several inputs, not one row of one in another format than the first would be read.
fn refuse_other_formats(sources: &mut [Source], importer: &dyn Importer) -> Result<()> {
    for source in sources.iter_mut().skip(1) {
        if let Some(other) = other_format(source, importer)? {
            let what = format!("this is {other}, and the input before it {}", importer.name());
            return Err(Error::usage(what).path(source.path()).hint(
                "import each by itself and merge the traces with qtrace edit; --from reads all as one format",
            ));
        }
    }
    Ok(())
}

/// Says in the summary what was found out at the end of an input.
fn note_condition(source: &Source, job: &mut Job<'_>) {
    let condition = source.condition();
    let place = || {
        let place = job::offset_place(source.path(), source.offset());
        match condition.compression {
            Some(name) => format!("{place} of what {name} holds"),
            None => place,
        }
    };
    if let (true, Some(name)) = (condition.cut, condition.compression) {
        job.summary.cut(&format!("{name} input ends before its own end"), place());
    }
    if condition.trailing {
        job.summary.lose("bytes after the compressed data", place);
    }
}
