//! `cargo bench --bench qemu`: 4 KiB requests to a real QEMU's virtio-blk device, in one run:
//!
//! - *shared*: rings and data in shared guest RAM, one doorbell for a batch: what a replay does;
//! - *socket*: each descriptor, ring entry and buffer as a qtest `write`, each result as a `read`,
//!   as drivers do that have nothing but the protocol (QEMU's libqos);
//! - `qemu-img bench` on the same file with the same requests and depth: a block layer without a
//!   device in front of it.
//!
//! On `null-co`, which answers at once, and on a raw file in the page cache; at depth 1 and 64.
//! Requests are reads 1 MiB and 4 KiB apart, so that neither the device nor the host merges any.
//! Figures are medians; compare the ratios, not the numbers.

#[path = "../common/mod.rs"]
mod common;
mod shared;
mod socket;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use common::{median, output, row};
use qtrace::image::given::{GivenAio, Handover};
use qtrace::image::{CacheMode, OpenOptions};
use qtrace::machine::qemu::{QemuConfig, QemuDisk, QemuMachine};

/// Bytes of the disk.
const DISK_BYTES: u64 = 1 << 30;
/// Bytes of a request.
const REQUEST_BYTES: u32 = 4096;
/// From one request to the next: a prime number of requests, so that all blocks are met.
const STEP_BYTES: u64 = 257 * 4096;
const RUNS: usize = 5;

/// Where the `n`-th request begins.
fn sector(n: u64) -> u64 {
    n * STEP_BYTES % DISK_BYTES / 512
}

fn main() {
    let dir = common::bench_dir();
    let file = dir.path().join("disk.raw");
    println!("4 KiB reads, medians of {RUNS} runs; requests a second\n");
    let null = || Handover::null(DISK_BYTES);
    compare("null-co", &null, None);
    fill(&file);
    let raw = || {
        let format = Some("raw".to_owned());
        let options = OpenOptions {
            format,
            writable: true,
            cache: CacheMode::Writeback,
            ..OpenOptions::default()
        };
        Handover::in_place(&file, &options, GivenAio::Threads).expect("the raw file")
    };
    compare("raw file", &raw, Some(&file));
}

fn compare(what: &str, disk: &dyn Fn() -> Handover, file: Option<&Path>) {
    for (depth, requests) in [(1, 20_000), (64, 200_000)] {
        let mut machine = match start(&disk()) {
            Ok(machine) => machine,
            Err(error) => return println!("skipped: {error}"),
        };
        let mut driver = shared::Driver::new(&mut machine);
        // The first requests find caches and pages cold.
        driver.read(&mut machine, depth, requests / 10);
        let fast = median(RUNS, || driver.read(&mut machine, depth, requests));
        driver.shutdown(&mut machine);
        let slow = socket::Driver::new(&mut machine);
        let slow = median(RUNS, || slow.read(&mut machine, depth, 640));
        row(&format!("{what}, depth {depth}, shared"), fast, "/s", "socket", Ok(slow));
        if let Some(file) = file {
            let theirs = median_of(|| qemu_img(file, depth, requests));
            row(&format!("{what}, depth {depth}, shared"), fast, "/s", "qemu-img bench", theirs);
        }
    }
}

fn start(disk: &Handover) -> qtrace::base::Result<QemuMachine> {
    let given = disk.image();
    let mut disk = QemuDisk::new(given.node.clone());
    disk.fds = given.files.iter().map(|file| Arc::clone(&file.fd)).collect();
    QemuMachine::new(QemuConfig { disks: vec![disk], ..QemuConfig::default() })
}

fn fill(path: &Path) {
    let mut prng = qtrace::base::Prng::new(1);
    let words = (0..1 << 17).flat_map(|_| prng.next_u64().to_le_bytes());
    let chunk: Vec<u8> = words.collect();
    let mut file = std::fs::File::create(path).expect("a file");
    for _ in 0..DISK_BYTES / chunk.len() as u64 {
        std::io::Write::write_all(&mut file, &chunk).expect("written");
    }
    file.sync_all().expect("synced");
}

fn median_of(body: impl Fn() -> Result<f64, String>) -> Result<f64, String> {
    let mut figures = (0..RUNS).map(|_| body()).collect::<Result<Vec<_>, _>>()?;
    figures.sort_by(f64::total_cmp);
    Ok(figures[figures.len() / 2])
}

fn qemu_img(file: &Path, depth: usize, count: u64) -> Result<f64, String> {
    let mut command = Command::new("qemu-img");
    command.args(["bench", "-f", "raw", "-t", "writeback"]);
    command.args(["-s", &REQUEST_BYTES.to_string(), "-S", &STEP_BYTES.to_string()]);
    command.args(["-d", &depth.to_string(), "-c", &count.to_string()]);
    let text = output(command.arg(file))?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let time = words.windows(2).find(|pair| pair[1].starts_with("seconds"));
    let time = time.and_then(|pair| pair[0].parse::<f64>().ok());
    time.map(|time| count as f64 / time).ok_or_else(|| format!("no time in: {text}"))
}
