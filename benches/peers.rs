//! `cargo bench --bench peers`: qtrace beside its peers, in one run, on the same files and requests.
//!
//! (a) the whole driver and device loop on a `null` image against fio's null engine, which has no
//! device; (b) a raw file in the page cache against fio's fastest engine; (c) qcow2 against
//! `qemu-img bench`; then what verification costs, a five-million-record trace, and `qtrace diff`
//! against `qemu-img compare`. Figures are medians; compare the ratios, not the numbers.
//!
//! Words after `--` choose parts: `cargo bench --bench peers -- null raw qcow2 long diff`.
//!
//! Targets are used with `cache=unsafe`, and `qemu-img bench` with `-t unsafe`: fio does not sync
//! either, so that nobody waits for the disk.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{QTRACE, fio_rate, import, median, output, qemu_img_bench, replay, row, seconds};
use qtrace::base::Prng;
use qtrace::trace::Trace;

const REQUESTS: u64 = 200_000;
const DISK_BYTES: u64 = 1 << 30;
const DEPTH: u32 = 32;
const RUNS: usize = 3;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let wanted = |part: &str| words.is_empty() || words.iter().any(|word| word == part);
    let dir = common::bench_dir();
    let dir = dir.path();
    println!("{REQUESTS} mixed 4 KiB requests, depth {DEPTH}, medians of {RUNS} runs\n");
    if ["null", "raw", "qcow2"].into_iter().any(wanted) {
        throughput(dir, &wanted);
    }
    if wanted("long") {
        long_trace(dir);
    }
    if wanted("diff") {
        image_diff(dir);
    }
}

/// Requests a second, by the report's own duration of the request loop.
fn rate(options: &str) -> f64 {
    let report = replay(options);
    let requests: u64 =
        report["ops"].as_array().expect("ops").iter().filter_map(|op| op["count"].as_u64()).sum();
    requests as f64 * 1e9 / report["duration_ns"].as_f64().expect("duration_ns")
}

/// The files that all three comparisons share.
struct Bench<'a> {
    dir: &'a Path,
    raw: PathBuf,
    iolog: PathBuf,
    trace: PathBuf,
}

fn throughput(dir: &Path, wanted: &dyn Fn(&str) -> bool) {
    let in_dir = |name| dir.join(name);
    let (raw, iolog, trace) = (in_dir("disk.raw"), in_dir("mixed.iolog"), in_dir("mixed.qtrace"));
    random_file(&raw, DISK_BYTES);
    common::mixed_iolog(&iolog, &raw, REQUESTS, DISK_BYTES / 4096, 1);
    import(&iolog, &trace);
    let bench = Bench { dir, raw, iolog, trace };
    if wanted("null") {
        bench.null();
    }
    if wanted("raw") {
        bench.raw();
    }
    if wanted("qcow2") {
        bench.qcow2();
    }
}

impl Bench<'_> {
    fn ours(&self, target: &str, verify: &str) -> f64 {
        let trace = self.trace.display();
        let options = format!(
            "tracefile={trace},{target},verify={verify},iodepth={DEPTH},clock=host,cache=unsafe"
        );
        median(RUNS, || rate(&options))
    }

    fn fio(&self, engine: &str) -> Result<f64, String> {
        median_of((0..RUNS).map(|_| fio_rate(engine, &self.iolog, DEPTH)).collect())
    }

    fn null(&self) {
        let target = format!("target_fmt=null,target_size={DISK_BYTES}");
        let ours = self.ours(&target, "none");
        row("(a) null: driver + device + image", ours, "req/s", "fio null", self.fio("null"));
    }

    fn raw(&self) {
        let target = format!("target_img={},target_fmt=raw", self.raw.display());
        let fastest = ["io_uring", "psync", "libaio"]
            .into_iter()
            .map(|engine| (engine, fio_rate(engine, &self.iolog, DEPTH)))
            .max_by(|a, b| a.1.clone().unwrap_or(0.0).total_cmp(&b.1.clone().unwrap_or(0.0)))
            .map_or("io_uring", |(engine, _)| engine);
        let theirs = self.fio(fastest);
        let peer = format!("fio {fastest}");
        row("(b) raw, page cache", self.ours(&target, "none"), "req/s", &peer, theirs.clone());
        row("    the same, verify=reads", self.ours(&target, "reads"), "req/s", &peer, theirs);
    }

    /// Twice: a disk that a guest filled with 4 KiB writes, and one that `qemu-img convert` wrote in
    /// requests of megabytes. Kernels with large folios on ext4 (6.16 and later) spend some 10 us in
    /// each 4 KiB write into a folio of 2 MiB, which then hides what either program does.
    fn qcow2(&self) {
        let image = self.dir.join("disk.qcow2");
        let size = DISK_BYTES.to_string();
        let filled = output(
            Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&image).arg(size),
        )
        .and_then(|_| common::qemu_img_fill(&image, DISK_BYTES));
        self.qcow2_image("(c) qcow2, filled by 4 KiB writes", &image, filled);
        let converted = output(
            Command::new("qemu-img")
                .args(["convert", "-f", "raw", "-O", "qcow2"])
                .args([&self.raw, &image]),
        );
        self.qcow2_image("    qcow2, made by qemu-img convert", &image, converted.map(drop));
    }

    fn qcow2_image(&self, what: &str, image: &Path, made: Result<(), String>) {
        let one = |write| {
            let run = |_| qemu_img_bench(image, "qcow2", DEPTH, write);
            median_of((0..RUNS).map(run).collect())
        };
        // qemu-img bench has no mix: the harmonic mean is what half of each would reach.
        let theirs = made.and_then(|()| Ok((one(false)?, one(true)?)));
        let theirs = theirs.map(|(read, write)| {
            println!("    qemu-img bench: reads {read:.0}, writes {write:.0} (sequential)");
            2.0 / (1.0 / read + 1.0 / write)
        });
        let target = format!("target_img={},target_fmt=qcow2", image.display());
        if let (false, Err(why)) = (image.exists(), &theirs) {
            println!("{what}: skipped: {why}");
            return;
        }
        let peer = "qemu-img bench";
        row(what, self.ours(&target, "none"), "req/s", peer, theirs.clone());
        row("    the same, verify=reads", self.ours(&target, "reads"), "req/s", peer, theirs);
    }
}

fn median_of(rates: Result<Vec<f64>, String>) -> Result<f64, String> {
    rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    })
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
