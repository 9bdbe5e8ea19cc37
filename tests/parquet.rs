//! Parquet as others read it: DuckDB and pyarrow, from PyPI, in a virtual environment under the
//! target folder. `cargo test --features parquet --test parquet`; without them it is skipped.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{expect, inputs, repo};

/// A Python that has both, or `None` after printing why not.
fn python() -> Option<PathBuf> {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("parquet-venv");
    let python = venv.join("bin/python");
    let has_both = || {
        let check = Command::new(&python).args(["-c", "import duckdb, pyarrow"]).output();
        check.is_ok_and(|out| out.status.success())
    };
    if has_both() {
        return Some(python);
    }
    let made = Command::new("python3").args(["-m", "venv"]).arg(&venv).output();
    if !made.is_ok_and(|out| out.status.success()) {
        println!("skipped: python3 -m venv does not work here");
        return None;
    }
    let pip = ["-m", "pip", "install", "--quiet", "--timeout", "20", "duckdb", "pyarrow"];
    let out = Command::new(&python).args(pip).output().expect("the environment's Python");
    if !has_both() {
        let stderr = String::from_utf8_lossy(&out.stderr);
        let last = stderr.lines().last().unwrap_or_default();
        println!("skipped: duckdb and pyarrow cannot be installed: {last}");
        return None;
    }
    Some(python)
}

#[test]
fn duckdb_and_pyarrow_agree_on_counts_and_sums() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    inputs::write_all(dir);
    expect(dir, 0, ["import", "msr.csv", "-o", "msr.qtrace"]);
    expect(dir, 0, ["import", "sda.blktrace.0", "sda.blktrace.1", "-o", "sda.qtrace"]);
    let bundled = |name: &str| repo().join("traces").join(name).display().to_string();
    let traces = [
        "msr.qtrace".to_owned(),
        "sda.qtrace".to_owned(),
        bundled("linux-ext4-virtio.qtrace"),
        bundled("seabios-pc.qtrace"),
    ];
    let check = || {
        Command::new(&python)
            .arg(repo().join("examples/check-parquet.py"))
            .args(["t.parquet", "t.jsonl"])
            .current_dir(dir)
            .output()
            .expect("Python runs")
    };
    for trace in traces {
        for out in ["t.parquet", "t.jsonl"] {
            expect(dir, 0, ["export", trace.as_str(), "-o", out, "--force"]);
        }
        let out = check();
        let stdout = String::from_utf8_lossy(&out.stdout);
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{trace}: {stdout}{stderr}");
        assert_eq!(stdout.matches("agrees").count(), 2, "{stdout}");
    }
    // The check itself: of a part of the trace nothing agrees.
    expect(dir, 0, ["export", "msr.qtrace", "-o", "t.jsonl", "--force"]);
    expect(dir, 0, ["export", "msr.qtrace", "-o", "t.parquet", "--events", "1-", "--force"]);
    let out = check();
    let stdout = String::from_utf8_lossy(&out.stdout);
    assert_eq!((out.status.code(), stdout.matches("DIFFERS").count()), (Some(1), 2), "{stdout}");
}
