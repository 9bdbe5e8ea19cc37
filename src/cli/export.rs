//! `qtrace export`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::Format;
use super::progress::Progress;
use super::select::{Selection, warn_if_cut};
use crate::base::shell;
use crate::base::terminal::printable;
use crate::base::units::parse_nanos;
use crate::base::{Error, ErrorKind, Nanos, Result};
use crate::export::output::{self, Output};
use crate::export::registry::{self, Exporter};
use crate::export::{ExportOptions, ExportReport, export, fio_iolog};
use crate::trace::Trace;

const EXAMPLES: &str = "\
Examples:
  qtrace export t.qtrace -o t.iolog --job t.fio     and fio t.fio replays it
  qtrace export t.qtrace -o t.csv --time 10s-20s    the format is found by the name's ending
  qtrace export t.qtrace -o - --to blkparse | less
  qtrace export t.qtrace -o t.blklogwrites          for replay-log and QEMU's blklogwrites
  qtrace export boot.qtrace -o boot.qtest
  qtrace export t.qtrace -o - --to json-lines | jq -c 'select(.status > 0)'";

/// Arguments of `qtrace export`.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES, after_help = formats())]
pub struct Args {
    /// A .qtrace.
    file: PathBuf,
    /// The file to write, which appears whole or not at all; - for standard output.
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// The format, where the ending of OUT does not say it.
    #[arg(long, value_name = "FORMAT")]
    to: Option<String>,
    /// fio-iolog: also write a job file that replays the log.
    #[arg(long, value_name = "FILE")]
    job: Option<PathBuf>,
    /// fio-iolog: the file or device that the log is about, in place of the names in the trace.
    #[arg(long, value_name = "NAME")]
    file_name: Option<String>,
    /// msr-csv: the response time of requests whose answer was not recorded (ms; us, ns, s as
    /// suffix); without it they are left out.
    #[arg(long, value_name = "TIME", value_parser = response)]
    response: Option<u64>,
    /// json-lines: the data too, in hexadecimal.
    #[arg(long)]
    data: bool,
    /// Replace an existing OUT.
    #[arg(short, long)]
    force: bool,
    /// How the summary is printed; on stderr where OUT is standard output.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    selection: Selection,
}

fn response(text: &str) -> std::result::Result<u64, String> {
    parse_nanos(text, 1_000_000).ok_or_else(|| "a time such as 1.5ms or 200us".to_owned())
}

fn formats() -> String {
    let mut text = String::from("Formats:\n");
    for exporter in registry::EXPORTERS {
        let endings: Vec<_> = exporter.endings().iter().map(|end| format!(".{end}")).collect();
        let (name, about) = (exporter.name(), exporter.description());
        let _ = writeln!(text, "  {name:<14} {about} ({})", endings.join(", "));
    }
    text.push_str(
        "\nWhat a format has no place for is left out and counted by reason.\n\n\
         Exit codes: 0 written; 2 the trace is not what the format is for, or OUT exists; 3 the \
         trace cannot\nbe read; 4 nothing of it has a place in the format (nothing is written); 7 \
         OUT cannot be written.",
    );
    text
}

/// Runs the command; returns the exit code.
///
/// # Errors
/// Those of [`export`], and Usage for options that do not fit.
pub fn run(args: &Args) -> Result<u8> {
    let exporter = match &args.to {
        Some(name) => registry::by_name(name)?,
        None => registry::by_ending(&args.output)?,
    };
    check_options(args, exporter)?;
    let trace = Trace::open(&args.file)?;
    let filter = args.selection.filter(&trace)?;
    warn_if_cut(&trace);
    let options = ExportOptions {
        file_name: args.file_name.clone(),
        response: args.response.map(Nanos),
        data: args.data,
        stop: Some(stop_on_signal()?),
    };
    let job = args.job.as_deref().map(|path| begin_job(path, &args.output)).transpose()?;
    let mut out = Output::create(&args.output)?;
    let mut bar = Progress::new("export", Some(trace.events()), false);
    let name = args.output.display().to_string();
    let done = export(&trace, filter, exporter, &options, (&mut out, &name), &mut |at| bar.set(at));
    drop(bar);
    let report = match done {
        Ok(report) => report,
        // A reader that has seen enough is no error.
        Err(_) if out.is_gone() => return Ok(0),
        Err(error) => return Err(error),
    };
    let to_stdout = out.is_stdout();
    out.commit()?;
    job.map_or(Ok(()), Output::commit)?;
    let text = match args.format {
        Format::Text => text(&report, exporter, args),
        Format::Json => json_text(&report, exporter, args),
    };
    print(&text, to_stdout)?;
    Ok(0)
}

fn check_options(args: &Args, exporter: &dyn Exporter) -> Result<()> {
    for (option, given) in [
        ("--job", args.job.is_some()),
        ("--file-name", args.file_name.is_some()),
        ("--response", args.response.is_some()),
        ("--data", args.data),
    ] {
        if given {
            registry::check_option(exporter, option)?;
        }
    }
    let named = |name: &String| !name.is_empty() && !name.contains(char::is_whitespace);
    if args.file_name.as_ref().is_some_and(|name| !named(name) || name.len() > 255) {
        return Err(Error::usage(
            "--file-name: fio reads names of up to 255 characters, no blanks",
        ));
    }
    let to_stdout = args.output.as_os_str() == "-";
    if let Some(job) = &args.job {
        if to_stdout {
            return Err(Error::usage("--job names the log, which must have a name: not -o -"));
        }
        output::check(job, &[&args.file], args.force)?;
        if output::is_same_place(job, &args.output) {
            return Err(Error::usage("--job and -o name one file").path(job));
        }
    }
    if to_stdout { Ok(()) } else { output::check(&args.output, &[&args.file], args.force) }
}

/// A job for the log at `log`, written and not yet named: what cannot be is found out before the
/// log is made.
fn begin_job(path: &Path, log: &Path) -> Result<Output> {
    let log = std::path::absolute(log).unwrap_or_else(|_| log.to_path_buf());
    let text = fio_iolog::job_file(&log)?;
    let mut out = Output::create(path)?;
    out.write_all(text.as_bytes())
        .map_err(|error| Error::incomplete("cannot write the job").path(path).source(error))?;
    Ok(out)
}

/// Becomes true at Ctrl-C or SIGTERM, so that the temporary output is removed.
fn stop_on_signal() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed)).map_err(|error| {
        Error::new(ErrorKind::Incomplete, "cannot watch for Ctrl-C").source(error)
    })?;
    Ok(stop)
}

/// Prints the summary where the export itself does not go; a reader that has gone away is no error.
fn print(text: &str, to_stdout: bool) -> Result<()> {
    let printed = match to_stdout {
        true => std::io::stderr().write_all(text.as_bytes()),
        false => std::io::stdout().write_all(text.as_bytes()),
    };
    match printed {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::incomplete("cannot print the summary").source(error))
        }
        _ => Ok(()),
    }
}

/// How to see that nothing was lost but what the format lacks; nothing of the kind for a part of a
/// trace, which is of course not the whole.
fn comparison(exporter: &dyn Exporter, args: &Args) -> Option<String> {
    if args.output.as_os_str() == "-" || !args.selection.is_all() {
        return None;
    }
    let lacks = exporter.lacks()?;
    let (out, trace) = (args.output.to_string_lossy(), args.file.to_string_lossy());
    let import = ["qtrace", "import", &out, "--from", exporter.name(), "-o", "BACK.qtrace"];
    let (import, diff) =
        (shell::join(import), shell::join(["qtrace", "diff", &trace, "BACK.qtrace"]));
    Some(format!("{import}; {diff} {lacks}"))
}

fn text(report: &ExportReport, exporter: &dyn Exporter, args: &Args) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<10} {}", printable(value));
    };
    row("file", &args.output.display().to_string());
    row("format", report.format);
    row("records", &report.records.to_string());
    if report.losses.is_empty() {
        row("lost", "nothing");
    }
    for (n, loss) in report.losses.iter().enumerate() {
        let name = if n == 0 { "lost" } else { "" };
        row(name, &format!("{} x {}, first at {}", loss.count, loss.reason, loss.first));
    }
    for (n, note) in report.notes.iter().enumerate() {
        row(if n == 0 { "notes" } else { "" }, note);
    }
    if let Some(job) = &args.job {
        row("job", &job.display().to_string());
    }
    if let Some(comparison) = comparison(exporter, args) {
        row("compare", &comparison);
        if report.misfits > 0 {
            let what = "is a difference then: the format cannot hold it as it is";
            row("", &format!("({} of the above {what})", report.misfits));
        }
    }
    text
}

fn json_text(report: &ExportReport, exporter: &dyn Exporter, args: &Args) -> String {
    let document = json!({
        "schema": "qtrace.export/1",
        "file": args.output.display().to_string(),
        "format": report.format,
        "records": report.records,
        "losses": report.losses,
        "notes": report.notes,
        "job": args.job.as_ref().map(|job| job.display().to_string()),
        "compare": comparison(exporter, args),
        "misfits": report.misfits,
    });
    format!("{document:#}\n")
}
