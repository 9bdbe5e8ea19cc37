//! Damaged and hostile bus events: named, never believed.

use std::fs::{self, OpenOptions};

use zerocopy::{FromBytes, IntoBytes};

use super::damage::{assert_input, tamper};
use super::round_trip::bus_events;
use super::*;
use crate::trace::format::{KIND_EVENTS, KIND_SUMMARY, MINOR, Preamble, RECORD_BYTES, Record};

/// A file of [`bus_events`].
fn small(path: &Path) -> Vec<Event> {
    let mut writer = TraceWriter::create(path, header()).unwrap();
    writer.stream(stream("pci-conf-idx")).unwrap();
    writer.payload(b"hello").unwrap();
    let events = bus_events();
    for event in &events {
        writer.event(event).unwrap();
    }
    writer.finish(summary()).unwrap();
    events
}

/// The number of the first event that `is`.
fn first(events: &[Event], is: fn(&Event) -> bool) -> usize {
    events.iter().position(is).unwrap()
}

#[test]
fn every_hostile_field_is_named() {
    type Which = fn(&Event) -> bool;
    type Change = fn(&mut Record);
    let bus: Which = |e| matches!(e, Event::Bus(b) if b.access.value == 0);
    let memory: Which = |e| matches!(e, Event::Memory(_));
    let fill: Which = |e| matches!(e, Event::Memory(m) if m.op == MemoryOp::Fill);
    let irq: Which = |e| matches!(e, Event::Irq(_));
    let ack: Which = |e| matches!(e, Event::Ack(_));
    let changes: [(Which, Change); 18] = [
        (bus, |r| r.op = 4),
        (bus, |r| r.offset = 0x1_0000.into()),
        (bus, |r| r.len = 0.into()),
        (bus, |r| r.len = 3.into()),
        (bus, |r| r.len = 8.into()),
        (bus, |r| r.len = 0x104.into()),
        (bus, |r| r.tag = (1 << 32).into()),
        (bus, |r| r.payload = 2.into()),
        (bus, |r| r.stream = 1.into()),
        (memory, |r| r.op = 0),
        (memory, |r| r.op = 4),
        (memory, |r| r.len = u64::MAX.into()),
        (memory, |r| r.offset = (u64::MAX - 4).into()),
        (memory, |r| r.status = 0x100.into()),
        (fill, |r| r.payload = 1.into()),
        (irq, |r| r.op = 2),
        (irq, |r| r.offset = (1 << 32).into()),
        (ack, |r| r.status = 0x100.into()),
    ];
    for (number, (which, change)) in changes.into_iter().enumerate() {
        let place = Place::new();
        let path = place.file("t");
        let events = small(&path);
        let at = first(&events, which);
        tamper(&path, KIND_EVENTS, |part| {
            let bytes = &mut part.body[at * RECORD_BYTES..][..RECORD_BYTES];
            change(Record::mut_from_bytes(bytes).unwrap());
        });
        let trace = Trace::open(&path).unwrap();
        let mut cursor = trace.cursor(0);
        for event in &events[..at] {
            assert_eq!(cursor.next().unwrap().unwrap().1, *event, "change {number}");
        }
        let error = cursor.next().unwrap_err();
        assert_input(&error);
        let place = crate::base::error::Place::Event(at as u64);
        assert_eq!(error.places()[0], place, "change {number}: {error}");
    }
}

#[test]
fn an_event_of_a_newer_minor_names_the_version() {
    let place = Place::new();
    let path = place.file("t");
    let events = small(&path);
    tamper(&path, KIND_EVENTS, |part| part.body[RECORD_BYTES + 44] = 99);
    let ours = Trace::open(&path).unwrap().event(1).unwrap_err();
    assert!(ours.to_string().contains("unknown kind of event"), "{ours}");
    assert!(!ours.to_string().contains("format"), "damage, not a version: {ours}");
    let mut bytes = fs::read(&path).unwrap();
    let (preamble, _) = Preamble::mut_from_prefix(&mut bytes).unwrap();
    preamble.minor = (MINOR + 1).into();
    preamble.crc = preamble.computed_crc().into();
    fs::write(&path, &bytes).unwrap();
    let trace = Trace::open(&path).unwrap();
    assert_eq!(trace.event(0).unwrap(), events[0]);
    let error = trace.event(1).unwrap_err();
    assert_input(&error);
    let named = format!("format 1.{}", MINOR + 1);
    assert!(error.to_string().contains(&named), "{error}");
    assert!(error.hint_text().unwrap().contains("later"));
}

#[test]
fn totals_of_buses_that_do_not_fit_are_counted_again() {
    let changes: [fn(&mut Vec<u8>); 4] = [
        |body| body.extend_from_slice(&[0]),
        |body| body.truncate(body.len() - 1),
        |body| {
            let at = body.len() - size_of::<BusTotals>() - 8;
            body[at] = 2;
        },
        |body| {
            let at = body.len() - size_of::<BusTotals>() - 8;
            body[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let place = Place::new();
        let path = place.file("t");
        let events = small(&path);
        let totals = Trace::open(&path).unwrap().totals().to_vec();
        tamper(&path, KIND_SUMMARY, |part| change(&mut part.body));
        let trace = Trace::open(&path).unwrap();
        assert!(trace.truncation().is_some(), "change {number}");
        assert_eq!(collect(&trace, 0).unwrap(), events, "change {number}");
        assert_eq!(trace.totals(), totals, "change {number}");
    }
}

#[test]
fn totals_are_counted_again_where_the_end_is_lost() {
    let place = Place::new();
    let path = place.file("t");
    small(&path);
    let totals = Trace::open(&path).unwrap().totals().to_vec();
    let len = fs::metadata(&path).unwrap().len();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(len - 1).unwrap();
    let trace = Trace::open(&path).unwrap();
    assert!(trace.truncation().is_some());
    assert_eq!(trace.totals(), totals);
}

#[test]
fn sums_of_hostile_totals_do_not_overflow() {
    let most = BusTotals {
        ports: [u64::MAX; 2],
        mmio: [u64::MAX; 2],
        memory: [u64::MAX; 3],
        irqs: [u64::MAX; 2],
        acks: u64::MAX,
        steps: u64::MAX,
        addr_min: 0,
        addr_max: 0,
    };
    let mut sum = most;
    sum.merge(&most);
    assert_eq!(sum, most);
    assert_eq!(sum.events(), u64::MAX);
}

#[test]
fn a_record_of_every_kind_encodes_to_the_bytes_it_was_read_from() {
    let place = Place::new();
    let path = place.file("t");
    let events = small(&path);
    let bounds = crate::trace::format::RecordBounds { streams: 1, next_payload: 2 };
    for event in events {
        let record = Record::encode(&event, bounds).unwrap();
        let decoded = record.decode(bounds).unwrap();
        assert_eq!(decoded, event);
        assert_eq!(Record::encode(&decoded, bounds).unwrap().as_bytes(), record.as_bytes());
    }
}
