//! A machine's process: started with a few inherited descriptors, always reaped, its last words
//! kept, and its end told of.
//!
//! - `process`: the child itself; `ending`: what became of one that is lost.
//! - `qmp`: the monitor that QEMU and its storage daemon have.

pub mod ending;
pub mod process;
pub mod qmp;

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use crate::base::Error;
pub use process::{Launch, Process};

/// Why the connection to a process can be used no more.
#[derive(Debug)]
pub enum Lost {
    /// The other end closed the connection.
    Closed,
    /// It did not answer for so long.
    Silent(Duration),
    /// It sent what is not of the protocol.
    Babble(String),
    /// The system refused a call.
    Io(std::io::Error),
}

/// How long a process that closed its connections may take to be gone.
pub const END_PATIENCE: Duration = Duration::from_secs(5);
/// Lines of stderr in an error.
const STDERR_LINES: usize = 3;

/// A program of the `PATH`.
pub fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| is_program(path))
}

/// Whether the file at `path` can be run.
pub fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Why `binary`, which people call `name`, did not start: how it `ended` by itself, if it did. What
/// it said is worth more than what we saw of it.
pub fn why_not_started(
    (name, binary): (&str, &Path),
    process: &mut Process,
    ended: Option<ExitStatus>,
    seen: Error,
) -> Error {
    process.kill();
    let stderr = process.said();
    let said: Vec<&str> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    let first: Vec<String> = said.iter().take(STDERR_LINES).map(|line| shortened(line)).collect();
    let first = first.join(" / ");
    let error = match (ended, first.is_empty()) {
        (Some(status), false) => {
            let ended = process::ended(status);
            Error::machine(format!("{name} did not start ({ended}): {first}"))
        }
        (Some(status), true) => {
            let ended = process::ended(status);
            Error::machine(format!("{name} did not start ({ended}) and said nothing"))
        }
        (None, _) => Error::machine(format!("{name} did not start")).source(seen),
    };
    error.path(binary)
}

/// A line of QEMU's without the JSON of an option that it repeats.
fn shortened(line: &str) -> String {
    match (line.find(" {\""), line.rfind("}: ")) {
        (Some(from), Some(to)) if from < to => {
            let (before, after) = (line.get(..from), line.get(to + 1..));
            format!("{}{}", before.unwrap_or_default(), after.unwrap_or_default())
        }
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::shortened;

    #[test]
    fn what_qemu_repeats_is_left_out() {
        for (line, want) in [
            ("q: -blockdev {\"a\":{\"b\":1}}: no such: thing", "q: -blockdev: no such: thing"),
            ("q: -device x: what {\"", "q: -device x: what {\""),
            ("}: q {\"é", "}: q {\"é"),
            ("plain", "plain"),
        ] {
            assert_eq!(shortened(line), want);
        }
    }
}
