//! A file of every minor version, kept for ever in `traces/compat`, opens and says what it said.

use super::round_trip::{block_events, bus_events};
use super::*;
use crate::trace::format::{BLAKE3_BYTES_MIN, MINOR, PREAMBLE_BYTES};

/// Bytes of payload 2, whose digest is BLAKE3's.
const LONG: usize = BLAKE3_BYTES_MIN + 1;

fn kept(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("traces/compat").join(format!("{version}.qtrace"))
}

/// What the file of `minor` holds: every event that its writer knew.
fn said(minor: u16) -> Vec<Event> {
    let mut events = block_events();
    if minor >= 1 {
        events.extend(bus_events());
    }
    if minor >= 2 {
        events.push(issue(LONG as u64, PayloadRef::Stored(2)));
    }
    events
}

#[test]
fn a_file_of_every_minor_opens_and_reads_as_it_was_written() {
    for minor in 0..=MINOR {
        let path = kept(&format!("1.{minor}"));
        let trace = Trace::open(&path).unwrap();
        assert_eq!(trace.truncation(), None, "1.{minor}: its end is read as it is");
        assert_eq!(collect(&trace, 0).unwrap(), said(minor), "1.{minor}");
        let mut totals = vec![StreamTotals::default(); trace.streams().len()];
        for event in said(minor) {
            totals[event.stream().0 as usize].add(&event);
        }
        assert_eq!(trace.totals(), totals, "1.{minor}");
        let want = TraceSummary { streams: totals, ..summary() };
        assert_eq!((trace.header(), trace.summary()), (&header(), &want), "1.{minor}");
        let mut text = [0; 5];
        trace.read_payload(PayloadRef::Stored(1), 5, 0, &mut text).unwrap();
        assert_eq!(&text, b"hello");
        if minor >= 2 {
            let mut long = vec![0; LONG];
            trace.read_payload(PayloadRef::Stored(2), LONG as u64, 0, &mut long).unwrap();
            assert!(long == content(2, LONG));
        }
    }
}

#[test]
fn a_block_trace_of_small_requests_is_the_same_file_in_all_minors_but_for_the_version() {
    let place = Place::new();
    let path = place.file("t");
    let mut writer = TraceWriter::create(&path, header()).unwrap();
    for device in ["vda", "vdb"] {
        writer.stream(stream(device)).unwrap();
    }
    writer.payload(b"hello").unwrap();
    for event in block_events() {
        writer.event(&event).unwrap();
    }
    writer.finish(summary()).unwrap();
    let (ours, old) = (std::fs::read(path).unwrap(), std::fs::read(kept("1.0")).unwrap());
    assert!(ours[PREAMBLE_BYTES..] == old[PREAMBLE_BYTES..]);
}
