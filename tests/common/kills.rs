//! Recorders that are killed under load: every file opens, what it says was done the client had
//! been told in that order, and of what the client was told it lacks the last second at most.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use qtrace::base::{BlockOp, Prng};
use qtrace::trace::{Event, Trace};

use super::{QTRACE, have};

/// Bytes of the disk.
const SIZE: u64 = 64 << 20;
/// Requests that a client has in flight.
pub const DEPTH: usize = 16;
/// Longest time until a recorder is killed.
const LIFE_MS: u64 = 2500;
/// What a killed recorder may lose.
const LOSS: Duration = Duration::from_secs(1);

/// A request as the client sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    pub op: BlockOp,
    pub offset: u64,
    pub len: u64,
}

/// What a client knows: what it sent, and what it was told, and when.
#[derive(Default)]
pub struct Log {
    pub sent: Vec<Sent>,
    pub told: Vec<(u64, Instant)>,
}

impl Log {
    /// What to send next, and its number.
    pub fn choose(&mut self, prng: &mut Prng) -> (u64, Sent) {
        let (number, sent) = (self.sent.len() as u64, choose(prng));
        self.sent.push(sent);
        (number, sent)
    }
}

/// A tap, and a client that works with its disk until the server at the socket is gone.
pub struct Victim {
    /// `qtrace record` …
    pub tap: &'static str,
    pub client: fn(&Path, u64) -> Log,
}

/// The data of write `number`: known by its first bytes, and hard to compress.
pub fn fill(data: &mut [u8], number: u64, prng: &mut Prng) {
    prng.fill(data);
    data[..8].copy_from_slice(&number.to_le_bytes());
}

fn choose(prng: &mut Prng) -> Sent {
    let len = (1 + prng.below(8)) * 4096;
    let offset = prng.below((SIZE - len) / 4096) * 4096;
    let op = match prng.below(16) {
        0..4 => BlockOp::Read,
        4 => BlockOp::Flush,
        5 => BlockOp::WriteZeroes,
        6 => BlockOp::Discard,
        _ => BlockOp::Write,
    };
    if op == BlockOp::Flush { Sent { op, offset: 0, len: 0 } } else { Sent { op, offset, len } }
}

/// Starts a recorder. The kernel may take a moment to let go of the image that a killed one had
/// (it ends io_uring's requests in the background), and until then it is locked.
fn start(tap: &str, image: &Path, trace: &Path, socket: &Path) -> Child {
    loop {
        match try_start(tap, image, trace, socket) {
            Ok(child) => return child,
            Err(why) if why.contains("another program") => std::thread::yield_now(),
            Err(why) => panic!("the recorder did not start: {why}"),
        }
    }
}

fn try_start(tap: &str, image: &Path, trace: &Path, socket: &Path) -> Result<Child, String> {
    let mut child = Command::new(QTRACE)
        .args(["record", tap, "--force", "--image"])
        .arg(image)
        .arg("--socket")
        .arg(socket)
        .arg("-o")
        .arg(trace)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("qtrace runs");
    let stderr = BufReader::new(child.stderr.take().expect("stderr"));
    let mut said = String::new();
    for line in stderr.lines().map_while(Result::ok) {
        if line.contains(" at ") {
            return Ok(child);
        }
        said += &line;
    }
    let status = child.wait();
    Err(format!("{status:?}: {said}"))
}

/// Kills one recorder at a moment of its life; checks what it left.
fn kill_one(victim: &Victim, dir: &Path, format: &str, seed: u64) -> (usize, usize) {
    let (trace, socket) = (dir.join("t.qtrace"), dir.join("s"));
    let image = dir.join(format!("d.{format}"));
    let mut child = start(victim.tap, &image, &trace, &socket);
    let life = Duration::from_millis(Prng::new(seed).below(LIFE_MS));
    let (client, at): (_, PathBuf) = (victim.client, socket.clone());
    let worker = std::thread::spawn(move || client(&at, seed));
    // The moment is what is random here: nothing is waited for.
    std::thread::sleep(life);
    let killed_at = Instant::now();
    child.kill().expect("killed");
    child.wait().expect("reaped");
    let log = worker.join().expect("the client");
    let recorded = check(&trace, &log, killed_at);
    let out = Command::new("qemu-img").args(["check", "-f", format]).arg(&image).output().unwrap();
    // 63: a raw image has nothing to check.
    assert!(
        out.status.success() || (format == "raw" && out.status.code() == Some(63)),
        "seed {seed}: {}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    (recorded, log.told.len())
}

/// How many completions the trace has, which are the first ones that the client was told.
fn check(path: &Path, log: &Log, killed_at: Instant) -> usize {
    let trace = Trace::open(path).expect("the trace opens");
    assert!(trace.truncation().is_some(), "a killed recorder's trace says so");
    let mut cursor = trace.cursor(0);
    let (mut tags, mut completed) = (Vec::new(), Vec::new());
    while let Some((_, event)) = cursor.next().expect("an event") {
        match event {
            Event::Issue(issue) => {
                // One connection's requests are recorded in the order in which it sent them.
                let number = tags.len();
                let sent = Sent { op: issue.op, offset: issue.offset, len: issue.len };
                assert_eq!(Some(&sent), log.sent.get(number));
                if issue.op == BlockOp::Write {
                    let mut first = [0; 8];
                    trace.read_payload(issue.payload, issue.len, 0, &mut first).expect("its data");
                    assert_eq!(u64::from_le_bytes(first), number as u64);
                }
                tags.push(issue.tag);
            }
            Event::Complete(complete) => {
                let number = tags.iter().rposition(|tag| *tag == complete.tag);
                completed.push(number.expect("its request") as u64);
            }
            other => panic!("{other:?}"),
        }
    }
    let told: Vec<u64> = log.told.iter().map(|(number, _)| *number).collect();
    assert!(told.starts_with(&completed), "told {}, recorded {}", told.len(), completed.len());
    let old = log.told.partition_point(|(_, at)| killed_at.saturating_duration_since(*at) > LOSS);
    assert!(completed.len() >= old, "{} of {old} older than a second", completed.len());
    completed.len()
}

/// Kills `times` recorders, one after the other, at a disk in `format`.
pub fn kill_many(victim: &Victim, times: u64, format: &str) {
    if !have("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join(format!("d.{format}"));
    let create = ["create", "-q", "-f", format, image.to_str().unwrap(), "64M"];
    assert!(Command::new("qemu-img").args(create).status().unwrap().success());
    let (mut recorded, mut told) = (0, 0);
    for seed in 0..times {
        let (one, all) = kill_one(victim, dir.path(), format, seed);
        (recorded, told) = (recorded + one, told + all);
    }
    println!(
        "{}, {format}: {times} kills; {recorded} completions recorded of {told} told",
        victim.tap
    );
    assert!(recorded > 0);
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "s" && name != "t.qtrace" && *name != format!("d.{format}"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
