//! What the comparisons share: the workload, running a peer, reading its figures, a table.
#![allow(dead_code, reason = "each bench uses its part")]

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use qtrace::base::Prng;

/// The program under test, built with the bench profile.
pub const QTRACE: &str = env!("CARGO_BIN_EXE_qtrace");

/// The folder the images stand in: `QTRACE_BENCH_DIR`, else the target folder, which is on a real
/// file system where /tmp often is not.
pub fn bench_dir() -> tempfile::TempDir {
    let parent = std::env::var_os("QTRACE_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    std::fs::create_dir_all(&parent).expect("bench folder");
    tempfile::Builder::new().prefix("bench").tempdir_in(parent).expect("bench folder")
}

/// A fio iolog (version 2, no times) of `count` random 4 KiB requests, half of them reads.
pub fn mixed_iolog(path: &Path, file: &Path, count: u64, blocks: u64, seed: u64) {
    let mut prng = Prng::new(seed);
    let name = file.display();
    // Not built in memory: a child's peak memory, as the kernel counts it, begins with ours.
    let mut text = BufWriter::new(File::create(path).expect("iolog created"));
    writeln!(text, "fio version 2 iolog\n{name} add\n{name} open").expect("iolog written");
    for _ in 0..count {
        let verb = if prng.below(2) == 0 { "read" } else { "write" };
        let offset = prng.below(blocks) * 4096;
        writeln!(text, "{name} {verb} {offset} 4096").expect("iolog written");
    }
    writeln!(text, "{name} close").expect("iolog written");
    text.flush().expect("iolog written");
}

/// Runs a command, returns its stdout, or the reason why it cannot be had.
pub fn output(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command.stdin(Stdio::null()).output().map_err(|error| {
        format!("{name} cannot be run ({error}); install it to compare with it")
    })?;
    if !out.status.success() {
        let stderr = String::from_utf8_lossy(&out.stderr);
        return Err(format!("{name} failed ({}): {}", out.status, stderr.trim()));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// `qtrace import`, from any format.
pub fn import(from: &Path, to: &Path) {
    output(Command::new(QTRACE).arg("import").arg(from).arg("-o").arg(to)).expect("import");
}

/// `qtrace replay --test block-trace-virtio`; the JSON report.
pub fn replay(options: &str) -> serde_json::Value {
    let text = output(Command::new(QTRACE).args([
        "replay",
        "--test",
        "block-trace-virtio",
        "--format",
        "json",
        options,
    ]))
    .expect("replay");
    serde_json::from_str(&text).expect("a JSON report")
}

/// Peak resident memory of a command in bytes, from the kernel's own accounting of that child.
#[expect(clippy::zombie_processes, reason = "wait4 below reaps it, and brings its rusage")]
pub fn peak_memory(command: &mut Command) -> u64 {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("spawned");
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    let pid = libc::pid_t::try_from(child.id()).expect("a pid");
    // SAFETY: both out-pointers are valid for writes of their types, and `pid` is our own child,
    // which nothing else waits for.
    let waited = unsafe { libc::wait4(pid, &mut status, 0, usage.as_mut_ptr()) };
    assert_eq!(waited, pid);
    let status = std::process::ExitStatus::from_raw(status);
    assert!(status.success(), "{command:?} failed: {status}");
    // SAFETY: wait4 succeeded and filled it; all-zero was valid before that too.
    let usage = unsafe { usage.assume_init() };
    u64::try_from(usage.ru_maxrss).expect("positive") * 1024
}

/// Runs `body` `runs` times and returns the median of its figures.
pub fn median(runs: usize, mut body: impl FnMut() -> f64) -> f64 {
    let mut figures: Vec<f64> = (0..runs).map(|_| body()).collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// How long `body` takes, in seconds.
pub fn seconds(body: impl FnOnce()) -> f64 {
    let start = Instant::now();
    body();
    start.elapsed().max(Duration::from_nanos(1)).as_secs_f64()
}

/// One fio run over an iolog; requests a second by fio's own job runtime.
pub fn fio_rate(engine: &str, iolog: &Path, depth: u32) -> Result<f64, String> {
    let text = output(Command::new("fio").args([
        "--name=peer",
        &format!("--ioengine={engine}"),
        &format!("--iodepth={depth}"),
        &format!("--read_iolog={}", iolog.display()),
        "--replay_no_stall=1",
        "--output-format=json",
    ]))?;
    let json = fio_json(&text)?;
    let job = &json["jobs"][0];
    let ios = ["read", "write"].iter().filter_map(|d| job[d]["total_ios"].as_f64()).sum::<f64>();
    let ms = job["job_runtime"].as_f64().unwrap_or(0.0);
    if ios == 0.0 || ms == 0.0 {
        return Err(format!("fio {engine} did no I/O"));
    }
    Ok(ios / ms * 1e3)
}

/// fio prints notes before its JSON; skip them.
pub fn fio_json(text: &str) -> Result<serde_json::Value, String> {
    let start = text.find('{').ok_or("fio printed no JSON")?;
    serde_json::from_str(&text[start..]).map_err(|error| format!("fio's JSON: {error}"))
}

/// Fills an image from its start with `bytes` of sequential 4 KiB writes, as a guest would.
pub fn qemu_img_fill(image: &Path, bytes: u64) -> Result<(), String> {
    let count = (bytes / 4096).to_string();
    let mut command = Command::new("qemu-img");
    command.args(["bench", "-f", "qcow2", "-t", "unsafe", "-s", "4096", "-d", "32", "-w"]);
    output(command.args(["-c", &count]).arg(image)).map(drop)
}

/// `qemu-img bench`; requests a second.
pub fn qemu_img_bench(image: &Path, format: &str, depth: u32, write: bool) -> Result<f64, String> {
    const COUNT: u32 = 200_000;
    let mut command = Command::new("qemu-img");
    command.args(["bench", "-f", format, "-t", "unsafe", "-s", "4096"]);
    command.args(["-d", &depth.to_string(), "-c", &COUNT.to_string()]);
    if write {
        command.arg("-w");
    }
    let text = output(command.arg(image))?;
    let words: Vec<&str> = text.split_whitespace().collect();
    words
        .windows(2)
        .find(|pair| pair[1].starts_with("seconds"))
        .and_then(|pair| pair[0].parse::<f64>().ok())
        .map(|secs| f64::from(COUNT) / secs)
        .ok_or_else(|| format!("no time in qemu-img bench's answer: {text}"))
}

/// Prints one comparison, or why there is none.
pub fn row(what: &str, ours: f64, unit: &str, peer: &str, theirs: Result<f64, String>) {
    match theirs {
        Ok(theirs) => println!(
            "{what:<44} {ours:>12.0} {unit}   {peer:<24} {theirs:>12.0}   ratio {:.2}",
            ours / theirs
        ),
        Err(why) => println!("{what:<44} {ours:>12.0} {unit}   skipped: {why}"),
    }
}
