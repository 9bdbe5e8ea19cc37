use sha2::{Digest, Sha256};

use super::*;
use crate::base::ErrorKind;
use crate::import::testing::{Memory, import_bytes, import_with, sample};

/// Builds a log.
struct Log {
    sector_bytes: usize,
    bytes: Vec<u8>,
    entries: u64,
}

impl Log {
    fn new(sector_bytes: usize) -> Self {
        let mut log = Self { sector_bytes, bytes: vec![0; sector_bytes], entries: 0 };
        log.set(0, WRITE_LOG_MAGIC);
        log.set(8, WRITE_LOG_VERSION);
        log.set(24, sector_bytes as u64);
        log
    }

    fn set(&mut self, at: usize, value: u64) {
        self.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    fn entry(&mut self, sector: u64, nr: u64, flags: u64, data: &[u8]) -> &mut Self {
        let at = self.bytes.len();
        self.bytes.resize(at + self.sector_bytes, 0);
        self.set(at, sector);
        self.set(at + 8, nr);
        self.set(at + 16, flags);
        if flags & LOG_MARK_FLAG != 0 {
            self.set(at + 24, data.len() as u64);
            self.bytes[at + 32..at + 32 + data.len()].copy_from_slice(data);
        } else {
            self.bytes.extend_from_slice(data);
        }
        self.entries += 1;
        self
    }

    fn counting(&mut self, entries: u64) -> Vec<u8> {
        self.set(16, entries);
        self.bytes.clone()
    }

    fn finish(&mut self) -> Vec<u8> {
        self.counting(self.entries)
    }
}

fn losses(report: &crate::import::ImportReport) -> Vec<(&str, u64)> {
    report.summary.losses.iter().map(|loss| (loss.reason.as_str(), loss.count)).collect()
}

#[test]
fn every_kind_of_entry() {
    for size in [512usize, 4096, 65536] {
        let data = vec![7; size * 2];
        let log = Log::new(size)
            .entry(3, 2, 0, &data)
            .entry(0, 0, LOG_FLUSH_FLAG, b"")
            .entry(1, 1, LOG_FLUSH_FLAG | LOG_FUA_FLAG | LOG_METADATA_FLAG, &data[..size])
            .entry(8, 1 << 20, LOG_DISCARD_FLAG, b"")
            .entry(0, 0, LOG_MARK_FLAG, b"after mkfs")
            .finish();
        let (report, out) = import_bytes(&log).unwrap();
        let size = size as u64;
        assert_eq!(
            out.issues_brief(),
            [
                (0, BlockOp::Write, 3 * size, 2 * size),
                (0, BlockOp::Flush, 0, 0),
                (0, BlockOp::Write, size, size),
                (0, BlockOp::Discard, 8 * size, size << 20),
            ]
        );
        let issues = out.issues();
        assert_eq!(issues[0].flags, OpFlags::empty());
        assert_eq!(issues[2].flags, OpFlags::PREFLUSH | OpFlags::FUA | OpFlags::META);
        assert_eq!(out.data(issues[0].payload), data);
        assert_eq!(issues[3].payload, PayloadRef::Absent);
        assert_eq!(out.marks(), [(0, "after mkfs".to_owned())]);
        assert_eq!(out.streams[0].block_bytes, Some(size as u32));
        assert!(report.summary.losses.is_empty() && report.cut.is_none());
        // A META bit was seen, so hints are recorded.
        assert!(!report.summary.not_recorded.contains(NotRecorded::HINTS));
        assert!(report.summary.not_recorded.contains(NotRecorded::ISSUE_ORDER));
    }
}

#[test]
fn a_write_longer_than_a_piece_is_streamed() {
    let mut data = vec![0; PAYLOAD_PIECE_BYTES * 2 + 512];
    crate::base::Prng::new(1).fill(&mut data);
    let log = Log::new(512).entry(0, data.len() as u64 / 512, 0, &data).finish();
    let (_, out) = import_bytes(&log).unwrap();
    assert_eq!(out.data(out.issues()[0].payload), data);
    let cut = &log[..log.len() - 1];
    let error = import_bytes(cut).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input, "{error}");
}

#[test]
fn what_follows_a_count_above_zero_is_not_trusted() {
    let data = [1; 512];
    let mut log = Log::new(512);
    log.entry(0, 1, 0, &data).entry(1, 1, 0, &data).entry(2, 1, 0, &data);
    let bytes = [log.counting(1), vec![0; 4096]].concat();
    let (report, out) = import_bytes(&bytes).unwrap();
    assert_eq!(out.issues().len(), 1);
    let reason = "entries after the superblock's count (--uncounted reads them)";
    assert_eq!(losses(&report), [(reason, 2)]);
    assert_eq!(report.summary.losses[0].first, "test-input offset 1536");

    let options = ImportOptions { uncounted: true, ..ImportOptions::default() };
    let (report, out) = import_with(&bytes, &options).unwrap();
    assert_eq!(out.issues().len(), 3);
    assert!(report.summary.losses.is_empty());
    assert_eq!(report.summary.notes, ["the superblock counts 1 entry; 2 more were read"]);
}

#[test]
fn a_killed_run_that_counts_nothing_is_read_as_far_as_entries_are_plausible() {
    let data = [1; 512];
    let mut log = Log::new(512);
    log.entry(0, 1, 0, &data).entry(1, 1, LOG_FUA_FLAG, &data);
    let start = log.counting(0);
    for garbage in [vec![0; 2048], vec![0xa5; 2048], Log::new(512).finish()] {
        let (report, out) = import_bytes(&[start.clone(), garbage].concat()).unwrap();
        assert_eq!(out.issues().len(), 2);
        assert_eq!(report.summary.notes.len(), 1);
        assert_eq!(report.cut, None);
    }
}

#[test]
fn a_log_that_ends_early_is_imported_to_the_cut() {
    let data = [9; 1024];
    let log = Log::new(512).entry(0, 2, 0, &data).entry(2, 2, 0, &data).finish();
    for len in 512 * 4..log.len() {
        let (report, out) = import_bytes(&log[..len]).unwrap();
        assert_eq!(out.issues().len(), 1, "cut at {len}");
        let cut = "the log cannot be read to its last entry (test-input offset 2048)";
        assert_eq!(report.cut.as_deref(), Some(cut));
    }
    for len in 0..512 * 4 {
        assert_eq!(import_bytes(&log[..len]).unwrap_err().kind(), ErrorKind::Input, "cut {len}");
    }
}

#[test]
fn hostile_entries() {
    let data = [1; 512];
    let cases: [(u64, u64, u64, &str); 5] = [
        (0, u64::MAX, 0, "entry with an impossible length"),
        (u64::MAX, 1, LOG_DISCARD_FLAG, "range past the largest disk there can be (1 EiB)"),
        (0, 0, 0, "entry with neither data nor a meaning"),
        (0, 0, LOG_DISCARD_FLAG, "request of length 0"),
        (0, 1 << 50, 0, "entry with an impossible length"),
    ];
    for (sector, nr, flags, reason) in cases {
        let log = Log::new(512).entry(0, 1, 0, &data).entry(sector, nr, flags, b"").finish();
        let (report, out) = import_bytes(&log).unwrap();
        assert_eq!(out.issues().len(), 1);
        assert_eq!(losses(&report)[0].0, reason);
    }
}

#[test]
fn unknown_flags_and_long_marks_are_losses_and_the_rest_is_read() {
    let mut log = Log::new(512);
    log.entry(0, 1, 1 << 9, &[1; 512]).entry(0, 0, LOG_MARK_FLAG, b"x").entry(0, 1, 0, &[2; 512]);
    let at = 512 + 1024 + 24;
    log.set(at, 10_000);
    let (report, out) = import_bytes(&log.finish()).unwrap();
    assert_eq!(out.issues().len(), 2);
    assert_eq!(out.marks().len(), 1);
    let reasons: Vec<_> = losses(&report).iter().map(|loss| loss.0).collect();
    assert_eq!(
        reasons,
        ["unknown entry flag (the rest of the entry was read)", "mark text longer than its sector"]
    );
}

#[test]
fn bad_superblocks_are_refused() {
    let good = Log::new(512).entry(0, 1, 0, &[1; 512]).finish();
    for (at, value, what) in [(8, 2, "version 2"), (24, 513, "size 513"), (24, 256, "size 256")] {
        let mut log = good.clone();
        log[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
        let error = import_bytes(&log).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input);
        assert!(error.to_string().contains(what), "{error}");
    }
    let options = ImportOptions { from: Some("dm-log-writes".into()), ..ImportOptions::default() };
    assert!(import_with(&[0; 4096], &options).unwrap_err().to_string().contains("wrong magic"));
    let options = ImportOptions { device: Some("vda".into()), ..ImportOptions::default() };
    assert_eq!(import_with(&good, &options).unwrap_err().kind(), ErrorKind::Usage);
}

#[test]
fn marks_alone_are_nothing_to_replay() {
    let log = Log::new(512).entry(0, 0, LOG_MARK_FLAG, b"end").finish();
    assert_eq!(import_bytes(&log).unwrap_err().kind(), ErrorKind::Nothing);
}

/// What a disk of `size` zero bytes holds after the trace's writes.
fn apply(out: &Memory, size: usize) -> Vec<u8> {
    let mut disk = vec![0; size];
    for issue in out.issues().iter().filter(|issue| issue.op == BlockOp::Write) {
        let at = issue.offset as usize;
        disk[at..at + issue.len as usize].copy_from_slice(out.data(issue.payload));
    }
    disk
}

#[test]
fn the_real_guest_logs_give_the_disks_they_were_captured_from() {
    const DISK_BYTES: usize = 16 << 20;
    for (name, entries, digest) in [
        ("virtio-raw", 87, "9863e5884a2c41a87cc420d5bdde6ee17e7eb6ca830070a9cf33e4c5059efc03"),
        ("virtio-qcow2", 86, "12104d81d36e83ccd49de75ec879e99a9676dd54eaca8cdfdc8520c2a8a12037"),
        ("ide-raw", 86, "a4dcd83944a434f920fcccee63f06dcb570b05c9513ac8e06d44c8a620adb199"),
    ] {
        let Some(log) = sample(&format!("guest/{name}.blklogwrites.gz")) else { return };
        let (report, out) = import_bytes(&log).unwrap();
        assert_eq!((report.events, report.cut.as_ref()), (entries, None), "{name}");
        assert!(report.summary.losses.is_empty());
        let hash = Sha256::digest(apply(&out, DISK_BYTES));
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, digest, "{name}");
    }
}

#[test]
fn the_real_kernel_log() {
    let Some(log) = sample("traces/dm-log-writes/log.img.xz") else { return };
    let (report, out) = import_bytes(&log).unwrap();
    assert_eq!(report.events, 160);
    assert!(report.summary.losses.is_empty() && report.cut.is_none());
    let marks: Vec<_> = out.marks().into_iter().map(|mark| mark.1).collect();
    assert_eq!(marks, ["mkfs", "after_a", "end", "dm-log-writes-end"]);
    // Entries by flags, counted from the file itself.
    let (fua, meta) = (OpFlags::FUA, OpFlags::META);
    let all = OpFlags::PREFLUSH | fua | meta;
    // Four of the flushes carry the flags of the FUA write that device-mapper split them from.
    assert_eq!(report.ops.issues, [0, 85 + 39 + 8 + 1, 12 + 4, 7, 0, 0]);
    assert_eq!(out.count(BlockOp::Write, all, meta), 39);
    assert_eq!(out.count(BlockOp::Write, all, fua), 1);
    assert_eq!(out.count(BlockOp::Write, all, fua | meta), 8);
    assert_eq!(out.count(BlockOp::Flush, all, meta), 4);
    assert_eq!(out.count(BlockOp::Flush, all, OpFlags::empty()), 12);
}

#[test]
fn the_real_preallocated_qemu_log() {
    let Some(log) = sample("traces/qemu-blklogwrites/qemu72-blklogwrites.log") else { return };
    let (report, _) = import_bytes(&log).unwrap();
    assert_eq!(report.ops.issues, [0, 6, 3, 1, 0, 0]);
    assert!(report.summary.losses.is_empty() && report.cut.is_none());
}

#[test]
fn an_entry_longer_than_any_payload_cuts_the_log_there() {
    let data = [1; 512];
    for sectors in [(PAYLOAD_BYTES_MAX / 512) + 1, 1 << 50, u64::MAX, PAYLOAD_BYTES_MAX / 512] {
        let log = Log::new(512).entry(0, 1, 0, &data).entry(8, sectors, 0, &data).finish();
        let (report, out) = import_bytes(&log).unwrap();
        assert_eq!(out.issues_brief(), [(0, BlockOp::Write, 0, 512)], "{sectors}");
        let cut = report.cut.clone().unwrap();
        assert!(cut.ends_with("(test-input offset 1536)"), "{cut}");
        let lost = losses(&report).contains(&("entry with an impossible length", 1));
        assert_eq!(lost, sectors > PAYLOAD_BYTES_MAX / 512);
    }
}
