//! `cargo bench --bench timing`: are recorded arrival times kept?
//!
//! 30,000 Poisson arrivals at 5,000 a second are replayed on a raw file by qtrace
//! (`pacing=recorded`) and by fio in the same run. Issue times are measured by us and, where this
//! runs as root with tracefs and a loop device, from outside: by the kernel's own block_bio_queue
//! events of the loop device.

mod common;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{QTRACE, fio_json, import, output, replay};
use qtrace::base::Prng;

const ARRIVALS: usize = 30_000;
const RATE: f64 = 5_000.0;
const DISK_BYTES: u64 = 256 << 20;

fn main() {
    let dir = common::bench_dir();
    let dir = dir.path();
    let raw = dir.join("disk.raw");
    std::fs::File::create(&raw).and_then(|f| f.set_len(DISK_BYTES)).expect("disk");
    let arrivals = poisson(3);
    let planned = *arrivals.last().expect("arrivals") as f64 / 1e6;
    println!("{ARRIVALS} Poisson arrivals at {RATE} a second: {planned:.3} s planned\n");

    let (iolog, trace) = (dir.join("poisson.iolog"), dir.join("poisson.qtrace"));
    write_iolog(&iolog, &raw, &arrivals);
    import(&iolog, &trace);
    ours(&trace, &raw, planned);
    fio(&iolog, planned);
    // In memory where that is possible: a loop device that cannot keep up would be measured instead.
    let shm = tempfile::tempdir_in("/dev/shm");
    match outside(shm.as_ref().map_or(dir, tempfile::TempDir::path), &trace, &arrivals) {
        Ok(()) => {}
        Err(why) => println!("from outside (loop device, tracefs): skipped: {why}"),
    }
}

/// Arrival times in whole microseconds, as an iolog holds them; the first is 0.
fn poisson(seed: u64) -> Vec<u64> {
    let mut prng = Prng::new(seed);
    let mut now = 0.0;
    (0..ARRIVALS)
        .map(|_| {
            let at = now as u64;
            now += -(1.0 - prng.unit_f64()).ln() / RATE * 1e6;
            at
        })
        .collect()
}

fn write_iolog(path: &Path, file: &Path, arrivals: &[u64]) {
    let mut prng = Prng::new(4);
    let name = file.display();
    let mut text = format!("fio version 3 iolog\n0 {name} add\n0 {name} open\n");
    for at in arrivals {
        let verb = if prng.below(2) == 0 { "read" } else { "write" };
        let offset = prng.below(DISK_BYTES / 4096) * 4096;
        writeln!(text, "{at} {name} {verb} {offset} 4096").expect("a string");
    }
    std::fs::write(path, text).expect("iolog");
}

fn ours(trace: &Path, raw: &Path, planned: f64) {
    let report = replay(&options(trace, raw));
    let secs = report["duration_ns"].as_f64().expect("duration_ns") / 1e9;
    let late = &report["lateness"];
    println!(
        "qtrace: {secs:.3} s ({:+.3} %), lateness p50 {} us, p99 {} us, max {} us; verdict {}",
        (secs / planned - 1.0) * 100.0,
        late["p50_ns"].as_f64().unwrap_or(f64::NAN) / 1e3,
        late["p99_ns"].as_f64().unwrap_or(f64::NAN) / 1e3,
        late["max_ns"].as_f64().unwrap_or(f64::NAN) / 1e3,
        report["timing"]["status"].as_str().unwrap_or("?")
    );
}

fn options(trace: &Path, target: &Path) -> String {
    format!(
        "tracefile={},target_img={},target_fmt=raw,pacing=recorded,verify=none,clock=host",
        trace.display(),
        target.display()
    )
}

fn fio(iolog: &Path, planned: f64) {
    let run = output(Command::new("fio").args([
        "--name=peer",
        "--ioengine=io_uring",
        "--iodepth=32",
        &format!("--read_iolog={}", iolog.display()),
        "--output-format=json",
    ]))
    .and_then(|text| fio_json(&text));
    match run {
        Ok(json) => {
            let secs = json["jobs"][0]["job_runtime"].as_f64().unwrap_or(f64::NAN) / 1e3;
            println!("fio io_uring: {secs:.3} s ({:+.3} %)", (secs / planned - 1.0) * 100.0);
        }
        Err(why) => println!("fio: skipped: {why}"),
    }
}

/// A loop device over a file, detached on drop.
struct Loop(String);

impl Loop {
    fn attach(file: &Path) -> Result<Self, String> {
        let name = output(Command::new("losetup").args(["--find", "--show"]).arg(file))?;
        Ok(Self(name.trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

/// A trace instance of our own in tracefs, removed on drop.
struct Tracer(PathBuf);

impl Tracer {
    fn new() -> Result<Self, String> {
        let root = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
            .into_iter()
            .map(Path::new)
            .find(|path| path.join("instances").exists())
            .ok_or("no tracefs (as root: mount -t tracefs none /sys/kernel/tracing)")?;
        let path = root.join("instances").join(format!("qtrace-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(|e| format!("tracefs: {e}"))?;
        let tracer = Self(path);
        tracer.set("trace_clock", "mono")?;
        tracer.set("buffer_size_kb", "16384")?;
        Ok(tracer)
    }

    fn set(&self, file: &str, value: &str) -> Result<(), String> {
        std::fs::write(self.0.join(file), value).map_err(|e| format!("tracefs {file}: {e}"))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.set("tracing_on", "0");
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn outside(dir: &Path, trace: &Path, arrivals: &[u64]) -> Result<(), String> {
    let backing = dir.join("loop.raw");
    std::fs::File::create(&backing)
        .and_then(|f| f.set_len(DISK_BYTES))
        .map_err(|e| e.to_string())?;
    let device = Loop::attach(&backing)?;
    let tracer = Tracer::new()?;
    let (major, minor) = (7u32, device.0.trim_start_matches("/dev/loop"));
    let minor: u32 = minor.parse().map_err(|_| format!("odd loop device {}", device.0))?;
    tracer
        .set("events/block/block_bio_queue/filter", &format!("dev == {}", major << 20 | minor))?;
    tracer.set("events/block/block_bio_queue/enable", "1")?;
    // O_DIRECT, so that every request reaches the device at once and as itself.
    let options = options(trace, Path::new(&device.0)) + ",cache=none";
    output(Command::new(QTRACE).args(["replay", "--test", "block-trace-virtio", &options]))?;
    tracer.set("tracing_on", "0")?;
    let text = std::fs::read_to_string(tracer.0.join("trace")).map_err(|e| e.to_string())?;
    let times: Vec<f64> = text.lines().filter_map(event_seconds).collect();
    if times.len() != arrivals.len() {
        return Err(format!("{} events seen for {} requests", times.len(), arrivals.len()));
    }
    // The start of our clock is not known out here: the earliest request is taken as on time, so
    // that a constant shift vanishes and every drift and delay stays.
    let mut shift: Vec<f64> =
        times.iter().zip(arrivals).map(|(t, a)| t * 1e6 - *a as f64).collect();
    let total = times[times.len() - 1] - times[0];
    shift.sort_by(f64::total_cmp);
    let at = |q: f64| shift[((shift.len() - 1) as f64 * q) as usize] - shift[0];
    println!(
        "from outside: {total:.3} s; error against the plan (earliest = 0): p50 {:.0} us, p99 {:.0} us, max {:.0} us",
        at(0.5),
        at(0.99),
        at(1.0)
    );
    Ok(())
}

/// The time of a `block_bio_queue` line: `comm-pid [cpu] flags SECONDS.MICROS: block_bio_queue: …`.
fn event_seconds(line: &str) -> Option<f64> {
    let head = line.split(": block_bio_queue:").next().filter(|head| head.len() < line.len())?;
    head.split_whitespace().last()?.parse().ok()
}
