//! A QEMU that is killed in the middle of a replay: told of as what it was, and nothing is left.

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::process::{child_with, finish, gone};
use common::{QTRACE, qtest_qemu, repo};
use qtrace::base::Prng;

const KILLS: u64 = 50;
/// Moments of a kill, counted from QEMU's first.
const WITHIN: Duration = Duration::from_millis(400);
const SEED: u64 = 1;

/// A replay that would last for minutes.
fn start(dir: &Path) -> Child {
    let trace = repo().join("traces/linux-ext4-virtio.qtrace");
    let options = format!(
        "tracefile={},target_img=disk.raw,target_fmt=raw,loops=1000000,verify=reads",
        trace.display()
    );
    Command::new(QTRACE)
        .args(["replay", "--machine", "qemu,accel=qtest", "--format", "json"])
        .args(["--test", "block-trace-virtio", &options])
        .current_dir(dir)
        .env("TMPDIR", dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("qtrace runs")
}

#[test]
fn a_kill_at_any_moment_is_told_of_and_leaves_nothing() {
    if !qtest_qemu() {
        return;
    }
    println!("seed {SEED}");
    let mut prng = Prng::new(SEED);
    let (mut early, mut found) = (0, 0);
    for round in 0..KILLS {
        let dir = tempfile::tempdir().unwrap();
        let mut replay = start(dir.path());
        let qemu = child_with(&mut replay, "virtio-blk-pci");
        let moment = Duration::from_nanos(prng.below(WITHIN.as_nanos() as u64));
        // The moment itself is what is tried.
        std::thread::sleep(moment);
        let pid = nix::unistd::Pid::from_raw(qemu);
        nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).unwrap();
        let out = finish(replay);
        let stderr = String::from_utf8_lossy(&out.stderr);
        match out.status.code() {
            Some(1) => {
                let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
                let finding = &report["verdict"]["findings"][0];
                assert_eq!(finding["kind"], "machine_died", "round {round}: {report}");
                let what = &finding["obituary"]["what"];
                assert_eq!((&what["kind"], &what["number"]), (&"signal".into(), &9.into()));
                found += 1;
            }
            Some(5) => {
                assert!(stderr.contains("signal 9 (SIGKILL)"), "round {round}: {stderr}");
                early += 1;
            }
            other => panic!("round {round}, {moment:?}: exit {other:?}: {stderr}"),
        }
        assert!(!Path::new(&format!("/proc/{qemu}")).exists(), "round {round}: not reaped");
        let left = std::fs::read_dir(dir.path()).unwrap().flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
        assert!(left.iter().all(|name| name == "disk.raw"), "round {round}: {left:?}");
    }
    println!("{found} were killed in mid-replay, {early} before the first request");
    assert!(found >= KILLS / 2, "{found} kills met the replay");
}

/// However qtrace itself ends, QEMU does not outlive it.
#[test]
fn a_qtrace_that_is_killed_takes_qemu_along() {
    if !qtest_qemu() {
        return;
    }
    for signal in [nix::sys::signal::SIGKILL, nix::sys::signal::SIGINT] {
        let dir = tempfile::tempdir().unwrap();
        let mut replay = start(dir.path());
        let qemu = child_with(&mut replay, "virtio-blk-pci");
        let pid = nix::unistd::Pid::from_raw(replay.id() as i32);
        nix::sys::signal::kill(pid, signal).unwrap();
        let out = finish(replay);
        if signal == nix::sys::signal::SIGINT {
            assert_eq!(out.status.code(), Some(130), "{out:?}");
        }
        gone(qemu, &format!("a {signal}"));
    }
}
