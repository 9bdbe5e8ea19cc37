//! Images made by qemu-img pass the check of their tables; damaged ones are refused untouched.

use std::path::{Path, PathBuf};

use super::testkit::{SIZE, arg, qemu_ok};
use super::{OpenOptions, open, write_all};

fn writable() -> OpenOptions {
    OpenOptions { writable: true, ..Default::default() }
}

fn made(options: &str) -> Option<(tempfile::TempDir, PathBuf)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.qcow2");
    let size = SIZE.to_string();
    qemu_ok("qemu-img", &["create", "-q", "-f", "qcow2", "-o", options, arg(&path), &size])?;
    Some((dir, path))
}

fn fill(path: &Path, offset: u64) {
    write_all(&*open(path, &writable()).unwrap(), &[3; 200_000], offset).unwrap();
}

#[test]
fn clean_images_pass_with_and_without_snapshots() {
    for options in [
        "compat=1.1",
        "compat=0.10",
        "cluster_size=512",
        "cluster_size=512,refcount_bits=64",
        "cluster_size=2M,refcount_bits=8",
        "refcount_bits=2",
        "preallocation=metadata",
        "preallocation=falloc",
        "preallocation=full,cluster_size=4k",
    ] {
        let Some((_dir, path)) = made(options) else { return };
        fill(&path, 100_000);
        for name in ["one", "two"] {
            qemu_ok("qemu-img", &["snapshot", "-c", name, arg(&path)]);
            open(&path, &writable()).unwrap();
            let zero = ["-f", "qcow2", "-c", "write -z 128k 300k", "-c", "write 1M 70k"];
            let status = std::process::Command::new("qemu-io").args(zero).arg(&path).status();
            assert!(status.unwrap().success(), "qemu-io");
            open(&path, &writable()).unwrap();
        }
        qemu_ok("qemu-img", &["snapshot", "-d", "one", arg(&path)]);
        open(&path, &writable()).unwrap();
        qemu_ok("qemu-img", &["check", "-q", arg(&path)]);
    }
}

#[test]
fn compressed_images_pass() {
    for options in ["cluster_size=64k", "cluster_size=512", "compat=0.10,cluster_size=2M"] {
        let Some((dir, path)) = made(options) else { return };
        let raw = dir.path().join("raw");
        let text: Vec<u8> = (0..SIZE).map(|i| (i / 700 * 37 % 251) as u8).collect();
        std::fs::write(&raw, text).unwrap();
        std::fs::remove_file(&path).unwrap();
        let command = ["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options];
        qemu_ok("qemu-img", &[&command[..], &[arg(&raw), arg(&path)]].concat());
        fill(&path, 150_000);
        open(&path, &writable()).unwrap();
        qemu_ok("qemu-img", &["check", "-q", arg(&path)]);
    }
}

fn be64(bytes: &[u8], at: u64) -> u64 {
    u64::from_be_bytes(*bytes[at as usize..].first_chunk().unwrap())
}

fn put(bytes: &mut [u8], at: u64, value: u64) {
    bytes[at as usize..][..8].copy_from_slice(&value.to_be_bytes());
}

const COPIED: u64 = 1 << 63;
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

#[test]
fn damaged_tables_are_refused_and_the_file_is_left_alone() {
    let Some((_dir, path)) = made("compat=1.1") else { return };
    fill(&path, 0);
    let good = std::fs::read(&path).unwrap();
    let (l1, refcounts) = (be64(&good, 40), be64(&good, 48));
    let l2 = be64(&good, l1) & OFFSET;
    let block = be64(&good, refcounts);
    let data = be64(&good, l2);
    type Damage<'a> = Box<dyn Fn(&mut Vec<u8>) + 'a>;
    let entry = |at, value| -> Damage<'_> { Box::new(move |b| put(b, at, value)) };
    let cases: Vec<(&str, Damage<'_>)> = vec![
        ("overlaps the L1 table", entry(l2, l1 | COPIED)),
        ("overlaps the refcount table", entry(l2, refcounts | COPIED)),
        ("overlaps a refcount block", entry(l2, block | COPIED)),
        ("overlaps an L2 table", entry(l2, l2 | COPIED)),
        ("not begin on a cluster", entry(l2, data | 1 << 56)),
        ("its refcount is 0", Box::new(|b| b[block as usize..][..65536].fill(0))),
        ("used twice", entry(l2 + 8, data)),
        ("used twice", entry(l2 + 8, data & !COPIED)),
        ("past the end of the file", entry(l2, (1 << 40) | COPIED)),
        ("past the end of the file", entry(l2, (1 << 62) | (1 << 40))),
        ("not begin on a cluster", entry(l2, data + 512)),
        ("L2 table at 0x1000000000 is past", entry(l1, (1 << 36) | COPIED)),
        ("an L2 table", entry(l1, l1 | COPIED)),
        ("a refcount block", entry(refcounts, l2)),
        // The refcount of the data cluster: two bytes each.
        (
            "shared and says it is not",
            Box::new(|b| b[(block + (data & OFFSET) / 65536 * 2) as usize + 1] = 2),
        ),
        ("snapshots cannot be", Box::new(|b| b[60] = 9)),
    ];
    for (want, damage) in cases {
        let mut bad = good.clone();
        damage(&mut bad);
        std::fs::write(&path, &bad).unwrap();
        let error = open(&path, &writable()).map(|i| i.size()).unwrap_err();
        assert_eq!(error.kind().exit_code(), 3, "{want}: {error}");
        assert!(error.to_string().contains(want), "{want}: {error}");
        assert!(error.hint_text().unwrap().contains("qemu-img check -r all"));
        assert!(std::fs::read(&path).unwrap() == bad, "{want}: the file was changed");
    }
    std::fs::write(&path, &good).unwrap();
    open(&path, &writable()).unwrap();
}
