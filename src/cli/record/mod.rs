//! `qtrace record`: one file per source.

mod machine;

use clap::Subcommand;

use crate::base::Result;

const EXAMPLES: &str = "\
Examples:
  qtrace record machine -o rtc.qtrace --test rtc/drift hz=1024
  qtrace record machine -o blk.qtrace --machine qemu --test virtio-blk/resize";

/// Arguments of `qtrace record`.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES, arg_required_else_help = true)]
pub struct Args {
    /// What is recorded.
    #[command(subcommand)]
    pub source: Source,
}

impl Args {
    /// Whether a device test is run.
    pub(super) fn is_test(&self) -> bool {
        matches!(self.source, Source::Machine(_))
    }
}

/// What can be recorded.
#[derive(Debug, Subcommand)]
pub enum Source {
    /// What a device test does to its machine, and what the machine answers.
    Machine(machine::Args),
}

/// Runs the command; returns the exit code.
///
/// # Errors
/// Whatever kept the source from being recorded.
pub fn run(args: &Args) -> Result<u8> {
    match &args.source {
        Source::Machine(args) => machine::run(args),
    }
}
