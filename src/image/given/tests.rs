//! What another program would do is done by qemu-nbd here, which takes the same descriptions.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::image::testkit::{SIZE, arg, qemu_ok};
use crate::image::{create, read_exact};

fn writable() -> OpenOptions {
    OpenOptions { writable: true, ..Default::default() }
}

/// Writes `byte` to the sector at 1 MiB as the other program would. `false` where there is none.
fn write_elsewhere(image: &GivenImage, byte: u8) -> bool {
    // One that is there: a description that it refuses is a failure of the test.
    if qemu_ok("qemu-io", &["--version"]).is_none() {
        return false;
    }
    let mut command = Command::new("qemu-io");
    let write = format!("write -q -P {byte} 1M 512");
    command.args(["-c", &write, &format!("json:{}", image.node)]);
    let fds: Vec<i32> = image.files.iter().map(InheritedFile::number).collect();
    assert!(fds.iter().all(|fd| *fd >= INHERITED_FD_MIN));
    // SAFETY: only an async-signal-safe call between fork and exec.
    unsafe {
        use std::os::unix::process::CommandExt;
        command.pre_exec(move || {
            for fd in &fds {
                assert!(libc::fcntl(*fd, libc::F_SETFD, 0) == 0);
            }
            Ok(())
        });
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}: {output:?}", image.node);
    true
}

fn byte_at(image: &dyn Image, offset: u64) -> u8 {
    let mut byte = [0];
    read_exact(image, &mut byte, offset).unwrap();
    byte[0]
}

/// Hands over, has it written, and looks at it again.
fn exercise(handover: &Handover, size: u64) -> Option<Arc<dyn Image>> {
    assert_eq!(handover.image().size, size);
    write_elsewhere(handover.image(), 7).then(|| {
        let image = handover.reopen().unwrap();
        assert_eq!(image.size(), size, "{}", handover.format());
        assert!(image.info().read_only);
        assert_eq!((byte_at(&*image, 1 << 20), byte_at(&*image, 512)), (7, 0));
        image
    })
}

#[test]
fn a_new_image_of_any_format_is_written_elsewhere_and_seen_here() {
    for format in ["raw", "qcow2", "vmdk", "vhdx", "vdi", "vpc", "parallels", "qed", "qcow"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let pending = match create(&path, format, SIZE, &OpenOptions::default()) {
            Err(e) if e.kind().exit_code() == 5 => return println!("skipped: {e}"),
            other => other.unwrap().give(),
        };
        let handover = Handover::created(&pending, &writable(), GivenAio::Threads).unwrap();
        assert!(!path.exists() && handover.format() == format);
        if exercise(&handover, SIZE).is_none() {
            return;
        }
        drop(handover);
        pending.commit(CacheMode::Writeback).unwrap();
        assert_eq!(
            byte_at(&*crate::image::open(&path, &OpenOptions::default()).unwrap(), 1 << 20),
            7
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

#[test]
fn a_pending_image_that_is_dropped_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for format in ["raw", "qcow2"] {
        let pending = create(&dir.path().join("d"), format, SIZE, &OpenOptions::default());
        let pending = pending.unwrap().give();
        drop(Handover::created(&pending, &writable(), GivenAio::Threads).unwrap());
        drop(pending);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn disks_without_a_file() {
    exercise(&Handover::mem(SIZE, GivenAio::Threads).unwrap(), SIZE);
    let odd = Handover::mem(1000, GivenAio::Threads).unwrap();
    assert_eq!((odd.image().size, odd.format()), (1024, "mem"));
    let null = Handover::null(SIZE + 1);
    assert_eq!(null.image().size, SIZE + 512);
    assert_eq!(null.image().node["size"], SIZE + 512);
    if write_elsewhere(null.image(), 9) {
        assert_eq!(byte_at(&*null.reopen().unwrap(), 1 << 20), 0);
    }
}

/// A base image of `format` that is all fives, made by qemu-img.
fn fives(dir: &Path, format: &str, extra: &[&str]) -> Option<PathBuf> {
    let (flat, path) = (dir.join("flat"), dir.join(format!("base.{format}")));
    std::fs::write(&flat, vec![5; SIZE as usize]).unwrap();
    let mut args = vec!["convert", "-q", "-f", "raw", "-O", format];
    args.extend(extra);
    args.extend([arg(&flat), arg(&path)]);
    qemu_ok("qemu-img", &args)?;
    Some(path)
}

#[test]
fn a_snapshot_takes_the_writes_and_leaves_the_image() {
    let zstd: &[&str] = &["-o", "compression_type=zstd"];
    for (format, extra) in
        [("raw", &[][..]), ("qcow2", &[]), ("qcow2", zstd), ("vmdk", &[]), ("vdi", &[])]
    {
        let dir = tempfile::tempdir().unwrap();
        let Some(path) = fives(dir.path(), format, extra) else { return };
        let before = std::fs::read(&path).unwrap();
        let handover = Handover::snapshot(&path, &writable(), GivenAio::Threads).unwrap();
        assert_eq!(handover.format(), format);
        if !write_elsewhere(handover.image(), 7) {
            return;
        }
        let image = handover.reopen().unwrap();
        assert_eq!(image.size(), SIZE);
        assert_eq!(image.info().path, path);
        for (offset, want) in [(0, 5), ((1 << 20) - 1, 5), (1 << 20, 7), ((1 << 20) + 512, 5)] {
            assert_eq!(byte_at(&*image, offset), want, "{format} at {offset}");
        }
        assert!(std::fs::read(&path).unwrap() == before);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}

#[test]
fn backing_files_are_nodes_of_their_own_and_an_image_without_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let Some(base) = fives(dir.path(), "raw", &[]) else { return };
    let child = dir.path().join("child.qcow2");
    let create = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", arg(&base), arg(&child)];
    qemu_ok("qemu-img", &create).unwrap();
    let handover = Handover::in_place(&child, &writable(), GivenAio::Threads).unwrap();
    let node = &handover.image().node;
    assert_eq!((&node["driver"], &node["read-only"]), (&"qcow2".into(), &false.into()));
    let backing = &node["backing"];
    assert_eq!((&backing["driver"], &backing["read-only"]), (&"raw".into(), &true.into()));
    assert_eq!(backing["file"]["read-only"], true);
    assert_eq!(handover.image().files.len(), 2);
    assert!(write_elsewhere(handover.image(), 7));
    let image = handover.reopen().unwrap();
    assert_eq!((byte_at(&*image, 0), byte_at(&*image, 1 << 20)), (5, 7));
    for format in ["qcow2", "vmdk", "qed", "qcow"] {
        let path = dir.path().join(format!("alone.{format}"));
        qemu_ok("qemu-img", &["create", "-q", "-f", format, arg(&path), "1M"]).unwrap();
        let alone = Handover::in_place(&path, &writable(), GivenAio::Threads).unwrap();
        let node = alone.image().node.as_object().unwrap();
        assert_eq!(node.get("backing"), Some(&Value::Null), "{format}");
    }
}

#[test]
fn what_is_not_opened_here_is_not_handed_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let refused =
        |options: &OpenOptions| Handover::in_place(&path, options, GivenAio::Threads).unwrap_err();
    std::fs::write(&path, b"LUKS\xba\xbe\0\x01").unwrap();
    assert!(refused(&writable()).to_string().contains("key"));
    std::fs::write(&path, [0; 4096]).unwrap();
    let qcow2 = OpenOptions { format: Some("qcow2".into()), ..writable() };
    assert_eq!(refused(&qcow2).kind().exit_code(), 3);
    let _user = crate::image::open(&path, &OpenOptions::default()).unwrap();
    let error = refused(&writable());
    assert!(error.hint_text().unwrap().contains("stop the VM"), "{error}");
    // What is only read may be read by others.
    Handover::snapshot(&path, &writable(), GivenAio::Threads).unwrap();
}

#[test]
fn the_cache_mode_and_the_kind_of_io_are_said_to_every_file() {
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let path = dir.path().join("disk");
    std::fs::write(&path, [0; 4096]).unwrap();
    for (cache, aio, want) in [
        (CacheMode::None, GivenAio::Native, (true, false, "native")),
        (CacheMode::Writeback, GivenAio::IoUring, (false, false, "io_uring")),
        (CacheMode::Unsafe, GivenAio::Threads, (false, true, "threads")),
    ] {
        let options = OpenOptions { cache, ..writable() };
        let handover = match Handover::in_place(&path, &options, aio) {
            Err(e) if e.to_string().contains("O_DIRECT") => {
                println!("skipped: {e}");
                continue;
            }
            other => other.unwrap(),
        };
        let file = &handover.image().node["file"];
        assert_eq!(
            (&file["cache"]["direct"], &file["cache"]["no-flush"], &file["aio"]),
            (&want.0.into(), &want.1.into(), &want.2.into())
        );
        assert_eq!((&file["locking"], &file["discard"]), (&"on".into(), &"unmap".into()));
    }
}

#[test]
fn a_file_put_in_the_images_place_is_not_taken_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("disk"), dir.path().join("other"));
    std::fs::write(&path, [0; 4096]).unwrap();
    std::fs::write(&other, [1; 4096]).unwrap();
    let handover = Handover::in_place(&path, &writable(), GivenAio::Threads).unwrap();
    std::fs::rename(&other, &path).unwrap();
    let error = handover.reopen().map(|image| image.size()).unwrap_err();
    assert!(error.to_string().contains("replaced"), "{error}");
}

#[test]
fn a_descriptor_that_is_handed_over_can_do_nothing_by_itself() {
    let file = Handover::mem(4096, GivenAio::Threads).unwrap().image().files[0].clone();
    assert_eq!(nix::unistd::read(file.fd.as_fd(), &mut [0; 1]), Err(nix::errno::Errno::EBADF));
}
