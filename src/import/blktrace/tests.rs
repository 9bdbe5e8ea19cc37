use super::record::{Record, act, cat, notify};
use super::*;
use crate::base::{BlockOp, ErrorKind, OpFlags};
use crate::import::ImportReport;
use crate::import::source::Meter;
use crate::import::testing::{Memory, import_bytes, import_many, import_with, sample};

const QUEUED: u64 = 1 << 4;
const ISSUED: u64 = 1 << 6;
const COMPLETED: u64 = 1 << 7;

/// Builds a file; sequences count up by themselves.
struct File {
    version: Version,
    order: Order,
    cpu: u32,
    device: u32,
    sequence: u32,
    bytes: Vec<u8>,
}

impl File {
    fn new() -> Self {
        Self::of(Version::V7, Order::Little, 0)
    }

    fn of(version: Version, order: Order, cpu: u32) -> Self {
        Self { version, order, cpu, device: 254 << 20 | 32, sequence: 0, bytes: Vec::new() }
    }

    fn put(&mut self, time: u64, act: u16, cats: u64, sector: u64, bytes: u32) -> &mut Self {
        self.put_with(time, act, cats, sector, bytes, 0, b"")
    }

    #[allow(clippy::too_many_arguments)]
    fn put_with(
        &mut self,
        time: u64,
        act: u16,
        cats: u64,
        sector: u64,
        bytes: u32,
        error: u16,
        pdu: &[u8],
    ) -> &mut Self {
        let note = cats & cat::NOTIFY != 0;
        self.sequence += u32::from(!note);
        let record = Record {
            sequence: if note { 0 } else { self.sequence },
            time,
            sector,
            bytes,
            action: cats << 16 | u64::from(act),
            device: self.device,
            cpu: self.cpu,
            error,
            pdu_len: 0,
        };
        self.bytes.extend(record.encode(self.version, self.order, pdu));
        self
    }

    fn queue(&mut self, time: u64, cats: u64, sector: u64, bytes: u32) -> &mut Self {
        self.put(time, act::QUEUE, cats | QUEUED, sector, bytes)
    }

    fn dispatch(&mut self, time: u64, cats: u64, sector: u64, bytes: u32) -> &mut Self {
        self.put(time, act::ISSUE, cats | ISSUED, sector, bytes)
    }

    fn done(&mut self, time: u64, cats: u64, sector: u64, bytes: u32) -> &mut Self {
        self.put(time, act::COMPLETE, cats | COMPLETED, sector, bytes)
    }

    fn note(&mut self, time: u64, kind: u16, pdu: &[u8]) -> &mut Self {
        self.put_with(time, kind, cat::NOTIFY, 0, 0, 0, pdu)
    }
}

fn dispatch() -> ImportOptions {
    ImportOptions { stage: Some(Stage::Dispatch), ..ImportOptions::default() }
}

fn losses(report: &ImportReport) -> Vec<(&str, u64)> {
    report.summary.losses.iter().map(|loss| (loss.reason.as_str(), loss.count)).collect()
}

#[test]
fn operations_and_flags_in_both_versions_and_orders() {
    let f = OpFlags::empty();
    let table: [(u64, u32, BlockOp, OpFlags); 9] = [
        (cat::READ, 4096, BlockOp::Read, f),
        (cat::READ | cat::AHEAD, 4096, BlockOp::Read, OpFlags::RAHEAD),
        (cat::WRITE | cat::SYNC | cat::META, 512, BlockOp::Write, OpFlags::SYNC | OpFlags::META),
        (cat::WRITE | cat::FUA, 512, BlockOp::Write, OpFlags::FUA),
        (cat::WRITE | cat::FLUSH, 512, BlockOp::Write, OpFlags::PREFLUSH),
        (cat::WRITE | cat::FLUSH | cat::FUA, 512, BlockOp::Write, OpFlags::PREFLUSH | OpFlags::FUA),
        (cat::WRITE | cat::FLUSH | cat::SYNC, 0, BlockOp::Flush, OpFlags::SYNC),
        (cat::FLUSH, 0, BlockOp::Flush, f),
        (cat::WRITE | cat::DISCARD, 1 << 20, BlockOp::Discard, f),
    ];
    for order in [Order::Little, Order::Big] {
        for version in [Version::V7, Version::V8] {
            let mut file = File::of(version, order, 0);
            for (n, (cats, bytes, ..)) in table.into_iter().enumerate() {
                file.queue(n as u64, cats, 8, bytes);
            }
            let (report, out) = import_bytes(&file.bytes).unwrap();
            let got: Vec<_> = out.issues().iter().map(|i| (i.op, i.flags)).collect();
            let want: Vec<_> = table.iter().map(|row| (row.2, row.3)).collect();
            assert_eq!(got, want);
            let zeroes = report.summary.not_recorded.contains(NotRecorded::WRITE_ZEROES);
            assert_eq!(zeroes, version == Version::V7);
            assert!(report.summary.not_recorded.contains(NotRecorded::COMPLETIONS));
        }
    }
}

#[test]
fn version_8_tells_write_zeroes_and_zone_operations() {
    let mut file = File::of(Version::V8, Order::Little, 0);
    file.queue(0, cat::WRITE | cat::WRITE_ZEROES, 8, 4096)
        .queue(1, cat::WRITE | cat::ZONE_APPEND, 8, 4096)
        .queue(2, cat::WRITE | cat::ZONE_RESET, 8, 0)
        .queue(3, cat::ZONE_FINISH, 8, 0)
        .done(4, cat::WRITE | cat::WRITE_ZEROES, 8, 4096);
    let (report, out) = import_bytes(&file.bytes).unwrap();
    assert_eq!(out.issues_brief(), [(0, BlockOp::WriteZeroes, 4096, 4096)]);
    assert_eq!(out.completes(), [(0, 4, 0)]);
    let want = ["zone append (the device chose the place)", "zone reset", "zone finish"];
    assert_eq!(losses(&report), want.map(|reason| (reason, 1)));
}

#[test]
fn a_journal_commit_ends_with_the_last_step_of_its_flush_sequence() {
    // As captured: one FWFSM queued; flush, write and flush dispatched; a last C without length.
    let commit = cat::WRITE | cat::FLUSH | cat::FUA | cat::SYNC | cat::META;
    let data = cat::WRITE | cat::SYNC | cat::META;
    let flush = cat::READ | cat::FLUSH;
    let mut file = File::new();
    file.queue(100, commit, 229_400, 1024)
        .dispatch(110, flush, 0, 0)
        .done(120, flush, 0, 0)
        .dispatch(130, data, 229_400, 1024)
        .done(140, data, 229_400, 1024)
        .dispatch(150, flush, 0, 0)
        .done(160, flush, 0, 0)
        .done(170, data, 229_400, 0);
    let (report, out) = import_bytes(&file.bytes).unwrap();
    assert_eq!(out.issues_brief(), [(0, BlockOp::Write, 229_400 * 512, 1024)]);
    assert_eq!(out.completes(), [(0, 70, 0)]);
    assert!(report.summary.losses.is_empty());

    let (_, out) = import_with(&file.bytes, &dispatch()).unwrap();
    let ops: Vec<_> = out.issues().iter().map(|issue| issue.op).collect();
    assert_eq!(ops, [BlockOp::Flush, BlockOp::Write, BlockOp::Flush]);
    // Time starts at the first record of any moment, so the stages share their clock.
    assert_eq!(out.completes(), [(0, 20, 0), (1, 40, 0), (2, 60, 0)]);
}

#[test]
fn a_device_with_fua_of_its_own_completes_with_the_data() {
    let mut file = File::new();
    file.queue(0, cat::WRITE | cat::FUA, 8, 512).done(9, cat::WRITE | cat::FUA, 8, 512);
    file.queue(20, cat::WRITE | cat::FLUSH, 16, 512).done(29, cat::WRITE, 16, 512);
    let (_, out) = import_bytes(&file.bytes).unwrap();
    assert_eq!(out.completes(), [(0, 9, 0), (1, 29, 0)]);
}

#[test]
fn flushes_are_answered_in_order_and_not_by_their_own_steps() {
    let (flush, step) = (cat::WRITE | cat::FLUSH, cat::READ | cat::FLUSH);
    let mut file = File::new();
    file.queue(0, flush, 0, 0)
        .queue(1, flush, 0, 0)
        .dispatch(2, step, 0, 0)
        .done(3, step, 0, 0)
        .done(4, cat::WRITE, 0, 0)
        .done(5, cat::WRITE, 0, 0);
    let (_, out) = import_bytes(&file.bytes).unwrap();
    assert_eq!(out.completes(), [(0, 4, 0), (1, 5, 0)]);
}

#[test]
fn errors_are_errnos() {
    let mut file = File::new();
    file.queue(0, cat::READ, 8, 512);
    file.put_with(5, act::COMPLETE, cat::READ | COMPLETED, 8, 512, 0xfffb, b"");
    let (report, out) = import_bytes(&file.bytes).unwrap();
    assert_eq!(out.completes(), [(0, 5, 5)]);
    assert!(!report.summary.not_recorded.contains(NotRecorded::STATUS));
}

#[test]
fn a_requeued_dispatch_is_one_request() {
    let mut file = File::new();
    file.dispatch(0, cat::WRITE, 8, 512)
        .put(1, act::REQUEUE, cat::WRITE, 8, 512)
        .dispatch(2, cat::WRITE, 8, 512)
        .done(3, cat::WRITE, 8, 512);
    let (report, out) = import_with(&file.bytes, &dispatch()).unwrap();
    assert_eq!(out.issues_brief(), [(0, BlockOp::Write, 4096, 512)]);
    assert_eq!(out.completes(), [(0, 3, 0)]);
    assert!(report.summary.notes[0].starts_with("1 dispatches were handed back"));
}

#[test]
fn what_is_no_request_of_a_file_system_is_lost_by_reason() {
    let mut file = File::new();
    file.queue(0, cat::READ, 8, 512)
        .dispatch(1, cat::READ | cat::PC, 0, 36)
        .put_with(2, act::DRV_DATA, 1 << 14, 0, 0, 0, b"secret")
        .done(3, cat::READ, 800, 512)
        .queue(4, QUEUED, 8, 512)
        .queue(5, cat::WRITE, 8, 0);
    let (report, out) = import_bytes(&file.bytes).unwrap();
    assert_eq!(out.issues().len(), 1);
    assert_eq!(
        losses(&report),
        [
            ("packet command of a driver or user", 1),
            ("data of a driver's own", 1),
            ("completion of a request whose issue is not in the capture", 1),
            ("record that is neither read nor write", 1),
            ("request of length 0", 1),
        ]
    );
    assert_eq!(report.summary.losses[0].first, "cpu 0 sequence 2");
    let alone = File::new().dispatch(1, cat::READ | cat::PC, 0, 36).bytes.clone();
    assert_eq!(import_bytes(&alone).unwrap_err().kind(), ErrorKind::Nothing);
}

#[test]
fn each_device_is_a_stream_and_one_can_be_picked() {
    let mut file = File::new();
    file.queue(0, cat::READ, 8, 512);
    file.device = 8 << 20 | 1;
    file.queue(1, cat::READ, 8, 512).done(2, cat::READ, 8, 512);
    let (_, out) = import_bytes(&file.bytes).unwrap();
    let names: Vec<_> = out.streams.iter().map(|info| info.device.as_str()).collect();
    assert_eq!(names, ["254,32", "8,1"]);
    assert_eq!(out.completes(), [(1, 2, 0)]);
    let options = ImportOptions { device: Some("8,1".into()), ..ImportOptions::default() };
    let (_, out) = import_with(&file.bytes, &options).unwrap();
    assert_eq!((out.streams.len(), out.issues().len(), out.completes().len()), (1, 1, 1));
}

/// The container's word for "no CPU" is no CPU's number.
#[test]
fn numbers_of_cpus_that_no_record_holds_are_left_out() {
    for (cpu, kept) in [(7, Some(7)), (65_535, None), (65_536, None)] {
        let mut file = File::of(Version::V7, Order::Little, cpu);
        file.queue(1000, cat::READ, 0, 512);
        let (_, out) = import_bytes(&file.bytes).unwrap();
        assert_eq!(out.issues()[0].cpu, kept, "{cpu}");
    }
}

#[test]
fn files_are_merged_by_time_then_cpu() {
    let (mut a, mut b) = (File::new(), File::of(Version::V7, Order::Little, 1));
    a.queue(1000, cat::READ, 0, 512).queue(1020, cat::READ, 2, 512);
    b.queue(1010, cat::READ, 1, 512).queue(1020, cat::READ, 3, 512);
    let inputs: [(&str, &[u8]); 2] = [("x.blktrace.1", &b.bytes), ("x.blktrace.0", &a.bytes)];
    let (_, out) = import_many(&inputs, &ImportOptions::default()).unwrap();
    let got: Vec<_> =
        out.issues().iter().map(|i| (i.time.0, i.offset / 512, i.cpu.unwrap())).collect();
    assert_eq!(got, [(0, 0, 0), (10, 1, 1), (20, 2, 0), (20, 3, 1)]);
    // A CPU that did nothing leaves an empty file.
    let inputs: [(&str, &[u8]); 2] = [("x.blktrace.0", &a.bytes), ("x.blktrace.1", b"")];
    assert!(import_many(&inputs, &ImportOptions::default()).is_ok());
}

#[test]
fn a_gap_in_the_sequence_is_a_loss() {
    let mut file = File::new();
    file.queue(0, cat::READ, 0, 512);
    file.sequence += 5;
    file.queue(1, cat::READ, 0, 512);
    let (report, _) = import_bytes(&file.bytes).unwrap();
    assert_eq!(
        losses(&report),
        [("records missing from the capture (gap in a CPU's sequence numbers)", 5)]
    );
    assert_eq!(report.summary.losses[0].first, "cpu 0 after sequence 1");
}

#[test]
fn messages_are_marks_and_stamps_give_the_wall_clock() {
    let stamp = [1_600_000_000u32.to_le_bytes(), 500u32.to_le_bytes()].concat();
    let mut file = File::new();
    file.note(10_000, notify::TIMESTAMP, &stamp)
        .note(11_000, notify::PROCESS, b"fio\0\0\0\0\0\0\0\0\0\0\0\0\0")
        .queue(11_100, cat::READ, 0, 512)
        .note(11_500, notify::MESSAGE, b"hello\n\0")
        .put_with(
            11_600,
            notify::MESSAGE | act::CGROUP,
            cat::NOTIFY,
            0,
            0,
            0,
            b"CGROUPIDin a group",
        )
        .queue(12_100, cat::READ, 0, 512);
    let (_, out) = import_bytes(&file.bytes).unwrap();
    assert_eq!(out.marks(), [(400, "hello".to_owned()), (500, "in a group".to_owned())]);
    let origin = out.header.unwrap().origin_unix_ns;
    assert_eq!(origin, Some(1_600_000_000_000_000_500 + 1_000));
}

#[test]
fn a_file_that_blkparse_rebased_is_the_same_trace() {
    let stamp = [1_600_000_000u32.to_le_bytes(), 0u32.to_le_bytes()].concat();
    let build = |base: u64| {
        let mut file = File::new();
        file.note(10_000, notify::TIMESTAMP, &stamp)
            .note(11_000, notify::PROCESS, &[b'x'; 16])
            .queue(11_100 - base, cat::READ, 0, 512)
            .done(11_900 - base, cat::READ, 0, 512)
            .note(11_900, notify::MESSAGE, b"mark");
        import_bytes(&file.bytes).unwrap().1
    };
    let (raw, rebased) = (build(0), build(11_100));
    assert_eq!(raw.events, rebased.events);
    assert_eq!(raw.header, rebased.header);
}

#[test]
fn garbage_between_records_is_skipped_and_counted() {
    let mut file = File::new();
    file.queue(0, cat::READ, 0, 512);
    file.bytes.extend([0x5a; 1000]);
    // A magic with nothing behind it is no record.
    file.bytes.extend(0x6561_7407u32.to_le_bytes());
    file.bytes.extend([0x5a; 77]);
    file.queue(1, cat::READ, 8, 512).queue(2, cat::READ, 16, 512);
    let (report, out) = import_bytes(&file.bytes).unwrap();
    assert_eq!(out.issues().len(), 3);
    assert_eq!(losses(&report), [("bytes that are no record", 1081)]);
    assert_eq!(report.summary.losses[0].first, "test-input offset 48");
    assert_eq!(report.cut, None);
}

#[test]
fn a_record_cut_short_is_said_with_its_offset() {
    let mut file = File::new();
    file.queue(0, cat::READ, 0, 512);
    file.put_with(1, act::SPLIT, QUEUED, 0, 512, 0, &[0; 8]);
    for len in 49..file.bytes.len() {
        let (report, out) = import_bytes(&file.bytes[..len]).unwrap();
        assert_eq!(out.issues().len(), 1);
        let cut = "input ends inside a record (test-input offset 48)";
        assert_eq!(report.cut.as_deref(), Some(cut), "{len}");
    }
}

#[test]
fn a_capture_of_one_stage_names_it_when_the_other_was_asked_for() {
    let mut file = File::new();
    file.dispatch(0, cat::READ, 0, 512).done(1, cat::READ, 0, 512);
    let error = import_bytes(&file.bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Nothing);
    assert_eq!(error.hint_text(), Some("--stage D finds 1"));
    let options = ImportOptions { device: Some("zzz".into()), ..dispatch() };
    let error = import_with(&file.bytes, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Nothing);
    assert!(error.to_string().contains("no request of a device 'zzz' in it; devices: "), "{error}");
    assert!(import_with(&file.bytes, &dispatch()).is_ok());
}

#[test]
fn a_version_that_is_not_known_is_named() {
    let mut bytes = File::new().queue(0, cat::READ, 0, 512).bytes.clone();
    bytes[0] = 9;
    let error = import_bytes(&bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
    assert!(error.to_string().contains("version that is not known"));
}

const REAL: &str = "traces/blktrace-binary-percpu-virtio";

fn real(options: &ImportOptions) -> Option<[(ImportReport, Memory); 2]> {
    let read = |name: &str| sample(&format!("{REAL}/{name}"));
    let (a, b) = (read("vdc.blktrace.0")?, read("vdc.blktrace.1")?);
    let merged = read("vdc.bin")?;
    let parts: [(&str, &[u8]); 2] = [("vdc.blktrace.0", &a), ("vdc.blktrace.1", &b)];
    Some([
        import_many(&parts, options).unwrap(),
        import_many(&[("vdc.bin", &merged)], options).unwrap(),
    ])
}

#[test]
fn the_real_capture_loses_nothing() {
    let Some([(report, out), _]) = real(&ImportOptions::default()) else { return };
    let barrier = OpFlags::PREFLUSH | OpFlags::FUA;
    assert_eq!(report.ops.issues_of(BlockOp::Read), 134);
    assert_eq!(out.count(BlockOp::Write, barrier, OpFlags::empty()), 769);
    assert_eq!(out.count(BlockOp::Write, barrier, OpFlags::FUA), 6);
    assert_eq!(out.count(BlockOp::Write, barrier, barrier), 51);
    assert_eq!(report.ops.issues_of(BlockOp::Flush), 14);
    assert_eq!(report.ops.issues_of(BlockOp::Discard), 31);
    assert_eq!(report.ops.bytes_of(BlockOp::Discard), 227_428_352);
    assert_eq!(report.ops.completes, 1005, "every request has its completion");
    assert!(report.summary.losses.is_empty(), "{:?}", report.summary.losses);
    assert!(report.cut.is_none());
    // Every request is complete after it was issued, and only once.
    let mut issued = std::collections::HashMap::new();
    for event in &out.events {
        match event {
            crate::trace::Event::Issue(issue) => {
                assert_eq!(issued.insert(issue.tag, issue.time), None);
            }
            crate::trace::Event::Complete(complete) => {
                assert!(issued.remove(&complete.tag).unwrap() <= complete.time);
            }
            crate::trace::Event::Mark(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(issued.is_empty());
    // 2025 or later: the capture's own clock.
    assert!(out.header.unwrap().origin_unix_ns.unwrap() > 1_700_000_000_000_000_000);
}

#[test]
fn the_real_per_cpu_files_and_their_merge_are_the_same_trace() {
    for options in [ImportOptions::default(), dispatch()] {
        let Some([(parts, a), (merged, b)]) = real(&options) else { return };
        assert_eq!(a.header, b.header);
        assert_eq!(a.streams, b.streams);
        assert!(a.events == b.events);
        assert_eq!(parts.summary, merged.summary);
    }
}

#[test]
fn the_real_capture_at_stage_d() {
    let Some([(report, out), _]) = real(&dispatch()) else { return };
    // From the records themselves: 890 D, of which 122 are flushes.
    assert_eq!(report.ops.requests(), 890);
    assert_eq!(report.ops.issues_of(BlockOp::Flush), 122);
    assert_eq!(report.ops.issues_of(BlockOp::Discard), 31);
    assert_eq!(report.ops.completes, 890);
    assert!(report.summary.losses.is_empty(), "{:?}", report.summary.losses);
    assert!(out.issues().iter().all(|issue| !issue.flags.contains(OpFlags::PREFLUSH)));
}

/// Two CPUs' files with disorder, gaps, messages and garbage, cut at the end.
fn damaged_files() -> [Vec<u8>; 2] {
    let mut prng = crate::base::Prng::new(3);
    [0, 1].map(|cpu| {
        let mut file = File::of(Version::V7, Order::Little, cpu);
        file.note(10, notify::TIMESTAMP, &[1; 8]);
        for n in 0..10_000u64 {
            let (time, sector) = (1000 + n * 50 + prng.below(300), prng.below(1 << 20) * 8);
            file.queue(time, cat::WRITE, sector, 4096).done(time + 90, cat::WRITE, sector, 4096);
            match prng.below(300) {
                0 => file.sequence += 1,
                1 => file.bytes.extend([0x5a; 77]),
                2 => {
                    file.note(time, notify::MESSAGE, b"mark");
                }
                _ => {}
            }
        }
        file.bytes.truncate(file.bytes.len() - usize::from(cpu == 1));
        file.bytes
    })
}

#[test]
fn what_a_thread_reads_is_what_is_read_without_one() {
    let read = |ahead: bool| {
        let mut memory = Memory::default();
        let (meter, mut progress) = (Meter::default(), |_| {});
        let mut job = Job::new(&mut memory, "blktrace", None, meter, &mut progress);
        let inputs = damaged_files().map(|bytes| {
            let bytes = Box::new(std::io::Cursor::new(bytes));
            Input::open(Source::from_read("x".into(), bytes).unwrap()).unwrap()
        });
        let reader = Reader::new(inputs.into(), Stage::Queue, Places::Sequence).within(100);
        if ahead { reader.read_ahead(&mut job) } else { reader.read(&mut job) }.unwrap();
        let summary = job.summary.clone();
        (memory, summary)
    };
    let ((plain, said), (ahead, said_ahead)) = (read(false), read(true));
    assert!(plain.issues().len() > 19_000 && plain.marks().len() > 20);
    assert!(plain.header == ahead.header && plain.streams == ahead.streams);
    assert!(plain.events == ahead.events && plain.payloads == ahead.payloads);
    assert_eq!(said.losses(), said_ahead.losses());
    assert_eq!(said.losses().len(), 3, "{:?}", said.losses());
    assert_eq!((said.notes(), said.cut_text()), (said_ahead.notes(), said_ahead.cut_text()));
    assert!(said.cut_text().is_some());
}
