//! The command line: one file per subcommand. Progress and colour live here and nowhere else.

pub mod diff;
pub mod doctor;
pub mod edit;
pub mod export;
pub mod import;
pub mod info;
pub mod progress;
pub mod record;
pub mod replay;
pub mod select;
pub mod show;
mod signals;
pub mod test;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::base::terminal::printable_lines;

use crate::base::{Error, Result};

/// Replay block and device I/O traces against real device models, and check every byte.
#[derive(Debug, Parser)]
#[command(name = "qtrace", version, about, max_term_width = 100, arg_required_else_help = true)]
#[command(before_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  qtrace import vda.blklogwrites.gz -o t.qtrace
  qtrace info t.qtrace
  qtrace show t.qtrace --op write --range 1M-2M
  qtrace replay --test block-trace-virtio tracefile=t.qtrace,target_img=d.qcow2,target_fmt=qcow2
  qtrace diff d.qcow2 want.raw
  qtrace record machine -o rtc.qtrace --test rtc/drift
  qtrace test rtc
  qtrace doctor";

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Read a foreign trace and write a .qtrace.
    Import(import::Args),
    /// Make a trace of one or several: cut, select, move, scale, merge, anonymise.
    Edit(edit::Args),
    /// Write a .qtrace as a foreign trace.
    Export(export::Args),
    /// Say what a trace holds and what it lacks.
    Info(info::Args),
    /// Print the events of a trace, all or some of them.
    Show(show::Args),
    /// Replay a trace through a device model onto a disk image, and check the result.
    Replay(replay::Args),
    /// Record what a real system does as a .qtrace.
    Record(record::Args),
    /// Run the tests of device models.
    Test(test::Args),
    /// Compare two images, two reports or two traces.
    Diff(diff::Args),
    /// Tell which machines work here, and what to install for those that do not.
    Doctor(doctor::Args),
}

/// How results are printed on stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON document, or where there is no end to it, an object a line.
    Json,
}

/// Parses the arguments, runs the command and prints its error, if any, on stderr.
pub fn main() -> ExitCode {
    signals::install();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    init_logging(match &cli.command {
        // Tests send what a device warns of: that it does is no news.
        Command::Test(_) => "error",
        Command::Record(args) if args.is_test() => "error",
        _ => "warn",
    });
    match run(cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            print_error(&error);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

fn run(command: Command) -> Result<u8> {
    match command {
        Command::Import(args) => import::run(&args),
        Command::Edit(args) => edit::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Show(args) => show::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Record(args) => record::run(&args).map_err(in_words_of_options),
        Command::Test(args) => test::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Doctor(args) => doctor::run(&args),
    }
}

/// The hints about an image name the option of a replay.
fn in_words_of_options(error: Error) -> Error {
    match error.hint_text() {
        Some(hint) if hint.contains("allow_backing=on") => {
            let hint = hint.replace("allow_backing=on", "--allow-backing");
            error.hint(hint)
        }
        _ => error,
    }
}

fn print_error(error: &Error) {
    // eprintln! would panic where stderr is closed.
    let mut err = std::io::stderr().lock();
    let _ = writeln!(err, "qtrace: {}", printable_lines(&error.to_string()));
    if let Some(hint) = error.hint_text() {
        let _ = writeln!(err, "  hint: {}", printable_lines(hint));
    }
}

fn init_logging(default: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("QTRACE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    let _ =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}
