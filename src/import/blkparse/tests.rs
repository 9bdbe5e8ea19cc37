//! Whole texts: the sample against its binary, and what blkparse's options change.

use super::*;
use crate::base::{BlockOp, ErrorKind, OpFlags};
use crate::import::ImportReport;
use crate::import::testing::{Memory, import_bytes, import_with, losses, plain_sample};

fn import(text: &str) -> (ImportReport, Memory) {
    import_bytes(text.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn at(stage: Stage) -> ImportOptions {
    ImportOptions { stage: Some(stage), ..ImportOptions::default() }
}

#[test]
fn the_sample_is_the_trace_of_its_binary() {
    let text = plain_sample("traces/blkparse-text/vdc.blkparse.txt.gz");
    let binary = plain_sample("traces/blktrace-binary-percpu-virtio/vdc.bin");
    let (Some(text), Some(binary)) = (text, binary) else { return };
    for stage in [Stage::Queue, Stage::Dispatch] {
        let (report, out) = import_with(&text, &at(stage)).unwrap();
        let (of_binary, want) = import_with(&binary, &at(stage)).unwrap();
        assert_eq!(report.format, "blkparse");
        assert!(report.summary.losses.is_empty(), "{:?}", report.summary.losses);
        assert_eq!(report.summary.notes, of_binary.summary.notes);
        assert_eq!(report.summary.not_recorded, of_binary.summary.not_recorded);
        assert_eq!(report.ops, of_binary.ops);
        assert_eq!(out.streams, want.streams);
        assert!(out.events == want.events, "stage {stage:?}");
    }
    let (report, out) = import_bytes(&text).unwrap();
    let barrier = OpFlags::PREFLUSH | OpFlags::FUA;
    assert_eq!(report.ops.issues_of(BlockOp::Read), 134);
    assert_eq!(out.count(BlockOp::Write, barrier, OpFlags::empty()), 769);
    assert_eq!(out.count(BlockOp::Write, barrier, barrier), 51);
    assert_eq!(report.ops.completes, 1005);
}

/// The statistics that blkparse prints behind the records count the same.
#[test]
fn the_sample_agrees_with_its_own_statistics() {
    let Some(text) = plain_sample("traces/blkparse-text/vdc.blkparse.txt.gz") else { return };
    let stated = String::from_utf8(text.clone()).unwrap();
    let total = &stated[stated.find("Total (vdc):").unwrap()..];
    let count = |name: &str| {
        let behind = &total[total.find(name).unwrap() + name.len()..];
        behind.trim_start().split(',').next().unwrap().parse::<u64>().unwrap()
    };
    let (report, _) = import_bytes(&text).unwrap();
    let of = |op| report.ops.issues_of(op);
    assert_eq!(of(BlockOp::Read), count("Reads Queued:"));
    // All that is no read: writes, discards and flushes.
    let writes = of(BlockOp::Write) + of(BlockOp::Discard) + of(BlockOp::Flush);
    assert_eq!(writes, count("Writes Queued:"));
}

#[test]
fn requests_of_several_devices_with_all_their_flags() {
    let text = "\
        \x20 8,0    0        1     0.000000000   143  Q FWFSM 2048 + 8 [jbd2/sda-8]\n\
        \x20 8,16   1        1     0.000001000   143  Q  DS 0 + 2048 [fstrim]\n\
        259,3    1        2     0.000002000   143  Q WZS 8 + 8 [mkfs]\n\
        \x20 8,0    0        2     0.000003000   143  Q FWS [sync]\n\
        \x20 8,0    0        3     0.000004000     0  C WFSM 2048 + 8 [65531]\n\
        \x20 8,16   0        4     0.000005000     0  C  DS 0 + 2048 [0]\n\
        259,3    0        5     0.000006000     0  C WZS 8 + 8 (    4000) [0]\n\
        \x20 8,0    0        6     0.000007000     0  C  WS 0 [0]\n";
    let (report, out) = import(text);
    let names: Vec<_> = out.streams.iter().map(|s| s.device.as_str()).collect();
    assert_eq!(names, ["8,0", "8,16", "259,3"]);
    assert_eq!(
        out.issues_brief(),
        [
            (0, BlockOp::Write, 1 << 20, 4096),
            (1000, BlockOp::Discard, 0, 1 << 20),
            (2000, BlockOp::WriteZeroes, 4096, 4096),
            (3000, BlockOp::Flush, 0, 0),
        ]
    );
    assert_eq!(out.completes(), [(0, 4000, 5), (1, 5000, 0), (2, 6000, 0), (3, 7000, 0)]);
    assert!(!report.summary.not_recorded.contains(NotRecorded::WRITE_ZEROES));
    assert!(report.summary.losses.is_empty());
}

#[test]
fn what_is_no_record_and_what_is_missing() {
    let text = "Input file sda.blktrace.0 added\n\
        8,0 0 1 0.000000000 1 Q R 8 + 8 [x]\n\
        8,0 0 5 0.000001000 1 D R 8 + 8 [x]\n\
        8,0 0 6 0.000002000 1 D R 36 (12 00 ..) [udevd]\n\
        8,0 0 0 0.000002500 0 m N a message\n\
        8,0 0 7 0.000003000 0 C R 16 + 8 [0]\n\
        8,0 0 8 0.000003000 0 C R 16 + 8\n\
        hello\n\
        fio (1234, 1235)\n Reads Queued: 1, 4KiB\n\
        ^CCPU0 (sda):\n whatever\n\nTotal (sda):\nSkips: 2 forward (17 - 0.1%)\n";
    let (report, out) = import(text);
    assert_eq!(out.marks(), [(2500, "a message".to_owned())]);
    assert_eq!(
        losses(&report),
        [
            ("completion without [ERROR]", 1, "line 7"),
            ("line that is no record", 1, "line 8"),
            ("records missing from the capture (blkparse skipped them)", 2, "line 15"),
            ("packet command of a driver or user", 1, "line 4"),
            ("completion of a request whose issue is not in the capture", 1, "line 6"),
        ]
    );
    assert!(report.summary.notes.iter().any(|note| note.contains("sequence numbers: 3 records")));
}

#[test]
fn gaps_of_any_size_are_noted() {
    let line = |sequence: u64| format!("8,0 0 {sequence} 0.1 1 Q R 8 + 8 [x]\n");
    let text = [line(0), line(u64::MAX), line(0), line(u64::MAX)].concat();
    let (report, out) = import(&text);
    assert_eq!(out.issues().len(), 4);
    assert!(report.summary.notes.iter().any(|note| note.contains(&u64::MAX.to_string())));
}

#[test]
fn a_text_of_dispatches_alone_is_read_at_stage_d() {
    let text = "8,0 0 1 0.000000000 1 D R 8 + 8 [x]\n8,0 0 2 0.000001000 0 C R 8 + 8 [0]\n";
    let (report, out) = import(text);
    assert_eq!(out.completes(), [(0, 1000, 0)]);
    assert!(report.interpretation[0].starts_with("stage: D"));
    let error = import_with(text.as_bytes(), &at(Stage::Queue)).unwrap_err();
    assert_eq!((error.kind(), error.hint_text()), (ErrorKind::Nothing, Some("--stage D finds 1")));
    let options = ImportOptions { device: Some("8,1".into()), ..ImportOptions::default() };
    let error = import_with(text.as_bytes(), &options).unwrap_err();
    assert!(error.to_string().contains("devices: 8,0"), "{error}");
}

#[test]
fn completions_alone_are_no_requests() {
    let text = "  8,0    1        1     0.000000000     0  C   W 8 + 8 [0]\n\
                \x20 8,0    1        2     0.000000100     0  C   R 16 + 8 [0]\n";
    let error = import_bytes(text.as_bytes()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Nothing);
    assert!(error.to_string().ends_with("only completions (C), 2 of them"), "{error}");
}

#[test]
fn a_flush_of_a_partition_is_answered_where_it_was_moved_to() {
    let text = "259,0   11       19     5.027073014  1889  A FWFS 2048 + 0 <- (253,3) 0\n\
                259,0   11       20     5.027074128  1889  Q FWFS [jbd2/dm-4-8]\n\
                259,0   11       22     5.027084885   612  D  FN [kworker/11:1H]\n\
                259,0   11       23     5.027852186     0  C  FN 0 [0]\n\
                259,0   11       24     5.027859859     0  C WFS 2048 [0]\n\
                259,0   11       25     5.027900000  1889  A FWFS 4096 + 8 <- (253,3) 2048\n\
                259,0   11       26     5.027900128  1889  Q FWFS 4096 + 8 [jbd2/dm-4-8]\n\
                259,0   11       27     5.028000000  1889  Q FWS [sync]\n\
                259,0   11       28     5.028100000     0  C  WS 0 [0]\n";
    let (report, out) = import(text);
    let ops: Vec<_> = out.issues().iter().map(|issue| (issue.op, issue.offset)).collect();
    assert_eq!(ops, [(BlockOp::Flush, 0), (BlockOp::Write, 2_097_152), (BlockOp::Flush, 0)]);
    assert_eq!(out.completes().iter().map(|done| done.0).collect::<Vec<_>>(), [0, 2]);
    assert!(losses(&report).is_empty());
}
