//! The guest that other tests record: it boots, works on a disk of each kind and powers off.

mod common;

use std::path::Path;

use common::guest::{DISK_BYTES, assert_done, guest_kit, run_within};
use common::qtrace;

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
    std::fs::write(dir.path().join("events"), EVENTS).expect("written");
    line.extend("-msg timestamp=on -trace events=events,file=t.log".split(' ').map(Into::into));
    assert_done(&run_within(dir.path(), 120, &line));
    let bytes = std::fs::read(dir.path().join("d.raw")).expect("read");
    let last = &bytes[bytes.len() - 512..];
    assert!(last.starts_with(b"raw sector pattern "), "nothing was written to the disk's end");
    // The ext4 superblock's magic number, at 0x38 of the second KiB (Linux, fs/ext4/ext4.h).
    assert_eq!(name == "ext4", bytes[1024 + 0x38..][..2] == [0x53, 0xef]);
    check_import(dir.path());
}

/// What QEMU tells of its block devices.
const EVENTS: &str = "virtio_blk_*\nide_*\ndma_*\npci_nvme_*\n";

/// Every request in QEMU's trace log is in the trace that is imported from it, and its completion.
fn check_import(dir: &Path) {
    let log = std::fs::read_to_string(dir.join("t.log")).expect("a log");
    let lines = |words: &[&str]| {
        let holds = |line: &&str| words.iter().any(|word| line.contains(word));
        log.lines().filter(holds).count() as u64
    };
    let command = ["import", "t.log", "-o", "t.qtrace", "--format", "json"];
    let output = qtrace(dir, command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(document["format"], "qemu-log");
    let count = |op: &str| document["ops"][op].as_u64().unwrap_or(0);
    let reads =
        [":virtio_blk_handle_read ", "cmd=DMA READ", ":ide_sector_read ", ":pci_nvme_read "];
    let writes = [":virtio_blk_handle_write ", "cmd=DMA WRITE", "'NVME_NVM_CMD_WRITE' nsid"];
    assert_eq!(count("read"), lines(&reads));
    assert_eq!(count("write"), lines(&writes));
    assert_eq!(count("write-zeroes"), lines(&["'NVME_NVM_CMD_WRITE_ZEROES' nsid"]));
    assert_eq!(count("discard"), lines(&[":pci_nvme_dsm_deallocate "]));
    let flushes = ["cmd 0xe7", "cmd 0xea", "'NVME_NVM_CMD_FLUSH'"];
    assert_eq!(count("flush"), lines(&flushes));
    // IDE tells no end of PIO and of flushes.
    let endless = lines(&["cmd 0xe7", "cmd 0xea", ":ide_sector_read "]);
    let requests: u64 =
        ["read", "write", "write-zeroes", "discard", "flush"].map(count).iter().sum();
    assert!(count("read") > 0 && count("write") > 0);
    assert_eq!(document["completions"].as_u64(), Some(requests - endless));
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
