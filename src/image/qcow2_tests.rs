//! qcow2 against the real qemu-img, and every guard against a real image that it must stop.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::testkit::{self, SIZE, arg, qemu, qemu_ok};
use super::{CacheMode, OpenOptions, create, open, read_exact, write_all};
use crate::base::Error;

fn writable() -> OpenOptions {
    OpenOptions { writable: true, ..Default::default() }
}

/// A folder with a new image made by `qemu-img create ARGS`.
fn image_by_qemu(args: &[&str]) -> Option<(tempfile::TempDir, PathBuf)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.qcow2");
    let size = SIZE.to_string();
    let mut all = vec!["create", "-q", "-f", "qcow2"];
    all.extend(args);
    all.push(arg(&path));
    all.push(&size);
    qemu_ok("qemu-img", &all)?;
    Some((dir, path))
}

fn check_clean(path: &Path) {
    qemu_ok("qemu-img", &["check", "-q", arg(path)]);
}

fn refusal(path: &Path, options: &OpenOptions) -> Error {
    let error = open(path, options).map(|image| image.info().clone()).unwrap_err();
    assert_eq!(error.kind().exit_code(), 3, "{error}");
    error
}

fn patch(path: &Path, at: usize, change: impl FnOnce(&mut u8)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes[at]);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn an_image_of_ours_behaves_and_is_clean() {
    for cache in [CacheMode::Writeback, CacheMode::Unsafe, CacheMode::None] {
        let dir = testkit::folder_on_disk();
        let path = dir.path().join("disk.qcow2");
        let options = OpenOptions { cache, ..Default::default() };
        let pending = create(&path, "qcow2", SIZE, &options).unwrap();
        testkit::exercise(&*pending.image());
        pending.commit().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        check_clean(&path);
        let image = open(&path, &OpenOptions::default()).unwrap();
        assert_eq!((image.size(), image.info().format.as_str()), (SIZE, "qcow2"));
    }
}

#[test]
fn images_of_qemu_behave_and_stay_clean() {
    let variants: [&[&str]; 5] = [
        &[],
        &["-o", "cluster_size=512"],
        &["-o", "cluster_size=2M,refcount_bits=1"],
        &["-o", "compat=0.10"],
        &["-o", "preallocation=full"],
    ];
    for variant in variants {
        let Some((_dir, path)) = image_by_qemu(variant) else { return };
        let image = open(&path, &writable()).unwrap();
        assert_eq!(image.info().discard_zeroes, !variant.contains(&"compat=0.10"));
        testkit::exercise(&*image);
        drop(image);
        check_clean(&path);
    }
}

#[test]
fn what_qemu_reads_is_what_we_wrote() {
    let Some((dir, path)) = image_by_qemu(&[]) else { return };
    let mut model = vec![0; SIZE as usize];
    crate::base::Prng::new(3).fill(&mut model[70_000..900_000]);
    let image = open(&path, &writable()).unwrap();
    write_all(&*image, &model[70_000..900_000], 70_000).unwrap();
    drop(image);
    let flat = dir.path().join("flat");
    qemu_ok("qemu-img", &["convert", "-O", "raw", arg(&path), arg(&flat)]);
    assert!(std::fs::read(&flat).unwrap() == model);
}

/// `base` filled with 7s, and an overlay of it made by qemu-img.
fn with_backing(options: &str) -> Option<(tempfile::TempDir, PathBuf, PathBuf)> {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base.raw");
    std::fs::write(&base, vec![7; SIZE as usize]).unwrap();
    let path = dir.path().join("disk.qcow2");
    let command =
        ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base.raw", "-o", options, arg(&path)];
    qemu_ok("qemu-img", &command)?;
    Some((dir, base, path))
}

#[test]
fn a_backing_file_shows_through_and_is_never_changed() {
    for options in ["compat=1.1", "compat=0.10"] {
        let Some((_dir, base, path)) = with_backing(options) else { return };
        let image = open(&path, &writable()).unwrap();
        testkit::exercise_from(&*image, vec![7; SIZE as usize]);
        drop(image);
        check_clean(&path);
        assert!(std::fs::read(base).unwrap().iter().all(|b| *b == 7));
    }
}

#[test]
fn a_discarded_range_does_not_show_the_backing_file() {
    let Some((_dir, _base, path)) = with_backing("compat=1.1") else { return };
    let image = open(&path, &writable()).unwrap();
    image.discard(65536 - 512, 3 * 65536).unwrap();
    let mut buf = vec![1; 3 * 65536];
    read_exact(&*image, &mut buf, 65536 - 512).unwrap();
    assert!(buf.iter().all(|b| *b == 0));
    read_exact(&*image, &mut buf[..512], 65536 - 1024).unwrap();
    assert!(buf[..512].iter().all(|b| *b == 7));
}

#[test]
fn unaligned_zeroes_and_writes_in_one_cluster_do_not_lose_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let pending = create(&dir.path().join("d"), "qcow2", SIZE, &OpenOptions::default()).unwrap();
    let image = pending.image();
    for round in 0..200u64 {
        let cluster = round % 40 * 65536;
        std::thread::scope(|scope| {
            scope.spawn(|| image.write_zeroes(cluster, 512, round % 2 == 0).unwrap());
            write_all(&*image, &[round as u8 + 1; 512], cluster + 4096).unwrap();
        });
        let mut buf = [0; 512];
        read_exact(&*image, &mut buf, cluster + 4096).unwrap();
        assert_eq!(buf, [round as u8 + 1; 512], "round {round}");
    }
}

#[test]
fn an_encrypted_image_is_refused() {
    let luks = [
        "--object",
        "secret,id=k,data=x",
        "-o",
        "encrypt.format=luks,encrypt.key-secret=k,encrypt.iter-time=10",
    ];
    let Some((_dir, path)) = image_by_qemu(&luks) else { return };
    let error = refusal(&path, &OpenOptions::default());
    assert!(error.to_string().contains("encrypted (LUKS)"), "{error}");
    assert!(error.hint_text().unwrap().contains("key"));
}

#[test]
fn a_dirty_image_is_refused_with_the_remedy() {
    let Some((_dir, path)) = image_by_qemu(&[]) else { return };
    patch(&path, 79, |byte| *byte |= 1);
    for options in [OpenOptions::default(), writable()] {
        let error = refusal(&path, &options);
        assert!(error.to_string().contains("dirty"), "{error}");
        assert!(error.hint_text().unwrap().contains("qemu-img check -r all"));
    }
    qemu_ok("qemu-img", &["check", "-q", "-r", "all", arg(&path)]);
    open(&path, &writable()).unwrap();
}

#[test]
fn a_corrupt_image_is_refused() {
    let Some((_dir, path)) = image_by_qemu(&[]) else { return };
    patch(&path, 79, |byte| *byte |= 2);
    assert!(refusal(&path, &OpenOptions::default()).to_string().contains("corrupt"));
}

#[test]
fn a_backing_file_outside_the_folder_needs_leave() {
    let elsewhere = tempfile::tempdir().unwrap();
    let base = elsewhere.path().join("secret.raw");
    std::fs::write(&base, vec![7; SIZE as usize]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.qcow2");
    std::os::unix::fs::symlink(&base, dir.path().join("link.raw")).unwrap();
    let dots = format!("../{}/secret.raw", elsewhere.path().file_name().unwrap().display());
    for name in [arg(&base), "link.raw", &dots] {
        let command = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", name, arg(&path)];
        if qemu_ok("qemu-img", &command).is_none() {
            return;
        }
        let error = refusal(&path, &OpenOptions::default());
        assert!(error.to_string().contains("outside the image's own folder"), "{error}");
        assert!(error.hint_text().unwrap().contains("allow_backing"));
        let allowed = OpenOptions { allow_backing: true, ..Default::default() };
        let mut buf = [0; 512];
        read_exact(&*open(&path, &allowed).unwrap(), &mut buf, 0).unwrap();
        assert_eq!(buf, [7; 512], "{name}");
    }
}

#[test]
fn a_data_file_outside_the_folder_needs_leave_and_one_inside_works() {
    let dir = tempfile::tempdir().unwrap();
    let (path, data) = (dir.path().join("disk.qcow2"), dir.path().join("DATA"));
    let option = format!("data_file={}", data.display());
    let size = SIZE.to_string();
    let command = ["create", "-q", "-f", "qcow2", "-o", &option, arg(&path), &size];
    if qemu_ok("qemu-img", &command).is_none() {
        return;
    }
    testkit::exercise(&*open(&path, &writable()).unwrap());
    check_clean(&path);
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::rename(dir.path().join("DATA"), elsewhere.path().join("DATA")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join("DATA"), dir.path().join("DATA")).unwrap();
    let error = refusal(&path, &writable());
    assert!(error.to_string().contains("outside the image's own folder"), "{error}");
}

#[test]
fn the_rule_holds_along_the_whole_chain() {
    let elsewhere = tempfile::tempdir().unwrap();
    let secret = elsewhere.path().join("secret.raw");
    std::fs::write(&secret, vec![7; SIZE as usize]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (middle, top) = (dir.path().join("middle.qcow2"), dir.path().join("top.qcow2"));
    let first = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", arg(&secret), arg(&middle)];
    if qemu_ok("qemu-img", &first).is_none() {
        return;
    }
    qemu_ok(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "middle.qcow2", arg(&top)],
    );
    assert!(refusal(&top, &OpenOptions::default()).to_string().contains("secret.raw"));
}

#[test]
fn protocols_json_and_loops_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.qcow2");
    let size = SIZE.to_string();
    for name in ["nbd://localhost/x", "json:{\"driver\":\"null-co\"}", "nbd:unix:/tmp/x"] {
        let command =
            ["create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", name, arg(&path), &size];
        if qemu_ok("qemu-img", &command).is_none() {
            return;
        }
        let all = OpenOptions { allow_backing: true, ..Default::default() };
        assert!(refusal(&path, &all).to_string().contains("not a plain file name"));
    }
    let command =
        ["create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", "disk.qcow2", arg(&path), &size];
    qemu_ok("qemu-img", &command);
    assert!(refusal(&path, &OpenOptions::default()).to_string().contains("loop"));
}

/// A qemu-nbd that serves an image; killed when dropped.
struct Server(nix::unistd::Pid);

impl Server {
    fn start(path: &Path, dir: &Path, extra: &[&str]) -> Option<Self> {
        let (socket, pid) = (dir.join("socket"), dir.join("pid"));
        let _ = std::fs::remove_file(&socket);
        // --fork: the command returns when the server is up.
        let started = Command::new("qemu-nbd")
            .args(["--fork", "-t", "-f", "qcow2", "-k", arg(&socket), "--pid-file", arg(&pid)])
            .args(extra)
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        match started {
            Ok(status) => {
                assert!(status.success());
                let pid = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
                Some(Self(nix::unistd::Pid::from_raw(pid)))
            }
            Err(e) => {
                eprintln!("skipped: qemu-nbd cannot be run ({e}); install qemu-utils");
                None
            }
        }
    }

    /// Ends it, and waits until its locks are gone.
    fn stop(self, path: &Path) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while open(path, &writable()).is_err() {
            assert!(std::time::Instant::now() < deadline, "qemu-nbd does not end");
            // Again and again: it ignores one that comes before its main loop runs.
            let _ = nix::sys::signal::kill(self.0, nix::sys::signal::Signal::SIGTERM);
            std::thread::yield_now();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.0, nix::sys::signal::Signal::SIGKILL);
    }
}

#[test]
fn an_image_in_use_is_refused() {
    let Some((dir, path)) = image_by_qemu(&[]) else { return };
    let Some(server) = Server::start(&path, dir.path(), &[]) else { return };
    for options in [OpenOptions::default(), writable()] {
        let error = refusal(&path, &options);
        assert!(error.to_string().contains("in use"), "{error}");
        assert!(error.hint_text().unwrap().contains("stop the VM"), "{error}");
    }
    server.stop(&path);
    // A reader shares with readers, not with a writer.
    let Some(server) = Server::start(&path, dir.path(), &["-r"]) else { return };
    open(&path, &OpenOptions::default()).unwrap();
    refusal(&path, &writable());
    server.stop(&path);
    let _ours = open(&path, &writable()).unwrap();
    let out = qemu("qemu-img", &["info", arg(&path)]).unwrap();
    assert!(!out.status.success(), "QEMU opened an image we write");
}

#[test]
fn a_backing_file_in_use_is_refused_too() {
    let Some((dir, path)) = image_by_qemu(&[]) else { return };
    let top = dir.path().join("top.qcow2");
    qemu_ok(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "disk.qcow2", arg(&top)],
    );
    let Some(_server) = Server::start(&path, dir.path(), &[]) else { return };
    let error = refusal(&top, &writable());
    assert!(error.to_string().contains("disk.qcow2") && error.to_string().contains("in use"));
}

/// Damage anywhere in the metadata is an error or wrong data, never a panic or a hang.
#[test]
fn flipped_metadata_never_panics() {
    let Some((_dir, path)) = image_by_qemu(&["-o", "cluster_size=512"]) else { return };
    write_all(&*open(&path, &writable()).unwrap(), &[3; 20_000], 100_000).unwrap();
    let good = std::fs::read(&path).unwrap();
    let mut prng = crate::base::Prng::new(11);
    for _ in 0..400 {
        let mut bytes = good.clone();
        for _ in 0..=prng.below(3) {
            let at = prng.below(bytes.len().min(16 << 10) as u64) as usize;
            bytes[at] ^= 1 << prng.below(8);
        }
        std::fs::write(&path, &bytes).unwrap();
        if let Ok(image) = open(&path, &writable()) {
            let size = image.size().min(SIZE);
            let _ = read_exact(&*image, &mut vec![0; size as usize], 0);
            let _ = write_all(&*image, &[1; 3000], prng.below(size.saturating_sub(3000).max(1)));
            let _ = image.discard(0, size);
            let _ = image.flush();
        }
    }
}
