//! `qtrace replay` as a user runs it: exit codes, files, reports.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use qtrace::base::{BlockOp, Nanos, OpFlags};
use qtrace::trace::{
    Complete, Event, Issue, NotRecorded, PayloadRef, StreamId, StreamInfo, TraceHeader,
    TraceSummary, TraceWriter,
};
use serde_json::Value;

const DISK_BYTES: u64 = 1 << 20;

fn issue(time_us: u64, tag: u64, op: BlockOp, offset: u64, len: u64) -> Issue {
    Issue {
        time: Nanos::from_micros(time_us),
        tag,
        stream: StreamId(0),
        op,
        flags: OpFlags::empty(),
        offset,
        len,
        payload: PayloadRef::Absent,
        cpu: None,
    }
}

/// A folder with a trace in it.
struct Desk {
    folder: tempfile::TempDir,
    not_recorded: NotRecorded,
}

impl Desk {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), not_recorded: NotRecorded::empty() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `t.qtrace` with these events, on as many devices as they name.
    fn trace(&self, devices: &[&str], events: impl Iterator<Item = Event>) {
        let header = TraceHeader { source_format: "test".into(), ..TraceHeader::default() };
        let mut writer = TraceWriter::create(&self.path("t.qtrace"), header).unwrap();
        for device in devices {
            let info = StreamInfo {
                device: (*device).into(),
                device_bytes: Some(DISK_BYTES),
                ..StreamInfo::default()
            };
            writer.stream(info).unwrap();
        }
        for event in events {
            writer.event(&event).unwrap();
        }
        let summary = TraceSummary { not_recorded: self.not_recorded, ..TraceSummary::default() };
        writer.finish(summary).unwrap();
    }

    /// Writes, reads, flushes, discards and zeroes with completions, 100 µs apart.
    fn mixed(&self, count: u64) {
        let ops = [BlockOp::Write, BlockOp::Write, BlockOp::Read, BlockOp::WriteZeroes];
        self.trace(
            &["vda"],
            (0..count).flat_map(|n| {
                let offset = n * 7919 % 250 * 4096;
                let mut issue = issue(n * 100, n, ops[(n % 4) as usize], offset, 4096);
                if n % 16 == 0 {
                    issue.flags = OpFlags::PREFLUSH | OpFlags::FUA;
                }
                let complete = Complete {
                    time: Nanos::from_micros(n * 100 + 50),
                    tag: n,
                    stream: StreamId(0),
                    status: 0,
                    payload: PayloadRef::Absent,
                };
                [Event::Issue(issue), Event::Complete(complete)]
            }),
        );
    }

    fn command(&self, options: &str) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("qtrace"));
        command.current_dir(self.folder.path()).args(["replay", "--test", "block-trace-virtio"]);
        command.arg(format!("tracefile=t.qtrace,{options}")).args(["--format", "json"]);
        command
    }

    fn run(&self, options: &str) -> Output {
        self.command(options).output().unwrap()
    }

    /// Runs and expects `code`; the report.
    fn report(&self, options: &str, code: i32) -> Value {
        let output = self.run(options);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{options}: {stderr}");
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{options}: {e}: {stderr}"))
    }

    /// Runs, expects `code`, and gives what was said on stderr.
    fn refusal(&self, options: &str, code: i32) -> String {
        let output = self.run(options);
        assert_eq!(output.status.code(), Some(code), "{options}: {output:?}");
        assert!(output.stdout.is_empty(), "{options}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[test]
fn a_run_makes_the_target_the_report_and_the_run_log() {
    let desk = Desk::new();
    desk.mixed(400);
    let report = desk.report("target_img=d.raw,target_fmt=raw,report=r.json,runlog=r.log", 0);
    assert_eq!(desk.names(), ["d.raw", "r.json", "r.log", "t.qtrace"]);
    assert_eq!(report["schema"], "qtrace.report/1");
    assert_eq!(report["complete"], true);
    assert_eq!(report["verdict"]["pass"], true);
    assert_eq!(report["target"]["created"], true);
    assert_eq!(report["expansions"], 50);
    assert_eq!(desk.path("d.raw").metadata().unwrap().len(), DISK_BYTES);
    let file: Value = serde_json::from_slice(&read(&desk.path("r.json"))).unwrap();
    assert_eq!(file, report);
    use sha2::Digest;
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
    assert_eq!(report["run_log_sha256"], hex(&sha2::Sha256::digest(read(&desk.path("r.log")))));
    assert_eq!(report["image_sha256"], hex(&sha2::Sha256::digest(read(&desk.path("d.raw")))));
    let text = desk.command("target_img=d.raw").args(["--format", "text"]).output().unwrap();
    assert!(!text.status.success(), "--format twice is refused");
}

#[test]
fn the_final_image_is_the_same_at_any_depth_and_by_any_road() {
    let desk = Desk::new();
    desk.mixed(1000);
    let mut digests = std::collections::BTreeSet::new();
    for (at, options) in [
        "iodepth=1",
        "iodepth=8,completion=irq",
        "iodepth=64,board=q35,transport=modern",
        "iodepth=64,transport=legacy,indirect=off,event_idx=off",
        "iodepth=32,num_queues=4,queue_size=16",
        "iodepth=32,iothread=on",
        "pacing=closed",
        "time_scale=10,clock=virtual",
    ]
    .iter()
    .enumerate()
    {
        let report = desk.report(&format!("target_img={at}.raw,target_fmt=raw,{options}"), 0);
        digests.insert(report["image_sha256"].as_str().unwrap().to_owned());
    }
    assert_eq!(digests.len(), 1);
}

#[test]
fn a_virtual_clock_gives_the_same_bytes_twice() {
    let desk = Desk::new();
    desk.mixed(500);
    let mut runs = Vec::new();
    for pacing in ["no_stall", "recorded", "closed", "no_stall", "recorded", "closed"] {
        let options = format!("target_fmt=mem,clock=virtual,runlog=r.log,pacing={pacing}");
        let mut report = desk.report(&options, 0);
        report.as_object_mut().unwrap().remove("wall");
        runs.push((report, read(&desk.path("r.log"))));
    }
    assert!(runs[..3] == runs[3..]);
    assert!(runs[0].1 != runs[1].1);
}

#[test]
fn an_existing_target_is_written_in_place_or_left_alone() {
    let desk = Desk::new();
    desk.mixed(100);
    let before = vec![7u8; DISK_BYTES as usize];
    std::fs::write(desk.path("d.raw"), &before).unwrap();
    let report = desk.report("target_img=d.raw,target_fmt=raw,snapshot=on", 0);
    assert_eq!(report["target"]["snapshot"], true);
    assert!(read(&desk.path("d.raw")) == before);
    let report = desk.report("target_img=d.raw,target_fmt=raw", 0);
    assert_eq!(report["target"]["created"], false);
    assert!(read(&desk.path("d.raw")) != before);
    assert_eq!(desk.names(), ["d.raw", "t.qtrace"], "no overlay is left");
}

#[test]
fn a_comparison_image_decides() {
    let desk = Desk::new();
    desk.mixed(300);
    desk.report("target_img=want.raw,target_fmt=raw", 0);
    let same = desk.report("target_img=a.raw,target_fmt=raw,comparison_img=want.raw", 0);
    assert_eq!(same["verdict"]["comparison_bytes_checked"], DISK_BYTES);
    let mut bytes = read(&desk.path("want.raw"));
    bytes[5000] ^= 1;
    std::fs::write(desk.path("want.raw"), bytes).unwrap();
    let options = "target_img=b.raw,target_fmt=raw,comparison_img=want.raw,comparison_fmt=raw";
    let other = desk.report(options, 1);
    assert_eq!(other["verdict"]["findings"][0]["kind"], "comparison_mismatch");
    assert!(desk.path("b.raw").exists(), "a wrong result is kept, to be looked at");
}

#[test]
fn an_injected_fault_is_a_divergence() {
    let desk = Desk::new();
    desk.mixed(300);
    for fault in ["drop:5", "tear:5", "flip:5", "error:5"] {
        let report = desk.report(&format!("target_fmt=mem,fault={fault}"), 1);
        assert_eq!(report["verdict"]["pass"], false, "{fault}");
    }
    assert!(desk.refusal("target_fmt=mem,fault=melt:5", 2).contains("melt"));
}

#[test]
fn a_trace_without_what_the_pacing_needs_is_refused_by_name() {
    let mut desk = Desk::new();
    desk.not_recorded = NotRecorded::COMPLETIONS | NotRecorded::TIMES;
    desk.trace(&["a"], [Event::Issue(issue(0, 0, BlockOp::Write, 0, 512))].into_iter());
    assert!(desk.refusal("target_fmt=mem,pacing=closed", 2).contains("not recorded: completions"));
    for options in ["pacing=recorded", "time_scale=50", "time=0-1s"] {
        let said = desk.refusal(&format!("target_fmt=mem,{options}"), 2);
        assert!(said.contains("not recorded: times"), "{said}");
    }
}

#[test]
fn of_several_devices_one_is_chosen() {
    let desk = Desk::new();
    let write = |stream, offset| {
        Event::Issue(Issue { stream: StreamId(stream), ..issue(0, 0, BlockOp::Write, offset, 512) })
    };
    desk.trace(&["sda", "sdb"], [write(0, 0), write(1, 512)].into_iter());
    let said = desk.refusal("target_fmt=mem", 2);
    assert!(said.contains("'sda'") && said.contains("'sdb'"), "{said}");
    assert!(desk.refusal("target_fmt=mem,device=sdc", 2).contains("'sdb'"));
    let one = desk.report("target_fmt=mem,device=sdb", 0);
    assert_eq!((&one["ops"][0]["count"], one["ops"].as_array().unwrap().len()), (&1.into(), 1));
    let all = desk.report("target_fmt=mem,device=all,num_queues=4", 0);
    let notes = all["notes"].to_string();
    assert!(notes.contains("2 devices were replayed onto one target"), "{notes}");
    assert!(notes.contains("2 of the device's 4 queues had requests"), "{notes}");
    assert_eq!(all["ops"][0]["count"], 2);
}

#[test]
fn a_window_without_requests_is_nothing_to_do() {
    let desk = Desk::new();
    desk.mixed(10);
    let said = desk.refusal("target_img=d.raw,target_fmt=raw,events=1000-", 4);
    assert!(said.contains("no request"), "{said}");
    assert_eq!(desk.names(), ["t.qtrace"], "no target is left behind");
    let part = desk.report("target_fmt=mem,events=0-4", 0);
    let total: u64 =
        part["ops"].as_array().unwrap().iter().map(|op| op["count"].as_u64().unwrap()).sum();
    assert_eq!(total, 2);
}

#[test]
fn a_target_too_small_is_refused_untouched() {
    let desk = Desk::new();
    desk.mixed(300);
    let before = vec![3u8; 8192];
    std::fs::write(desk.path("d.raw"), &before).unwrap();
    let said = desk.refusal("target_img=d.raw,target_fmt=raw", 2);
    assert!(said.contains("8192 bytes") && said.contains("offset=wrap"), "{said}");
    assert!(read(&desk.path("d.raw")) == before);
    for policy in ["wrap", "clip"] {
        desk.report(&format!("target_img=d.raw,target_fmt=raw,offset={policy}"), 0);
    }
    assert!(
        desk.refusal("target_img=e.raw,target_fmt=raw,target_size=4k", 2).contains("4096 bytes")
    );
    assert!(!desk.path("e.raw").exists());
}

#[test]
fn a_late_run_is_invalid_for_timing_and_fails_when_asked() {
    let desk = Desk::new();
    desk.mixed(200);
    // A budget of nothing: some request is always a few nanoseconds late on a host clock.
    let late = desk.report("target_fmt=mem,time_scale=1,lag_budget=0", 0);
    assert_eq!(late["timing"]["status"], "invalid");
    assert!(late["timing"]["why"].as_str().unwrap().contains("lag_budget"));
    desk.report("target_fmt=mem,time_scale=1,lag_budget=0,on_lag=fail", 6);
    let fine =
        desk.report("target_fmt=mem,pacing=recorded,clock=virtual,lag_budget=0,on_lag=fail", 0);
    assert_eq!(fine["timing"]["status"], "valid");
    // 199 gaps of 100 µs.
    assert!(fine["duration_ns"].as_u64().unwrap() >= 19_900_000);
}

#[test]
fn a_trace_cut_short_is_replayed_as_far_as_it_goes() {
    let desk = Desk::new();
    desk.mixed(20_000);
    let bytes = read(&desk.path("t.qtrace"));
    std::fs::write(desk.path("t.qtrace"), &bytes[..bytes.len() / 2]).unwrap();
    let report = desk.report("target_fmt=mem", 0);
    assert!(report["trace"]["truncated"].is_string());
    assert!(report["ops"][0]["count"].as_u64().unwrap() > 100);
    desk.report("target_fmt=mem,strict=on", 7);
}

#[test]
fn an_interrupt_leaves_a_partial_report_and_no_target() {
    let desk = Desk::new();
    // An hour between the two requests.
    let far =
        [0, 3_600_000_000].map(|time| Event::Issue(issue(time, time, BlockOp::Write, 0, 512)));
    desk.trace(&["vda"], far.into_iter());
    let mut child = desk
        .command("target_img=d.raw,target_fmt=raw,pacing=recorded,report=r.json")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // The report's temporary file exists: the handler stands, the run is about to begin.
    while desk.names().iter().all(|name| !name.starts_with(".tmp")) {
        assert_eq!(child.try_wait().unwrap(), None, "it ended by itself");
        std::thread::yield_now();
    }
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("target was removed"));
    let report: Value = serde_json::from_slice(&read(&desk.path("r.json"))).unwrap();
    assert_eq!(report["complete"], false);
    assert_eq!(report["interrupted"], true);
    assert_eq!(report["verdict"]["pass"], false);
    assert_eq!(desk.names(), ["r.json", "t.qtrace"]);
}

#[test]
fn outputs_replace_nothing_that_is_not_their_own() {
    let desk = Desk::new();
    desk.mixed(20);
    let pipe = desk.path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::write(desk.path("base.raw"), [7; 512]).unwrap();
    std::fs::create_dir(desk.path("folder")).unwrap();
    for name in ["pipe", "base.raw", "folder", "t.qtrace", ""] {
        for option in ["report", "runlog"] {
            let options = format!("target_img=d.raw,target_fmt=raw,{option}={name}");
            let said = desk.refusal(&options, 2);
            assert!(said.contains(name) && said.contains(option), "{said}");
        }
    }
    assert_eq!(desk.names(), ["base.raw", "folder", "pipe", "t.qtrace"]);
    assert_eq!(read(&desk.path("base.raw")), [7; 512]);
    // An earlier run's are replaced.
    for _ in 0..2 {
        desk.report("target_fmt=mem,report=r.json,runlog=r.log", 0);
    }
    assert!(desk.refusal("target_fmt=mem,report=r.log", 2).contains("no report"));
    assert!(desk.refusal("target_fmt=mem,runlog=r.json", 2).contains("no run log"));
}

#[test]
fn a_fault_that_never_fires_is_no_pass() {
    let desk = Desk::new();
    desk.mixed(40);
    let fired = desk.report("target_fmt=mem,fault=drop:5", 1);
    assert_eq!(fired["fault"]["fired"], true);
    let never = desk.report("target_fmt=mem,fault=drop:99999", 4);
    assert_eq!(never["fault"]["fired"], false);
    assert_eq!(never["verdict"]["pass"], true);
    let notes = never["notes"].to_string();
    assert!(notes.contains("fault drop:99999 never fired: only "), "{notes}");
}

#[test]
fn a_huge_target_is_hashed_only_when_asked() {
    let desk = Desk::new();
    desk.mixed(4);
    let report = desk.report("target_fmt=mem,target_size=65G", 0);
    assert!(report["image_sha256"].is_null());
    assert!(report["notes"].to_string().contains("image_sha256=on"));
}

#[test]
fn a_new_target_of_another_size_says_how_to_set_it() {
    let desk = Desk::new();
    desk.mixed(4);
    std::fs::write(desk.path("want.raw"), vec![0; 2 << 20]).unwrap();
    let options = "target_img=d.raw,target_fmt=raw,comparison_img=want.raw,comparison_fmt=raw";
    let notes = desk.report(options, 1)["notes"].to_string();
    assert!(notes.contains("target_size="), "{notes}");
}

#[test]
fn a_discard_that_unmaps_is_replayed() {
    let desk = Desk::new();
    let ops = [BlockOp::Discard, BlockOp::WriteZeroes];
    let unmap = (0..).zip(ops).map(|(n, op)| {
        Event::Issue(Issue { flags: OpFlags::UNMAP, ..issue(n, n, op, n * 4096, 4096) })
    });
    desk.trace(&["vda"], unmap);
    let report = desk.report("target_fmt=mem", 0);
    let ops = report["ops"].as_array().unwrap();
    assert!(ops.len() == 2 && ops.iter().all(|op| op["errors"] == 0), "{ops:#?}");
}

#[test]
fn names_and_options_are_explained() {
    let run = |args: &[&str]| {
        let output = Command::new(assert_cmd::cargo::cargo_bin!("qtrace"))
            .arg("replay")
            .args(args)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, _) = run(&["--test", "?"]);
    assert!(code == 0 && out.contains("block-trace-virtio"));
    for word in ["help", "?"] {
        let (code, out, _) = run(&["--test", "block-trace-virtio", word]);
        assert!(code == 0 && out.contains("iodepth=N") && out.contains("[32]"), "{out}");
    }
    let (code, _, err) = run(&["--test", "block-trace-virtoi", "tracefile=x"]);
    assert!(code == 2 && err.contains("did you mean 'block-trace-virtio'"), "{err}");
    let test = ["--test", "block-trace-virtio"];
    let (code, _, err) =
        run(&[&test[..], &["--machine", "bochs", "tracefile=x,target_fmt=mem"]].concat());
    assert!(code == 5 && err.contains("available: builtin"), "{err}");
    let (code, out, _) = run(&[&test[..], &["--machine", "?"]].concat());
    assert!(code == 0 && out.contains("builtin: ") && out.contains("type=pc|q35"), "{out}");
    let twice = ["--machine", "builtin,type=q35", "tracefile=x,target_fmt=mem,board=pc"];
    let (code, _, err) = run(&[&test[..], &twice].concat());
    assert!(code == 2 && err.contains("say the same thing twice"), "{err}");
    let other =
        ["--test", "mmio-trace", "--machine", "builtin,type=q35", "tracefile=/nonexistent/t"];
    let (code, _, err) = run(&other);
    assert!(code == 3 && err.contains("/nonexistent/t"), "{err}");
    let (code, _, err) = run(&[&test[..], &["tracefile=/nonexistent/t,target_fmt=mem"]].concat());
    assert!(code == 3 && err.contains("/nonexistent/t"), "{err}");
    let (code, _, err) = run(&[&test[..], &["tracefile=x,iodpeth=3"]].concat());
    assert!(code == 2 && err.contains("did you mean 'iodepth'"), "{err}");
}

#[test]
fn a_null_target_measures_and_checks_nothing() {
    let desk = Desk::new();
    desk.mixed(400);
    let report = desk.report("target_fmt=null", 0);
    assert_eq!(report["verdict"]["verify"], "none");
    assert!(desk.refusal("target_fmt=null,verify=reads", 2).contains("keeps nothing"));
}
