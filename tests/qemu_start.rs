//! What `--machine qemu` does before a QEMU stands there, and with one that has no qtest
//! accelerator.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{QTRACE, expect, qtrace};

/// What is waited for happens within this or never.
const LONG: Duration = Duration::from_secs(60);

fn script(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("qemu");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

/// Runs it until `ready`, interrupts it, and gives its exit status and how long that took.
fn interrupted(mut command: Command, ready: impl Fn() -> bool) -> (Option<i32>, Duration) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let end = Instant::now() + LONG;
    while !ready() {
        assert!(Instant::now() < end && child.try_wait().unwrap().is_none(), "never ready");
        std::thread::yield_now();
    }
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    let sent = Instant::now();
    nix::sys::signal::kill(pid, nix::sys::signal::SIGINT).unwrap();
    (child.wait().unwrap().code(), sent.elapsed())
}

#[test]
fn a_binary_that_is_silent_is_not_waited_for_once_the_user_wants_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let binary = script(path, "echo $$ > started; exec sleep 1000");
    let mut command = Command::new(QTRACE);
    command.args(["test", "--machine", &format!("qemu,binary={}", binary.display()), "pit"]);
    let started = path.join("started");
    let pid = || std::fs::read_to_string(&started).ok().and_then(|s| s.trim().parse::<u32>().ok());
    let (code, took) = interrupted(
        {
            command.current_dir(path);
            command
        },
        || pid().is_some(),
    );
    assert_eq!(code, Some(130));
    // Its patience with a silent binary is 20 s.
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert!(!Path::new(&format!("/proc/{}", pid().unwrap())).exists(), "left behind");
}

#[test]
fn a_recording_does_not_wait_for_a_silent_qemu_once_the_user_wants_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    let qemu = script(folder.path(), "echo >\"$0.ready\"; exec sleep 1000");
    let ready = folder.path().join("qemu.ready");
    let mut command = Command::new(QTRACE);
    command.args(["record", "qemu", "--bus", "-o"]).arg(folder.path().join("t.qtrace"));
    command.arg("--").arg(&qemu);
    let (code, _) = interrupted(command, || ready.exists());
    // Not that of a machine which did not answer in time.
    assert_eq!(code, Some(130));
    assert!(!folder.path().join("t.qtrace").exists());
}

#[test]
fn a_fifo_that_nobody_writes_is_given_up_when_the_user_wants_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("report.txt");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut command = Command::new(QTRACE);
    command.args(["replay", "--machine", "qemu", "--test", "qtest-log"]);
    command.arg("tracefile=report.txt").current_dir(folder.path());
    // A writer that does not wait finds a reader once the FIFO is open.
    let open = || {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = std::fs::File::options();
        options.write(true).custom_flags(nix::libc::O_NONBLOCK).open(&fifo).is_ok()
    };
    let (code, _) = interrupted(command, open);
    // The look of that writer ends the FIFO as an empty report, if the signal is the slower.
    assert!(matches!(code, Some(130 | 3 | 4)), "{code:?}");
}

#[test]
fn what_does_not_start_is_told_of_once_and_in_its_own_words() {
    let folder = tempfile::tempdir().unwrap();
    let binary = script(folder.path(), "echo this is no emulator; exit 3");
    let machine = format!("qemu,binary={}", binary.display());
    let out = qtrace(folder.path(), ["test", "--machine", &machine, "pit"]);
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(5), "{stderr}");
    assert_eq!(stderr.matches("this is no emulator").count(), 1, "{stderr}");
    assert!(stderr.contains("(qtest, tcg-paused, tcg-halted)"), "{stderr}");
}

/// A QEMU with TCG: the one that is named, or the one of the guest's kit.
fn tcg() -> Option<String> {
    let named = std::env::var("QTRACE_QEMU_TCG").ok().filter(|name| !name.is_empty());
    let kit = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/guest/qemu-system-x86_64");
    let found = named.or_else(|| kit.exists().then(|| kit.display().to_string()));
    if found.is_none() {
        println!("skipped: no QEMU with TCG (QTRACE_QEMU_TCG=FILE, or tests/guest/build.sh)");
    }
    found
}

#[test]
fn modes_without_the_qtest_accelerator_drive_devices() {
    let Some(binary) = tcg() else { return };
    let folder = tempfile::tempdir().unwrap();
    let trace = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces/linux-ext4-virtio.qtrace");
    for mode in ["tcg-paused", "tcg-halted"] {
        let machine = format!("qemu,accel={mode},binary={binary}");
        let text =
            expect(folder.path(), 0, ["test", "--machine", &machine, "pci", "rtc/registers"]);
        assert!(text.contains(" passed"), "{text}");
        let options = format!("tracefile={},target_fmt=mem", trace.display());
        let args = ["replay", "--machine", &machine, "--test", "block-trace-virtio", &options];
        let text = expect(folder.path(), 0, args);
        assert!(text.contains("verdict      PASS"), "{mode}: {text}");
    }
}
