//! The divider chain: from the crystal to one update a second and the periodic edges.

use super::bits::*;
use crate::base::{Frequency, Nanos};

const TAP: Frequency = Frequency::new(TAP_HERTZ);
const SECOND: u64 = 1_000_000_000;

/// Table 4: what DV selects. A PC has a 32.768 kHz crystal; the other two time bases are taken as
/// if theirs were fitted, so that each keeps time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeBase {
    /// 4.194304 or 1.048576 MHz.
    Fast,
    /// 32.768 kHz.
    Slow,
    /// The divider is held in reset, or in a test of the factory's.
    Stopped,
}

impl TimeBase {
    /// What register A selects.
    pub fn of(register_a: u8) -> Self {
        match register_a >> DV_SHIFT & 7 {
            0b000 | 0b001 => Self::Fast,
            0b010 => Self::Slow,
            _ => Self::Stopped,
        }
    }

    /// `tUC` of table 6.
    pub fn update_cycle(self) -> Nanos {
        if self == Self::Slow { UPDATE_CYCLE_SLOW } else { UPDATE_CYCLE_FAST }
    }

    /// Table 5: ticks of the fastest tap between two periodic edges for the rate in register A.
    /// The slow time base does not have the two fastest rates and gives 256 and 128 Hz for them.
    pub fn period(self, register_a: u8) -> Option<u64> {
        match (register_a & RS_MASK, self) {
            (0, _) | (_, Self::Stopped) => None,
            (rate @ 1..=2, Self::Slow) => Some(1 << (rate + 6)),
            (rate, _) => Some(1 << (rate - 1)),
        }
    }
}

/// A running divider chain, and how many of its updates have been taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Divider {
    started: Nanos,
    /// What the chain had counted at `started`.
    head_start: Nanos,
    updates: u64,
}

impl Divider {
    /// A chain released from reset at `now`.
    pub fn released(now: Nanos) -> Self {
        Self { started: now, head_start: Nanos(0), updates: 0 }
    }

    /// A chain that has long been running when the machine starts, and has just ended an update:
    /// the others end at whole seconds.
    pub fn at_power_on(update_cycle: Nanos) -> Self {
        let head_start = Nanos(FIRST_UPDATE.0 + update_cycle.0);
        Self { started: Nanos(0), head_start, updates: 1 }
    }

    /// Time on the chain's own scale, on which it was released at 0.
    fn elapsed(&self, now: Nanos) -> u64 {
        (now - self.started).saturating_add(self.head_start.0)
    }

    /// The machine's time of a moment on the chain's scale.
    fn time_of(&self, elapsed: Nanos) -> Nanos {
        self.started + (elapsed - self.head_start)
    }

    /// Takes the updates that have ended by `now` and were not taken before.
    pub fn take_updates(&mut self, now: Nanos, update_cycle: Nanos) -> u64 {
        let first_end = FIRST_UPDATE.0 + update_cycle.0;
        let ended = match self.elapsed(now).checked_sub(first_end) {
            Some(since) => since / SECOND + 1,
            None => 0,
        };
        // A change of time base may have moved the end of an update that was taken.
        let new = ended.saturating_sub(self.updates);
        self.updates += new;
        new
    }

    /// When the update ends that is `ahead` (from 1) updates away.
    pub fn update_end(&self, ahead: u32, update_cycle: Nanos) -> Nanos {
        let seconds = self.updates.saturating_add(u64::from(ahead)).saturating_sub(1);
        let elapsed = Nanos(FIRST_UPDATE.0 + update_cycle.0) + seconds.saturating_mul(SECOND);
        self.time_of(elapsed)
    }

    /// Whether an update is in progress at `now` or will soon begin (table 6).
    pub fn update_in_progress(&self, now: Nanos, update_cycle: Nanos) -> bool {
        let elapsed = self.elapsed(now);
        let since_begin = elapsed.saturating_add(SECOND - FIRST_UPDATE.0) % SECOND;
        let soon = since_begin >= SECOND - TIME_BEFORE_UPDATE.0;
        soon || elapsed >= FIRST_UPDATE.0 && since_begin < update_cycle.0
    }

    /// Whether a periodic edge lies after `from`, at or before `to`.
    pub fn edge_between(&self, period: u64, from: Nanos, to: Nanos) -> bool {
        self.edges(period, from) != self.edges(period, to)
    }

    /// The first periodic edge after `now`.
    pub fn next_edge(&self, period: u64, now: Nanos) -> Nanos {
        let tick = self.edges(period, now).saturating_mul(period).saturating_add(phase(period));
        self.time_of(TAP.time_of(tick))
    }

    /// Periodic edges up to and at `now`.
    fn edges(&self, period: u64, now: Nanos) -> u64 {
        (TAP.ticks(Nanos(self.elapsed(now))) + period - phase(period)) / period
    }
}

/// Ticks from the chain's release to its first periodic edge. The edges stand in a fixed relation
/// to the updates (section "update cycle"): `tPI / 2 + tBUC` after an edge the update begins.
fn phase(period: u64) -> u64 {
    let first_update = TAP_HERTZ / 2;
    (first_update - TICKS_BEFORE_UPDATE - period / 2) % period
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_table_5() {
        let hertz = |base: TimeBase, rate| base.period(rate).map(|ticks| TAP_HERTZ / ticks);
        let slow: Vec<_> = (0..16).filter_map(|rate| hertz(TimeBase::Slow, rate)).collect();
        let common = [8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2];
        assert_eq!(slow, [&[256, 128], &common[..]].concat());
        let fast: Vec<_> = (0..16).filter_map(|rate| hertz(TimeBase::Fast, rate)).collect();
        assert_eq!(fast, [&[32_768, 16_384], &common[..]].concat());
        assert!((0..16).all(|rate| TimeBase::Stopped.period(rate).is_none()));
    }

    #[test]
    fn an_update_begins_half_a_period_after_an_edge_and_its_warning() {
        let chain = Divider::released(Nanos(0));
        for rate in 1..16 {
            let Some(period) = TimeBase::Slow.period(rate) else { continue };
            let warning = TAP.time_of(TAP_HERTZ * 3 / 2 - TICKS_BEFORE_UPDATE);
            let half = TAP.time_of(period / 2).0;
            let edge = chain.next_edge(period, Nanos(warning - Nanos(half + 2)));
            assert!((edge + half).0.abs_diff(warning.0) <= 2, "rate {rate}: {edge:?}");
        }
    }

    #[test]
    fn edges_come_one_period_apart_for_ever() {
        for started in [0, 1, 123_456_789] {
            let chain = Divider::released(Nanos(started));
            for period in [1, 2, 4, 32, 16_384] {
                let mut at = chain.next_edge(period, Nanos(started));
                for _ in 0..1000 {
                    assert!(!chain.edge_between(
                        period,
                        at,
                        Nanos(chain.next_edge(period, at).0 - 1)
                    ));
                    let next = chain.next_edge(period, at);
                    assert!(chain.edge_between(period, at, next));
                    let exact = period * SECOND / TAP_HERTZ;
                    assert!((exact..=exact + 1).contains(&(next - at)), "{period}: {at} {next}");
                    at = next;
                }
            }
        }
    }

    #[test]
    fn an_update_is_taken_once() {
        let cycle = UPDATE_CYCLE_SLOW;
        let mut chain = Divider::released(Nanos(1000));
        let end = chain.update_end(1, cycle);
        assert_eq!(end, Nanos(1000 + 500_000_000 + 1_984_000));
        assert_eq!(chain.take_updates(Nanos(end.0 - 1), cycle), 0);
        assert!(chain.update_in_progress(Nanos(end.0 - 1), cycle));
        assert_eq!(chain.take_updates(end, cycle), 1);
        assert!(!chain.update_in_progress(end, cycle));
        assert_eq!(chain.take_updates(end, cycle), 0);
        assert_eq!(chain.take_updates(end + 3_600 * SECOND, cycle), 3_600);
    }

    #[test]
    fn at_power_on_updates_end_at_whole_seconds() {
        for cycle in [Nanos(0), UPDATE_CYCLE_SLOW] {
            let mut chain = Divider::at_power_on(cycle);
            assert_eq!(chain.take_updates(Nanos(SECOND - 1), cycle), 0);
            assert!(!chain.update_in_progress(Nanos(0), cycle));
            assert_eq!(chain.update_end(1, cycle), Nanos(SECOND));
            assert_eq!(chain.take_updates(Nanos(SECOND), cycle), 1);
        }
    }
}
