use super::*;
use crate::base::BlockOp;
use crate::oracle::finding::{EventRef, Fault, Finding, FindingKind, Hex};
use crate::oracle::verdict::{Unverifiable, Verify};

/// A report as version 1 of the schema wrote it: it must be read for ever.
const STORED_V1: &str = include_str!("report-v1.json");

fn sample() -> Report {
    let mut stats = RunStats::new();
    for n in 0..1000u64 {
        stats.completed(BlockOp::Write, 4096, (n / 25 + 1) * 25_000, true);
        stats.recorded(BlockOp::Write, (n / 25 + 1) * 75_000);
    }
    stats.completed(BlockOp::Read, 512, 77_000, true);
    stats.completed(BlockOp::Flush, 0, 2_000_000, false);
    stats.late(1234);
    stats.held = 3;
    stats.skipped("other device", 2);
    let mut report = Report::new("block-trace-virtio", TimeGrade::RealTime);
    report.complete = true;
    report.machine.kind = "builtin".into();
    report.machine.board = "pc".into();
    report.machine.device = "virtio-blk-pci".into();
    report.machine.transport = "modern".into();
    report.machine.features = vec!["VIRTIO_F_VERSION_1".into(), "VIRTIO_BLK_F_FLUSH".into()];
    report.options.insert("iodepth".into(), "8".into());
    report.settings.insert("iodepth".into(), "8".into());
    report.settings.insert("verify".into(), "full".into());
    report.seed = 42;
    report.trace.path = "t.qtrace".into();
    report.trace.format = "dm-log-writes".into();
    report.trace.events = 2004;
    report.target.path = "d.qcow2".into();
    report.target.format = "qcow2".into();
    report.target.size = 16 << 20;
    report.target.created = true;
    report.duration_ns = 500_000_000;
    report.set_stats(&stats);
    report.timing.status = TimingStatus::Invalid;
    report.timing.why = "p99 lateness 2.00 ms passes lag_budget=1.00 ms".into();
    report.run_log_sha256 = Some("ab".repeat(32));
    report.image_sha256 = Some("cd".repeat(32));
    report.verdict = Verdict::new(Verify::Full);
    report.verdict.reads_checked = 1;
    report.verdict.read_bytes_checked = 512;
    report.verdict.image_bytes_checked = Some(16 << 20);
    report.verdict.unverifiable_image_bytes.insert(Unverifiable::Discarded, 4096);
    let mut finding = Finding::new(FindingKind::ImageMismatch, "one byte is wrong");
    finding.fault = Some(Fault::FlippedBytes);
    finding.alternatives = vec![Fault::TornWrite];
    finding.event = Some(17);
    (finding.offset, finding.sector, finding.shown_from) = (Some(8209), Some(16), 8192);
    finding.bytes = 512;
    finding.flipped = vec![8209];
    finding.expected = Hex((0..64).collect());
    finding.got = Hex((0..64).map(|n| if n == 17 { 0xff } else { n }).collect());
    finding.last_writer = Some(EventRef {
        event: 17,
        pass: 0,
        op: BlockOp::Write,
        offset: 8192,
        len: 4096,
        time_ns: 1_500_000,
    });
    report.verdict.add(finding);
    report.notes.push("a note".into());
    report.wall = WallReport { started_unix: 1, host: "h".into(), elapsed_ns: 9 };
    report
}

#[test]
fn a_report_survives_json() {
    let report = sample();
    let text = json::to_string(&report).unwrap();
    let back = json::from_slice(text.as_bytes()).unwrap();
    assert_eq!(back, report);
    assert_eq!(json::to_string(&back).unwrap(), text);
}

#[test]
fn version_1_is_read_for_ever() {
    let report = json::from_slice(STORED_V1.as_bytes()).unwrap();
    assert_eq!(report.schema, "qtrace.report/1");
    assert_eq!((report.requests(), report.errors(), report.seed), (1002, 1, 42));
    let write = report.ops.iter().find(|op| op.op == BlockOp::Write).unwrap();
    assert_eq!(write.latency.quantile(0.5), 500_223);
    assert_eq!(write.recorded_latency.as_ref().unwrap().max(), 3_000_000);
    assert_eq!(report.verdict.findings[0].name(), "flipped_bytes");
    assert_eq!(report.verdict.findings[0].got.0[17], 0xff);
    assert_eq!(report.verdict.unverifiable_image_bytes[&Unverifiable::Discarded], 4096);
    let expected = Report { qtrace: report.qtrace.clone(), ..sample() };
    assert_eq!(report, expected);
}

#[test]
fn wall_clock_fields_stand_under_one_key() {
    let mut other = sample();
    other.wall = WallReport { started_unix: 99, host: "elsewhere".into(), elapsed_ns: 1 };
    let strip = |report: &Report| {
        let mut value = serde_json::to_value(report).unwrap();
        value.as_object_mut().unwrap().remove("wall").unwrap();
        value.to_string()
    };
    assert_eq!(strip(&sample()), strip(&other));
}

#[test]
fn other_json_and_newer_schemas_are_refused_with_the_reason() {
    for (text, says) in [
        ("{}", "not a report"),
        ("{\"schema\":\"qtrace.report/9\",\"qtrace\":\"3.0\"}", "qtrace.report/9"),
        ("[1]", "not a report"),
        ("{\"schema\":\"qtrace.report/1\"}", "damaged"),
    ] {
        let error = json::from_slice(text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(error.kind().exit_code(), 3);
    }
    let newer = "{\"schema\":\"qtrace.report/9\",\"qtrace\":\"3.0\"}";
    let error = json::from_slice(newer.as_bytes()).unwrap_err();
    assert!(error.hint_text().unwrap().contains("qtrace 3.0"));
}

#[test]
fn any_cut_or_flipped_byte_of_a_report_is_an_error_or_a_report() {
    let bytes = STORED_V1.as_bytes();
    for len in 0..bytes.len().min(1500) {
        assert!(json::from_slice(&bytes[..len]).is_err());
    }
    for at in (0..bytes.len()).step_by(7) {
        let mut bad = bytes.to_vec();
        bad[at] ^= 0x11;
        // What matters is that it returns.
        let _ = json::from_slice(&bad);
    }
}

#[test]
fn the_text_has_the_grade_beside_every_duration_and_the_finding_in_full() {
    let text = text::render(&sample());
    let lines: Vec<&str> = text.lines().collect();
    for part in [
        "1002 requests in 500.00 ms (real time)",
        "latency (real time)",
        "lateness (real time)",
        "  recorded",
        "timing       INVALID: p99 lateness",
        "requests     3 held back",
        "left out     2 other device",
        "not checked  4.0 KiB of the target: discarded, so unspecified",
        "finding 1: flipped_bytes (image_mismatch)",
        "last written by event 17 (write of 4096 bytes at offset 8192), 1.50 ms into the recording",
        "would look the same: torn_write",
        "  - 0x0000002010  10 11 12",
        "  + 0x0000002010  10 ff 12",
        "verdict      FAIL: 1 finding",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    let write = lines.iter().find(|l| l.starts_with("write") && l.contains("MiB/s")).unwrap();
    assert!(write.contains("2000") && write.contains("7.8 MiB/s"), "{write}");
    assert!(lines.iter().all(|l| l.trim_end() == *l), "no trailing blanks");
}

#[test]
fn the_first_findings_are_told_in_full_the_rest_in_lines_and_then_counted() {
    let mut report = sample();
    for n in 0..200 {
        report.verdict.add(Finding::new(FindingKind::StatusError, format!("number {n}")));
    }
    let text = text::render(&report);
    assert_eq!(text.matches("\nfinding ").count(), 20);
    assert!(text.contains("finding 4: status_error: number 2"));
    assert!(text.contains("and 181 more findings"), "{text}");
    assert!(text.contains("FAIL: 201 findings"));
}

#[test]
fn an_incomplete_run_is_never_called_a_pass() {
    let mut report = sample();
    report.verdict = Verdict::new(Verify::Reads);
    assert!(text::render(&report).contains("verdict      PASS"));
    report.complete = false;
    report.interrupted = true;
    let text = text::render(&report);
    assert!(text.contains("interrupted") && !text.contains("PASS"), "{text}");
}

#[test]
fn tables_align() {
    let row = |cells: &[&str]| cells.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
    let rows = [row(&["op", "n"]), row(&["write-zeroes", "1"]), row(&["x", "12345"])];
    assert_eq!(
        lines::table(&rows),
        "op                n\nwrite-zeroes      1\nx             12345\n"
    );
}
