//! `cargo bench --bench peers`: qtrace beside its peers, in one run, on the same files and requests.
//!
//! (a) the whole driver and device loop on a `null` image against fio's null engine, which has no
//! device; (b) a raw file in the page cache against fio's fastest engine; (c) qcow2 against
//! `qemu-img bench`; then what verification costs, a five-million-record trace, and `qtrace diff`
//! against `qemu-img compare`. Figures are medians; compare the ratios, not the numbers.

mod common;

use std::path::Path;
use std::process::Command;

use common::{QTRACE, fio_rate, import, median, output, qemu_img_bench, replay, row, seconds};
use qtrace::base::Prng;
use qtrace::trace::Trace;

const REQUESTS: u64 = 200_000;
const DISK_BYTES: u64 = 1 << 30;
const DEPTH: u32 = 32;
const RUNS: usize = 3;

fn main() {
    let dir = common::bench_dir();
    let dir = dir.path();
    println!("{REQUESTS} mixed 4 KiB requests, depth {DEPTH}, medians of {RUNS} runs\n");
    throughput(dir);
    println!();
    long_trace(dir);
    println!();
    image_diff(dir);
}

/// Requests a second, by the report's own duration of the request loop.
fn rate(options: &str) -> f64 {
    let report = replay(options);
    let requests: u64 =
        report["ops"].as_array().expect("ops").iter().filter_map(|op| op["count"].as_u64()).sum();
    requests as f64 * 1e9 / report["duration_ns"].as_f64().expect("duration_ns")
}

fn throughput(dir: &Path) {
    let raw = dir.join("disk.raw");
    let qcow2 = dir.join("disk.qcow2");
    random_file(&raw, DISK_BYTES);
    let (iolog, trace) = (dir.join("mixed.iolog"), dir.join("mixed.qtrace"));
    common::mixed_iolog(&iolog, &raw, REQUESTS, DISK_BYTES / 4096, 1);
    import(&iolog, &trace);
    let trace = trace.display();
    let ours = |target: &str, verify: &str| {
        let options =
            format!("tracefile={trace},{target},verify={verify},iodepth={DEPTH},clock=host");
        median(RUNS, || rate(&options))
    };

    let fio = |engine: &str| {
        let rates: Result<Vec<f64>, String> =
            (0..RUNS).map(|_| fio_rate(engine, &iolog, DEPTH)).collect();
        rates.map(|mut r| {
            r.sort_by(f64::total_cmp);
            r[r.len() / 2]
        })
    };
    let null = format!("target_fmt=null,target_size={DISK_BYTES}");
    row("(a) null: driver + device + image", ours(&null, "none"), "req/s", "fio null", fio("null"));
    let raw_target = format!("target_img={},target_fmt=raw", raw.display());
    let fastest = ["io_uring", "psync", "libaio"]
        .into_iter()
        .map(|engine| fio_rate(engine, &iolog, DEPTH).map(|rate| (engine, rate)))
        .reduce(|best, next| match (&best, &next) {
            (Ok(a), Ok(b)) if b.1 > a.1 => next,
            (Err(_), Ok(_)) => next,
            _ => best,
        })
        .expect("three engines");
    let name = fastest.as_ref().map_or("fio".to_owned(), |(engine, _)| format!("fio {engine}"));
    let fastest = fastest.and_then(|(engine, _)| fio(engine));
    row("(b) raw file, page cache", ours(&raw_target, "none"), "req/s", &name, fastest.clone());
    row("    the same, verify=reads", ours(&raw_target, "reads"), "req/s", &name, fastest);

    let made = output(
        Command::new("qemu-img").args(["convert", "-f", "raw", "-O", "qcow2"]).args([&raw, &qcow2]),
    );
    if let Err(why) = made {
        println!("(c) skipped: {why}");
        return;
    }
    let qemu = || -> Result<f64, String> {
        let one = |write| -> Result<f64, String> {
            let rates: Result<Vec<f64>, String> =
                (0..RUNS).map(|_| qemu_img_bench(&qcow2, "qcow2", DEPTH, write)).collect();
            rates.map(|mut r| {
                r.sort_by(f64::total_cmp);
                r[r.len() / 2]
            })
        };
        // qemu-img bench has no mix: the harmonic mean is what half of each would reach.
        let (read, write) = (one(false)?, one(true)?);
        println!("    qemu-img bench: reads {read:.0}, writes {write:.0} (sequential)");
        Ok(2.0 / (1.0 / read + 1.0 / write))
    };
    let qcow2_target = format!("target_img={},target_fmt=qcow2", qcow2.display());
    let theirs = qemu();
    row("(c) qcow2", ours(&qcow2_target, "none"), "req/s", "qemu-img bench", theirs.clone());
    row(
        "    the same, verify=reads",
        ours(&qcow2_target, "reads"),
        "req/s",
        "qemu-img bench",
        theirs,
    );
}

fn long_trace(dir: &Path) {
    const RECORDS: u64 = 5_000_000;
    const RAM: u64 = 64 << 20;
    let (iolog, trace) = (dir.join("long.iolog"), dir.join("long.qtrace"));
    common::mixed_iolog(&iolog, &dir.join("long.raw"), RECORDS, DISK_BYTES / 4096, 2);
    import(&iolog, &trace);
    let open = median(RUNS, || seconds(|| drop(Trace::open(&trace).expect("opens"))));
    println!("{RECORDS} records: open {:.4} s", open);
    let options = format!(
        "tracefile={},target_fmt=null,target_size={DISK_BYTES},verify=none,ram={RAM}",
        trace.display()
    );
    let mut command = Command::new(QTRACE);
    command.args(["replay", "--test", "block-trace-virtio", &options]);
    let peak = common::peak_memory(&mut command);
    println!(
        "{RECORDS} records: replay to null, peak memory {:.1} MiB, of it guest RAM at most {} MiB",
        peak as f64 / (1 << 20) as f64,
        RAM >> 20
    );
    let _ = std::fs::remove_file(&iolog);
    let _ = std::fs::remove_file(&trace);
}

fn image_diff(dir: &Path) {
    const SIZE: u64 = 4 << 30;
    let (raw, a, b) = (dir.join("half.raw"), dir.join("a.qcow2"), dir.join("b.qcow2"));
    random_file(&raw, SIZE / 2);
    std::fs::OpenOptions::new()
        .write(true)
        .open(&raw)
        .and_then(|file| file.set_len(SIZE))
        .expect("sized");
    for image in [&a, &b] {
        let made = output(
            Command::new("qemu-img")
                .args(["convert", "-f", "raw", "-O", "qcow2"])
                .args([&raw, image]),
        );
        if let Err(why) = made {
            println!("diff of two qcow2 images: skipped: {why}");
            return;
        }
    }
    let _ = std::fs::remove_file(&raw);
    let ours = median(RUNS, || {
        seconds(|| drop(output(Command::new(QTRACE).arg("diff").args([&a, &b])).expect("equal")))
    });
    let theirs = median(RUNS, || {
        seconds(|| {
            let mut command = Command::new("qemu-img");
            drop(output(command.args(["compare", "-f", "qcow2", "-F", "qcow2"]).args([&a, &b])));
        })
    });
    println!(
        "diff of two 4 GiB qcow2 images, half allocated: qtrace {ours:.3} s, qemu-img compare {theirs:.3} s, {:.2} times the speed",
        theirs / ours
    );
}

/// A file of seeded random bytes, in the page cache afterwards.
fn random_file(path: &Path, len: u64) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).expect("created");
    let mut prng = Prng::new(9);
    let mut block = vec![0u8; 1 << 20];
    for _ in 0..len / block.len() as u64 {
        prng.fill(&mut block);
        file.write_all(&block).expect("written");
    }
}
