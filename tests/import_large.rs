//! Input that is far larger than memory should be: `qtrace import` takes it in bounded memory.
//!
//! Takes some minutes, and 10 GB where temporary files are (`TMPDIR`):
//! `cargo test --release --test import_large -- --ignored --nocapture`.

mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use nix::sys::resource::{UsageWho, getrusage};

/// What is piped into the import: 5 GiB.
const INPUT_BYTES: usize = 5 << 30;

/// What the import may keep of it.
const RESIDENT_KIB_MAX: i64 = 128 << 10;

/// Rows that are made once and written again and again, each time later.
const BLOCK_ROWS: u64 = 20_000;

/// Rows of the MSR Cambridge traces, with response times; `block` counts from 0.
fn rows(block: u64) -> Vec<u8> {
    let row = |n: u64| {
        let ticks = 128_166_372_003_061_629 + (block * BLOCK_ROWS + n) * 1000 + n * 7919 % 900;
        let (offset, word) = (n * 104_729 % (1 << 24) * 4096, ["Read", "Write"][n as usize % 2]);
        format!("{ticks},hm,{},{word},{offset},4096,{}\n", n % 3, 100 + n * 31 % 100_000)
    };
    (0..BLOCK_ROWS).flat_map(|n| row(n).into_bytes()).collect()
}

#[test]
#[ignore = "5 GiB through a pipe, and a trace of 10 GB"]
fn five_gibibytes_are_imported_within_128_mebibytes() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut child = Command::new(common::QTRACE)
        .args(["import", "--from", "msr-csv", "-", "-o", "t.qtrace", "--format", "json"])
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("qtrace starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    let (mut written, mut blocks) = (0, 0);
    while written < INPUT_BYTES {
        let block = rows(blocks);
        pipe.write_all(&block).expect("qtrace reads on");
        written += block.len();
        blocks += 1;
    }
    drop(pipe);
    let output = child.wait_with_output().expect("qtrace ends");
    assert!(output.status.success(), "{}", output.status);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a JSON summary");
    assert_eq!(json["completions"], blocks * BLOCK_ROWS, "{json}");
    // The most of any child that was waited for: there was this one.
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the kernel accounts");
    println!("{written} bytes, {} requests: {} KiB at most", blocks * BLOCK_ROWS, usage.max_rss());
    assert!(usage.max_rss() <= RESIDENT_KIB_MAX, "{} KiB", usage.max_rss());
}
