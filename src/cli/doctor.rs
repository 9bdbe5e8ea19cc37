//! `qtrace doctor`.

use serde::Serialize;

use super::Format;
use super::replay::print;
use crate::base::Result;
use crate::machine::child;
use crate::machine::qemu::Mode;
use crate::machine::qemu::probe::{self, BINARY_VARIABLE};
use crate::machine::vhost_user::{find_storage_daemon, storage_daemon_version};
use crate::record::blk;
use crate::report::json;

const EXAMPLES: &str = "\
Examples:
  qtrace doctor                    what works here, and what to install for what does not
  qtrace doctor --format json      the same for a script
  QTRACE_QEMU=./qemu-system-x86_64 qtrace doctor";

const EXIT_CODES: &str = "\
Exit codes:
  0  builtin and a QEMU with the qtest accelerator work
  5  no QEMU here has the qtest accelerator; builtin works";

/// What has the qtest accelerator on a Debian.
const INSTALL: &str = "apt-get install qemu-system-xen (Debian), or any QEMU built with \
                       CONFIG_QTEST for Linux, which upstream's default build has";

/// Programs that other formats and comparisons go through.
const TOOLS: &[(&str, &str)] = &[
    ("qemu-img", "creates images of formats other than raw and qcow2 (Debian: qemu-utils)"),
    ("qemu-nbd", "opens images of formats other than raw and qcow2 (Debian: qemu-utils)"),
];

/// Arguments of `qtrace doctor`.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES, after_help = EXIT_CODES)]
pub struct Args {
    /// How the result is printed on stdout.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Findings {
    machines: Vec<MachineState>,
    taps: Vec<TapState>,
    tools: Vec<ToolState>,
    hints: Vec<String>,
}

/// A machine in one of its modes.
#[derive(Debug, Serialize)]
struct MachineState {
    machine: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    binary: Option<String>,
    works: bool,
    /// The version, or why it does not work.
    says: String,
    /// What cannot be had in this mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    lacks: Option<&'static str>,
}

/// A way of recording that not every machine has.
#[derive(Debug, Serialize)]
struct TapState {
    tap: &'static str,
    works: bool,
    /// What it records, or why it does not work.
    says: String,
}

/// A program that is asked for help.
#[derive(Debug, Serialize)]
struct ToolState {
    tool: &'static str,
    purpose: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
}

/// Runs the command; returns the exit code.
///
/// # Errors
/// The result cannot be printed.
pub fn run(args: &Args) -> Result<u8> {
    let findings = look();
    let text = match args.format {
        Format::Text => text(&findings),
        Format::Json => json::to_text(&findings)?,
    };
    print(text.as_bytes())?;
    let qtest = Some(Mode::Qtest.name());
    let found = findings.machines.iter().any(|state| state.mode == qtest && state.works);
    Ok(if found { 0 } else { 5 })
}

fn look() -> Findings {
    let mut machines = vec![MachineState {
        machine: "builtin",
        mode: None,
        binary: None,
        works: true,
        says: format!("qtrace {}", env!("CARGO_PKG_VERSION")),
        lacks: None,
    }];
    for found in probe::survey() {
        machines.extend(found.modes.into_iter().map(|(mode, result)| MachineState {
            machine: "qemu",
            mode: Some(mode.name()),
            binary: Some(found.binary.display().to_string()),
            works: result.is_ok(),
            says: match result {
                Ok(version) => format!("QEMU {version}"),
                Err(why) => why,
            },
            lacks: (mode != Mode::Qtest).then(|| mode.lacks()),
        }));
    }
    machines.push(vhost_user());
    let tools = TOOLS.iter().map(|(tool, purpose)| {
        let path = child::in_path(tool).map(|path| path.display().to_string());
        ToolState { tool, purpose, path }
    });
    let (tools, hints) = (tools.collect(), hints(&machines));
    Findings { machines, taps: vec![blk_tap()], tools, hints }
}

/// The kernel's tracer of block devices.
fn blk_tap() -> TapState {
    let (works, says) = match blk::available() {
        Ok(()) => (true, "block devices of this machine, by the kernel's tracer".to_owned()),
        Err(error) => {
            let hint = error.hint_text().map(|hint| format!("; {hint}")).unwrap_or_default();
            (false, format!("{error}{hint}"))
        }
    };
    TapState { tap: "record blk", works, says }
}

/// The server that is started for a vhost-user machine; one that runs already is its user's.
fn vhost_user() -> MachineState {
    let found = find_storage_daemon(None).and_then(|binary| {
        let version = storage_daemon_version(&binary)?;
        Ok((binary, version))
    });
    let (binary, works, says) = match found {
        Ok((binary, version)) => {
            (Some(binary.display().to_string()), true, format!("qemu-storage-daemon {version}"))
        }
        Err(error) => (None, false, error.to_string()),
    };
    let lacks = works.then_some("ports and registers: it has vrings");
    MachineState { machine: "vhost-user", mode: None, binary, works, says, lacks }
}

fn hints(machines: &[MachineState]) -> Vec<String> {
    let mut hints = Vec::new();
    let works = |mode: Mode| machines.iter().any(|m| m.mode == Some(mode.name()) && m.works);
    if machines.iter().all(|state| state.machine != "qemu") {
        hints.push(format!("no QEMU was found in PATH or where packages put one: {INSTALL}"));
    } else if !works(Mode::Qtest) {
        hints.push(format!("no QEMU here has the qtest accelerator: {INSTALL}"));
    }
    if !works(Mode::TcgPaused) {
        let how = "a QEMU with TCG gives the modes tcg-paused and tcg-halted";
        hints.push(format!("{how} (Debian: qemu-system-x86); qtest does without"));
    }
    if machines.iter().any(|state| state.machine == "vhost-user" && !state.works) {
        let how = "--machine vhost-user,server=qemu-storage-daemon needs qemu-storage-daemon";
        hints.push(format!("{how} (Debian: qemu-utils); vhost-user:SOCKET does without"));
    }
    hints.push(format!("another QEMU: --machine qemu,binary=FILE, or {BINARY_VARIABLE}=FILE"));
    hints
}

fn text(findings: &Findings) -> String {
    use std::fmt::Write;
    let mut out = String::from("machines\n");
    for state in &findings.machines {
        let mark = if state.works { "works" } else { "no   " };
        let mode = state.mode.map(|mode| format!(",accel={mode}")).unwrap_or_default();
        let name = format!("{}{mode}", state.machine);
        let _ = write!(out, "  {mark}  {name:24}");
        if let Some(binary) = &state.binary {
            let _ = write!(out, "  {binary}");
        }
        let says = state.says.strip_prefix(state.binary.as_deref().unwrap_or("\0"));
        let says = says.map_or(state.says.as_str(), |rest| rest.trim_start_matches(": "));
        let _ = write!(out, "  {says}");
        match state.lacks.filter(|_| state.works) {
            Some(lacks) => {
                let _ = writeln!(out, "; lacks {lacks}");
            }
            None => out.push('\n'),
        }
    }
    out.push_str("taps\n");
    for tap in &findings.taps {
        let mark = if tap.works { "works" } else { "no   " };
        let _ = writeln!(out, "  {mark}  {:24}  {}", tap.tap, tap.says);
    }
    out.push_str("tools\n");
    for tool in &findings.tools {
        let mark = if tool.path.is_some() { "works" } else { "no   " };
        let place = tool.path.as_deref().unwrap_or("not in PATH");
        let _ = writeln!(out, "  {mark}  {:24}  {place}: {}", tool.tool, tool.purpose);
    }
    out.push_str("hints\n");
    for hint in &findings.hints {
        let _ = writeln!(out, "  {hint}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builtin_always_works_and_what_does_not_says_why() {
        let findings = look();
        assert!(findings.machines.iter().any(|m| m.machine == "builtin" && m.works));
        assert!(findings.machines.iter().all(|m| !m.says.is_empty()));
        assert!(findings.taps.iter().all(|tap| tap.tap == "record blk" && !tap.says.is_empty()));
        let text = text(&findings);
        assert!(text.contains("  works  builtin ") && text.contains(BINARY_VARIABLE), "{text}");
    }

    #[test]
    fn what_to_install_is_told() {
        let told = hints(&[]).join("\n");
        assert!(told.contains("qemu-system-xen") && told.contains("qemu-system-x86"), "{told}");
    }
}
