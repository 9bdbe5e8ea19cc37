//! A vhost-user front-end against the real qemu-storage-daemon: one that qtrace starts, and one that
//! was there before.

mod common;

use std::io::Read;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::process::{PATIENCE, child_with, finish, gone, is_alive};
use common::{QTRACE, have, qtrace, repo, shared};
use qtrace::base::Prng;
use serde_json::Value;

const DAEMON: &str = "qemu-storage-daemon";
const STARTED: &str = "vhost-user,server=qemu-storage-daemon";

/// SHA-256 of each guest's final disk, as the data's own documentation has it.
const GUESTS: [(&str, &str); 3] = [
    ("virtio-raw", "9863e5884a2c41a87cc420d5bdde6ee17e7eb6ca830070a9cf33e4c5059efc03"),
    ("virtio-qcow2", "12104d81d36e83ccd49de75ec879e99a9676dd54eaca8cdfdc8520c2a8a12037"),
    ("ide-raw", "a4dcd83944a434f920fcccee63f06dcb570b05c9513ac8e06d44c8a620adb199"),
];

fn bundled() -> PathBuf {
    repo().join("traces/linux-ext4-virtio.qtrace")
}

/// A folder to work in, which is also where temporary files go.
struct Desk(tempfile::TempDir);

impl Desk {
    /// `None` after saying why where there is no storage daemon.
    fn new() -> Option<Self> {
        have(DAEMON).then(|| Self(tempfile::tempdir().expect("a folder")))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Makes a raw image of zeros.
    fn disk(&self, name: &str, bytes: u64) {
        let file = std::fs::File::create(self.path().join(name)).expect("a file");
        file.set_len(bytes).expect("sized");
    }

    fn names(&self) -> Vec<String> {
        let entries = self.path().read_dir().expect("a folder").flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn command(&self, machine: &str, trace: &Path, options: &str) -> Command {
        let mut command = Command::new(QTRACE);
        let options = format!("tracefile={},{options}", trace.display());
        command
            .args(["replay", "--machine", machine, "--format", "json"])
            .args(["--test", "block-trace-virtio", &options])
            .current_dir(self.path())
            .env("TMPDIR", self.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs and expects `code`; the report where there is one, and stderr.
    fn run(&self, machine: &str, trace: &Path, options: &str, code: i32) -> (Value, String) {
        let out = self.command(machine, trace, options).output().expect("qtrace runs");
        let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!stderr.contains("panicked"), "{stderr}");
        let text = String::from_utf8_lossy(&out.stdout);
        assert_eq!(out.status.code(), Some(code), "{machine} {options}: {text} {stderr}");
        (serde_json::from_slice(&out.stdout).unwrap_or_default(), stderr)
    }

    /// A daemon of the test's own that serves `image` on the socket `s`, with so many queues.
    fn daemon(&self, image: &str, queues: u16) -> Daemon {
        let socket = self.path().join("s");
        let node = format!("driver=file,filename={image},node-name=disk");
        let export = format!(
            "type=vhost-user-blk,id=e,node-name=disk,writable=on,num-queues={queues},\
             addr.type=unix,addr.path={}",
            socket.display()
        );
        let child = Command::new(DAEMON)
            .args(["--blockdev", &node, "--export", &export])
            .current_dir(self.path())
            .spawn()
            .expect("the daemon runs");
        let daemon = Daemon(child);
        let end = Instant::now() + PATIENCE;
        while !socket.exists() {
            assert!(Instant::now() < end, "the daemon makes no socket");
            std::thread::yield_now();
        }
        daemon
    }
}

/// Ends with the test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn every_guests_disk_is_reproduced_in_every_combination() {
    let Some(desk) = Desk::new() else { return };
    let Some(data) = shared("guest") else { return };
    let mut combination = 0;
    for (name, sha256) in GUESTS {
        let log = data.join(format!("{name}.blklogwrites.gz"));
        let import = ["import", log.to_str().expect("UTF-8"), "-o", "t.qtrace"];
        common::expect(desk.path(), 0, import);
        let trace = desk.path().join("t.qtrace");
        for format in ["raw", "qcow2", "vmdk"] {
            for depth in [1, 8, 64] {
                // Those that change what goes over the rings take turns.
                let bit = |n: u32| if combination >> n & 1 == 0 { "on" } else { "off" };
                let completion = if combination % 3 == 0 { "irq" } else { "poll" };
                let options = format!(
                    "target_img=d,target_fmt={format},target_size=16M,iodepth={depth},\
                     completion={completion},indirect={},event_idx={},num_queues={}",
                    bit(0),
                    bit(1),
                    1 + combination % 4
                );
                combination += 1;
                let (report, _) = desk.run(STARTED, &trace, &options, 0);
                assert_eq!(report["image_sha256"], sha256, "{name} {options}");
                let machine = &report["machine"];
                assert_eq!(machine["transport"], "vhost-user");
                let server = machine["details"]["server"].as_str().expect("a server");
                assert!(server.starts_with("qemu-storage-daemon "), "{server}");
                assert_eq!(report["target"]["via"], "vhost-user");
                if format == "qcow2" && have("qemu-img") {
                    let check = Command::new("qemu-img")
                        .args(["check", "-q", "-f", "qcow2", "d"])
                        .current_dir(desk.path())
                        .status();
                    assert!(check.expect("qemu-img runs").success());
                }
                std::fs::remove_file(desk.path().join("d")).expect("the target is there");
            }
        }
        std::fs::remove_file(&trace).expect("the trace is there");
    }
    assert!(desk.names().is_empty(), "{:?}", desk.names());
}

#[test]
fn a_snapshot_leaves_the_image_and_a_wrong_comparison_is_found() {
    let Some(desk) = Desk::new() else { return };
    let trace = bundled();
    let target = "target_img=d,target_fmt=qcow2,target_size=16M";
    desk.run(STARTED, &trace, target, 0);
    let before = std::fs::read(desk.path().join("d")).expect("the target");
    std::fs::write(desk.path().join("same"), &before).expect("written");
    desk.run(STARTED, &trace, "target_img=d,snapshot=on,comparison_img=same", 0);
    assert!(std::fs::read(desk.path().join("d")).expect("the target") == before);
    std::fs::write(desk.path().join("zeros"), vec![0; 16 << 20]).expect("written");
    let wrong =
        "target_img=e,target_fmt=raw,target_size=16M,comparison_img=zeros,comparison_fmt=raw";
    let (report, _) = desk.run(STARTED, &trace, wrong, 1);
    assert_eq!(report["verdict"]["findings"][0]["kind"], "comparison_mismatch");
    for volatile in ["target_fmt=mem", "target_fmt=null"] {
        desk.run(STARTED, &trace, volatile, 0);
    }
    assert_eq!(desk.names(), ["d", "e", "same", "zeros"]);
}

#[test]
fn what_a_running_server_holds_is_read_back_through_its_device() {
    let Some(desk) = Desk::new() else { return };
    desk.disk("disk", 16 << 20);
    let mut daemon = desk.daemon("disk", 2);
    let machine = format!("vhost-user:{}", desk.path().join("s").display());
    for queues in [1, 2, 8] {
        let (report, _) = desk.run(&machine, &bundled(), &format!("num_queues={queues}"), 0);
        assert_eq!(report["image_sha256"], GUESTS[0].1);
        assert_eq!(report["target"]["size"], 16 << 20);
        assert!(report["target"]["path"].as_str().expect("a path").ends_with("/s"));
        assert!(daemon.0.try_wait().expect("its state").is_none(), "the server stays");
    }
    std::fs::write(desk.path().join("zeros"), vec![0; 16 << 20]).expect("written");
    let compare = "comparison_img=zeros,comparison_fmt=raw";
    let (report, _) = desk.run(&machine, &bundled(), compare, 1);
    assert_eq!(report["verdict"]["findings"][0]["kind"], "comparison_mismatch");
    let (_, said) = desk.run(&machine, &bundled(), "target_img=disk", 2);
    assert!(said.contains("read back through its device"), "{said}");
    // A disk that is too small is refused before anything is written to it.
    drop(daemon);
    std::fs::remove_file(desk.path().join("s")).expect("the socket of a daemon that was killed");
    desk.disk("small", 1 << 20);
    let _daemon = desk.daemon("small", 2);
    let (_, said) = desk.run(&machine, &bundled(), "", 2);
    assert!(said.contains("the disk has 1048576 bytes"), "{said}");
    let small = std::fs::read(desk.path().join("small")).expect("the disk");
    assert!(small.iter().all(|byte| *byte == 0));
}

#[test]
fn a_running_server_that_dies_is_a_finding() {
    let Some(desk) = Desk::new() else { return };
    desk.disk("disk", 16 << 20);
    let mut daemon = desk.daemon("disk", 2);
    let machine = format!("vhost-user:{}", desk.path().join("s").display());
    // Its progress is what is waited for: the guest's first block is no longer zeros.
    let replay = desk.command(&machine, &bundled(), "loops=1000000,verify=reads").spawn();
    let replay = replay.expect("qtrace runs");
    let end = Instant::now() + PATIENCE;
    let written = || {
        let disk = std::fs::read(desk.path().join("disk")).expect("the disk");
        disk.iter().any(|byte| *byte != 0)
    };
    while !written() {
        assert!(Instant::now() < end, "nothing is replayed");
    }
    daemon.0.kill().expect("killed");
    let out = finish(replay);
    assert_eq!(out.status.code(), Some(1), "{}", String::from_utf8_lossy(&out.stderr));
    let report: Value = serde_json::from_slice(&out.stdout).expect("a report");
    let finding = &report["verdict"]["findings"][0];
    assert_eq!(
        (&finding["kind"], &finding["obituary"]["what"]["kind"]),
        (&"machine_died".into(), &"closed".into())
    );
    let commands = finding["obituary"]["last_commands"].as_array().expect("messages");
    assert!(commands.iter().any(|command| command[0] == "SET_VRING_ENABLE 0: 1"), "{commands:?}");
}

#[test]
fn a_server_of_ours_that_is_killed_at_any_moment_is_told_of_and_leaves_nothing() {
    const KILLS: u64 = 10;
    const WITHIN: Duration = Duration::from_millis(300);
    let Some(desk) = Desk::new() else { return };
    let mut prng = Prng::new(1);
    let mut found = 0;
    for round in 0..KILLS {
        let options = "target_img=disk.raw,target_fmt=raw,loops=1000000,verify=reads";
        let mut replay = desk.command(STARTED, &bundled(), options).spawn().expect("qtrace runs");
        let server = child_with(&mut replay, "vhost-user-blk");
        // The moment itself is what is tried.
        std::thread::sleep(Duration::from_nanos(prng.below(WITHIN.as_nanos() as u64)));
        let pid = nix::unistd::Pid::from_raw(server);
        nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).expect("killed");
        let out = finish(replay);
        let stderr = String::from_utf8_lossy(&out.stderr);
        match out.status.code() {
            Some(1) => {
                let report: Value = serde_json::from_slice(&out.stdout).expect("a report");
                let obituary = &report["verdict"]["findings"][0]["obituary"];
                assert_eq!(obituary["what"]["number"], 9, "round {round}: {report}");
                assert_eq!(obituary["program"], DAEMON);
                found += 1;
            }
            Some(5) => assert!(stderr.contains("signal 9"), "round {round}: {stderr}"),
            other => panic!("round {round}: exit {other:?}: {stderr}"),
        }
        assert!(!is_alive(server), "round {round}: not reaped");
        assert!(desk.names().iter().all(|name| name == "disk.raw"), "{:?}", desk.names());
    }
    println!("{found} of {KILLS} kills met the replay");
    assert!(found >= KILLS / 2);
}

#[test]
fn a_qtrace_that_is_killed_takes_its_server_along() {
    let Some(desk) = Desk::new() else { return };
    for signal in [nix::sys::signal::SIGKILL, nix::sys::signal::SIGINT] {
        let options = "target_fmt=mem,loops=1000000,verify=none";
        let mut replay = desk.command(STARTED, &bundled(), options).spawn().expect("qtrace runs");
        let server = child_with(&mut replay, "vhost-user-blk");
        let pid = nix::unistd::Pid::from_raw(replay.id() as i32);
        nix::sys::signal::kill(pid, signal).expect("signalled");
        finish(replay);
        gone(server, &format!("a {signal}"));
    }
    assert!(desk.names().is_empty(), "{:?}", desk.names());
}

#[test]
fn what_is_no_server_is_said_in_time() {
    let Some(desk) = Desk::new() else { return };
    let at = |name: &str| format!("vhost-user:{}", desk.path().join(name).display());
    let trace = bundled();
    let (_, said) = desk.run(&at("nobody"), &trace, "", 5);
    assert!(said.contains("no vhost-user server can be reached"), "{said}");
    // One that takes the connection and says nothing.
    let _silent = UnixListener::bind(desk.path().join("silent")).expect("a socket");
    let (_, said) = desk.run(&at("silent"), &trace, "deadline=1s", 5);
    assert!(said.contains("no answer for 1.0 s"), "{said}");
    // One that speaks something else.
    let listener = UnixListener::bind(desk.path().join("web")).expect("a socket");
    let web = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let _ = stream.read(&mut [0; 512]);
        let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n");
        let _ = stream.read(&mut [0]);
    });
    let (_, said) = desk.run(&at("web"), &trace, "", 5);
    assert!(said.contains("broke the protocol"), "{said}");
    web.join().expect("it ends");
    for (binary, why) in [("/bin/true", "exit status 0"), ("/nonexistent", "cannot be started")] {
        let machine = format!("{STARTED},binary={binary}");
        let (_, said) = desk.run(&machine, &trace, "target_fmt=mem", 5);
        assert!(said.contains(why), "{said}");
    }
    for (machine, options) in [
        ("vhost-user", ""),
        (STARTED, "target_fmt=mem,clock=virtual"),
        (STARTED, "target_fmt=mem,board=q35"),
        (STARTED, ""),
        ("vhost-user:x,binary=y", ""),
        ("vhost-user:x", "snapshot=on"),
    ] {
        desk.run(machine, &trace, options, 2);
    }
    let (_, said) = desk.run(STARTED, &trace, "target_fmt=mem,transport=legacy", 5);
    assert!(said.contains("no legacy interface"), "{said}");
}

/// Runs the disk's cases, of which those called `must` pass; the rest says what is not there.
fn cases_pass(desk: &Desk, machine: &str, must: &[&str], why_not: &[&str]) {
    let args = ["test", "--machine", machine, "--format", "json", "virtio-blk", "requests=2000"];
    let out = qtrace(desk.path(), args);
    let text = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(0), "{}{text}", String::from_utf8_lossy(&out.stdout));
    let report: Value = serde_json::from_slice(&out.stdout).expect("a report");
    let cases = report["cases"].as_array().expect("cases");
    let named = |status: &str| -> Vec<String> {
        let of = cases.iter().filter(|case| case["status"] == status);
        of.map(|case| case["case"].as_str().expect("a name").to_owned()).collect()
    };
    let passed = named("passed");
    for case in must {
        assert!(passed.iter().any(|name| name == case), "{case}: {passed:?}");
    }
    for case in cases.iter().filter(|case| case["status"] == "skipped") {
        let reason = case["reason"].as_str().expect("a reason");
        let known = reason.starts_with("vhost-user: a vhost-user socket has vrings: no ports")
            || reason.starts_with("vhost-user: a disk has the identifier that its server gives it")
            || reason.starts_with("qemu-storage-daemon bug: INDIRECT counts in the first")
            || why_not.contains(&reason);
        assert!(known, "{}: {reason}", case["case"]);
    }
    assert_eq!(passed.len() + named("skipped").len(), cases.len());
}

#[test]
fn the_cases_of_the_disk_pass() {
    let Some(desk) = Desk::new() else { return };
    let must =
        ["config", "bounds", "layout", "multiqueue", "reset", "event-idx", "scale", "resize"];
    cases_pass(&desk, STARTED, &must, &[]);
}

/// The same on the disk of a server that runs already, once it may be written.
#[test]
fn the_cases_run_on_a_server_that_was_there_before() {
    let Some(desk) = Desk::new() else { return };
    std::fs::write(desk.path().join("disk"), vec![7; 1 << 20]).expect("a disk");
    let _daemon = desk.daemon("disk", 1);
    let machine = format!("vhost-user:{}", desk.path().join("s").display());
    let out = qtrace(desk.path(), ["test", "--machine", &machine, "virtio-blk/bounds"]);
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(!out.status.success() && text.contains("overwrite=on"), "{text}");
    let disk = || std::fs::read(desk.path().join("disk")).expect("the disk");
    assert!(disk().iter().all(|byte| *byte == 7), "it was written without having been allowed to");
    let must = ["bounds", "layout", "flush", "reset", "event-idx", "wrap"];
    let why_not = [
        "the server has one disk, and this needs another kind",
        "vhost-user lacks disks that can be resized",
        "the server's disk has fewer queues: queues=1 measures one",
    ];
    cases_pass(&desk, &format!("{machine},overwrite=on"), &must, &why_not);
    assert!(disk().iter().any(|byte| *byte != 7));
}
