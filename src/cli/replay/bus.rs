//! `qtrace replay --test port-trace` and `mmio-trace`.

use std::io::Write;

use serde::Serialize;

use super::{Args, print, stop_on_signal};
use crate::base::{ErrorKind, Result};
use crate::cli::Format;
use crate::cli::progress::Progress;
use crate::replay::bus::options::{Config, help};
use crate::replay::bus::{against, session};
use crate::report::{against_text, bus_text, json};
use crate::suite::machines::MachineChoice;

fn rendered<R: Serialize>(
    report: &R,
    format: Format,
    text: impl FnOnce(&R) -> String,
) -> Result<String> {
    match format {
        Format::Text => Ok(text(report)),
        Format::Json => json::to_text(report),
    }
}

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
    let mut tick = |done, total| {
        bar.get_or_insert_with(|| Progress::new("replaying", Some(total), false)).set(done);
    };
    let (text, code) = match &args.against {
        None => {
            let report = session::run(&config, &stop, &mut tick)?;
            (rendered(&report, args.format, bus_text::render)?, session::exit_code(&report))
        }
        Some(other) => {
            let other = MachineChoice::parse(other)?;
            let report = against::session::run(&config, &other, &stop, &mut tick)?;
            let code = against::session::exit_code(&report);
            (rendered(&report, args.format, against_text::render)?, code)
        }
    };
    drop(bar);
    print(text.as_bytes())?;
    if code == ErrorKind::Interrupted.exit_code() {
        let mut err = std::io::stderr().lock();
        let _ = writeln!(err, "qtrace: interrupted: the report is partial");
    }
    Ok(code)
}
