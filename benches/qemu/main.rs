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
//! The disk has a thread of its own in QEMU, as in a replay, or not (`iothread=off`). It and
//! `qemu-img`, which gets the same file by the same means (the page cache, a pool of threads), run
//! in turns; compare the ratios of these rounds, not the numbers.

#[path = "../common/mod.rs"]
mod common;
mod shared;
mod socket;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use common::output;
use qtrace::image::given::{GivenAio, Handover};
use qtrace::image::{CacheMode, OpenOptions};
use qtrace::machine::qemu::{QemuConfig, QemuDisk, QemuMachine};
use qtrace::replay::pacing::set_timer_slack;

/// Bytes of the disk.
const DISK_BYTES: u64 = 1 << 30;
/// Bytes of a request.
const REQUEST_BYTES: u32 = 4096;
/// From one request to the next: a prime number of requests, so that all blocks are met.
const STEP_BYTES: u64 = 257 * 4096;
/// Rounds that count; one more comes first.
const ROUNDS: usize = 11;

/// Where the `n`-th request begins.
fn sector(n: u64) -> u64 {
    n * STEP_BYTES % DISK_BYTES / 512
}

fn main() {
    let dir = common::bench_dir();
    let file = dir.path().join("disk.raw");
    set_timer_slack();
    println!("4 KiB reads, medians and quartiles of {ROUNDS} rounds; requests a second\n");
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
    let handover = disk();
    for (depth, requests) in [(1, 10_000), (64, 100_000)] {
        // One QEMU at a time: a second one that idles changes how soon this host's CPUs wake.
        for (name, iothread) in [("", true), (" iothread=off", false)] {
            let what = format!("{what}, depth {depth}, shared{name}");
            match start(&handover, iothread) {
                Ok(mut machine) => measure(&what, &mut machine, (depth, requests), file),
                Err(error) => println!("{what}: skipped: {error}"),
            }
        }
    }
}

fn measure(
    what: &str,
    machine: &mut QemuMachine,
    (depth, requests): (usize, u64),
    file: Option<&Path>,
) {
    let mut driver = shared::Driver::new(machine);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        ours.push(driver.read(machine, depth, requests));
        theirs.extend(file.map(|file| qemu_img(file, depth, requests)));
        if round == 0 {
            // The first requests find caches and pages cold.
            ours.clear();
            theirs.clear();
        }
    }
    driver.shutdown(machine);
    let socket = socket::Driver::new(machine);
    let slow: Vec<f64> = (0..ROUNDS).map(|_| socket.read(machine, depth, 640)).collect();
    paired(what, &ours, "socket", Ok(&slow));
    if file.is_some() {
        let peer: Result<Vec<f64>, String> = theirs.into_iter().collect();
        paired(what, &ours, "qemu-img bench", peer.as_deref());
    }
}

/// Medians of both, and of the ratios of the rounds, in which one ran right behind the other: what
/// else the host does changes from minute to minute.
fn paired(what: &str, ours: &[f64], peer: &str, theirs: Result<&[f64], &String>) {
    let middle = |mut figures: Vec<f64>| {
        figures.sort_by(f64::total_cmp);
        [1, 2, 3].map(|quarter| figures[(figures.len() - 1) * quarter / 4])
    };
    let mid = middle(ours.to_vec())[1];
    match theirs {
        Ok(theirs) => {
            let [low, ratio, high] = middle(ours.iter().zip(theirs).map(|(a, b)| a / b).collect());
            let theirs = middle(theirs.to_vec())[1];
            println!(
                "{what:<42} {mid:>9.0} /s  {peer:<15} {theirs:>9.0}  ratio {ratio:.2} ({low:.2} to {high:.2})"
            );
        }
        Err(why) => println!("{what:<42} {mid:>9.0} /s  {peer}: skipped: {why}"),
    }
}

/// Read-only, so that the file is open in several at once.
fn start(disk: &Handover, in_thread: bool) -> qtrace::base::Result<QemuMachine> {
    let given = disk.image();
    let mut node = given.node.clone();
    node["read-only"] = true.into();
    if let Some(file) = node.get_mut("file") {
        file["read-only"] = true.into();
    }
    let mut disk = QemuDisk::new(node);
    disk.fds = given.files.iter().map(|file| Arc::clone(&file.fd)).collect();
    if in_thread {
        disk.in_thread();
    }
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

fn qemu_img(file: &Path, depth: usize, count: u64) -> Result<f64, String> {
    let mut command = Command::new("qemu-img");
    command.args(["bench", "-f", "raw", "-t", "writeback", "-i", "threads"]);
    command.args(["-s", &REQUEST_BYTES.to_string(), "-S", &STEP_BYTES.to_string()]);
    command.args(["-d", &depth.to_string(), "-c", &count.to_string()]);
    let text = output(command.arg(file))?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let time = words.windows(2).find(|pair| pair[1].starts_with("seconds"));
    let time = time.and_then(|pair| pair[0].parse::<f64>().ok());
    time.map(|time| count as f64 / time).ok_or_else(|| format!("no time in: {text}"))
}
