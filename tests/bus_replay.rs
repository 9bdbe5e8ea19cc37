//! `qtrace replay --test mmio-trace` and `port-trace`, and the machine tap, as a user runs them.

mod common;

use std::path::Path;

use common::{expect, qtrace, repo, shared};
use serde_json::Value;

/// The machine of the SeaBIOS captures.
const SEABIOS: &str = "ram=64M,disks=16M,disk_slot=2,chips=full-serial";

/// The machine of the Linux boot: no debug console.
const LINUX: &str = "ram=256M,disks=16M,disk_slot=3,chips=full-debugcon";

fn replay(dir: &Path, code: i32, test: &str, options: &str) -> Value {
    let args = ["replay", "--test", test, "--format", "json", options];
    serde_json::from_str(&expect(dir, code, args)).expect("a JSON report")
}

fn number(report: &Value, path: &str) -> u64 {
    report.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {path}"))
}

/// Imports a capture of the shared folder; the name of the trace.
fn import(dir: &Path, name: &str) -> Option<&'static str> {
    let capture = shared(name)?;
    let capture = capture.to_str().expect("UTF-8");
    expect(dir, 0, ["import", capture, "-o", "t.qtrace", "--force"]);
    Some("t.qtrace")
}

/// Reads of modelled devices that are neither ignored nor wrong, of those that are not ignored.
fn exact(report: &Value) -> (u64, u64) {
    let reads = number(report, "/modelled/reads") - number(report, "/modelled/ignored");
    (reads - number(report, "/modelled/different"), reads)
}

#[test]
fn seabios_reads_what_it_read() {
    let dir = tempfile::tempdir().expect("a folder");
    for capture in ["boot-tcg.log.xz", "boot-tcg-ts.log.xz"] {
        let Some(trace) = import(dir.path(), &format!("seabios/{capture}")) else { return };
        let options = format!("tracefile={trace},{SEABIOS}");
        let report = replay(dir.path(), 0, "mmio-trace", &options);
        assert_eq!(number(&report, "/done/reads"), 891, "{capture}");
        let (right, reads) = exact(&report);
        println!("{capture}: {right} of {reads} reads of modelled devices are equal");
        assert!(right * 100 >= reads * 97, "{capture}: {}", report["mismatches"]);
        assert_eq!(right, reads, "{capture}: {}", report["mismatches"]);
        // Nothing is excused but counters: the ACPI timer, and the date where the log has no times.
        let timed = capture.contains("-ts");
        for region in report["regions"].as_array().expect("regions") {
            let excused = number(region, "/ignored") + number(region, "/within");
            let counts = region["name"] == "acpi-tmr" || region["name"] == "rtc" && !timed;
            assert!(excused == 0 || counts, "{region}");
        }
    }
}

/// The share that the golden file keeps: equal reads, and all.
fn golden() -> (u64, u64) {
    let text = std::fs::read_to_string(repo().join("tests/golden/virtio-raw-mmio.equal"));
    let text = text.expect("the golden file");
    let mut numbers = text.split_whitespace().map(|n| n.parse().expect("a number"));
    (numbers.next().expect("equal"), numbers.next().expect("all"))
}

#[test]
fn a_linux_boot_replays_fast_and_no_less_equal_than_before() {
    let dir = tempfile::tempdir().expect("a folder");
    let Some(trace) = import(dir.path(), "guest/virtio-raw-mmio.trace.xz") else { return };
    let options = format!("tracefile={trace},{LINUX},fail_below=99");
    let report = replay(dir.path(), 0, "mmio-trace", &options);
    let equal = number(&report, "/modelled/equal") + number(&report, "/foreign/equal");
    let reads = number(&report, "/done/reads");
    let (golden_equal, golden_reads) = golden();
    println!("{equal} of {reads} reads are equal; golden: {golden_equal}");
    assert_eq!(reads, golden_reads);
    assert!(equal >= golden_equal, "{equal} of {reads} reads are equal, were {golden_equal}");
    if equal > golden_equal {
        println!("better than tests/golden/virtio-raw-mmio.equal, which should say so");
    }
    let (right, reads) = exact(&report);
    assert!(right * 1000 >= reads * 998, "{right} of {reads}: {}", report["mismatches"]);
    assert!(number(&report, "/wall/elapsed_ns") < 5_000_000_000, "{}", report["wall"]);
}

#[test]
fn reports_repeat_byte_for_byte_but_for_the_wall() {
    let dir = tempfile::tempdir().expect("a folder");
    let trace = repo().join("traces/seabios-pc.qtrace");
    let options = format!("tracefile={},{SEABIOS},report=r.json", trace.display());
    let report = || {
        let mut report = replay(dir.path(), 0, "mmio-trace", &options);
        let written = std::fs::read(dir.path().join("r.json")).expect("the report");
        let written: Value = serde_json::from_slice(&written).expect("JSON");
        assert_eq!(written, report);
        assert_eq!(report["schema"], "qtrace.bus-report/1");
        report.as_object_mut().expect("an object").remove("wall");
        report
    };
    assert_eq!(report(), report());
}

#[test]
fn exit_codes_are_those_of_every_command() {
    let dir = tempfile::tempdir().expect("a folder");
    let trace = repo().join("traces/seabios-pc.qtrace");
    let bus = format!("tracefile={}", trace.display());
    let block = format!("tracefile={}", repo().join("traces/linux-ext4-virtio.qtrace").display());
    for test in ["mmio-trace", "port-trace"] {
        replay(dir.path(), 0, test, &format!("{bus},{SEABIOS}"));
        // Another machine: less memory, no disk where there was one.
        let report = replay(dir.path(), 1, test, &bus);
        assert!(number(&report, "/verdict/divergences") > 0);
        replay(dir.path(), 0, test, &format!("{bus},fail_below=50"));
        let fails = |code: i32, options: &str, word: &str| {
            let out = qtrace(dir.path(), ["replay", "--test", test, options]);
            let stderr = String::from_utf8_lossy(&out.stderr);
            assert_eq!(out.status.code(), Some(code), "{options}: {stderr}");
            assert!(stderr.contains(word), "{options}: {stderr}");
        };
        fails(4, &block, "block-trace-virtio");
        fails(2, &format!("{bus},policy=rtc:perhaps"), "rtc:perhaps");
        fails(2, &format!("{bus},bord=pc"), "did you mean 'board'");
        fails(3, "tracefile=missing", "missing");
        let help = expect(dir.path(), 0, ["replay", "--test", test, "help"]);
        assert!(help.contains("acpi-tmr:ignore") && help.contains("fail_below"), "{help}");
    }
    let block_test = format!("{bus},target_fmt=mem");
    let out = qtrace(dir.path(), ["replay", "--test", "block-trace-virtio", &block_test]);
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("mmio-trace"), "{stderr}");
    let list = expect(dir.path(), 0, ["replay", "--test", "?"]);
    assert!(list.contains("port-trace") && list.contains("mmio-trace"), "{list}");
}

#[test]
fn a_tap_of_tests_is_a_trace_for_each() {
    let dir = tempfile::tempdir().expect("a folder");
    expect(
        dir.path(),
        0,
        ["test", "--tap", "taps", "rtc/ram", "virtio-blk/basic-*", "virtio-blk/resize"],
    );
    let taps: Vec<_> = std::fs::read_dir(dir.path().join("taps"))
        .expect("a folder")
        .map(|entry| entry.expect("entry").path())
        .collect();
    assert_eq!(taps.len(), 4, "{taps:?}");
    for tap in taps {
        let name = tap.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(name.ends_with(".qtrace"), "{name}");
        let options = format!("tracefile={}", tap.display());
        let report = replay(dir.path(), 0, "mmio-trace", &options);
        assert!(number(&report, "/verdict/checks") > 0, "{name}");
        assert_eq!(number(&report, "/verdict/divergences"), 0, "{name}");
    }
}

#[test]
fn the_text_of_a_report_names_what_differs() {
    let dir = tempfile::tempdir().expect("a folder");
    let trace = repo().join("traces/seabios-pc.qtrace");
    let options = format!("tracefile={},{SEABIOS},chips=full-serial-rtc", trace.display());
    let out = qtrace(dir.path(), ["replay", "--test", "mmio-trace", options.as_str()]);
    assert_eq!(out.status.code(), Some(2), "an option twice is refused");
    let options = format!("tracefile={},chips=full-serial,ram=64M", trace.display());
    let text = expect(dir.path(), 1, ["replay", "--test", "mmio-trace", options.as_str()]);
    for want in [
        "pci-conf-data [00:02.0]+00: different",
        "expected 0x1af4, got 0xffff",
        "not modelled",
        "equal reads",
        "FAIL:",
    ] {
        assert!(text.contains(want), "'{want}' is not in\n{text}");
    }
}

#[test]
fn a_trace_that_was_cut_is_not_a_pass() {
    let dir = tempfile::tempdir().expect("a folder");
    let whole = std::fs::read(repo().join("traces/seabios-pc.qtrace")).expect("the bundled trace");
    std::fs::write(dir.path().join("cut.qtrace"), &whole[..whole.len() - 100]).expect("written");
    let report = replay(dir.path(), 7, "mmio-trace", &format!("tracefile=cut.qtrace,{SEABIOS}"));
    assert_eq!(report["complete"], false);
    assert_eq!(report["verdict"]["pass"], true);
}
