//! `qtrace info`, as a user runs it.

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use qtrace::base::{BlockOp, Nanos, OpFlags};
use qtrace::trace::{
    ClockStep, Complete, Event, Issue, Loss, Mark, NotRecorded, PayloadRef, StreamId, StreamInfo,
    TraceHeader, TraceSummary, TraceWriter,
};

fn header() -> TraceHeader {
    TraceHeader {
        tool: "qtrace 0.1.0".into(),
        source_format: "made-up".into(),
        interpretation: vec!["stage: Q".into()],
        ..TraceHeader::default()
    }
}

fn issue(time: u64, op: BlockOp, flags: OpFlags, payload: PayloadRef) -> Event {
    let len = if op.has_range() { 4096 } else { 0 };
    let (time, stream) = (Nanos(time), StreamId(0));
    Event::Issue(Issue { time, tag: 1, stream, op, flags, offset: len, len, payload, cpu: None })
}

/// Two writes (one with PREFLUSH and FUA, one with data), a flush, a failed answer and a mark.
fn write(path: &Path) {
    let mut writer = TraceWriter::create(path, header()).unwrap();
    let device = "evil\x1b[2Jdisk".to_owned();
    let stream = writer.stream(StreamInfo { device, ..StreamInfo::default() }).unwrap();
    let data = writer.payload(&[7; 4096]).unwrap();
    let both = OpFlags::PREFLUSH | OpFlags::FUA;
    let payload = PayloadRef::Absent;
    let events = [
        issue(500, BlockOp::Write, both, payload),
        issue(600, BlockOp::Write, OpFlags::empty(), data),
        issue(700, BlockOp::Flush, OpFlags::empty(), payload),
        Event::Complete(Complete { time: Nanos(800), tag: 1, stream, status: 5, payload }),
        Event::Mark(Mark { time: Nanos(900), stream, text: data, text_len: 4096 }),
    ];
    for event in &events {
        writer.event(event).unwrap();
    }
    let loss = Loss { reason: "bad line".into(), count: 2, first: "line 7".into() };
    let summary = TraceSummary {
        not_recorded: NotRecorded::READ_DATA,
        losses: vec![loss],
        ..TraceSummary::default()
    };
    writer.finish(summary).unwrap();
}

fn info(arguments: &[&str]) -> assert_cmd::assert::Assert {
    Command::cargo_bin("qtrace").unwrap().arg("info").args(arguments).assert()
}

fn json(path: &Path) -> serde_json::Value {
    let output = info(&[path.to_str().unwrap(), "--format", "json"]).code(0);
    serde_json::from_slice(&output.get_output().stdout).unwrap()
}

fn text(path: &Path) -> String {
    let output = info(&[path.to_str().unwrap()]).code(0);
    String::from_utf8(output.get_output().stdout.clone()).unwrap()
}

#[test]
fn json_counts_everything() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.qtrace");
    write(&path);
    let facts = json(&path);
    assert_eq!(facts["schema"], "qtrace.info/1");
    assert_eq!(facts["events"], 5);
    let ops = serde_json::json!({
        "read": 0, "write": 2, "flush": 1, "discard": 0, "write-zeroes": 0, "get-id": 0
    });
    assert_eq!(facts["ops"], ops);
    assert_eq!(facts["bytes"]["write"], 8192);
    assert_eq!(facts["flags"], serde_json::json!({ "write+preflush+fua": 1 }));
    assert_eq!((&facts["completions"], &facts["failures"]), (&1.into(), &1.into()));
    assert_eq!((&facts["marks"], &facts["issues_with_payload"]), (&1.into(), &1.into()));
    assert_eq!(facts["duration_ns"], 400);
    assert_eq!(facts["end_bytes"], 8192);
    assert_eq!(facts["payloads"]["count"], 1);
    assert_eq!(facts["payloads"]["raw_bytes"], 4096);
    assert_eq!(facts["not_recorded"], serde_json::json!(["read-data"]));
    assert_eq!(facts["losses"][0]["first"], "line 7");
    assert_eq!(facts["streams"][0]["ops"], ops);
    assert_eq!((&facts["complete"], &facts["truncation"]), (&true.into(), &().into()));
}

#[test]
fn text_is_safe_for_a_terminal_and_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.qtrace");
    write(&path);
    let page = text(&path);
    for want in [
        "5 events",
        "1 stored (data and texts",
        "1 issue and 0 completions carry data",
        "with preflush+fua",
        "read-data",
        "2 × bad line, first at line 7",
    ] {
        assert!(page.contains(want), "no {want:?} in:\n{page}");
    }
    assert!(page.contains("evil\\u{1b}[2Jdisk"), "{page}");
    assert!(!page.contains('\x1b'), "{page:?}");
}

#[test]
fn a_cut_trace_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.qtrace");
    write(&path);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 100]).unwrap();
    let facts = json(&path);
    assert_eq!((&facts["complete"], &facts["events"]), (&false.into(), &5.into()));
    let offset = facts["truncation"]["offset"].as_u64().unwrap();
    assert!(offset <= bytes.len() as u64 - 100, "{offset}");
    assert!(text(&path).contains("CUT SHORT"));
}

#[test]
fn an_empty_trace_counts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.qtrace");
    TraceWriter::create(&path, header()).unwrap().finish(TraceSummary::default()).unwrap();
    let facts = json(&path);
    assert_eq!((&facts["events"], &facts["ops"]["write"]), (&0.into(), &0.into()));
    assert!(text(&path).contains("0 events"));
}

#[test]
fn what_is_no_trace_is_an_input_error_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("iolog");
    fs::write(&path, "fio version 2 iolog\n").unwrap();
    let output = info(&[path.to_str().unwrap()]).code(3);
    let stderr = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(stderr.contains("hint: import it first: qtrace import"), "{stderr}");
    info(&[folder.path().join("missing").to_str().unwrap()]).code(3);
    info(&[folder.path().to_str().unwrap()]).code(3);
}

#[test]
fn a_run_log_is_recognised() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.log");
    let mut log = b"QTRUNLOG\x01\0\0\0\x38\0\0\0".to_vec();
    log.resize(16 + 3 * 56, 0);
    fs::write(&path, log).unwrap();
    assert_eq!(json(&path)["requests"], 3);
    assert!(text(&path).contains("run log, version 1, 3 device requests"));
}

#[test]
fn help_begins_with_examples() {
    let output = info(&["--help"]).code(0);
    let help = String::from_utf8_lossy(&output.get_output().stdout).into_owned();
    assert!(help.starts_with("Examples:\n  qtrace info"), "{help}");
}

#[test]
fn a_bus_trace_shows_accesses_memory_interrupts_and_steps() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces/compat/1.1.qtrace");
    let facts = json(&path);
    let want = serde_json::json!({
        "port_reads": 1, "port_writes": 1, "mmio_reads": 1, "mmio_writes": 1,
        "memory_writes": 1, "memory_fills": 1, "memory_reads": 1,
        "irqs_fired": 1, "irqs_low": 1, "acknowledges": 3, "clock_steps": 1,
        "addresses": [0xffff, u64::MAX],
    });
    assert_eq!(facts["bus"], want);
    assert_eq!(facts["streams"][0]["bus"], want);
    assert!(facts["streams"][1].get("bus").is_none());
    let text = text(&path);
    assert!(text.contains("2 reads, 2 writes at 0xffff to 0xffffffffffffffff"), "{text}");
    for row in ["1 reads            1 writes", "1 filled", "1 fired", "3 acknowledged", "1 steps"] {
        assert!(text.contains(row), "{row}: {text}");
    }
}

#[test]
fn a_bus_trace_of_nothing_else_shows_no_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.qtrace");
    let mut writer = TraceWriter::create(&path, header()).unwrap();
    let stream = writer.stream(StreamInfo::default()).unwrap();
    writer.event(&Event::Clock(ClockStep { time: Nanos(0), stream, to: Nanos(5) })).unwrap();
    writer.finish(TraceSummary::default()).unwrap();
    let text = text(&path);
    assert!(!text.contains("holds every request") && !text.contains("flush"), "{text}");
    assert!(text.contains("1 steps"), "{text}");
}

#[test]
fn the_workload_is_described() {
    let trace = concat!(env!("CARGO_MANIFEST_DIR"), "/traces/linux-ext4-virtio.qtrace");
    let facts = json(Path::new(trace));
    let profile = &facts["profile"];
    for op in ["read", "write"] {
        let Some(shape) = profile["shape"].get(op) else { continue };
        let count = |rows: &str| -> u64 {
            shape[rows].as_array().unwrap().iter().map(|row| row["count"].as_u64().unwrap()).sum()
        };
        let requests = facts["ops"][op].as_u64().unwrap();
        assert_eq!((count("sizes"), count("alignment")), (requests, requests), "{op}");
    }
    let reuse = &profile["reuse"];
    assert_eq!(reuse["exact"], true);
    let shares: f64 = reuse["distances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["share"].as_f64().unwrap())
        .sum::<f64>()
        + reuse["first_share"].as_f64().unwrap();
    assert!((shares - 1.0).abs() < 1e-9, "{shares}");
    assert!(profile["hot"]["hottest"][0]["requests"].as_u64().unwrap() > 0);
    let page = text(Path::new(trace));
    for want in ["write sizes", "aligned to", "footprint", ", exact", "hot extents"] {
        assert!(page.contains(want), "no {want:?} in:\n{page}");
    }
}

#[test]
fn depth_arrivals_and_latencies_come_from_times() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.qtrace");
    let mut writer = TraceWriter::create(&path, header()).unwrap();
    let stream = writer.stream(StreamInfo::default()).unwrap();
    // A request each microsecond for 60 us, answered 500 ns later: half of the time one is there.
    let payload = PayloadRef::Absent;
    for tag in 0..60 {
        let (time, op, flags) = (Nanos(tag * 1000), BlockOp::Read, OpFlags::empty());
        let (offset, len) = (tag * 4096, 4096);
        let issue = Issue { time, tag, stream, op, flags, offset, len, payload, cpu: None };
        writer.event(&Event::Issue(issue)).unwrap();
        let time = time + 500;
        writer.event(&Event::Complete(Complete { time, tag, stream, status: 0, payload })).unwrap();
    }
    let mark = Mark { time: Nanos(60_000), stream, text: payload, text_len: 0 };
    writer.event(&Event::Mark(mark)).unwrap();
    writer.finish(TraceSummary::default()).unwrap();
    let flow = &json(&path)["profile"]["flow"];
    assert_eq!(flow["depth"]["max"], 1);
    assert!((flow["depth"]["mean"].as_f64().unwrap() - 0.5).abs() < 1e-9, "{}", flow["depth"]);
    assert_eq!(flow["depth"]["unanswered"], 0);
    assert!((flow["arrivals_per_s"].as_f64().unwrap() - 1e6).abs() < 1e-3);
    assert_eq!(flow["gap_variation"], 0.0);
    assert_eq!(
        (&flow["latency"]["read"]["max_ns"], &flow["latency"]["read"]["count"]),
        (&500.into(), &60.into())
    );
    let slices = flow["slices"].as_array().unwrap();
    assert_eq!(slices.len(), 60);
    assert!(
        slices.iter().all(|slice| slice["arrivals"] == 1 && slice["depth_max"] == 1),
        "{slices:?}"
    );
    let shape = &json(&path)["profile"]["shape"]["read"];
    assert_eq!(shape["sequential"], 59);
    let page = text(&path);
    assert!(page.contains("0.50 under way on average, 1 at most"), "{page}");
}
