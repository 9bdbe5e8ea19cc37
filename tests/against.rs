//! Two machines compared as a user compares them: the builtin one and a real QEMU, which needs one
//! with the qtest accelerator.

mod common;

use std::path::Path;

use common::{expect, qtest_qemu, qtrace, repo, shared};
use serde_json::Value;

/// The machine of the bundled SeaBIOS capture.
const SEABIOS: &str = "ram=64M,disks=16M,disk_slot=2,chips=full-serial";
/// The machine of the Linux boot.
const LINUX: &str = "ram=256M,disks=16M,disk_slot=3,chips=full-debugcon";

const QEMU: &str = "qemu,accel=qtest";

fn replay(dir: &Path, code: i32, options: &str) -> Value {
    let args = ["--test", "mmio-trace", "--format", "json", "--against", QEMU, options];
    let text = expect(dir, code, ["replay"].into_iter().chain(args));
    serde_json::from_str(&text).expect("a JSON report")
}

fn seabios() -> String {
    format!("tracefile={},{SEABIOS}", repo().join("traces/seabios-pc.qtrace").display())
}

fn number(report: &Value, path: &str) -> u64 {
    report.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {path}"))
}

#[test]
fn firmware_finds_the_same_on_both_but_for_what_is_accepted() {
    if !qtest_qemu() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let report = replay(dir.path(), 0, &seabios());
    assert_eq!(report["schema"], "qtrace.against-report/1");
    assert_eq!(report["differences"], Value::Array(Vec::new()));
    assert_eq!(number(&report, "/both/reads"), 534);
    assert_eq!(number(&report, "/verdict/divergences"), 0);
    let machines = report["machines"].to_string();
    assert!(machines.contains("builtin board=pc") && machines.contains("(qtest)"), "{machines}");
    // What only one of them has is told apart, with the reason.
    let apart = report["regions"].as_array().expect("regions").iter();
    let apart: Vec<&str> =
        apart.filter(|region| region["both"] == false).filter_map(|r| r["name"].as_str()).collect();
    assert!(apart.contains(&"apic-msi") && apart.contains(&"ide"), "{apart:?}");
    assert!(report["notes"].to_string().contains("a local APIC answers its own CPU only"));
    // Each accepted difference has its reason, and they are the only ones.
    let accepted = report["accepted"].as_array().expect("groups");
    assert!(!accepted.is_empty());
    assert!(accepted.iter().all(|group| group["why"].as_str().is_some_and(|why| !why.is_empty())));
    let sum: u64 = accepted.iter().map(|group| number(group, "/count")).sum();
    assert_eq!(sum, number(&report, "/verdict/accepted"));
    let told = replay(dir.path(), 1, &format!("{},defaults=off", seabios()));
    assert_eq!(number(&told, "/verdict/divergences"), sum);
    assert_eq!(told["accepted"], Value::Array(Vec::new()));
}

#[test]
fn a_difference_is_told_with_its_device_register_and_both_values() {
    if !qtest_qemu() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let options = format!("{},defaults=off,policy=hept:ignore", seabios());
    let args = ["replay", "--test", "mmio-trace", "--against", QEMU, &options];
    let text = expect(dir.path(), 1, args);
    let floppies = text.lines().skip_while(|line| !line.starts_with("rtc [10]: different once"));
    let first = floppies.take(2).nth(1).unwrap_or_else(|| panic!("no floppies: {text}"));
    assert!(first.starts_with("  event ") && first.ends_with("A 0x50, B 0x00"), "{first}");
    assert!(text.contains("policy=hept…: the trace has no such region or device"), "{text}");
    assert!(text.lines().last().is_some_and(|line| line.contains("FAIL: ")), "{text}");
}

#[test]
fn a_linux_boot_reads_the_same_on_both() {
    if !qtest_qemu() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let Some(capture) = shared("guest/virtio-raw-mmio.trace.xz") else { return };
    expect(dir.path(), 0, ["import", capture.to_str().expect("UTF-8"), "-o", "t.qtrace"]);
    let report = replay(dir.path(), 0, &format!("tracefile=t.qtrace,{LINUX}"));
    assert_eq!(report["differences"], Value::Array(Vec::new()));
    assert!(number(&report, "/both/reads") > 58_000);
    assert_eq!(number(&report, "/both/different"), 0);
    assert!(number(&report, "/both/accepted") * 1000 < number(&report, "/both/reads"));
}

/// All modules on one type of board.
fn modules(board: &str) {
    if !qtest_qemu() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let machine = format!("builtin,type={board}");
    let args = ["test", "--machine", &machine, "--against", QEMU, "--format", "json"];
    let out = qtrace(dir.path(), args);
    let stderr = String::from_utf8_lossy(&out.stderr);
    let report: Value = serde_json::from_slice(&out.stdout).expect("a report");
    let cases = report["cases"].as_array().unwrap_or_else(|| panic!("no cases: {stderr}"));
    let fine = |case: &&Value| matches!(case["status"].as_str(), Some("same" | "skipped"));
    let wrong: Vec<&Value> = cases.iter().filter(|case| !fine(case)).collect();
    assert!(wrong.is_empty(), "{board}: {wrong:#?}");
    assert_eq!(out.status.code(), Some(0), "{stderr}");
    // What cannot be compared is one device, messages of timers, which the first machine has not,
    // what the board has not, and test threads.
    let skipped = cases.iter().filter(|case| case["status"] == "skipped");
    let others: Vec<&str> = skipped
        .filter_map(|case| case["case"].as_str())
        .filter(|name| !name.starts_with("lapic/"))
        .collect();
    let expected: &[&str] = match board {
        "pc" => &["hpet/message", "pci/ecam", "virtio-blk/scale"],
        _ => &["hpet/message", "virtio-blk/scale"],
    };
    assert_eq!(others, expected, "{board}");
    assert!(number(&report, "/summary/checks") > 200_000, "{}", report["summary"]);
    assert!(std::fs::read_dir(dir.path()).expect("the folder").next().is_none(), "files are left");
}

#[test]
fn every_module_does_the_same_on_a_pc() {
    modules("pc");
}

#[test]
fn every_module_does_the_same_on_a_q35() {
    modules("q35");
}

#[test]
fn what_cannot_be_compared_is_told_before_anything_runs() {
    let dir = tempfile::tempdir().expect("a folder");
    let fails = |code: i32, args: &[&str], words: &[&str]| {
        let out = qtrace(dir.path(), args);
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(words.iter().all(|word| stderr.contains(word)), "{args:?}: {stderr}");
    };
    let against = ["--against", "qemu"];
    fails(2, &[&["test", "rtc/ram", "--format", "tap"][..], &against].concat(), &["--format"]);
    fails(2, &[&["test", "rtc/ram", "--fail-fast"][..], &against].concat(), &["--fail-fast"]);
    fails(2, &["test", "rtc/ram", "--against", "qemu,ram=64M"], &["ram="]);
    fails(2, &["test", "rtc/ram", "--against", "vhost-user:s"], &["no bus"]);
    fails(5, &["test", "rtc/ram", "--against", "bultin"], &["'builtin'"]);
    fails(5, &["test", "rtc/ram", "--against", "qemu,binary=/nonexistent"], &["/nonexistent"]);
    let block = ["replay", "--test", "block-trace-virtio", "tracefile=t"];
    fails(2, &[&block[..], &against].concat(), &["mmio-trace"]);
}
