//! The engine against the simulated device.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::engine::{Done, End, Engine, EngineConfig, Outcome, Parts};
use super::pacing::Pacer;
use super::placement::{Layout, PlanPolicy};
use super::plan::{PlanCounts, Planner};
use super::policy::{OffsetPolicy, OverlapPolicy, Pacing, UnalignedPolicy, Window};
use super::run_log::Part;
use super::testing::{
    DISK_SECTORS, FakeDevice, FakeMachine, Ledger, ListSource, complete, event, issue,
};
use crate::base::{BlockOp, Clock, Nanos, OpFlags, Prng, Result, VirtualClock, stamp};
use crate::driver::{BlockRequest, BlockStatus};
use crate::trace::{Event, Issue, PayloadRef, StreamId};

const K: u64 = 1 << 10;

/// A run to be made: change what matters to the test.
struct Rig {
    config: EngineConfig,
    pacing: Pacing,
    policy: PlanPolicy,
    events: Vec<Event>,
    device: FakeDevice,
    clock: VirtualClock,
    ledger: Ledger,
    stop: Arc<AtomicBool>,
    counts: PlanCounts,
}

impl Rig {
    fn new(events: Vec<Event>, latency: impl FnMut(u64, &BlockRequest) -> u64 + 'static) -> Self {
        let clock = VirtualClock::new();
        Self {
            config: EngineConfig {
                iodepth: 32,
                overlap: OverlapPolicy::Hold,
                window: Window::ALL,
                first_event: 0,
                loops: 1,
                seed: 1,
                hang_ns: 30_000_000_000,
                recorded_latencies: true,
                recorded_status: true,
            },
            pacing: Pacing::NoStall,
            policy: PlanPolicy { offset: OffsetPolicy::Error, unaligned: UnalignedPolicy::Round },
            events,
            device: FakeDevice::new(&clock, latency),
            clock,
            ledger: Ledger::default(),
            stop: Arc::new(AtomicBool::new(false)),
            counts: PlanCounts::default(),
        }
    }

    fn run(&mut self) -> Result<Outcome> {
        let mut source = ListSource::new(self.events.clone());
        let limits = self.device.limits.clone();
        let (capacity, block) = (limits.capacity_sectors, limits.block_bytes);
        let layout = Layout::new(self.policy, capacity, block, [true, false].into());
        let mut planner = Planner::new(layout, limits, [None, None].into_iter());
        let mut machine = FakeMachine(self.clock.clone());
        let parts = Parts {
            source: &mut source,
            accounts: &mut self.ledger,
            planner: &mut planner,
            driver: &mut self.device,
            machine: &mut machine,
            stop: &self.stop,
        };
        let outcome = Engine::new(self.config, Pacer::new(self.pacing), parts).run();
        self.counts = planner.counts;
        outcome
    }

    fn ops(&self) -> Vec<(BlockOp, u64, u32)> {
        self.device.log.iter().map(|(_, r)| (r.op, r.sector, r.sectors)).collect()
    }
}

fn with(op: BlockOp, offset: u64, len: u64, change: impl FnOnce(&mut Issue)) -> Event {
    let mut issue = issue(op, offset, len);
    change(&mut issue);
    Event::Issue(issue)
}

/// Random latencies from 1 to 100 µs.
fn shuffled(seed: u64) -> impl FnMut(u64, &BlockRequest) -> u64 {
    let mut prng = Prng::new(seed);
    move |_, _| 1_000 + prng.below(100_000)
}

/// What the disk holds when every write of the list is done in its order.
fn model(events: &[Event], loops: u64) -> Vec<u8> {
    let mut disk = vec![0u8; (DISK_SECTORS * 512) as usize];
    for (number, event) in (0..loops).flat_map(|_| events.iter()).enumerate() {
        let Event::Issue(issue) = event else { continue };
        let range = &mut disk[issue.offset as usize..(issue.offset + issue.len) as usize];
        match (issue.op, issue.payload) {
            (BlockOp::Write, PayloadRef::Absent) => {
                stamp::fill(range, 1, issue.offset / 512, number as u64);
            }
            (BlockOp::Write, payload) => range.fill(payload.to_raw() as u8),
            (BlockOp::Discard | BlockOp::WriteZeroes, _) => range.fill(0),
            _ => {}
        }
    }
    disk
}

/// A small disk area, so that nearly everything overlaps something.
fn crowded(seed: u64, count: usize) -> Vec<Event> {
    let mut prng = Prng::new(seed);
    let ops =
        [BlockOp::Write, BlockOp::Write, BlockOp::Read, BlockOp::WriteZeroes, BlockOp::Discard];
    (0..count)
        .map(|at| {
            let op = ops[prng.below(5) as usize];
            let (offset, len) = (prng.below(256) * 512, (1 + prng.below(80)) * 512);
            with(op, offset, len, |issue| {
                issue.tag = at as u64;
                let flags = [OpFlags::empty(), OpFlags::PREFLUSH, OpFlags::FUA, OpFlags::all()];
                issue.flags = flags[prng.below(4) as usize];
                if op == BlockOp::Write && prng.below(2) == 0 {
                    issue.payload = PayloadRef::Stored(1 + prng.below(200) as u32);
                }
            })
        })
        .collect()
}

#[test]
fn overlapping_requests_leave_what_the_trace_defines_at_any_depth() {
    for (depth, seed) in [(1, 1), (2, 2), (64, 3), (64, 4), (1024, 5)] {
        let mut rig = Rig::new(crowded(seed, 3000), shuffled(seed));
        rig.config.iodepth = depth;
        rig.config.loops = 2;
        rig.device.limits.depth_max = 4096;
        let outcome = rig.run().unwrap();
        assert_eq!(outcome.end, End::Complete);
        assert_eq!(outcome.requests, 6000);
        assert!(rig.device.disk == model(&rig.events, 2), "depth {depth}");
        assert!(depth == 1 || (outcome.held > 100 && outcome.held_ns > 0), "{outcome:?}");
        assert!(depth < 64 || outcome.in_flight_max > 4, "{outcome:?}");
    }
}

#[test]
fn reads_see_the_writes_before_them_and_none_behind() {
    let mut rig = Rig::new(crowded(9, 2000), shuffled(9));
    rig.config.iodepth = 64;
    rig.run().unwrap();
    let mut got: std::collections::BTreeMap<u64, Vec<u8>> = Default::default();
    for (event, data) in &rig.ledger.reads {
        got.entry(*event).or_default().extend_from_slice(data);
    }
    let mut checked = 0;
    for (number, event) in rig.events.iter().enumerate() {
        let Event::Issue(issue) = event else { continue };
        if issue.op == BlockOp::Read && number % 20 == 0 {
            let want = &model(&rig.events[..number], 1)
                [issue.offset as usize..(issue.offset + issue.len) as usize];
            // A read in pieces is answered in any order: compare as sets of sectors.
            let sort = |bytes: &[u8]| {
                let mut sectors: Vec<_> = bytes.chunks(512).map(<[u8]>::to_vec).collect();
                sectors.sort();
                sectors
            };
            assert!(sort(&got[&(number as u64)]) == sort(want), "event {number}");
            checked += 1;
        }
    }
    assert!(checked > 10);
}

#[test]
fn overlap_allow_does_not_hold() {
    let events = vec![event(BlockOp::Write, 0, 4 * K), event(BlockOp::Write, 0, 4 * K)];
    // The first write takes longer: the second one overtakes it.
    let mut rig = Rig::new(events.clone(), |number, _| 100 - number * 50);
    rig.config.overlap = OverlapPolicy::Allow;
    let outcome = rig.run().unwrap();
    assert_eq!((outcome.held, outcome.in_flight_max), (0, 2));
    assert!(rig.device.disk != model(&events, 1));
}

#[test]
fn a_held_request_counts_its_wait() {
    let events = vec![event(BlockOp::Write, 0, 512), event(BlockOp::Read, 0, 512)];
    let mut rig = Rig::new(events, |_, _| 700);
    let outcome = rig.run().unwrap();
    assert_eq!((outcome.held, outcome.held_ns), (1, 700));
    assert_eq!(rig.device.log[1].0, 700);
}

#[test]
fn preflush_and_fua_become_flush_write_flush() {
    let both = OpFlags::PREFLUSH | OpFlags::FUA;
    let events = vec![with(BlockOp::Write, 4096, 512, |i| i.flags = both)];
    let mut rig = Rig::new(events, |_, _| 10);
    let outcome = rig.run().unwrap();
    let want = [(BlockOp::Flush, 0, 0), (BlockOp::Write, 8, 1), (BlockOp::Flush, 0, 0)];
    assert_eq!(rig.ops(), want);
    let times: Vec<u64> = rig.device.log.iter().map(|(time, _)| *time).collect();
    assert_eq!(times, [0, 10, 20], "each step waits for the one before");
    let parts: Vec<Part> = rig.ledger.answers.iter().map(|a| a.1).collect();
    assert_eq!(parts, [Part::FlushBefore, Part::Body, Part::FlushAfter]);
    assert_eq!((outcome.requests, outcome.device_requests), (1, 3));
    assert_eq!((rig.counts.flush_before, rig.counts.flush_after), (1, 1));
    let done = Done {
        op: BlockOp::Write,
        bytes: 512,
        ok: true,
        issue: Nanos(0),
        complete: Nanos(30),
        due: None,
    };
    assert_eq!(rig.ledger.done, [done]);
    assert!(rig.device.disk == model(&rig.events, 1));
}

#[test]
fn others_pass_a_preflush_unless_they_overlap() {
    let events = vec![
        with(BlockOp::Write, 0, 512, |i| i.flags = OpFlags::PREFLUSH),
        event(BlockOp::Write, 4096, 512),
        event(BlockOp::Write, 0, 512),
    ];
    let mut rig = Rig::new(events, |_, _| 10);
    rig.run().unwrap();
    let want = [
        (BlockOp::Flush, 0, 0),
        (BlockOp::Write, 8, 1),
        (BlockOp::Write, 0, 1),
        (BlockOp::Write, 0, 1),
    ];
    assert_eq!(rig.ops(), want);
    assert!(rig.device.disk == model(&rig.events, 1));
}

#[test]
fn an_empty_write_with_preflush_is_a_flush() {
    let events = vec![
        with(BlockOp::Write, 0, 0, |i| i.flags = OpFlags::PREFLUSH),
        event(BlockOp::Write, 0, 0),
        with(BlockOp::WriteZeroes, 512, 512, |i| i.flags = OpFlags::FUA),
        with(BlockOp::Read, 0, 512, |i| i.flags = OpFlags::FUA),
    ];
    let mut rig = Rig::new(events, |_, _| 10);
    rig.config.iodepth = 1;
    rig.run().unwrap();
    let want = [
        (BlockOp::Flush, 0, 0),
        (BlockOp::WriteZeroes, 1, 1),
        (BlockOp::Flush, 0, 0),
        (BlockOp::Read, 0, 1),
    ];
    assert_eq!(rig.ops(), want);
    assert_eq!(rig.counts.empty, 1);
}

#[test]
fn a_device_without_the_verbs_still_ends_with_the_same_disk() {
    let events = crowded(6, 500);
    let mut rig = Rig::new(events.clone(), shuffled(6));
    rig.device.limits.flush = false;
    rig.device.limits.write_zeroes_sectors_max = 0;
    rig.run().unwrap();
    assert!(rig.ops().iter().all(|(op, ..)| !matches!(op, BlockOp::Flush | BlockOp::WriteZeroes)));
    assert!(rig.counts.write_zeroes_as_data > 50 && rig.counts.flushes_not_offered > 100);
    assert!(rig.device.disk == model(&events, 1));
    // To the oracle a write-zeroes stays one, whatever carried it out.
    assert!(rig.ledger.issued.iter().any(|r| r.op == BlockOp::WriteZeroes));

    let mut rig = Rig::new(vec![event(BlockOp::Discard, 0, 4096)], |_, _| 1);
    rig.device.limits.discard_sectors_max = 0;
    assert_eq!(rig.run().unwrap().device_requests, 0);
    assert_eq!(rig.counts.discards_not_offered, 1);
}

#[test]
fn large_requests_are_cut_at_the_devices_limits() {
    let events = vec![
        with(BlockOp::Write, 512, 40 * K, |i| i.payload = PayloadRef::Stored(7)),
        event(BlockOp::Discard, 0, 65 * 512),
        event(BlockOp::WriteZeroes, 1 << 20, 33 * 512),
        event(BlockOp::Read, 0, 17 * K),
    ];
    let mut rig = Rig::new(events, |_, _| 10);
    rig.config.iodepth = 2;
    let outcome = rig.run().unwrap();
    let want = [
        (BlockOp::Write, 1, 32),
        (BlockOp::Write, 33, 32),
        (BlockOp::Write, 65, 16),
        (BlockOp::Discard, 0, 64),
        (BlockOp::Discard, 64, 1),
        (BlockOp::WriteZeroes, 2048, 32),
        (BlockOp::WriteZeroes, 2080, 1),
        (BlockOp::Read, 0, 32),
        (BlockOp::Read, 32, 2),
    ];
    assert_eq!(rig.ops(), want);
    assert_eq!((rig.counts.split, outcome.requests, outcome.in_flight_max), (4, 4, 2));
    let from: Vec<u64> = rig.ledger.issued.iter().take(3).map(|r| r.payload_from).collect();
    assert_eq!(from, [0, 16 * K, 32 * K]);
    assert_eq!(rig.ledger.done[0].bytes, 40 * K);
}

fn timed(times: &[u64]) -> Vec<Event> {
    let at = |(n, time): (usize, &u64)| {
        with(BlockOp::Write, n as u64 * 512, 512, |issue| issue.time = Nanos(*time))
    };
    times.iter().enumerate().map(at).collect()
}

fn lateness(rig: &Rig) -> Vec<u64> {
    rig.ledger.done.iter().map(|done| done.issue - done.due.unwrap()).collect()
}

#[test]
fn recorded_pacing_is_exact_under_a_virtual_clock() {
    let mut rig = Rig::new(timed(&[5_000, 5_010, 9_000_000, 9_000_000, 70_000_000]), |_, _| 40_000);
    rig.pacing = Pacing::Recorded { percent: 100 };
    let outcome = rig.run().unwrap();
    let times: Vec<u64> = rig.device.log.iter().map(|(time, _)| *time).collect();
    assert_eq!(times, [0, 10, 8_995_000, 8_995_000, 69_995_000]);
    assert!(lateness(&rig).iter().all(|late| *late == 0));
    assert_eq!(outcome.finished, Nanos(70_035_000));
}

#[test]
fn time_scale_and_loops_keep_the_rate() {
    let mut rig = Rig::new(timed(&[0, 1000, 2000]), |_, _| 10);
    rig.pacing = Pacing::Recorded { percent: 50 };
    rig.config.loops = 2;
    rig.run().unwrap();
    let times: Vec<u64> = rig.device.log.iter().map(|(time, _)| *time).collect();
    assert_eq!(times, [0, 500, 1000, 1500, 2000, 2500]);
}

#[test]
fn a_slow_device_makes_requests_late_but_deadlines_do_not_drift() {
    let mut rig = Rig::new(timed(&[0, 100, 200, 100_000]), |_, _| 1000);
    rig.pacing = Pacing::Recorded { percent: 100 };
    rig.config.iodepth = 1;
    rig.run().unwrap();
    assert_eq!(lateness(&rig), [0, 900, 1800, 0]);
}

#[test]
fn closed_pacing_waits_for_what_had_completed_before() {
    let tagged = |tag, offset| with(BlockOp::Write, offset, 512, |i| i.tag = tag);
    let events = vec![
        tagged(1, 0),
        tagged(2, 512),
        complete(2, 0, 0),
        tagged(3, 1024),
        complete(77, 0, 0),
        complete(1, 0, 0),
        tagged(1, 1536),
    ];
    let mut rig = Rig::new(events, |number, _| [900, 50, 10, 10][number as usize]);
    rig.pacing = Pacing::Closed;
    rig.run().unwrap();
    let times: Vec<u64> = rig.device.log.iter().map(|(time, _)| *time).collect();
    // 3 waits for 2 (at 50) and not for 1; the second use of tag 1 waits for the first (at 900).
    assert_eq!(times, [0, 0, 50, 900]);
}

#[test]
fn windows_take_only_their_part() {
    let mut rig = Rig::new(timed(&[0, 10, 20, 30]), |_, _| 1);
    rig.config.window = Window { event_first: 1, event_end: 3, ..Window::ALL };
    assert_eq!(rig.run().unwrap().events, 2);
    assert_eq!(rig.ops(), [(BlockOp::Write, 1, 1), (BlockOp::Write, 2, 1)]);

    let mut rig = Rig::new(timed(&[0, 10, 20, 30]), |_, _| 1);
    rig.config.window = Window { time_first: Nanos(10), time_end: Nanos(30), ..Window::ALL };
    rig.config.loops = 3;
    rig.config.first_event = 1;
    assert_eq!(rig.run().unwrap().requests, 6);
    let writes: Vec<u64> = rig.ledger.issued.iter().map(|r| r.write).collect();
    assert_eq!(writes, [1, 2, 5, 6, 9, 10], "write numbers count whole traces");
}

#[test]
fn endless_loops_over_nothing_end() {
    let mut rig = Rig::new(timed(&[0, 10]), |_, _| 1);
    rig.config.window = Window { event_first: 5, ..Window::ALL };
    rig.config.loops = u64::MAX;
    assert_eq!(rig.run().unwrap().requests, 0);
}

#[test]
fn what_passes_the_end_is_an_error_or_wraps_or_is_cut() {
    let size = DISK_SECTORS * 512;
    let events = vec![
        event(BlockOp::Write, size - 512, 1024),
        event(BlockOp::Write, size + 4096, 512),
        event(BlockOp::Write, 3 * size - 512, 1024),
    ];
    let error = Rig::new(events.clone(), |_, _| 1).run().unwrap_err();
    assert_eq!(error.kind().exit_code(), 2);
    assert!(error.to_string().contains("event 0"), "{error}");

    let mut rig = Rig::new(events.clone(), |_, _| 1);
    rig.policy.offset = OffsetPolicy::Clip;
    rig.run().unwrap();
    assert_eq!(rig.ops(), [(BlockOp::Write, DISK_SECTORS - 1, 1)]);
    assert_eq!((rig.counts.clipped, rig.counts.clipped_out), (1, 2));

    let mut rig = Rig::new(events, |_, _| 1);
    rig.policy.offset = OffsetPolicy::Wrap;
    rig.config.iodepth = 1;
    rig.run().unwrap();
    let last = DISK_SECTORS - 2;
    assert_eq!(
        rig.ops(),
        [(BlockOp::Write, last, 2), (BlockOp::Write, 8, 1), (BlockOp::Write, last, 2)]
    );
    assert_eq!(rig.counts.wrapped, 3);
}

#[test]
fn offsets_at_the_end_of_the_number_space_are_refused() {
    for policy in [OffsetPolicy::Error, OffsetPolicy::Wrap, OffsetPolicy::Clip] {
        let mut rig = Rig::new(vec![event(BlockOp::Write, u64::MAX - 511, 1024)], |_, _| 1);
        rig.policy.offset = policy;
        assert_eq!(rig.run().unwrap_err().kind().exit_code(), 2);
    }
}

#[test]
fn unaligned_requests_grow_and_discards_shrink() {
    let events = vec![
        event(BlockOp::Read, 5000, 10),
        event(BlockOp::Discard, 100, 8192),
        event(BlockOp::Discard, 100, 50),
        with(BlockOp::Write, 100, 512, |i| i.payload = PayloadRef::Stored(3)),
    ];
    let mut rig = Rig::new(events.clone(), |_, _| 1);
    rig.device.limits.block_bytes = 4096;
    rig.config.iodepth = 1;
    rig.run().unwrap();
    assert_eq!(
        rig.ops(),
        [(BlockOp::Read, 8, 8), (BlockOp::Discard, 8, 8), (BlockOp::Write, 0, 8)]
    );
    assert_eq!((rig.counts.rounded, rig.counts.rounded_restamped), (4, 1));
    assert!(stamp::read_sector(&rig.device.disk[..512]).is_some());

    let mut rig = Rig::new(events, |_, _| 1);
    rig.policy.unaligned = UnalignedPolicy::Error;
    assert!(rig.run().unwrap_err().to_string().contains("whole 512-byte blocks"));
}

#[test]
fn other_devices_are_left_out() {
    let events = vec![
        with(BlockOp::Write, 0, 512, |i| i.stream = StreamId(1)),
        with(BlockOp::Write, 0, 512, |i| i.stream = StreamId(9)),
        event(BlockOp::Write, 512, 512),
    ];
    let mut rig = Rig::new(events, |_, _| 1);
    rig.run().unwrap();
    assert_eq!(rig.ops(), [(BlockOp::Write, 1, 1)]);
    assert_eq!(rig.counts.other_device, 2);
}

#[test]
fn scarce_buffers_and_a_short_ring_only_slow_it_down() {
    let mut rig = Rig::new(crowded(3, 400), shuffled(3));
    rig.device.buffers_max = 3;
    rig.device.limits.depth_max = 5;
    rig.config.iodepth = 64;
    let outcome = rig.run().unwrap();
    assert!(outcome.in_flight_max <= 5);
    assert!(rig.device.disk == model(&rig.events, 1));
    let mut rig = Rig::new(vec![event(BlockOp::Write, 0, 512)], |_, _| 1);
    rig.device.buffers_max = 0;
    assert_eq!(rig.run().unwrap_err().kind().exit_code(), 5);
}

#[test]
fn a_failure_that_the_recording_had_too_is_told_apart() {
    let tagged = |tag, offset| with(BlockOp::Write, offset, 512, |i| i.tag = tag);
    let events = vec![tagged(1, 0), tagged(2, 512), complete(1, 9, 5), complete(2, 30, 0)];
    let mut rig = Rig::new(events, |_, _| 1);
    rig.device.fail = vec![0, 1];
    rig.run().unwrap();
    let answers: Vec<_> = rig.ledger.answers.iter().map(|a| (a.0.event, a.2, a.3)).collect();
    assert_eq!(answers, [(0, BlockStatus::IoErr, true), (1, BlockStatus::IoErr, false)]);
    assert_eq!(rig.ledger.recorded_errors, [5]);
    assert_eq!(rig.ledger.recorded, [(BlockOp::Write, 9), (BlockOp::Write, 30)]);
    assert!(rig.ledger.done.iter().all(|done| !done.ok));
}

#[test]
fn an_interrupt_stops_issuing_and_takes_what_is_in_flight() {
    let mut rig = Rig::new(crowded(1, 5000), shuffled(1));
    let stop = rig.stop.clone();
    rig.ledger.on_answer = Box::new(move |count| stop.store(count >= 100, Ordering::Relaxed));
    let outcome = rig.run().unwrap();
    assert_eq!(outcome.end, End::Interrupted);
    assert!(outcome.requests > 20 && outcome.requests < 100, "{outcome:?}");
    assert_eq!(rig.ledger.answers.len() as u64, outcome.device_requests, "all answers were taken");
}

#[test]
fn an_interrupted_hang_does_not_wait_for_ever() {
    let mut rig = Rig::new(vec![event(BlockOp::Write, 0, 512)], |_, _| u64::MAX);
    rig.stop.store(true, Ordering::Relaxed);
    assert_eq!(rig.run().unwrap().end, End::Interrupted);
}

#[test]
fn a_device_that_stops_answering_is_found() {
    let latency = |number, _: &BlockRequest| if number >= 3 { u64::MAX } else { 10 };
    let writes = (0..8).map(|n| event(BlockOp::Write, n * 512, 512)).collect();
    let mut rig = Rig::new(writes, latency);
    rig.config.iodepth = 4;
    let outcome = rig.run().unwrap();
    let waited = Nanos(30_000_000_000);
    assert_eq!(outcome.end, End::Hung { in_flight: 4, oldest_event: 3, waited });
    assert_eq!(outcome.requests, 3);
    assert_eq!(rig.clock.now(), Nanos(30_000_000_010));
}

#[test]
fn a_hang_is_found_while_deadlines_pass() {
    let mut times: Vec<u64> = (0..100).map(|n| n * 1_000_000_000).collect();
    times[0] = 0;
    let mut rig = Rig::new(timed(&times), |number, _| if number == 0 { u64::MAX } else { 10 });
    rig.pacing = Pacing::Recorded { percent: 100 };
    rig.config.hang_ns = 500_000_000;
    let outcome = rig.run().unwrap();
    assert!(matches!(outcome.end, End::Hung { in_flight: 1, oldest_event: 0, .. }), "{outcome:?}");
}

#[test]
fn two_runs_give_the_same_run_log() {
    let digest = |seed| {
        let mut rig = Rig::new(crowded(8, 2000), shuffled(seed));
        rig.config.iodepth = 64;
        rig.run().unwrap();
        assert!(rig.ledger.log.records() > 2000);
        rig.ledger.log.finish().unwrap()
    };
    assert_eq!(digest(1), digest(1));
    assert_ne!(digest(1), digest(2), "another order of answers is another log");
}

#[test]
fn stale_bytes_of_a_buffer_never_pass_for_an_answer() {
    // The device fails the read and leaves the buffer alone, where the same data stood before.
    let events = vec![
        event(BlockOp::Write, 0, 512),
        event(BlockOp::Read, 0, 512),
        event(BlockOp::Read, 0, 512),
    ];
    let mut rig = Rig::new(events, |_, _| 1);
    rig.config.iodepth = 1;
    rig.device.fail = vec![2];
    rig.run().unwrap();
    let data: Vec<_> = rig.ledger.reads.iter().map(|(_, data)| data.clone()).collect();
    assert!(stamp::read_sector(&data[0]).is_some());
    assert!(stamp::read_sector(&data[1]).is_none());
}
