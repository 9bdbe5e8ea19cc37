//! The guest that other tests record: it boots, works on a disk of each kind and powers off.

mod common;

use common::guest::{DISK_BYTES, assert_done, guest_kit, run_within};

/// Boots with `disk` (arguments in which `{}` is the image); the exercise's verdict is the guest's own.
fn exercise(name: &str, disk: &str) {
    let Some(kit) = guest_kit() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let image = std::fs::File::create(dir.path().join("d.raw")).expect("created");
    image.set_len(DISK_BYTES).expect("sized");
    let mut line = kit.command_line(name);
    line.extend(
        disk.split(' ').map(|word| word.replace("{}", "file=d.raw,format=raw,discard=unmap")),
    );
    assert_done(&run_within(dir.path(), 120, &line));
    let bytes = std::fs::read(dir.path().join("d.raw")).expect("read");
    let last = &bytes[bytes.len() - 512..];
    assert!(last.starts_with(b"raw sector pattern "), "nothing was written to the disk's end");
    // The ext4 superblock's magic number, at 0x38 of the second KiB (Linux, fs/ext4/ext4.h).
    assert_eq!(name == "ext4", bytes[1024 + 0x38..][..2] == [0x53, 0xef]);
}

#[test]
fn ext4_on_virtio_blk() {
    exercise("ext4", "-drive {},if=virtio");
}

#[test]
fn raw_requests_on_ide() {
    exercise("raw", "-machine pc -drive {},if=ide");
}

#[test]
fn raw_requests_on_nvme() {
    exercise("raw", "-machine q35 -drive {},if=none,id=d -device nvme,serial=1,drive=d");
}
