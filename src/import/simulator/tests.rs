//! The simulators' traces.

use super::*;
use crate::base::ErrorKind;
use crate::import::testing::{import_bytes, import_with, losses, sample};

fn as_format(name: &str) -> ImportOptions {
    ImportOptions { from: Some(name.into()), ..ImportOptions::default() }
}

#[test]
fn the_same_digits_mean_what_the_preset_says() {
    let five = "1 3 8 16 1\n2 3 0 8 0\n";
    for (name, times, offset, len, first) in [
        ("disksim", 1_000_000, 4096, 8192, BlockOp::Read),
        ("mqsim", 1, 4096, 8192, BlockOp::Read),
        ("huaicheng", 1_000_000, 8, 16, BlockOp::Read),
    ] {
        let (report, out) = import_with(five.as_bytes(), &as_format(name)).unwrap();
        let issue = out.issues()[0];
        assert_eq!((issue.op, issue.offset, issue.len), (first, offset, len), "{name}");
        assert_eq!(out.issues()[1].time.0, times, "{name}");
        assert_eq!(out.streams[0].device, "3");
        assert!(report.interpretation[0].contains(name));
    }
    let (report, out) = import_with(b"1 8 16 1\n2 0 8 0\n", &as_format("smreplay")).unwrap();
    assert_eq!(out.issues_brief()[0].1, BlockOp::Write);
    assert!(report.interpretation.iter().any(|line| line == "type: 0 read, 1 write"));
}

#[test]
fn content_tells_what_it_can_and_no_more() {
    let bytes = |n: u64| format!("{n} 0 {} 4096 {}\n", n * 8192, n % 2);
    let many: String = (0..20).map(bytes).collect();
    for (text, format) in [
        ("13.19\t30\t0\t5\t1\n17.8 20 576560 6 0\n", "disksim"),
        ("11413000 0 657728 16 1\n11565000 1 31244783 7 0\n", "mqsim"),
        ("100 8 7 0\n", "smreplay"),
        (&many, "huaicheng"),
    ] {
        assert_eq!(import_bytes(text.as_bytes()).unwrap().0.format, format, "{text}");
    }
    let error = import_bytes(bytes(3).as_bytes()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
    assert_eq!(error.to_string(), "test-input: could be any of mqsim, huaicheng");
}

#[test]
fn flags_are_hexadecimal_and_bit_0_counts() {
    let text = "0.5 0 8 8 3\n1.5 0 8 8 1e\n2.5 0 8 8 0x1\n3.5 0 8 8 zz\n";
    let (report, out) = import_bytes(text.as_bytes()).unwrap();
    let ops: Vec<_> = out.issues().iter().map(|issue| issue.op).collect();
    assert_eq!(ops, [BlockOp::Read, BlockOp::Write, BlockOp::Read]);
    assert_eq!(losses(&report), [("flags are no hexadecimal number", 1, "line 4")]);
}

#[test]
fn other_units_are_told() {
    let options = ImportOptions {
        unit_bytes: Some(4096),
        time_unit: Some(TimeUnit::Us),
        ..as_format("mqsim")
    };
    let (report, out) = import_with(b"5 0 1 2 1\n9 0 1 2 7\n9 0 1 2 0\n", &options).unwrap();
    assert_eq!(out.issues_brief()[0], (0, BlockOp::Read, 4096, 8192));
    assert_eq!(out.issues_brief()[1].0, 4000);
    assert_eq!(losses(&report), [("type is neither 0 nor 1", 1, "line 2")]);
    assert!(report.interpretation.iter().any(|line| line.ends_with("4096 bytes, as told")));
}

#[test]
fn the_real_samples() {
    if let Some(data) = sample("traces/disksim/ascii.head2000.trace") {
        let (report, out) = import_bytes(&data).unwrap();
        assert_eq!(report.format, "disksim");
        assert_eq!(out.issues().len(), 2000);
        assert_eq!(report.ops.issues_of(BlockOp::Read), 1615);
        assert!(report.summary.losses.is_empty());
    }
    if let Some(data) = sample("traces/mqsim/wsrch-small.head.trace") {
        let (report, out) = import_bytes(&data).unwrap();
        assert_eq!(report.format, "mqsim");
        assert_eq!((out.issues().len(), out.streams.len()), (2000, 5));
        assert!(report.summary.losses.is_empty());
    }
}
