//! How long a client lets itself be waited for.

use std::time::{Duration, Instant};

/// What a client must move while others lack the memory that it holds: with less, a few clients that
/// send a byte now and then would keep everyone else out.
const BYTES_PER_SECOND: u64 = 1 << 20;

/// How long a client that does nothing at all may keep us from ending.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// How long any client may, whatever it does.
const END_DEADLINE: Duration = Duration::from_secs(10);

/// Since when a client is waited for. What it moves buys it time, at a least rate.
#[derive(Debug, Default)]
pub(super) struct Pace {
    since: Option<Instant>,
}

impl Pace {
    /// It is waited for now, or is not: since when, less what it bought.
    pub(super) fn waits(&mut self, waits: bool, now: Instant) -> Option<Instant> {
        self.since = waits.then(|| self.since.unwrap_or(now));
        self.since
    }

    /// It took or sent `bytes`.
    pub(super) fn moved(&mut self, bytes: u64, now: Instant) {
        let bought = Duration::from_nanos(bytes.saturating_mul(1_000_000_000 / BYTES_PER_SECOND));
        self.since = self.since.map(|since| since.checked_add(bought).unwrap_or(now).min(now));
    }
}

/// How long may be waited for a client that moved last at `moved`, when the server has been ending
/// since `stopped`. None left: it is let go.
pub(super) fn end_patience(moved: Instant, stopped: Instant, now: Instant) -> Duration {
    let idle = END_PATIENCE.saturating_sub(now.saturating_duration_since(moved));
    let whole = END_DEADLINE.saturating_sub(now.saturating_duration_since(stopped));
    idle.min(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn who_trickles_is_waited_for_since_the_beginning_and_who_is_fast_since_now() {
        let begin = Instant::now();
        let (mut slow, mut fast) = (Pace::default(), Pace::default());
        assert_eq!(slow.waits(true, begin), Some(begin));
        assert_eq!(fast.waits(true, begin), Some(begin));
        for second in 1..=10 {
            slow.moved(1, begin + SECOND * second);
            fast.moved(2 * BYTES_PER_SECOND, begin + SECOND * second);
        }
        let end = begin + SECOND * 10;
        assert!(slow.waits(true, end).unwrap() < begin + SECOND);
        assert_eq!(fast.waits(true, end), Some(end));
        // Between two waits, nothing counts.
        assert_eq!(slow.waits(false, end), None);
        slow.moved(1, end);
        assert_eq!(slow.waits(true, end), Some(end));
    }

    #[test]
    fn an_end_is_waited_for_no_longer_than_to_its_deadline() {
        let stopped = Instant::now();
        assert_eq!(end_patience(stopped, stopped, stopped), END_PATIENCE);
        assert_eq!(end_patience(stopped, stopped, stopped + 2 * SECOND), Duration::ZERO);
        // One that goes on and on.
        for second in 0..20 {
            let now = stopped + SECOND * second;
            let left = end_patience(now, stopped, now);
            assert_eq!(left.is_zero(), second >= 10, "{second}");
        }
    }
}
