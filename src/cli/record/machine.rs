//! `qtrace record machine`.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::super::replay::{print, stop_on_signal};
use super::super::test::{Format, duration, render};
use crate::base::{Error, Result};
use crate::record::tap_file::{TapFile, Written};
use crate::suite::machines::MachineChoice;
use crate::suite::registry::MODULES;
use crate::suite::runner::{self, RunOptions};
use crate::suite::select::{self, Planned};

const EXAMPLES: &str = "\
Examples:
  qtrace record machine -o rtc.qtrace --test rtc/drift hz=1024,duration_ms=5000
  qtrace record machine -o blk.qtrace --machine qemu,type=q35 --test virtio-blk/resize
  qtrace replay --test mmio-trace tracefile=rtc.qtrace                replay it
  qtrace replay --machine qemu,type=q35 --test mmio-trace tracefile=blk.qtrace
  qtrace test '?'                                                     the tests there are
  qtrace test --tap DIR                                               record them all";

const EXIT_CODES: &str = "\
Exit codes:
  0  the test passed and is recorded           4  it was skipped: nothing is recorded
  1  it failed, panicked or hung: recorded     5  the machine is not available
  2  wrong usage                               7  the recording cannot be written
                                               130  interrupted";

/// Arguments of `qtrace record machine`.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES, after_help = EXIT_CODES)]
pub struct Args {
    /// Options of the test; '?' lists them.
    #[arg(value_name = "KEY=VALUE,...")]
    pub options: Vec<String>,
    /// The recording. It can be opened while it is made.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Replace the recording if it is there.
    #[arg(long)]
    pub force: bool,
    /// The test: one case, as MODULE/CASE.
    #[arg(long, value_name = "NAME")]
    pub test: String,
    /// What it runs on, with options.
    #[arg(long, value_name = "NAME[,KEY=VALUE]", default_value = "builtin")]
    pub machine: String,
    /// All randomness follows from it.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// The host's time after which the test counts as hung.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s")]
    pub deadline: Duration,
    /// How the result is printed on stdout.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Runs the command; returns the exit code.
///
/// # Errors
/// Whatever kept the test from being run and recorded.
pub fn run(args: &Args) -> Result<u8> {
    let plan = [planned(args)?];
    let is_file = args.output.metadata().map_or(true, |meta| meta.is_file());
    if !is_file {
        return Err(Error::usage("exists and is not a regular file").path(&args.output));
    }
    if args.output.exists() && !args.force {
        // Found before a machine is built.
        return Err(Error::usage("the output exists")
            .path(&args.output)
            .hint("--force replaces it"));
    }
    let tap = Arc::new(TapFile::new(&args.output, &args.machine, args.force));
    let options = RunOptions {
        seed: args.seed,
        deadline: args.deadline,
        around: Some(Arc::clone(&tap) as _),
        ..RunOptions::new(MachineChoice::parse(&args.machine)?)
    };
    options.machine.can_be_tapped()?;
    options.machine.available()?;
    let report = runner::run(&plan, &options, &*stop_on_signal()?, &mut |_| ())?;
    print(render(&report, args.format)?.as_bytes())?;
    tell(args, &tap);
    Ok(report.exit_code())
}

/// The one case that the arguments name.
fn planned(args: &Args) -> Result<Planned> {
    let words: Vec<String> = [&args.test].into_iter().chain(&args.options).cloned().collect();
    if let Some(name) = args.options.iter().find(|word| !word.contains('=')) {
        return Err(Error::usage(format!("'{name}' is no option of a test"))
            .hint("a recording is of one test: --test NAME KEY=VALUE,…"));
    }
    let mut plan = select::plan(MODULES, &words)?;
    if plan.len() > 1 {
        let names: Vec<String> = plan.iter().take(3).map(Planned::name).collect();
        let (name, count) = (&args.test, plan.len());
        let what = format!("'{name}' names {count} tests, a recording holds one");
        return Err(Error::usage(what).hint(format!(
            "name one of them, such as {}; qtrace test --tap DIR records each in its file",
            names.join(", ")
        )));
    }
    plan.pop().ok_or_else(|| Error::usage(format!("there is no test '{}'", args.test)))
}

/// Says on stderr what there is now and what it is good for.
fn tell(args: &Args, tap: &TapFile) {
    let mut err = std::io::stderr().lock();
    let (path, machine) = (args.output.display(), &args.machine);
    let _ = match tap.written() {
        Written::Whole => writeln!(
            err,
            "qtrace: recorded {path}; to replay it:\n  \
             qtrace replay --machine '{machine}' --test mmio-trace tracefile={path}"
        ),
        Written::Part => {
            writeln!(err, "qtrace: the test did not end: {path} holds what it did so far")
        }
        Written::Nothing => writeln!(err, "qtrace: nothing was recorded"),
    };
}
