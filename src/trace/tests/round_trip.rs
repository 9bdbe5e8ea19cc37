//! What is written is what is read.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;
use crate::base::ErrorKind;
use crate::base::limits::{FRAME_EVENTS_MAX, PAYLOAD_PIECE_BYTES};

/// Every kind of block event, at the edges of its fields; of streams 0 and 1, with payload 1 of
/// five bytes.
pub(super) fn block_events() -> Vec<Event> {
    let mut events = Vec::new();
    for op in BlockOp::ALL {
        for flags in [OpFlags::empty(), OpFlags::PREFLUSH | OpFlags::FUA, OpFlags::all()] {
            events.push(Event::Issue(Issue {
                time: Nanos(u64::MAX),
                tag: 0x0102_0304_0506_0708,
                stream: StreamId(1),
                op,
                flags,
                offset: 0x1112_1314_1516,
                len: 1 << 60,
                payload: PayloadRef::Stored(1),
                cpu: Some(0xfffe),
            }));
        }
    }
    let (time, stream, payload) = (Nanos(5), StreamId(0), PayloadRef::Stored(1));
    events.push(Event::Complete(Complete { time, tag: u64::MAX, stream, status: 0xffff, payload }));
    events.push(Event::Mark(Mark { time, stream, text: payload, text_len: 5 }));
    events.push(issue(0, PayloadRef::Absent));
    events
}

/// Every kind of bus event, at the edges of its fields; all of stream 0, with payload 1 of five
/// bytes.
pub(super) fn bus_events() -> Vec<Event> {
    let (time, stream) = (Nanos(7), StreamId(0));
    let mut events = Vec::new();
    for (space, addr, size) in [(BusSpace::Pio, 0xffff, 4), (BusSpace::Mmio, u64::MAX, 8)] {
        for (write, value, cpu) in [(true, BusAccess::ones(size), Some(0xfffe)), (false, 0, None)] {
            let access = BusAccess { space, write, addr, size, value };
            events.push(Event::Bus(BusEvent { time, stream, access, cpu }));
        }
    }
    for op in MemoryOp::ALL {
        let fill = if op == MemoryOp::Fill { 0xff } else { 0 };
        let payload = if op == MemoryOp::Fill { PayloadRef::Absent } else { PayloadRef::Stored(1) };
        let addr = u64::MAX - 5;
        events.push(Event::Memory(MemoryEvent { time, stream, op, addr, len: 5, fill, payload }));
    }
    for (line, high) in [(u32::MAX, true), (0, false)] {
        events.push(Event::Irq(IrqChange { time, stream, line, high }));
    }
    for vector in [Some(0xff), Some(0), None] {
        events.push(Event::Ack(AckEvent { time, stream, cpu: 0xffff, vector }));
    }
    events.push(Event::Clock(ClockStep { time, stream, to: Nanos(u64::MAX) }));
    events
}

#[test]
fn every_kind_and_field_comes_back() {
    let place = Place::new();
    let path = place.file("t.qtrace");
    let mut writer = TraceWriter::create(&path, header()).unwrap();
    let infos = [stream("vda"), StreamInfo::default()];
    for (id, info) in infos.iter().enumerate() {
        assert_eq!(writer.stream(info.clone()).unwrap(), StreamId(id as u32));
    }
    assert_eq!(writer.payload(b"hello").unwrap(), PayloadRef::Stored(1));
    let events = [block_events(), bus_events()].concat();
    for event in &events {
        writer.event(event).unwrap();
    }
    assert!(!path.exists(), "visible before it is finished");
    writer.finish(summary()).unwrap();

    let trace = Trace::open(&path).unwrap();
    assert_eq!(trace.truncation(), None);
    assert_eq!(trace.header(), &header());
    assert_eq!(trace.streams(), infos);
    assert_eq!(collect(&trace, 0).unwrap(), events);
    assert_eq!(trace.time_span(), Some((Nanos(0), Nanos(u64::MAX))));
    let want = TraceSummary { streams: trace.totals().to_vec(), ..summary() };
    assert_eq!(trace.summary(), &want);
    assert_eq!(trace.totals()[1].issues, [3; 6]);
    assert_eq!(trace.totals()[1].end_bytes, 0x1112_1314_1516 + (1 << 60));
    assert_eq!((trace.totals()[0].completes, trace.totals()[0].marks), (1, 1));
    let bus = BusTotals {
        ports: [1, 1],
        mmio: [1, 1],
        memory: [1, 1, 1],
        irqs: [1, 1],
        acks: 3,
        steps: 1,
        addr_min: 0xffff,
        addr_max: u64::MAX,
    };
    assert_eq!(trace.totals()[0].bus, bus);
    assert_eq!((bus.reads(), bus.writes(), bus.events()), (2, 2, 13));
    assert_eq!(trace.totals()[1].bus, BusTotals::default());
    let mut text = [0; 5];
    trace.read_payload(PayloadRef::Stored(1), 5, 0, &mut text).unwrap();
    assert_eq!(&text, b"hello");
}

#[test]
fn a_hundred_thousand_events_stream_seek_and_share() {
    let place = Place::new();
    let path = place.file("t.qtrace");
    let count = 100_000;
    let events = write(&path, count).unwrap();
    let trace = Arc::new(Trace::open(&path).unwrap());
    assert_eq!(trace.events(), count);
    assert!(collect(&trace, 0).unwrap() == events);
    let mut prng = Prng::new(7);
    let edge = FRAME_EVENTS_MAX as u64;
    let picks = (0..300).map(|_| prng.next_u64() % count);
    for number in picks.chain([0, edge - 1, edge, edge + 1, count - 1]) {
        let event = events[number as usize];
        assert_eq!(trace.event(number).unwrap(), event);
        assert_eq!(trace.cursor(number).next().unwrap(), Some((number, event)));
        assert_eq!(trace.seek_time(event.time()).unwrap(), number);
        assert_eq!(trace.seek_time(event.time() + 1).unwrap(), number + 1);
    }
    for past in [count, u64::MAX] {
        assert_eq!(trace.cursor(past).next().unwrap(), None);
        assert_eq!(trace.event(past).unwrap_err().kind(), ErrorKind::Input);
    }
    let (copy, last) = (Arc::clone(&trace), count - 1);
    let far = std::thread::spawn(move || Trace::shared_cursor(&copy, last).next().unwrap());
    assert_eq!(far.join().unwrap(), Some((last, events[last as usize])));
}

#[test]
fn equal_payloads_are_stored_once() {
    let place = Place::new();
    let path = place.file("t.qtrace");
    let mut writer = TraceWriter::create(&path, header()).unwrap();
    // Enough bytes for several frames, so that hits in the file and in memory both happen.
    let mut first = Vec::new();
    for seed in 0..200 {
        first.push(writer.payload(&content(seed, 8192)).unwrap());
    }
    for (seed, want) in (0..).zip(&first) {
        assert_eq!(writer.payload(&content(seed, 8192)).unwrap(), *want);
    }
    assert_eq!(first.iter().map(|p| p.to_raw()).collect::<BTreeSet<_>>().len(), 200);
    assert_eq!(writer.payload(&[]).unwrap(), PayloadRef::Absent);
    writer.finish(summary()).unwrap();
    let trace = Trace::open(&path).unwrap();
    assert_eq!(trace.payload_totals().count, 200);
    assert_eq!(trace.payload_totals().raw_bytes, 200 * 8192);
    for (seed, payload) in (0u32..200).zip(first).rev() {
        let mut buf = vec![0; 100];
        trace.read_payload(payload, 8192, 5000, &mut buf).unwrap();
        assert_eq!(buf, content(seed.into(), 8192)[5000..5100]);
    }
}

#[test]
fn a_long_payload_is_a_list_of_pieces() {
    let place = Place::new();
    let path = place.file("t.qtrace");
    let total = 3 * PAYLOAD_PIECE_BYTES + 777;
    let data = content(1, total);
    let mut writer = TraceWriter::create(&path, header()).unwrap();
    let stored = writer.payload(&data).unwrap();
    assert_eq!(writer.payload_from(total as u64, &mut &data[..]).unwrap(), stored);
    let zeros = writer.payload_from(64 << 20, &mut std::io::repeat(0)).unwrap();
    let short = writer.payload_from(total as u64 + 1, &mut &data[..]).unwrap_err();
    assert_eq!(short.kind(), ErrorKind::Input);
    writer.finish(summary()).unwrap();

    let trace = Trace::open(&path).unwrap();
    // Four pieces, the short source's first pieces being the same, the fourth of 777 bytes and
    // no list; one piece of zeros; two lists.
    assert_eq!(trace.payload_totals().count, 4 + 1 + 2);
    let mut all = vec![0; total];
    trace.read_payload(stored, total as u64, 0, &mut all).unwrap();
    assert!(all == data);
    let mut across = vec![0; PAYLOAD_PIECE_BYTES + 2];
    let from = PAYLOAD_PIECE_BYTES - 1;
    trace.read_payload(stored, total as u64, from as u64, &mut across).unwrap();
    assert!(across == data[from..from + across.len()]);
    let mut last = [1; 3];
    trace.read_payload(zeros, 64 << 20, (64 << 20) - 3, &mut last).unwrap();
    assert_eq!(last, [0; 3]);
}

#[test]
fn a_payload_is_read_only_as_what_it_is() {
    let place = Place::new();
    let path = place.file("t.qtrace");
    let mut writer = TraceWriter::create(&path, header()).unwrap();
    let piece = PAYLOAD_PIECE_BYTES as u64;
    let data = writer.payload(&content(1, 512)).unwrap();
    let list = writer.payload(&content(2, 2 * PAYLOAD_PIECE_BYTES)).unwrap();
    writer.finish(summary()).unwrap();
    let trace = Trace::open(&path).unwrap();
    let mut buf = [0; 16];
    let mut read = |payload, total, from| trace.read_payload(payload, total, from, &mut buf);
    read(data, 512, 496).unwrap();
    read(list, 2 * piece, 0).unwrap();
    for (payload, total, from) in [
        (data, 512, 497),
        (data, 512, u64::MAX),
        (data, 511, 0),
        (data, 2 * piece, 0),
        (data, u64::MAX, 0),
        (list, 8, 0),
        (list, 3 * piece, 0),
        (PayloadRef::Absent, 512, 0),
        (PayloadRef::Stored(99), 512, 0),
        (PayloadRef::Stored(u32::MAX), 512, 0),
    ] {
        let error = read(payload, total, from).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input, "{payload:?} {total} {from}");
    }
}

#[test]
fn what_cannot_be_read_is_not_written() {
    let place = Place::new();
    let mut writer = TraceWriter::create(&place.file("t"), header()).unwrap();
    let Event::Issue(good) = issue(1, PayloadRef::Absent) else { unreachable!() };
    let refused = |writer: &mut TraceWriter, issue: Issue| {
        assert_eq!(writer.event(&Event::Issue(issue)).unwrap_err().kind(), ErrorKind::Input);
    };
    refused(&mut writer, good);
    writer.stream(StreamInfo::default()).unwrap();
    writer.event(&Event::Issue(good)).unwrap();
    refused(&mut writer, Issue { stream: StreamId(1), ..good });
    refused(&mut writer, Issue { payload: PayloadRef::Stored(1), ..good });
    refused(&mut writer, Issue { len: (1 << 60) + 1, ..good });
    refused(&mut writer, Issue { offset: u64::MAX, ..good });
    refused(&mut writer, Issue { cpu: Some(0xffff), ..good });
    let access = BusAccess { space: BusSpace::Pio, write: true, addr: 0x70, size: 1, value: 8 };
    let bus = BusEvent { time: Nanos(0), stream: StreamId(0), access, cpu: None };
    writer.event(&Event::Bus(bus)).unwrap();
    for access in [
        BusAccess { addr: 0x1_0000, ..access },
        BusAccess { size: 8, ..access },
        BusAccess { size: 3, ..access },
        BusAccess { value: 0x100, ..access },
    ] {
        let event = Event::Bus(BusEvent { access, ..bus });
        assert_eq!(writer.event(&event).unwrap_err().kind(), ErrorKind::Input, "{access:?}");
    }
    let cpu = Event::Bus(BusEvent { cpu: Some(0xffff), ..bus });
    assert_eq!(writer.event(&cpu).unwrap_err().kind(), ErrorKind::Input);
    let long = StreamInfo { device: "x".repeat(5000), ..StreamInfo::default() };
    assert_eq!(writer.stream(long).unwrap_err().kind(), ErrorKind::Input);
    assert_eq!(writer.events(), 2);
}

#[test]
fn an_empty_trace_is_a_trace() {
    let place = Place::new();
    let path = place.file("t.qtrace");
    TraceWriter::create(&path, header()).unwrap().finish(summary()).unwrap();
    let trace = Trace::open(&path).unwrap();
    assert_eq!((trace.events(), trace.truncation()), (0, None));
    assert_eq!(trace.cursor(0).next().unwrap(), None);
    assert_eq!(trace.seek_time(Nanos(0)).unwrap(), 0);
    assert_eq!(trace.time_span(), None);
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let place = Place::new();
    let (a, b) = (place.file("a"), place.file("b"));
    write(&a, 5000).unwrap();
    write(&b, 5000).unwrap();
    assert!(std::fs::read(a).unwrap() == std::fs::read(b).unwrap());
}

#[test]
fn a_dropped_writer_leaves_nothing_and_a_finished_one_replaces() {
    let place = Place::new();
    let path = place.file("t.qtrace");
    std::fs::write(&path, b"old").unwrap();
    let mut writer = TraceWriter::create(&path, header()).unwrap();
    writer.stream(StreamInfo::default()).unwrap();
    assert_eq!(std::fs::read_dir(place.0.path()).unwrap().count(), 2);
    drop(writer);
    assert_eq!(std::fs::read_dir(place.0.path()).unwrap().count(), 1);
    assert_eq!(std::fs::read(&path).unwrap(), b"old");

    let link = place.file("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    write(&link, 10).unwrap();
    assert!(link.is_symlink(), "the link was replaced instead of the file");
    assert_eq!(Trace::open(&path).unwrap().events(), 10);
}

#[test]
fn a_place_that_cannot_hold_a_trace_is_refused() {
    let place = Place::new();
    for path in [place.0.path(), Path::new("/dev/null"), Path::new("/"), Path::new("..")] {
        let error = TraceWriter::create(path, header()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Usage, "{}", path.display());
    }
    let error = TraceWriter::create(&place.file("no/such/t"), header()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Incomplete);
}
