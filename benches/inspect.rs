//! `cargo bench --bench inspect`: how fast a binary blktrace is decoded, by qtrace and by blkparse, on
//! the same file in the same run; and how fast `qtrace info` goes over a trace, in how much memory.
//! Prints figures and asserts nothing.
//!
//! `QTRACE_BENCH_EVENTS` is the number of events for `info` (48 bytes each; 10 million).

mod common;

use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use common::{QTRACE, median, output, peak_memory, row, seconds};
use qtrace::base::{BlockOp, Nanos, OpFlags, Prng};
use qtrace::trace::{
    Complete, Event, Issue, PayloadRef, StreamInfo, TraceHeader, TraceSummary, TraceWriter,
};

/// Requests, each queued, dispatched and completed.
const REQUESTS: u64 = 500_000;
const RECORDS_EACH: u64 = 3;
const RUNS: usize = 3;

const QUEUE: u32 = 1;
const ISSUE: u32 = 7;
const COMPLETE: u32 = 8;
/// Category bits of an action (`BLK_TC_ACT`): what blkparse tells records apart by, too.
const TC_READ: u32 = 1 << 16;
const TC_WRITE: u32 = 2 << 16;

fn main() {
    let dir = common::bench_dir();
    let dir = dir.path();
    write(&dir.join("big.blktrace.0"));
    let records = (REQUESTS * RECORDS_EACH) as f64;
    println!("{records} records of version 7, {} MB\n", records as u64 * 48 / 1_000_000);
    let ours = median(RUNS, || {
        let import = ["import", "big.blktrace.0", "-o", "big.qtrace", "--force"];
        records / seconds(|| run(Command::new(QTRACE).args(import).current_dir(dir)))
    });
    // As people run it, and with nothing printed for each record: its fastest.
    for (what, args) in [("text to a file", &[][..]), ("no text (-q -O)", &["-q", "-O"])] {
        let theirs = output(Command::new("blkparse").arg("-V")).map(|_| {
            median(RUNS, || {
                let out = std::fs::File::create(dir.join("big.txt")).expect("a file");
                let mut command = Command::new("blkparse");
                command.args(["-i", "big"]).args(args).current_dir(dir).stdout(out);
                records / seconds(|| run(&mut command))
            })
        });
        row("import of a binary blktrace", ours, "rec/s", &format!("blkparse, {what}"), theirs);
    }
    info(dir);
}

/// `qtrace info` over a trace whose blocks come again: half in a small hot part, half anywhere.
fn info(dir: &Path) {
    let events = std::env::var("QTRACE_BENCH_EVENTS").ok().and_then(|n| n.parse().ok());
    let events: u64 = events.unwrap_or(10_000_000);
    let path = dir.join("many.qtrace");
    write_trace(&path, events / 2);
    let bytes = std::fs::metadata(&path).expect("a trace").len();
    let mut command = Command::new(QTRACE);
    command.arg("info").arg(&path);
    let mut peak = 0;
    let secs = seconds(|| peak = peak_memory(&mut command));
    println!(
        "qtrace info of {events} events ({} MB): {secs:.1} s, {:.1} million events/s, {} MiB at most",
        bytes / 1_000_000,
        events as f64 / secs / 1e6,
        peak >> 20
    );
}

fn write_trace(path: &Path, requests: u64) {
    let mut writer = TraceWriter::create(path, TraceHeader::default()).expect("created");
    let stream = writer.stream(StreamInfo::default()).expect("a stream");
    let mut prng = Prng::new(9);
    let payload = PayloadRef::Absent;
    let mut under_way = std::collections::VecDeque::new();
    let mut time = Nanos(0);
    for tag in 0..requests {
        time += 1_000 + prng.below(4_000);
        let blocks = if prng.below(2) == 0 { 1 << 14 } else { 1 << 26 };
        let (offset, len, flags) = (prng.below(blocks) * 4096, 4096, OpFlags::empty());
        let op = if prng.below(3) == 0 { BlockOp::Write } else { BlockOp::Read };
        let issue = Issue { time, tag, stream, op, flags, offset, len, payload, cpu: None };
        writer.event(&Event::Issue(issue)).expect("written");
        under_way.push_back(tag);
        if under_way.len() > 16
            && let Some(tag) = under_way.pop_front()
        {
            let complete = Complete { time: time + 100, tag, stream, status: 0, payload };
            writer.event(&Event::Complete(complete)).expect("written");
        }
    }
    for tag in under_way {
        let complete = Complete { time: time + 1_000, tag, stream, status: 0, payload };
        writer.event(&Event::Complete(complete)).expect("written");
    }
    writer.finish(TraceSummary::default()).expect("finished");
}

fn run(command: &mut Command) {
    let status = command.stdin(Stdio::null()).stderr(Stdio::null()).status().expect("it runs");
    assert!(status.success(), "{command:?}: {status}");
}

/// A capture of one CPU: random 4 KiB requests, up to eight of them under way.
fn write(path: &Path) {
    let mut out = BufWriter::new(std::fs::File::create(path).expect("a file"));
    let mut prng = Prng::new(7);
    let (mut sequence, mut time) = (0u32, 0u64);
    let mut under_way = std::collections::VecDeque::new();
    let mut record = |time: u64, sector: u64, action: u32| {
        sequence += 1;
        let mut bytes = Vec::with_capacity(48);
        bytes.extend_from_slice(&0x6561_7407u32.to_le_bytes());
        bytes.extend_from_slice(&sequence.to_le_bytes());
        bytes.extend_from_slice(&time.to_le_bytes());
        bytes.extend_from_slice(&sector.to_le_bytes());
        for word in [4096, action, 4321, 8 << 20, 0, 0] {
            bytes.extend_from_slice(&u32::to_le_bytes(word));
        }
        out.write_all(&bytes).expect("written");
    };
    for _ in 0..REQUESTS {
        let sector = prng.below(1 << 24) * 8;
        let category = if prng.below(2) == 0 { TC_READ } else { TC_WRITE };
        time += 1_000 + prng.below(4_000);
        record(time, sector, QUEUE | category | (1 << 4 << 16));
        record(time + 300, sector, ISSUE | category | (1 << 6 << 16));
        under_way.push_back((sector, category));
        if under_way.len() > 8
            && let Some((sector, category)) = under_way.pop_front()
        {
            record(time + 600, sector, COMPLETE | category | (1 << 7 << 16));
        }
    }
    for (sector, category) in under_way {
        time += 5_000;
        record(time, sector, COMPLETE | category | (1 << 7 << 16));
    }
}
