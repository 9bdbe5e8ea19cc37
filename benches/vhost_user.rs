//! `cargo bench --bench vhost_user`: 4 KiB requests to a qemu-storage-daemon over vhost-user, beside
//! `qemu-img bench` on the same file: QEMU's block layer with a virtio device in another process in
//! front of it, and with nothing in front.
//!
//! On a raw and a qcow2 file in the page cache, reads and writes, at depth 1 and 32: as a replay has
//! it done (io_uring) beside `qemu-img bench` as it is, and each way of I/O beside the same. Runs
//! take turns, so that what else the machine does meets all; a ratio is the median of those of the
//! turns. Requests are 257 blocks apart, so that nothing is merged.

mod common;
#[path = "qemu/shared.rs"]
mod shared;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use common::output;
use qtrace::base::BlockOp;
use qtrace::image::given::{GivenAio, Handover};
use qtrace::image::{CacheMode, OpenOptions};
use qtrace::machine::Machine;
use qtrace::machine::vhost_user::{
    ServedDisk, VhostUserConfig, VhostUserMachine, find_storage_daemon,
};

/// Bytes of the disk.
const DISK_BYTES: u64 = 512 << 20;
/// Bytes of a request.
const REQUEST_BYTES: u32 = 4096;
/// From one request to the next: a prime number of requests, so that all blocks are met.
const STEP_BYTES: u64 = 257 * 4096;
const TURNS: usize = 3;

/// Where the `n`-th request begins.
fn sector(n: u64) -> u64 {
    n * STEP_BYTES % DISK_BYTES / 512
}

fn main() {
    let dir = common::bench_dir();
    println!("4 KiB requests, {TURNS} turns; requests a second, and the medians of the ratios\n");
    for format in ["raw", "qcow2"] {
        let file = dir.path().join(format!("disk.{format}"));
        if let Err(why) = make(&file, format) {
            return println!("skipped: {why}");
        }
        for (op, depth) in
            [(BlockOp::Read, 1), (BlockOp::Read, 32), (BlockOp::Write, 1), (BlockOp::Write, 32)]
        {
            if let Err(why) = compare(&Job { file: &file, format, op, depth }) {
                println!("{format} {op} depth {depth}: skipped: {why}");
            }
        }
    }
}

/// What is measured.
struct Job<'a> {
    file: &'a Path,
    format: &'a str,
    op: BlockOp,
    depth: usize,
}

impl Job<'_> {
    fn count(&self) -> u64 {
        match (self.op, self.depth) {
            (BlockOp::Read, 1) => 20_000,
            (BlockOp::Read, _) => 60_000,
            (_, 1) => 5_000,
            _ => 20_000,
        }
    }
}

fn compare(job: &Job<'_>) -> Result<(), String> {
    const AIO: [GivenAio; 2] = [GivenAio::IoUring, GivenAio::Threads];
    let mut turns = Vec::with_capacity(TURNS);
    for turn in 0..=TURNS {
        let mut figures = [[0.0; 2]; 2];
        for (figures, aio) in figures.iter_mut().zip(AIO) {
            *figures = [ours(job, aio)?, theirs(job, aio)?];
        }
        // The first finds caches cold.
        if turn > 0 {
            turns.push(figures);
        }
    }
    let median = |figure: &dyn Fn(&[[f64; 2]; 2]) -> f64| {
        let mut figures: Vec<f64> = turns.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    let Job { format, op, depth, .. } = job;
    println!("{format}, {op}, depth {depth}");
    for (what, our, their) in [
        ("as a replay does, beside qemu-img bench", 0, 1),
        ("both with threads", 1, 1),
        ("both with io_uring", 0, 0),
    ] {
        let (ours, theirs) = (median(&|turn| turn[our][0]), median(&|turn| turn[their][1]));
        let ratio = median(&|turn| turn[our][0] / turn[their][1]);
        println!("  {what:40} {ours:>9.0} /s beside {theirs:>9.0} /s   ratio {ratio:.2}");
    }
    Ok(())
}

fn ours(job: &Job<'_>, aio: GivenAio) -> Result<f64, String> {
    let options = OpenOptions {
        format: Some(job.format.to_owned()),
        writable: true,
        cache: CacheMode::Writeback,
        ..OpenOptions::default()
    };
    let words = |error: qtrace::base::Error| error.to_string();
    let handover = Handover::in_place(job.file, &options, aio).map_err(words)?;
    let given = handover.image();
    let fds = given.files.iter().map(|file| Arc::clone(&file.fd)).collect();
    let mut disk = ServedDisk::new(given.node.clone(), fds);
    // As a replay has it.
    disk.iothread = true;
    let binary = find_storage_daemon(None).map_err(words)?;
    let config = VhostUserConfig::default();
    let mut machine = VhostUserMachine::serve(&binary, vec![disk], &[], &config).map_err(words)?;
    let mut driver = shared::Driver::new(&mut machine);
    let rate = match job.op {
        BlockOp::Read => driver.read(&mut machine, job.depth, job.count()),
        op => driver.run(&mut machine, op, job.depth, job.count()),
    };
    driver.shutdown(&mut machine);
    machine.quit().map_err(words)?;
    Ok(rate)
}

fn theirs(job: &Job<'_>, aio: GivenAio) -> Result<f64, String> {
    let count = job.count();
    let aio = match aio {
        GivenAio::Threads => "threads",
        GivenAio::Native => "native",
        GivenAio::IoUring => "io_uring",
    };
    let mut command = Command::new("qemu-img");
    command.args(["bench", "-f", job.format, "-t", "writeback", "-i", aio]);
    if job.op == BlockOp::Write {
        command.arg("-w");
    }
    command.args(["-s", &REQUEST_BYTES.to_string(), "-S", &STEP_BYTES.to_string()]);
    command.args(["-d", &job.depth.to_string(), "-c", &count.to_string()]);
    let text = output(command.arg(job.file))?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let time = words.windows(2).find(|pair| pair[1].starts_with("seconds"));
    let time = time.and_then(|pair| pair[0].parse::<f64>().ok());
    time.map(|time| count as f64 / time).ok_or_else(|| format!("no time in: {text}"))
}

/// A file with every block stored.
fn make(file: &Path, format: &str) -> Result<(), String> {
    let size = DISK_BYTES.to_string();
    output(Command::new("qemu-img").args(["create", "-q", "-f", format]).arg(file).arg(size))?;
    let count = (DISK_BYTES / (1 << 20)).to_string();
    let mut fill = Command::new("qemu-img");
    fill.args(["bench", "-f", format, "-w", "--pattern=165", "-s", "1048576", "-c", &count]);
    output(fill.arg(file)).map(drop)
}
