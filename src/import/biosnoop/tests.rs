//! Whole texts: the samples, and what options and tools change.

use super::*;
use crate::base::{BlockOp, ErrorKind};
use crate::import::ImportReport;
use crate::import::testing::{Memory, import_bytes, import_with, losses, sample};

fn import(text: &str) -> (ImportReport, Memory) {
    import_bytes(text.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn at(stage: Stage) -> ImportOptions {
    ImportOptions { stage: Some(stage), ..ImportOptions::default() }
}

#[test]
fn the_sample_of_bcc_has_two_tables_in_its_prose() {
    let Some(text) = sample("traces/bcc-biosnoop/biosnoop_example.txt") else { return };
    let (report, out) = import_bytes(&text).unwrap();
    assert_eq!(report.format, "biosnoop");
    assert_eq!(report.ops.issues_of(BlockOp::Write), 15 + 6);
    assert_eq!(report.ops.completes, 21);
    let disks: Vec<_> = out.streams.iter().map(|info| info.device.as_str()).collect();
    assert_eq!(disks, ["xvda1", "xvdc", "xvdb", "nvme1n1"]);
    let reasons: Vec<_> = losses(&report).into_iter().map(|(reason, ..)| reason).collect();
    assert_eq!(reasons, ["line that is no row"], "prose");
    assert!(report.summary.notes.iter().any(|note| note.starts_with("2 tables in one text")));
    let lacks = report.summary.not_recorded;
    assert!(lacks.contains(OF_LETTERS | NotRecorded::ISSUE_ORDER | NotRecorded::WRITE_DATA));
    assert!(!lacks.contains(NotRecorded::COMPLETIONS));
}

#[test]
fn the_sample_of_bpftrace() {
    let Some(text) = sample("traces/bpftrace-biosnoop/custom-bio-bt-output.txt") else { return };
    let (report, out) = import_bytes(&text).unwrap();
    let rows = String::from_utf8(text).unwrap();
    let count = |letters: &str| rows.lines().filter(|line| line.contains(letters)).count() as u64;
    assert_eq!(report.ops.issues_of(BlockOp::Read), count(" 254,32 R  "));
    assert_eq!(report.ops.issues_of(BlockOp::Write), count(" 254,32 WS "));
    assert_eq!(
        report.ops.requests(),
        rows.lines().filter(|l| l.contains("254,32 ")).count() as u64
    );
    assert!(report.summary.losses.is_empty(), "{:?}", report.summary.losses);
    assert_eq!(out.streams[0].device, "254,32");
    assert!(!report.summary.not_recorded.intersects(OF_LETTERS));
}

#[test]
fn the_issue_is_before_the_completion_and_may_be_before_the_zero() {
    let text = "TIME(s)     COMM           PID    DISK    T SECTOR     BYTES  QUE(ms) LAT(ms)\n\
        0.000000    a b            1      sda     W 8          512       0.50    1.00\n\
        0.000100    c              1      sda     R 16         512       0.00    0.01\n";
    let (_, out) = import(text);
    assert_eq!(
        out.issues_brief(),
        [(0, BlockOp::Write, 4096, 512), (1_090_000, BlockOp::Read, 8192, 512)]
    );
    assert_eq!(out.completes(), [(0, 1_000_000, 0), (1, 1_100_000, 0)]);
    let (report, out) = import_with(text.as_bytes(), &at(Stage::Queue)).unwrap();
    assert_eq!(out.completes(), [(0, 1_500_000, 0), (1, 1_600_000, 0)]);
    assert!(report.interpretation[0].starts_with("stage: Q"));
    let without = text.replace("QUE(ms)", "").replace("  0.50 ", "").replace("  0.00 ", "");
    let error = import_with(without.as_bytes(), &at(Stage::Queue)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
}

#[test]
fn letters_of_libbpf_tools_and_what_was_lost() {
    let text = "TIME(s)     COMM           PID     DISK    T    SECTOR     BYTES   LAT(ms)\n\
        0.000000    a              1       sda     FWFS 8          512       0.100\n\
        lost 12 events on CPU #0\n\
        0.010000    a              1       sda     FF   -1         0         0.100\n\
        0.020000    a              1       sda     DS   0          1048576   0.100\n\
        0.030000    a              1       sda     R    -1         36        0.100\n\
        what is this\n";
    let (report, out) = import(text);
    let ops: Vec<_> = out.issues().iter().map(|issue| issue.op).collect();
    assert_eq!(ops, [BlockOp::Write, BlockOp::Flush, BlockOp::Discard]);
    assert!(!report.summary.not_recorded.intersects(OF_LETTERS));
    assert_eq!(
        losses(&report),
        [
            ("events that the tool lost", 12, "line 3"),
            ("packet command of a driver or user", 1, "line 6"),
            ("line that is no row", 1, "line 7"),
        ]
    );
}

#[test]
fn a_heading_again_is_a_run_only_when_times_begin_anew() {
    let heading = "TIME(s) COMM PID DISK T SECTOR BYTES LAT(ms)\n";
    let row = |time: &str| format!("{time} a 1 sda W 8 512 0.00\n");
    let text = [heading, &row("1.0"), heading, &row("2.0"), heading, &row("0.5")].concat();
    let (report, out) = import(&text);
    let times: Vec<_> = out.issues().iter().map(|issue| issue.time.0).collect();
    assert_eq!(times, [0, 1_000_000_000, 1_500_000_000]);
    assert!(report.summary.notes.iter().any(|note| note.starts_with("2 tables")));
}

#[test]
fn times_of_day_pass_midnight() {
    let text = "TIMESTAMP    COMM PID DISK T    SECTOR BYTES LAT(ms)\n\
        23:59:59.999 a 1 sda W 8 512 0.000\n00:00:00.001 a 1 sda W 8 512 0.000\n";
    let (_, out) = import(text);
    let times: Vec<_> = out.issues().iter().map(|issue| issue.time.0).collect();
    assert_eq!(times, [0, 2_000_000]);
}

#[test]
fn a_text_without_heading_and_one_without_places() {
    let (report, out) = import("1.0 a b 1 sda W 8 512 0.10\n2.0 a 1 sda R 8 512 0.10\n");
    assert_eq!((report.format.as_str(), out.issues().len()), ("biosnoop", 2));
    let stock = "Attaching 4 probes...\n\
        TIME(ms)     DISK    COMM             PID    LAT(ms)\n611 sda bash 4179 10\n";
    let error = import_bytes(stock.as_bytes()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
    assert!(error.to_string().contains("neither SECTOR nor BYTES"), "{error}");
}

#[test]
fn rows_of_requests_that_bcc_did_not_see_begin() {
    let text = "TIME(s)     COMM           PID    DISK    T SECTOR     BYTES  QUE(ms) LAT(ms)\n\
        0.000000    ftdc           13     vda     W 8          20480     0.02    0.21\n\
        0.170403    ?              0              R 0          8         0.00    0.53\n\
        0.180403    ?              0      <unknown> W 0          8192      0.00    0.53\n\
        0.190000    a b            7              W 16         512       0.00    0.50\n";
    let (report, out) = import(text);
    let brief: Vec<_> = out.issues_brief().iter().map(|issue| issue.2).collect();
    assert_eq!(brief, [4096, 8192]);
    let disks: Vec<_> = out.streams.iter().map(|info| info.device.as_str()).collect();
    assert_eq!(disks, ["vda", "<unknown>"]);
    let reason = "request that the tool did not see begin (COMM ?): its row has no place";
    assert_eq!(losses(&report), [(reason, 2, "line 3")]);
}
