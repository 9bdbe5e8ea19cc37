//! Requests over time: how many arrive, how many are under way, how long they take.

use std::collections::BTreeMap;

use serde::Serialize;

use super::buckets::{Fine, Powers, Row};
use crate::base::{BlockOp, Nanos};
use crate::trace::{Complete, InFlight, Issue, NotRecorded, Trace};

/// Slices that the time of a trace is cut into.
const SLICES: usize = 60;

/// Requests over time.
#[derive(Debug, Serialize)]
pub struct FlowFacts {
    /// From the first to the last event; nanoseconds.
    pub duration_ns: u64,
    /// Requests a second, on average.
    pub arrivals_per_s: f64,
    /// The most in a slice, as a rate.
    pub arrivals_per_s_peak: f64,
    /// Nanoseconds between requests, by powers of two.
    pub gaps_ns: Vec<Row>,
    /// Half of the gaps are no longer; nanoseconds, at most 1/16 too high.
    pub gap_ns_p50: u64,
    /// 99 % of them.
    pub gap_ns_p99: u64,
    /// Standard deviation of the gaps by their mean: 0 is a clock, 1 is random, more is bursts.
    pub gap_variation: f64,
    /// Requests under way; absent where completions are not recorded.
    pub depth: Option<DepthFacts>,
    /// Times from issue to completion, by operation.
    pub latency: BTreeMap<&'static str, LatencyFacts>,
    /// The trace in slices of equal length.
    pub slices: Vec<Slice>,
    /// Length of one; nanoseconds.
    pub slice_ns: f64,
}

/// Requests under way.
#[derive(Debug, Serialize)]
pub struct DepthFacts {
    /// On average over time.
    pub mean: f64,
    /// The most at once.
    pub max: u64,
    /// Those that a request found under way when it came, by powers of two.
    pub at_arrival: Vec<Row>,
    /// Requests that were never answered: they count as under way to the end.
    pub unanswered: u64,
}

/// Times from issue to completion; nanoseconds, quantiles at most 1/16 too high.
#[derive(Debug, Serialize)]
pub struct LatencyFacts {
    /// Requests answered.
    pub count: u64,
    /// Half of them.
    pub p50_ns: u64,
    /// 99 %.
    pub p99_ns: u64,
    /// 99.9 %.
    pub p999_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

/// A slice of the time.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Slice {
    /// Requests that arrived.
    pub arrivals: u64,
    /// Under way on average; absent with [`FlowFacts::depth`].
    pub depth_mean: Option<f64>,
    /// The most under way at once.
    pub depth_max: Option<u64>,
    #[serde(skip)]
    area: f64,
    #[serde(skip)]
    max: u64,
}

impl Slice {
    /// So many are under way for a time; nanoseconds.
    #[inline]
    fn stay(&mut self, depth: u64, time: f64) {
        self.area += depth as f64 * time;
        self.max = self.max.max(depth);
    }
}

/// Gathers the flow.
pub(super) struct Flow {
    timed: bool,
    /// Any request is, and those of which streams.
    answered: bool,
    answered_streams: Vec<bool>,
    first: u64,
    span: u64,
    slices: Vec<Slice>,
    /// The slice of `now`, and the first moment beyond it: a division for each slice, not event.
    slice: usize,
    slice_end: u64,
    /// The latest time seen, and what was under way since.
    now: u64,
    depth: u64,
    depth_max: u64,
    at_arrival: Powers,
    arrivals: u64,
    last_arrival: Option<u64>,
    gaps: Powers,
    gaps_fine: Fine,
    gap_mean: f64,
    gap_squares: f64,
    requests: InFlight<(Nanos, BlockOp)>,
    latency: [Fine; 6],
}

impl Flow {
    pub(super) fn new(trace: &Trace) -> Self {
        let (first, last) = trace.time_span().unwrap_or_default();
        let timed = !trace.summary().not_recorded.contains(NotRecorded::TIMES) && last > first;
        // A merged trace may hold streams of sources that know no answers.
        let answered_streams: Vec<_> =
            trace.totals().iter().map(|totals| totals.completes > 0).collect();
        let mut flow = Self {
            timed,
            answered: answered_streams.contains(&true),
            answered_streams,
            first: first.0,
            span: (last - first).max(1),
            slices: vec![Slice::default(); SLICES],
            slice: 0,
            slice_end: 0,
            now: first.0,
            depth: 0,
            depth_max: 0,
            at_arrival: Powers::default(),
            arrivals: 0,
            last_arrival: None,
            gaps: Powers::default(),
            gaps_fine: Fine::default(),
            gap_mean: 0.0,
            gap_squares: 0.0,
            requests: InFlight::default(),
            latency: Default::default(),
        };
        flow.slice_end = flow.end_of(0);
        flow
    }

    fn slice_of(&self, time: u64) -> usize {
        let at = u128::from(time.saturating_sub(self.first)) * SLICES as u128;
        usize::try_from(at / u128::from(self.span)).unwrap_or(SLICES).min(SLICES - 1)
    }

    /// The first moment beyond a slice; none is beyond the last.
    fn end_of(&self, slice: usize) -> u64 {
        if slice + 1 >= SLICES {
            return u64::MAX;
        }
        let ends = ((slice as u128 + 1) * u128::from(self.span)).div_ceil(SLICES as u128);
        self.first.saturating_add(u64::try_from(ends).unwrap_or(u64::MAX))
    }

    /// Moves to `time`; what goes back in time is taken to happen now.
    #[inline]
    fn advance(&mut self, time: u64) {
        if time <= self.now {
            return;
        }
        if time >= self.slice_end {
            self.pass_slices(time);
        } else if self.answered
            && let Some(slice) = self.slices.get_mut(self.slice)
        {
            slice.stay(self.depth, (time - self.now) as f64);
        }
        self.now = time;
    }

    /// Moves into the slice of `time`, which is a later one.
    fn pass_slices(&mut self, time: u64) {
        let width = self.span as f64 / SLICES as f64;
        let (from, to) = (self.slice, self.slice_of(time));
        (self.slice, self.slice_end) = (to, self.end_of(to));
        if !self.answered {
            return;
        }
        for at in from..=to {
            let start = (self.now - self.first) as f64;
            let end = (time - self.first) as f64;
            let left = if at == from { start } else { at as f64 * width };
            let right = if at == to { end } else { (at + 1) as f64 * width };
            if let Some(slice) = self.slices.get_mut(at) {
                slice.stay(self.depth, (right - left).max(0.0));
            }
        }
    }

    #[inline]
    pub(super) fn issue(&mut self, issue: &Issue) {
        if !self.timed {
            return;
        }
        let time = issue.time.0;
        self.advance(time);
        self.arrivals += 1;
        if let Some(slice) = self.slices.get_mut(self.slice) {
            slice.arrivals += 1;
        }
        if let Some(last) = self.last_arrival {
            let gap = time.saturating_sub(last);
            self.gaps.add(gap);
            self.gaps_fine.add(gap);
            // Welford's way: no sum of squares that grows beyond what a float can tell apart.
            let delta = gap as f64 - self.gap_mean;
            self.gap_mean += delta / self.gaps_fine.total() as f64;
            self.gap_squares += delta * (gap as f64 - self.gap_mean);
        }
        self.last_arrival = Some(time.max(self.last_arrival.unwrap_or(0)));
        if self.answered_streams.get(issue.stream.0 as usize) == Some(&true) {
            self.at_arrival.add(self.depth);
            self.requests.issue(issue.stream, issue.tag, (issue.time, issue.op));
            self.depth = self.requests.len() as u64;
            self.depth_max = self.depth_max.max(self.depth);
            if let Some(slice) = self.slices.get_mut(self.slice) {
                slice.max = slice.max.max(self.depth);
            }
        }
    }

    #[inline]
    pub(super) fn complete(&mut self, complete: &Complete) {
        if !self.timed {
            return;
        }
        self.advance(complete.time.0);
        if let Some((issued, op)) = self.requests.complete(complete.stream, complete.tag) {
            self.latency[op.index()].add(complete.time - issued);
            self.depth = self.requests.len() as u64;
        }
    }

    pub(super) fn facts(mut self) -> Option<FlowFacts> {
        if !self.timed || self.arrivals == 0 {
            return None;
        }
        let end = self.first + self.span;
        self.advance(end);
        let slice_ns = self.span as f64 / SLICES as f64;
        for slice in &mut self.slices {
            if self.answered {
                slice.depth_mean = Some(slice.area / slice_ns);
                slice.depth_max = Some(slice.max);
            }
        }
        let per_s = |count: u64, ns: f64| count as f64 / ns * 1e9;
        let peak = self.slices.iter().map(|slice| slice.arrivals).max().unwrap_or(0);
        let area: f64 = self.slices.iter().map(|slice| slice.area).sum();
        let deviation = (self.gap_squares / self.gaps_fine.total().max(1) as f64).sqrt();
        let depth = self.answered.then(|| DepthFacts {
            mean: area / self.span as f64,
            max: self.depth_max,
            at_arrival: self.at_arrival.rows(),
            unanswered: self.requests.len() as u64 + self.requests.forgotten(),
        });
        Some(FlowFacts {
            duration_ns: self.span,
            arrivals_per_s: per_s(self.arrivals, self.span as f64),
            arrivals_per_s_peak: per_s(peak, slice_ns),
            gaps_ns: self.gaps.rows(),
            gap_ns_p50: self.gaps_fine.quantile(0.5),
            gap_ns_p99: self.gaps_fine.quantile(0.99),
            gap_variation: if self.gap_mean > 0.0 { deviation / self.gap_mean } else { 0.0 },
            depth,
            latency: latencies(&self.latency),
            slices: self.slices,
            slice_ns,
        })
    }
}

fn latencies(by_op: &[Fine; 6]) -> BTreeMap<&'static str, LatencyFacts> {
    let named = BlockOp::ALL.into_iter().map(|op| (op.name(), &by_op[op.index()]));
    let answered = named.filter(|(_, fine)| fine.total() > 0);
    let facts = |fine: &Fine| LatencyFacts {
        count: fine.total(),
        p50_ns: fine.quantile(0.5),
        p99_ns: fine.quantile(0.99),
        p999_ns: fine.quantile(0.999),
        max_ns: fine.max(),
    };
    answered.map(|(name, fine)| (name, facts(fine))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;
    use crate::export::testing::{Made, complete, issue};
    use crate::trace::Event;

    #[test]
    fn slices_hold_what_arrives_and_is_under_way_in_them() {
        const FIRST: u64 = 1_000;
        const SPAN: u64 = 7_919;
        let mut prng = Prng::new(3);
        let mut requests = vec![(0, 3), (SPAN - 5, SPAN)];
        // Long ones over many slices, and gaps with none.
        requests.extend((0..200).map(|_| {
            let from = prng.below(SPAN / 2);
            let longest = 1 + prng.below(900);
            (from, (from + prng.below(longest)).min(SPAN))
        }));
        let mut events: Vec<(u64, bool, u64)> = Vec::new();
        for (tag, (from, to)) in (0..).zip(&requests) {
            events.extend([(*from, false, tag), (*to, true, tag)]);
        }
        events.sort_unstable();
        let mut made = Made::new(&["vda"]);
        for (time, answer, tag) in events {
            made.event(match answer {
                false => {
                    let issue = issue(FIRST + time, 0, BlockOp::Read, 0, 512);
                    Event::Issue(Issue { tag, ..issue })
                }
                true => Event::Complete(complete(FIRST + time, 0, tag)),
            });
        }
        let (_dir, trace) = made.write();
        let mut flow = Flow::new(&trace);
        for event in made.events() {
            match event {
                Event::Issue(issue) => flow.issue(issue),
                Event::Complete(complete) => flow.complete(complete),
                _ => {}
            }
        }
        let facts = flow.facts().unwrap();
        let width = SPAN as f64 / SLICES as f64;
        for (at, slice) in facts.slices.iter().enumerate() {
            let here = |from: u64| (from as usize * SLICES / SPAN as usize).min(SLICES - 1) == at;
            let arrivals = requests.iter().filter(|(from, _)| here(*from)).count();
            assert_eq!(slice.arrivals, arrivals as u64, "slice {at}");
            let (left, right) = (at as f64 * width, (at + 1) as f64 * width);
            let within = |&(from, to): &(u64, u64)| {
                ((to as f64).min(right) - (from as f64).max(left)).max(0.0)
            };
            let area: f64 = requests.iter().map(within).sum();
            let mean = slice.depth_mean.unwrap();
            assert!((mean - area / width).abs() < 1e-6, "slice {at}: {mean}, {}", area / width);
        }
    }

    #[test]
    fn requests_of_a_stream_that_knows_no_answers_are_not_under_way() {
        let mut made = Made::new(&["answered", "not"]);
        made.event(Event::Issue(issue(0, 1, BlockOp::Read, 0, 512)));
        made.event(Event::Issue(Issue { tag: 1, ..issue(10, 0, BlockOp::Read, 0, 512) }));
        made.event(Event::Complete(complete(20, 0, 1)));
        let (_dir, trace) = made.write();
        let mut flow = Flow::new(&trace);
        for event in made.events() {
            match event {
                Event::Issue(issue) => flow.issue(issue),
                Event::Complete(complete) => flow.complete(complete),
                _ => {}
            }
        }
        let depth = flow.facts().unwrap().depth.unwrap();
        assert_eq!((depth.max, depth.unanswered), (1, 0));
    }
}
