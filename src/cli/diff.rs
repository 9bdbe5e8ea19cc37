//! `qtrace diff`.

mod event_text;
pub mod ignored;
pub mod images;
pub mod reports;
pub mod traces;
pub mod walk;

#[cfg(test)]
#[path = "diff/tests.rs"]
mod tests;

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Format;
use super::progress::Progress;
use crate::base::error::IoContext;
use crate::base::terminal::printable_lines;
use crate::base::units::parse_nanos;
use crate::base::{Error, Result};
use crate::image::{self, OpenOptions};
use crate::replay::run_log::RUN_LOG_MAGIC;
use crate::report::threshold::Threshold;
use crate::report::{Report, json};
use crate::trace::Trace;
use ignored::Ignored;
use images::Step;

/// Name and version of the JSON form of a comparison.
const SCHEMA: &str = "qtrace.diff/1";

/// Exit code when a limit on timing is passed.
const EXIT_TIMING: u8 = 6;

/// Bytes of a file that its kind is told from.
const PROBE_BYTES: u64 = 512;

/// A larger file is no report: ours have a few hundred kilobytes.
const REPORT_BYTES_MAX: u64 = 256 << 20;

const EXAMPLES: &str = "\
Examples:
  qtrace diff d.qcow2 want.raw                    every differing extent; exit 1 when there is one
  qtrace diff d.qcow2 want.raw --trace t.qtrace   and the event that wrote each of them last
  qtrace diff old.json new.json --fail-if 'p99>10%' --fail-if 'write.iops<5%'
                                                  two reports side by side; exit 6 past a limit
  qtrace diff a.qtrace b.qtrace                   the first differing event; exit 1 when there is one
  qtrace diff a.qtrace b.qtrace --ignore tag,flags,header --time-unit 1us
                                                  but for what a format lacks that b went through";

const EXIT_CODES: &str = "\
What is neither a report nor a .qtrace is an image; a trace of another format: qtrace import first.
Exit codes: 0 no difference; 1 a difference; 2 the two are of different kinds, or an option is for
another; 3 one cannot be read; 6 a limit of --fail-if is passed.";

/// Arguments of `qtrace diff`.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES, after_help = EXIT_CODES)]
pub struct Args {
    /// An image, a report or a trace: the content decides.
    a: PathBuf,
    /// Another of the same kind.
    b: PathBuf,
    /// For images: name the event of this trace that last wrote each differing extent.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// For reports: exit 6 when B passes a limit. [OP.]METRIC>N% (or <N%) limits the change from
    /// A to B; a value in place of N% limits B itself. METRIC is p50, p90, p99, p99.9, max, mean,
    /// iops, bandwidth, errors or duration. A report whose timing is INVALID fails every limit.
    #[arg(long, value_name = "EXPR")]
    fail_if: Vec<String>,
    /// For traces: leave out these fields (time, origin: where time counts from, tag: and where
    /// completions stand among other events, twin: with tag, which of several equal requests in
    /// flight was answered, stream, flags, hints: sync, meta and rahead alone, unmap alone, zeroes:
    /// that a write-zeroes is no write, cpu, data, status, value: of bus reads, text: of marks,
    /// header) and kinds of events (the words of qtrace show --op).
    #[arg(long, value_name = "WORD,…", value_delimiter = ',')]
    ignore: Vec<String>,
    /// For traces: compare times in whole units of so much (1us, 100ns, 1ms).
    #[arg(long, value_name = "TIME", default_value = "1ns", value_parser = time_unit)]
    time_unit: u64,
    /// For images: list at most so many differing extents (all are counted).
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    extents: usize,
    /// For images: format of A, in place of what its content says.
    #[arg(long, value_name = "FORMAT")]
    format_a: Option<String>,
    /// For images: format of B, in place of what its content says.
    #[arg(long, value_name = "FORMAT")]
    format_b: Option<String>,
    /// For images: open backing and data files outside an image's own folder too.
    #[arg(long)]
    allow_backing: bool,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A result, ready to print.
#[derive(Debug)]
pub struct Outcome {
    text: String,
    json: String,
    code: u8,
}

impl Outcome {
    fn new(text: String, value: &impl Serialize, code: u8) -> Result<Self> {
        Ok(Self { text, json: json::to_text(value)?, code })
    }
}

/// What a file holds.
enum Content {
    Trace(Box<Trace>),
    Report(Box<Report>),
    Image,
}

impl Content {
    fn name(&self) -> &'static str {
        match self {
            Self::Trace(_) => "a trace",
            Self::Report(_) => "a report",
            Self::Image => "an image",
        }
    }
}

fn time_unit(text: &str) -> std::result::Result<u64, String> {
    parse_nanos(text, 1).filter(|unit| *unit > 0).ok_or_else(|| "such as 1us or 100ns".to_owned())
}

/// Runs the command; returns the exit code.
///
/// # Errors
/// Files that cannot be read or are of different kinds, and options that do not fit them.
pub fn run(args: &Args) -> Result<u8> {
    let outcome = diff(args)?;
    let text = match args.format {
        Format::Text => &printable_lines(&outcome.text),
        Format::Json => &outcome.json,
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // `| head` closes early; the result stands.
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::incomplete("cannot write to stdout").source(e))
        }
        _ => Ok(outcome.code),
    }
}

fn diff(args: &Args) -> Result<Outcome> {
    let limits: Vec<Threshold> =
        args.fail_if.iter().map(|text| Threshold::parse(text)).collect::<Result<_>>()?;
    let ignored = Ignored::parse(&args.ignore, args.time_unit)?;
    let a = content(&args.a, args.format_a.is_some())?;
    let b = content(&args.b, args.format_b.is_some())?;
    match (&a, &b) {
        (Content::Report(a), Content::Report(b)) => {
            refuse(args.trace.is_some(), "--trace", "images")?;
            refuse(ignored != Ignored::default(), "--ignore and --time-unit", "traces")?;
            reports::compare((&args.a, &args.b), a, b, &limits)
        }
        (Content::Trace(a), Content::Trace(b)) => {
            refuse(args.trace.is_some(), "--trace", "images")?;
            refuse(!limits.is_empty(), "--fail-if", "reports")?;
            let mut bar = Progress::new("comparing", Some(a.events()), false);
            traces::compare(a, b, &ignored, &mut |events| bar.set(events))
        }
        (Content::Image, Content::Image) => {
            refuse(!limits.is_empty(), "--fail-if", "reports")?;
            refuse(ignored != Ignored::default(), "--ignore and --time-unit", "traces")?;
            diff_images(args)
        }
        _ => Err(Error::usage(format!(
            "{} is {} and {} is {}",
            args.a.display(),
            a.name(),
            args.b.display(),
            b.name()
        ))
        .hint("give two images, two reports or two .qtrace (qtrace import makes one)")),
    }
}

fn refuse(given: bool, option: &str, kind: &str) -> Result<()> {
    if given {
        return Err(Error::usage(format!("{option} goes with {kind} only")));
    }
    Ok(())
}

/// Tells what a file holds from its content.
fn content(path: &Path, forced: bool) -> Result<Content> {
    // A pipe without a writer would be waited for.
    let mut options = File::options();
    let options = options.read(true).custom_flags(libc::O_NONBLOCK);
    let mut file = options.open(path).reading(path, "cannot open")?;
    let metadata = file.metadata().reading(path, "cannot open")?;
    if metadata.is_dir() {
        return Err(Error::input("a folder is no image, report or trace").path(path));
    }
    if !metadata.is_file() && !metadata.file_type().is_block_device() {
        return Err(Error::input("neither a regular file nor a block device").path(path));
    }
    if forced {
        return Ok(Content::Image);
    }
    let mut head = Vec::new();
    (&mut file).take(PROBE_BYTES).read_to_end(&mut head).reading(path, "cannot read")?;
    if head.starts_with(&RUN_LOG_MAGIC) {
        let hint = "cmp compares run logs: equal runs have equal bytes";
        return Err(Error::usage("a run log, which diff does not read").path(path).hint(hint));
    }
    if Trace::probe(&head) {
        return Ok(Content::Trace(Box::new(Trace::open(path)?)));
    }
    if !json::probe(&head) || !metadata.is_file() || metadata.len() > REPORT_BYTES_MAX {
        return Ok(Content::Image);
    }
    let bytes = std::fs::read(path).reading(path, "cannot read")?;
    // A disk may begin with a brace too: what is no JSON at all is not taken for a report.
    if !bytes.trim_ascii_end().ends_with(b"}") {
        return Ok(Content::Image);
    }
    Ok(Content::Report(Box::new(json::from_slice(&bytes).map_err(|e| e.path(path))?)))
}

fn diff_images(args: &Args) -> Result<Outcome> {
    let trace = args.trace.as_deref().map(Trace::open).transpose()?;
    let open = |path: &Path, format: &Option<String>| {
        let options = OpenOptions {
            format: format.clone(),
            allow_backing: args.allow_backing,
            ..OpenOptions::default()
        };
        image::open(path, &options).map_err(super::in_words_of_options)
    };
    let (a, b) = (open(&args.a, &args.format_a)?, open(&args.b, &args.format_b)?);
    let job = images::Job {
        a: a.as_ref(),
        b: b.as_ref(),
        trace: trace.as_ref(),
        extents_max: args.extents,
    };
    let size = a.size().max(b.size());
    let mut images = Progress::new("comparing", Some(size), true);
    let mut events = Progress::new("last writers", trace.as_ref().map(Trace::events), false);
    images::compare(&job, &mut |step, done| match step {
        Step::Images => images.set(done),
        Step::Trace => events.set(done),
    })
}
