//! CloudPhysics traces.

use super::*;
use crate::base::ErrorKind;
use crate::import::testing::{import_bytes, import_many, import_with, losses, sample};

/// A record: command, length, block, time, response time of version 2.
fn record(version: Version, command: u8, len: u32, lbn: u64, ts: u64, rt: u64) -> Vec<u8> {
    let kind = [command, 0, 9, version.number() as u8];
    let numbers = [7u32.to_le_bytes(), len.to_le_bytes(), 1u32.to_le_bytes()].concat();
    let tail = [lbn.to_le_bytes(), ts.to_le_bytes()].concat();
    match version {
        Version::V1 => [&numbers[..], &kind, &tail].concat(),
        Version::V2 => [&kind[..], &numbers, &tail, &rt.to_le_bytes()].concat(),
    }
}

#[test]
fn version_1_has_no_completions() {
    let data: Vec<_> =
        [(0x2a, 512, 8), (0x28, 4096, 16), (0x35, 0, 0), (0x42, 24, 0), (0x12, 96, 0)]
            .iter()
            .zip(1000..)
            .flat_map(|((command, len, lbn), ts)| record(Version::V1, *command, *len, *lbn, ts, 0))
            .collect();
    let (report, out) = import_bytes(&data).unwrap();
    assert_eq!(report.format, "vscsi");
    assert_eq!(
        out.issues_brief(),
        [
            (0, BlockOp::Write, 4096, 512),
            (1000, BlockOp::Read, 8192, 4096),
            (2000, BlockOp::Flush, 0, 0),
        ]
    );
    assert!(report.summary.not_recorded.contains(NotRecorded::COMPLETIONS));
    assert!(!report.summary.not_recorded.contains(NotRecorded::FLUSHES));
    assert_eq!(
        losses(&report),
        [
            ("UNMAP: its ranges are in data that was not recorded", 1, "test-input offset 96"),
            ("a SCSI command that neither reads nor writes blocks", 1, "test-input offset 128"),
        ]
    );
}

#[test]
fn version_2_has_response_times() {
    let data = [
        record(Version::V2, 0x8a, 512, 8, 1000, 250),
        record(Version::V2, 0x88, 512, 8, 1001, u64::MAX),
    ];
    let (report, out) = import_bytes(&data.concat()).unwrap();
    assert_eq!(out.issues_brief()[0], (0, BlockOp::Write, 4096, 512));
    assert_eq!(out.completes(), [(0, 250_000, 0)]);
    assert!(report.interpretation.iter().any(|line| line == "records: version 2"));
}

#[test]
fn a_cut_record_and_one_of_another_version_are_told() {
    let mut data: Vec<u8> =
        (0..40).flat_map(|n| record(Version::V1, 0x28, 512, n, 5 + n, 0)).collect();
    data[39 * 32 + 15] = 2;
    data.extend([0; 7]);
    let (report, out) = import_bytes(&data).unwrap();
    assert_eq!(out.issues().len(), 39);
    assert_eq!(report.cut.unwrap(), "input ends inside a record (test-input offset 1280)");
    let reasons: Vec<_> = report.summary.losses.iter().map(|loss| loss.reason.as_str()).collect();
    assert_eq!(reasons, ["record of another version", "input ends inside a record"]);
    let options = ImportOptions { from: Some("vscsi".into()), ..ImportOptions::default() };
    assert_eq!(import_with(&[0; 100], &options).unwrap_err().kind(), ErrorKind::Input);
}

#[test]
fn several_disks_are_streams_of_one_trace() {
    let a = record(Version::V1, 0x28, 512, 1, 20, 0);
    let b = record(Version::V2, 0x2a, 512, 1, 10, 5);
    let inputs = [("w01.vscsi1", &a[..]), ("w02.vscsi2", &b[..])];
    let (_, out) = import_many(&inputs, &ImportOptions::default()).unwrap();
    let names: Vec<_> = out.events.iter().map(|event| out.stream_name(event)).collect();
    assert_eq!(names, ["w02.vscsi2", "w02.vscsi2", "w01.vscsi1"]);
}

#[test]
fn csv_counts_seconds() {
    let text = "version,time,op,size,lbn\n1,5,2a,512,8\n1,7,28,1024,16\n1,7,zz,1,1\n1,8,35,0,0\n";
    let (report, out) = import_bytes(text.as_bytes()).unwrap();
    assert_eq!(report.format, "vscsi-csv");
    assert_eq!(
        out.issues_brief(),
        [
            (0, BlockOp::Write, 4096, 512),
            (2_000_000_000, BlockOp::Read, 8192, 1024),
            (3_000_000_000, BlockOp::Flush, 0, 0),
        ]
    );
    assert_eq!(losses(&report), [("op is no SCSI code", 1, "line 4")]);
}

#[test]
fn csv_in_microseconds_is_told_by_times_past_a_century() {
    let header = "version,time,op,size,lbn\n";
    let text = format!("{header}1,5600000000000,2a,512,8\n1,5600000000250,28,512,9\n");
    let (report, out) = import_bytes(text.as_bytes()).unwrap();
    assert_eq!(
        out.issues_brief(),
        [(0, BlockOp::Write, 4096, 512), (250_000, BlockOp::Read, 4608, 512)]
    );
    assert!(report.summary.notes[0].contains("read in microseconds"), "{:?}", report.summary);
    assert!(report.interpretation.iter().any(|line| line.starts_with("times: microseconds")));
    let ms = ImportOptions { time_unit: Some(TimeUnit::Ms), ..ImportOptions::default() };
    assert_eq!(import_with(text.as_bytes(), &ms).unwrap().1.issues_brief()[1].0, 250_000_000);
}

#[test]
fn the_real_samples() {
    if let Some(data) = sample("traces/cloudphysics-vscsi/cloudPhysicsIO.head10000.vscsi1") {
        let (report, out) = import_bytes(&data).unwrap();
        assert_eq!(report.format, "vscsi");
        assert_eq!(out.issues().len(), 10_000);
        assert_eq!(report.ops.issues_of(BlockOp::Write), 8_576);
        assert_eq!(report.ops.issues_of(BlockOp::Read), 1_424);
        assert!(report.summary.losses.is_empty());
    }
    if let Some(data) = sample("traces/cloudphysics-vscsi/cloudPhysicsIO.head.csv") {
        let rows = data.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count() - 1;
        let (report, out) = import_bytes(&data).unwrap();
        assert_eq!((report.format.as_str(), out.issues().len()), ("vscsi-csv", rows));
        assert!(report.summary.losses.is_empty());
    }
}
