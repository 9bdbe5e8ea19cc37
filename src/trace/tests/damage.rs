//! Damaged and hostile files: a prefix or a clear error, never wrong data.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use zerocopy::{FromBytes, IntoBytes};

use super::*;
use crate::base::{Error, ErrorKind};
use crate::trace::format::{
    FLAG_IGNORABLE, FRAME_HEADER_BYTES, FrameHeader, KIND_EVENTS, KIND_HEADER, KIND_INDEX,
    KIND_PAYLOAD, KIND_STREAM, KIND_SUMMARY, KIND_TRAILER, PREAMBLE_BYTES, Preamble, RECORD_BYTES,
    meta, padded,
};
use crate::trace::index::{EventFrame, Frame, Index};

/// A small file with frames of every kind, several of most, and what it holds.
fn small(path: &Path) -> Vec<Event> {
    let mut writer = TraceWriter::create(path, header()).unwrap();
    let mut events = Vec::new();
    for number in 0..12u64 {
        if number.is_multiple_of(6) {
            writer.stream(stream("vda")).unwrap();
        }
        let payload = writer.payload(&content(number % 4, 40)).unwrap();
        let Event::Issue(issue) = issue(number, payload) else { unreachable!() };
        events.push(Event::Issue(Issue { len: 40, ..issue }));
        writer.event(&events[number as usize]).unwrap();
        if number % 3 == 2 {
            writer.flush().unwrap();
        }
    }
    writer.finish(summary()).unwrap();
    events
}

/// A whole frame, taken apart.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) header: FrameHeader,
    pub(super) body: Vec<u8>,
}

impl Part {
    fn kind(&self) -> u16 {
        self.header.kind.get()
    }
}

/// The frames of a file, and where each ends.
pub(super) fn parts(bytes: &[u8]) -> Vec<(u64, Part)> {
    let (mut at, mut parts) = (PREAMBLE_BYTES as u64, Vec::new());
    while at < bytes.len() as u64 {
        let frame = Frame::at(bytes, at).unwrap();
        let body = frame.body().unwrap().to_vec();
        at = frame.end(at);
        parts.push((at, Part { header: *frame.header, body }));
    }
    parts
}

/// Puts a file together again, with right CRCs and lengths.
pub(super) fn assemble(parts: &[Part]) -> Vec<u8> {
    let mut bytes = Preamble::current().as_bytes().to_vec();
    for part in parts {
        let (mut header, mut body) = (part.header, part.body.clone());
        let len = body.len();
        body.resize(padded(len as u64) as usize, 0);
        header.seal([&body[..]], len);
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&body);
    }
    bytes
}

/// Changes the first frame of `kind` in the file, with right CRCs and nothing moved.
pub(super) fn tamper(path: &Path, kind: u16, change: impl FnOnce(&mut Part)) {
    let mut parts: Vec<Part> =
        parts(&fs::read(path).unwrap()).into_iter().map(|(_, part)| part).collect();
    change(parts.iter_mut().find(|part| part.kind() == kind).unwrap());
    fs::write(path, assemble(&parts)).unwrap();
}

/// Reads everything that the trace has: a prefix of `events`, each with its own data.
fn read_back(trace: &Trace, events: &[Event]) -> Result<()> {
    let mut cursor = trace.cursor(0);
    while let Some((number, event)) = cursor.next()? {
        assert_eq!(event, events[number as usize]);
        assert_eq!(trace.event(number)?, event);
        let Event::Issue(issue) = event else { unreachable!() };
        let mut buf = [0; 40];
        trace.read_payload(issue.payload, issue.len, 0, &mut buf)?;
        assert_eq!(buf[..], content(number % 4, 40));
    }
    assert_eq!(cursor.position(), trace.events());
    Ok(())
}

pub(super) fn assert_input(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Input, "{error}");
}

#[test]
fn cut_at_every_byte_it_keeps_every_whole_frame() {
    let place = Place::new();
    let path = place.file("t");
    let events = small(&path);
    let whole = fs::read(&path).unwrap();
    let parts = parts(&whole);
    let kinds: Vec<u16> = parts.iter().map(|(_, part)| part.kind()).collect();
    for kind in KIND_HEADER..=KIND_TRAILER {
        assert!(kinds.contains(&kind), "the test file has no frame of kind {kind}");
    }
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let header_end = parts[0].0;
    for cut in (0..whole.len() as u64).rev() {
        file.set_len(cut).unwrap();
        let trace = match Trace::open(&path) {
            Ok(trace) => trace,
            Err(error) => {
                assert_input(&error);
                assert!(cut < header_end, "cut at {cut}: {error}");
                continue;
            }
        };
        let kept = parts.iter().filter(|(end, _)| *end <= cut);
        let count = kept.clone().filter(|(_, part)| part.kind() == KIND_EVENTS);
        let count: u64 = count.map(|(_, part)| u64::from(part.header.count.get())).sum();
        let end = kept.map(|(end, _)| *end).max().unwrap();
        let truncation = trace.truncation().unwrap();
        assert_eq!((truncation.offset, truncation.bytes_lost), (end, cut - end), "cut at {cut}");
        assert_eq!(trace.events(), count, "cut at {cut}");
        let issues: u64 = trace.totals().iter().map(|t| t.issues.iter().sum::<u64>()).sum();
        assert_eq!(issues, count, "cut at {cut}");
        read_back(&trace, &events).unwrap();
    }
}

#[test]
fn any_flipped_byte_is_noticed_or_harmless() {
    let place = Place::new();
    let path = place.file("t");
    let events = small(&path);
    let whole = fs::read(&path).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    for (at, byte) in (0..).zip(&whole) {
        for mask in [0x01, 0x80, 0xff] {
            file.write_all_at(&[byte ^ mask], at).unwrap();
            match Trace::open(&path).and_then(|trace| {
                read_back(&trace, &events)?;
                Ok(trace)
            }) {
                // Only what repeats something else goes unnoticed: a stream frame, when the
                // summary that repeats it is whole.
                Ok(trace) if trace.truncation().is_none() => {
                    assert_eq!(trace.events(), events.len() as u64);
                    let spare = parts(&whole).into_iter().find(|(end, _)| *end > at);
                    assert_eq!(spare.unwrap().1.kind(), KIND_STREAM, "byte {at}");
                }
                Ok(_) => {}
                Err(error) => assert_input(&error),
            }
        }
        file.write_all_at(&[*byte], at).unwrap();
    }
}

#[test]
fn damage_in_the_middle_names_event_and_offset() {
    let place = Place::new();
    let path = place.file("t");
    let events = small(&path);
    let mut bytes = fs::read(&path).unwrap();
    let index = Index::clone(&index_of(&bytes));
    let frame = index.event_frames[2];
    bytes[frame.offset as usize + FRAME_HEADER_BYTES + 3] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let trace = Trace::open(&path).unwrap();
    assert_eq!(trace.truncation(), None);
    let mut cursor = trace.cursor(0);
    for event in &events[..frame.first as usize] {
        assert_eq!(cursor.next().unwrap().unwrap().1, *event);
    }
    for error in [cursor.next().unwrap_err(), trace.event(frame.first + 1).unwrap_err()] {
        assert_input(&error);
        let places = [
            crate::base::error::Place::Event(frame.first),
            crate::base::error::Place::Offset(frame.offset),
        ];
        assert_eq!(error.places(), places);
    }
    // What follows the damaged frame is still there.
    assert_eq!(trace.event(11).unwrap(), events[11]);
}

fn index_of(bytes: &[u8]) -> Index {
    let parts = parts(bytes);
    let (_, part) = parts.iter().find(|(_, part)| part.kind() == KIND_INDEX).unwrap();
    meta::decode(&part.body).unwrap()
}

#[test]
fn a_hostile_index_is_not_believed() {
    let changes: [fn(&mut Index); 12] = [
        |index| index.events += 1,
        |index| index.payloads.count = u64::MAX - 1,
        |index| index.summary_offset = u64::MAX,
        |index| index.summary_offset = 32,
        |index| index.event_frames[0].offset = u64::MAX - 7,
        |index| index.event_frames[1].offset = index.event_frames[0].offset,
        |index| index.event_frames[1].offset += 1,
        |index| index.event_frames[0].count = u32::MAX,
        |index| index.event_frames[1].first = 0,
        |index| index.event_frames.reverse(),
        |index| index.payload_frames[0].first = 0,
        |index| index.payload_frames[0].count = u32::MAX,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let place = Place::new();
        let path = place.file("t");
        let events = small(&path);
        tamper(&path, KIND_INDEX, |part| {
            let mut index: Index = meta::decode(&part.body).unwrap();
            change(&mut index);
            part.body = meta::encode(&index).unwrap();
        });
        let trace = Trace::open(&path).unwrap();
        assert!(trace.truncation().is_some(), "change {number}");
        assert_eq!(trace.events(), 12, "change {number}");
        read_back(&trace, &events).unwrap();
    }
}

#[test]
fn an_index_that_points_between_frames_is_found_out_in_reading() {
    let place = Place::new();
    let path = place.file("t");
    small(&path);
    tamper(&path, KIND_INDEX, |part| {
        let mut index: Index = meta::decode(&part.body).unwrap();
        index.event_frames[0].offset += 8;
        index.payload_frames[0].offset += 8;
        part.body = meta::encode(&index).unwrap();
    });
    let trace = Trace::open(&path).unwrap();
    assert_input(&trace.event(0).unwrap_err());
    let error = trace.read_payload(PayloadRef::Stored(1), 40, 0, &mut [0; 40]).unwrap_err();
    assert_input(&error);
}

#[test]
fn hostile_lengths_in_metadata_ask_for_no_memory() {
    let endless = [0xff; 64];
    assert!(meta::decode::<TraceHeader>(&endless).is_err());
    assert!(meta::decode::<StreamInfo>(&endless).is_err());
    assert!(meta::decode::<Index>(&endless).is_err());
    let mut index = meta::encode(&Index::default()).unwrap();
    let at = index.len() - 16;
    index[at..at + 8].copy_from_slice(&(u64::MAX / size_of::<EventFrame>() as u64).to_le_bytes());
    assert!(meta::decode::<Index>(&index).is_err());
}

#[test]
fn a_hostile_frame_length_is_not_believed() {
    let place = Place::new();
    let path = place.file("t");
    small(&path);
    let whole = fs::read(&path).unwrap();
    let at = parts(&whole)[0].0;
    for len in [u64::MAX, u64::MAX - 70, 1 << 40, (16 << 20) + 1, whole.len() as u64] {
        let mut bytes = whole.clone();
        bytes.truncate(whole.len() - 8);
        let (header, _) = FrameHeader::mut_from_prefix(&mut bytes[at as usize..]).unwrap();
        header.body_len = len.into();
        header.header_crc = header.computed_crc().into();
        fs::write(&path, &bytes).unwrap();
        let trace = Trace::open(&path).unwrap();
        assert_eq!((trace.events(), trace.truncation().unwrap().offset), (0, at));
    }
}

#[test]
fn hostile_records_are_named() {
    // Byte of the record, what it becomes.
    for (at, value) in
        [(44, 9), (45, 0), (45, 7), (39, 1), (43, 0x80), (15, 0x80), (23, 0xff), (32, 99)]
    {
        let place = Place::new();
        let path = place.file("t");
        let events = small(&path);
        tamper(&path, KIND_EVENTS, |part| part.body[RECORD_BYTES + at] = value);
        let trace = Trace::open(&path).unwrap();
        let mut cursor = trace.cursor(0);
        assert_eq!(cursor.next().unwrap(), Some((0, events[0])));
        let error = cursor.next().unwrap_err();
        assert_input(&error);
        assert_eq!(error.places()[0], crate::base::error::Place::Event(1), "byte {at}: {error}");
        // The same without an index: the frame is not taken in.
        let len = fs::metadata(&path).unwrap().len();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(len - 1).unwrap();
        let trace = Trace::open(&path).unwrap();
        assert_eq!(trace.events(), 0);
        let why = &trace.truncation().unwrap().why;
        assert!(why.contains("event 1 has"), "byte {at}: {why}");
    }
}

#[test]
fn hostile_payload_frames_are_errors() {
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
    let changes: [&dyn Fn(&mut Part); 8] = [
        &|part| part.header.raw_len = u32::MAX.into(),
        &|part| part.body[32..36].copy_from_slice(&[0xff; 4]),
        &|part| part.body[36] = 2,
        &|part| part.body[0] ^= 1,
        &|part| part.header.count = 4096.into(),
        &|part| part.body.truncate(50),
        &|part| {
            part.body.truncate(3 * 40);
            part.body.extend_from_slice(&bomb);
        },
        &|part| part.body.truncate(3 * 40),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let place = Place::new();
        let path = place.file("t");
        small(&path);
        tamper(&path, KIND_PAYLOAD, |part| change(part));
        let trace = Trace::open(&path).unwrap();
        let read = trace.read_payload(PayloadRef::Stored(1), 40, 0, &mut [0; 40]);
        assert_input(&read.expect_err(&format!("change {number}")));
    }
}

#[test]
fn what_follows_the_end_is_reported_and_left_alone() {
    for garbage in [&b"x"[..], &[0; 200], b"QTRACE\r\n and more"] {
        let place = Place::new();
        let path = place.file("t");
        let events = small(&path);
        let mut bytes = fs::read(&path).unwrap();
        let len = bytes.len() as u64;
        bytes.extend_from_slice(garbage);
        fs::write(&path, bytes).unwrap();
        let trace = Trace::open(&path).unwrap();
        let truncation = trace.truncation().unwrap();
        assert_eq!((truncation.offset, truncation.bytes_lost), (len, garbage.len() as u64));
        assert_eq!((trace.events(), &trace.summary().notes), (12, &summary().notes));
        read_back(&trace, &events).unwrap();
    }
}

#[test]
fn a_newer_major_is_refused_with_the_version_that_reads_it() {
    let place = Place::new();
    let path = place.file("t");
    small(&path);
    let mut bytes = fs::read(&path).unwrap();
    let (preamble, _) = Preamble::mut_from_prefix(&mut bytes).unwrap();
    (preamble.major, preamble.minor) = (2.into(), 0.into());
    preamble.reader_version = [0.into(), 7.into(), 1.into()];
    preamble.crc = preamble.computed_crc().into();
    fs::write(&path, bytes).unwrap();
    let error = Trace::open(&path).unwrap_err();
    assert_input(&error);
    assert!(error.to_string().contains("format 2.0"), "{error}");
    assert!(error.hint_text().unwrap().contains("qtrace 0.7.1"));
}

#[test]
fn a_newer_minor_may_add_frames_that_may_be_skipped() {
    let place = Place::new();
    let path = place.file("t");
    let events = small(&path);
    let whole = fs::read(&path).unwrap();
    let mut parts: Vec<Part> = parts(&whole).into_iter().map(|(_, part)| part).collect();
    let footer = parts.iter().position(|part| part.kind() == KIND_SUMMARY).unwrap();
    parts.truncate(footer);
    let mut unknown = Part { header: FrameHeader::new(99, 1), body: b"new".to_vec() };
    unknown.header.flags = FLAG_IGNORABLE.into();
    parts.insert(2, unknown);
    fs::write(&path, assemble(&parts)).unwrap();
    let trace = Trace::open(&path).unwrap();
    assert_eq!((trace.events(), trace.truncation().unwrap().bytes_lost), (12, 0));
    read_back(&trace, &events).unwrap();

    parts[2].header.flags = 0.into();
    fs::write(&path, assemble(&parts)).unwrap();
    let error = Trace::open(&path).unwrap_err();
    assert_input(&error);
    assert!(error.to_string().contains("kind 99"), "{error}");
}

#[test]
fn what_is_no_trace_is_refused_at_once() {
    let place = Place::new();
    let refused = |path: &Path| {
        let error = Trace::open(path).unwrap_err();
        assert_input(&error);
        error
    };
    refused(place.0.path());
    refused(&place.file("missing"));
    let path = place.file("t");
    fs::write(&path, b"").unwrap();
    assert!(refused(&path).to_string().contains("empty"));
    fs::write(&path, b"fio version 3 iolog\n").unwrap();
    assert!(refused(&path).hint_text().unwrap().contains("qtrace import"));
    let fifo = place.file("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    refused(&fifo);
    refused(Path::new("/dev/zero"));
}
