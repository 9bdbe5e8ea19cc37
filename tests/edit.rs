//! `qtrace edit`, as a user runs it.

mod common;

use std::path::Path;

use common::{expect, inputs, qtrace, replay, repo};
use serde_json::Value;

fn edit(dir: &Path, args: &[&str]) -> Value {
    let all = ["edit", "--format", "json"].iter().chain(args);
    serde_json::from_str(&expect(dir, 0, all)).expect("a JSON summary")
}

fn info(dir: &Path, trace: &str) -> Value {
    serde_json::from_str(&expect(dir, 0, ["info", trace, "--format", "json"])).expect("JSON")
}

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    inputs::write_all(dir.path());
    expect(dir.path(), 0, ["import", "vda.blklogwrites.gz", "-o", "vda.qtrace"]);
    expect(dir.path(), 0, ["import", "msr.csv", "-o", "msr.qtrace"]);
    dir
}

#[test]
fn an_edit_of_nothing_changes_no_event() {
    let dir = folder();
    let dir = dir.path();
    edit(dir, &["vda.qtrace", "-o", "same.qtrace"]);
    expect(dir, 0, ["diff", "vda.qtrace", "same.qtrace", "--ignore", "header"]);
    let said = &info(dir, "same.qtrace")["interpretation"];
    assert!(said.to_string().contains("edit: from vda.qtrace (22 events)"), "{said}");
}

#[test]
fn pseudonyms_replay_and_verify_as_the_data_did() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let trace = repo().join("traces/linux-ext4-virtio.qtrace");
    let trace = trace.to_str().expect("UTF-8");
    edit(dir, &[trace, "-o", "p.qtrace", "--payload", "pseudonym"]);
    let (before, after) = (info(dir, trace), info(dir, "p.qtrace"));
    assert_eq!(before["ops"], after["ops"]);
    assert_eq!(before["issues_with_payload"], after["issues_with_payload"]);
    let plain = replay(dir, 0, &format!("tracefile={trace},target_fmt=mem"));
    let report = replay(dir, 0, "tracefile=p.qtrace,target_fmt=mem");
    assert_eq!(report["verdict"]["pass"], true);
    assert_ne!(plain["image_sha256"], report["image_sha256"]);
    // Nothing that a file system is known by is left.
    let image = replay(dir, 0, "tracefile=p.qtrace,target_img=p.raw,target_fmt=raw");
    assert_eq!(image["image_sha256"], report["image_sha256"]);
    let raw = std::fs::read(dir.join("p.raw")).expect("an image");
    assert!(!raw.windows(10).any(|bytes| bytes == b"lost+found"));
}

#[test]
fn two_halves_merged_are_the_whole() {
    let dir = folder();
    let dir = dir.path();
    for (out, time) in [("a.qtrace", "-4.5ms"), ("b.qtrace", "4.5ms-")] {
        edit(dir, &["msr.qtrace", "-o", out, "--time", time]);
    }
    let summary = edit(dir, &["a.qtrace", "b.qtrace", "-o", "ab.qtrace"]);
    assert_eq!(summary["events"], 20);
    assert!(summary["changes"].to_string().contains("merged by wall clock"));
    let arguments = ["diff", "msr.qtrace", "ab.qtrace", "--ignore", "header,stream"];
    expect(dir, 0, arguments);
}

#[test]
fn mistakes_change_nothing() {
    let dir = folder();
    let dir = dir.path();
    std::os::unix::fs::symlink("vda.qtrace", dir.join("link.qtrace")).expect("linked");
    std::fs::hard_link(dir.join("vda.qtrace"), dir.join("hard.qtrace")).expect("linked");
    let before = std::fs::read(dir.join("vda.qtrace")).expect("a trace");
    for (args, code, says) in [
        (&["-o", "vda.qtrace", "--force"][..], 2, "is the input"),
        (&["-o", "link.qtrace", "--force"], 2, "is the input"),
        (&["-o", "hard.qtrace", "--force"], 2, "is the input"),
        (&["-o", "msr.qtrace"], 2, "--force"),
        (&["msr.qtrace", "-o", "x.qtrace"], 2, "--align start"),
        (&["msr.qtrace", "-o", "x.qtrace", "--events", "1-2", "--align", "start"], 2, "merge"),
        (&["-o", "x.qtrace", "--align", "start"], 2, "several"),
        (&["-o", "x.qtrace", "--key", "x"], 2, "pseudonym"),
        (&["-o", "x.qtrace", "--drop", "reads"], 2, "no kind of event 'reads'"),
        (&["-o", "x.qtrace", "--remap", "0-1M"], 2, "A-B=C"),
        (&["-o", "x.qtrace", "--shift", "-1s"], 2, "off the disk"),
        (&["-o", "x.qtrace", "--time-scale", "0"], 2, "1..=1000000"),
        (&["-o", "x.qtrace", "--op", "read"], 4, "no event"),
        (&["-o", "missing/x.qtrace"], 7, "temporary"),
    ] {
        let out = qtrace(dir, ["edit", "vda.qtrace"].iter().chain(args));
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(says) || stderr.contains("hint"), "{args:?}: {stderr}");
        assert!(stderr.contains(says), "{args:?}: {stderr}");
    }
    assert_eq!(std::fs::read(dir.join("vda.qtrace")).expect("a trace"), before);
    assert!(!dir.join("x.qtrace").exists());
    let entries = std::fs::read_dir(dir).expect("a folder");
    let parts = entries.filter(|entry| {
        entry.as_ref().expect("an entry").file_name().to_string_lossy().ends_with(".part")
    });
    assert_eq!(parts.count(), 0);
}
