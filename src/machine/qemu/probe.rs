//! Which QEMUs are here, and how each can stand without a guest.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::start::{self, Start};
use crate::base::{Error, Result, stop};
use crate::machine::child::is_program;

/// The variable that names a QEMU to be tried before all others.
pub const BINARY_VARIABLE: &str = "QTRACE_QEMU";

/// Names looked for in `PATH`.
const NAMES: &[&str] = &["qemu-system-x86_64", "qemu-system-i386", "qemu-kvm"];

/// Places outside of `PATH`: Debian's qemu-system-xen, which has the qtest accelerator, and
/// Fedora's and SUSE's packages.
const PLACES: &[&str] = &[
    "/usr/libexec/xen-qemu-system-i386",
    "/usr/lib/xen/bin/qemu-system-i386",
    "/usr/libexec/qemu-kvm",
    "/usr/lib/qemu/qemu-system-x86_64",
];

/// A probe is an empty machine: it starts at once or not at all.
const PROBE_PATIENCE: Duration = Duration::from_secs(20);

/// How QEMU's devices run while no guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// The qtest accelerator: no CPU runs, and the virtual clock is the test's.
    Qtest,
    /// TCG, never started: devices answer, timers stand still.
    TcgPaused,
    /// TCG with a CPU that halts in its first instructions: timers run in real time.
    TcgHalted,
}

impl Mode {
    /// All, the best first.
    pub const ALL: [Self; 3] = [Self::Qtest, Self::TcgPaused, Self::TcgHalted];

    /// The name in options and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qtest => "qtest",
            Self::TcgPaused => "tcg-paused",
            Self::TcgHalted => "tcg-halted",
        }
    }

    /// What `-accel` is told.
    pub fn accelerator(self) -> &'static str {
        match self {
            Self::Qtest => "qtest",
            Self::TcgPaused | Self::TcgHalted => "tcg",
        }
    }

    /// What cannot be had in this mode.
    pub fn lacks(self) -> &'static str {
        match self {
            Self::Qtest => "nothing",
            Self::TcgPaused => "time: its timers stand still",
            Self::TcgHalted => "a clock that tests move: its timers run in real time",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A QEMU that is here.
#[derive(Clone, Debug)]
pub struct Found {
    /// The program.
    pub binary: PathBuf,
    /// Each mode: the version that started in it, or why it did not.
    pub modes: Vec<(Mode, Probed)>,
}

/// The QEMUs that are here, in the order in which they are tried.
pub fn candidates() -> Vec<PathBuf> {
    if let Some(named) = std::env::var_os(BINARY_VARIABLE).filter(|name| !name.is_empty()) {
        return vec![named.into()];
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let named = NAMES.iter().flat_map(|name| folders.iter().map(move |dir| dir.join(name)));
    let mut found: Vec<PathBuf> = Vec::new();
    for path in named.chain(PLACES.iter().map(PathBuf::from)) {
        if is_program(&path) && !found.contains(&path) {
            found.push(path);
        }
    }
    found
}

/// What a probe found: the version, or why there is none.
pub type Probed = std::result::Result<String, String>;

/// Tries a mode by starting an empty machine: what QEMU says of itself leaves qtest out. The
/// version, or why not; asked once in a process.
pub fn probe(binary: &Path, mode: Mode) -> Probed {
    type Known = BTreeMap<(PathBuf, Mode), (Probed, Answers)>;
    static KNOWN: Mutex<Known> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let of = |mode| (binary.to_path_buf(), mode);
    if let Some((probed, _)) = known.get(&of(mode)) {
        return probed.clone();
    }
    // What is silent in one mode is so in all, and each costs the whole patience.
    let mut others = Mode::ALL.iter().filter_map(|other| known.get(&of(*other)));
    let silent = others.find(|(_, answers)| *answers == Answers::Nothing).cloned();
    let (probed, answers) = silent.unwrap_or_else(|| try_mode(binary, mode));
    if !stop::is_wanted() {
        known.insert(of(mode), (probed.clone(), answers));
    }
    probed
}

/// Whether a program answers at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    /// It does, or it ends.
    Something,
    /// It neither speaks nor ends.
    Nothing,
}

fn try_mode(binary: &Path, mode: Mode) -> (Probed, Answers) {
    let args = ["-nodefaults", "-no-user-config", "-display", "none", "-machine", "none", "-accel"];
    let mut args: Vec<String> = args.map(str::to_owned).to_vec();
    args.push(mode.accelerator().to_owned());
    match start::start(Start::new(binary, args, PROBE_PATIENCE)) {
        Ok(started) => (Ok(started.qmp.version().to_owned()), Answers::Something),
        Err(not) => {
            let answers = if not.is_silent { Answers::Nothing } else { Answers::Something };
            (Err(not.error.to_string()), answers)
        }
    }
}

/// A binary that has the mode (or the best there is), and the mode.
///
/// # Errors
/// A machine error that says what was tried, and what to install. Interrupted, when the user wants
/// to stop.
pub fn choose(binary: Option<&Path>, mode: Option<Mode>) -> Result<(PathBuf, Mode)> {
    let binaries = binary.map_or_else(candidates, |path| vec![path.to_path_buf()]);
    let modes = mode.map_or(Mode::ALL.to_vec(), |mode| vec![mode]);
    let mut failures = Vec::new();
    for mode in modes {
        for binary in &binaries {
            match probe(binary, mode) {
                Ok(_) => return Ok((binary.clone(), mode)),
                Err(_) if stop::is_wanted() => return Err(start::stopped().path(binary)),
                Err(why) => failures.push((binary.as_path(), mode, why)),
            }
        }
    }
    let error = match failures.is_empty() {
        true => Error::machine("machine 'qemu' is not available: no QEMU was found"),
        false => Error::machine(format!("machine 'qemu' is not available: {}", tried(&failures))),
    };
    Err(error.hint(
        "install one with the qtest accelerator (Debian: qemu-system-xen), or name it: \
         --machine qemu,binary=PATH; `qtrace doctor` tells what is here",
    ))
}

/// What failed, with what is the same in several modes said once.
fn tried(failures: &[(&Path, Mode, String)]) -> String {
    let mut said: Vec<(&Path, &str, Vec<&str>)> = Vec::new();
    for (binary, mode, why) in failures {
        match said.iter_mut().find(|(path, before, _)| path == binary && before == why) {
            Some((.., modes)) => modes.push(mode.name()),
            None => said.push((binary, why, vec![mode.name()])),
        }
    }
    let line = |(binary, why, modes): &(&Path, &str, Vec<&str>)| {
        // Errors of a start name the program themselves.
        let binary = binary.display().to_string();
        let why = why.strip_prefix(&format!("{binary}: ")).unwrap_or(why);
        format!("{binary} ({}): {why}", modes.join(", "))
    };
    said.iter().map(line).collect::<Vec<_>>().join("; ")
}

/// Every QEMU that is here with every mode tried.
pub fn survey() -> Vec<Found> {
    let look = |binary: PathBuf| {
        let modes = Mode::ALL.iter().map(|mode| (*mode, probe(&binary, *mode))).collect();
        Found { binary, modes }
    };
    candidates().into_iter().map(look).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_said_with_what_helps() {
        let error = choose(Some(Path::new("/nonexistent/qemu")), None).unwrap_err();
        assert_eq!(error.kind().exit_code(), 5);
        let text = error.to_string();
        assert!(text.contains("/nonexistent/qemu (qtest, tcg-paused, tcg-halted): "), "{text}");
        assert_eq!(text.matches("/nonexistent/qemu").count(), 1, "{text}");
        assert_eq!(text.matches("cannot be started").count(), 1, "{text}");
        assert!(error.hint_text().unwrap().contains("qemu-system-xen"));
    }

    #[test]
    fn what_a_program_says_on_stdout_is_told() {
        let why = probe(Path::new("/bin/echo"), Mode::Qtest).unwrap_err();
        assert!(why.contains("exit status 0") && why.contains("-nodefaults"), "{why}");
    }

    #[test]
    fn what_is_no_qemu_is_not_taken_for_one() {
        for binary in ["/bin/true", "/bin/false", "/bin/cat"] {
            let why = probe(Path::new(binary), Mode::Qtest).unwrap_err();
            assert!(!why.is_empty(), "{binary}");
        }
    }
}
