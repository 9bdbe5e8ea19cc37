//! Whole texts: the samples, and variants of what kernels and tools print.

use crate::base::{BlockOp, ErrorKind, OpFlags};
use crate::import::testing::{
    Memory, import_bytes, import_many, import_with, losses, plain_sample,
};
use crate::import::{ImportOptions, ImportReport, Stage, TimeUnit};
use crate::trace::NotRecorded;

const FTRACE: &str = "traces/ftrace-events-text/block+nvme.txt.gz";
const PERF: &str = "traces/perf-script/perf-script-block.txt";
const TRACE_CMD: &str = "traces/trace-cmd/trace-cmd-report.txt";

fn dispatch() -> ImportOptions {
    ImportOptions { stage: Some(Stage::Dispatch), ..ImportOptions::default() }
}

fn import(text: &str) -> (ImportReport, Memory) {
    import_bytes(text.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Requests of each operation.
fn ops(report: &ImportReport) -> [u64; 5] {
    use BlockOp as Op;
    [Op::Read, Op::Write, Op::Flush, Op::Discard, Op::WriteZeroes]
        .map(|op| report.ops.issues_of(op))
}

/// Each request is complete at most once, after its issue.
fn check_order(out: &Memory) {
    let mut open = std::collections::HashMap::new();
    let mut last = 0;
    for event in &out.events {
        assert!(last <= event.time().0, "{event:?}");
        last = event.time().0;
        match event {
            crate::trace::Event::Issue(issue) => {
                assert_eq!(open.insert((issue.stream, issue.tag), issue.time), None);
            }
            crate::trace::Event::Complete(done) => {
                assert!(open.remove(&(done.stream, done.tag)).unwrap() <= done.time);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_sample_of_ftrace_at_both_stages() {
    let Some(text) = plain_sample(FTRACE) else { return };
    let (report, out) = import_bytes(&text).unwrap();
    assert_eq!(report.format, "ftrace");
    // From the lines of block_bio_queue themselves.
    assert_eq!(ops(&report), [146, 431, 5, 0, 108]);
    assert_eq!(report.ops.completes, 690);
    let barrier = OpFlags::PREFLUSH | OpFlags::FUA;
    assert_eq!(out.count(BlockOp::Write, barrier, barrier), 15);
    assert_eq!(out.count(BlockOp::Write, barrier, OpFlags::FUA), 1);
    assert_eq!(out.streams[0].device, "259,0");
    assert!(report.summary.losses.is_empty(), "{:?}", report.summary.losses);
    let notes = report.summary.notes.join("\n");
    for wanted in
        ["block_rq_issue 633", "block_getrq 618", "nvme_setup_cmd 633", "block_dirty_buffer 8021"]
    {
        assert!(notes.contains(wanted), "{wanted} in {notes}");
    }
    assert!(!report.summary.not_recorded.contains(NotRecorded::WRITE_ZEROES));
    assert!(report.summary.not_recorded.contains(NotRecorded::WRITE_DATA | NotRecorded::QUEUES));
    check_order(&out);

    let (report, out) = import_with(&text, &dispatch()).unwrap();
    assert_eq!(ops(&report), [145, 360, 20, 0, 108]);
    assert_eq!(report.ops.completes, 633);
    assert!(report.summary.losses.is_empty(), "{:?}", report.summary.losses);
    check_order(&out);
}

#[test]
fn the_samples_of_perf_and_trace_cmd() {
    for (name, format, counts) in
        [(PERF, "perf-script", [132, 124, 10, 0, 0]), (TRACE_CMD, "trace-cmd", [62, 66, 0, 0, 0])]
    {
        let Some(text) = plain_sample(name) else { return };
        let (report, out) = import_bytes(&text).unwrap();
        assert_eq!((report.format.as_str(), ops(&report)), (format, counts));
        assert_eq!(report.ops.completes, counts.iter().sum::<u64>());
        assert!(report.summary.losses.is_empty(), "{:?}", report.summary.losses);
        assert!(report.interpretation.iter().any(|line| line.starts_with("stage: D")));
        check_order(&out);
        // Whichever of the tools is named, the events are the same.
        for from in ["ftrace", "perf-script", "trace-cmd"] {
            let options = ImportOptions { from: Some(from.into()), ..ImportOptions::default() };
            assert_eq!(import_with(&text, &options).unwrap().1.events, out.events);
        }
    }
}

/// The driver's events alone, out of the sample, are the requests that the driver got.
#[test]
fn the_nvme_driver_says_the_same_as_the_block_layer() {
    let Some(text) = plain_sample(FTRACE) else { return };
    let (_, block) = import_with(&text, &dispatch()).unwrap();
    let told = ImportOptions { from: Some("nvme-events".into()), ..ImportOptions::default() };
    let (_, both) = import_with(&text, &told).unwrap();
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    let nvme = lines.filter(|line| memchr::memmem::find(line, b"block_").is_none());
    let nvme: Vec<u8> = nvme.flatten().copied().collect();
    let (report, out) = import_bytes(&nvme).unwrap();
    assert_eq!(report.format, "nvme-events");
    let from_ftrace = ImportOptions { from: Some("ftrace".into()), ..ImportOptions::default() };
    assert_eq!(import_with(&nvme, &from_ftrace).unwrap().1.events, out.events);
    assert_eq!(ops(&report), [145, 360, 20, 0, 108]);
    assert_eq!(report.ops.completes, 633);
    assert!(report.summary.losses.is_empty(), "{:?}", report.summary.losses);
    let brief = |memory: &Memory| {
        let issues = memory.issues();
        let mut all: Vec<_> = issues.iter().map(|i| (i.op as u8, i.offset, i.len)).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(brief(&out), brief(&block));
    assert_eq!(out.events, both.events);
    assert_eq!(out.count(BlockOp::Write, OpFlags::FUA, OpFlags::FUA), 16);
    let streams: Vec<_> = out.streams.iter().map(|s| (s.device.as_str(), s.queue)).collect();
    assert_eq!(streams, [("nvme0n1", Some(2)), ("nvme0n1", Some(1))]);
    assert!(!report.summary.not_recorded.contains(NotRecorded::QUEUES));
    check_order(&out);
    let options = ImportOptions { unit_bytes: Some(4096), ..ImportOptions::default() };
    let (report, out) = import_with(&nvme, &options).unwrap();
    assert_eq!(out.issues()[0].offset, 524_160 * 4096);
    assert!(!report.summary.notes.iter().any(|note| note.contains("logical block")));
}

#[test]
fn requests_of_old_and_new_kernels_are_the_same() {
    let old = "# tracer: nop\n#\n\
        fio-1 [000] .....     1.000001: block_rq_issue: 8,0 WS 4096 () 8 + 8 [fio]\n\
        fio-1 [000] .....     1.000002: block_rq_issue: 8,0 FN 0 () 18446744073709551615 + 0 [fio]\n\
        <idle>-0 [001] d.h1.  1.000011: block_rq_complete: 8,0 WS () 8 + 8 [0]\n\
        <idle>-0 [001] d.h1.  1.000012: block_rq_complete: 8,0 FN () 18446744073709551615 + 0 [-5]\n";
    let new = old.replace(" [fio]", " be,0,4 [fio]").replace(" [0]", " be,0,4 [0]");
    let new = new.replace("FN 0", "FF 0").replace("FN ()", "FF ()");
    let perf = new.replace("-1 [", " 1 [").replace("-0 [", " 0 [").replace(" .....", "");
    let perf = perf.replace(" d.h1.", "").replace(": block_", ": block:block_");
    let perf = perf.replace("# tracer: nop\n#\n", "");
    let times_in_ns = perf.replace("1.0000", "1.0000000");
    let (_, out) = import(old);
    assert_eq!(out.issues_brief(), [(0, BlockOp::Write, 4096, 4096), (1000, BlockOp::Flush, 0, 0)]);
    assert_eq!(out.completes(), [(0, 10_000, 0), (1, 11_000, 5)]);
    assert_eq!(out.issues()[0].cpu, Some(0));
    for (text, format) in [(&new, "ftrace"), (&perf, "perf-script")] {
        let (report, other) = import(text);
        assert_eq!((report.format.as_str(), &other.events), (format, &out.events));
    }
    assert_eq!(import(&times_in_ns).1.completes(), [(0, 10, 0), (1, 11, 5)]);
}

#[test]
fn queued_requests_are_split_merged_and_remapped() {
    let text = "# tracer: nop\n\
        a-1 [000] ..... 1.000001: block_bio_queue: 253,0 W 0 + 16 [a]\n\
        a-1 [000] ..... 1.000002: block_bio_remap: 8,0 W 100 + 16 <- (253,0) 0\n\
        a-1 [000] ..... 1.000003: block_bio_queue: 8,0 W 100 + 16 [a]\n\
        a-1 [000] ..... 1.000004: block_split: 8,0 W 100 / 108 [a]\n\
        a-1 [000] ..... 1.000005: block_rq_issue: 8,0 W 4096 () 100 + 8 [a]\n\
        a-1 [000] ..... 1.000006: block_rq_issue: 8,0 W 4096 () 108 + 8 [a]\n\
        a-1 [000] d.h.. 1.000007: block_rq_complete: 8,0 W () 108 + 8 [0]\n\
        a-1 [000] d.h.. 1.000008: block_rq_complete: 8,0 W () 100 + 8 [-5]\n\
        a-1 [000] d.h.. 1.000009: block_rq_error: 8,0 W () 100 + 8 [-5]\n\
        a-1 [000] d.h.. 1.000010: block_bio_complete: 253,0 W 0 + 16 [-5]\n";
    let (report, out) = import(text);
    assert_eq!(out.streams.iter().map(|s| s.device.as_str()).collect::<Vec<_>>(), ["253,0", "8,0"]);
    assert_eq!(out.completes(), [(1, 7000, 5), (0, 9000, 5)]);
    assert!(report.summary.losses.is_empty());
    // A driver gets no bio: dm's completion answers nothing at stage D.
    let (report, out) = import_with(text.as_bytes(), &dispatch()).unwrap();
    assert_eq!(out.completes(), [(1, 6000, 0), (0, 7000, 5)]);
    assert!(report.summary.losses.is_empty(), "{:?}", report.summary.losses);
    let options = ImportOptions { device: Some("8,0".into()), ..ImportOptions::default() };
    let (_, out) = import_with(text.as_bytes(), &options).unwrap();
    assert_eq!((out.streams.len(), out.issues().len()), (1, 1));
}

#[test]
fn a_capture_without_dispatches_is_read_by_what_it_has() {
    let text = "a-1 [000] 1.000001: block_io_start: 8,0 W 4096 () 0 + 8 none,0,0 [a]\n\
        a-1 [000] 1.000002: block_rq_insert: 8,0 W 4096 () 0 + 8 none,0,0 [a]\n\
        a-1 [000] 1.000003: block_io_done: 8,0 W 4096 () 0 + 8 none,0,0 [a]\n";
    let (report, out) = import(text);
    assert_eq!(report.format, "trace-cmd");
    assert_eq!(out.issues_brief(), [(0, BlockOp::Write, 0, 4096)]);
    assert_eq!(out.completes(), [(0, 2000, 0)]);
    assert!(report.interpretation.contains(&"issue: block_io_start".to_owned()));
    let only_inserted = text.replace("block_io", "sched_io");
    let (report, out) = import(&only_inserted);
    assert_eq!((out.issues().len(), out.completes().len()), (1, 0));
    assert!(report.summary.not_recorded.contains(NotRecorded::COMPLETIONS));
    // Asked for the stage that it lacks, it says so.
    let queue = ImportOptions { stage: Some(Stage::Queue), ..ImportOptions::default() };
    let error = import_with(text.as_bytes(), &queue).unwrap_err();
    assert_eq!((error.kind(), error.hint_text()), (ErrorKind::Nothing, Some("--stage D finds 1")));
}

#[test]
fn requeued_and_packet_commands() {
    let text = "a-1 [000] 1.1: block_rq_issue: 8,0 W 4096 () 0 + 8 [a]\n\
        a-1 [000] 1.2: block_rq_requeue: 8,0 W () 0 + 8 [0]\n\
        a-1 [000] 1.3: block_rq_issue: 8,0 W 4096 () 0 + 8 [a]\n\
        a-1 [000] 1.4: block_rq_issue: 8,0 R 36 (12 00 00 00 24 00) 0 + 0 [udevd]\n\
        a-1 [000] 1.5: block_rq_complete: 8,0 W () 0 + 8 [0]\n";
    let (report, out) = import(text);
    assert_eq!((out.issues().len(), out.completes()), (1, vec![(0, 400_000_000, 0)]));
    assert_eq!(losses(&report), [("packet command of a driver or user", 1, "line 4")]);
    assert!(report.summary.notes[0].starts_with("1 dispatches were handed back"));
}

#[test]
fn what_is_lost_has_its_line() {
    let text = "# tracer: nop\n\
        # entries-in-buffer/entries-written: 10/25   #P:2\n\
        a-1 [000] ..... 1.000001: block_rq_issue: 8,0 W 4096 () 0 + 8 [a]\n\
        CPU:1 [LOST 7 EVENTS]\n\
        a-1 [000] ..... 1.000002: sched_switch: prev_comm=a\n\
        a-1 [000] ..... 1.000003: block_rq_issue: 8,0 W 4096\n\
        what is this\n\
         => blk_mq_start_request\n\
        a-1 [000] ..... 1.000004: block_rq_complete: 8,0 R () 0 + 8 [0]\n\
        a-1 [000] ..... 1.000005: block_rq_issue: 8,0 R 0 () 0 + 0 [a]\n";
    let (report, _) = import(text);
    assert_eq!(
        losses(&report),
        [
            ("events that the tracer lost", 22, "line 2"),
            ("other event: sched_switch", 1, "line 5"),
            ("event without SECTOR + SECTORS", 1, "line 6"),
            ("line without a trace event", 1, "line 7"),
            ("completion of a request whose issue is not in the capture", 1, "line 9"),
            ("request of length 0", 1, "line 10"),
        ]
    );
    // Nothing of the block layer at all.
    let error = import_bytes(b"# tracer: nop\na-1 [000] .... 1.0: sched_switch: x\n").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Nothing);
}

#[test]
fn clocks_that_count_no_nanoseconds_are_noted() {
    let text = "# tracer: nop\n\
        a-1 [000] .....     100: block_rq_issue: 8,0 W 4096 () 0 + 8 [a]\n\
        a-1 [000] .....     120: block_rq_complete: 8,0 W () 0 + 8 [0]\n";
    let (report, out) = import(text);
    assert_eq!(out.completes(), [(0, 20, 0)]);
    assert!(report.summary.notes.iter().any(|note| note.contains("--time-unit")));
    let options = ImportOptions { time_unit: Some(TimeUnit::Us), ..ImportOptions::default() };
    let (report, out) = import_with(text.as_bytes(), &options).unwrap();
    assert_eq!(out.completes(), [(0, 20_000, 0)]);
    assert!(!report.summary.notes.iter().any(|note| note.contains("--time-unit")));
}

#[test]
fn files_of_each_cpu_are_merged_by_time() {
    let a = "a-1 [000] .... 1.000001: block_rq_issue: 8,0 W 4096 () 0 + 8 [a]\n\
             a-1 [000] .... 1.000004: block_rq_issue: 8,0 W 4096 () 8 + 8 [a]\n";
    let b = "a-1 [001] .... 1.000003: block_rq_complete: 8,0 W () 0 + 8 [0]\n\
             a-1 [001] .... 1.000005: block_rq_complete: 8,0 W () 8 + 8 [0]\n";
    let inputs: [(&str, &[u8]); 2] = [("cpu0", a.as_bytes()), ("cpu1", b.as_bytes())];
    let (report, out) = import_many(&inputs, &ImportOptions::default()).unwrap();
    assert_eq!(out.completes(), [(0, 2000, 0), (1, 4000, 0)]);
    assert!(report.summary.losses.is_empty());
}

#[test]
fn commands_that_are_no_requests_of_a_disk() {
    let line = |n: u32, tail: &str| format!("a-1 [000] .... 1.00000{n}: {tail}\n");
    let setup = |n, qid: u32, cmd: &str| {
        line(
            n,
            &format!(
                "nvme_setup_cmd: nvme0: disk=nvme0n1, qid={qid}, cmdid={n}, nsid=1, flags=0x0, meta=0x0, cmd=({cmd})"
            ),
        )
    };
    let done = |n, qid: u32, cmdid: u32, status: &str| {
        line(
            n,
            &format!(
                "nvme_complete_rq: nvme0: disk=nvme0n1, qid={qid}, cmdid={cmdid}, res=0x0, retries=0, flags=0x0, status={status}"
            ),
        )
    };
    let text = [
        setup(1, 1, "nvme_cmd_read slba=8, len=7, ctrl=0x0, dsmgmt=0, reftag=0"),
        setup(2, 1, "nvme_cmd_dsm nr=0, attributes=4"),
        setup(3, 0, "nvme_admin_identify cns=1, ctrlid=0"),
        done(4, 0, 3, "0x0"),
        done(5, 1, 1, "0x4281"),
        done(6, 1, 2, "0x0"),
    ]
    .concat();
    let (report, out) = import(&text);
    assert_eq!(out.completes(), [(0, 4000, 61)]);
    assert_eq!(
        losses(&report),
        [
            ("discard whose ranges the event does not show", 1, "line 2"),
            ("command of the admin queue", 1, "line 3"),
        ]
    );
    // Commands of a disk that was not asked for are lost once, not with their completions again.
    let other = ImportOptions { device: Some("nvme1n1".into()), ..ImportOptions::default() };
    let error = import_with(text.as_bytes(), &other).unwrap_err();
    assert!(error.to_string().contains("devices: nvme0n1"), "{error}");
    let lone = done(1, 1, 9, "0x0") + &setup(2, 1, "nvme_cmd_flush cdw10=00 00");
    let (report, _) = import(&lone);
    let reason = "completion of a request whose issue is not in the capture";
    assert_eq!(losses(&report), [(reason, 1, "line 1")]);
}

#[test]
fn a_capture_of_completions_alone() {
    let text = "\
        swapper 0 [006] 1.000001: block:block_rq_complete: 8,16 RM () 8 + 8 [0]\n\
        swapper 0 [006] 1.000002: block:block_rq_complete: 8,16 FF () 18446744073709551615 + 0 [0]\n\
        [...]\n\
        swapper 0 [006] 1.000003: block:block_rq_complete: 8,16 WS () 16 + 8 [0]\n";
    let (report, out) = import(text);
    assert_eq!(report.format, "perf-script");
    assert_eq!(
        out.issues_brief(),
        [
            (0, BlockOp::Read, 4096, 4096),
            (1000, BlockOp::Flush, 0, 0),
            (2000, BlockOp::Write, 8192, 4096)
        ]
    );
    assert!(report.summary.losses.is_empty());
    assert!(report.summary.not_recorded.contains(NotRecorded::COMPLETIONS));
    assert!(report.summary.notes[0].starts_with("the capture has no beginnings"));
}

#[test]
fn fields_in_place_of_the_kernels_format() {
    let perf_trace = "\
        0.000 :0/0 block:block_rq_issue(dev: 8388608, sector: 8, nr_sector: 8, bytes: 4096, rwbs: \"WS\", comm: \"a\", cmd: \"\")\n\
        0.001 :0/0 block:block_rq_issue(dev: 8388608, rwbs: \"FF\", comm: \"a\", cmd: \"\")\n\
        0.002 :0/0 block:block_rq_complete(dev: 8388608, sector: 8, nr_sector: 8, rwbs: \"WS\", cmd: \"\")\n\
        0.003 :0/0 block:block_rq_complete(dev: 8388608, error: -5, rwbs: \"FF\", cmd: \"\")\n";
    let trace_cmd = "cpus=1\n\
        a-1 [000]-0x0 1.000000: block_rq_issue: dev=8388608 sector=8 nr_sector=8 bytes=4096 rwbs=WS comm=a cmd=\n\
        a-1 [000]-0x0 1.000001: block_rq_issue: dev=8388608 sector=18446744073709551615 nr_sector=0 bytes=0 rwbs=FF comm=a cmd=\n\
        a-1 [000]-0x1 1.000002: block_rq_complete: [FAILED TO PARSE] dev=8388608 sector=8 nr_sector=8 error=0 rwbs=WS cmd=\n\
        a-1 [000]-0x1 1.000003: block_rq_complete: dev=8388608 sector=18446744073709551615 nr_sector=0 error=-5 rwbs=FF cmd=\n";
    for (text, format) in [(perf_trace, "perf-script"), (trace_cmd, "trace-cmd")] {
        let (report, out) = import(text);
        assert_eq!(report.format, format);
        assert_eq!(
            out.issues_brief(),
            [(0, BlockOp::Write, 4096, 4096), (1000, BlockOp::Flush, 0, 0)]
        );
        assert_eq!(out.completes(), [(0, 2000, 0), (1, 3000, 5)]);
        assert_eq!(out.streams[0].device, "8,0");
        assert!(report.summary.losses.is_empty(), "{:?}", report.summary.losses);
    }
}

#[test]
fn the_tracer_blk_tells_of_the_same_moments() {
    let text = "# tracer: blk\n#\n\
        a-305   [000]  1.000001:   8,1    A  WS 16 + 8 <- (8,2) 8\n\
        a-305   [000]  1.000002:   8,1    Q  WS 16 + 8 [a]\n\
        a-305   [000]  1.000003:   8,1    G  WS 16 + 8 [a]\n\
        a-305   [000]  1.000004:   8,1    Q FWS [a]\n\
        a-305   [000]  1.000005:   8,1    D  WS 16 + 8 [a]\n\
        <idle>-0     [000]  1.000007:   8,1    C  WS 16 + 8 [0]\n\
        <idle>-0     [000]  1.000008:   8,1    C FWS 0 [0]\n";
    let (report, out) = import(text);
    assert_eq!(report.format, "ftrace");
    assert_eq!(out.issues_brief(), [(0, BlockOp::Write, 8192, 4096), (2000, BlockOp::Flush, 0, 0)]);
    assert_eq!(out.completes(), [(0, 5000, 0), (1, 6000, 0)]);
    assert!(report.summary.losses.is_empty(), "{:?}", report.summary.losses);
    let (_, out) = import_with(text.as_bytes(), &dispatch()).unwrap();
    assert_eq!(out.issues_brief(), [(3000, BlockOp::Write, 8192, 4096)]);
}

#[test]
fn a_text_without_times_keeps_its_order() {
    let text = "\
        block:block_rq_issue: 8,0 WS 4096 () 8 + 8 [a]\n\
        block:block_rq_issue: 8,0 R 4096 () 16 + 8 [a]\n\
        block:block_rq_complete: 8,0 R () 16 + 8 [0]\n";
    for (text, format) in
        [(text.to_owned(), "perf-script"), ("# tracer: nop\n".to_owned() + text, "ftrace")]
    {
        let (report, out) = import(&text);
        assert_eq!(report.format, format);
        let want = [(0, BlockOp::Write, 4096, 4096), (0, BlockOp::Read, 8192, 4096)];
        assert_eq!(out.issues_brief(), want);
        assert_eq!(out.completes(), [(1, 0, 0)]);
        assert!(report.summary.not_recorded.contains(NotRecorded::TIMES));
    }
}

#[test]
fn a_capture_without_requeues_says_what_it_cannot_tell() {
    let line = |n: u32, what: &str| format!("a-1 [000] 1.{n}: block_rq_{what}\n");
    let issue = |n| line(n, "issue: 8,0 W 4096 () 0 + 8 [a]");
    let (back, done) =
        (line(2, "requeue: 8,0 W () 0 + 8 [0]"), line(4, "complete: 8,0 W () 0 + 8 [0]"));
    let notes = |text: String| import(&text).0.summary.notes.join("\n");
    let again = "dispatched while equal ones were in flight";
    assert!(notes([issue(1), issue(3), done.clone()].concat()).contains(again));
    assert!(!notes([issue(1), back, issue(3), done.clone()].concat()).contains(again));
    assert!(!notes([issue(1), done.clone(), issue(5), done].concat()).contains(again));
}
