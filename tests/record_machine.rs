//! `qtrace record machine`: a recording of one device test, and its replay.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use common::{QTRACE, expect, qtest_qemu, qtrace};
use qtrace::trace::{Event, Trace};
use serde_json::Value;

fn record(dir: &Path, machine: &str, test: &str, more: &[&str]) -> String {
    let args = ["record", "machine", "--force", "-o", "t.qtrace", "--machine", machine];
    let args = args.into_iter().chain(["--test", test]).chain(more.iter().copied());
    expect(dir, 0, args)
}

fn replay(dir: &Path, code: i32, machine: &str) -> Value {
    let args = ["replay", "--machine", machine, "--test", "mmio-trace", "--format", "json"];
    let text = expect(dir, code, args.into_iter().chain(["tracefile=t.qtrace"]));
    serde_json::from_str(&text).expect("a JSON report")
}

fn number(report: &Value, path: &str) -> u64 {
    report.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {path}"))
}

fn same_again(dir: &Path, machine: &str) {
    let report = replay(dir, 0, machine);
    assert!(number(&report, "/verdict/checks") > 0, "{report}");
    assert_eq!(number(&report, "/verdict/divergences"), 0, "{report}");
    assert_eq!(number(&report, "/done/left_out"), 0, "{report}");
    assert_eq!(report["complete"], true);
}

/// Messages for local APICs in the recording.
fn messages(dir: &Path) -> usize {
    let trace = Trace::open(&dir.join("t.qtrace")).expect("a trace");
    let mut cursor = trace.cursor(0);
    let mut count = 0;
    while let Some((_, event)) = cursor.next().expect("an event") {
        let name = &trace.streams()[event.stream().0 as usize].device;
        count += usize::from(matches!(event, Event::Irq(_)) && name.starts_with("apic:"));
    }
    count
}

#[test]
fn a_test_on_builtin_happens_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    for (machine, test, options) in [
        ("builtin", "rtc/ram", ""),
        ("builtin,type=q35", "virtio-blk/resize", ""),
        ("builtin", "pit/one-shot", "minimal=on"),
    ] {
        let options: Vec<&str> = [options].into_iter().filter(|text| !text.is_empty()).collect();
        let text = record(dir, machine, test, &options);
        assert!(text.contains("1 passed"), "{text}");
        same_again(dir, "builtin");
    }
    let trace = Trace::open(&dir.join("t.qtrace")).expect("a trace");
    let lines = &trace.header().interpretation;
    assert!(lines.contains(&"recorded: pit/one-shot".to_owned()), "{lines:?}");
    assert!(lines.contains(&"machine: builtin".to_owned()), "{lines:?}");
}

#[test]
fn messages_for_local_apics_are_recorded_and_compared() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    record(dir, "builtin", "ioapic/assert", &[]);
    assert_eq!(messages(dir), 1, "that of the level");
    same_again(dir, "builtin");
    // A machine without an I/O APIC sends none.
    let options = "tracefile=t.qtrace,chips=full-ioapic";
    let args = ["replay", "--test", "mmio-trace", "--format", "json", options];
    let report: Value = serde_json::from_str(&expect(dir, 1, args)).expect("a JSON report");
    let found = report["mismatches"].to_string();
    assert!(found.contains("apic:fee00000"), "{found}");
}

#[test]
fn a_test_on_qemu_happens_again_on_qemu() {
    if !qtest_qemu() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    for machine in ["qemu,accel=qtest", "qemu,accel=qtest,type=q35"] {
        for test in ["rtc/ram", "virtio-blk/resize", "pic/requests", "hpet/message"] {
            record(dir, machine, test, &[]);
            same_again(dir, machine);
        }
        record(dir, machine, "ioapic/edge", &[]);
        assert_eq!(messages(dir), 3, "one for each edge");
        same_again(dir, machine);
    }
}

#[test]
fn what_cannot_be_recorded_is_said_before_anything_runs() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let fails = |code: i32, args: &[&str], words: &[&str]| {
        let all = ["record", "machine", "-o", "t.qtrace"].iter().chain(args);
        let out = qtrace(dir, all);
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(words.iter().all(|word| stderr.contains(word)), "{args:?}: {stderr}");
    };
    fails(2, &["--test", "rtc"], &["rtc/", "--tap DIR"]);
    fails(2, &["--test", "rtc/rma"], &["did you mean 'rtc/ram'"]);
    fails(2, &["--test", "rtc/ram", "pit"], &["'pit'"]);
    fails(5, &["--test", "rtc/ram", "--machine", "vax"], &["vax"]);
    let vhost_user = ["--test", "virtio-blk/bounds", "--machine", "vhost-user:s"];
    fails(5, &vhost_user, &["no bus", "record vhost-user-blk"]);
    let out = qtrace(dir, ["test", "--tap", "taps", "--machine", "vhost-user:s"]);
    assert_eq!((out.status.code(), dir.join("taps").exists()), (Some(5), false));
    // The tap drives its machine from one thread.
    fails(4, &["--test", "virtio-blk/scale", "threads=2"], &["nothing was recorded"]);
    assert!(!dir.join("t.qtrace").exists());
    std::fs::write(dir.join("t.qtrace"), "mine").expect("written");
    fails(2, &["--test", "rtc/ram"], &["exists", "--force"]);
    assert_eq!(std::fs::read(dir.join("t.qtrace")).expect("read"), b"mine");
}

/// A recording that is killed leaves what it had written, which says that it is incomplete.
#[test]
fn a_recorder_that_is_killed_leaves_what_it_wrote() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("t.qtrace");
    // An hour of a kilohertz.
    let mut child = Command::new(QTRACE)
        .args(["record", "machine", "-o", "t.qtrace", "--test", "rtc/drift", "hz=1024"])
        .args(["duration_ms=3600000", "--deadline", "600s"])
        .current_dir(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("qtrace runs");
    let written = || Trace::open(&path).is_ok_and(|trace| trace.events() > 0);
    while !written() && child.try_wait().expect("its state").is_none() {
        std::thread::yield_now();
    }
    child.kill().expect("killed");
    child.wait().expect("reaped");
    let trace = Trace::open(&path).expect("it opens");
    assert!(trace.events() > 0 && trace.truncation().is_some());
    let report = replay(dir.path(), 7, "builtin");
    assert_eq!(report["complete"], false);
    assert_eq!(number(&report, "/verdict/divergences"), 0);
}
