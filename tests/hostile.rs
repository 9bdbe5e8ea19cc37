//! Bad input and a bad environment: a clear error, the right exit code, nothing left behind,
//! nothing of the user's damaged.

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::small_disk::SmallDisk;
use common::{QTRACE, expect, have, inputs, qtrace};

fn prepare(dir: &Path) {
    std::fs::write(dir.join("t.log"), inputs::log_writes(&inputs::recipe_entries())).expect("log");
    expect(dir, 0, ["import", "t.log", "-o", "t.qtrace"]);
}

fn qemu_img(dir: &Path, args: &[&str]) {
    let out = Command::new("qemu-img").args(args).current_dir(dir).output().expect("qemu-img");
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Replays onto `target`; insists on `code`, on words in the error, and that nobody touched it.
fn refused(dir: &Path, target: &str, code: i32, words: &[&str]) {
    let before = std::fs::read(dir.join(target)).expect("target");
    let options = format!("tracefile=t.qtrace,target_img={target},target_fmt=qcow2");
    let out = qtrace(dir, ["replay", "--test", "block-trace-virtio", &options]);
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{stderr}");
    for word in words.iter().chain(&[target]) {
        assert!(stderr.contains(word), "'{word}' is not in: {stderr}");
    }
    assert_eq!(before, std::fs::read(dir.join(target)).expect("target"), "{target} was touched");
}

#[test]
fn an_encrypted_qcow2_is_refused() {
    if !have("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    prepare(dir.path());
    let args = "create -q -f qcow2 --object secret,id=s,data=abc -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 luks.qcow2 1M";
    qemu_img(dir.path(), &args.split(' ').collect::<Vec<_>>());
    refused(dir.path(), "luks.qcow2", 3, &["encrypt"]);
}

#[test]
fn a_backing_file_outside_the_images_folder_is_refused_unless_allowed() {
    if !have("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let outside = tempfile::tempdir().expect("a folder");
    prepare(dir.path());
    let base = outside.path().join("base.raw");
    std::fs::write(&base, vec![0xaau8; inputs::DISK_BYTES as usize]).expect("base");
    let base = base.to_str().expect("UTF-8");
    qemu_img(dir.path(), &["create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", "top.qcow2"]);
    refused(dir.path(), "top.qcow2", 3, &["backing", "allow_backing"]);
    let options = "tracefile=t.qtrace,target_img=top.qcow2,target_fmt=qcow2,allow_backing=on";
    expect(dir.path(), 0, ["replay", "--test", "block-trace-virtio", options]);
}

#[test]
fn a_dirty_qcow2_is_refused() {
    if !have("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    prepare(dir.path());
    qemu_img(dir.path(), &["create", "-q", "-f", "qcow2", "dirty.qcow2", "1M"]);
    let path = dir.path().join("dirty.qcow2");
    let mut bytes = std::fs::read(&path).expect("image");
    bytes[79] |= 1; // incompatible_features, bit 0: dirty (QEMU docs/interop/qcow2.txt)
    std::fs::write(&path, bytes).expect("image");
    refused(dir.path(), "dirty.qcow2", 3, &["dirty", "qemu-img check"]);
}

/// A child that is killed and reaped whatever happens.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_image_in_use_is_refused() {
    if !have("qemu-img") || !have("qemu-nbd") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    prepare(dir.path());
    qemu_img(dir.path(), &["create", "-q", "-f", "qcow2", "used.qcow2", "1M"]);
    let pid_file = dir.path().join("pid");
    let server = Command::new("qemu-nbd")
        .args(["-f", "qcow2", "-t", "-k"])
        .arg(dir.path().join("nbd.sock"))
        .arg("--pid-file")
        .arg(&pid_file)
        .arg(dir.path().join("used.qcow2"))
        .spawn()
        .expect("qemu-nbd");
    let _server = Reaped(server);
    // qemu-nbd writes its pid once it listens, with the image open and locked.
    while !pid_file.exists() {
        std::thread::yield_now();
    }
    refused(dir.path(), "used.qcow2", 3, &["in use"]);
}

/// A log whose data does not compress: 64 writes of 64 KiB.
fn large_log(dir: &Path) {
    let entries: Vec<_> = (0..64).map(|n| inputs::write(n * 128, 128, 0)).collect();
    let mut log = inputs::log_writes(&entries);
    let mut prng = qtrace::base::Prng::new(5);
    for n in 0..64 {
        let start = 512 + n * (512 + 65536) + 512;
        prng.fill(&mut log[start..start + 65536]);
    }
    std::fs::write(dir.join("large.log"), log).expect("written");
}

#[test]
fn a_full_disk_stops_an_import_and_leaves_nothing() {
    let Some(small) = SmallDisk::new("1m") else { return };
    let dir = tempfile::tempdir().expect("a folder");
    large_log(dir.path());
    let output = small.path().join("out.qtrace");
    let out =
        qtrace(dir.path(), [Path::new("import"), Path::new("large.log"), Path::new("-o"), &output]);
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(7), "{stderr}");
    assert!(stderr.contains("out.qtrace") && stderr.contains("space"), "{stderr}");
    assert_eq!(small.files(), Vec::<String>::new());
}

#[test]
fn a_full_disk_stops_a_replay_and_leaves_no_half_target() {
    let Some(small) = SmallDisk::new("1m") else { return };
    let dir = tempfile::tempdir().expect("a folder");
    large_log(dir.path());
    expect(dir.path(), 0, ["import", "large.log", "-o", "t.qtrace"]);
    for format in ["raw", "qcow2"] {
        let target = small.path().join("disk");
        let options =
            format!("tracefile=t.qtrace,target_img={},target_fmt={format}", target.display());
        let out = qtrace(dir.path(), ["replay", "--test", "block-trace-virtio", &options]);
        let text = String::from_utf8_lossy(&out.stderr).into_owned()
            + &String::from_utf8_lossy(&out.stdout);
        assert_eq!(out.status.code(), Some(7), "{format}: {text}");
        assert!(text.to_lowercase().contains("no space"), "{format}: {text}");
        assert_eq!(small.files(), Vec::<String>::new(), "{format}");
    }
}

#[test]
fn ctrl_c_in_mid_replay_writes_the_report_and_exits_130() {
    let dir = tempfile::tempdir().expect("a folder");
    // Two requests a minute apart, then hours: the replay is waiting when the signal comes.
    let iolog =
        "fio version 3 iolog\n0 d add\n0 d open\n0 d write 0 4096\n60000000 d write 4096 4096\n";
    std::fs::write(dir.path().join("t.iolog"), iolog).expect("written");
    expect(dir.path(), 0, ["import", "t.iolog", "-o", "t.qtrace"]);
    let options =
        "tracefile=t.qtrace,target_img=d.raw,target_fmt=raw,pacing=recorded,report=r.json";
    let child = Command::new(QTRACE)
        .args(["replay", "--test", "block-trace-virtio", options])
        .current_dir(dir.path())
        .env("QTRACE_LOG", "qtrace=info")
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("spawned");
    let mut child = Reaped(child);
    let mut lines = BufReader::new(child.0.stderr.take().expect("stderr")).lines();
    let started = lines.by_ref().map_while(Result::ok).any(|line| line.contains("replay started"));
    assert!(started, "the log line 'replay started' never came");
    let pid = i32::try_from(child.0.id()).expect("a pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGINT)
        .expect("sent");
    let status = child.0.wait().expect("reaped");
    assert_eq!(status.code(), Some(130));
    let report = std::fs::read_to_string(dir.path().join("r.json")).expect("the report");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["interrupted"], true);
    assert_eq!(report["complete"], false);
    assert!(!dir.path().join("d.raw").exists(), "a half-written new target was left");
}

#[test]
fn every_cut_and_every_flipped_byte_of_a_trace_is_survived() {
    let dir = tempfile::tempdir().expect("a folder");
    let entries: Vec<_> = (0..3).map(|n| inputs::write(n * 8, 8, n as u8 + 1)).collect();
    std::fs::write(dir.path().join("t.log"), inputs::log_writes(&entries)).expect("log");
    expect(dir.path(), 0, ["import", "t.log", "-o", "t.qtrace"]);
    let whole = std::fs::read(dir.path().join("t.qtrace")).expect("trace");
    let broken = dir.path().join("b.qtrace");
    let check = |what: &str, bytes: &[u8]| {
        std::fs::write(&broken, bytes).expect("written");
        let options = "tracefile=b.qtrace,target_fmt=mem,target_size=64k";
        for args in
            [vec!["info", "b.qtrace"], vec!["replay", "--test", "block-trace-virtio", options]]
        {
            let out = qtrace(dir.path(), &args);
            let stderr = String::from_utf8_lossy(&out.stderr);
            let code = out.status.code();
            assert!(matches!(code, Some(0 | 3 | 4 | 7)), "{what} {args:?}: {code:?} {stderr}");
            assert!(!stderr.contains("panicked"), "{what}: {stderr}");
        }
    };
    // A prime step keeps the program runs few and visits every kind of field; the container's own
    // tests visit every byte.
    for at in (0..whole.len()).step_by(13) {
        check(&format!("cut at {at}"), &whole[..at]);
        let mut flipped = whole.clone();
        flipped[at] ^= 0x55;
        check(&format!("byte {at} flipped"), &flipped);
    }
}

#[test]
fn usage_errors_name_what_would_be_right() {
    let dir = tempfile::tempdir().expect("a folder");
    prepare(dir.path());
    for (options, words) in [
        ("tracefle=t.qtrace", vec!["tracefle", "did you mean 'tracefile'"]),
        ("tracefile=t.qtrace,target_fmt=mem,iodepth=lots", vec!["iodepth=lots"]),
        ("tracefile=t.qtrace,target_fmt=mem,pacing=recorde", vec!["pacing=recorded"]),
        ("target_fmt=mem", vec!["tracefile"]),
    ] {
        let out = qtrace(dir.path(), ["replay", "--test", "block-trace-virtio", options]);
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{options}: {stderr}");
        for word in words {
            assert!(stderr.contains(word), "{options}: '{word}' is not in: {stderr}");
        }
    }
    let out = qtrace(dir.path(), ["replay", "--test", "block-trace-virtoi", "tracefile=t.qtrace"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("block-trace-virtio"));
}

#[test]
fn what_is_not_a_trace_says_how_to_make_one() {
    let dir = tempfile::tempdir().expect("a folder");
    prepare(dir.path());
    let out = qtrace(dir.path(), ["info", "t.log"]);
    assert_eq!(out.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&out.stderr).contains("qtrace import"));
}

#[test]
fn an_existing_output_is_not_overwritten() {
    let dir = tempfile::tempdir().expect("a folder");
    prepare(dir.path());
    let before = std::fs::read(dir.path().join("t.qtrace")).expect("trace");
    expect(dir.path(), 2, ["import", "t.log", "-o", "t.qtrace"]);
    assert_eq!(before, std::fs::read(dir.path().join("t.qtrace")).expect("trace"));
    expect(dir.path(), 0, ["import", "t.log", "-o", "t.qtrace", "--force"]);
}

#[test]
fn a_file_size_limit_is_an_error_and_no_death() {
    let dir = tempfile::tempdir().expect("a folder");
    prepare(dir.path());
    let replay = "replay --test block-trace-virtio \
                  tracefile=t.qtrace,target_img=new.raw,target_fmt=raw,cache=unsafe";
    let command = format!("ulimit -f 8; exec '{QTRACE}' {replay}");
    let out = Command::new("sh")
        .args(["-c", &command])
        .current_dir(dir.path())
        .output()
        .expect("a shell");
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(7), "{:?} {stderr}", out.status);
    assert!(stderr.contains("File too large"), "{stderr}");
    assert!(!dir.path().join("new.raw").exists(), "half a target was left");
}

#[test]
fn a_trace_cut_while_it_is_replayed_is_said() {
    let dir = tempfile::tempdir().expect("a folder");
    let (iolog, trace) = (dir.path().join("t.iolog"), dir.path().join("t.qtrace"));
    let rows: String = (0..20_000).map(|n| format!("/d write {} 4096\n", n * 4096)).collect();
    std::fs::write(&iolog, format!("fio version 2 iolog\n/d add\n/d open\n{rows}/d close\n"))
        .expect("iolog");
    expect(dir.path(), 0, ["import", "t.iolog", "-o", "t.qtrace"]);
    let disk = dir.path().join("d.raw");
    std::fs::write(&disk, vec![0; 20_000 * 4096]).expect("disk");
    let mut child = Command::new(QTRACE)
        .args(["replay", "--test", "block-trace-virtio"])
        .arg("tracefile=t.qtrace,target_img=d.raw,target_fmt=raw,cache=unsafe,loops=1000000")
        .current_dir(dir.path())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("spawned");
    // The first write on the disk: the replay is under way.
    let started = || {
        let mut first = [0; 512];
        let disk = std::fs::File::open(&disk).expect("disk");
        std::os::unix::fs::FileExt::read_exact_at(&disk, &mut first, 0).expect("read");
        first != [0; 512]
    };
    while !started() && child.try_wait().expect("alive").is_none() {
        std::thread::yield_now();
    }
    std::fs::File::options()
        .write(true)
        .open(&trace)
        .and_then(|file| file.set_len(4096))
        .expect("cut");
    let out = child.wait_with_output().expect("ended");
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(3), "{:?} {stderr}", out.status);
    assert!(stderr.contains("cut short"), "{stderr}");
}
