//! Every fault that a target can have is reported as exactly that: kind, event, offset, exit 1.
//! Beside each stands the clean run that reports nothing.

mod common;

use std::path::Path;

use common::inputs::{self, Entry};
use common::{expect, replay};
use serde_json::Value;

/// Imports a log made of `entries` as `t.qtrace` and leaves the right disk as `want.raw`.
fn prepare(dir: &Path, entries: &[Entry]) {
    std::fs::write(dir.join("t.log"), inputs::log_writes(entries)).expect("written");
    std::fs::write(dir.join("want.raw"), inputs::disk_after(entries)).expect("written");
    expect(dir, 0, ["import", "t.log", "-o", "t.qtrace"]);
}

/// The one finding of a report.
fn only_finding(report: &Value) -> &Value {
    let findings = report["verdict"]["findings"].as_array().expect("findings");
    assert_eq!(findings.len(), 1, "{findings:#?}");
    &findings[0]
}

/// Three writes of which the second overlaps the first in part, and a last one elsewhere.
fn overlapping() -> Vec<Entry> {
    vec![
        inputs::write(8, 16, 0x11),
        inputs::write(16, 16, 0x22),
        inputs::write(inputs::DISK_BYTES / 512 - 8, 8, 0x33),
    ]
}

/// Replays with `fault`; the finding, after checking that the same run without it is clean.
fn finding_of(entries: &[Entry], fault: &str) -> Value {
    let dir = tempfile::tempdir().expect("a folder");
    prepare(dir.path(), entries);
    for depth in [1, 8] {
        let clean = format!("tracefile=t.qtrace,target_fmt=mem,iodepth={depth}");
        let report = replay(dir.path(), 0, &clean);
        assert_eq!(report["verdict"]["findings"].as_array().map(Vec::len), Some(0));
    }
    let options = format!("tracefile=t.qtrace,target_fmt=mem,iodepth=1,fault={fault}");
    only_finding(&replay(dir.path(), 1, &options)).clone()
}

#[test]
fn a_dropped_write_is_named() {
    let finding = finding_of(&overlapping(), "drop:1");
    assert_eq!(finding["fault"], "dropped_write", "{finding:#}");
    assert_eq!(finding["event"], 1);
    assert_eq!(finding["offset"], 16 * 512);
}

#[test]
fn a_torn_write_is_named() {
    let finding = finding_of(&overlapping(), "tear:2");
    assert_eq!(finding["fault"], "torn_write", "{finding:#}");
    assert_eq!(finding["event"], 2);
    assert_eq!(finding["offset"], inputs::DISK_BYTES - 4 * 512);
}

#[test]
fn swapped_overlapping_writes_are_named() {
    let finding = finding_of(&overlapping(), "swap:0");
    assert_eq!(finding["fault"], "swapped_writes", "{finding:#}");
    assert_eq!(finding["event"], 1);
    assert_eq!(finding["offset"], 16 * 512);
    assert_eq!(finding["found_writer"]["event"], 0);
}

#[test]
fn a_flipped_byte_is_named() {
    let finding = finding_of(&overlapping(), "flip:2");
    assert_eq!(finding["fault"], "flipped_bytes", "{finding:#}");
    assert_eq!(finding["event"], 2);
    assert_eq!(finding["flipped"][0], inputs::DISK_BYTES - 4 * 512);
    assert_eq!(finding["expected"].as_str().map(str::len), finding["got"].as_str().map(str::len));
}

#[test]
fn a_failed_write_is_named() {
    let finding = finding_of(&overlapping(), "error:1");
    assert_eq!(finding["kind"], "status_error", "{finding:#}");
    assert_eq!(finding["event"], 1);
    assert_eq!(finding["offset"], 16 * 512);
}

/// A write and a later read of the same place, from a format that carries no data: stamps.
#[test]
fn a_flipped_byte_under_a_later_read_is_seen_by_the_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let iolog = "fio version 2 iolog\nd add\nd open\nd write 0 8192\nd write 65536 4096\nd read 0 8192\nd close\n";
    std::fs::write(dir.path().join("t.iolog"), iolog).expect("written");
    expect(dir.path(), 0, ["import", "t.iolog", "-o", "t.qtrace"]);
    let options = "tracefile=t.qtrace,target_fmt=mem,verify=reads";
    replay(dir.path(), 0, options);
    let report = replay(dir.path(), 1, &format!("{options},fault=flip:0"));
    let finding = only_finding(&report);
    assert_eq!(finding["kind"], "data_mismatch", "{finding:#}");
    assert_eq!(finding["fault"], "flipped_bytes");
    assert_eq!(finding["event"], 2, "the read");
    assert_eq!(finding["flipped"][0], 4096);
    assert_eq!(finding["last_writer"]["event"], 0, "the write whose data it is");
}

#[test]
fn a_wrong_comparison_image_is_reported_as_that() {
    let dir = tempfile::tempdir().expect("a folder");
    prepare(dir.path(), &overlapping());
    let options = "tracefile=t.qtrace,target_fmt=mem,comparison_img=want.raw";
    replay(dir.path(), 0, options);
    let path = dir.path().join("want.raw");
    let mut want = std::fs::read(&path).expect("read");
    want[20 * 512 + 7] ^= 1;
    std::fs::write(&path, want).expect("written");
    let report = replay(dir.path(), 1, options);
    let finding = only_finding(&report);
    assert_eq!(finding["kind"], "comparison_mismatch", "{finding:#}");
    assert_eq!(finding["offset"].as_u64().map(|at| at / 512), Some(20));
    assert_eq!(finding["last_writer"]["event"], 1);
}

#[test]
fn diff_names_the_event_that_wrote_a_differing_extent() {
    let dir = tempfile::tempdir().expect("a folder");
    prepare(dir.path(), &overlapping());
    let options = "tracefile=t.qtrace,target_img=d.qcow2,target_fmt=qcow2";
    replay(dir.path(), 0, options);
    let same = expect(dir.path(), 0, ["diff", "d.qcow2", "want.raw", "--format", "json"]);
    assert!(same.contains('{'), "{same}");
    let path = dir.path().join("want.raw");
    let mut want = std::fs::read(&path).expect("read");
    want[9 * 512] ^= 1;
    std::fs::write(&path, want).expect("written");
    let args = ["diff", "d.qcow2", "want.raw", "--trace", "t.qtrace"];
    let text = expect(dir.path(), 1, args);
    assert!(text.contains("event 0"), "{text}");
}
