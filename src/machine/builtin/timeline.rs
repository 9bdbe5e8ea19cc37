//! The devices of a board, and their places in time.

use std::sync::{Mutex, PoisonError};

use super::device::Device;
use crate::base::Nanos;

/// No deadline: later than any.
const NEVER: Nanos = Nanos(u64::MAX);

struct Slot {
    /// A device is reached only through `&mut` of the board. The lock is never taken; it makes the
    /// board shareable between threads although a device is not.
    device: Mutex<Box<dyn Device>>,
    deadline: Nanos,
}

impl Slot {
    fn device(&mut self) -> &mut dyn Device {
        &mut **self.device.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    fn refresh(&mut self) {
        self.deadline = self.device().deadline().unwrap_or(NEVER);
    }
}

/// Devices, with the earliest moment at which one of them has to act by itself.
pub struct Timeline {
    slots: Vec<Slot>,
    next: Nanos,
    /// The latest moment that a device has seen.
    seen: Nanos,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { slots: Vec::new(), next: NEVER, seen: Nanos(0) }
    }
}

impl Timeline {
    /// Adds a device; its index.
    pub fn add(&mut self, device: Box<dyn Device>) -> usize {
        self.slots.push(Slot { device: Mutex::new(device), deadline: NEVER });
        self.refresh();
        self.slots.len() - 1
    }

    /// Looks at every deadline anew: something else than an access may have moved one.
    pub fn refresh(&mut self) {
        self.slots.iter_mut().for_each(Slot::refresh);
        self.find_next();
    }

    fn find_next(&mut self) {
        self.next = self.slots.iter().map(|slot| slot.deadline).min().unwrap_or(NEVER);
    }

    /// The earliest deadline.
    #[inline]
    pub fn next(&self) -> Option<Nanos> {
        (self.next != NEVER).then_some(self.next)
    }

    /// Whether a deadline lies at or before `now`. `now` is asked for only when there is one.
    #[inline]
    pub fn is_due(&self, now: impl FnOnce() -> Nanos) -> bool {
        self.next != NEVER && self.next <= now()
    }

    /// Has every device act whose deadline is `now` or earlier, each at its own moment: in order of
    /// time, and at one moment in the order in which they were added. Whether any did.
    pub fn run(&mut self, now: Nanos) -> bool {
        let mut ran = false;
        while self.next != NEVER && self.next <= now {
            // A deadline that somebody set late is not in a device's past.
            let moment = self.next.max(self.seen);
            self.seen = moment;
            for slot in &mut self.slots {
                if slot.deadline <= moment {
                    slot.device().run(moment);
                    slot.refresh();
                    // A device that does not move on, as when a test fills its line faster than it
                    // is read, must not stop the others' time.
                    slot.deadline = slot.deadline.max(Nanos(moment.0.saturating_add(1)));
                }
            }
            self.find_next();
            ran = true;
        }
        ran
    }

    /// Reads from a window, given by device and number.
    pub fn read(
        &mut self,
        (device, window): (usize, usize),
        offset: u64,
        size: u8,
        now: Nanos,
    ) -> Option<u64> {
        self.seen = self.seen.max(now);
        let slot = self.slots.get_mut(device)?;
        let value = slot.device().read(window, offset, size, self.seen);
        let before = slot.deadline;
        slot.refresh();
        if slot.deadline != before {
            self.find_next();
        }
        Some(value)
    }

    /// Writes to a window. What is written may concern other devices by wire.
    pub fn write(
        &mut self,
        (device, window): (usize, usize),
        offset: u64,
        size: u8,
        value: u64,
        now: Nanos,
    ) {
        self.seen = self.seen.max(now);
        if let Some(slot) = self.slots.get_mut(device) {
            slot.device().write(window, offset, size, value, self.seen);
            self.refresh();
        }
    }

    /// The board's reset line.
    pub fn reset(&mut self, now: Nanos) {
        self.seen = self.seen.max(now);
        let now = self.seen;
        self.slots.iter_mut().for_each(|slot| slot.device().reset(now));
        self.refresh();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    type Log = Arc<Mutex<Vec<(&'static str, u64)>>>;

    /// Ticks with a period; a write of 0 stops it.
    struct Ticker {
        name: &'static str,
        period: u64,
        at: Option<u64>,
        log: Log,
    }

    impl Device for Ticker {
        fn name(&self) -> &'static str {
            self.name
        }
        fn read(&mut self, window: usize, offset: u64, _size: u8, now: Nanos) -> u64 {
            window as u64 + offset + now.0
        }
        fn write(&mut self, _: usize, _: u64, _: u8, value: u64, now: Nanos) {
            self.period = value;
            self.at = (value > 0).then_some(now.0 + value);
        }
        fn deadline(&self) -> Option<Nanos> {
            self.at.map(Nanos)
        }
        fn run(&mut self, now: Nanos) {
            self.log.lock().unwrap().push((self.name, now.0));
            self.at = Some(now.0 + self.period);
        }
        fn reset(&mut self, _now: Nanos) {
            self.at = None;
        }
    }

    fn timeline(log: &Log) -> Timeline {
        let mut timeline = Timeline::default();
        for (name, period) in [("three", 3), ("two", 2)] {
            let ticker = Ticker { name, period, at: Some(period), log: Arc::clone(log) };
            timeline.add(Box::new(ticker));
        }
        timeline
    }

    #[test]
    fn a_jump_runs_every_deadline_at_its_moment_in_order() {
        let log = Log::default();
        let mut timeline = timeline(&log);
        assert_eq!(timeline.next(), Some(Nanos(2)));
        assert!(!timeline.run(Nanos(1)));
        assert!(timeline.run(Nanos(7)));
        let want = [("two", 2), ("three", 3), ("two", 4), ("three", 6), ("two", 6)];
        assert_eq!(*log.lock().unwrap(), want);
        assert_eq!(timeline.next(), Some(Nanos(8)));
    }

    #[test]
    fn an_access_moves_a_deadline_and_reset_takes_all_away() {
        let log = Log::default();
        let mut timeline = timeline(&log);
        assert_eq!(timeline.read((1, 1), 2, 1, Nanos(1)), Some(4));
        assert_eq!(timeline.read((2, 0), 0, 1, Nanos(1)), None);
        timeline.write((1, 0), 0, 1, 0, Nanos(1));
        assert_eq!(timeline.next(), Some(Nanos(3)));
        assert!(!timeline.is_due(|| Nanos(2)) && timeline.is_due(|| Nanos(3)));
        timeline.reset(Nanos(2));
        assert_eq!(timeline.next(), None);
        assert!(!timeline.is_due(|| unreachable!("nobody asks the time for nothing")));
    }
}
