//! `qtrace record vhost-user-blk`: what is done to the disk that it serves is in the trace, and
//! the trace replays to the same disk.

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::guest::{DISK_BYTES, assert_done, guest_kit};
use common::kills::{self, Log, Victim, kill_many};
use common::{QTRACE, expect, qtrace, repo};
use qtrace::base::{BlockOp, Prng};
use qtrace::driver::virtio::{VirtioBlk, VirtioBlkOptions};
use qtrace::driver::{BlockDriver, BlockRequest, BlockStatus, Submitted};
use qtrace::machine::vhost_user::{VhostUserConfig, VhostUserMachine};
use qtrace::trace::{Event, Trace};
use serde_json::Value;

const IMAGE_BYTES: u64 = 32 << 20;

fn image(dir: &Path, bytes: u64) {
    let file = std::fs::File::create(dir.join("d.raw")).expect("created");
    file.set_len(bytes).expect("sized");
}

/// The arguments up to the command.
fn record<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let args = ["record", "vhost-user-blk", "--image", "d.raw", "-o", "t.qtrace", "--force"];
    args.into_iter().chain(more.iter().copied()).chain(["--socket", "s"]).collect()
}

fn number(report: &Value, path: &str) -> u64 {
    report.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {path}"))
}

/// Replays t.qtrace onto a new disk: every recorded read verifies, and the result is d.raw.
fn replays_to_the_same(dir: &Path, more: &str) -> Value {
    let fresh = dir.join("new.raw");
    let bytes = std::fs::metadata(dir.join("d.raw")).expect("the image").len();
    let options =
        format!("tracefile=t.qtrace,target_img=new.raw,target_fmt=raw,target_size={bytes},{more}");
    let report = common::replay(dir, 0, &options);
    assert_eq!(report.pointer("/verdict/pass"), Some(&Value::Bool(true)), "{report}");
    let same =
        std::fs::read(dir.join("d.raw")).expect("read") == std::fs::read(&fresh).expect("read");
    assert!(same, "the images differ");
    std::fs::remove_file(fresh).expect("removed");
    report
}

#[test]
fn a_replay_through_it_is_recorded_and_replays_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let trace = repo().join("traces/linux-ext4-virtio.qtrace");
    for (depth, queues, transfer) in
        [(1, 1, ""), (32, 4, ""), (8, 2, ",indirect=off,event_idx=off")]
    {
        image(dir, IMAGE_BYTES);
        let options =
            format!("tracefile={},iodepth={depth},num_queues={queues}{transfer}", trace.display());
        let inner = [QTRACE, "replay", "--machine", "vhost-user:{socket}"];
        let inner = inner.into_iter().chain(["--test", "block-trace-virtio", options.as_str()]);
        let args: Vec<&str> =
            record(&["--queues", "4"]).into_iter().chain(["--"]).chain(inner).collect();
        let out = qtrace(dir, &args);
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(0), "{stderr}");
        let recorded = Trace::open(&dir.join("t.qtrace")).expect("the trace");
        let original = Trace::open(&trace).expect("the trace");
        let written =
            |trace: &Trace| -> u64 { trace.totals().iter().map(|totals| totals.bytes[1]).sum() };
        assert_eq!(written(&recorded), written(&original));
        assert_eq!(recorded.summary().losses, []);
        assert!(recorded.truncation().is_none());
        replays_to_the_same(dir, "iodepth=1");
        replays_to_the_same(dir, "iodepth=16,num_queues=2");
    }
}

/// A Linux guest makes and exercises a file system on the disk.
#[test]
fn what_a_guest_does_is_recorded_and_replays_to_its_disk() {
    let Some(kit) = guest_kit() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    image(dir, DISK_BYTES);
    let mut line: Vec<String> = record(&["--quiet"])
        .into_iter()
        .chain(["--", "timeout", "--kill-after=5", "200"])
        .map(Into::into)
        .collect();
    line.extend(kit.command_line("ext4"));
    line.extend(
        "-smp 2 -object memory-backend-memfd,id=m,size=256M,share=on -machine q35,memory-backend=m \
         -chardev socket,id=d,path={socket} -device vhost-user-blk-pci,chardev=d,num-queues=2"
            .split_whitespace()
            .map(Into::into),
    );
    let out = qtrace(dir, &line);
    assert_done(&out);
    let trace = Trace::open(&dir.join("t.qtrace")).expect("the trace");
    let (mut reads, mut failed) = (0, 0);
    let mut cursor = trace.cursor(0);
    while let Some((_, event)) = cursor.next().expect("an event") {
        match event {
            Event::Issue(issue) if issue.op == BlockOp::Read => reads += 1,
            Event::Complete(done) => failed += u64::from(done.status != 0),
            _ => {}
        }
    }
    assert!(reads > 50 && failed == 0, "{reads} reads, {failed} requests failed");
    let report = replays_to_the_same(dir, "iodepth=8");
    assert!(number(&report, "/verdict/read_bytes_checked") > 0, "{report}");
}

fn serve(dir: &Path, more: &[&str]) -> Child {
    Command::new(QTRACE)
        .args(record(more))
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("qtrace runs")
}

/// Waits until somebody listens.
fn wait_for_socket(dir: &Path, child: &mut Child) {
    while std::os::unix::net::UnixStream::connect(dir.join("s")).is_err() {
        assert!(child.try_wait().expect("its state").is_none(), "it ended");
        std::thread::yield_now();
    }
}

fn signal(child: &Child, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, signal).expect("sent");
}

const REPLAY: [&str; 5] = ["replay", "--machine", "vhost-user:s", "--test", "block-trace-virtio"];

#[test]
fn front_ends_come_and_go_until_a_signal_ends_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    image(dir, IMAGE_BYTES);
    let mut child = serve(dir, &[]);
    wait_for_socket(dir, &mut child);
    let trace = format!("tracefile={}", repo().join("traces/linux-ext4-virtio.qtrace").display());
    for _ in 0..3 {
        expect(dir, 0, REPLAY.into_iter().chain([trace.as_str()]));
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(dir.join("s")).expect("the socket").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    signal(&child, nix::sys::signal::Signal::SIGTERM);
    assert_eq!(child.wait().expect("ended").code(), Some(0));
    assert!(!dir.join("s").exists(), "the socket stays");
    let trace = Trace::open(&dir.join("t.qtrace")).expect("the trace");
    let notes = &trace.summary().notes;
    assert!(notes.iter().any(|note| note.starts_with("front-ends: ")), "{notes:?}");
    replays_to_the_same(dir, "iodepth=4");
}

#[test]
fn a_recorder_that_is_killed_leaves_a_trace_that_opens_and_a_sound_image() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let trace = repo().join("traces/linux-ext4-virtio.qtrace");
    for round in 0..3 {
        image(dir, IMAGE_BYTES);
        // The last round's would be taken for this one's.
        let _ = std::fs::remove_file(dir.join("t.qtrace"));
        let mut child = serve(dir, &[]);
        let options = format!("tracefile={},loops=1000,iodepth=16,verify=none", trace.display());
        let connect = || {
            Command::new(QTRACE)
                .args(REPLAY)
                .arg(&options)
                .current_dir(dir)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("qtrace runs")
        };
        let mut client = connect();
        let enough = |trace: Trace| trace.events() > 100 << round;
        while !Trace::open(&dir.join("t.qtrace")).is_ok_and(enough) {
            assert!(child.try_wait().expect("its state").is_none(), "it ended");
            match client.try_wait().expect("its state").map(|status| status.code()) {
                None => std::thread::yield_now(),
                // Nobody listens yet.
                Some(Some(5)) => client = connect(),
                ended => panic!("the client ended: {ended:?}"),
            }
        }
        child.kill().expect("killed");
        child.wait().expect("reaped");
        // Its server is gone: the machine died, and that is the finding.
        assert_eq!(client.wait().expect("ended").code(), Some(1));
        let trace = Trace::open(&dir.join("t.qtrace")).expect("it opens");
        assert!(trace.truncation().is_some() && trace.events() > 100);
        let mut cursor = trace.cursor(0);
        while cursor.next().expect("an event").is_some() {}
    }
}

#[test]
fn a_disk_that_grows_is_told_of_and_recorded() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    image(dir, IMAGE_BYTES);
    let mut child = serve(dir, &[]);
    wait_for_socket(dir, &mut child);
    let file = std::fs::File::options().write(true).open(dir.join("d.raw")).expect("opened");
    file.set_len(2 * IMAGE_BYTES).expect("grown");
    let trace = format!("tracefile={}", repo().join("traces/linux-ext4-virtio.qtrace").display());
    let size = |report: &str| {
        let report: Value = serde_json::from_str(report).expect("a JSON report");
        number(&report, "/target/size")
    };
    let json = ["--format", "json", trace.as_str()];
    while size(&expect(dir, 0, REPLAY.into_iter().chain(json))) != 2 * IMAGE_BYTES {
        assert!(child.try_wait().expect("its state").is_none(), "it ended");
    }
    signal(&child, nix::sys::signal::Signal::SIGINT);
    assert_eq!(child.wait().expect("ended").code(), Some(0));
    let trace = Trace::open(&dir.join("t.qtrace")).expect("the trace");
    let notes = trace.summary().notes.join("\n");
    assert!(notes.contains(&format!("the disk has {} bytes now", 2 * IMAGE_BYTES)), "{notes}");
}

#[test]
fn what_cannot_be_served_is_said_and_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    image(dir, IMAGE_BYTES);
    let fails = |code: i32, args: &[&str], words: &[&str]| {
        let out = qtrace(dir, ["record", "vhost-user-blk"].iter().chain(args));
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(words.iter().all(|word| stderr.contains(word)), "{args:?}: {stderr}");
        assert!(!dir.join("t.qtrace").exists() && !dir.join("s").exists(), "{args:?}");
    };
    let ok = ["--image", "d.raw", "-o", "t.qtrace"];
    let with = |more: &[&'static str]| [&ok[..], more].concat();
    fails(3, &["--image", "missing", "-o", "t.qtrace"], &["missing"]);
    fails(2, &["--image", "d.raw", "-o", "d.raw", "--force"], &["would replace the image"]);
    fails(2, &with(&["--queues", "0"]), &["0"]);
    fails(2, &with(&["--queues", "65"]), &["65"]);
    fails(2, &with(&["--block-bytes", "1024"]), &["512 or 4096"]);
    fails(2, &with(&["--serial", "a serial that is too long"]), &["20 bytes"]);
    fails(2, &with(&["--socket", "d.raw"]), &["no socket"]);
    fails(2, &with(&["--", "/nonexistent/program"]), &["/nonexistent/program"]);
    std::fs::write(dir.join("odd.raw"), [0; 1536]).expect("written");
    fails(2, &["--image", "odd.raw", "-o", "t.qtrace", "--block-bytes", "4096"], &["4096"]);
    // An image that somebody writes to is not touched.
    let locked = ["--image", "d.raw", "-o", "u.qtrace", "--", QTRACE, "record", "vhost-user-blk"];
    let locked = [&locked[..], &ok[..], &["--", "true"]].concat();
    fails(3, &locked, &["d.raw"]);
}

const BACK_END: Victim = Victim { tap: "vhost-user-blk", client: load };

/// Works until the server is gone.
fn load(socket: &Path, seed: u64) -> Log {
    let mut log = Log::default();
    let mut prng = Prng::new(seed);
    // It may be gone before it has said a word.
    let Ok(mut machine) = VhostUserMachine::connect(socket, &VhostUserConfig::default()) else {
        return log;
    };
    let Ok(mut driver) = VirtioBlk::probe(&mut machine, &VirtioBlkOptions::default()) else {
        return log;
    };
    let mut done = Vec::new();
    loop {
        while driver.in_flight() < kills::DEPTH {
            submit(&mut driver, &mut log, &mut prng);
        }
        let kicked = driver.kick(&mut machine);
        let waited = driver.wait(&mut machine, None);
        // What it had answered before it was killed is still there to be found.
        let reaped = driver.reap(&mut machine, &mut done);
        for completion in done.drain(..) {
            assert_eq!(completion.status, BlockStatus::Ok);
            log.told.push((completion.token, std::time::Instant::now()));
            completion.buffer.into_iter().for_each(|buffer| driver.release(buffer));
        }
        if kicked.and(waited).and(reaped).is_err() {
            return log;
        }
    }
}

fn submit(driver: &mut VirtioBlk, log: &mut Log, prng: &mut Prng) {
    let (number, sent) = log.choose(prng);
    let mut buffer = match sent.op {
        BlockOp::Read | BlockOp::Write => driver.buffer(sent.len as usize),
        _ => None,
    };
    if let (BlockOp::Write, Some(buffer)) = (sent.op, &mut buffer) {
        kills::fill(&mut driver.bytes_mut(buffer)[..sent.len as usize], number, prng);
    }
    let (sector, sectors) = (sent.offset / 512, (sent.len / 512) as u32);
    let request = BlockRequest { op: sent.op, sector, sectors, unmap: false };
    let submitted = driver.submit(0, number, &request, buffer).expect("within the limits");
    assert_eq!(submitted, Submitted::Queued);
}

#[test]
fn a_killed_recorder_leaves_what_the_front_end_was_told() {
    kill_many(&BACK_END, 4, "raw");
    kill_many(&BACK_END, 2, "qcow2");
}

/// Minutes: `cargo test --test record_vhost_user -- --ignored hundred`.
#[test]
#[ignore = "takes minutes"]
fn a_hundred_killed_recorders() {
    kill_many(&BACK_END, 50, "raw");
    kill_many(&BACK_END, 50, "qcow2");
}
