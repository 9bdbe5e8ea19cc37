//! `qtrace import`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::Format;
use super::progress::Progress;
use crate::base::limits::DISK_BYTES_MAX;
use crate::base::terminal::printable;
use crate::base::units::{human_bytes, parse_size};
use crate::base::{BlockOp, Error, ErrorKind, Result, SECTOR_SIZE, stop};
use crate::import::{ImportOptions, ImportReport, Stage, TimeUnit, WaitUnit, import, registry};
use crate::trace::BusTotals;

const EXAMPLES: &str = "\
Examples:
  qtrace import vda.blklogwrites.gz -o t.qtrace         the format is found by content
  qtrace import sda.blktrace.* -o t.qtrace              per-CPU files become one trace
  qtrace import sda -o t.qtrace --stage D               the same, as the device saw it
  qtrace import /sys/kernel/tracing/trace -o t.qtrace   the kernel's events as text
  zcat hm_0.csv.gz | qtrace import - -o t.qtrace --from msr-csv
  qtrace import qemu-trace.log.xz -o bus.qtrace         port and MMIO accesses of a guest";

/// Arguments of `qtrace import`.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES, after_help = formats())]
pub struct Args {
    /// The trace to read: a file (plain, gzip, bzip2, xz or zstd), - for standard input, several
    /// per-CPU files of blktrace, or DEV for all of DEV.blktrace.N.
    #[arg(required = true, value_name = "IN")]
    inputs: Vec<PathBuf>,

    /// The trace to write; it appears whole or not at all.
    #[arg(short, long, value_name = "OUT.qtrace")]
    output: PathBuf,

    /// Read the input as this format instead of finding it by content.
    #[arg(long, value_name = "FORMAT")]
    from: Option<String>,

    /// blktrace and texts of the block layer's events: the moment that becomes the issue; Q keeps
    /// PREFLUSH and FUA [default: Q; of a text that has none, D].
    #[arg(long, value_name = "Q|D", ignore_case = true, hide_possible_values = true)]
    stage: Option<Stage>,

    /// Import this device only, named as the source names it (8,0 for blktrace, nvme0n1 for NVMe's
    /// events, a file for fio, a region for a bus trace).
    #[arg(long, value_name = "NAME")]
    device: Option<String>,

    /// The size of the device, which most formats do not record: a replay then creates its target
    /// with it, not with the end of the last request.
    #[arg(long, value_name = "SIZE", value_parser = device_size)]
    device_size: Option<u64>,

    /// fio-iolog version 2: what wait counts: ms since the job's start, as fio does, or us since
    /// the wait before, as its manual says [default: ms].
    #[arg(long, value_name = "ms|us", hide_possible_values = true)]
    iolog_wait: Option<WaitUnit>,

    /// dm-log-writes: also read entries after the superblock's count (the log of a killed run).
    #[arg(long)]
    uncounted: bool,

    /// What each access is, for a format that does not say: read or write.
    #[arg(long, value_name = "read|write", value_parser = access)]
    op: Option<BlockOp>,

    /// What an address counts, where a format leaves it open or a copy of a data set differs:
    /// sector, byte, or a size (4k).
    #[arg(long, value_name = "sector|byte|SIZE", value_parser = unit)]
    unit: Option<u64>,

    /// What times count, where they are not as the format's documentation has it.
    #[arg(long, value_name = "s|ms|us|ns", hide_possible_values = true)]
    time_unit: Option<TimeUnit>,

    /// Replace OUT.qtrace when it exists.
    #[arg(short, long)]
    force: bool,

    /// How the summary is printed.
    #[arg(long, value_name = "text|json", default_value = "text", hide_possible_values = true)]
    format: Format,
}

fn formats() -> String {
    let mut text = String::from("Formats:\n");
    for importer in registry::IMPORTERS {
        let _ = writeln!(text, "  {:<14} {}", importer.name(), importer.description());
    }
    text.push_str(
        "\nExit codes: 0 done; 2 wrong usage; 3 the input cannot be read; 4 it holds no request \
         and no access\n(nothing is written); 7 the input is cut (what stands before the cut is \
         written), or OUT cannot be\nwritten.",
    );
    text
}

/// Runs the command; returns the exit code.
///
/// # Errors
/// Those of [`import`], and Incomplete when the input was cut.
pub fn run(args: &Args) -> Result<u8> {
    if let Some(name) = &args.from {
        registry::by_name(name)?;
    }
    check_output(args)?;
    let options = ImportOptions {
        from: args.from.clone(),
        stage: args.stage,
        device: args.device.clone(),
        device_bytes: args.device_size,
        iolog_wait: args.iolog_wait,
        uncounted: args.uncounted,
        op: args.op,
        unit_bytes: args.unit,
        time_unit: args.time_unit,
        stop: Some(stop_on_signal()?),
    };
    let mut progress = Progress::new("import", total_bytes(&args.inputs), true);
    let report = import(&args.inputs, &args.output, &options, &mut |bytes| progress.set(bytes))?;
    drop(progress);
    let text = match args.format {
        Format::Text => text(&report, &args.output),
        Format::Json => json(&report, &args.output),
    };
    print(&text)?;
    match &report.cut {
        None => Ok(0),
        Some(cut) => Err(Error::incomplete(format!("{cut}; what stands before it was imported"))
            .path(args.inputs.first().map_or(Path::new("-"), PathBuf::as_path))
            .hint(format!("{} can be used", args.output.display()))),
    }
}

fn device_size(text: &str) -> std::result::Result<u64, String> {
    parse_size(text)
        .filter(|bytes| (SECTOR_SIZE..=DISK_BYTES_MAX).contains(bytes))
        .filter(|bytes| bytes.is_multiple_of(SECTOR_SIZE))
        .ok_or_else(|| "a size is whole sectors of 512 bytes: 16M, 1.5G, 65536".to_owned())
}

fn access(text: &str) -> std::result::Result<BlockOp, String> {
    let op = text.parse().ok().filter(|op| matches!(op, BlockOp::Read | BlockOp::Write));
    op.ok_or_else(|| "read or write".to_owned())
}

/// The largest block that anything addresses by.
const UNIT_BYTES_MAX: u64 = 1 << 30;

fn unit(text: &str) -> std::result::Result<u64, String> {
    let bytes = match text {
        "sector" => Some(SECTOR_SIZE),
        "byte" => Some(1),
        size => parse_size(size).filter(|bytes| (1..=UNIT_BYTES_MAX).contains(bytes)),
    };
    bytes.ok_or_else(|| "sector, byte, or a size: 512, 4k".to_owned())
}

/// Refuses an output that would destroy something.
fn check_output(args: &Args) -> Result<()> {
    let output = &args.output;
    let Ok(meta) = std::fs::metadata(output) else { return Ok(()) };
    if !meta.is_file() {
        return Err(Error::usage("the output exists and is no file").path(output));
    }
    if !args.force {
        return Err(Error::usage("the output exists").path(output).hint("--force replaces it"));
    }
    let output = std::fs::canonicalize(output).ok();
    if args.inputs.iter().any(|input| std::fs::canonicalize(input).ok() == output) {
        return Err(Error::usage("the output is one of the inputs").path(&args.output));
    }
    Ok(())
}

/// The size of all inputs; `None` when one has none (a pipe).
fn total_bytes(inputs: &[PathBuf]) -> Option<u64> {
    let size = |path: &PathBuf| {
        std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|meta| meta.len())
    };
    inputs.iter().map(size).sum()
}

/// Becomes true at Ctrl-C or SIGTERM, so that the temporary output is removed.
fn stop_on_signal() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        stop::want();
        flag.store(true, Ordering::Relaxed);
    })
    .map_err(|error| Error::new(ErrorKind::Incomplete, "cannot watch for Ctrl-C").source(error))?;
    Ok(stop)
}

/// Prints on stdout; a reader that has gone away is no error of ours.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::incomplete("cannot print the summary").source(error))
        }
        _ => Ok(()),
    }
}

fn text(report: &ImportReport, output: &Path) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<10} {}", printable(value));
    };
    row("trace", &output.display().to_string());
    row("format", &report.format);
    rows(&mut row, "read as", &report.interpretation);
    let ops = &report.ops;
    row("events", &events(report));
    let requests: Vec<_> = BlockOp::ALL
        .into_iter()
        .filter(|op| ops.issues_of(*op) > 0)
        .map(|op| {
            let (count, bytes) = (ops.issues_of(op), ops.bytes_of(op));
            let size = if op.has_range() { human_bytes(bytes) } else { String::new() };
            format!("{:<14} {count:>12}  {size}", op.name()).trim_end().to_owned()
        })
        .collect();
    rows(&mut row, "requests", &requests);
    let bus = bus_rows(&ops.bus).into_iter().filter(|(_, count)| *count > 0);
    let bus = bus.map(|(name, count)| format!("{:<14} {count:>12}", name.replace('_', " ")));
    let bus: Vec<_> = bus.collect();
    rows(&mut row, "bus", &bus);
    let lacks = report.summary.not_recorded.names();
    row("lacks", &if lacks.is_empty() { "nothing".to_owned() } else { lacks.join(", ") });
    let losses: Vec<_> = report
        .summary
        .losses
        .iter()
        .map(|loss| format!("{} x {}, first at {}", loss.count, loss.reason, loss.first))
        .collect();
    if losses.is_empty() {
        row("lost", "nothing");
    }
    rows(&mut row, "lost", &losses);
    rows(&mut row, "notes", &report.summary.notes);
    text
}

/// How many events, and of which of the two kinds of trace.
fn events(report: &ImportReport) -> String {
    let (ops, bus) = (&report.ops, &report.ops.bus);
    let mut parts = Vec::new();
    if ops.requests() > 0 || bus.events() == 0 {
        parts.push(format!("{} requests, {} completions", ops.requests(), ops.completes));
    }
    if bus.events() > 0 {
        let others = bus.events().saturating_sub(bus.accesses());
        parts.push(format!("{} bus accesses, {others} others of the bus", bus.accesses()));
    }
    format!("{} ({}, {} marks)", report.events, parts.join(", "), ops.marks)
}

/// Events of the bus by kind; the names are those of the JSON, here and in `qtrace info`.
fn bus_rows(bus: &BusTotals) -> [(&'static str, u64); 11] {
    [
        ("port_reads", bus.ports[0]),
        ("port_writes", bus.ports[1]),
        ("mmio_reads", bus.mmio[0]),
        ("mmio_writes", bus.mmio[1]),
        ("memory_writes", bus.memory[0]),
        ("memory_fills", bus.memory[1]),
        ("memory_reads", bus.memory[2]),
        ("irqs_fired", bus.irqs[0]),
        ("irqs_low", bus.irqs[1]),
        ("acknowledges", bus.acks),
        ("clock_steps", bus.steps),
    ]
}

/// A row a value, the name on the first.
fn rows(row: &mut impl FnMut(&str, &str), name: &str, values: &[String]) {
    for (n, value) in values.iter().enumerate() {
        row(if n == 0 { name } else { "" }, value);
    }
}

fn json(report: &ImportReport, output: &Path) -> String {
    let by_op = |value: &dyn Fn(BlockOp) -> u64| -> serde_json::Map<String, serde_json::Value> {
        BlockOp::ALL
            .into_iter()
            .filter(|op| report.ops.issues_of(*op) > 0)
            .map(|op| (op.name().to_owned(), value(op).into()))
            .collect()
    };
    let bus: serde_json::Map<_, _> = bus_rows(&report.ops.bus)
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| (name.to_owned(), count.into()))
        .collect();
    let document = json!({
        "schema": "qtrace.import/1",
        "trace": output.display().to_string(),
        "format": report.format,
        "interpretation": report.interpretation,
        "events": report.events,
        "ops": by_op(&|op| report.ops.issues_of(op)),
        "bytes": by_op(&|op| report.ops.bytes_of(op)),
        "completions": report.ops.completes,
        "marks": report.ops.marks,
        "bus": bus,
        "not_recorded": report.summary.not_recorded.names(),
        "losses": report.summary.losses,
        "notes": report.summary.notes,
        "cut": report.cut,
    });
    format!("{document:#}\n")
}
