//! How a machine that is a process came to its end, when it was not asked to.

use std::fmt;

/// Of stderr, what a report shows.
const STDERR_SHOWN: usize = 2000;

/// An end that nobody asked for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Obituary {
    /// What people call it: `QEMU`.
    #[serde(default = "qemu")]
    pub program: String,
    /// What ended.
    pub what: End,
    /// The end of its stderr.
    pub stderr: String,
    /// The last commands it was sent, oldest first, each with whether it was answered. Accesses
    /// to guest RAM are none.
    pub last_commands: Vec<(String, bool)>,
    /// Its command line, quoted for a shell.
    pub command: String,
}

/// Reports of before there were others.
fn qemu() -> String {
    "QEMU".to_owned()
}

/// The kinds of end.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum End {
    /// By a signal.
    Signal {
        /// Its number.
        number: i32,
        /// Its name: `SIGABRT`.
        name: String,
    },
    /// By itself.
    Exit {
        /// The exit status.
        status: i32,
    },
    /// It lives and does not answer; it was killed then.
    Hung {
        /// How long it was waited for, in milliseconds.
        waited_ms: u64,
    },
    /// It closed the connection. It is no process of ours: how it ended, if it did, is not known.
    Closed,
    /// It lives and does not speak the protocol; it was killed then.
    Broken {
        /// What it did.
        why: String,
    },
}

impl End {
    /// Of a process that ended.
    pub fn of(status: std::process::ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt;
        match status.signal() {
            Some(number) => {
                let name = nix::sys::signal::Signal::try_from(number);
                Self::Signal { number, name: name.map_or("", |s| s.as_str()).to_owned() }
            }
            None => Self::Exit { status: status.code().unwrap_or(-1) },
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal { number, name } => write!(f, "died of signal {number} ({name})"),
            Self::Exit { status } => write!(f, "ended with exit status {status}"),
            Self::Hung { waited_ms } => {
                write!(f, "hung: no answer for {:.1} s", *waited_ms as f64 / 1000.0)
            }
            Self::Closed => write!(f, "closed the connection"),
            Self::Broken { why } => write!(f, "broke the protocol: {why}"),
        }
    }
}

impl Obituary {
    /// `died of signal 6 (SIGABRT): the last line of stderr`.
    pub fn summary(&self) -> String {
        match self.stderr.trim().lines().last() {
            Some(line) => format!("{} {}: {line}", self.program, self.what),
            None => format!("{} {}", self.program, self.what),
        }
    }

    /// Everything, in lines for people.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{} {}", self.program, self.what)];
        if !self.last_commands.is_empty() {
            lines.push("last commands:".to_owned());
        }
        for same in self.last_commands.chunk_by(|a, b| a == b) {
            let Some((command, answered)) = same.first() else { continue };
            let times =
                if same.len() > 1 { format!("    ({} times)", same.len()) } else { String::new() };
            let mark = if *answered { "" } else { "    (not answered)" };
            lines.push(format!("  {command}{times}{mark}"));
        }
        let stderr = self.stderr.trim();
        if !stderr.is_empty() {
            lines.push("stderr:".to_owned());
            let skip = stderr.len().saturating_sub(STDERR_SHOWN);
            let skip = (skip..).find(|at| stderr.is_char_boundary(*at)).unwrap_or(0);
            let shown = stderr.get(skip..).unwrap_or(stderr);
            lines.extend(shown.lines().map(|line| format!("  {line}")));
        }
        lines.push(format!("command: {}", self.command));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_with_what_came_before() {
        let obituary = Obituary {
            program: qemu(),
            what: End::Signal { number: 6, name: "SIGABRT".into() },
            stderr: "warning\nAssertion failed\n".into(),
            last_commands: vec![
                ("outb 0x70 0x1".into(), true),
                ("inb 0x71".into(), true),
                ("inb 0x71".into(), true),
                ("inb 0x71".into(), false),
            ],
            command: "qemu -M pc".into(),
        };
        assert_eq!(obituary.summary(), "QEMU died of signal 6 (SIGABRT): Assertion failed");
        let text = obituary.lines().join("\n");
        assert!(
            text.contains("  inb 0x71    (2 times)\n  inb 0x71    (not answered)\n")
                && text.contains("  warning\n")
        );
    }
}
