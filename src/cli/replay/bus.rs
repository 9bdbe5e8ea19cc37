//! `qtrace replay --test port-trace` and `mmio-trace`.

use std::io::Write;

use super::{Args, print, stop_on_signal};
use crate::base::{ErrorKind, Result};
use crate::cli::Format;
use crate::cli::progress::Progress;
use crate::replay::bus::options::{Config, help};
use crate::replay::bus::session;
use crate::report::{bus_text, json};
use crate::suite::machines::MachineChoice;

/// Runs it; returns the exit code.
///
/// # Errors
/// Whatever kept the replay from being done.
pub(super) fn run(
    test: &'static str,
    machine: MachineChoice,
    args: &Args,
    texts: &[String],
) -> Result<u8> {
    if texts.iter().any(|text| super::is_help(text)) {
        print(help(test).as_bytes())?;
        return Ok(0);
    }
    let config = Config::parse_for(test, machine, texts)?;
    let stop = stop_on_signal()?;
    let mut bar: Option<Progress> = None;
    let report = session::run(&config, &stop, &mut |done, total| {
        bar.get_or_insert_with(|| Progress::new("replaying", Some(total), false)).set(done);
    });
    drop(bar);
    let report = report?;
    match args.format {
        Format::Text => print(bus_text::render(&report).as_bytes())?,
        Format::Json => print(json::to_text(&report)?.as_bytes())?,
    }
    let code = session::exit_code(&report);
    if code == ErrorKind::Interrupted.exit_code() {
        let mut err = std::io::stderr().lock();
        let _ = writeln!(err, "qtrace: interrupted: the report is partial");
    }
    Ok(code)
}
