use clap::Parser;
use serde_json::Value;

use super::*;
use crate::base::{BlockOp, Nanos, OpFlags, TimeGrade};
use crate::cli::{Cli, Command};
use crate::report::{RunStats, TimingStatus};
use crate::trace::{Complete, TraceWriter};
use crate::trace::{Event, Issue, PayloadRef, StreamId, StreamInfo, TraceHeader, TraceSummary};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    fn report(&self, name: &str, latency_ns: u64, edit: impl FnOnce(&mut Report)) {
        let mut stats = RunStats::new();
        (0..1000).for_each(|_| stats.completed(BlockOp::Write, 4096, latency_ns, true));
        let mut report = Report::new("block-trace-virtio", TimeGrade::RealTime);
        report.duration_ns = 1_000_000_000;
        report.complete = true;
        report.verdict.pass = true;
        report.set_stats(&stats);
        edit(&mut report);
        self.file(name, json::to_string(&report).unwrap().as_bytes());
    }

    /// A trace of writes: (offset, byte, length).
    fn trace(&self, name: &str, tool: &str, writes: &[(u64, u8, usize)]) {
        let header = TraceHeader {
            tool: tool.into(),
            source_format: "test".into(),
            interpretation: vec![tool.into()],
            ..TraceHeader::default()
        };
        let mut writer = TraceWriter::create(&self.path(name), header).unwrap();
        let stream = writer.stream(StreamInfo::default()).unwrap();
        for (tag, &(offset, byte, len)) in (0..).zip(writes) {
            let payload = writer.payload(&vec![byte; len]).unwrap();
            let issue = issue(tag, stream, offset, len as u64, payload);
            writer.event(&Event::Issue(issue)).unwrap();
            let (time, payload) = (Nanos(tag), PayloadRef::Absent);
            let done = Complete { time, tag, stream, status: 0, payload };
            writer.event(&Event::Complete(done)).unwrap();
        }
        writer.finish(TraceSummary::default()).unwrap();
    }

    /// The bus events of `kept`, each as `change` makes it.
    fn bus_trace(&self, name: &str, kept: &Trace, change: fn(&mut Event)) {
        let mut writer = TraceWriter::create(&self.path(name), kept.header().clone()).unwrap();
        for info in kept.streams() {
            writer.stream(info.clone()).unwrap();
        }
        writer.payload(b"hello").unwrap();
        let mut cursor = kept.cursor(0);
        while let Some((_, mut event)) = cursor.next().unwrap() {
            if !matches!(event, Event::Issue(_) | Event::Complete(_) | Event::Mark(_)) {
                change(&mut event);
                writer.event(&event).unwrap();
            }
        }
        writer.finish(TraceSummary::default()).unwrap();
    }

    /// Runs `qtrace diff` with names of this folder's files and options.
    fn diff(&self, args: &str) -> Result<Outcome> {
        let words = args.split_whitespace().map(|word| {
            let path = self.path(word);
            if path.exists() { path.display().to_string() } else { word.to_owned() }
        });
        let all = ["qtrace".to_owned(), "diff".to_owned()].into_iter().chain(words);
        let Command::Diff(args) = Cli::try_parse_from(all).unwrap().command else {
            panic!("not a diff")
        };
        super::diff(&args)
    }

    fn json(&self, args: &str) -> (u8, Value) {
        let outcome = self.diff(args).unwrap();
        (outcome.code, serde_json::from_str(&outcome.json).unwrap())
    }
}

fn issue(tag: u64, stream: StreamId, offset: u64, len: u64, payload: PayloadRef) -> Issue {
    let (time, op, flags) = (Nanos(tag * 10), BlockOp::Write, OpFlags::empty());
    Issue { time, tag, stream, op, flags, offset, len, payload, cpu: None }
}

#[test]
fn equal_images_are_0_and_different_ones_1_with_every_extent() {
    let folder = Folder::new();
    let mut bytes = vec![0u8; 1 << 20];
    folder.file("a", &bytes);
    folder.file("same", &bytes);
    (bytes[700], bytes[5000]) = (1, 1);
    bytes[900_000..901_000].fill(3);
    folder.file("b", &bytes);
    let same = folder.diff("a same").unwrap();
    assert_eq!(same.code, 0);
    assert!(same.text.contains("identical"), "{}", same.text);
    let (code, json) = folder.json("a b");
    assert_eq!(
        (code, json["kind"].as_str(), json["identical"].as_bool()),
        (1, Some("images"), Some(false))
    );
    let extents: Vec<_> = json["extents"].as_array().unwrap().iter().collect();
    let places: Vec<_> = extents
        .iter()
        .map(|e| (e["offset"].as_u64().unwrap(), e["len"].as_u64().unwrap()))
        .collect();
    assert_eq!(places, [(512, 512), (4608, 512), (899_584, 1536)]);
    assert!(extents[0].get("last_writer").is_none());
    let few = folder.diff("a b --extents 1").unwrap();
    assert!(few.text.contains("and 2 more differing extents"), "{}", few.text);
    assert!(few.text.contains("the images differ: 2560 bytes in 3 extents"), "{}", few.text);
}

#[test]
fn sizes_count_and_zeros_at_the_end_are_told_apart() {
    let folder = Folder::new();
    folder.file("a", &[0; 4096]);
    folder.file("b", &[0; 8192]);
    let outcome = folder.diff("a b").unwrap();
    assert_eq!(outcome.code, 1);
    assert!(outcome.text.contains("apart from zeros at the end"), "{}", outcome.text);
    assert!(outcome.text.contains("the sizes differ: 4096 and 8192"));
}

#[test]
fn a_qcow2_and_a_raw_image_of_one_content_are_equal() {
    let folder = Folder::new();
    folder.file("raw", &[[7u8; 4096], [0; 4096]].concat());
    let options = OpenOptions { writable: true, ..OpenOptions::default() };
    let pending = image::create(&folder.path("q"), "qcow2", 8192, &options).unwrap();
    image::write_all(&*pending.image(), &[7; 4096], 0).unwrap();
    pending.image().flush().unwrap();
    pending.commit().unwrap();
    assert_eq!(folder.diff("raw q").unwrap().code, 0);
}

#[test]
fn the_trace_names_who_wrote_each_extent_last() {
    let folder = Folder::new();
    folder.trace("t", "x", &[(0, 1, 8192), (4096, 2, 1024), (65536, 3, 512)]);
    let bytes = vec![0u8; 1 << 20];
    folder.file("a", &bytes);
    for (name, places) in [("b", vec![100, 4100, 500_000]), ("c", vec![66_100])] {
        let mut bytes = bytes.clone();
        places.into_iter().for_each(|at| bytes[at] = 9);
        folder.file(name, &bytes);
    }
    let (code, json) = folder.json("a b --trace t");
    assert_eq!(code, 1);
    let events: Vec<_> = json["extents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["last_writer"]["event"].as_u64())
        .collect();
    assert_eq!(events, [Some(0), Some(2), None]);
    let text = folder.diff("a b --trace t").unwrap().text;
    assert!(text.contains("offset 4096 (0x1000), 512 bytes, last written by event 2 (write of 1024 bytes at offset 4096)"), "{text}");
    assert!(text.contains("not written by the trace"), "{text}");
    let (_, past) = folder.json("a c --trace t");
    assert!(past["extents"][0]["last_writer"].is_null(), "one sector past the write");
}

#[test]
fn reports_stand_side_by_side_and_limits_decide() {
    let folder = Folder::new();
    folder.report("old", 1_000_000, |_| ());
    folder.report("new", 1_200_000, |report| report.image_sha256 = Some("x".into()));
    let plain = folder.diff("old new").unwrap();
    assert_eq!(plain.code, 0, "a difference is no failure without a limit");
    let line = plain.text.lines().find(|l| l.starts_with("write.p99 ")).unwrap();
    assert!(line.ends_with("1.00 ms        1.20 ms  1.200"), "{line:?}");
    assert!(plain.text.contains("A (real time)"));
    assert_eq!(folder.diff("old new --fail-if p99>25%").unwrap().code, 0);
    let (code, json) = folder.json("old new --fail-if p99>10% --fail-if iops<10%");
    assert_eq!(code, 6);
    let failed: Vec<_> = json["fail_if"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["failed"].as_bool().unwrap())
        .collect();
    assert_eq!(failed, [true, false]);
    assert_eq!(json["identical"], Value::Bool(false));
    assert!(
        folder
            .diff("old new --fail-if p99>10%")
            .unwrap()
            .text
            .contains("FAIL  p99>10%: 1.00 ms -> 1.20 ms")
    );
    let (_, same) = folder.json("old old");
    assert_eq!(same["identical"], Value::Bool(true));
}

#[test]
fn a_limit_on_times_that_mean_nothing_does_not_pass() {
    let folder = Folder::new();
    folder.report("old", 1000, |_| ());
    folder.report("new", 1000, |report| {
        report.timing.status = TimingStatus::Invalid;
        report.timing.why = "too late".into();
    });
    let outcome = folder.diff("old new --fail-if p99>10%").unwrap();
    assert_eq!(outcome.code, 6);
    assert!(outcome.text.contains("the timing of B is INVALID: too late"), "{}", outcome.text);
    let line = "FAIL  timing of B is INVALID, so no limit can be judged";
    assert!(outcome.text.contains(line), "{}", outcome.text);
    let (_, json) = folder.json("old new --fail-if p99>10%");
    assert_eq!(json["not_judged"].as_array().map(Vec::len), Some(1));
    assert_eq!(folder.diff("old new").unwrap().code, 0);
}

#[test]
fn pipes_and_run_logs_are_refused() {
    let folder = Folder::new();
    folder.file("log", &RUN_LOG_MAGIC);
    let pipe = folder.path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for args in ["pipe log", "pipe log --format-a raw"] {
        assert_eq!(folder.diff(args).unwrap_err().kind().exit_code(), 3, "{args}");
    }
    let error = folder.diff("log log").unwrap_err();
    assert!(error.kind().exit_code() == 2 && error.hint_text().unwrap().contains("cmp"));
}

#[test]
fn a_missing_figure_and_a_bad_limit_are_errors() {
    let folder = Folder::new();
    folder.report("a", 1000, |_| ());
    let missing = folder.diff("a a --fail-if read.p99>10%").unwrap_err();
    assert_eq!(missing.kind().exit_code(), 3);
    let bad = folder.diff("a a --fail-if p98>10%").unwrap_err();
    assert_eq!(bad.kind().exit_code(), 2);
    assert!(bad.hint_text().unwrap().contains("p99.9"));
}

#[test]
fn traces_are_equal_whoever_wrote_them() {
    let folder = Folder::new();
    folder.trace("a", "one", &[(0, 1, 4096), (4096, 2, 512)]);
    folder.trace("b", "two", &[(0, 1, 4096), (4096, 2, 512)]);
    let outcome = folder.diff("a b").unwrap();
    assert_eq!(outcome.code, 0, "{}", outcome.text);
    assert!(outcome.text.contains("the traces are identical"));
}

#[test]
fn the_first_differing_event_is_shown_from_both() {
    let folder = Folder::new();
    folder.trace("a", "x", &[(0, 1, 4096), (4096, 2, 512)]);
    // The same payload under another number, then another byte in it, another place, an end.
    folder.trace("byte", "x", &[(0, 1, 4096), (4096, 3, 512)]);
    folder.trace("place", "x", &[(0, 1, 4096), (8192, 2, 512)]);
    folder.trace("short", "x", &[(0, 1, 4096)]);
    for (other, event, fields) in
        [("byte", 2, "payload"), ("place", 2, "offset"), ("short", 2, "end of the trace")]
    {
        let (code, json) = folder.json(&format!("a {other}"));
        let first = &json["first_difference"];
        assert_eq!((code, first["event"].as_u64()), (1, Some(event)), "{other}");
        assert_eq!(first["fields"][0].as_str(), Some(fields));
    }
    let text = folder.diff("a place").unwrap().text;
    assert!(text.contains("first differing event: 2 (offset)"), "{text}");
    assert!(text.contains("A  10 ns: write of 512 bytes at offset 4096"), "{text}");
    assert!(text.contains("B  10 ns: write of 512 bytes at offset 8192"), "{text}");
    let (_, json) = folder.json("a short");
    assert_eq!(
        (json["a"]["ops"]["write"].as_u64(), json["b"]["ops"]["write"].as_u64()),
        (Some(2), Some(1))
    );
    assert!(json["first_difference"]["b"].is_null());
}

#[test]
fn streams_are_told_in_words() {
    let folder = Folder::new();
    let (path, other) = (folder.path("a"), folder.path("b"));
    for (path, queue) in [(&path, None), (&other, Some(3))] {
        let mut writer = TraceWriter::create(path, TraceHeader::default()).unwrap();
        let device = "vda".to_owned();
        let info = StreamInfo { device, queue, device_bytes: Some(512), block_bytes: None };
        writer.stream(info).unwrap();
        writer.finish(TraceSummary::default()).unwrap();
    }
    let text = folder.diff("a b").unwrap().text;
    assert!(
        text.contains("stream 0 differs: 'vda', 512 bytes | 'vda', queue 3, 512 bytes"),
        "{text}"
    );
}

#[test]
fn different_kinds_and_options_of_another_kind_are_usage_errors() {
    let folder = Folder::new();
    folder.report("report", 1000, |_| ());
    folder.trace("trace", "x", &[(0, 1, 512)]);
    folder.file("image", &[0; 4096]);
    for (args, says) in [
        ("report image", "is a report and"),
        ("image trace", "is a trace"),
        ("image image --fail-if p99>1%", "reports only"),
        ("report report --trace trace", "images only"),
        ("trace trace --trace trace", "images only"),
        ("image image --ignore tag", "traces only"),
        ("report report --time-unit 1us", "traces only"),
        ("trace trace --ignore tags", "no field or kind 'tags'"),
    ] {
        let error = folder.diff(args).unwrap_err();
        assert_eq!(error.kind().exit_code(), 2, "{args}");
        assert!(error.to_string().contains(says), "{args}: {error}");
    }
    let missing = folder.diff("image nothing-there").unwrap_err();
    assert_eq!(missing.kind().exit_code(), 3);
}

#[test]
fn a_disk_that_begins_with_a_brace_is_a_disk_and_a_damaged_report_is_said_to_be_one() {
    let folder = Folder::new();
    let mut bytes = vec![0; 4096];
    bytes[0] = b'{';
    folder.file("disk", &bytes);
    assert_eq!(folder.diff("disk disk").unwrap().code, 0);
    folder.file("bad", b"{\"schema\":\"qtrace.report/1\"}");
    let error = folder.diff("bad bad").unwrap_err();
    assert_eq!(error.kind().exit_code(), 3);
    assert!(error.to_string().contains("bad: not a report, or a damaged one"), "{error}");
    folder.file("newer", b"{\"schema\":\"qtrace.report/7\",\"qtrace\":\"9.9\"}");
    assert!(folder.diff("newer newer").unwrap_err().to_string().contains("qtrace.report/7"));
}

/// Requests as a format without tags, with times in microseconds from the first of them, would
/// give them back: (issue, answer, tag, operation), in nanoseconds.
fn requests(folder: &Folder, name: &str, events: &[(u64, Option<u64>, u64, BlockOp)]) {
    let mut writer = TraceWriter::create(&folder.path(name), TraceHeader::default()).unwrap();
    let stream = writer.stream(StreamInfo::default()).unwrap();
    let mut all: Vec<(u64, Event)> = Vec::new();
    for &(time, answer, tag, op) in events {
        let request = issue(tag, stream, 4096 * tag, 4096, PayloadRef::Absent);
        // The place comes from the tag in `issue`; two traces that are compared must agree on it.
        let issue = Issue { time: Nanos(time), op, offset: 0, ..request };
        all.push((time, Event::Issue(issue)));
        if let Some(answer) = answer {
            let (time, payload) = (Nanos(answer), PayloadRef::Absent);
            let done = Complete { time, tag, stream, status: 0, payload };
            all.push((answer, Event::Complete(done)));
        }
    }
    all.sort_by_key(|(time, _)| *time);
    all.iter().for_each(|(_, event)| writer.event(event).unwrap());
    writer.finish(TraceSummary::default()).unwrap();
}

#[test]
fn what_a_format_lacks_can_be_left_out_of_the_comparison() {
    let folder = Folder::new();
    let (read, write, flush) = (BlockOp::Read, BlockOp::Write, BlockOp::Flush);
    let first = [
        (5_100, Some(9_900), 70, read),
        (6_000, Some(7_200), 71, write),
        (6_500, None, 72, flush),
        (8_000, Some(9_000), 71, read),
    ];
    requests(&folder, "a", &first);
    // Whole microseconds from the first issue on, tags counted, no flush.
    let same =
        [(0, Some(4_000), 0, read), (1_000, Some(2_000), 1, write), (3_000, Some(4_000), 2, read)];
    requests(&folder, "b", &same);
    assert_eq!(folder.diff("a b").unwrap().code, 1);
    let ignore = "--ignore tag,flush,origin --time-unit 1us";
    let outcome = folder.diff(&format!("a b {ignore}")).unwrap();
    assert_eq!(outcome.code, 0, "{}", outcome.text);
    let said = "identical (not compared: origin, tag, flush, times below 1000 ns)";
    assert!(outcome.text.contains(said), "{}", outcome.text);
    for (ignore, field) in [
        ("--ignore tag,flush --time-unit 1us", "time"),
        ("--ignore tag,origin --time-unit 1us", "op"),
        ("--ignore tag,flush,origin", "time of the answer"),
        ("--ignore flush,origin --time-unit 1us", "tag"),
    ] {
        let (code, json) = folder.json(&format!("a b {ignore}"));
        let fields = json["first_difference"]["fields"].as_array().unwrap().clone();
        assert_eq!((code, fields.contains(&field.into())), (1, true), "{ignore}: {fields:?}");
    }
    // The answer goes to another request: found although tags are not compared.
    let swapped =
        [(0, Some(4_000), 0, read), (1_000, Some(4_000), 1, write), (3_000, Some(4_000), 2, read)];
    requests(&folder, "swapped", &swapped);
    let (code, json) = folder.json(&format!("a swapped {ignore}"));
    let first = &json["first_difference"];
    assert_eq!((code, first["event"].as_u64(), first["event_b"].as_u64()), (1, Some(1), Some(1)));
    assert_eq!(first["fields"], serde_json::json!(["time of the answer"]));
    // Without completions, and what of a format's has none.
    requests(
        &folder,
        "none",
        &[(0, None, 0, read), (1_000, None, 1, write), (3_000, None, 2, read)],
    );
    assert_eq!(folder.diff(&format!("a none {ignore}")).unwrap().code, 1);
    let ignore = "--ignore tag,flush,origin,complete --time-unit 1us";
    assert_eq!(folder.diff(&format!("a none {ignore}")).unwrap().code, 0);
}

#[test]
fn bus_traces_are_compared_event_by_event() {
    let folder = Folder::new();
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces/compat/1.1.qtrace");
    let kept = Trace::open(&kept).unwrap();
    folder.bus_trace("a", &kept, |_| ());
    folder.bus_trace("same", &kept, |_| ());
    let (code, json) = folder.json("a same");
    assert_eq!((code, &json["identical"]), (0, &Value::Bool(true)));
    assert_eq!((&json["a"]["bus_reads"], &json["a"]["irqs"]), (&2.into(), &5.into()));
    type Change = fn(&mut Event);
    let changes: [(&str, Change); 6] = [
        ("value", |event| {
            if let Event::Bus(bus) = event {
                bus.access.value ^= 1;
            }
        }),
        ("address", |event| {
            if let Event::Memory(memory) = event {
                memory.addr -= 1;
            }
        }),
        ("level", |event| {
            if let Event::Irq(irq) = event {
                irq.high = !irq.high;
            }
        }),
        ("vector", |event| {
            if let Event::Ack(ack) = event {
                ack.vector = Some(7);
            }
        }),
        ("clock", |event| {
            if let Event::Clock(step) = event {
                step.to = Nanos(1);
            }
        }),
        ("kind", |event| {
            if let Event::Irq(irq) = *event {
                let (time, stream) = (irq.time, irq.stream);
                *event = Event::Clock(crate::trace::ClockStep { time, stream, to: time });
            }
        }),
    ];
    for (field, change) in changes {
        folder.bus_trace("b", &kept, change);
        let (code, json) = folder.json("a b");
        assert_eq!(code, 1, "{field}");
        let first = &json["first_difference"];
        assert!(first["fields"].as_array().unwrap().contains(&field.into()), "{field}: {first}");
    }
}

/// Formats without write-zeroes bring a write back, with or without the zeros as data.
#[test]
fn a_write_may_stand_for_a_write_zeroes_when_that_is_told() {
    let folder = Folder::new();
    for (name, op) in [("a", BlockOp::WriteZeroes), ("b", BlockOp::Write)] {
        let header = TraceHeader::default();
        let mut writer = TraceWriter::create(&folder.path(name), header).unwrap();
        let stream = writer.stream(StreamInfo::default()).unwrap();
        let (mut payload, mut flags) = (PayloadRef::Absent, OpFlags::UNMAP);
        if op == BlockOp::Write {
            (payload, flags) = (writer.payload(&[0; 512]).unwrap(), OpFlags::empty());
        }
        let issue = Issue { op, flags, ..issue(0, stream, 512, 512, payload) };
        writer.event(&Event::Issue(issue)).unwrap();
        writer.finish(TraceSummary::default()).unwrap();
    }
    assert_eq!(folder.diff("a b").unwrap().code, 1);
    let same = folder.diff("a b --ignore zeroes").unwrap();
    assert_eq!(same.code, 0, "{}", same.text);
    assert!(same.text.contains("compared as writes"), "{}", same.text);
}
