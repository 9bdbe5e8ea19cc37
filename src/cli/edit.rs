//! `qtrace edit`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::Format;
use super::progress::Progress;
use super::select::{self, Selection, warn_if_cut};
use crate::base::terminal::printable;
use crate::base::{Error, ErrorKind, Result};
use crate::edit::data::{DataMode, Key};
use crate::edit::places::Places;
use crate::edit::times::Align;
use crate::edit::{Edit, EditReport, Source, edit};
use crate::export::output;
use crate::trace::{Kinds, Span, Trace};

const EXAMPLES: &str = "\
Examples:
  qtrace edit t.qtrace -o cut.qtrace --time 10s-20s --rebase     ten seconds of it, from 0
  qtrace edit t.qtrace -o writes.qtrace --drop read
  qtrace edit t.qtrace -o share.qtrace --payload pseudonym       data that may leave the house
  qtrace edit t.qtrace -o fast.qtrace --time-scale 50            twice as fast
  qtrace edit t.qtrace -o moved.qtrace --range 1G-2G --remap 1G-2G=0
  qtrace edit web.qtrace db.qtrace -o both.qtrace                merged by time";

const RULES: &str = "\
A request belongs to the part in which it was issued, and its completion goes with it, also past the
end of the part; a completion whose request stands before the part is left out. The new trace says
what was changed (qtrace info shows it). The inputs are never written to.
Exit codes: 0 written; 2 the edit does not fit the trace, or OUT exists or is an input; 3 an input
cannot be read; 4 nothing is kept (nothing is written); 7 OUT cannot be written.";

/// Arguments of `qtrace edit`.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES, after_help = RULES)]
pub struct Args {
    /// The traces to edit; several become one, merged by time.
    #[arg(required = true, value_name = "IN.qtrace")]
    inputs: Vec<PathBuf>,
    /// The trace to write; it appears whole or not at all.
    #[arg(short, long, value_name = "OUT.qtrace")]
    output: PathBuf,
    /// Leave out these kinds of events (the words of --op); a request goes with its completion.
    #[arg(long, value_name = "KIND,…", value_delimiter = ',')]
    drop: Vec<String>,
    /// Move the requests in bytes A to B (or A+LEN) so that A comes to C. Of several, the first
    /// that a request touches counts, and must hold all of it.
    #[arg(long, value_name = "A-B=C")]
    remap: Vec<String>,
    /// Add SIZE to every offset, after --remap; -SIZE takes it away.
    #[arg(long, value_name = "[-]SIZE", allow_hyphen_values = true)]
    shift: Option<String>,
    /// Scale times: 50 is twice as fast, 200 half as fast. Latencies are scaled too.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    time_scale: Option<u64>,
    /// The first event that is kept stands at time 0.
    #[arg(long)]
    rebase: bool,
    /// Of several traces: put their beginnings together, or go by wall clock [default: by wall
    /// clock where all have it].
    #[arg(long, value_enum)]
    align: Option<Align>,
    /// What becomes of data: keep; drop (a replay then stamps what it writes, and checks that);
    /// zero; pseudonym (each sector by other bytes: equal ones stay equal, zeros stay zeros, so
    /// that reads still fit writes). All but keep also take the text of marks away.
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    payload: Payload,
    /// For pseudonyms: the same WORDS give the same ones in another trace; without, nobody has
    /// the key.
    #[arg(long, value_name = "WORDS")]
    key: Option<String>,
    /// Replace an existing OUT.
    #[arg(short, long)]
    force: bool,
    /// How the summary is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    selection: Selection,
}

/// What becomes of data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Payload {
    #[default]
    Keep,
    Drop,
    Zero,
    Pseudonym,
}

/// Runs the command; returns the exit code.
///
/// # Errors
/// Those of [`edit`], and Usage for options that do not fit.
pub fn run(args: &Args) -> Result<u8> {
    let inputs: Vec<&Path> = args.inputs.iter().map(PathBuf::as_path).collect();
    output::check(&args.output, &inputs, args.force)?;
    let plan = plan(args)?;
    let traces: Vec<Trace> = inputs.iter().map(|path| Trace::open(path)).collect::<Result<_>>()?;
    let source = |trace| Ok(Source { trace, filter: args.selection.filter(trace)? });
    let sources: Vec<Source<'_>> = traces.iter().map(source).collect::<Result<_>>()?;
    if sources.len() > 1
        && sources.iter().any(|source| {
            source.filter.streams.is_some() && args.selection.names_streams()
                || !source.filter.events.is_all()
        })
    {
        return Err(Error::usage("--events and --stream are numbers in one trace, not in several")
            .hint("cut each first, then merge; --time and --device fit several"));
    }
    for trace in &traces {
        warn_if_cut(trace);
    }
    let total = traces.iter().map(Trace::events).sum();
    let mut bar = Progress::new("edit", Some(total), false);
    let report = edit(&sources, &args.output, &plan, &mut |at| bar.set(at))?;
    drop(bar);
    let text = match args.format {
        Format::Text => text(&report, args),
        Format::Json => json_text(&report, args),
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::incomplete("cannot print the summary").source(error))
        }
        _ => Ok(0),
    }
}

fn plan(args: &Args) -> Result<Edit> {
    if args.key.is_some() && args.payload != Payload::Pseudonym {
        return Err(Error::usage("--key is for --payload pseudonym"));
    }
    if args.align.is_some() && args.inputs.len() < 2 {
        return Err(Error::usage("--align is for several traces"));
    }
    let data = match (args.payload, &args.key) {
        (Payload::Keep, _) => DataMode::Keep,
        (Payload::Drop, _) => DataMode::Drop,
        (Payload::Zero, _) => DataMode::Zero,
        (Payload::Pseudonym, Some(words)) => DataMode::Pseudonym(Key::from_words(words)),
        (Payload::Pseudonym, None) => DataMode::Pseudonym(Key::random()?),
    };
    let ranges = args.remap.iter().map(|text| remap(text)).collect::<Result<_>>()?;
    let drop = select::kinds("--drop", &args.drop)?;
    if drop.contains(Kinds::all()) {
        return Err(Error::usage("--drop leaves nothing"));
    }
    let places = Places { ranges, shift: args.shift.as_deref().map_or(Ok(0), shift)? };
    places.check()?;
    Ok(Edit {
        drop,
        places,
        time_percent: args.time_scale,
        rebase: args.rebase,
        align: args.align,
        data,
        stop: Some(stop_on_signal()?),
    })
}

/// `A-B=C` or `A+LEN=C`.
fn remap(text: &str) -> Result<(Span, u64)> {
    let wrong = || {
        Error::usage(format!("--remap '{}' is no A-B=C", text.escape_debug()))
            .hint("such as 1G-2G=0 or 2048s+8s=1M")
    };
    let (range, to) = text.split_once('=').ok_or_else(wrong)?;
    Ok((select::range(range)?, select::place(to).ok_or_else(wrong)?))
}

fn shift(text: &str) -> Result<i64> {
    let (negative, size) = match text.strip_prefix('-') {
        Some(size) => (true, size),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let size = select::place(size).and_then(|size| i64::try_from(size).ok());
    let size = size.ok_or_else(|| {
        Error::usage(format!("--shift '{}' is no size", text.escape_debug()))
            .hint("such as 1M, -2048s")
    })?;
    Ok(if negative { -size } else { size })
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

fn text(report: &EditReport, args: &Args) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<10} {}", printable(value));
    };
    row("trace", &args.output.display().to_string());
    row("events", &format!("{} of {} read", report.events, report.events_read));
    for (n, change) in report.changes.iter().enumerate() {
        row(if n == 0 { "changed" } else { "" }, change);
    }
    for (n, note) in report.notes.iter().enumerate() {
        row(if n == 0 { "notes" } else { "" }, note);
    }
    text
}

fn json_text(report: &EditReport, args: &Args) -> String {
    let document = json!({
        "schema": "qtrace.edit/1",
        "trace": args.output.display().to_string(),
        "events": report.events,
        "events_read": report.events_read,
        "changes": report.changes,
        "notes": report.notes,
    });
    format!("{document:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shifts_and_remaps_have_units() {
        assert_eq!(shift("-2048s").unwrap(), -(1 << 20));
        assert_eq!(shift("+1M").unwrap(), 1 << 20);
        assert!(shift("--1").is_err() && shift("").is_err());
        assert_eq!(
            remap("1M+4k=8s").unwrap(),
            (Span { from: 1 << 20, to: (1 << 20) + 4096 }, 4096)
        );
        assert!(remap("1M-2M").is_err() && remap("1M=2M").is_err());
    }
}
