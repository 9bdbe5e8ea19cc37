//! What the tests of the program share.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod guest;
pub mod inputs;
pub mod kills;
pub mod process;
pub mod small_disk;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program under test.
pub const QTRACE: &str = env!("CARGO_BIN_EXE_qtrace");

/// The checkout.
pub fn repo() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the shared data folder beside the checkout, or `None` after printing why not.
pub fn shared(name: &str) -> Option<PathBuf> {
    let path = repo().join("../shared/data").join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not here", path.display());
    None
}

/// Whether a program can be run; prints why a check is skipped when not.
pub fn have(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        println!("skipped: {program} is not installed");
    }
    found
}

/// Whether there is a QEMU with the qtest accelerator; prints why a check is skipped when not.
pub fn qtest_qemu() -> bool {
    use qtrace::machine::qemu::{Mode, probe};
    match probe::choose(None, Some(Mode::Qtest)) {
        Ok(_) => true,
        Err(error) => {
            println!("skipped: {error}");
            false
        }
    }
}

/// Runs qtrace in `dir`.
pub fn qtrace<I: AsRef<std::ffi::OsStr>>(dir: &Path, args: impl IntoIterator<Item = I>) -> Output {
    Command::new(QTRACE).args(args).current_dir(dir).output().expect("qtrace runs")
}

/// Runs qtrace and insists on its exit code; returns stdout.
pub fn expect<I: AsRef<std::ffi::OsStr>>(
    dir: &Path,
    code: i32,
    args: impl IntoIterator<Item = I>,
) -> String {
    let out = qtrace(dir, args);
    let stdout = String::from_utf8_lossy(&out.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "stdout: {stdout}\nstderr: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    stdout
}

/// Runs `qtrace replay --test block-trace-virtio OPTIONS --format json`; the report.
pub fn replay(dir: &Path, code: i32, options: &str) -> serde_json::Value {
    let args = ["replay", "--test", "block-trace-virtio", "--format", "json", options];
    serde_json::from_str(&expect(dir, code, args)).expect("a JSON report")
}
