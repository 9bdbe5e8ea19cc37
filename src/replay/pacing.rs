//! When a request is issued: as fast as the depth allows, at its recorded moment, or once what
//! had completed before it in the recording has completed.

use super::policy::Pacing;
use crate::base::hash::MixMap;
use crate::base::{BlockOp, Nanos};
use crate::trace::{Issue, StreamId};

/// How long before a deadline the thread stops sleeping and polls: more than a host's wake-up
/// latency on an idle machine, little enough to leave the processor to others.
pub const SPIN_NS: u64 = 60_000;

/// Absolute deadlines: start + (recorded time − first recorded time) × scale, so that no error of
/// one wait adds to the next.
#[derive(Debug)]
pub struct Schedule {
    percent: u64,
    start: Option<Nanos>,
    origin: Nanos,
    /// Scaled time at which this pass over the trace begins.
    base: u64,
    /// Recorded time of the latest issue of this pass, since `origin`.
    last: u64,
    issues: u64,
    due: Nanos,
}

impl Schedule {
    /// A schedule that plays the recording in `percent` of its time.
    pub fn new(percent: u64) -> Self {
        let zero = Nanos(0);
        Self { percent, start: None, origin: zero, base: 0, last: 0, issues: 0, due: zero }
    }

    fn scale(&self, ns: u64) -> u64 {
        match ns.checked_mul(self.percent) {
            Some(product) => product / 100,
            None => (ns / 100).saturating_mul(self.percent),
        }
    }

    /// When the request recorded at `time` is to be issued. The first one is due `now`. A request
    /// is never due before the one in front of it: the trace's order is the order of issue.
    pub fn due(&mut self, time: Nanos, now: Nanos) -> Nanos {
        let start = *self.start.get_or_insert_with(|| {
            self.origin = time;
            now
        });
        self.last = self.last.max(time - self.origin);
        self.issues += 1;
        let due = start + self.base.saturating_add(self.scale(self.last));
        self.due = self.due.max(due);
        self.due
    }

    /// The trace begins again: one mean gap after its last request, so that the rate stays.
    pub fn next_loop(&mut self) {
        let gap = self.last / self.issues.saturating_sub(1).max(1);
        self.base = self.base.saturating_add(self.scale(self.last.saturating_add(gap)));
        (self.last, self.issues) = (0, 0);
    }
}

/// Closed-loop order: the jobs under way by the tag they had in the recording. Holds no more
/// entries than jobs, however many requests the recording never saw completed.
#[derive(Default)]
pub struct Closed {
    jobs: MixMap<(u32, u64), u32>,
}

impl Closed {
    /// `job` was issued for this tag.
    pub fn issued(&mut self, stream: StreamId, tag: u64, job: u32) {
        self.jobs.insert((stream.0, tag), job);
    }

    /// `job` has completed in the replay.
    pub fn finished(&mut self, stream: StreamId, tag: u64, job: u32) {
        if self.jobs.get(&(stream.0, tag)) == Some(&job) {
            self.jobs.remove(&(stream.0, tag));
        }
    }

    /// The job that must complete before anything recorded after this completion is issued, if it
    /// has not yet.
    pub fn awaited(&self, stream: StreamId, tag: u64) -> Option<u32> {
        self.jobs.get(&(stream.0, tag)).copied()
    }
}

/// Requests of the recording that wait for their completion; past it the oldest are given up, so
/// that a trace which lost its completions costs bounded memory.
const OPEN_MAX: usize = 1 << 16;

/// The recording's own latencies, found as its events pass by.
#[derive(Default)]
pub struct Latencies {
    open: MixMap<(u32, u64), (Nanos, BlockOp)>,
    /// Requests given up without their completion.
    pub lost: u64,
}

impl Latencies {
    /// An issue passes.
    pub fn issued(&mut self, issue: &Issue) {
        if self.open.len() >= OPEN_MAX {
            self.lost += self.open.len() as u64;
            self.open.clear();
        }
        self.open.insert((issue.stream.0, issue.tag), (issue.time, issue.op));
    }

    /// A completion passes: operation and latency of the request it answers.
    pub fn completed(&mut self, stream: StreamId, tag: u64, time: Nanos) -> Option<(BlockOp, u64)> {
        let (issued, op) = self.open.remove(&(stream.0, tag))?;
        Some((op, time - issued))
    }
}

/// Everything the engine asks about time.
pub struct Pacer {
    /// Deadlines, when the recording's times are kept.
    pub schedule: Option<Schedule>,
    /// Order of completions, when that is kept.
    pub closed: Option<Closed>,
}

impl Pacer {
    /// The state that `pacing` needs.
    pub fn new(pacing: Pacing) -> Self {
        match pacing {
            Pacing::NoStall => Self { schedule: None, closed: None },
            Pacing::Recorded { percent } => {
                Self { schedule: Some(Schedule::new(percent)), closed: None }
            }
            Pacing::Closed => Self { schedule: None, closed: Some(Closed::default()) },
        }
    }
}

/// Asks the kernel to wake this thread when it asked to be woken: the default slack of 50 µs is as
/// large as the error we allow ourselves.
pub fn set_timer_slack() {
    const SLACK_NS: libc::c_ulong = 1;
    // SAFETY: PR_SET_TIMERSLACK takes one integer and touches no memory. Failure only costs
    // precision, which the lateness histogram shows.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, SLACK_NS) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_absolute_and_scaled() {
        let mut schedule = Schedule::new(50);
        assert_eq!(schedule.due(Nanos(1_000), Nanos(7)), Nanos(7));
        assert_eq!(schedule.due(Nanos(3_000), Nanos(999_999)), Nanos(1_007));
        assert_eq!(schedule.due(Nanos(5_001), Nanos(0)), Nanos(2_007));
    }

    #[test]
    fn time_that_goes_back_holds_still() {
        let mut schedule = Schedule::new(100);
        schedule.due(Nanos(100), Nanos(0));
        assert_eq!(schedule.due(Nanos(900), Nanos(0)), Nanos(800));
        assert_eq!(schedule.due(Nanos(50), Nanos(0)), Nanos(800));
    }

    #[test]
    fn loops_keep_the_rate() {
        let mut schedule = Schedule::new(100);
        for time in [10, 20, 30] {
            schedule.due(Nanos(time), Nanos(0));
        }
        schedule.next_loop();
        assert_eq!(schedule.due(Nanos(10), Nanos(0)), Nanos(30));
        assert_eq!(schedule.due(Nanos(20), Nanos(0)), Nanos(40));
    }

    #[test]
    fn hostile_times_saturate() {
        let mut schedule = Schedule::new(1_000_000);
        schedule.due(Nanos(0), Nanos(5));
        assert_eq!(schedule.due(Nanos(u64::MAX), Nanos(5)), Nanos(u64::MAX));
        schedule.next_loop();
        assert_eq!(schedule.due(Nanos(0), Nanos(5)), Nanos(u64::MAX));
    }

    #[test]
    fn a_reused_tag_belongs_to_its_latest_job() {
        let mut closed = Closed::default();
        closed.issued(StreamId(0), 5, 1);
        closed.issued(StreamId(0), 5, 2);
        closed.finished(StreamId(0), 5, 1);
        assert_eq!(closed.awaited(StreamId(0), 5), Some(2));
        closed.finished(StreamId(0), 5, 2);
        assert_eq!(closed.awaited(StreamId(0), 5), None);
    }

    #[test]
    fn lost_completions_cost_bounded_memory() {
        let mut latencies = Latencies::default();
        for tag in 0..3 * OPEN_MAX as u64 {
            let issue = Issue { tag, ..crate::replay::testing::issue(BlockOp::Read, 0, 512) };
            latencies.issued(&issue);
            assert!(latencies.open.len() <= OPEN_MAX);
        }
        assert!(latencies.lost >= 2 * OPEN_MAX as u64);
    }
}
