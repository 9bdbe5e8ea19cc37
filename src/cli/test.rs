//! `qtrace test`.

mod against;
pub(super) mod list;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::replay::{print, stop_on_signal};
use crate::base::units::parse_nanos;
use crate::base::{ErrorKind, Result};
use crate::record::tap_dir::TapDir;
use crate::report::{json, junit, suite_text, tap};
use crate::suite::around::Around;
use crate::suite::machines::MachineChoice;
use crate::suite::registry::MODULES;
use crate::suite::runner::{self, RunOptions};
use crate::suite::select::{self, Modules};
use crate::suite::{CaseResult, SuiteReport};

const EXAMPLES: &str = "\
Examples:
  qtrace test                                         everything
  qtrace test rtc                                     the tests of one device
  qtrace test rtc/drift hz=1024,duration_ms=5000 pit  one case with options, then a device
  qtrace test clock=host 'hpet/*' '*/irq*'            globs; options before a name are for all
  qtrace test --machine builtin,type=q35 --seed 7 pci
  qtrace test --tap taps 'virtio-blk/*'               record what passes, as traces
  qtrace test --against qemu rtc 'pci/*'              compare two machines, access by access
  qtrace test --format junit --artifacts failures > tests.xml
  qtrace test '?'                                     every test with its options";

const EXIT_CODES: &str = "\
Exit codes:
  0  no case failed (some may be skipped)       5  the machine is not available
  1  a case failed, panicked, hung, differs     7  artifacts or reports cannot be written
  2  wrong usage                                130  interrupted; the report is partial
  4  every case was skipped";

/// Arguments of `qtrace test`.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES, after_help = EXIT_CODES)]
pub struct Args {
    /// Tests to run in this order, each with its options behind it; '?' lists them.
    #[arg(value_name = "NAME [KEY=VALUE,...]")]
    pub words: Vec<String>,
    /// List the tests (or those named) instead of running them.
    #[arg(long)]
    pub list: bool,
    /// What they run on, with options; '?' lists the kinds.
    #[arg(long, value_name = "NAME[,KEY=VALUE]", default_value = "builtin")]
    pub machine: String,
    /// Another machine: what each case does to the first is done to both, and compared access by
    /// access. What may differ, and why, is listed by `qtrace replay --test mmio-trace help`.
    #[arg(long, value_name = "NAME[,KEY=VALUE]", conflicts_with = "fail_fast")]
    pub against: Option<String>,
    /// All randomness follows from it; a case draws the same whichever others run.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// The host's time after which a case counts as hung.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s")]
    pub deadline: Duration,
    /// Keep bus log, images and finding of each failure in a folder of DIR.
    #[arg(long, value_name = "DIR")]
    pub artifacts: Option<PathBuf>,
    /// Record every case that has a machine of its own as DIR/MODULE-CASE.qtrace, for
    /// `qtrace replay --test mmio-trace`.
    #[arg(long, value_name = "DIR")]
    pub tap: Option<PathBuf>,
    /// Stop at the first case that fails.
    #[arg(long)]
    pub fail_fast: bool,
    /// How the results are printed on stdout.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// The forms of a report of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people, case by case.
    #[default]
    Text,
    /// One JSON document.
    Json,
    /// The Test Anything Protocol, version 14.
    Tap,
    /// JUnit XML.
    Junit,
}

pub(super) fn duration(text: &str) -> std::result::Result<Duration, String> {
    match parse_nanos(text, 1_000_000_000) {
        Some(ns) if ns > 0 => Ok(Duration::from_nanos(ns)),
        _ => Err("a time such as 500ms, 60s or 2m".to_owned()),
    }
}

/// Runs the command; returns the exit code.
///
/// # Errors
/// Whatever kept the tests from being run.
pub fn run(args: &Args) -> Result<u8> {
    if args.machine == "?" {
        print(list::machines().as_bytes())?;
        return Ok(0);
    }
    let asked = args.words.iter().any(|word| is_help(word));
    if args.list || asked {
        print(list(MODULES, args)?.as_bytes())?;
        return Ok(0);
    }
    run_modules(MODULES, args, &*stop_on_signal()?)
}

fn is_help(word: &str) -> bool {
    matches!(word, "?" | "help" | "list")
}

fn list(modules: Modules, args: &Args) -> Result<String> {
    let names: Vec<&String> =
        args.words.iter().filter(|word| !is_help(word) && !word.contains('=')).collect();
    let mut cases = Vec::new();
    for name in &names {
        cases.extend(select::select(modules, Some(name))?);
    }
    if names.is_empty() {
        cases = select::select(modules, None)?;
    }
    match args.format {
        Format::Json => list::json(&cases),
        _ => Ok(list::text(&cases)),
    }
}

/// Runs tests of `modules` and prints the report; raising `stop` ends it early. The exit code.
///
/// # Errors
/// As [`run`].
pub fn run_modules(modules: Modules, args: &Args, stop: &AtomicBool) -> Result<u8> {
    if let Some(second) = &args.against {
        return against::run(modules, args, second, stop);
    }
    let plan = select::plan(modules, &args.words)?;
    let machine = MachineChoice::parse(&args.machine)?;
    if args.tap.is_some() {
        machine.can_be_tapped()?;
    }
    let options = RunOptions {
        seed: args.seed,
        deadline: args.deadline,
        artifacts: args.artifacts.clone(),
        fail_fast: args.fail_fast,
        around: args.tap.as_deref().map(around).transpose()?,
        ..RunOptions::new(machine)
    };
    options.machine.available()?;
    let mut printed = Ok(());
    let live = args.format == Format::Text;
    let report = runner::run(&plan, &options, stop, &mut |case: &CaseResult| {
        if live && printed.is_ok() {
            printed = print(suite_text::case(case).as_bytes());
        }
    })?;
    printed?;
    let rest = if live { suite_text::summary(&report) } else { render(&report, args.format)? };
    print(rest.as_bytes())?;
    let code = report.exit_code();
    if code == ErrorKind::Interrupted.exit_code() {
        let mut err = std::io::stderr().lock();
        let _ = writeln!(err, "qtrace: interrupted: the report is partial");
    }
    Ok(code)
}

fn around(folder: &Path) -> Result<Arc<dyn Around>> {
    Ok(Arc::new(TapDir::create(folder)?))
}

/// The whole report in one of its forms.
///
/// # Errors
/// The serialiser's own.
pub fn render(report: &SuiteReport, format: Format) -> Result<String> {
    match format {
        Format::Text => Ok(suite_text::render(report)),
        Format::Json => json::to_text(report),
        Format::Tap => Ok(tap::render(report)),
        Format::Junit => Ok(junit::render(report)),
    }
}
