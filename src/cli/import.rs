//! `qtrace import`.

use crate::base::{Error, Result};

/// Arguments of `qtrace import`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command; returns the exit code.
pub fn run(_args: &Args) -> Result<u8> {
    Err(Error::usage("not built yet"))
}
