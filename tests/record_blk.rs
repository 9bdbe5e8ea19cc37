//! `qtrace record blk` on loop devices: needs root, the kernel's blk tracer, and losetup.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::{QTRACE, qtrace, replay};
use qtrace::base::{BlockOp, OpFlags};
use qtrace::trace::{Event, NotRecorded, Trace};
use serde_json::Value;

const DISK_BYTES: u64 = 16 << 20;

/// The tracer is one for the whole machine.
static TRACER: Mutex<()> = Mutex::new(());

/// A loop device over a file; it goes when this is dropped.
struct Loop {
    device: PathBuf,
    dir: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Loop {
    fn new() -> Option<Self> {
        let alone = TRACER.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = |why: &str| println!("skipped: {why}");
        if !nix::unistd::geteuid().is_root() {
            skip("the kernel's tracer is root's");
            return None;
        }
        let dir = tempfile::tempdir().expect("a folder");
        let file = std::fs::File::create(dir.path().join("d.raw")).expect("created");
        file.set_len(DISK_BYTES).expect("sized");
        let args = ["--find", "--show"];
        let out = Command::new("losetup").args(args).arg(dir.path().join("d.raw")).output();
        let Some(out) = out.ok().filter(|out| out.status.success()) else {
            skip("losetup makes no loop device here");
            return None;
        };
        let device = PathBuf::from(String::from_utf8_lossy(&out.stdout).trim_end());
        let found = Self { device, dir, _alone: alone };
        // Whether the tracer is here at all is the program's to say; one that is here must work.
        let doctor = qtrace(found.path(), ["doctor", "--format", "json"]);
        let doctor: Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
        let tap = &doctor["taps"][0];
        assert_eq!(tap["tap"], "record blk");
        if tap["works"] == false {
            skip(tap["says"].as_str().expect("why"));
            return None;
        }
        let out = found.record(&["-o", "probe.qtrace", "--quiet", "--", "true"]);
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(0), "{stderr}");
        Some(found)
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn name(&self) -> &str {
        self.device.to_str().expect("UTF-8")
    }

    fn record(&self, more: &[&str]) -> std::process::Output {
        let args = ["record", "blk", "--device", self.name()];
        qtrace(self.path(), args.iter().chain(more))
    }

    fn is_traced(&self) -> bool {
        let name = self.device.file_name().expect("a name").to_string_lossy().into_owned();
        let path = format!("/sys/block/{name}/trace/enable");
        std::fs::read_to_string(path).expect("a setting").trim() != "0"
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.device).status();
    }
}

/// Requests of the trace, and how many were answered.
fn requests(trace: &Trace) -> (Vec<(BlockOp, u64, u64, OpFlags)>, usize) {
    let (mut issues, mut answers) = (Vec::new(), 0);
    let mut cursor = trace.cursor(0);
    while let Some((_, event)) = cursor.next().expect("an event") {
        match event {
            Event::Issue(i) => issues.push((i.op, i.offset, i.len, i.flags)),
            Event::Complete(done) => {
                assert_eq!(done.status, 0);
                answers += 1;
            }
            _ => {}
        }
    }
    (issues, answers)
}

#[test]
fn what_a_command_does_to_a_device_is_recorded() {
    let Some(disk) = Loop::new() else { return };
    let script = format!(
        "set -e; d={}; dd if=/dev/urandom of=$d bs=4k count=3 seek=2 oflag=direct,sync 2>/dev/null; \
         dd if=$d of=/dev/null bs=8k count=1 skip=1 iflag=direct 2>/dev/null; \
         blkdiscard -o 65536 -l 131072 $d",
        disk.name()
    );
    let out = disk.record(&["-o", "t.qtrace", "--", "sh", "-c", &script]);
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(!disk.is_traced());
    let trace = Trace::open(&disk.path().join("t.qtrace")).expect("the trace");
    let (issues, answers) = requests(&trace);
    assert_eq!(issues.len(), answers);
    let of = |op| {
        let of = issues.iter().filter(move |(was, ..)| *was == op);
        of.map(|(_, offset, len, _)| (*offset, *len)).collect::<Vec<_>>()
    };
    assert_eq!(of(BlockOp::Write), [(8192, 4096), (12288, 4096), (16384, 4096)]);
    assert!(of(BlockOp::Read).contains(&(8192, 8192)), "{:?}", of(BlockOp::Read));
    assert_eq!(of(BlockOp::Discard), [(65536, 131072)]);
    // O_SYNC: each write is durable when it ends, by FUA or by a flush.
    let durable = issues.iter().any(|(op, _, _, flags)| {
        *op == BlockOp::Flush || flags.intersects(OpFlags::FUA | OpFlags::PREFLUSH)
    });
    assert!(durable, "{issues:?}");
    let lacks = trace.header().not_recorded;
    assert!(lacks.contains(NotRecorded::WRITE_DATA | NotRecorded::READ_DATA));
    assert_eq!(trace.summary().losses, []);
    assert_eq!(trace.streams()[0].device_bytes, Some(DISK_BYTES));
    // Times are the recording's, and answers come after questions.
    assert!(trace.header().origin_unix_ns.is_some());
    let report =
        replay(disk.path(), 0, "tracefile=t.qtrace,target_fmt=mem,pacing=recorded,on_lag=warn");
    assert_eq!(report.pointer("/verdict/pass"), Some(&Value::Bool(true)), "{report}");
    let dispatched = disk.record(&["-o", "d.qtrace", "--stage", "D", "--", "sh", "-c", &script]);
    assert_eq!(dispatched.status.code(), Some(0));
    let trace = Trace::open(&disk.path().join("d.qtrace")).expect("the trace");
    assert!(requests(&trace).0.iter().any(|(op, ..)| *op == BlockOp::Discard));
}

#[test]
fn a_file_systems_requests_are_all_there() {
    let Some(disk) = Loop::new() else { return };
    let script = format!("mkfs.ext4 -q -F {} && sync", disk.name());
    if Command::new("mkfs.ext4").arg("-V").output().is_err() {
        return println!("skipped: mkfs.ext4 is not installed");
    }
    let out = disk.record(&["-o", "t.qtrace", "--", "sh", "-c", &script]);
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    let trace = Trace::open(&disk.path().join("t.qtrace")).expect("the trace");
    let (issues, answers) = requests(&trace);
    assert!(issues.len() > 10 && issues.len() == answers, "{} {answers}", issues.len());
    // Every place that is not zero now was written by a request of the trace.
    let image = std::fs::read(disk.path().join("d.raw")).expect("read");
    let covered = |at: u64| {
        issues.iter().any(|(op, offset, len, _)| {
            *op == BlockOp::Write && (*offset..offset + len).contains(&at)
        })
    };
    for (number, block) in image.chunks(512).enumerate() {
        if block.iter().any(|byte| *byte != 0) {
            assert!(covered(number as u64 * 512), "sector {number} was written by nobody");
        }
    }
}

#[test]
fn one_traces_at_a_time_and_a_killed_recorder_leaves_the_tracer_as_it_was() {
    let Some(disk) = Loop::new() else { return };
    let path = disk.path().join("t.qtrace");
    let mut child = Command::new(QTRACE)
        .args(["record", "blk", "--device", disk.name(), "-o", "t.qtrace", "--quiet"])
        .current_dir(disk.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("qtrace runs");
    // Until requests are in the trace that the test makes meanwhile.
    while !Trace::open(&path).is_ok_and(|trace| trace.events() > 10) {
        assert!(child.try_wait().expect("its state").is_none(), "it ended");
        let script = format!("dd if={} of=/dev/null bs=4k count=9 iflag=direct 2>&1", disk.name());
        let out = Command::new("sh").args(["-c", &script]).output().expect("sh runs");
        assert!(out.status.success());
    }
    assert!(disk.is_traced());
    let second = disk.record(&["-o", "u.qtrace", "--", "true"]);
    let stderr = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(5), "{stderr}");
    assert!(stderr.contains("in use") && stderr.contains("one for the whole machine"), "{stderr}");
    assert!(!disk.path().join("u.qtrace").exists());
    child.kill().expect("killed");
    child.wait().expect("reaped");
    let trace = Trace::open(&path).expect("it opens");
    assert!(trace.truncation().is_some() && trace.events() > 10);
    // The shell that puts the settings back is told by the end of a pipe, and takes a moment.
    let start = Instant::now();
    while disk.is_traced() {
        assert!(start.elapsed() < Duration::from_secs(60), "the device is traced on");
        std::thread::yield_now();
    }
    loop {
        assert!(start.elapsed() < Duration::from_secs(60), "the tracer stays in use");
        let again = disk.record(&["-o", "again.qtrace", "--force", "--", "true"]);
        if again.status.code() == Some(0) {
            break;
        }
        let stderr = String::from_utf8_lossy(&again.stderr);
        assert!(stderr.contains("in use"), "{stderr}");
    }
}

#[test]
fn what_cannot_be_traced_is_said() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("f"), "x").expect("written");
    for (device, code, word) in [
        ("f", 2, "no block device"),
        ("missing", 3, "missing"),
        ("/dev/null", 2, "no block device"),
    ] {
        let args = ["record", "blk", "-o", "t.qtrace", "--device", device, "--", "true"];
        let out = qtrace(dir.path(), args);
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{device}: {stderr}");
        assert!(stderr.contains(word), "{device}: {stderr}");
        assert!(!dir.path().join("t.qtrace").exists());
    }
}
