//! Whether a QEMU can tell of its bus: the backends of its tracing are chosen when it is built.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::bus::pipe;
use super::command_line;
use crate::base::{Error, Result};
use crate::import::qemu_log::Live;
use crate::machine::qemu::start::{self, Start};

/// An empty machine starts at once or not at all.
const PATIENCE: Duration = Duration::from_secs(20);

/// An event that the probe itself sets off.
const SURE_EVENT: &str = "handle_qmp_command";

/// Starts an empty machine of the QEMU whose command line is `words` (perhaps behind a program that
/// runs it), on the accelerators that it names, and looks whether events of its bus come in its log.
/// Its version.
///
/// # Errors
/// A machine error that says what this QEMU lacks, and what to do.
pub fn bus_events(words: &[String]) -> Result<String> {
    let run = words.get(..command_line::start(words)).unwrap_or(words);
    let Some((program, before)) = run.split_first() else {
        return Err(Error::usage("there is no program to record"));
    };
    let (mut log, writer) = pipe()?;
    let mut args = before.to_vec();
    let empty = ["-nodefaults", "-no-user-config", "-display", "none", "-machine", "none"];
    args.extend(empty.map(str::to_owned));
    // One that was built without tcg has no other to fall back on.
    let accelerators = command_line::accelerators(words);
    args.extend(accelerators.into_iter().flat_map(|name| ["-accel".to_owned(), name.to_owned()]));
    args.extend(trace_arguments(&[SURE_EVENT], writer.as_raw_fd()));
    let writer = Arc::new(writer);
    let start = Start::new(Path::new(program), args, PATIENCE).fds(vec![Arc::clone(&writer)]);
    let mut qemu = start::start(start)?;
    drop(writer);
    let lacks = |what: String, hint: &str| Err(Error::machine(what).path(program).hint(hint));
    for event in Live::EVENTS {
        let state = qemu.qmp.execute("trace-event-get-state", json!({ "name": event }));
        let state =
            state.ok().and_then(|states| states.pointer("/0/state")?.as_str().map(str::to_owned));
        if !matches!(state.as_deref(), Some("enabled" | "disabled")) {
            return lacks(
                format!("this QEMU has no trace event {event}"),
                "it was built with tracing off (--enable-trace-backends=nop); Debian's has it",
            );
        }
    }
    // This command is there with the `simple` backend only; else the answer is that it is unknown.
    let help = json!({ "command-line": "help trace-file" });
    let help = qemu.qmp.execute("human-monitor-command", help).unwrap_or_default();
    let simple = help.as_str().is_some_and(|text| text.contains("trace-file on|off"));
    let version = qemu.qmp.version().to_owned();
    qemu.process.kill();
    let mut said = String::new();
    // The pipe does not block: what was written stands in it by now.
    let _ = log.read_to_string(&mut said);
    match (said.contains(SURE_EVENT), simple) {
        (true, false) => Ok(version),
        (true, true) => lacks(
            "this QEMU was built to trace to a file of its own as well as to its log".to_owned(),
            "use one with the `log` backend alone, such as Debian's",
        ),
        (false, _) => lacks(
            format!(
                "this QEMU does not trace to its log{}",
                if simple { ", but to a binary file" } else { "" }
            ),
            "use one with the `log` backend (QEMU's default; Debian's has it)",
        ),
    }
}

/// Arguments that make QEMU write `events`, with times, to the descriptor `fd` that it inherits.
pub fn trace_arguments(events: &[&str], fd: i32) -> Vec<String> {
    let mut args = vec!["-msg".to_owned(), "timestamp=on".to_owned()];
    args.extend(events.iter().flat_map(|event| ["-trace".to_owned(), format!("enable={event}")]));
    args.extend(["-D".to_owned(), format!("/proc/self/fd/{fd}")]);
    args
}

/// The ends of a pipe that a test or probe reads.
pub type Pipe = (File, OwnedFd);
