//! The real guest that `tests/guest/build.sh` prepares: Linux under a QEMU that runs code (tcg).

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::repo;

/// Bytes of a disk that the exercises are happy with.
pub const DISK_BYTES: u64 = 24 << 20;

/// The guest kit.
pub struct GuestKit {
    dir: PathBuf,
}

/// The kit, or `None` after printing why it is not here.
pub fn guest_kit() -> Option<GuestKit> {
    let script = repo().join("tests/guest/build.sh");
    let out = Command::new("bash").arg(script).arg("--check").output().expect("bash runs");
    if out.status.success() {
        let dir = PathBuf::from(String::from_utf8_lossy(&out.stdout).trim_end());
        return Some(GuestKit { dir });
    }
    println!("skipped: {}", String::from_utf8_lossy(&out.stderr).trim_end());
    None
}

impl GuestKit {
    /// The QEMU, as a path to give to others.
    pub fn qemu(&self) -> String {
        self.path("qemu-system-x86_64")
    }

    /// The command line that boots the guest and runs `exercise` (a file of `tests/guest/exercise`) on
    /// its only disk, which is the caller's to add. The console is stdio.
    pub fn command_line(&self, exercise: &str) -> Vec<String> {
        let append = format!("console=ttyS0 quiet panic=-1 qtrace.run={exercise}");
        let mut line = vec![self.qemu()];
        line.extend(
            "-nodefaults -no-user-config -accel tcg -m 256 -display none"
                .split(' ')
                .map(Into::into),
        );
        line.extend(
            "-serial stdio -no-reboot -rtc base=2024-01-01,clock=vm".split(' ').map(Into::into),
        );
        let files = [("-kernel", self.path("vmlinuz")), ("-initrd", self.path("initrd"))];
        for (option, value) in files.into_iter().chain([("-append", append)]) {
            line.extend([option.into(), value]);
        }
        line
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).to_str().expect("a path in UTF-8").into()
    }
}

/// Runs a command line in `dir` with nothing on its stdin, and ends it after `seconds`.
pub fn run_within(dir: &Path, seconds: u32, line: &[String]) -> Output {
    Command::new("timeout")
        .args(["--kill-after=5".to_owned(), seconds.to_string()])
        .args(line)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .expect("timeout runs")
}

/// Insists that the guest ran its exercise to the end.
pub fn assert_done(out: &Output) {
    let console = String::from_utf8_lossy(&out.stdout);
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{}\n{console}\n{errors}", out.status);
    let done = console.lines().any(|line| line.trim_end() == "guest: done");
    assert!(done, "the guest did not finish:\n{console}\n{errors}");
}
