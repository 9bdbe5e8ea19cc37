use super::data::Key;
use super::*;
use crate::base::{BlockOp, OpFlags};
use crate::trace::{Complete, Issue, NotRecorded, Span, StreamId, StreamInfo};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    /// A trace of one device: (time, tag, operation) for an issue, `None` for its completion.
    /// Requests stand at 4096 times their tag; writes carry 512 bytes of the tag twice.
    fn trace(
        &self,
        name: &str,
        origin: Option<u64>,
        events: &[(u64, u64, Option<BlockOp>)],
    ) -> Trace {
        let path = self.path(name);
        let header = TraceHeader {
            source_format: "test".into(),
            interpretation: vec!["unit: bytes".into()],
            origin_unix_ns: origin,
            ..TraceHeader::default()
        };
        let mut writer = TraceWriter::create(&path, header).unwrap();
        let device = name.to_owned();
        let info = StreamInfo { device, device_bytes: Some(1 << 20), ..StreamInfo::default() };
        let stream = writer.stream(info).unwrap();
        for &(time, tag, op) in events {
            let time = Nanos(time);
            let data = writer.payload(&[[tag as u8 + 1; 512], [0; 512]].concat()).unwrap();
            let event = match op {
                Some(op) => {
                    let (offset, len) = if op.has_range() { (4096 * tag, 1024) } else { (0, 0) };
                    let payload = if op == BlockOp::Write { data } else { PayloadRef::Absent };
                    let flags = OpFlags::empty();
                    let cpu = None;
                    Event::Issue(Issue { time, tag, stream, op, flags, offset, len, payload, cpu })
                }
                None => Event::Complete(Complete {
                    time,
                    tag,
                    stream,
                    status: 0,
                    payload: PayloadRef::Absent,
                }),
            };
            writer.event(&event).unwrap();
        }
        writer.finish(TraceSummary::default()).unwrap();
        Trace::open(&path).unwrap()
    }

    fn edit(&self, sources: &[(&Trace, Filter)], edit: &Edit) -> Result<(Trace, EditReport)> {
        let sources: Vec<_> = sources
            .iter()
            .map(|(trace, filter)| Source { trace, filter: filter.clone() })
            .collect();
        let path = self.path("out");
        let report = super::edit(&sources, &path, edit, &mut |_| ())?;
        let trace = Trace::open(&path)?;
        assert_eq!(trace.events(), report.events);
        Ok((trace, report))
    }
}

const W: Option<BlockOp> = Some(BlockOp::Write);
const R: Option<BlockOp> = Some(BlockOp::Read);

/// Stream, time and tag of each event; completions have a star.
fn brief(trace: &Trace) -> Vec<String> {
    let mut cursor = trace.cursor(0);
    let mut lines = Vec::new();
    while let Some((_, event)) = cursor.next().unwrap() {
        let (stream, time) = (event.stream().0, event.time().0);
        lines.push(match event {
            Event::Issue(issue) => format!("{stream} {time} {}@{}", issue.tag, issue.offset),
            Event::Complete(complete) => format!("{stream} {time} {}*", complete.tag),
            other => format!("{other:?}"),
        });
    }
    lines
}

fn events(from: u64, to: u64) -> Filter {
    Filter { events: Span { from, to }, ..Filter::default() }
}

#[test]
fn a_cut_keeps_requests_whole_and_says_so() {
    let folder = Folder::new();
    let all = [(0, 1, W), (10, 2, R), (20, 1, None), (30, 3, W), (40, 2, None), (50, 3, None)];
    let trace = folder.trace("a", None, &all);
    // From event 1 up to 4: the answer to 1 has no request there, those to 2 and 3 come later.
    let (cut, report) = folder.edit(&[(&trace, events(1, 4))], &Edit::default()).unwrap();
    assert_eq!(brief(&cut), ["0 10 2@8192", "0 30 3@12288", "0 40 2*", "0 50 3*"]);
    let notes = report.notes.join("\n");
    assert!(
        notes.contains("a: 1 completion left out, the request of which stands before"),
        "{notes}"
    );
    assert!(notes.contains("a: 2 requests were under way where the part ends"), "{notes}");
    assert!(notes.contains("up to 50 ns"), "{notes}");
    // The same by time; and the trace itself says what was done.
    let times = Filter { times: Span { from: 5, to: 35 }, ..Filter::default() };
    let (cut, _) = folder.edit(&[(&trace, times)], &Edit::default()).unwrap();
    assert_eq!(brief(&cut).len(), 4);
    let said = &cut.header().interpretation;
    assert_eq!(said[..2], ["unit: bytes", "edit: from a (6 events, from 5-35 ns)"]);
    assert!(cut.summary().notes.iter().any(|note| note.starts_with("edit: a: 2 requests were")));
}

#[test]
fn reads_dropped_go_with_their_answers() {
    let folder = Folder::new();
    let all = [(0, 1, W), (10, 2, R), (20, 2, None), (30, 1, None)];
    let trace = folder.trace("a", None, &all);
    let edit = Edit { drop: Kinds::READ, ..Edit::default() };
    let (kept, report) = folder.edit(&[(&trace, Filter::default())], &edit).unwrap();
    assert_eq!(brief(&kept), ["0 0 1@4096", "0 30 1*"]);
    assert_eq!(report.notes, ["a: 1 x read left out"]);
    assert!(kept.summary().not_recorded.contains(NotRecorded::READS));
    let edit = Edit { drop: Kinds::COMPLETE, ..Edit::default() };
    let (kept, _) = folder.edit(&[(&trace, Filter::default())], &edit).unwrap();
    assert_eq!(brief(&kept), ["0 0 1@4096", "0 10 2@8192"]);
    assert!(kept.summary().not_recorded.contains(NotRecorded::COMPLETIONS | NotRecorded::STATUS));
    let edit = Edit { drop: Kinds::REQUEST, ..Edit::default() };
    let error = folder.edit(&[(&trace, Filter::default())], &edit).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Nothing);
}

#[test]
fn traces_are_merged_by_time_and_stay_apart() {
    let folder = Folder::new();
    let a = folder.trace("a", Some(1_000), &[(0, 1, W), (100, 1, None)]);
    let b = folder.trace("b", Some(1_050), &[(0, 1, R), (10, 1, None), (200, 1, W)]);
    let both = [(&a, Filter::default()), (&b, Filter::default())];
    let (merged, report) = folder.edit(&both, &Edit::default()).unwrap();
    assert_eq!(
        brief(&merged),
        ["0 0 1@4096", "1 50 1@4096", "1 60 1*", "0 100 1*", "1 250 1@4096"]
    );
    assert_eq!(merged.streams()[1].device, "b");
    assert_eq!(merged.header().origin_unix_ns, Some(1_000));
    assert!(report.changes.contains(&"merged by wall clock".to_owned()));
    let start = Edit { align: Some(Align::Start), ..Edit::default() };
    let (merged, _) = folder.edit(&both, &start).unwrap();
    assert_eq!(brief(&merged)[..2], ["0 0 1@4096", "1 0 1@4096"]);
    assert_eq!(merged.header().origin_unix_ns, None);
}

#[test]
fn places_and_times_move() {
    let folder = Folder::new();
    let trace = folder.trace("a", Some(5), &[(100, 1, W), (200, 2, R), (400, 1, None)]);
    let edit = Edit {
        places: Places { ranges: vec![(Span { from: 8192, to: 16384 }, 0)], shift: 512 },
        time_percent: Some(50),
        rebase: true,
        ..Edit::default()
    };
    let (moved, _) = folder.edit(&[(&trace, Filter::default())], &edit).unwrap();
    assert_eq!(brief(&moved), ["0 0 1@4608", "0 50 2@512", "0 150 1*"]);
    assert_eq!(moved.header().origin_unix_ns, Some(105));
    assert_eq!(moved.streams()[0].device_bytes, None);
    assert!(moved.summary().not_recorded.contains(NotRecorded::DEVICE_SIZE));
    let across = Edit {
        places: Places { ranges: vec![(Span { from: 4000, to: 4500 }, 0)], shift: 0 },
        ..Edit::default()
    };
    let error = folder.edit(&[(&trace, Filter::default())], &across).unwrap_err();
    assert!(error.to_string().contains("event 0: 4096+1024 lies across"), "{error}");
}

fn first_data(trace: &Trace) -> Option<Vec<u8>> {
    let Event::Issue(issue) = trace.event(0).unwrap() else { panic!("no issue") };
    let mut data = vec![0xee; 1024];
    trace.read_payload(issue.payload, 1024, 0, &mut data).ok().map(|()| data)
}

#[test]
fn data_is_kept_dropped_zeroed_or_replaced() {
    let folder = Folder::new();
    let trace = folder.trace("a", None, &[(0, 1, W), (1, 2, W), (2, 1, W)]);
    let with = |data: DataMode| {
        let edit = Edit { data, ..Edit::default() };
        folder.edit(&[(&trace, Filter::default())], &edit).unwrap().0
    };
    assert_eq!(first_data(&with(DataMode::Keep)), first_data(&trace));
    let dropped = with(DataMode::Drop);
    assert_eq!((first_data(&dropped), dropped.payload_totals().count), (None, 0));
    assert!(dropped.summary().not_recorded.contains(NotRecorded::WRITE_DATA));
    assert_eq!(first_data(&with(DataMode::Zero)), Some(vec![0; 1024]));
    let replaced = with(DataMode::Pseudonym(Key::from_words("x")));
    let data = first_data(&replaced).unwrap();
    assert_ne!(data[..512], [2; 512]);
    assert_eq!(data[512..], [0; 512], "zeros stay zeros");
    assert_eq!(replaced.payload_totals().count, 2, "what was equal stays equal");
    let again = with(DataMode::Pseudonym(Key::from_words("x")));
    assert_eq!(first_data(&again), Some(data));
    let said = replaced.header().interpretation.join("\n");
    assert!(said.contains("edit: data replaced sector by sector by pseudonyms"), "{said}");
}

#[test]
fn streams_that_are_left_out_leave_no_gap() {
    let folder = Folder::new();
    let a = folder.trace("a", None, &[(0, 1, W)]);
    let b = folder.trace("b", None, &[(5, 1, W)]);
    let both = [(&a, Filter::default()), (&b, Filter::default())];
    folder.edit(&both, &Edit::default()).unwrap();
    std::fs::rename(folder.path("out"), folder.path("both")).unwrap();
    let both = Trace::open(&folder.path("both")).unwrap();
    let second = Filter { streams: Some([1].into()), ..Filter::default() };
    let (one, _) = folder.edit(&[(&both, second)], &Edit::default()).unwrap();
    assert_eq!(brief(&one), ["0 5 1@4096"]);
    assert_eq!((one.streams().len(), one.streams()[0].device.as_str()), (1, "b"));
    let _ = StreamId(0);
}
