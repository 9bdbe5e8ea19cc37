//! The scripts in examples/ do what they say, and fail when they should.

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{QTRACE, expect, inputs, replay, repo};

fn script(dir: &Path, name: &str, args: &[&str]) -> Output {
    Command::new("sh")
        .arg(repo().join("examples").join(name))
        .args(args)
        .current_dir(dir)
        .env("QTRACE", QTRACE)
        .output()
        .expect("sh runs")
}

fn code(out: &Output) -> i32 {
    out.status.code().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&out.stderr)))
}

fn prepare(dir: &Path) {
    inputs::write_all(dir);
    expect(dir, 0, ["import", "vda.blklogwrites.gz", "-o", "t.qtrace"]);
}

#[test]
fn replay_and_check() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    prepare(dir);
    let report = replay(dir, 0, "tracefile=t.qtrace,target_fmt=mem");
    let golden = report["image_sha256"].as_str().expect("a hash");
    let out = script(dir, "replay-and-check.sh", &["t.qtrace", golden, "want.raw"]);
    assert_eq!(code(&out), 0, "{}", String::from_utf8_lossy(&out.stderr));
    let wrong = golden.replace(&golden[..4], "0bad");
    assert_eq!(code(&script(dir, "replay-and-check.sh", &["t.qtrace", &wrong])), 1);
}

#[test]
fn compare_timing() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    prepare(dir);
    // No wall-clock time is asserted: a limit that nothing passes, and one that everything does.
    let out = script(dir, "compare-timing.sh", &["t.qtrace", "p50>100000000%"]);
    assert_eq!(code(&out), 0, "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(code(&script(dir, "compare-timing.sh", &["t.qtrace", "p50>0ns"])), 6);
}

#[test]
fn bisect_tells_good_from_bad_from_untestable() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    prepare(dir);
    assert_eq!(code(&script(dir, "bisect.sh", &["t.qtrace", "want.raw"])), 0);
    assert_eq!(code(&script(dir, "bisect.sh", &["t.qtrace", "want.raw", "false"])), 125);
    assert_eq!(code(&script(dir, "bisect.sh", &["absent.qtrace", "want.raw"])), 125);
    let mut want = std::fs::read(dir.join("want.raw")).expect("read");
    want[100] ^= 1;
    std::fs::write(dir.join("bad.raw"), want).expect("written");
    assert_eq!(code(&script(dir, "bisect.sh", &["t.qtrace", "bad.raw"])), 1);
}

/// What a guest did to the first interrupt controller's mask, as QEMU's trace log has it.
fn log_of_the_pic(read: &str) -> String {
    let line = |what: &str, value: &str| {
        format!(
            "7@5.000001:memory_region_ops_{what} cpu 0 mr 0x1 addr 0x21 value {value} size 1 \
             name 'pic'\n"
        )
    };
    line("write", "0xab") + &line("read", read)
}

#[test]
fn replay_boot_checks_what_a_guest_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    std::fs::write(dir.join("good.log"), log_of_the_pic("0xab")).expect("written");
    std::fs::write(dir.join("bad.log"), log_of_the_pic("0xac")).expect("written");
    let out = script(dir, "replay-boot.sh", &["good.log"]);
    assert_eq!(code(&out), 0, "{}", String::from_utf8_lossy(&out.stderr));
    let out = script(dir, "replay-boot.sh", &["bad.log"]);
    assert_eq!(code(&out), 1, "{}", String::from_utf8_lossy(&out.stderr));
    assert!(String::from_utf8_lossy(&out.stdout).contains("pic"), "the region is named");
    // A share that is good enough, and options of the replay, are passed on.
    assert_eq!(code(&script(dir, "replay-boot.sh", &["bad.log", "0"])), 0);
    assert_eq!(code(&script(dir, "replay-boot.sh", &["bad.log", "100", "policy=pic:ignore"])), 0);
    assert_eq!(code(&script(dir, "replay-boot.sh", &["absent.log"])), 3);
}
