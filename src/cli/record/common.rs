//! What every tap takes, shows and ends with.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::Format;
use super::super::progress::Progress as Bar;
use super::super::replay::print;
use crate::base::units::{human_bytes, parse_size};
use crate::base::{Error, Result};
use crate::image::Image;
use crate::record::command::{Place, Signals, Wrapped};
use crate::record::recording::{OnError, OnOverflow, Options, Progress, Recording};
use crate::trace::{LiveOptions, Trace};

/// What the exit code says, for the help of every tap.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  the trace is whole (without CMD: also after Ctrl-C or SIGTERM, which end a recording)
  2  wrong usage, or CMD cannot be run           3  the image cannot be opened
  7  the trace could not be written to its end
With CMD: its own exit code, or 128 and the number of the signal that ended it; 7 stays 7.";

/// How often progress is shown and the recording looked at.
const TICK: Duration = Duration::from_millis(200);

/// Who may read and write a trace, before the umask, and who may in any case.
const CREATE_MODE: u32 = 0o666;
/// See [`CREATE_MODE`].
const OWN_MODE: u32 = 0o600;

/// Least and greatest queue.
const QUEUE_BYTES: std::ops::RangeInclusive<u64> = (1 << 20)..=(16 << 30);

/// Arguments of every tap.
#[derive(Clone, Debug, clap::Args)]
pub struct RecordArgs {
    /// The trace to write. It can be opened from the start, and is whole when the recording ends.
    #[arg(short, long, value_name = "T.qtrace")]
    pub output: PathBuf,

    /// Replace T.qtrace when it exists and is a trace, or empty. It goes when the recording runs.
    #[arg(long)]
    pub force: bool,

    /// When requests come faster than they can be written: make them wait, or leave them out and
    /// count them.
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "block|drop",
        hide_possible_values = true
    )]
    pub on_overflow: OnOverflow,

    /// When the trace cannot be written on (a full disk): serve on without recording, or fail
    /// every request from then on. The exit code is 7 either way.
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "continue|fail",
        hide_possible_values = true
    )]
    pub on_error: OnError,

    /// Memory for requests that wait to be written.
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = queue_size)]
    pub queue_size: usize,

    /// How the summary is printed: on stdout, or with CMD on stderr.
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "text|json",
        hide_possible_values = true
    )]
    pub summary: Format,

    /// Show no progress and no summary.
    #[arg(short, long)]
    pub quiet: bool,

    /// Record while this command runs, end with it, and exit as it does.
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

fn queue_size(text: &str) -> std::result::Result<usize, String> {
    parse_size(text)
        .filter(|bytes| QUEUE_BYTES.contains(bytes))
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| "a size from 1M to 16G: 64M, 1G".to_owned())
}

impl RecordArgs {
    /// Refuses `--` with nothing behind it: a variable that is empty, for one, would make it record
    /// until Ctrl-C.
    ///
    /// # Errors
    /// Usage.
    pub fn check(&self) -> Result<()> {
        let dashes = std::env::args_os().any(|word| word == "--");
        match self.command.is_empty() && dashes {
            true => Err(Error::usage("there is no command behind --")
                .hint("leave out -- to record until Ctrl-C")),
            false => Ok(()),
        }
    }

    /// Says which names in CMD stay as they are, because this tap has no such place.
    fn tell_unfilled(&self, places: &[Place<'_>]) {
        const NAMES: [&str; 4] = ["uri", "socket", "device", "image"];
        let words: Vec<_> = self.command.iter().map(|word| word.to_string_lossy()).collect();
        for name in NAMES.into_iter().filter(|name| places.iter().all(|(has, _)| has != name)) {
            let (pattern, shell) = (format!("{{{name}}}"), format!("${{{name}}}"));
            let stands = |word: &str| word.replace(&shell, "").contains(&pattern);
            if !self.quiet && words.iter().any(|word| stands(word)) {
                let has: Vec<_> = places.iter().map(|(name, _)| format!("{{{name}}}")).collect();
                let has = if has.is_empty() { "nothing".to_owned() } else { has.join(" and ") };
                say(&format!("{pattern} stays as it is in the command: here {has} is filled in"));
            }
        }
    }

    /// What [`Recording::start`] wants. What the guests of `images` read and write is in the trace:
    /// it is for those who may read all of the images.
    pub fn options<'p>(&self, images: impl IntoIterator<Item = &'p Path>) -> Options {
        let modes = images.into_iter().filter_map(|path| path.metadata().ok());
        let mode = modes.fold(CREATE_MODE, |mode, meta| mode & meta.mode()) | OWN_MODE;
        Options {
            live: LiveOptions { replace: self.force, mode },
            on_overflow: self.on_overflow,
            on_error: self.on_error,
            queue_bytes: self.queue_size,
        }
    }
}

/// Says something on stderr; nobody there to read it is no failure.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "qtrace: {text}");
}

/// Records until CMD ends, or without one until a signal comes, showing progress. Returns the exit
/// code so far. `places` are where the tap is, for CMD.
///
/// # Errors
/// `Usage` when CMD cannot be run.
pub fn until_the_end(
    args: &RecordArgs,
    recording: &Recording,
    signals: &Signals,
    places: &[Place<'_>],
) -> Result<u8> {
    let mut shown = Shown::new(args.quiet);
    if args.command.is_empty() {
        recording.settle();
        while signals.take().is_none() {
            signals.wait(TICK);
            shown.show(&recording.progress());
        }
        return Ok(0);
    }
    args.tell_unfilled(places);
    let mut wrapped = Wrapped::start(&args.command, places)?;
    recording.settle();
    while !wrapped.wait(signals, TICK) {
        shown.show(&recording.progress());
    }
    drop(shown);
    Ok(wrapped.end())
}

/// Ends the recording, prints what was recorded, and returns the exit code: `code`, unless the
/// trace is not whole. The summary goes to stdout, or to stderr where stdout is CMD's.
///
/// # Errors
/// `Incomplete` when the trace is not whole.
pub fn finish(args: &RecordArgs, recording: Recording, code: u8) -> Result<u8> {
    let path = recording.path().to_path_buf();
    let is_there = recording.has_its_name();
    let progress = recording.finish().map_err(|e| match is_there {
        true => e.hint(what_stands(&path)),
        false => e,
    })?;
    let trace = path.display().to_string();
    let text = match args.summary {
        Format::Text => summary(&trace, &progress),
        Format::Json => {
            let document = json!({
                "schema": "qtrace.record/1",
                "trace": trace,
                "requests": progress.requests,
                "events": progress.events,
                "bytes": progress.bytes,
                "accesses": progress.accesses,
                "lost": progress.lost,
                "file_bytes": progress.file_bytes,
                "dropped": progress.dropped,
            });
            format!("{document:#}\n")
        }
    };
    match args.command.is_empty() {
        _ if args.quiet => {}
        true => print(text.as_bytes())?,
        false => drop(std::io::stderr().lock().write_all(text.as_bytes())),
    }
    Ok(code)
}

/// What a recording that failed left.
fn what_stands(path: &Path) -> String {
    let events = Trace::open(path).map_or(0, |trace| trace.events());
    let path = path.display();
    match events {
        0 => format!("nothing of it could be written before: {path} holds no event"),
        events => format!("the first {events} events stand in {path}"),
    }
}

/// As [`finish`], for when what was to be recorded failed with `error`: a trace of nothing goes.
///
/// # Errors
/// Always `error`.
pub fn give_up(recording: Recording, error: Error) -> Result<u8> {
    if recording.progress().events == 0 {
        // Why there is nothing is more to the point than why it is still there.
        let _ = recording.discard();
    }
    Err(error)
}

fn summary(trace: &str, progress: &Progress) -> String {
    let Progress { requests, events, bytes, accesses, lost, file_bytes, dropped, .. } = *progress;
    let mut text = format!("trace      {trace} ({})\n", human_bytes(file_bytes));
    if requests > 0 || accesses == 0 {
        text.push_str(&format!("requests   {requests} of {}\n", human_bytes(bytes)));
    }
    if accesses > 0 {
        text.push_str(&format!("accesses   {accesses} of the bus\n"));
    }
    text.push_str(&format!("events     {events}\n"));
    if dropped > 0 {
        text.push_str(&format!("left out   {dropped}: the queue was full (--on-overflow=drop)\n"));
    }
    if lost > 0 {
        text.push_str(&format!("lost       {lost}: qtrace info {trace} says what\n"));
    }
    text
}

/// Progress on stderr.
struct Shown {
    bar: Option<Bar>,
    begun: Instant,
    failed: bool,
}

impl Shown {
    fn new(quiet: bool) -> Self {
        let bar = (!quiet).then(Bar::of_text);
        Self { bar, begun: Instant::now(), failed: false }
    }

    fn show(&mut self, progress: &Progress) {
        let Progress { requests, events, bytes, file_bytes, dropped, failed, .. } = *progress;
        let seconds = self.begun.elapsed().as_secs_f64().max(0.001);
        let count = if requests > 0 { requests } else { events };
        let mut text = format!(
            "recording: {count} requests ({:.0}/s), {} ({}/s), file {}",
            count as f64 / seconds,
            human_bytes(bytes),
            human_bytes((bytes as f64 / seconds) as u64),
            human_bytes(file_bytes),
        );
        if dropped > 0 {
            text.push_str(&format!(", {dropped} left out"));
        }
        if let Some(bar) = &mut self.bar {
            bar.text(text);
        }
        if failed && !self.failed {
            self.failed = true;
            say("the trace cannot be written on; requests are served as --on-error says");
        }
    }
}

/// Says where a raw image that ends within a sector is served as if it went on to its end.
pub fn tell_rounded(args: &RecordArgs, recording: &Recording, path: &Path, image: &dyn Image) {
    let Ok(meta) = path.metadata() else { return };
    let (file, disk) = (meta.len(), image.size());
    if meta.is_file() && image.info().format == "raw" && file < disk {
        let text = format!("the image has {file} bytes, and its disk whole sectors: {disk} bytes");
        if !args.quiet {
            say(&text);
        }
        recording.note(text);
    }
}

/// `{uri}` and `{socket}` of a tap that has them.
pub fn places<'a>(uri: &'a str, socket: Option<&'a OsStr>) -> Vec<Place<'a>> {
    let mut places: Vec<Place<'a>> = vec![("uri", OsStr::new(uri))];
    places.extend(socket.map(|socket| ("socket", socket)));
    places
}
