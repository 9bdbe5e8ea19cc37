//! `qtrace info`: what a trace holds and what it lacks.

mod facts;
mod profile_text;
mod text;

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Format;
use super::progress::Progress;
use crate::base::error::IoContext;
use crate::base::{Error, Result};
use crate::replay::run_log::{RUN_LOG_HEADER_BYTES, RUN_LOG_MAGIC};
use crate::trace::Trace;
use facts::Facts;

const EXAMPLES: &str = "\
Examples:
  qtrace info t.qtrace
  qtrace info t.qtrace --format json | jq .ops
  qtrace info t.qtrace --format json | jq '.profile.flow.slices[].depth_mean'";

const EXIT_CODES: &str = "\
p50, p99 and p99.9 are of histograms: up to 1/16 too great, never too small; the other figures are
exact where they do not say ±. A request counts, with all its bytes, for the extent it begins in.
Exit codes: 0 printed, also for a trace that is cut short (\"CUT SHORT\", \"complete\": false)
or still written (\"BEING RECORDED\");
3 the file cannot be read, is neither a trace nor a run log, or is damaged before its end.";

/// Arguments of `qtrace info`.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES, after_help = EXIT_CODES)]
pub struct Args {
    /// A .qtrace, or the run log of a replay.
    pub file: PathBuf,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// What is known of a run log without the trace that it is of.
#[derive(Debug, Serialize)]
struct RunLogFacts {
    schema: &'static str,
    file: String,
    version: u32,
    requests: u64,
    bytes_left_over: u64,
}

/// Runs the command; returns the exit code.
///
/// # Errors
/// `Input` for a file that is neither a trace nor a run log, or is damaged before its end.
pub fn run(args: &Args) -> Result<u8> {
    let printed = match run_log(&args.file)? {
        Some(log) => match args.format {
            Format::Json => json(&log)?,
            Format::Text => format!(
                "{}: run log, version {}, {} device requests\n",
                log.file, log.version, log.requests
            ),
        },
        None => {
            let facts = gather(&args.file)?;
            match args.format {
                Format::Json => json(&facts)?,
                Format::Text => text::render(&facts),
            }
        }
    };
    print(&printed)?;
    Ok(0)
}

fn gather(path: &Path) -> Result<Facts> {
    let size = std::fs::metadata(path).map(|metadata| metadata.len()).ok();
    let mut scanning = Progress::new("scanning", size, true);
    let trace = Trace::open_with(path, &mut |at| scanning.set(at))?;
    drop(scanning);
    let mut counting = Progress::new("counting", Some(trace.events()), false);
    Facts::gather(&trace, &mut |event| counting.set(event))
}

fn json(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value);
    let text = text.map_err(|e| Error::incomplete("cannot write it as JSON").source(e))?;
    Ok(text + "\n")
}

/// Prints on stdout; a reader that has seen enough is no error.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).writing("stdout", "cannot print")
        }
        _ => Ok(()),
    }
}

/// The facts of a run log, when `path` is a regular file that starts as one.
fn run_log(path: &Path) -> Result<Option<RunLogFacts>> {
    let metadata = std::fs::metadata(path).reading(path, "cannot examine the file")?;
    if !metadata.is_file() || metadata.len() < RUN_LOG_HEADER_BYTES as u64 {
        return Ok(None);
    }
    let mut start = [0; RUN_LOG_HEADER_BYTES];
    let mut file = File::open(path).reading(path, "cannot open the file")?;
    file.read_exact(&mut start).reading(path, "cannot read the file")?;
    let Some(&[a, b, c, d, e, f, g, h]) =
        start.strip_prefix(&RUN_LOG_MAGIC).and_then(|rest| rest.first_chunk())
    else {
        return Ok(None);
    };
    let record = u64::from(u32::from_le_bytes([e, f, g, h])).max(1);
    let body = metadata.len() - RUN_LOG_HEADER_BYTES as u64;
    Ok(Some(RunLogFacts {
        schema: "qtrace.run-log-info/1",
        file: path.display().to_string(),
        version: u32::from_le_bytes([a, b, c, d]),
        requests: body / record,
        bytes_left_over: body % record,
    }))
}
