use super::*;
use crate::base::{BlockOp, ErrorKind, OpFlags};
use crate::import::testing::{import_bytes, import_with, losses, sample};

/// A log: each line gets a time a microsecond after the one before.
fn log(lines: &[&str]) -> Vec<u8> {
    let line = |(n, text): (usize, &&str)| format!("2026-11-22 08:15:12.{:06} {text}\n", n + 1);
    lines.iter().enumerate().map(line).collect::<String>().into_bytes()
}

const CONNECT: &str = "connection=1 Connect export=\"a\" tls=0 size=0x1000000 write=1";

#[test]
fn requests_and_their_answers() {
    let (report, out) = import_bytes(&log(&[
        CONNECT,
        "connection=1 Read id=1 offset=0x10000 count=0x1000 ...",
        "connection=1 Write id=2 offset=0x0 count=0x200 fua=1 ...",
        "connection=1 ...Write id=2 return=-1 error=ENOSPC",
        "connection=1 ...Read id=1 return=0",
        "connection=1 Zero id=3 offset=0x200 count=0x400 trim=1 fua=1 fast=1 ...",
        "connection=1 Trim id=4 offset=0x400 count=0x600 fua=0 ...",
        "connection=1 Flush id=5 ...",
        "connection=1 ...Flush id=5 return=0",
        "connection=1 Disconnect transactions=5",
    ]))
    .unwrap();
    assert_eq!(report.format, "nbdkit-log");
    assert_eq!(
        out.issues_brief(),
        [
            (0, BlockOp::Read, 0x10000, 0x1000),
            (1000, BlockOp::Write, 0, 0x200),
            (4000, BlockOp::WriteZeroes, 0x200, 0x400),
            (5000, BlockOp::Discard, 0x400, 0x600),
            (6000, BlockOp::Flush, 0, 0),
        ]
    );
    let flags: Vec<_> = out.issues().iter().map(|issue| issue.flags).collect();
    let (none, fua) = (OpFlags::empty(), OpFlags::FUA);
    assert_eq!(flags, [none, fua, fua | OpFlags::UNMAP, none, none]);
    assert_eq!(out.completes(), [(1, 2000, 28), (0, 3000, 0), (4, 7000, 0)]);
    assert_eq!(out.header.unwrap().origin_unix_ns, Some(1_795_335_312_000_002_000));
    let stream = &out.streams[0];
    assert_eq!((stream.device.as_str(), stream.queue), ("a", Some(1)));
    assert_eq!(stream.device_bytes, Some(16 << 20));
    assert!(!report.summary.not_recorded.contains(NotRecorded::DEVICE_SIZE));
    assert!(!report.summary.not_recorded.contains(NotRecorded::UNMAP));
    assert!(report.summary.losses.is_empty());
    assert_eq!(
        report.summary.notes,
        [
            "1 zero is a fast one (may fail at once): not kept",
            "2 requests have no answer in the log"
        ]
    );
}

#[test]
fn connections_are_queues_of_an_export_and_ids_are_theirs() {
    let (report, out) = import_bytes(&log(&[
        "connection=1 Connect export=x tls=0 size=0x1000 write=1",
        "connection=2 Connect export=x tls=0 size=0x1000 write=1",
        "connection=3 Connect export=y tls=0 size=0x2000 write=1",
        "connection=1 Read id=1 offset=0x0 count=0x200 ...",
        "connection=2 Read id=1 offset=0x200 count=0x200 ...",
        "connection=3 Read id=1 offset=0x400 count=0x200 ...",
        "connection=2 ...Read id=1 return=0",
        "connection=1 ...Read id=1 return=-1 error=EIO",
        "connection=3 ...Read id=1 return=0",
    ]))
    .unwrap();
    assert!(report.summary.losses.is_empty() && report.summary.notes.is_empty());
    let streams: Vec<_> = out.streams.iter().map(|s| (s.device.as_str(), s.queue)).collect();
    assert_eq!(streams, [("x", Some(1)), ("x", Some(2)), ("y", Some(3))]);
    assert_eq!(out.completes(), [(1, 3000, 0), (0, 4000, 5), (2, 5000, 0)]);
    let options = ImportOptions { device: Some("x".into()), ..ImportOptions::default() };
    let text = log(&[
        "connection=1 Connect export=x tls=0 size=0x1000 write=1",
        "connection=2 Connect export=y tls=0 size=0x1000 write=1",
        "connection=1 Read id=1 offset=0x0 count=0x200 ...",
        "connection=2 Read id=1 offset=0x200 count=0x200 ...",
        "connection=2 ...Read id=1 return=0",
    ]);
    let (report, out) = import_with(&text, &options).unwrap();
    assert_eq!((out.events.len(), out.streams.len()), (1, 1));
    assert_eq!(losses(&report), [("another device than the one asked for", 1, "line 4")]);
}

#[test]
fn runs_that_append_to_one_log_begin_anew() {
    let mut text = b"# my log\n".to_vec();
    text.extend(log(&[
        CONNECT,
        "connection=1 Read id=1 offset=0x0 count=0x200 ...",
        "Ready thread_model=3",
        CONNECT,
        "connection=1 Write id=1 offset=0x0 count=0x200 fua=0 ...",
        "connection=1 ...Write id=1 return=0",
    ]));
    let (report, out) = import_bytes(&text).unwrap();
    assert!(report.summary.losses.is_empty());
    assert_eq!((out.streams.len(), out.completes()), (1, vec![(1, 4000, 0)]));
    assert_eq!(report.summary.notes, ["1 request has no answer in the log"]);
}

#[test]
fn logs_of_older_versions() {
    let (report, out) = import_bytes(&log(&[
        "connection=1 Connect size=0x1000 write=1 flush=1 rotational=0 trim=1 zero=1 fua=1",
        "connection=1 Zero id=1 offset=0x0 count=0x200 trim=1 fua=0 fast=0...",
        "connection=1 ...Zero id=1 return=-1 (Other=>EINVAL)",
        "connection=1 Extents id=2 offset=0x0 count=0x1000 req_one=0 ...",
        "connection=1 ...Extents id=2 extents=[{ offset=0x0, length=0x1000, type=0 }] return=0",
        "connection=1 Cache id=3 offset=0x0 count=0x1000 ...",
        "connection=1 ...Cache id=3 return=0 (Success)",
    ]))
    .unwrap();
    assert_eq!(out.issues_brief(), [(0, BlockOp::WriteZeroes, 0, 512)]);
    assert_eq!(out.completes(), [(0, 1000, 22)]);
    assert_eq!(out.streams[0].device, "");
    assert_eq!(
        losses(&report),
        [
            ("Extents: asks for allocation, not for data", 1, "line 4"),
            ("Cache: a prefetch, no operation of a trace", 1, "line 6"),
        ]
    );
}

/// nbdkit answers with up to a million extents in one line.
#[test]
fn an_answer_of_megabytes_is_no_obstacle() {
    let extents = "0x0 0x1000 \"hole,zero\" ".repeat(200_000);
    let text = log(&[
        CONNECT,
        "connection=1 Extents id=1 offset=0x0 count=0x1000 req_one=0 ...",
        &format!("connection=1 ...Extents id=1 extents=({extents}) return=0"),
        "connection=1 Flush id=2 ...",
        "connection=1 ...Flush id=2 return=0",
    ]);
    let (report, out) = import_bytes(&text).unwrap();
    assert_eq!(out.events.len(), 2);
    assert_eq!(report.summary.losses.len(), 1);
}

#[test]
fn damaged_logs() {
    let (report, out) = import_bytes(&log(&[
        "connection=1 ...Read id=7 return=0",
        "connection=1 Read id=8 offset=0x0 count=0x200 ...",
        "connection=1 Read id=9 offset=0x0 count= ...",
        "connection=1 ...Read id=9 return=0",
        "connection=1 Read offset=0x0 count=0x200 ...",
        "Read id=1 offset=0x0 count=0x200 ...",
        "connection=1 Read id=10 offset=0xffffffffffffffff count=0x200 ...",
        "connection=1 ...Read id=8",
        "connection=1 Frobnicate id=11 ...",
        "what?",
    ]))
    .unwrap();
    assert_eq!(out.issues_brief(), [(0, BlockOp::Read, 0, 512)]);
    assert_eq!(
        losses(&report),
        [
            ("answer to a request that the log does not hold", 1, "line 1"),
            ("malformed line", 2, "line 3"),
            ("request without an id", 1, "line 5"),
            ("line without a connection", 1, "line 6"),
            ("range past the largest disk there can be (1 EiB)", 1, "line 7"),
            ("answer without return=", 1, "line 8"),
            ("unknown action", 1, "line 9"),
        ]
    );
    assert!(report.summary.not_recorded.contains(NotRecorded::COMPLETIONS));
    assert!(report.summary.not_recorded.contains(NotRecorded::DEVICE_SIZE));
    let error = import_bytes(&log(&[CONNECT, "connection=1 Disconnect transactions=0"]));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Nothing);
}

#[test]
fn the_sample_of_a_real_client() {
    let Some(data) = sample("traces/nbdkit-log/nbdkit-1.32-log-filter.txt") else { return };
    let text = String::from_utf8(data.clone()).unwrap();
    let count = |word: &str| text.lines().filter(|line| line.contains(word)).count() as u64;
    let (report, out) = import_bytes(&data).unwrap();
    for (op, word) in [
        (BlockOp::Read, "connection=1 Read "),
        (BlockOp::Write, "connection=1 Write "),
        (BlockOp::Flush, "connection=1 Flush "),
        (BlockOp::Discard, "connection=1 Trim "),
        (BlockOp::WriteZeroes, "connection=1 Zero "),
    ] {
        assert_eq!(report.ops.issues_of(op), count(word), "{word}");
    }
    assert_eq!((report.ops.requests(), report.ops.completes), (9, 9));
    assert_eq!(out.count(BlockOp::Write, OpFlags::FUA, OpFlags::FUA), 1);
    assert!(report.summary.losses.is_empty() && report.summary.notes.is_empty());
}
