//! `qtrace show`, as a user runs it.

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use common::{QTRACE, expect, qtrace, repo};
use qtrace::base::{BlockOp, BusAccess, BusSpace, Nanos, OpFlags};
use qtrace::trace::{
    BusEvent, Complete, Event, Issue, Mark, PayloadRef, StreamId, StreamInfo, TraceHeader,
    TraceSummary, TraceWriter,
};

/// `count` writes of 4 KiB, one each millisecond, each answered 100 us later; one in ten has data.
fn write_requests(path: &Path, count: u64) {
    let mut writer = TraceWriter::create(path, TraceHeader::default()).unwrap();
    let device = "vda".to_owned();
    let stream = writer.stream(StreamInfo { device, ..StreamInfo::default() }).unwrap();
    let data = writer.payload(&[b'x'; 4096]).unwrap();
    for tag in 0..count {
        let time = Nanos(tag * 1_000_000);
        let payload = if tag % 10 == 0 { data } else { PayloadRef::Absent };
        let op = if tag % 2 == 0 { BlockOp::Write } else { BlockOp::Read };
        let (offset, len, flags) = (tag * 4096, 4096, OpFlags::empty());
        let issue = Issue { time, tag, stream, op, flags, offset, len, payload, cpu: None };
        writer.event(&Event::Issue(issue)).unwrap();
        let (time, payload) = (time + 100_000, PayloadRef::Absent);
        let status = if tag == 3 { 5 } else { 0 };
        let complete = Complete { time, tag, stream, status, payload };
        writer.event(&Event::Complete(complete)).unwrap();
    }
    writer.finish(TraceSummary::default()).unwrap();
}

fn show(dir: &Path, args: &[&str]) -> Vec<String> {
    let all = ["show", "t.qtrace"].iter().chain(args);
    expect(dir, 0, all).lines().map(str::to_owned).collect()
}

fn folder(count: u64) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_requests(&dir.path().join("t.qtrace"), count);
    dir
}

#[test]
fn filters_by_kind_range_time_number_and_place() {
    let dir = folder(1000);
    let dir = dir.path();
    assert_eq!(show(dir, &[]).len(), 2000);
    let reads = show(dir, &["--op", "read"]);
    assert_eq!(reads.len(), 1000);
    assert!(
        reads[1].ends_with("complete     read         4096 + 4096 tag 1, 100.0 us"),
        "{}",
        reads[1]
    );
    assert!(reads[3].contains("FAILED: Input/output error"), "{}", reads[3]);
    let line = "        8     0.004000000 vda write        16384 + 4096 tag 4";
    assert_eq!(show(dir, &["--range", "32s+8s"])[0], line);
    assert_eq!(show(dir, &["--range", "16384-16385", "--range", "0-1"]).len(), 4);
    let times = show(dir, &["--time", "500ms-502ms"]);
    assert_eq!(times.len(), 4);
    assert!(times[0].starts_with("     1000     0.500000000"), "{}", times[0]);
    assert_eq!(show(dir, &["--events", "1990-"]).len(), 10);
    assert_eq!(show(dir, &["--events", "-4", "--range", "-1M", "--time", "-1s"]).len(), 4);
    assert_eq!(show(dir, &["--op", "write", "--events", "1990-", "--time", "998ms-"]).len(), 2);
    let around = show(dir, &["--around", "1000", "--context", "2"]);
    assert_eq!(around.len(), 5);
    assert!(around[2].starts_with(">     1000 "), "{}", around[2]);
    assert_eq!(show(dir, &["--stream", "0", "--device", "vda"]).len(), 2000);
}

#[test]
fn json_is_an_object_a_line() {
    let dir = folder(20);
    let lines = show(dir.path(), &["--format", "json", "--payload=4", "--events", "20-22"]);
    let parse = |line: &String| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let lines: Vec<serde_json::Value> = lines.iter().map(parse).collect();
    assert_eq!(
        lines[0],
        serde_json::json!({"event": 20, "time_ns": 10_000_000, "stream": 0, "kind": "issue",
            "op": "write", "offset": 40960, "len": 4096, "tag": 10, "payload": true,
            "data": "78787878", "data_bytes_left": 4092})
    );
    assert_eq!(lines[1]["kind"], "complete");
}

#[test]
fn data_is_dumped_at_its_place_on_the_disk() {
    let dir = folder(11);
    let lines = show(dir.path(), &["--around", "20", "--context", "0", "--payload=32"]);
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines[1].trim().starts_with("00000000a000  78 78"), "{}", lines[1]);
    assert_eq!(lines[2].trim(), "*");
    assert_eq!(lines[3].trim(), "… 4064 bytes more");
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let dir = folder(200_000);
    let mut child = Command::new(QTRACE)
        .args(["show", "t.qtrace"])
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("        0 "), "{first}");
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(0));
    assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn what_a_file_says_is_safe_for_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.qtrace");
    let mut writer = TraceWriter::create(&path, TraceHeader::default()).unwrap();
    let device = "\x1b[2Jrtc".to_owned();
    let stream = writer.stream(StreamInfo { device, ..StreamInfo::default() }).unwrap();
    let text = writer.payload(b"a\x1b[31mb").unwrap();
    let mark = Mark { time: Nanos(0), stream, text, text_len: 7 };
    writer.event(&Event::Mark(mark)).unwrap();
    let access = BusAccess { space: BusSpace::Pio, write: true, addr: 0x70, size: 1, value: 0x8f };
    let bus = BusEvent { time: Nanos(1), stream: StreamId(0), access, cpu: Some(1) };
    writer.event(&Event::Bus(bus)).unwrap();
    writer.finish(TraceSummary::default()).unwrap();
    let lines = show(dir.path(), &[]);
    assert!(lines[0].ends_with("mark         \"a\\u{1b}[31mb\""), "{}", lines[0]);
    assert!(lines[1].ends_with("\\u{1b}[2Jrtc out          0x70/1 <- 0x8f cpu 1"), "{}", lines[1]);
}

#[test]
fn mistakes_are_told_from_nothing_found() {
    let dir = folder(3);
    for (args, code, says) in [
        (&["--op", "reed"][..], 2, "kinds: read, write"),
        (&["--range", "9-1"], 2, "1M-2M"),
        (&["--time", "x"], 2, "1s-2.5s"),
        (&["--stream", "1"], 2, "1 streams"),
        (&["--device", "vdb"], 2, "it has 'vda'"),
        (&["--around", "6"], 2, "6 events"),
        (&["--context", "3"], 2, "--around"),
        (&["--op", "flush"], 4, "no event"),
        (&["--events", "7-"], 4, "no event"),
    ] {
        let out = qtrace(dir.path(), ["show", "t.qtrace"].iter().chain(args));
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(says), "{args:?}: {stderr}");
    }
}

#[test]
fn a_boot_of_a_pc_can_be_looked_at() {
    let trace = repo().join("traces/seabios-pc.qtrace");
    let trace = trace.to_str().unwrap();
    let cmos = expect(repo(), 0, ["show", trace, "--op", "bus", "--range", "0x70-0x72"]);
    assert!(cmos.lines().count() > 10 && cmos.lines().all(|line| line.contains("0x7")), "{cmos}");
}
