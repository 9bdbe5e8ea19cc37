//! Recorders that are killed under load: every file opens, what it says was done the client had
//! been told in that order, and of what the client was told it lacks the last second at most.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use qtrace::base::{BlockOp, Prng};
use qtrace::image::nbd_proto::Command as Nbd;
use qtrace::trace::{Event, Trace};

use super::client::{Client, request};
use super::common::{QTRACE, have};

/// Bytes of the disk.
const SIZE: u64 = 64 << 20;
/// Requests in flight.
const DEPTH: usize = 16;
/// Longest time until a recorder is killed.
const LIFE_MS: u64 = 2500;
/// What a killed recorder may lose.
const LOSS: Duration = Duration::from_secs(1);

/// A request as the client sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    op: BlockOp,
    offset: u64,
    len: u64,
}

/// What a client knows: what it sent, and what it was told, and when.
#[derive(Default)]
struct Log {
    sent: Vec<Sent>,
    told: Vec<(u64, Instant)>,
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

fn send(client: &mut Client, prng: &mut Prng, number: u64, sent: Sent) -> std::io::Result<()> {
    let command = match sent.op {
        BlockOp::Read => Nbd::Read,
        BlockOp::Flush => Nbd::Flush,
        BlockOp::WriteZeroes => Nbd::WriteZeroes,
        BlockOp::Discard => Nbd::Trim,
        _ => Nbd::Write,
    };
    let mut message = request(command as u16, 0, number, (sent.offset, sent.len as u32));
    if command == Nbd::Write {
        let start = message.len();
        message.resize(start + sent.len as usize, 0);
        // Each write is known by its first bytes, and hard to compress.
        prng.fill(&mut message[start..]);
        message[start..start + 8].copy_from_slice(&number.to_le_bytes());
    }
    client.0.write_all(&message)
}

/// Works until the server is gone.
fn load(socket: &Path, seed: u64) -> Log {
    let mut prng = Prng::new(seed);
    let mut log = Log::default();
    let mut client = Client::enter(socket).expect("enters");
    let mut in_flight = VecDeque::new();
    loop {
        while in_flight.len() < DEPTH {
            let (number, sent) = (log.sent.len() as u64, choose(&mut prng));
            log.sent.push(sent);
            in_flight.push_back(number);
            if send(&mut client, &mut prng, number, sent).is_err() {
                break;
            }
        }
        // What had been sent to us before the server was killed is still there to be read.
        let Ok(reply) = client.reply() else { return log };
        assert_eq!(reply.error, 0);
        log.told.push((reply.cookie, Instant::now()));
        in_flight.retain(|number| *number != reply.cookie);
    }
}

/// Starts a recorder. The kernel may take a moment to let go of the image that a killed one had
/// (it ends io_uring's requests in the background), and until then it is locked.
fn start(image: &Path, trace: &Path, socket: &Path) -> Child {
    loop {
        match try_start(image, trace, socket) {
            Ok(child) => return child,
            Err(why) if why.contains("another program") => std::thread::yield_now(),
            Err(why) => panic!("the recorder did not start: {why}"),
        }
    }
}

fn try_start(image: &Path, trace: &Path, socket: &Path) -> Result<Child, String> {
    let mut child = Command::new(QTRACE)
        .args(["record", "nbd", "--force", "--image"])
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
fn kill_one(dir: &Path, format: &str, seed: u64) -> (usize, usize) {
    let (trace, socket) = (dir.join("t.qtrace"), dir.join("s"));
    let image = dir.join(format!("d.{format}"));
    let mut child = start(&image, &trace, &socket);
    let life = Duration::from_millis(Prng::new(seed).below(LIFE_MS));
    let client: PathBuf = socket.clone();
    let worker = std::thread::spawn(move || load(&client, seed));
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

fn kill_many(times: u64, format: &str) {
    if !have("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join(format!("d.{format}"));
    let create = ["create", "-q", "-f", format, image.to_str().unwrap(), "64M"];
    assert!(Command::new("qemu-img").args(create).status().unwrap().success());
    let (mut recorded, mut told) = (0, 0);
    for seed in 0..times {
        let (one, all) = kill_one(dir.path(), format, seed);
        (recorded, told) = (recorded + one, told + all);
    }
    println!("{format}: {times} kills; {recorded} completions recorded of {told} told");
    assert!(recorded > 0);
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "s" && name != "t.qtrace" && *name != format!("d.{format}"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_killed_recorder_leaves_what_the_client_was_told() {
    kill_many(6, "raw");
    kill_many(4, "qcow2");
}

/// Minutes: `cargo test --test record_nbd -- --ignored hundred`.
#[test]
#[ignore = "takes minutes"]
fn a_hundred_killed_recorders() {
    kill_many(50, "raw");
    kill_many(50, "qcow2");
}
