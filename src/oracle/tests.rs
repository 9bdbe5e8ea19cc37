use super::testing::{Damage, Run, TestTrace};
use super::*;
use crate::base::Prng;

fn config(overlap: bool) -> OracleConfig {
    OracleConfig { seed: 11, target_bytes: 1 << 20, overlap, ..OracleConfig::default() }
}

/// `len` bytes that depend on `n` everywhere.
fn noise(n: u64, len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    Prng::new(n).fill(&mut data);
    data
}

/// A run of a trace with damage: the verdict.
fn verdict(trace: &TestTrace, damage: &[Damage]) -> Verdict {
    let mut run = Run::new(trace.clone(), config(false), damage);
    run.all();
    run.finish()
}

/// The one finding of such a run.
fn only(trace: &TestTrace, damage: &[Damage]) -> Finding {
    let verdict = verdict(trace, damage);
    assert!(!verdict.pass, "{damage:?} is seen");
    assert_eq!(verdict.findings.len(), 1, "{:#?}", verdict.findings);
    assert_eq!(verdict.findings_total, 1);
    verdict.findings.into_iter().next().unwrap()
}

/// Overlapping writes, with and without data: (trace, base write, A, W).
/// Base covers 0..16 KiB, A 2..6 KiB, W 4..10 KiB.
fn overlapping(stamped: bool) -> TestTrace {
    let mut trace = TestTrace::new();
    for (n, (offset, len)) in [(0, 16384), (2048, 4096), (4096, 6144)].into_iter().enumerate() {
        if stamped {
            trace.stamped(offset, len);
        } else {
            trace.write(offset, &noise(n as u64, len as usize));
        }
    }
    trace
}

#[test]
fn a_clean_run_has_no_findings_and_says_what_was_checked() {
    for stamped in [false, true] {
        let mut trace = overlapping(stamped);
        trace.issue(BlockOp::WriteZeroes, 1024, 1024, PayloadRef::Absent);
        trace.read(0, 32768);
        let verdict = verdict(&trace, &[]);
        assert!(verdict.pass, "{:#?}", verdict.findings);
        assert_eq!(verdict.image_bytes_checked, Some(1 << 20));
        assert_eq!((verdict.reads_checked, verdict.read_bytes_checked), (1, 32768));
    }
}

#[test]
fn a_dropped_write_is_one_finding() {
    for stamped in [false, true] {
        let trace = overlapping(stamped);
        let finding = only(&trace, &[Damage::Drop(2)]);
        assert_eq!(finding.name(), "dropped_write");
        assert_eq!(finding.kind, FindingKind::ImageMismatch);
        assert_eq!((finding.event, finding.offset), (Some(2), Some(4096)));
        assert_eq!(finding.bytes, 6144);
        assert_eq!(finding.last_writer.as_ref().unwrap().event, 2);
        let alone = only(&trace, &[Damage::Drop(1)]);
        assert_eq!((alone.name(), alone.event), ("dropped_write", Some(1)));
        assert_eq!((alone.offset, alone.bytes), (Some(2048), 2048), "the part still visible");
    }
}

#[test]
fn a_first_write_that_is_dropped_leaves_zeros() {
    let mut trace = TestTrace::new();
    trace.write(8192, &noise(1, 4096));
    let finding = only(&trace, &[Damage::Drop(0)]);
    assert_eq!((finding.name(), finding.offset), ("dropped_write", Some(8192)));
    assert!(finding.found_writer.is_none());
}

#[test]
fn swapped_writes_name_both() {
    for stamped in [false, true] {
        let trace = overlapping(stamped);
        let finding = only(&trace, &[Damage::Delay(1, 2)]);
        assert_eq!(finding.name(), "swapped_writes", "{}", finding.message);
        assert_eq!(finding.event, Some(2));
        assert_eq!(finding.found_writer.as_ref().unwrap().event, 1);
        assert_eq!((finding.offset, finding.bytes), (Some(4096), 2048));
    }
}

#[test]
fn swapped_writes_of_one_place_look_like_a_drop_and_say_so() {
    let mut trace = TestTrace::new();
    trace.write(0, &noise(1, 4096));
    trace.write(0, &noise(2, 4096));
    let finding = only(&trace, &[Damage::Delay(0, 1)]);
    assert_eq!(finding.name(), "dropped_write");
    assert_eq!(finding.alternatives, [Fault::SwappedWrites]);
}

#[test]
fn a_read_in_between_tells_a_swap_from_a_drop() {
    let mut trace = TestTrace::new();
    trace.write(0, &noise(1, 4096));
    trace.read(0, 4096);
    trace.write(0, &noise(2, 4096));
    let verdict = verdict(&trace, &[Damage::Delay(0, 2)]);
    let names: Vec<_> = verdict.findings.iter().map(Finding::name).collect();
    assert_eq!(names, ["dropped_write", "swapped_writes"]);
    let both =
        (verdict.findings[1].event, verdict.findings[1].found_writer.as_ref().unwrap().event);
    assert_eq!(both, (Some(2), 0));
}

#[test]
fn a_check_of_the_image_can_be_stopped() {
    let trace = overlapping(false);
    let mut run = Run::new(trace, config(false), &[]);
    run.all();
    let stop = Arc::new(AtomicBool::new(false));
    run.oracle.stop_when(stop.clone());
    run.oracle.check_image(&run.disk, &mut |_| stop.store(true, Ordering::Relaxed)).unwrap();
    let checked = run.oracle.finish().image_bytes_checked.unwrap();
    assert!(checked > 0 && checked < 1 << 20, "{checked}");
}

#[test]
fn a_torn_write_at_a_sector_or_within_one_from_either_end() {
    for stamped in [false, true] {
        let trace = overlapping(stamped);
        for damage in [
            Damage::Tear(2, 3072),
            Damage::Tear(2, 3000),
            Damage::TearFront(2, 1024),
            Damage::TearFront(2, 1100),
        ] {
            let finding = only(&trace, &[damage]);
            assert_eq!(finding.name(), "torn_write", "{damage:?} {}", finding.message);
            assert_eq!(finding.event, Some(2));
        }
        let within = only(&trace, &[Damage::Tear(2, 3000)]);
        assert_eq!(within.offset, Some(4096 + 3000));
    }
}

#[test]
fn a_torn_first_write_has_zeros_in_the_rest() {
    let mut trace = TestTrace::new();
    trace.stamped(4096, 8192);
    let finding = only(&trace, &[Damage::Tear(0, 5000)]);
    assert_eq!((finding.name(), finding.offset), ("torn_write", Some(4096 + 5000)));
}

#[test]
fn a_flipped_byte_is_named_by_offset() {
    for stamped in [false, true] {
        let mut trace = overlapping(stamped);
        for byte in [5000, 4096 + 20] {
            let finding = only(&trace, &[Damage::Flip(2, byte)]);
            assert_eq!((finding.name(), finding.offset), ("flipped_bytes", Some(byte)));
            assert_eq!((&finding.flipped[..], finding.sector), (&[byte][..], Some(byte / 512)));
            let at = (byte - finding.shown_from) as usize;
            assert_eq!(finding.expected.0[at] ^ finding.got.0[at], 0x10);
            assert_eq!(finding.expected.0.len(), 64);
        }
        // A later read sees it first: still one finding, and it is the read's.
        let read = trace.read(4096, 4096);
        trace.read(0, 16384);
        let finding = only(&trace, &[Damage::Flip(2, 5000)]);
        assert_eq!(finding.kind, FindingKind::DataMismatch);
        assert_eq!((finding.event, finding.offset), (Some(read), Some(5000)));
        assert_eq!(finding.last_writer.unwrap().event, 2);
        assert_eq!(finding.occurrences, 3);
    }
}

#[test]
fn a_read_names_the_fault_without_the_image() {
    let mut trace = overlapping(false);
    let read = trace.read(0, 16384);
    for (damage, name) in [
        (Damage::Drop(2), "dropped_write"),
        (Damage::Delay(1, 2), "swapped_writes"),
        (Damage::Tear(2, 3000), "torn_write"),
        (Damage::Garble(2), "foreign_data"),
    ] {
        let config = OracleConfig { verify: Verify::Reads, ..config(false) };
        let mut run = Run::new(trace.clone(), config, &[damage]);
        run.all();
        let verdict = run.oracle.finish();
        assert_eq!(verdict.findings.len(), 1, "{:#?}", verdict.findings);
        assert_eq!((verdict.findings[0].name(), verdict.findings[0].event), (name, Some(read)));
        assert_eq!(verdict.image_bytes_checked, None);
    }
}

#[test]
fn a_write_in_another_place_is_seen_where_it_is_and_where_it_is_not() {
    let mut trace = TestTrace::new();
    trace.stamped(0, 4096);
    let verdict = verdict(&trace, &[Damage::Misplace(0, 65536)]);
    let names: Vec<_> = verdict.findings.iter().map(Finding::name).collect();
    assert_eq!(names, ["dropped_write", "misdirected_write"]);
    assert_eq!(verdict.findings[1].found_writer.as_ref().unwrap().event, 0);
    assert_eq!(verdict.findings[1].offset, Some(65536));
}

#[test]
fn bytes_of_no_origin_are_foreign_wherever_they_are() {
    let trace = overlapping(false);
    assert_eq!(only(&trace, &[Damage::Garble(2)]).name(), "foreign_data");
    let mut run = Run::new(trace, config(false), &[]);
    run.all();
    run.disk.bytes.lock().unwrap()[100_000..101_000].fill(9);
    let verdict = run.finish();
    assert_eq!(verdict.findings.len(), 1);
    assert_eq!(verdict.findings[0].name(), "foreign_data");
    assert!(verdict.findings[0].last_writer.is_none());
    assert_eq!(verdict.findings[0].offset, Some(100_000));
}

#[test]
fn holes_are_not_read() {
    let mut trace = TestTrace::new();
    trace.write(0, &noise(1, 1024));
    let mut run = Run::new(trace, OracleConfig { target_bytes: 64 << 20, ..config(false) }, &[]);
    run.all();
    run.oracle.check_image(&run.disk, &mut |_| ()).unwrap();
    assert_eq!(run.disk.reads.lock().unwrap().len(), 1);
    assert_eq!(run.oracle.finish().image_bytes_checked, Some(64 << 20));
}

#[test]
fn discards_and_unknown_sectors_are_counted_not_judged() {
    let mut trace = TestTrace::new();
    trace.write(0, &noise(1, 4096));
    trace.issue(BlockOp::Discard, 0, 1024, PayloadRef::Absent);
    trace.read(0, 8192);
    let mut run = Run::new(trace, OracleConfig { initially_zero: false, ..config(false) }, &[]);
    run.disk.bytes.lock().unwrap().fill(0x77);
    run.all();
    let verdict = run.finish();
    assert!(verdict.pass, "{:#?}", verdict.findings);
    let reads = &verdict.unverifiable_read_bytes;
    assert_eq!(reads[&Unverifiable::Discarded], 1024);
    assert_eq!(reads[&Unverifiable::NotWritten], 4096);
    assert_eq!(verdict.read_bytes_checked, 3072);
    assert_eq!(verdict.image_bytes_checked, Some(3072));
}

#[test]
fn what_the_recording_read_is_what_an_old_target_must_hold() {
    let mut trace = TestTrace::new();
    trace.write(0, &noise(1, 512));
    let recorded = [&noise(1, 512)[..], &noise(2, 512)].concat();
    let read = trace.read_with(0, &recorded);
    for (on_disk, pass) in [(noise(2, 512), true), (noise(3, 512), false)] {
        let config = OracleConfig { initially_zero: false, ..config(false) };
        let mut run = Run::new(trace.clone(), config, &[]);
        run.disk.bytes.lock().unwrap()[512..1024].copy_from_slice(&on_disk);
        run.all();
        let verdict = run.oracle.finish();
        assert_eq!(verdict.pass, pass, "{:#?}", verdict.findings);
        if !pass {
            let finding = &verdict.findings[0];
            assert_eq!((finding.event, finding.sector), (Some(read), Some(1)));
            assert_eq!(finding.expected.0[..], noise(2, 512)[..64]);
            let message = &finding.message;
            assert!(message.contains("returned when it was recorded"), "{message}");
            assert!(!message.contains("zeros"), "{message}");
        }
    }
}

#[test]
fn reads_of_what_was_there_before_the_recording_are_told_on_a_new_target() {
    for (before, told) in [(noise(2, 512), true), (vec![0; 512], false)] {
        let mut trace = TestTrace::new();
        trace.write(0, &noise(1, 512));
        let read = trace.read_with(0, &[&noise(1, 512)[..], &before].concat());
        let mut run = Run::new(trace, config(false), &[]);
        run.all();
        assert_eq!(run.oracle.content_before(), told.then_some(read));
        assert!(run.oracle.finish().pass);
    }
}

#[test]
fn failures_are_findings_and_leave_their_range_open() {
    let mut trace = TestTrace::new();
    trace.write(0, &noise(1, 1024));
    trace.write(0, &noise(2, 512));
    trace.read(0, 1024);
    let mut run = Run::new(trace, config(false), &[]);
    run.one(0);
    let (request, _) = run.trace.request(1, 11);
    run.oracle.issued(1, &request).unwrap();
    run.oracle.completed(1, BlockStatus::IoErr, None).unwrap();
    run.one(2);
    let (read, _) = run.trace.request(2, 11);
    for (token, status) in [(5, BlockStatus::BadLength(3)), (6, BlockStatus::Bad(0xff))] {
        run.oracle.issued(token, &read).unwrap();
        run.oracle.completed(token, status, None).unwrap();
    }
    run.oracle.issued(7, &read).unwrap();
    run.oracle.failed_as_recorded(7).unwrap();
    let verdict = run.finish();
    let names: Vec<_> = verdict.findings.iter().map(Finding::name).collect();
    assert_eq!(names, ["status_error", "bad_used_length", "status_error"]);
    assert_eq!((verdict.findings[0].event, verdict.findings[0].offset), (Some(1), Some(0)));
    assert_eq!(verdict.unverifiable_read_bytes[&Unverifiable::FailedWrite], 512);
    assert_eq!(verdict.unverifiable_image_bytes[&Unverifiable::FailedWrite], 512);
    assert_eq!(verdict.failed_as_recorded, 1);
}

#[test]
fn a_write_without_an_answer_may_have_landed_or_not() {
    let mut trace = TestTrace::new();
    trace.write(0, &noise(1, 1024));
    trace.write(0, &noise(2, 512));
    for landed in [false, true] {
        let mut run = Run::new(trace.clone(), config(false), &[]);
        run.one(0);
        let (request, data) = run.trace.request(1, 11);
        run.oracle.issued(1, &request).unwrap();
        if landed {
            run.disk.bytes.lock().unwrap()[..512].copy_from_slice(&data);
        }
        let verdict = run.finish();
        assert!(verdict.pass);
        assert_eq!(verdict.unverifiable_image_bytes[&Unverifiable::Unanswered], 512);
    }
}

#[test]
fn later_passes_rewrite_with_their_own_stamps() {
    let mut trace = TestTrace::new();
    trace.stamped(0, 512);
    let mut oracle = Oracle::new(Arc::new(trace.clone()), config(false)).unwrap();
    for pass in 0..3 {
        let (mut request, _) = trace.request(0, 11);
        request.write = pass;
        oracle.issued(0, &request).unwrap();
        oracle.completed(0, BlockStatus::Ok, None).unwrap();
    }
    let read = PlannedRequest { op: BlockOp::Read, ..trace.request(0, 11).0 };
    let mut data = [0; 512];
    for (write, pass) in [(2, true), (1, false)] {
        crate::base::stamp::fill(&mut data, 11, 0, write);
        oracle.issued(9, &read).unwrap();
        oracle.completed(9, BlockStatus::Ok, Some(&data)).unwrap();
        assert_eq!(oracle.findings() == 0, pass);
    }
    let verdict = oracle.finish();
    assert_eq!(verdict.findings[0].name(), "dropped_write");
    let (last, found) = (&verdict.findings[0].last_writer, &verdict.findings[0].found_writer);
    assert_eq!(last.as_ref().unwrap().pass, 2);
    assert_eq!(found.as_ref().unwrap().pass, 1);
}

/// Three writes of one sector and a read of it, issued and answered in any order.
mod overlapping_requests {
    use super::*;

    struct Trial {
        trace: TestTrace,
        oracle: Oracle,
    }

    impl Trial {
        fn new() -> Self {
            let mut trace = TestTrace::new();
            for _ in 0..3 {
                trace.stamped(0, 512);
            }
            trace.read(0, 512);
            let oracle = Oracle::new(Arc::new(trace.clone()), config(true)).unwrap();
            Self { trace, oracle }
        }

        /// `+n` issues event n, `-n` answers it; a read is answered with what write `content` left
        /// (`None`: zeros). Whether nothing was found.
        fn admits(order: &str, content: Option<u64>) -> bool {
            let mut trial = Self::new();
            let mut data = [0; 512];
            if let Some(write) = content {
                crate::base::stamp::fill(&mut data, 11, 0, write);
            }
            for step in order.split_whitespace() {
                let event: u64 = step[1..].parse().unwrap();
                let (request, _) = trial.trace.request(event, 11);
                if step.starts_with('+') {
                    trial.oracle.issued(event, &request).unwrap();
                } else {
                    let data = (request.op == BlockOp::Read).then_some(&data[..]);
                    trial.oracle.completed(event, BlockStatus::Ok, data).unwrap();
                }
            }
            trial.oracle.findings() == 0
        }

        fn admitted(order: &str) -> Vec<Option<u64>> {
            let all = [None, Some(0), Some(1), Some(2)];
            all.into_iter().filter(|c| Self::admits(order, *c)).collect()
        }
    }

    #[test]
    fn one_after_the_other_admits_the_last() {
        assert_eq!(Trial::admitted("+0 -0 +1 -1 +3 -3"), [Some(1)]);
        assert_eq!(Trial::admitted("+3 -3 +0 -0"), [None]);
    }

    #[test]
    fn a_write_in_flight_with_the_read_is_admitted_beside_what_was_before() {
        assert_eq!(Trial::admitted("+0 +3 -3 -0"), [None, Some(0)]);
        assert_eq!(Trial::admitted("+3 +0 -3 -0"), [None, Some(0)]);
        assert_eq!(Trial::admitted("+3 +0 -0 -3"), [None, Some(0)]);
        assert_eq!(Trial::admitted("+3 +0 -0 +1 -1 -3"), [None, Some(0), Some(1)]);
        assert_eq!(Trial::admitted("+0 -0 +3 +1 -1 +2 -3 -2"), [Some(0), Some(1), Some(2)]);
    }

    #[test]
    fn writes_that_raced_may_each_be_the_last() {
        assert_eq!(Trial::admitted("+0 +1 -0 -1 +3 -3"), [Some(0), Some(1)]);
        assert_eq!(Trial::admitted("+0 +1 -1 -0 +3 -3"), [Some(0), Some(1)]);
        assert_eq!(Trial::admitted("+0 +1 -0 -1 +2 -2 +3 -3"), [Some(2)], "and then one did not");
        assert_eq!(Trial::admitted("+0 +1 +2 -1 -0 -2 +3 -3"), [Some(0), Some(1), Some(2)]);
    }

    #[test]
    fn a_write_issued_after_another_was_answered_overwrites_it() {
        // 1 is in flight throughout; 2 is issued when 0 is done.
        assert_eq!(Trial::admitted("+0 +1 -0 +2 -2 -1 +3 -3"), [Some(1), Some(2)]);
    }

    #[test]
    fn an_image_may_hold_any_of_them() {
        for (content, pass) in [(0, true), (1, true), (2, false)] {
            let mut trial = Trial::new();
            for event in [0, 1] {
                trial.oracle.issued(event, &trial.trace.request(event, 11).0).unwrap();
            }
            for event in [0, 1] {
                trial.oracle.completed(event, BlockStatus::Ok, None).unwrap();
            }
            let disk = super::super::testing::Disk::new(4096);
            crate::base::stamp::fill(&mut disk.bytes.lock().unwrap()[..512], 11, 0, content);
            trial.oracle.check_image(&disk, &mut |_| ()).unwrap();
            assert_eq!(trial.oracle.findings() == 0, pass, "{content}");
        }
    }

    #[test]
    fn only_the_shared_part_is_contested() {
        let mut trace = TestTrace::new();
        trace.stamped(0, 2048);
        trace.stamped(1024, 2048);
        trace.read(0, 3072);
        for (second_wins_from, pass) in [(2, true), (4, true), (1, false), (5, false)] {
            let mut oracle = Oracle::new(Arc::new(trace.clone()), config(true)).unwrap();
            for event in [0, 1] {
                oracle.issued(event, &trace.request(event, 11).0).unwrap();
            }
            for event in [0, 1] {
                oracle.completed(event, BlockStatus::Ok, None).unwrap();
            }
            let mut data = vec![0; 3072];
            let cut = second_wins_from * 512;
            crate::base::stamp::fill(&mut data[..cut], 11, 0, 0);
            crate::base::stamp::fill(&mut data[cut..], 11, second_wins_from as u64, 1);
            oracle.issued(2, &trace.request(2, 11).0).unwrap();
            oracle.completed(2, BlockStatus::Ok, Some(&data)).unwrap();
            assert_eq!(oracle.findings() == 0, pass, "{second_wins_from}");
        }
    }
}

#[test]
fn verify_none_checks_statuses_only() {
    let mut trace = TestTrace::new();
    trace.write(0, &noise(1, 512));
    trace.read(0, 512);
    let mut run =
        Run::new(trace, OracleConfig { verify: Verify::None, ..config(false) }, &[Damage::Drop(0)]);
    assert!(!run.oracle.wants_data());
    run.all();
    assert!(run.oracle.finish().pass);
}

#[test]
fn thousands_of_wrong_writes_are_counted_and_the_first_are_kept() {
    let mut trace = TestTrace::new();
    let events: Vec<u64> = (0..300).map(|n| trace.stamped(n * 1024, 512)).collect();
    let damage: Vec<Damage> = events.iter().map(|e| Damage::Drop(*e)).collect();
    let verdict = verdict(&trace, &damage);
    assert_eq!(verdict.findings.len(), crate::base::limits::FINDINGS_MAX);
    assert_eq!(verdict.findings_total, 300);
}

#[test]
fn each_differing_extent_of_a_comparison_image_is_named() {
    let trace = overlapping(false);
    let compared = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut run = Run::new(trace.clone(), config(false), &[]);
        run.all();
        let mut want = run.disk.bytes.lock().unwrap().clone();
        change(&mut want);
        let image = super::testing::Disk::new(0);
        *image.bytes.lock().unwrap() = want;
        run.oracle.check_comparison(&run.disk, &image, &mut |_| ()).unwrap();
        run.oracle.finish()
    };
    let same = compared(&|_| ());
    assert!(same.pass);
    assert_eq!(same.comparison_bytes_checked, Some(1 << 20));
    let wrong = compared(&|want| {
        want[5000] ^= 1;
        want[9000] ^= 1;
        want[500_000] = 1;
    });
    let names: Vec<_> = wrong.findings.iter().map(Finding::name).collect();
    assert_eq!(names, ["comparison_mismatch"; 3]);
    let places: Vec<_> = wrong.findings.iter().map(|f| (f.offset.unwrap(), f.event)).collect();
    assert_eq!(places, [(5000, Some(2)), (9000, Some(2)), (500_000, None)]);
    assert_eq!(wrong.findings[0].bytes, 512);
    let short = compared(&|want| want.truncate(1 << 19));
    assert_eq!(short.findings[0].name(), "size_mismatch");
}

#[test]
fn what_the_faulty_image_does_is_named_as_that() {
    use crate::image::{fault, mem, read_exact, write_all};
    for (spec, name, event) in [
        ("drop:2", "dropped_write", 2),
        ("tear:2", "torn_write", 2),
        ("flip:2", "flipped_bytes", 2),
        ("swap:1", "swapped_writes", 2),
        ("error:2", "status_error", 2),
    ] {
        let trace = overlapping(false);
        let image = fault::wrap(mem(1 << 20), spec.parse().unwrap());
        let mut oracle = Oracle::new(Arc::new(trace.clone()), config(false)).unwrap();
        for event in 0..3 {
            let (request, data) = trace.request(event, 11);
            oracle.issued(event, &request).unwrap();
            let status = match write_all(&*image, &data, request.sector * 512) {
                Ok(()) => BlockStatus::Ok,
                Err(_) => BlockStatus::IoErr,
            };
            oracle.completed(event, status, None).unwrap();
        }
        oracle.check_image(&*image, &mut |_| ()).unwrap();
        let verdict = oracle.finish();
        let found: Vec<_> = verdict.findings.iter().map(|f| (f.name(), f.event)).collect();
        assert_eq!(found, [(name, Some(event))], "{spec}");
        let mut byte = [0];
        read_exact(&*image, &mut byte, verdict.findings[0].offset.unwrap()).unwrap();
        assert!(spec.starts_with("error") || verdict.findings[0].got.0.contains(&byte[0]));
    }
}
