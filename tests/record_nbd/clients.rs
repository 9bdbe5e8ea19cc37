//! Real clients against `qtrace record nbd`, and what was recorded replayed.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use qtrace::base::{BlockOp, Prng};
use qtrace::image::nbd_proto;
use qtrace::trace::{Event, Trace};

use super::client::Client;
use super::common::small_disk::SmallDisk;
use super::common::{QTRACE, expect, have, qtrace, replay};

const MIB: usize = 1 << 20;

/// A raw image of `bytes` bytes, every one of them written.
fn fill(path: &Path, bytes: usize, seed: u64) {
    let mut prng = Prng::new(seed);
    let data: Vec<u8> = (0..bytes / 8).flat_map(|_| prng.next_u64().to_le_bytes()).collect();
    std::fs::write(path, data).expect("an image");
}

fn tool(dir: &Path, words: &str) -> Output {
    let mut words = words.split(' ');
    let program = words.next().expect("a program");
    let out = Command::new(program).args(words).current_dir(dir).output().expect("runs");
    assert!(out.status.success(), "{program}: {}", String::from_utf8_lossy(&out.stderr));
    out
}

/// Records `command` on `image`; the trace is `t.qtrace`.
fn record(dir: &Path, image: &str, command: &str) -> Output {
    let args = format!("record nbd --force --image {image} -o t.qtrace --");
    let out = qtrace(dir, args.split(' ').chain(command.split(' ')));
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{command}: {stderr}");
    out
}

/// Replays `t.qtrace` on a new image of `format`; every read must be as recorded.
fn replays(dir: &Path, format: &str, same_as: &str) {
    let options = format!(
        "tracefile=t.qtrace,target_img=new.img,target_fmt={format},comparison_img={same_as}"
    );
    let report = replay(dir, 0, &options);
    assert_eq!(report["verdict"]["pass"], true, "{report:#}");
    std::fs::remove_file(dir.join("new.img")).expect("the target");
}

#[test]
fn nbdinfo_and_nbdcopy_both_ways() {
    if !have("nbdinfo") || !have("nbdcopy") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fill(&dir.join("src.raw"), 16 * MIB, 1);
    std::fs::File::create(dir.join("d.raw")).unwrap().set_len(16 << 20).unwrap();
    let out = record(dir, "d.raw", "nbdinfo --json {uri}");
    let info: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let export = &info["exports"][0];
    assert_eq!(info["structured"], true);
    assert_eq!(export["export-size"], 16 << 20);
    assert_eq!(export["contexts"][0], "base:allocation");
    for can in
        ["can_multi_conn", "can_flush", "can_fua", "can_trim", "can_zero", "can_df", "can_cache"]
    {
        assert_eq!(export[can], true, "{can}");
    }
    record(dir, "d.raw", "nbdcopy --flush src.raw {uri}");
    assert_eq!(
        std::fs::read(dir.join("d.raw")).unwrap(),
        std::fs::read(dir.join("src.raw")).unwrap()
    );
    replays(dir, "raw", "src.raw");
    record(dir, "d.raw", "nbdcopy {uri} back.raw");
    assert_eq!(
        std::fs::read(dir.join("back.raw")).unwrap(),
        std::fs::read(dir.join("src.raw")).unwrap()
    );
    let list = record(dir, "d.raw", "nbdinfo --list {uri}");
    assert!(String::from_utf8_lossy(&list.stdout).contains("export=\"\""));
    let map = record(dir, "d.raw", "nbdinfo --map --totals {uri}");
    assert!(String::from_utf8_lossy(&map.stdout).contains("data"));
}

#[test]
fn qemus_tools_on_raw_and_qcow2() {
    if !have("qemu-io") || !have("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fill(&dir.join("src.raw"), 8 * MIB, 2);
    for format in ["raw", "qcow2"] {
        let image = format!("d.{format}");
        tool(dir, &format!("qemu-img create -q -f {format} {image} 8M"));
        let script = "write -P 1 0 1M; read -P 1 0 1M; aio_write -P 2 64k 128k; aio_read 0 512k; \
                      aio_flush; write -z -u 1M 128k; write -z 2M 64k; write -f -P 3 3M 4k; \
                      discard 64k 64k; flush; read -P 3 3M 4k; read -P 0 1M 128k";
        let mut args: Vec<String> =
            ["record", "nbd", "--force", "--image", &image, "-o", "t.qtrace", "--"]
                .map(String::from)
                .to_vec();
        args.extend(["qemu-io", "-t", "writeback", "-f", "raw"].map(String::from));
        args.extend(script.split(';').flat_map(|line| ["-c".to_owned(), line.trim().to_owned()]));
        args.push("{uri}".to_owned());
        let out = qtrace(dir, &args);
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success() && !text.contains("failed"), "{text}");
        replays(dir, "raw", &image);
        record(dir, &image, "qemu-img bench -q -w -c 500 -d 32 -s 4k -f raw {uri}");
        record(dir, &image, "qemu-img bench -q -c 20 -d 8 -s 1M -f raw {uri}");
        record(dir, &image, "qemu-img convert -n -W -m 8 -f raw -O raw src.raw {uri}");
        record(dir, &image, "qemu-img compare -f raw -F raw src.raw {uri}");
        tool(dir, &format!("qemu-img compare -q -f raw -F {format} src.raw {image}"));
        if format == "qcow2" {
            tool(dir, "qemu-img check -q d.qcow2");
        }
        record(dir, &image, "qemu-img convert -f raw -O raw {uri} back.raw");
        assert_eq!(
            std::fs::read(dir.join("back.raw")).unwrap(),
            std::fs::read(dir.join("src.raw")).unwrap()
        );
    }
}

#[test]
fn a_format_that_only_qemu_has_is_served_as_well() {
    if !have("qemu-img") || !have("qemu-nbd") || !have("qemu-io") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    tool(dir, "qemu-img create -q -f vmdk d.vmdk 8M");
    let args = "record nbd --image d.vmdk -o t.qtrace -- qemu-io -f raw -c".split(' ');
    expect(dir, 0, args.chain(["write -P 7 1M 1M", "{uri}"]));
    replays(dir, "raw", "d.vmdk");
}

#[test]
fn fio_verifies_what_it_wrote() {
    let engines = Command::new("fio").arg("--enghelp").output();
    if !engines.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains("nbd")) {
        return println!("skipped: no fio with an nbd engine is installed");
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::File::create(dir.join("d.raw")).unwrap().set_len(8 << 20).unwrap();
    let job = "fio --name=j --ioengine=nbd --uri={uri} --rw=randwrite --bsrange=512-64k \
               --bs_unaligned=0 --size=8M --iodepth=16 --verify=crc32c --do_verify=1 --fsync=64 \
               --randseed=7 --norandommap=0";
    record(dir, "d.raw", &job.split_whitespace().collect::<Vec<_>>().join(" "));
    replays(dir, "qcow2", "d.raw");
}

/// A recorder without a command, and the address that it said it is at.
fn start(dir: &Path, args: &str) -> (Child, String) {
    let mut child = Command::new(QTRACE)
        .args(args.split(' '))
        .current_dir(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("qtrace runs");
    let mut lines = BufReader::new(child.stderr.take().expect("stderr")).lines();
    let uri = lines.find_map(|line| Some(line.ok()?.split_once(" at ")?.1.to_owned()));
    // Whatever else it says has somewhere to go.
    std::thread::spawn(move || lines.for_each(drop));
    (child, uri.expect("it says where it is"))
}

#[test]
fn signals_end_it_with_a_whole_trace() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    use nix::sys::signal::{SIGHUP, SIGINT, SIGTERM};
    // Together, too, as a terminal that closes and a service manager send them.
    for signals in [&[SIGINT][..], &[SIGTERM], &[SIGHUP, SIGTERM], &[SIGTERM, SIGINT, SIGHUP]] {
        std::fs::File::create(dir.join("d.raw")).unwrap().set_len(1 << 20).unwrap();
        let (child, uri) = start(dir, "record nbd --force --image d.raw -o t.qtrace --socket s");
        assert!(uri.starts_with("nbd+unix:///?socket=/"), "{uri}");
        let meta = std::fs::metadata(dir.join("s")).unwrap();
        assert!(meta.file_type().is_socket() && meta.permissions().mode() & 0o777 == 0o600);
        let mut client = Client::enter(&dir.join("s")).unwrap();
        assert_eq!(client.ask(nbd_proto::Command::Write, 0, (0, 512), &[1; 512]).0, 0);
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        signals.iter().for_each(|signal| nix::sys::signal::kill(pid, *signal).unwrap());
        let out = child.wait_with_output().unwrap();
        assert_eq!(out.status.code(), Some(0));
        assert!(String::from_utf8_lossy(&out.stdout).contains("requests   1 of 512 B"));
        assert!(client.is_closed() && !dir.join("s").exists());
        let trace = Trace::open(&dir.join("t.qtrace")).unwrap();
        assert_eq!((trace.events(), trace.truncation()), (2, None));
    }
}

#[test]
fn tcp_listens_on_the_loopback_and_warns_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::File::create(dir.join("d.raw")).unwrap().set_len(1 << 20).unwrap();
    let (mut child, uri) = start(dir, "record nbd --image d.raw -o t.qtrace --listen :0");
    assert!(uri.starts_with("nbd://127.0.0.1:"), "{uri}");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(child.id() as i32),
        nix::sys::signal::SIGTERM,
    )
    .unwrap();
    assert!(child.wait().unwrap().success());
    let args = "record nbd --force --image d.raw -o t.qtrace --listen 0.0.0.0:0 -- true";
    let out = qtrace(dir, args.split(' '));
    assert!(out.status.success());
    assert!(String::from_utf8_lossy(&out.stderr).contains("without a password"));
}

#[test]
fn what_cannot_be_recorded_is_said_before_anything_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("d.raw"), [5; 4096]).unwrap();
    std::fs::write(dir.join("t.qtrace"), b"mine").unwrap();
    expect(dir, 2, "record nbd --image d.raw -o t.qtrace -- true".split(' '));
    assert_eq!(std::fs::read(dir.join("t.qtrace")).unwrap(), b"mine");
    expect(dir, 2, "record nbd --force --image d.raw -o d.raw -- true".split(' '));
    expect(dir, 3, "record nbd --image none.raw -o new.qtrace -- true".split(' '));
    expect(dir, 2, "record nbd --image d.raw -o new.qtrace -- /no/such/program".split(' '));
    expect(dir, 2, "record nbd --image d.raw -o new.qtrace --listen nowhere -- true".split(' '));
    expect(dir, 2, "record nbd --image d.raw -o new.qtrace --".split(' '));
    expect(dir, 2, "record nbd --image d.raw -o - -- true".split(' '));
    expect(dir, 2, "record nbd --image d.raw -o new.qtrace --socket no/s -- true".split(' '));
    assert!(!dir.join("new.qtrace").exists() && !dir.join("-").exists());
    // What is no trace is not replaced, either.
    expect(dir, 2, "record nbd --force --image d.raw -o t.qtrace -- true".split(' '));
    assert_eq!(std::fs::read(dir.join("t.qtrace")).unwrap(), b"mine");
    assert_eq!(std::fs::read(dir.join("d.raw")).unwrap(), [5; 4096]);
    // The command's own status.
    expect(
        dir,
        42,
        "record nbd --image d.raw -o new.qtrace -- sh -c".split(' ').chain(["exit 42"]),
    );
    expect(
        dir,
        143,
        "record nbd --force --image d.raw -o new.qtrace -- sh -c".split(' ').chain(["kill $$"]),
    );
    assert_eq!(Trace::open(&dir.join("new.qtrace")).unwrap().truncation(), None);
}

#[test]
fn what_is_not_as_it_looks_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("d.raw"), [5; 1000]).unwrap();
    let args = "record nbd --read-only --image d.raw -o t.qtrace --listen :0 -- true";
    let out = qtrace(dir, args.split(' ').chain(["{socket}", "{uri}"]));
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{stderr}");
    assert!(stderr.contains("1000 bytes, and its disk whole sectors: 1024"), "{stderr}");
    assert!(stderr.contains("{socket} stays as it is") && stderr.contains("here {uri} is"));
    assert!(!stderr.contains("{uri} stays"), "{stderr}");
}

#[test]
fn a_full_disk_ends_the_recording_and_not_the_client() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    if !have("qemu-io") {
        return;
    }
    for n in 0..8 {
        fill(&dir.join(format!("{n}.raw")), MIB, n);
    }
    for (policy, goes_on) in [("continue", true), ("fail", false)] {
        std::fs::File::create(dir.join("d.raw")).unwrap().set_len(1 << 20).unwrap();
        // The trace may have 4 MiB; what is written to the image is below that.
        let script = format!(
            "ulimit -f 4096; exec {QTRACE} record nbd --force --on-error {policy} --image d.raw \
             -o t.qtrace -- sh -c 'for n in 0 1 2 3 4 5 6 7 0 1; do qemu-io -f raw \
             -c \"write -q -s $n.raw 0 1M\" -c flush {{uri}} || exit 1; done; echo done'"
        );
        let out = Command::new("bash").arg("-c").arg(&script).current_dir(dir).output().unwrap();
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(7), "{stderr}");
        assert!(stderr.contains("cannot write the trace"), "{stderr}");
        let done = String::from_utf8_lossy(&out.stdout).contains("done");
        assert_eq!(done, goes_on, "{policy}: {stderr}");
        let trace = Trace::open(&dir.join("t.qtrace")).unwrap();
        assert!(trace.truncation().is_some());
        told_what_stands(&stderr, &trace);
    }
}

/// What is said of a recording that failed is what is in its file: whole requests, with their data.
fn told_what_stands(stderr: &str, trace: &Trace) {
    assert!(trace.events() > 0, "{stderr}");
    let said = format!("the first {} events stand in", trace.events());
    assert!(stderr.contains(&said), "{stderr}");
    let mut data = vec![0; 1 << 20];
    for number in 0..trace.events() {
        if let Event::Issue(issue) = trace.event(number).unwrap()
            && issue.op == BlockOp::Write
        {
            let data = data.get_mut(..issue.len as usize).unwrap();
            trace.read_payload(issue.payload, issue.len, 0, data).unwrap();
        }
    }
}

#[test]
fn a_disk_that_is_full_before_the_first_event_is_due_still_holds_some() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    if !have("nbdcopy") {
        return;
    }
    let Some(small) = SmallDisk::new("2m") else { return };
    fill(&dir.join("in.raw"), 12 * MIB, 3);
    std::fs::File::create(dir.join("d.raw")).unwrap().set_len(12 << 20).unwrap();
    let trace = small.path().join("t.qtrace");
    let args = ["record", "nbd", "--image", "d.raw", "-o", trace.to_str().unwrap()];
    let out = qtrace(dir, args.into_iter().chain("-- nbdcopy in.raw {uri}".split(' ')));
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(7), "{stderr}");
    told_what_stands(&stderr, &Trace::open(&trace).unwrap());
}
