//! `cargo bench --bench nbd`: what recording costs. `qemu-img bench` on the same image, in turns,
//! through the NBD tap while it records, through `qemu-nbd`, and through `nbdkit`, which do not:
//! 4 KiB requests at depth 32 and 1 MiB ones in sequence, reads and writes.
//!
//! The image is full of data that cannot be compressed and never repeats, and each 1 MiB run is one
//! pass over it, so that all that is read is recorded for the first time; `sparse` is an image of
//! nothing. Figures are medians, ratios those of the rounds; compare these, not the numbers.

#[path = "common/mod.rs"]
mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{QTRACE, bench_dir, output};
use qtrace::base::Prng;

/// Bytes of the image.
const DISK_BYTES: u64 = 1 << 30;

/// Rounds; `QTRACE_BENCH_ROUNDS` changes it.
const ROUNDS: usize = 5;

/// A workload: its name, the arguments of `qemu-img bench`, and how many requests that is.
type Load = (&'static str, &'static [&'static str], u32);

const LOADS: [Load; 4] = [
    ("4 KiB reads, depth 32", &["-s", "4k", "-d", "32", "-c", "100000"], 100_000),
    ("1 MiB reads in sequence", &["-s", "1M", "-d", "8", "-c", "1024"], 1024),
    ("4 KiB writes, depth 32", &["-w", "-s", "4k", "-d", "32", "-c", "100000"], 100_000),
    ("1 MiB writes in sequence", &["-w", "-s", "1M", "-d", "8", "-c", "1024"], 1024),
];

/// A server of the image.
#[derive(Clone, Copy, Debug)]
enum Server {
    Qtrace,
    QemuNbd,
    Nbdkit,
}

impl Server {
    const ALL: [Self; 3] = [Self::Qtrace, Self::QemuNbd, Self::Nbdkit];

    /// Starts it and waits until it listens.
    fn start(self, dir: &Path, image: &Path, format: &str) -> Result<Child, String> {
        let socket = dir.join("s");
        let mut command = match self {
            Self::Qtrace => {
                let mut command = Command::new(QTRACE);
                command
                    .args(["record", "nbd", "--force", "--format", format, "--image"])
                    .arg(image);
                command.arg("--socket").arg(&socket).arg("-o").arg(dir.join("t.qtrace"));
                command.stderr(Stdio::piped());
                command
            }
            Self::QemuNbd => {
                let mut command = Command::new("qemu-nbd");
                command.args(["-t", "-e", "8", "--cache=writeback", "-f", format, "-k"]);
                command.arg(&socket).arg(image).stderr(Stdio::null());
                command
            }
            Self::Nbdkit if format != "raw" => return Err("nbdkit has no such format".to_owned()),
            Self::Nbdkit => {
                let mut command = Command::new("nbdkit");
                command
                    .args(["-f", "-U"])
                    .arg(&socket)
                    .arg("file")
                    .arg(image)
                    .stderr(Stdio::null());
                command
            }
        };
        let started = command.stdout(Stdio::null()).stdin(Stdio::null()).spawn();
        let mut child = started.map_err(|e| format!("{self:?} cannot be started: {e}"))?;
        if let Some(stderr) = child.stderr.take() {
            let mut lines = BufReader::new(stderr).lines();
            lines.find(|line| line.as_ref().is_ok_and(|line| line.contains(" at ")));
            std::thread::spawn(move || lines.for_each(drop));
        }
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!("{self:?} ended: {status}"));
            }
            std::thread::yield_now();
        }
        Ok(child)
    }
}

/// Requests a second of one run.
fn run(
    server: Server,
    dir: &Path,
    (image, format): (&Path, &str),
    load: Load,
) -> Result<f64, String> {
    let mut child = server.start(dir, image, format)?;
    let uri = format!("nbd+unix:///?socket={}", dir.join("s").display());
    let text = output(Command::new("qemu-img").args(["bench", "-f", "raw"]).args(load.1).arg(uri));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).expect("it is there");
    child.wait().expect("reaped");
    let _ = std::fs::remove_file(dir.join("s"));
    // What one has left to be written is not to slow the next one down.
    nix::unistd::sync();
    let text = text?;
    let after = text.find("completed in ").map(|at| &text[at + "completed in ".len()..]);
    let seconds = after.and_then(|rest| rest.split(' ').next()).and_then(|n| n.parse::<f64>().ok());
    seconds.map(|seconds| f64::from(load.2) / seconds).ok_or(text)
}

fn quartiles(mut figures: Vec<f64>) -> [f64; 3] {
    figures.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| figures[(figures.len() - 1) * quarter / 4])
}

fn compare(dir: &Path, what: &str, image: (&Path, &str), rounds: usize) {
    for load in LOADS {
        let mut figures = [const { Vec::new() }; 3];
        for _ in 0..rounds {
            for (server, figures) in Server::ALL.into_iter().zip(&mut figures) {
                figures.push(run(server, dir, image, load));
            }
        }
        let [ours, peers @ ..] = figures;
        let ours: Vec<f64> = ours.into_iter().map(|figure| figure.expect("ours runs")).collect();
        let mine = quartiles(ours.clone())[1];
        for (peer, theirs) in ["qemu-nbd", "nbdkit"].into_iter().zip(peers) {
            let what = format!("{what}, {}", load.0);
            match theirs.into_iter().collect::<Result<Vec<f64>, String>>() {
                Err(why) => println!("{what:<36} {mine:>8.0} /s  {peer}: skipped: {why}"),
                Ok(theirs) => {
                    let ratios = ours.iter().zip(&theirs).map(|(a, b)| a / b).collect();
                    let ([low, ratio, high], theirs) = (quartiles(ratios), quartiles(theirs)[1]);
                    println!(
                        "{what:<36} {mine:>8.0} /s  {peer:<9} {theirs:>8.0}  ratio {ratio:.2} ({low:.2} to {high:.2})"
                    );
                }
            }
        }
    }
}

/// Data that no program can make less of.
fn fill(path: &Path) {
    let mut file = File::create(path).expect("an image");
    let (mut prng, mut piece) = (Prng::new(1), vec![0; 1 << 20]);
    for _ in 0..DISK_BYTES >> 20 {
        prng.fill(&mut piece);
        file.write_all(&piece).expect("room for the image");
    }
}

fn main() {
    let rounds = std::env::var("QTRACE_BENCH_ROUNDS").ok().and_then(|n| n.parse().ok());
    let rounds = rounds.unwrap_or(ROUNDS);
    let folder = bench_dir();
    let dir = folder.path();
    let path = |name: &str| -> PathBuf { dir.join(name) };
    println!("qemu-img bench through each server, {rounds} rounds; only qtrace records\n");
    let (raw, qcow2, sparse) = (path("d.raw"), path("d.qcow2"), path("sparse.raw"));
    File::create(&sparse).and_then(|file| file.set_len(DISK_BYTES)).expect("an image");
    // Writes change what is read: each image is made anew.
    fill(&raw);
    let convert = ["convert", "-f", "raw", "-O", "qcow2"];
    if let Err(why) = output(Command::new("qemu-img").args(convert).arg(&raw).arg(&qcow2)) {
        return println!("skipped: {why}");
    }
    // Nor are the images, on their way to the disk, to slow the first ones down.
    nix::unistd::sync();
    compare(dir, "raw", (&raw, "raw"), rounds);
    compare(dir, "qcow2", (&qcow2, "qcow2"), rounds);
    compare(dir, "sparse", (&sparse, "raw"), rounds);
}
