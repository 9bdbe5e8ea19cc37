//! The main job on a real QEMU: a guest's disk reproduced by QEMU's own device and block layer,
//! whatever the board, the interface, the format and the depth. Each is one short-lived QEMU.

mod common;

use std::path::{Path, PathBuf};

use common::{QTRACE, qtrace, repo, shared};
use serde_json::Value;

/// SHA-256 of each guest's final disk, as the data's own documentation has it.
const GUESTS: [(&str, &str); 3] = [
    ("virtio-raw", "9863e5884a2c41a87cc420d5bdde6ee17e7eb6ca830070a9cf33e4c5059efc03"),
    ("virtio-qcow2", "12104d81d36e83ccd49de75ec879e99a9676dd54eaca8cdfdc8520c2a8a12037"),
    ("ide-raw", "a4dcd83944a434f920fcccee63f06dcb570b05c9513ac8e06d44c8a620adb199"),
];

const BOARDS: [&str; 2] = ["pc", "q35"];
const TRANSPORTS: [&str; 2] = ["legacy", "modern"];
const FORMATS: [&str; 4] = ["raw", "qcow2", "vmdk", "vhdx"];
const DEPTHS: [u32; 3] = [1, 8, 64];

/// The bundled recording of the first guest.
fn bundled() -> PathBuf {
    repo().join("traces/linux-ext4-virtio.qtrace")
}

/// A folder with a QEMU to use in it.
struct Desk(tempfile::TempDir);

impl Desk {
    /// `None` after saying why where there is no QEMU.
    fn new() -> Option<Self> {
        let desk = Self(tempfile::tempdir().expect("a folder"));
        let (code, _, err) = desk.run("qemu", &bundled(), "target_fmt=null");
        if code == 5 {
            println!("skipped: {}", err.lines().next().unwrap_or_default());
            return None;
        }
        assert_eq!(code, 0, "{err}");
        Some(desk)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Exit code, report where there is one, stderr.
    fn run(&self, machine: &str, trace: &Path, options: &str) -> (i32, Option<Value>, String) {
        let options = format!("tracefile={},{options}", trace.display());
        let test = ["replay", "--test", "block-trace-virtio", "--format", "json"];
        let output =
            qtrace(self.path(), test.iter().chain(&["--machine", machine, options.as_str()]));
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!stderr.contains("panicked"), "{stderr}");
        let report = serde_json::from_slice(&output.stdout).ok();
        (output.status.code().expect("an exit code"), report, stderr)
    }

    /// Runs and expects `code`; the report.
    fn report(&self, machine: &str, trace: &Path, options: &str, code: i32) -> Value {
        let (got, report, stderr) = self.run(machine, trace, options);
        assert_eq!(got, code, "{machine} {options}: {report:#?} {stderr}");
        report.unwrap_or_else(|| panic!("{machine} {options}: no report: {stderr}"))
    }

    /// Runs, expects that the disk is `sha256` in the end, and gives the report.
    fn reproduces(&self, machine: &str, trace: &Path, options: &str, sha256: &str) -> Value {
        let report = self.report(machine, trace, options, 0);
        assert_eq!(report["image_sha256"], sha256, "{machine} {options}");
        assert_eq!(report["verdict"]["pass"], true);
        assert_eq!(report["machine"]["kind"], "qemu");
        report
    }

    fn names(&self) -> Vec<String> {
        let entries = self.path().read_dir().expect("a folder");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

/// Every combination of board, interface, format and depth, each by one QEMU.
fn all_combinations() -> impl Iterator<Item = (&'static str, &'static str, &'static str, u32)> {
    BOARDS.into_iter().flat_map(|board| {
        TRANSPORTS.into_iter().flat_map(move |transport| {
            FORMATS.into_iter().flat_map(move |format| {
                DEPTHS.into_iter().map(move |depth| (board, transport, format, depth))
            })
        })
    })
}

/// Replays `trace` in the combinations of `combinations`, counted through all guests.
fn reproduce<'a>(
    desk: &Desk,
    trace: &Path,
    sha256: &str,
    combinations: impl Iterator<Item = (&'a str, &'a str, &'a str, u32)>,
) {
    for (board, transport, format, depth) in combinations {
        let options = format!(
            "target_img=d,target_fmt={format},target_size=16M,iodepth={depth},transport={transport}"
        );
        let report = desk.reproduces(&format!("qemu,type={board}"), trace, &options, sha256);
        let machine = &report["machine"];
        assert_eq!((&machine["board"], &machine["transport"]), (&board.into(), &transport.into()));
        assert_eq!(
            (&report["target"]["format"], &report["target"]["size"]),
            (&format.into(), &(16 << 20).into())
        );
        std::fs::remove_file(desk.path().join("d")).expect("the target is there");
    }
}

#[test]
fn the_bundled_guests_disk_is_reproduced_in_every_combination() {
    let Some(desk) = Desk::new() else { return };
    reproduce(&desk, &bundled(), GUESTS[0].1, all_combinations());
    assert!(desk.names().is_empty(), "{:?}", desk.names());
}

/// The other guests, each in a third of the combinations, so that together they see each.
#[test]
fn every_guests_disk_is_reproduced() {
    let Some(data) = shared("guest") else { return };
    let Some(desk) = Desk::new() else { return };
    for (turn, (name, sha256)) in GUESTS.into_iter().enumerate() {
        let log = data.join(format!("{name}.blklogwrites.gz"));
        let import = ["import", log.to_str().expect("UTF-8"), "-o", "t.qtrace"];
        common::expect(desk.path(), 0, import);
        let third = all_combinations().enumerate().filter(|(n, _)| (n + n / 3) % 3 == turn);
        let trace = desk.path().join("t.qtrace");
        reproduce(&desk, &trace, sha256, third.map(|(_, combination)| combination));
        std::fs::remove_file(&trace).expect("the trace is there");
    }
}

/// Ways to drive the device and to keep its bytes that the combinations leave out.
#[test]
fn queues_threads_interrupts_clocks_and_caches() {
    let Some(desk) = Desk::new() else { return };
    for options in [
        "target_fmt=mem",
        "target_fmt=mem,num_queues=4,iothread=on,iodepth=64",
        "target_fmt=mem,completion=irq,transport=modern",
        "target_fmt=mem,completion=irq,transport=legacy,indirect=off,event_idx=off",
        "target_fmt=mem,queue_size=1024,iodepth=1024",
        "target_img=unsafe,target_fmt=raw,cache=unsafe",
        "target_img=vpc,target_fmt=vpc",
    ] {
        desk.reproduces("qemu", &bundled(), options, GUESTS[0].1);
    }
    // Time that stands still, and is called what it is.
    for more in ["", ",completion=irq", ",iothread=on,num_queues=2"] {
        let options = format!("target_fmt=mem,clock=virtual{more}");
        let (code, report, stderr) = desk.run("qemu", &bundled(), &options);
        if code == 5 {
            println!("skipped: {}", stderr.lines().next().unwrap_or_default());
            return;
        }
        let report = report.expect("a report");
        assert_eq!(
            (&report["image_sha256"], &report["time_grade"]),
            (&GUESTS[0].1.into(), &"clock-stepped".into())
        );
    }
}

#[test]
fn a_snapshot_leaves_the_image_and_backing_files_are_followed() {
    let Some(desk) = Desk::new() else { return };
    if !common::have("qemu-img") {
        return;
    }
    let qemu_img = |args: &[&str]| {
        let output =
            std::process::Command::new("qemu-img").args(args).current_dir(desk.path()).output();
        assert!(output.expect("qemu-img runs").status.success(), "{args:?}");
    };
    qemu_img(&["create", "-q", "-f", "raw", "base.raw", "16M"]);
    qemu_img(&["create", "-q", "-f", "vmdk", "alone.vmdk", "16M"]);
    qemu_img(&["create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "child.qcow2"]);
    let content = |name: &str| std::fs::read(desk.path().join(name)).expect("readable");
    for name in ["base.raw", "child.qcow2", "alone.vmdk"] {
        let before = content(name);
        let format = name.split('.').next_back().expect("a format");
        let options = format!("target_img={name},target_fmt={format},snapshot=on");
        let report = desk.reproduces("qemu", &bundled(), &options, GUESTS[0].1);
        assert_eq!(report["target"]["snapshot"], true);
        assert!(content(name) == before, "{name} was written");
    }
    let base = content("base.raw");
    desk.reproduces("qemu", &bundled(), "target_img=child.qcow2", GUESTS[0].1);
    assert!(content("base.raw") == base);
    qemu_img(&["check", "-q", "child.qcow2"]);
    assert_eq!(desk.names(), ["alone.vmdk", "base.raw", "child.qcow2"]);
}

/// QEMU's own error injection below the format stands for the host.
#[test]
fn a_full_disk_is_the_hosts_and_another_error_a_finding() {
    let Some(desk) = Desk::new() else { return };
    let machine = |errno: u32| {
        let file = serde_json::json!({ "file": {
            "driver": "blkdebug",
            "image": { "driver": "null-co", "size": 16 << 20, "read-zeroes": true },
            "inject-error": [{ "event": "none", "iotype": "write", "errno": errno }],
        }});
        format!("qemu,blockdev={}", file.to_string().replace(',', ",,"))
    };
    let (code, _, err) =
        desk.run(&machine(28), &bundled(), "target_img=d,target_fmt=raw,verify=none");
    assert_eq!(code, 7, "{err}");
    assert!(err.contains("d: the machine failed to write") && err.contains("free space"), "{err}");
    let report = desk.report(&machine(5), &bundled(), "target_fmt=mem,verify=none", 1);
    assert_eq!(report["verdict"]["findings"][0]["kind"], "status_error");
    let notes = report["notes"].as_array().expect("notes");
    assert!(
        notes.iter().any(|note| note.as_str().is_some_and(|n| n.contains("failures on its image")))
    );
    assert!(desk.names().is_empty(), "{:?}", desk.names());
}

/// QEMUs that `pid` started for a replay.
fn qemus_of(pid: u32) -> Vec<i32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let children = tasks.flatten().flat_map(|task| {
        let list = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        list.split_whitespace().filter_map(|n| n.parse().ok()).collect::<Vec<i32>>()
    });
    let of_replay = |pid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.contains("disk0"))
    };
    children.filter(of_replay).collect()
}

#[test]
fn a_qemu_that_is_killed_while_it_works_is_a_finding() {
    let Some(desk) = Desk::new() else { return };
    let options = format!(
        "tracefile={},target_img=d,target_fmt=qcow2,loops=1000000,runlog=log,verify=none",
        bundled().display()
    );
    let args = ["replay", "--machine", "qemu", "--format", "json", "--test", "block-trace-virtio"];
    let mut child = std::process::Command::new(QTRACE)
        .args(args)
        .arg(options)
        .current_dir(desk.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("qtrace runs");
    let pid = child.id();
    // It works once answers are being logged.
    let log = || {
        std::fs::read_dir(desk.path()).expect("a folder").flatten().any(|entry| {
            entry.file_name() != "d" && entry.metadata().is_ok_and(|meta| meta.len() > 0)
        })
    };
    let qemu = loop {
        assert!(child.try_wait().expect("a child").is_none(), "it ended by itself");
        if let (Some(qemu), true) = (qemus_of(pid).first(), log()) {
            break *qemu;
        }
        std::thread::yield_now();
    };
    let killed =
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(qemu), nix::sys::signal::SIGKILL);
    killed.expect("it was there");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert_eq!((&report["complete"], &report["interrupted"]), (&false.into(), &false.into()));
    let finding = &report["verdict"]["findings"][0];
    assert_eq!(
        (&finding["kind"], &finding["obituary"]["what"]["number"]),
        (&"machine_died".into(), &9.into())
    );
    assert!(finding["obituary"]["command"].as_str().is_some_and(|line| line.contains("-blockdev")));
    assert!(!Path::new(&format!("/proc/{qemu}")).exists(), "it was not reaped");
    assert_eq!(desk.names(), ["d", "log"]);
}
