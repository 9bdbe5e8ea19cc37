//! A recording from its taps to the file.

use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::base::{BlockOp, BusAccess, BusSpace, ErrorKind, Nanos, OpFlags};
use crate::trace::{BusEvent, Event, NotRecorded, PayloadRef, StreamId, Trace, is_being_written};

fn header() -> TraceHeader {
    TraceHeader { source_format: "test".into(), ..TraceHeader::default() }
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.qtrace");
    (dir, path)
}

fn write(offset: u64, len: u64) -> BlockIssue {
    BlockIssue { op: BlockOp::Write, flags: OpFlags::FUA, offset, len, cpu: None }
}

fn bytes(fill: u8, len: usize) -> Option<Bytes> {
    Some(Arc::new(vec![fill; len]))
}

fn events(trace: &Trace) -> Vec<Event> {
    let mut cursor = trace.cursor(0);
    let mut events = Vec::new();
    while let Some((_, event)) = cursor.next().unwrap() {
        events.push(event);
    }
    events
}

#[test]
fn what_is_said_is_in_the_file_in_its_order() {
    let (_dir, path) = folder();
    let recording = Recording::start(&path, header(), &Options::default()).unwrap();
    let disk = recording.stream(StreamInfo { device: "vda".into(), ..StreamInfo::default() });
    let bus = recording.stream(StreamInfo { device: "bus".into(), ..StreamInfo::default() });
    let first = disk.issue(write(0, 4096), bytes(1, 4096)).unwrap();
    let second = disk.issue(write(4096, 4096), bytes(1, 4096)).unwrap();
    disk.complete(second, 0, None);
    disk.mark("half");
    let access = BusAccess { space: BusSpace::Pio, write: true, addr: 0x70, size: 1, value: 7 };
    let event = BusEvent { time: Nanos(5), stream: StreamId(9), access, cpu: None };
    bus.event(Event::Bus(event), None, true).unwrap();
    disk.complete(first, 5, None);
    recording.note("a note");
    let progress = recording.finish().unwrap();
    assert_eq!((progress.requests, progress.events, progress.bytes), (2, 6, 8192));

    let trace = Trace::open(&path).unwrap();
    assert_eq!(trace.truncation(), None);
    assert_eq!(trace.file_bytes(), progress.file_bytes);
    assert_eq!(trace.summary().notes, ["a note"]);
    assert!(trace.header().origin_unix_ns.is_some());
    let events = events(&trace);
    let [Event::Issue(a), Event::Issue(b), Event::Complete(c), Event::Mark(m), ..] = events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!((a.offset, b.offset, c.tag, m.text_len), (0, 4096, b.tag, 4));
    assert_eq!((a.payload, a.flags), (b.payload, OpFlags::FUA));
    assert!(a.time <= b.time && b.time <= c.time && c.time <= m.time);
    assert_eq!(events[4], Event::Bus(BusEvent { stream: StreamId(1), ..event }));
    assert!(matches!(events[5], Event::Complete(c) if (c.tag, c.status) == (a.tag, 5)));
    let mut data = [0; 4096];
    trace.read_payload(a.payload, 4096, 0, &mut data).unwrap();
    assert_eq!(data, [1; 4096]);
}

#[test]
fn a_live_file_opens_and_says_that_it_is_not_whole() {
    let (_dir, path) = folder();
    let recording = Recording::start(&path, header(), &Options::default()).unwrap();
    let trace = Trace::open(&path).unwrap();
    assert_eq!((trace.events(), trace.truncation().is_some()), (0, true));
    let tap = recording.stream(StreamInfo::default());
    let tag = tap.issue(write(0, 512), bytes(1, 512)).unwrap();
    tap.complete(tag, 0, None);
    // It comes by itself; how soon is the machine's affair.
    while Trace::open(&path).unwrap().events() < 2 {
        std::thread::yield_now();
    }
    let Event::Issue(issue) = Trace::open(&path).unwrap().event(0).unwrap() else { panic!() };
    assert_ne!(issue.payload, PayloadRef::Absent);
    assert!(is_being_written(&path));
    recording.finish().unwrap();
    assert!(!is_being_written(&path));
    assert_eq!(Trace::open(&path).unwrap().truncation(), None);
}

#[test]
fn an_existing_file_is_replaced_only_when_told_to() {
    let (_dir, path) = folder();
    std::fs::write(&path, b"mine").unwrap();
    let error = Recording::start(&path, header(), &Options::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    let options = replacing();
    // Nor what is no trace.
    let error = Recording::start(&path, header(), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    std::fs::write(&path, b"").unwrap();
    let recording = Recording::start(&path, header(), &options).unwrap();
    assert_eq!(Trace::open(&path).unwrap().events(), 0);
    recording.finish().unwrap();
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    assert!(Trace::open(&path).unwrap().truncation().is_none());
}

fn replacing() -> Options {
    let live = LiveOptions { replace: true, ..LiveOptions::default() };
    Options { live, ..Options::default() }
}

#[test]
fn what_was_replaced_comes_back_when_nothing_was_recorded() {
    let (dir, path) = folder();
    Recording::start(&path, header(), &Options::default()).unwrap().finish().unwrap();
    let old = std::fs::read(&path).unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for name in [&path, &link] {
        let recording = Recording::start(name, header(), &replacing()).unwrap();
        assert!(Trace::open(name).unwrap().truncation().is_some());
        recording.discard().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), old);
    }
    let recording = Recording::start(&path, header(), &replacing()).unwrap();
    recording.settle();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    recording.discard().unwrap();
    assert!(!path.exists());
}

#[test]
fn a_trace_that_is_gone_is_not_called_whole() {
    let (_dir, path) = folder();
    let recording = Recording::start(&path, header(), &Options::default()).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(recording.finish().unwrap_err().kind(), ErrorKind::Incomplete);
    // Another recorder took the name: its trace is let be.
    let endings: [fn(Recording) -> Result<()>; 2] =
        [|first| first.finish().map(drop), Recording::discard];
    for ends in endings {
        let first = Recording::start(&path, header(), &replacing()).unwrap();
        let second = Recording::start(&path, header(), &replacing()).unwrap();
        second.settle();
        let _ = ends(first);
        second.finish().unwrap();
        assert!(Trace::open(&path).unwrap().truncation().is_none());
    }
}

#[test]
fn a_trace_is_as_private_as_it_is_asked_to_be() {
    use std::os::unix::fs::PermissionsExt;
    let (_dir, path) = folder();
    let live = LiveOptions { replace: false, mode: 0o600 };
    let options = Options { live, ..Options::default() };
    Recording::start(&path, header(), &options).unwrap().finish().unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_full_queue_holds_up_who_speaks_and_loses_nothing() {
    let (_dir, path) = folder();
    let options = Options { queue_bytes: 10_000, ..Options::default() };
    let recording = Recording::start(&path, header(), &options).unwrap();
    let tap = recording.stream(StreamInfo::default());
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let tap = tap.clone();
            scope.spawn(move || {
                for n in 0..500u64 {
                    let data = bytes((n % 250) as u8 ^ thread, 4096);
                    let tag = tap.issue(write(n * 4096, 4096), data).unwrap();
                    tap.complete(tag, 0, None);
                }
            });
        }
    });
    let progress = recording.finish().unwrap();
    assert_eq!((progress.requests, progress.dropped), (2000, 0));
    let trace = Trace::open(&path).unwrap();
    let events = events(&trace);
    assert_eq!(events.len(), 4000);
    assert!(events.is_sorted_by_key(Event::time));
}

#[test]
fn what_is_left_out_is_counted() {
    const REQUESTS: u64 = 2000;
    let (_dir, path) = folder();
    let options =
        Options { on_overflow: OnOverflow::Drop, queue_bytes: 4096, ..Options::default() };
    let recording = Recording::start(&path, header(), &options).unwrap();
    let tap = recording.stream(StreamInfo::default());
    let mut recorded = 0;
    for n in 0..REQUESTS {
        let tag = tap.issue(write(n * 512, 512), bytes(n as u8, 512)).unwrap();
        recorded += u64::from(tag.is_recorded());
        tap.complete(tag, 0, None);
    }
    let progress = recording.finish().unwrap();
    assert_eq!((progress.requests, progress.dropped), (recorded, REQUESTS - recorded));
    let trace = Trace::open(&path).unwrap();
    let lost: u64 = trace.summary().losses.iter().map(|loss| loss.count).sum();
    assert_eq!(lost, progress.dropped);
    let totals = trace.totals()[0];
    assert_eq!((totals.issues.iter().sum::<u64>(), totals.completes), (recorded, recorded));
}

#[test]
fn taps_that_outlive_the_recording_record_nothing() {
    let (_dir, path) = folder();
    let header = TraceHeader { not_recorded: NotRecorded::CPUS, ..header() };
    let recording = Recording::start(&path, header, &Options::default()).unwrap();
    let tap = recording.stream(StreamInfo::default());
    let tag = tap.issue(write(0, 512), bytes(0, 512)).unwrap();
    recording.finish().unwrap();
    tap.complete(tag, 0, None);
    let late = tap.issue(write(0, 512), bytes(0, 512)).unwrap();
    assert!(!late.is_recorded());
    let trace = Trace::open(&path).unwrap();
    assert_eq!((trace.events(), trace.summary().not_recorded), (1, NotRecorded::CPUS));
}
